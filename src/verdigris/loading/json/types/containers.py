"""Arrays, JSON and hstore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, and_, case, cast, column, exists, func, literal_column, not_, or_, select
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from verdigris.loading.json.types.loaded import loaded as loaded_of
from verdigris.loading.json.types.numbers import mismatch
from verdigris.loading.json.types.values import (
    BLANKS,
    REFUSED,
    Encoded,
    Loaded,
    Unsupported,
    Wanted,
    as_text,
    checked,
    joined,
    number,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, TableValuedAlias
    from sqlalchemy.sql.compiler import SQLCompiler

    from verdigris.loading.json.types.values import Schema

#: What reads JSON as Python's own `json` does, which is what the ORM is taken to load.
_READ_ALIKE = frozenset({"json.loads", "orjson.loads"})
#: Item types that PostgreSQL's own JSON of an array prints as Pydantic does, however deep the array is.
_SAME_IN_JSON = {("int", "int"), ("str", "str"), ("bool", "bool"), ("uuid", "uuid")}
_TEXT_OPTIONS = ("str_to_lower", "str_to_upper", "str_max_length", "str_min_length")
_JSON_TYPES = {"str": "string", "bool": "boolean"}
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F]"
_NO_CHARACTER = rf"\\u0000|{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}"
_STRIPS = "str_strip_whitespace"


def listed(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a list: an array, or a JSON array."""
    schema = wanted.schema
    items: Schema | None = wanted.take("items_schema")
    if schema["type"] == "tuple":
        if wanted.take("variadic_item_index") != 0 or len(schema["items_schema"]) != 1:
            return Unsupported("a tuple of so many items is counted in Python")
        items = schema["items_schema"][0]
    wanted.take("fail_fast")
    items = items or {"type": "any"}
    if loaded.kind == "json":
        return _json_list(loaded, wanted, items)
    if loaded.kind != "list":
        return mismatch(loaded, f"a {schema['type']}")
    conditions = list(_sizes(func.cardinality(loaded.sql), wanted))
    depth, items, optional = _opened(items)
    type_: Any = loaded.type
    item_type = type_.item_type
    whole = _whole(loaded, item_type, wanted.with_schema(items))
    ndims = func.coalesce(func.array_ndims(loaded.sql), number(depth))
    if conditions and depth > 1:  # what Python counts are the lists
        return Unsupported("no SQL counts the items of an array of arrays")
    conditions += [loaded.sql.is_not(None), ndims == number(depth)]
    if whole:
        if not optional:
            unnested = _unnested(loaded, item_type)
            flat = loaded.sql if depth == 1 else _array(unnested.c.v, unnested)
            conditions.append(func.array_position(flat, literal_column("NULL")).is_(None))
        return Encoded(checked(loaded, and_(*conditions), cast(func.to_json(loaded.sql), Text)))
    if depth > 1:
        return Unsupported("an array of arrays of such items is walked in Python")
    return _mapped(loaded, wanted, items, conditions, optional=optional)


def _whole(loaded: Loaded, item_type: Any, items: Wanted) -> bool:
    item = loaded_of(loaded.sql, item_type)
    if isinstance(item, Unsupported) or not is_plain(items):
        return False
    type_ = items.schema["type"]
    return (item.kind, type_) in _SAME_IN_JSON or (type_ == "any" and item.kind in {"int", "bool"})


def is_plain(wanted: Wanted) -> bool:
    """Whether a value goes through unchanged: the schema has no options, and the config none for texts."""
    return may_be_stripped(wanted) and not strips(wanted)


def may_be_stripped(wanted: Wanted) -> bool:
    """Whether a value goes through unchanged, but for blanks around a text."""
    if wanted.schema.keys() - {"type", "metadata", "ref"}:
        return False
    return wanted.schema["type"] != "str" or not any(wanted.config.get(option) for option in _TEXT_OPTIONS)


def strips(wanted: Wanted) -> bool:
    """Whether blanks around a value are taken away."""
    return wanted.schema["type"] == "str" and bool(wanted.config.get(_STRIPS))


