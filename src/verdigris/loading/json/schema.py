"""What Pydantic itself says of a response type: its core schema, from which validators and serializers are made.

The core schema knows what annotations do not: generics and forward references resolved, annotated validators and
serializers in their places, aliases generated, defaults merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic_core import SchemaSerializer

from verdigris.loading.json.types.texts import is_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Schema = Mapping[str, Any]

#: What an answer is for: to be sent as Pydantic would dump it, or to be read back by Pydantic into objects.
Purpose = Literal["dump", "load"]

_FUNCTIONS = frozenset({"function-before", "function-after", "function-wrap", "function-plain"})
#: Core schemas that read their own JSON text back as the same value.
_READABLE = frozenset(
    {
        "int",
        "float",
        "decimal",
        "bool",
        "str",
        "bytes",
        "uuid",
        "enum",
        "literal",
        "date",
        "datetime",
        "time",
        "timedelta",
    }
    | {"list", "tuple", "set", "frozenset", "dict", "nullable", "default"}
)
#: The types that JSON has itself: of a union of these Pydantic takes the one that the text has.
_JSON_OWN = frozenset({"int", "bool", "str", "float"})


class InPython(Exception):  # noqa: N818 - not an error: the answer is made another way
    """Something that only Python can do: why, and at which field."""

    def __init__(self, reason: str, at: Field | None = None) -> None:
        super().__init__(reason)
        self.at = at

    def __str__(self) -> str:
        reason = str(self.args[0])
        return f"{self.at}: {reason}" if self.at is not None else reason


@dataclass(frozen=True, slots=True)
class Default:
    """What a field holds when its attribute does not exist."""

    value: Any = None
    factory: bool = False
    validated: bool | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model as Pydantic reads it from an object's attributes, and writes it."""

    owner: str
    name: str
    key: str
    sources: tuple[tuple[str | int, ...], ...]
    schema: Schema
    default: Default | None
    excluded: bool

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"


@dataclass(frozen=True, slots=True)
class Model:
    """A model's fields in their order, and its core config."""

    cls: type[BaseModel]
    fields: tuple[Field, ...]
    config: Schema

    @property
    def name(self) -> str:
        return self.cls.__name__


