"""Which SQL prints a column as Pydantic would print it: `encode(column, type, schema)`.

An encoded column is an expression whose *text form is the JSON*: quotes, escapes and all. It is NULL exactly where the
value is None; what is printed then is the caller's business. What SQL cannot print, and what Pydantic would refuse,
prints REFUSED, and the whole answer is read by the loader path, which prints it or raises.

The value is what the ORM loads (`loaded.py`), the target is Pydantic's core schema. docs/json-types.md is the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import literal_column

from verdigris.loading.json.types import choices, containers, numbers, texts, times
from verdigris.loading.json.types.loaded import loaded
from verdigris.loading.json.types.values import REFUSED, Encoded, Loaded, Unsupported, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    Schema = Mapping[str, Any]

__all__ = ["REFUSED", "Encoded", "Unsupported", "encode", "is_json", "is_json_document", "is_same_kind"]


def encode(
    column: ColumnElement[Any],
    type_: TypeEngine[Any],
    schema: Schema,
    config: Schema | None = None,
) -> Encoded | Unsupported:
    """Return SQL that prints `column`, a value that the ORM would load as `type_` says, as `schema` dumps it.

    `schema` is the core schema of the field's value, without the default, the nullability and the references around it;
    `config` is the core config of the model that has the field.
    """
    found = loaded(column, type_)
    if isinstance(found, Unsupported):
        return found
    return _encoded(found, Wanted(schema, config or {}))


def is_json(type_: TypeEngine[Any]) -> bool:
    """Whether what the ORM loads for a column of a type is what anybody reads from its JSON text."""
    value = loaded(literal_column("NULL", type_), type_)
    if isinstance(value, Unsupported):
        return False
    if value.kind == "list":
        array: Any = value.type
        return is_json(array.item_type)
    return value.kind in {"int", "bool", "str", "json", "hstore"}


def is_json_document(type_: TypeEngine[Any]) -> bool:
    """Whether what the ORM loads for a column of a type is what Python reads from JSON."""
    value = loaded(literal_column("NULL", type_), type_)
    return not isinstance(value, Unsupported) and value.kind == "json"


def is_same_kind(type_: TypeEngine[Any], schema: Schema) -> bool:
    """Whether what the ORM loads for a column of a type is of the kind that a schema is for, and stays as it is.

    True too where only Python knows what is loaded, which `encode` says.
    """
    value = loaded(literal_column("NULL", type_), type_)
    while schema["type"] == "nullable":
        schema = schema["schema"]
    if isinstance(value, Unsupported) or schema["type"] == "any":
        return True
    if value.kind == "json":
        return schema["type"] in {"dict", "list"}
    if schema["type"] == "literal":
        return value.kind in {"str", "int"}
    if value.kind == "list" and schema["type"] == "list":
        array: Any = value.type
        while schema["type"] == "list":
            schema = schema["items_schema"]
        return is_same_kind(array.item_type, schema)
    return bool(_NATURAL.get(value.kind) == schema["type"])


def _encoded(value: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    schema = wanted.schema
    known = texts.special(value, wanted)
    if known is not None:
        return known
    if "serialization" in schema:
        return Unsupported("it has a serializer of its own")
    if schema["type"] == "any":
        return _any(value, schema)
    if schema["type"] == "union":
        return _union(value, wanted)
    encoder = _ENCODERS.get(schema["type"])
    if encoder is None:
        return Unsupported(f"no SQL prints a {schema['type']}")
    if wanted.take("strict") and schema["type"] != "literal" and schema["type"] not in _EXACT[value.kind]:
        return numbers.mismatch(value, f"a strict {schema['type']}")
    found = encoder(value, wanted)
    left = wanted.left()
    return Unsupported(f"no SQL checks {', '.join(left)}") if left and isinstance(found, Encoded) else found


def _any(value: Loaded, schema: Schema) -> Encoded | Unsupported:
    """Print what a value is by itself, under the outermost config: FastAPI leaves that one empty."""
    if value.kind == "json":
        return containers.json(value, booleans=schema.get("booleans", True))
    if value.kind == "enum":
        of: Any = value.type
        return choices.members(value, Wanted({"type": "any"}), list(of.enum_class))
    natural = _NATURAL.get(value.kind)
    if natural is None:
        return numbers.mismatch(value, "JSON")
    return _encoded(value, Wanted(_OPEN.get(natural, {"type": natural})))


def _union(value: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a value as the one choice that is its own type: Pydantic's smart mode takes it before any other."""
    exact = [
        each for each in wanted.schema["choices"] if isinstance(each, dict) and each["type"] == _NATURAL.get(value.kind)
    ]
    if (
        wanted.schema.get("mode", "smart") != "smart"
        or len(exact) != 1
        or len(exact[0].keys() - {"type", "metadata"}) > 0
    ):
        return Unsupported("which member of the union it becomes is decided in Python")
    if value.kind == "float" and wanted.take("ser_json_inf_nan") not in {None, "null"}:
        return Unsupported("inside a union Pydantic writes NaN in another way than outside")
    return _encoded(value, wanted.with_schema(exact[0]))


#: The core schema that takes a kind of value as it is.
_NATURAL = {
    "int": "int", "bool": "bool", "float": "float", "decimal": "decimal", "str": "str", "bytes": "bytes",
    "uuid": "uuid", "date": "date", "datetime": "datetime", "datetime utc": "datetime", "time": "time",
    "time zoned": "time", "timedelta": "timedelta", "list": "list", "enum": "enum", "hstore": "dict",
}  # fmt: skip
#: What a strict field takes: an int for a float is no conversion to Pydantic, a str for an enum is one.
_EXACT = {**{kind: {name} for kind, name in _NATURAL.items()}, "int": {"int", "float"}, "json": {"dict", "list"}}
_EXACT |= {"inet": set(), "cidr": set()}
_OPEN: dict[str, Schema] = {
    "decimal": {"type": "decimal", "allow_inf_nan": True},
    "dict": {"type": "dict"},
    "list": {"type": "list"},
}
_ENCODERS: dict[str, Callable[[Loaded, Wanted], Encoded | Unsupported]] = {
    "int": numbers.integer,
    "float": numbers.floating,
    "decimal": numbers.decimal,
    "bool": numbers.boolean,
    "str": texts.text,
    "bytes": texts.binary,
    "uuid": texts.uuid,
    "enum": choices.enum,
    "literal": choices.literal,
    "date": times.date,
    "datetime": times.moment,
    "time": times.time,
    "timedelta": times.span,
    "list": containers.listed,
    "tuple": containers.listed,
    "dict": containers.mapping,
}
