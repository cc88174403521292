"""Arrays, JSON and hstore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, and_, case, cast, column, func, literal_column, not_, select
from sqlalchemy.dialects.postgresql import JSON, JSONB

from verdigris.loading.json.types.loaded import loaded as loaded_of
from verdigris.loading.json.types.numbers import mismatch
from verdigris.loading.json.types.values import (
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

    from sqlalchemy import ColumnElement

    from verdigris.loading.json.types.values import Schema

#: Item types that PostgreSQL's own JSON of an array prints as Pydantic does, however deep the array is.
_SAME_IN_JSON = {("int", "int"), ("str", "str"), ("bool", "bool"), ("uuid", "uuid")}
_TEXT_OPTIONS = ("str_strip_whitespace", "str_to_lower", "str_to_upper", "str_max_length", "str_min_length")
_JSON_TYPES = {"str": "string", "bool": "boolean"}


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
            flat = loaded.sql if depth == 1 else func.array(select(func.unnest(loaded.sql)).scalar_subquery())
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
    if wanted.schema.keys() - {"type", "metadata", "ref"}:
        return False
    return wanted.schema["type"] != "str" or not any(wanted.config.get(option) for option in _TEXT_OPTIONS)


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
    unnested = (
        func.unnest(loaded.sql).table_valued(column("v", type_.item_type), joins_implicitly=True).render_derived()
    )
    found = encode(unnested.c.v, type_.item_type, items, wanted.config)
    if isinstance(found, Unsupported):
        return Unsupported(f"of its items {found.reason}")
    item = func.coalesce(as_text(found.sql), word("null") if optional else REFUSED, type_=Text())
    array = func.array(select(item).select_from(unnested).correlate_except(unnested).scalar_subquery())
    inside = func.array_to_string(array, word(","), type_=Text())
    return Encoded(checked(loaded, and_(*conditions), joined("[", inside, "]")))


def _sizes(size: ColumnElement[Any], wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    least, most = wanted.take("min_length"), wanted.take("max_length")
    if least:
        yield size >= number(least)
    if most is not None:
        yield size <= number(most)


def mapping(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a dict: a JSON object, or hstore."""
    keys = wanted.take("keys_schema") or {"type": "any"}
    values = wanted.take("values_schema") or {"type": "any"}
    wanted.take("fail_fast")
    if keys["type"] not in {"any", "str"} or not is_plain(wanted.with_schema(keys)):
        return Unsupported("keys that are not plain text are made in Python")
    if wanted.take("min_length") or wanted.take("max_length") is not None:
        return Unsupported("no SQL counts the items of a dict")
    if loaded.kind == "hstore":
        return _hstore(loaded, wanted.with_schema(values))
    if loaded.kind != "json":
        return mismatch(loaded, "a dict")
    return _json_content(loaded, "object", wanted.with_schema(values), "strict $.*")


def _hstore(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    values = wanted.schema
    optional = values["type"] in {"any", "nullable"}
    inner = values["schema"] if values["type"] == "nullable" else values
    if inner["type"] not in {"any", "str"} or not is_plain(wanted.with_schema(inner)):
        return Unsupported("what is not text in an hstore is made in Python")
    printed = cast(cast(loaded.sql, JSON), Text)  # by casts: the extension's functions need not be on the search path
    if optional:
        return Encoded(printed)
    null = func.jsonb_path_exists(cast(loaded.sql, JSONB), literal_column("""'strict $.* ? (@.type() == "null")'"""))
    return Encoded(checked(loaded, not_(null), printed))


def _json_list(loaded: Loaded, wanted: Wanted, items: Schema) -> Encoded | Unsupported:
    if wanted.take("min_length") or wanted.take("max_length") is not None or wanted.schema["type"] != "list":
        return Unsupported("no SQL counts the items of a JSON array")
    return _json_content(loaded, "array", wanted.with_schema(items), "strict $[*]")


def _json_content(loaded: Loaded, form: str, items: Wanted, path: str) -> Encoded | Unsupported:
    """Print JSON whose items have the JSON type that the field asks for; others Pydantic may yet convert."""
    nullable = items.schema["type"] == "nullable"
    inner = items.schema["schema"] if nullable else items.schema
    wanted = _JSON_TYPES.get(inner["type"])
    if inner["type"] != "any" and (wanted is None or not is_plain(items.with_schema(inner))):
        return Unsupported(f"what {inner['type']} JSON holds is validated in Python")
    value = _json_value(loaded)
    typeof = _typeof(loaded)
    condition = typeof == word(form)
    if wanted is not None:
        allowed = f'@.type() != "{wanted}"' + (' && @.type() != "null"' if nullable else "")
        other = func.jsonb_path_exists(cast(loaded.sql, JSONB), literal_column(f"'{path} ? ({allowed})'"))
        return Encoded(
            case(
                (and_(condition, not_(case((condition, other), else_=literal_column("true")))), value),
                (typeof != word("null"), REFUSED),
            )
        )
    return Encoded(case((condition, value), (typeof != word("null"), REFUSED)))


def json(loaded: Loaded) -> Encoded | Unsupported:
    """Print any JSON as the database keeps it; its null is Python's None."""
    return Encoded(case((_typeof(loaded) != word("null"), _json_value(loaded))))


def _typeof(loaded: Loaded) -> ColumnElement[str]:
    return (
        func.jsonb_typeof(loaded.sql, type_=Text())
        if isinstance(loaded.type, JSONB)
        else func.json_typeof(loaded.sql, type_=Text())
    )


def _json_value(loaded: Loaded) -> ColumnElement[str]:
    return cast(loaded.sql, Text)