@dataclass(slots=True)
class Reader:
    """Reads the core schema of one response type."""

    purpose: Purpose
    by_alias: bool = True
    definitions: dict[str, Schema] = field(default_factory=dict)

    def of(self, type_: Any) -> Schema:
        """Return the core schema of a type, its definitions taken in."""
        try:
            schema: Any = TypeAdapter(type_).core_schema
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
            raise InPython(f"Pydantic has no schema for {type_}: {error}") from error
        return self.opened(schema)

    def opened(self, schema: Any) -> Schema:
        """Return a schema itself where it is a reference or stands beside definitions, which are taken in."""
        while schema["type"] in {"definitions", "definition-ref"}:
            if schema["type"] == "definitions":
                self.definitions.update((each["ref"], each) for each in schema["definitions"])
                schema = schema["schema"]
            else:
                schema = self.definitions[schema["schema_ref"]]
        return dict(schema) if not isinstance(schema, dict) else schema

    def bare(self, schema: Schema) -> tuple[Schema, bool]:
        """Return a schema without the references, defaults and optionality around it, and whether None is a value."""
        nullable = False
        while True:
            schema = self.opened(schema)
            if schema["type"] == "nullable":
                nullable = True
            elif schema["type"] != "default" and not self._is_transparent(schema):
                return schema, nullable
            if self.purpose == "dump":
                refuse_serializer(schema)
            schema = schema["schema"]

    def unrooted(self, schema: Schema) -> tuple[Schema, bool, Schema | None]:
        """Return the same as `bare`, for a root model what it holds; and the config of the root model, if it is one."""
        bare, nullable = self.bare(schema)
        config: Schema | None = None
        while bare["type"] == "model" and bare.get("root_model"):
            cls = bare["cls"]
            self._refuse_code(bare, cls)
            if bare.get("custom_init"):
                refuse_init(cls)
            config = bare.get("config", {})
            bare, may_be_none = self.bare(bare["schema"])
            if may_be_none:
                raise InPython(f"a {cls.__name__} that holds None is not None")
        return bare, nullable, config

    def models(self, schema: Schema) -> Iterator[Schema]:
        """Yield the models that a value of this schema may be or hold, as far as lists and unions go."""
        bare, _ = self.bare(schema)
        match bare["type"]:
            case "model" if not bare.get("root_model"):
                yield bare
            case "model":
                yield from self.models(bare["schema"])
            case "list" | "set" | "frozenset" | "generator" | "nullable" | "json-or-python":
                items = bare.get("items_schema") or bare.get("json_schema")
                if items is not None:
                    yield from self.models(items)
            case "union" | "tagged-union":
                for choice in choices(bare):
                    yield from self.models(choice)
            case kind if kind in _FUNCTIONS and "schema" in bare:
                yield from self.models(bare["schema"])

    def items(self, schema: Schema) -> Schema | None:
        """Return the schema of a list's items; None for anything but a list."""
        if schema["type"] == "json-or-python" and _is_sequence(schema):
            schema = schema["json_schema"]
        if schema["type"] != "list":
            return None
        limits = sorted(schema.keys() & {"min_length", "max_length", "strict"})
        if limits and self.purpose == "dump":
            raise InPython(f"the length or kind of a list is checked ({', '.join(limits)})")
        if self.purpose == "dump":
            refuse_serializer(schema)
        items: Schema = schema.get("items_schema", {"type": "any"})
        return items

    def model(self, schema: Schema) -> Model:
        """Return the model of a bare `model` schema; raises InPython where it is made or written by Python code."""
        cls: type[BaseModel] = schema["cls"]
        self._refuse_code(schema, cls)
        inner = self.opened(schema["schema"])
        if inner["type"] != "model-fields":
            raise InPython(f"{cls.__name__} is validated by code of its own")
        if self.purpose == "dump" and inner.get("computed_fields"):
            name = inner["computed_fields"][0]["property_name"]
            raise InPython(f"{cls.__name__}.{name} is computed in Python")
        config = schema.get("config", {})
        if config.get("extra_fields_behavior") == "allow":
            raise InPython(f"{cls.__name__} takes extra attributes (extra='allow')")
        fields = tuple(self._field(cls, name, each, config) for name, each in inner["fields"].items())
        return Model(cls, fields, config)

    def inlined(self, schema: Schema, above: tuple[str, ...] = ()) -> Schema:
        """Return a schema of plain values with every reference in it replaced by what it refers to."""
        if schema["type"] == "definition-ref":
            name = schema["schema_ref"]
            if name in above:
                raise InPython("its type contains itself")
            return self.inlined(self.definitions[name], (*above, name))
        return {key: self._inlined(value, above) for key, value in schema.items()}

    def default(self, field: Field, config: Schema, *, exclude_none: bool) -> str:
        """Return the JSON text of a field's default."""
        if field.default is None:
            raise InPython("no attribute has its name, so that Pydantic would refuse every row")
        if field.default.factory:
            raise InPython("its default is made by a function")
        validated = field.default.validated
        if config.get("validate_default") if validated is None else validated:
            raise InPython("its default is validated in Python")
        refuse_serializer(self.bare(field.schema)[0])
        whole: Any = {"type": "definitions", "schema": field.schema, "definitions": list(self.definitions.values())}
        text = SchemaSerializer(whole, cast("Any", config)).to_json(
            field.default.value, by_alias=self.by_alias, exclude_none=exclude_none, warnings="none"
        )
        return text.decode()

    def _inlined(self, value: Any, above: tuple[str, ...]) -> Any:
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return self.inlined(value, above)
        if isinstance(value, list):
            return [self._inlined(each, above) for each in value]
        return value

    def _is_transparent(self, schema: Schema) -> bool:
        """Whether a validator runs when objects are made from the answer, and has nothing to say about its text."""
        return self.purpose == "load" and schema["type"] == "function-after"

    def _field(self, cls: type[BaseModel], name: str, each: Schema, config: Schema) -> Field:
        label = f"{cls.__name__}.{name}"
        if self.purpose == "dump" and "serialization_exclude_if" in each:
            raise InPython(f"{label} is left out by a function of its own (exclude_if)")
        schema, default = self._defaulted(each["schema"], label)
        alias = each.get("serialization_alias") if self.purpose == "dump" and self.by_alias else None
        return Field(
            owner=cls.__name__,
            name=name,
            key=alias or name,
            sources=tuple(_sources(name, each.get("validation_alias"), config)),
            schema=schema,
            default=default,
            excluded=bool(each.get("serialization_exclude")) and self.purpose == "dump",
        )

    def _defaulted(self, schema: Schema, label: str) -> tuple[Schema, Default | None]:
        opened = self.opened(schema)
        if opened["type"] != "default":
            return schema, None
        if self.purpose == "dump":
            refuse_serializer(opened, label)
        if "default_factory" in opened:
            return opened["schema"], Default(factory=True)
        return opened["schema"], Default(opened["default"], validated=opened.get("validate_default"))

    def _refuse_code(self, schema: Schema, cls: type[BaseModel]) -> None:
        if self.purpose == "load":
            return
        refuse_serializer(schema, cls.__name__)
        if schema.get("post_init") and not _only_private_attributes(cls):
            raise InPython(f"{cls.__name__} has a model_post_init")