def _opened(items: Schema) -> tuple[int, Schema, bool]:
    """Return how many lists are one in another, the schema of the innermost items, whether these may be None."""
    depth = 1
    while items["type"] == "list" and not items.keys() - {"type", "items_schema", "metadata", "ref"}:
        depth, items = depth + 1, items.get("items_schema") or {"type": "any"}
    if items["type"] == "nullable":
        return depth, items["schema"], True
    return depth, items, items["type"] == "any"


def _mapped(
    loaded: Loaded, wanted: Wanted, items: Schema, conditions: list[ColumnElement[bool]], *, optional: bool
) -> Encoded | Unsupported:
    """Print a list item by item."""
    from verdigris.loading.json.types import encode

    type_: Any = loaded.type
    unnested = _unnested(loaded, type_.item_type)
    found = encode(unnested.c.v, type_.item_type, items, wanted.config)
    if isinstance(found, Unsupported):
        return Unsupported(f"of its items {found.reason}")
    item = func.coalesce(as_text(found.sql), word("null") if optional else REFUSED, type_=Text())
    inside = func.array_to_string(_array(item, unnested), word(","), type_=Text())
    return Encoded(checked(loaded, and_(*conditions), joined("[", inside, "]")))


def _unnested(loaded: Loaded, item_type: Any) -> TableValuedAlias:
    """Return the items of an array, of arrays too, as rows of one column `v`."""
    return func.unnest(loaded.sql).table_valued(column("v", item_type), joins_implicitly=True).render_derived()


def _array(item: ColumnElement[Any], rows: TableValuedAlias) -> ColumnElement[Any]:
    """Return an array of an expression for each of some rows; all else in it belongs to the statement around it."""
    return func.array(select(item).select_from(rows).correlate_except(rows).scalar_subquery())


