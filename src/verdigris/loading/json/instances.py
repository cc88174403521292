"""A mapped class as the response model of its own rows, as `table=True` of SQLModel makes one.

An object of the model's own class is an answer as it is: Pydantic looks up no alias, runs no validator of a field and
puts in no default. It writes what the object holds, and in the order in which SQLAlchemy has filled it: neither the
fields' nor the columns', and another one in each process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import ColumnProperty

from verdigris.loading.json.schema import InPython, Model, refuse_serializer
from verdigris.loading.json.types import is_json_document, is_same_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import Mapper

    from verdigris.loading.json.schema import Field, Reader

    Schema = Mapping[str, Any]

#: Core schemas that write their values as what is inside of them does.
_CHECKING = frozenset({"nullable", "default", "function-before", "function-after", "function-wrap"})
#: What other core schemas say of how their values are written; the rest is asked in validating.
_WRITING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("any", "bool", "bytes", "date", "datetime", "decimal", "float", "int", "str"), ()),
    **dict.fromkeys(("time", "timedelta", "uuid"), ()),
    "enum": ("cls", "members", "sub_type", "missing"),
    "literal": ("expected",),
}
#: What Pydantic writes of JSON that was not validated is the JSON, where fields are of these.
_AS_THEY_ARE = {"any", "bool", "int", "str"}
_ANY: Schema = {"type": "any"}


def is_of(schema: Schema, mapper: Mapper[Any]) -> bool:
    """Whether a model's core schema is that of a mapped class, whose rows are read."""
    cls: Any = schema["cls"]
    return cls is mapper.class_ and bool(cls.model_config.get("table"))


def are_in(schema: Any) -> bool:
    """Whether there is a mapped class anywhere in a core schema."""
    if isinstance(schema, dict):
        is_one = schema.get("type") == "model" and hasattr(schema["cls"], "__mapper__")
        return is_one or any(map(are_in, schema.values()))
    return isinstance(schema, list | tuple) and any(map(are_in, schema))


def held(reader: Reader, mapper: Mapper[Any], schema: Schema) -> Model:
    """Return the model whose fields are what an object holds, in its order; raises InPython."""
    cls: Any = schema["cls"]
    if mapper.inherits is not None or mapper.polymorphic_map or len(list(mapper.self_and_descendants)) > 1:
        raise InPython(f"{cls.__name__} is one of several mapped classes, by which its objects are filled")
    if "always" in {schema.get("revalidate_instances"), schema.get("config", {}).get("revalidate_instances")}:
        raise InPython(f"the objects of {cls.__name__} are validated (revalidate_instances='always')")
    fields = _unwrapped(reader, schema["schema"])
    model = reader.model({**schema, "schema": fields, "post_init": None})  # which no loaded object has called
    places = {prop.key: place for place, prop in enumerate(mapper._prop_set)}  # noqa: SLF001 - as loading fills them
    shown = sorted((field for field in model.fields if not field.excluded), key=lambda field: places[field.name])
    config = {name: value for name, value in model.config.items() if name.startswith("ser_")}
    return Model(cls, tuple(map(_by_name, shown)), config)


def written(reader: Reader, mapper: Mapper[Any], field: Field) -> Schema:
    """Return what writes the value that a column gives to its field: what is checked elsewhere is left out of it.

    Raises InPython where the column gives another kind of value than the field says.
    """
    prop = mapper.attrs[field.name]
    if not isinstance(prop, ColumnProperty):
        raise InPython(f"{mapper.class_.__name__}.{field.name} is no column")
    schema = _written(reader, field.schema)
    type_ = prop.columns[0].type
    if not is_same_kind(type_, schema):
        raise InPython("its column gives another kind of value, which is written without being validated")
    return _optional(_of_json(schema) if is_json_document(type_) else schema)


def _of_json(schema: Schema) -> Schema:
    """Return what writes the JSON of a column for a schema that nothing was validated by.

    Pydantic writes each value as what it is, whatever the schema says of it, but for a float, which an int becomes, and
    for an int, which True and False become.
    """
    leaves = set(_leaves(schema))
    return {"type": "any", "booleans": "int" not in leaves} if leaves <= _AS_THEY_ARE else schema


def _leaves(schema: Schema) -> Iterator[str]:
    """Yield the types of what is in lists and dicts, and of their keys."""
    match schema["type"]:
        case "nullable":
            yield from _leaves(schema["schema"])
        case "list":
            yield from _leaves(schema["items_schema"])
        case "dict":
            yield from _leaves(schema["keys_schema"])
            yield from _leaves(schema["values_schema"])
        case other:
            yield other


def _written(reader: Reader, schema: Schema) -> Schema:
    schema = _unwrapped(reader, schema)
    kind = schema["type"]
    if kind == "list":
        items = _written(reader, schema.get("items_schema", _ANY))
        return {"type": kind, "items_schema": items if items["type"] == "list" else _optional(items)}
    if kind == "dict":
        values = _optional(_written(reader, schema.get("values_schema", _ANY)))
        return {"type": kind, "keys_schema": _written(reader, schema.get("keys_schema", _ANY)), "values_schema": values}
    if kind not in _WRITING:
        raise InPython(f"no SQL prints a {kind}")
    said = {name: schema[name] for name in ("type", *_WRITING[kind]) if name in schema}
    return {**said, "allow_inf_nan": True} if kind == "decimal" else said


def _unwrapped(reader: Reader, schema: Schema) -> Schema:
    schema = reader.opened(schema)
    while schema["type"] in _CHECKING:
        refuse_serializer(schema)
        schema = reader.opened(schema["schema"])
    refuse_serializer(schema)
    return schema


def _optional(schema: Schema) -> Schema:
    """Return a schema of a value that may be None: it is written as null whatever the field says."""
    return {"type": "nullable", "schema": schema}


def _by_name(field: Field) -> Field:
    return replace(field, sources=((field.name,),), default=None)