def refuse_init(cls: type) -> None:
    """Raise InPython for an `__init__` of somebody's own; that of SQLModel does what Pydantic's does."""
    made: Any = cls
    if not made.__init__.__module__.startswith("sqlmodel."):
        raise InPython(f"{cls.__name__} has an __init__ of its own")


def readable(schema: Schema, config: Schema, *, is_json: bool) -> Schema:
    """Return a config under which Pydantic reads a printed value back as it was; raises InPython where nothing says so.

    A union or a field without a type would take the text itself for the value, unless what was printed is a value of
    JSON's own types (`is_json`).
    """
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if is_address(each) or (is_json and (each["type"] == "any" or _is_of_json(each))):
            continue
        if each["type"] not in _READABLE:
            raise InPython("what its JSON text becomes may be something else than the value")
        for key in ("schema", "items_schema", "keys_schema", "values_schema"):
            inside = each.get(key, ())
            waiting += [inside] if isinstance(inside, dict) else inside
    return {**config, "ser_json_inf_nan": "strings", "ser_json_bytes": config.get("val_json_bytes", "utf8")}


def _is_of_json(schema: Schema) -> bool:
    return schema["type"] == "union" and all(each["type"] in _JSON_OWN for each in choices(schema))


def choices(schema: Schema) -> list[Schema]:
    """Return the members of a union's core schema."""
    found = schema["choices"]
    members = found.values() if isinstance(found, dict) else found
    return [member[0] if isinstance(member, tuple) else member for member in members]


def function(schema: Schema) -> str | None:
    """Name the function of a validator's core schema; None for any other schema."""
    if schema["type"] not in _FUNCTIONS:
        return None
    called = schema["function"]["function"]
    return str(getattr(called, "__qualname__", called))


def _sources(name: str, alias: Any, config: Schema) -> Iterator[tuple[str | int, ...]]:
    """Yield the attribute paths that Pydantic tries, in its order."""
    by_alias = config.get("validate_by_alias", True) is not False
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    if alias is not None and by_alias:
        if isinstance(alias, str):
            yield (alias,)
        elif alias and isinstance(alias[0], list):
            yield from (tuple(path) for path in alias)
        else:
            yield tuple(alias)
    if alias is None or by_name or not by_alias:
        yield (name,)


def refuse_serializer(schema: Schema, what: str = "it") -> None:
    """Raise InPython where a schema is written by a function."""
    if "serialization" in schema:
        raise InPython(f"{what} has a serializer of its own")


def _is_sequence(schema: Schema) -> bool:
    """Whether this is Pydantic's own schema for `Sequence[...]`, which dumps as a list does."""
    written = schema.get("serialization", {}).get("function")
    return getattr(written, "__module__", "").startswith("pydantic.") and schema["json_schema"]["type"] == "list"


def _only_private_attributes(cls: type[BaseModel]) -> bool:
    return getattr(cls.model_post_init, "__module__", "").startswith("pydantic.")