def _sizes(size: ColumnElement[Any], wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    least, most = wanted.take("min_length"), wanted.take("max_length")
    if least:
        yield size >= number(least)
    if most is not None:
        yield size <= number(most)


def mapping(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a dict: a JSON object, or hstore."""
    keys = wanted.with_schema(wanted.take("keys_schema") or {"type": "any"})
    values = wanted.take("values_schema") or {"type": "any"}
    wanted.take("fail_fast")
    if keys.schema["type"] not in {"any", "str"} or not may_be_stripped(keys):
        return Unsupported("keys that are not plain text are made in Python")
    if wanted.take("min_length") or wanted.take("max_length") is not None:
        return Unsupported("no SQL counts the items of a dict")
    inner = values["schema"] if values["type"] == "nullable" else values
    if loaded.kind == "hstore" and inner["type"] not in {"any", "str"}:
        return Unsupported("what is not text in an hstore is made in Python")
    if loaded.kind == "hstore":  # by a cast: the extension's functions need not be on the search path
        loaded = Loaded("json", cast(loaded.sql, JSON), JSON())
    if loaded.kind != "json":
        return mismatch(loaded, "a dict")
    return _json_content(loaded, "object", wanted.with_schema(values), keys)


def _json_list(loaded: Loaded, wanted: Wanted, items: Schema) -> Encoded | Unsupported:
    if wanted.take("min_length") or wanted.take("max_length") is not None or wanted.schema["type"] != "list":
        return Unsupported("no SQL counts the items of a JSON array")
    return _json_content(loaded, "array", wanted.with_schema(items))


def _json_content(loaded: Loaded, form: str, items: Wanted, keys: Wanted | None = None) -> Encoded | Unsupported:
    """Print JSON whose items have the JSON type that the field asks for; others Pydantic may yet convert."""
    nullable = items.schema["type"] == "nullable"
    inner = items.with_schema(items.schema["schema"] if nullable else items.schema)
    kind = inner.schema["type"]
    if kind != "any" and (kind not in _JSON_TYPES or not may_be_stripped(inner)):
        return Unsupported(f"what {kind} JSON holds is validated in Python")
    others: list[ColumnElement[bool]] = []
    if kind != "any":
        allowed = f'@.type() != "{_JSON_TYPES[kind]}"' + (' && @.type() != "null"' if nullable else "")
        path = "$.*" if form == "object" else "$[*]"
        others.append(func.jsonb_path_exists(cast(loaded.sql, JSONB), literal_column(f"'strict {path} ? ({allowed})'")))
    if strips(inner):
        others.append(_has_blanks(loaded, "each_text" if form == "object" else "array_elements_text"))
    if keys is not None and strips(keys):
        others.append(_has_blanks(loaded, "object_keys"))
    typeof = _typeof(loaded)
    condition = and_(typeof == word(form), *_sound(loaded))
    if others:  # asked of this form alone: of another they are errors
        condition = and_(condition, not_(case((condition, or_(*others)), else_=literal_column("true"))))
    return Encoded(case((condition, _json_value(loaded)), (typeof != word("null"), REFUSED)))


def _has_blanks(loaded: Loaded, function: str) -> ColumnElement[bool]:
    """Return whether one of the texts that a function of JSON gives would be another without the blanks around it."""
    prefix = "jsonb" if isinstance(loaded.type, JSONB) else "json"
    call = getattr(func, f"{prefix}_{function}")(loaded.sql)
    rows = call.table_valued("key", "value") if function == "each_text" else call.table_valued(column("value", Text))
    if function == "object_keys":
        rows = rows.render_derived()
    changed = rows.c.value != func.btrim(rows.c.value, word(BLANKS))
    return exists(select(literal_column("1")).select_from(rows).where(changed).correlate_except(rows))


def json(loaded: Loaded, *, booleans: bool = True) -> Encoded | Unsupported:
    """Print any JSON as the database keeps it, `booleans` in it or not; its null is Python's None."""
    there, sound = _typeof(loaded) != word("null"), _sound(loaded)
    if not booleans:  # the form of a text that is no JSON to PostgreSQL's functions is asked first
        path: ColumnElement[Any] = literal_column("""'strict $.** ? (@.type() == "boolean")'""")
        none = not_(func.jsonb_path_exists(cast(loaded.sql, JSONB), path))
        sound = [case((and_(*sound), none), else_=literal_column("false"))] if sound else [none]
    refused = [(there, REFUSED)] if sound else []
    return Encoded(case((and_(there, *sound), _json_value(loaded)), *refused))


def _sound(loaded: Loaded) -> list[ColumnElement[bool]]:
    r"""Return the condition under which a `json` holds characters only: `jsonb` has no others.

    Half a surrogate pair is taken in by Python, which cannot write it; \u0000 is an error to most functions here.
    """
    if isinstance(loaded.type, JSONB):
        return []
    text = _json_value(loaded)
    odd = text.op("~", is_comparison=True)(word(_NO_CHARACTER))
    return [case((func.strpos(text, word("\\u")) == literal_column("0"), literal_column("true")), else_=not_(odd))]


def _typeof(loaded: Loaded) -> ColumnElement[str]:
    typeof = func.jsonb_typeof if isinstance(loaded.type, JSONB) else func.json_typeof
    return typeof(loaded.sql, type_=Text())


def _json_value(loaded: Loaded) -> ColumnElement[str]:
    return json_text(loaded.sql)


class json_text(FunctionElement[str]):  # noqa: N801 - reads as a function
    """The text of a JSON value as the database keeps it; InPython for an engine that reads JSON in a way of its own."""

    name = "json_text"
    type = Text()
    inherit_cache = True


@compiles(json_text)
def _json_text(element: json_text, compiler: SQLCompiler, **options: Any) -> str:
    from verdigris.loading.json.schema import InPython

    own = getattr(compiler.dialect, "_json_deserializer", None)
    if own is not None and f"{getattr(own, '__module__', '')}.{getattr(own, '__name__', '')}" not in _READ_ALIKE:
        raise InPython("the json_deserializer of the engine, which makes other values of JSON")
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"
