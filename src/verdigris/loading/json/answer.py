"""What a response type asks of a mapped class: one row, perhaps one, a list or a page; and how SQL writes it."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, get_origin

from pydantic import Field, TypeAdapter
from sqlalchemy import inspect

from verdigris.errors import ConfigurationError
from verdigris.loading.json import instances
from verdigris.loading.json.planner import Options, Planner
from verdigris.loading.json.schema import Field as SchemaField
from verdigris.loading.json.schema import InPython, Reader, function, refuse_init
from verdigris.loading.naming import type_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Mapper

    from verdigris.loading.json.nodes import Node

    Schema = Mapping[str, Any]

Form = Literal["one", "optional", "many", "page"]
Part = Literal["items", "total", "limit", "offset", "constant"]
_COUNTED: dict[str, Part] = {"total": "total", "limit": "limit", "offset": "offset"}


@dataclass(frozen=True, slots=True)
class PageMember:
    """One field of a page: its rows, a number that the statement knows, or a constant's text."""

    name: str
    key: str
    part: Part
    text: str = ""
    #: Whether None is a value for it: a limit that there is not.
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A response type against a mapped class: what SQL writes, or why Python does."""

    form: Form
    node: Node | None
    page: tuple[PageMember, ...] = ()
    reason: str | None = None
    #: The models that a row may become, for `load()`.
    models: tuple[type, ...] = ()
    #: Whether a row is its only column, and no object.
    is_scalar: bool = False
    #: Whether objects of mapped classes are in it as they are, with what they hold.
    holds_objects: bool = False

    @property
    def is_list(self) -> bool:
        """Whether it holds any number of rows."""
        return self.form in {"many", "page"}

    @property
    def row(self) -> Any:
        """What a row may become, as `load()` takes it."""
        return functools.reduce(operator.or_, self.models) if self.models else None

    def refuse_no_model(self, entity: type, type_: Any) -> None:
        """Raise ConfigurationError for objects of `entity` that shall become something without a Pydantic model."""
        if self.models:
            return
        name, row = entity.__name__, f"{entity.__name__}Out"
        raise ConfigurationError(
            f"rows of {name} cannot be read into {type_name(type_)}: there is no Pydantic model in it.",
            why="What is read, and by which name it is answered, is what the fields of a response model say.",
            do=(
                f"class {row}(BaseModel): ...",
                f"await db.json(select({name}), {f'list[{row}]' if self.is_list else row})",
                f"or read columns, whose names are in the statement:   select({name}.id)",
            ),
            page="docs/json-read.md",
        )

    def __str__(self) -> str:
        if self.node is None:
            return f"read by load(), because of {self.reason}"
        return "\n".join(self.node.lines("PostgreSQL writes the answer, in one statement"))


class Rows(Protocol):
    """What each row of a statement holds: a mapped class, or columns."""

    def has(self, name: str) -> bool:
        """Whether something of a row has this name."""

    def is_scalar(self, reader: Reader, schema: Schema) -> bool:
        """Whether a row is its only column, and no object."""

    def node(self, planner: Planner, schema: Schema) -> Node:
        """Return the node that prints a row; raises InPython."""


@dataclass(frozen=True, slots=True)
class _Objects:
    mapper: Mapper[Any]

    def has(self, name: str) -> bool:
        return name in self.mapper.all_orm_descriptors or hasattr(self.mapper.class_, name)

    def is_scalar(self, reader: Reader, schema: Schema) -> bool:
        return False

    def node(self, planner: Planner, schema: Schema) -> Node:
        return planner.object(self.mapper, schema)


def answer(entity: type, type_: Any, options: Options) -> Answer:
    """Return how a response type is written from rows of `entity`; made once for each pair."""
    return _answer(entity, type_, options, spelled(type_))


def spelled(type_: Any) -> str | None:
    """Return what tells a type from one that is equal to it: `A | B` is `B | A`; Pydantic takes the first to fit."""
    is_union = get_origin(type_) in {Union, UnionType}
    inside = getattr(type_, "__args__", ())
    return str(type_) if is_union or not all(isinstance(each, type) for each in inside) else None


@functools.lru_cache(maxsize=4096)
def _answer(entity: type, type_: Any, options: Options, _: str | None) -> Answer:
    return answer_of(_Objects(inspect(entity)), type_, options)


def answer_of(rows: Rows, type_: Any, options: Options) -> Answer:
    """Return how a response type is written from rows."""
    form: Form = "one"
    page: tuple[PageMember, ...] = ()
    models: tuple[type, ...] = ()
    is_scalar = holds_objects = False
    try:
        reader = Reader(options.purpose, options.by_alias)
        schema, optional, _ = reader.unrooted(reader.of(type_))
        holds_objects = instances.are_in([schema, *reader.definitions.values()])
        models = _models(reader, schema)
        items = reader.items(schema)
        if items is not None:
            form, schema = "many", items
        elif found := _page(reader, schema, rows, options):
            form, (page, schema) = "page", found
            models = _models(reader, schema)
        elif optional:
            form = "optional"
        is_scalar = rows.is_scalar(reader, schema)
        node = rows.node(Planner(reader, options), schema)
    except InPython as reason:
        if form == "one" and (loose := _loose_page(type_, rows, options)):
            form, (page, models) = "page", loose
        return Answer(form, None, page, str(reason), models, is_scalar, holds_objects)
    return Answer(form, node, page, models=models, is_scalar=is_scalar, holds_objects=holds_objects)


def adapter(type_: Any) -> TypeAdapter[Any]:
    """Return Pydantic's own validator and serializer of a type; made once.

    Of an Annotated, as FastAPI makes it: else a model's own config would be the outermost one, which is what values of
    `Any` are written by.
    """
    return _adapter(type_, spelled(type_))


@functools.lru_cache(maxsize=1024)
def _adapter(type_: Any, _: str | None) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[type_, Field()])


def _models(reader: Reader, schema: Schema) -> tuple[type, ...]:
    return tuple({each["cls"]: None for each in reader.models(schema)})


def _page(reader: Reader, schema: Schema, rows: Rows, options: Options) -> tuple[tuple[PageMember, ...], Schema] | None:
    """Return the members of a page and the schema of its rows: a model with a list that is not the entity's own."""
    if schema["type"] != "model" or hasattr(schema["cls"], "__mapper__"):
        return None
    found: list[Schema] = []
    members = []
    model = reader.model(schema)
    if schema.get("custom_init") and reader.purpose == "dump":
        refuse_init(schema["cls"])
    for field in model.fields:
        try:
            bare, nullable, _ = reader.unrooted(field.schema)
            items = reader.items(bare)
        except InPython as reason:
            raise InPython(reason.args[0], reason.at or field) from None
        part: Part = _COUNTED.get(field.name, "constant") if bare["type"] == "int" else "constant"
        if items is not None and not found and any(True for _ in reader.models(items)):
            if rows.has(field.name):
                return None
            found.append(items)
            part = "items"
        elif part == "constant" and field.default is None:
            return None  # a field that only the entity could fill
        text = ""
        if part == "constant":
            if options.omits_unset or field.excluded:
                continue
            text = reader.default(field, model.config, exclude_none=options.exclude_none)
            if text == "null" and options.exclude_none:
                continue
        else:
            _refuse_part(field, part, bare, options, nullable=nullable)
        members.append(
            PageMember(field.name, field.key if options.purpose == "dump" else field.name, part, text, nullable)
        )
    return (tuple(members), found[0]) if found else None


def _refuse_part(field: SchemaField, part: Part, schema: Schema, options: Options, *, nullable: bool) -> None:
    """Raise InPython for a part of a page that SQL does not write as Pydantic would."""
    if options.purpose == "load":
        return
    if field.excluded:
        raise InPython("it is a part of a page that is left out", field)
    if part == "limit" and nullable and options.exclude_none:
        raise InPython("a limit that there is not is left out", field)
    if part != "items" and schema.keys() - {"type", "strict", "metadata", "ref"}:
        raise InPython("what the number has to be is checked", field)


def _loose_page(type_: Any, rows: Rows, options: Options) -> tuple[tuple[PageMember, ...], tuple[type, ...]] | None:
    """Return the members of a page that Python writes, and the models of its rows; None for what is no page."""
    reader = Reader("load")
    try:
        schema, _, _ = reader.unrooted(reader.of(type_))
        while "schema" in schema and function(schema) is not None:
            schema, _, _ = reader.unrooted(schema["schema"])
        found = _page(reader, schema, rows, replace(options, purpose="load"))
    except InPython:
        return None
    return None if found is None else (found[0], _models(reader, found[1]))
