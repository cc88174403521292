"""From a mapped class and a response model to the shape of the answer; raises InPython for what SQL cannot say."""

from __future__ import annotations

import functools
import inspect as python
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pydantic_core
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.hybrid import hybrid_property

from verdigris.loading.json import instances
from verdigris.loading.json.attributes import expression, is_plain, may_be_none, refuse_listeners, refuse_overridden
from verdigris.loading.json.nodes import (
    Case,
    Constant,
    End,
    Many,
    Member,
    Node,
    Object,
    One,
    Subclass,
    Value,
    Variant,
    nullable,
)
from verdigris.loading.json.schema import Field, InPython, Model, Purpose, Reader, function, readable, refuse_init
from verdigris.loading.json.types import Unsupported, encode, is_json
from verdigris.loading.naming import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Mapper, RelationshipProperty

    Schema = Mapping[str, Any]
    Path = tuple[str | int, ...]
    Find = Callable[["Asked", Path], Node | None]

#: How deep models that contain themselves are followed in one statement.
DEPTH = 4
#: How NaN and infinities are printed. Below a union of models Pydantic may follow the models above it.
_INFINITE = "ser_json_inf_nan"
#: A statement with more parts than this is no longer planned in passing.
LARGEST = 400


@dataclass(frozen=True, slots=True)
class Options:
    """How the answer is dumped; the names are Pydantic's."""

    purpose: Purpose = "dump"
    by_alias: bool = True
    exclude_none: bool = False
    exclude_unset: bool = False

    @property
    def omits_unset(self) -> bool:
        """Whether a field without an attribute is left out; Pydantic fills it in where objects are made."""
        return self.exclude_unset or self.purpose == "load"


class Planner:
    """Plans what one response type reads from one mapped class."""

    def __init__(self, reader: Reader, options: Options) -> None:
        self.reader = reader
        self.options = options
        self._size = 0
        self._unions = 0  # of models, around what is being planned

    def object(
        self, mapper: Mapper[Any], schema: Schema, above: tuple[Model, ...] = (), told: tuple[str, Any] | None = None
    ) -> Node:
        """Return the node that prints a row of `mapper` as `schema`: a model, or a union told apart by an attribute.

        `told` is the attribute that told this member of a union apart, and its value.
        """
        bare, optional, _ = self.reader.unrooted(schema)
        self._refuse(bare)
        if bare["type"] == "tagged-union":
            return self._tagged(mapper, bare, above, optional=optional)
        if bare["type"] != "model":
            raise InPython(f"which {_said(bare)} a {mapper.class_.__name__} becomes is decided in Python")
        if instances.is_of(bare, mapper):
            return self._instance(mapper, bare, above)
        return self.model(bare, functools.partial(self._attribute, mapper=mapper), above, told)

    def model(
        self, schema: Schema, find: Find, above: tuple[Model, ...] = (), told: tuple[str, Any] | None = None
    ) -> Object:
        """Return the node of a model whose fields are found, each by its attribute paths, in what is read."""
        model = self.reader.model(schema)
        self._refuse_making(model, has_init=schema.get("custom_init", False))
        asked = (Asked(field, field.schema, model, (*above, model), told) for field in model.fields)
        members = (self._member(each, find) for each in asked)
        return Object(model.cls, tuple(m for m in members if m is not None), self.options.exclude_none)

    def _instance(self, mapper: Mapper[Any], schema: Schema, above: tuple[Model, ...]) -> Object:
        """Return the node of a mapped class that is the model of its own rows."""
        name = mapper.class_.__name__
        if self.options.purpose == "load":
            raise InPython(f"{name} is a mapped class, whose objects are answers as they are")
        if self.options.exclude_unset:
            raise InPython(f"no field of a {name} that was loaded counts as set, so that nothing is left of it")
        refuse_listeners(mapper)
        model = instances.held(self.reader, mapper, schema)
        asked = (Asked(field, field.schema, model, (*above, model)) for field in model.fields)
        members = (self._member(each, functools.partial(self._held, mapper=mapper)) for each in asked)
        return Object(model.cls, tuple(m for m in members if m is not None), self.options.exclude_none)

    def _held(self, asked: Asked, _: Path, *, mapper: Mapper[Any]) -> Node:
        """Return the node of what an object holds for a field."""
        return self._value(asked.inside(instances.written(self.reader, mapper, asked.field)), mapper, asked.field.name)

    def _refuse_making(self, model: Model, *, has_init: bool) -> None:
        """Raise InPython where Pydantic does not make the model of a row's attributes alone.

        An `__init__` has no say in that. It has one in making the same model of JSON, which it gets as keywords.
        """
        if hasattr(model.cls, "__mapper__"):
            raise InPython(f"{model.cls.__name__} is a mapped class, whose objects are answers as they are")
        if has_init and self.options.purpose == "load":
            refuse_init(model.cls)
            if any(field.sources != ((field.name,),) for field in model.fields):
                raise InPython(f"{model.cls.__name__} has an __init__ that takes aliases")

    def _member(self, asked: Asked, find: Find) -> Member | None:
        field = asked.field
        self._size += 1
        if self._size > LARGEST:
            raise InPython(f"the statement would have more than {LARGEST} parts")
        try:
            node = self._field(asked, find)
        except InPython as reason:
            raise InPython(reason.args[0], reason.at or field) from None
        if node is None or (field.excluded and isinstance(node, Constant)):
            return None
        return Member(field.key if self.options.purpose == "dump" else field.name, node, shown=not field.excluded)

    def _field(self, asked: Asked, find: Find) -> Node | None:
        for path in asked.field.sources:
            if not all(isinstance(part, str) for part in path):
                raise InPython("its alias path takes an item by its index")
            found = find(asked, path)
            if found is not None:
                return found
        if self.options.omits_unset or (asked.field.excluded and asked.field.default is not None):
            return None
        text = self._default(asked.field, asked.model.config)
        return None if text == "null" and self.options.exclude_none else Constant(text)

    def _attribute(self, asked: Asked, path: Path, *, mapper: Mapper[Any]) -> Node | None:
        """Return the node of an attribute path, None where there is no such attribute."""
        refuse_listeners(mapper)
        found = self._of(asked, mapper, path)
        if found is not None:
            return found
        return self._of_subclasses(asked, mapper, path)

    def _of_subclasses(self, asked: Asked, mapper: Mapper[Any], path: Path) -> Node | None:
        cases = []
        for sub in mapper.self_and_descendants:
            node = None if sub is mapper else self._of(asked, sub, path)
            if node is not None and sub.polymorphic_identity is not None:
                cases.append(Case((sub.polymorphic_identity,), Subclass(sub, node)))
        if not cases:
            return None
        if asked.field.default is not None and (self.options.omits_unset or self.options.exclude_none):
            raise InPython("only some classes have the attribute, and what is unset or None is left out")
        otherwise = (
            Constant(self._default(asked.field, asked.model.config)) if asked.field.default is not None else None
        )
        maybe = any(nullable(case.node) for case in cases)
        return Variant(mapper, self._identity(mapper), tuple(cases), otherwise, maybe)

    def _of(self, asked: Asked, mapper: Mapper[Any], path: Path) -> Node | None:
        name, rest = str(path[0]), path[1:]
        refuse_overridden(mapper, name)
        if name in mapper.synonyms and is_plain(mapper.synonyms[name]):
            return self._of(asked, mapper, (mapper.synonyms[name].name, *rest))
        if name in mapper.relationships:
            return self._relationship(asked, mapper.relationships[name], rest)
        if name in mapper.column_attrs:
            refuse_rest(rest, name)
            return self._value(asked, mapper, name)
        if name in mapper.composites:
            raise InPython("a composite is made in Python")
        try:
            value = python.getattr_static(mapper.class_, name)
        except AttributeError:
            if hasattr(mapper.class_, "__getattr__"):
                raise InPython("the class has a __getattr__") from None
            return None
        if isinstance(value, AssociationProxy):
            return self._of(asked, mapper, (value.target_collection, value.value_attr, *rest))
        if isinstance(value, hybrid_property):
            refuse_rest(rest, name)
            return self._value(asked, mapper, name)
        raise InPython(f"{mapper.class_.__name__}.{name} is read in Python")

    def _value(self, asked: Asked, mapper: Mapper[Any], name: str) -> Node:
        schema = asked.schema if asked.told is None else self.reader.inlined(self.reader.bare(asked.schema)[0])
        if asked.told is not None and asked.told[0] == name and schema == {**schema, "expected": [asked.told[1]]}:
            return Constant(pydantic_core.to_json(asked.told[1]).decode())
        mixed = any(model.config.get(_INFINITE, "null") != "null" for model in asked.above)
        named = (mapper.class_.__name__, name)
        node = self.value(named, expression(mapper, name), asked.schema, asked.model.config, mixed=mixed)
        return node if may_be_none(mapper, name) else replace(node, nullable=False)

    def value(
        self, named: tuple[str, str], column: Any, schema: Schema, config: Schema, *, mixed: bool = False
    ) -> Value:
        """Return the node of a single value: of whom it is and its name, its SQL, its schema and the config around.

        `mixed` says that the models around it differ in how they print NaN and infinities.
        """
        schema, optional, own = self.reader.unrooted(schema)
        config = config if own is None else own
        if self._unions and (mixed or config.get(_INFINITE, "null") != "null"):
            config = {**config, _INFINITE: "constants"}  # which are left to Pydantic, as its members may print either
        schema = self.reader.inlined(schema)
        if getattr(column, "type", None) is None:
            raise InPython(f"{'.'.join(named)} is no SQL expression")
        if column.type._has_column_expression:  # noqa: SLF001 - SQLAlchemy's own question to a type
            raise InPython("its type reads through an SQL expression of its own")
        if self.options.purpose == "load":
            config = readable(schema, config, is_json=is_json(column.type))
        found = encode(column, column.type, schema, config)
        if isinstance(found, Unsupported):
            validator = function(schema)
            raise InPython(found.reason if validator is None else f"it is validated by {validator}()")
        return Value(*named, schema, config, optional or schema["type"] == "any")

    def _relationship(self, asked: Asked, prop: RelationshipProperty[Any], rest: Path) -> Node | None:
        if prop.lazy in {"dynamic", "write_only"}:
            raise InPython(f"{dotted(prop)} is never loaded as a whole")
        if prop.entity.is_aliased_class:
            raise InPython(f"{dotted(prop)} leads to an alias of {prop.mapper.class_.__name__}")
        if not prop.uselist:
            return self._one(asked, prop, rest)
        _refuse_order(prop)
        if rest and not asked.proxied(prop, rest):
            return None  # a list has no such attribute
        schema, optional, _ = self.reader.unrooted(asked.schema)
        self._refuse(schema)
        items = self.reader.items(schema)
        if rest and asked.model.config.get("strict"):
            raise InPython("what a proxy gives is no list to a strict model")
        if items is None:
            raise InPython(f"{dotted(prop)} becomes {_said(schema)}")
        if rest:
            node = self._attribute(asked.inside(items), rest, mapper=prop.mapper)
            if node is None or isinstance(node, Many):
                raise InPython(f"what is collected from {dotted(prop)} is no single value")
            return Many(prop, node, optional)
        if self._ends(asked.above, items):
            return End(prop, optional)
        return Many(prop, self.object(prop.mapper, items, asked.above), optional)

    def _one(self, asked: Asked, prop: RelationshipProperty[Any], rest: Path) -> Node | None:
        _, optional = self.reader.bare(asked.schema)
        if not rest:
            if self._ends(asked.above, asked.schema):
                return End(prop, optional)
            return One(prop, self.object(prop.mapper, asked.schema, asked.above), optional)
        node = self._attribute(asked, rest, mapper=prop.mapper)
        if node is None:
            return None
        if asked.proxied(prop, rest):
            return One(prop, node, optional)
        if asked.field.default is not None and (self.options.omits_unset or self.options.exclude_none):
            raise InPython("its alias path may lead nowhere, and what is unset or None is left out")
        return One(
            prop,
            node,
            optional,
            None if asked.field.default is None else self._default(asked.field, asked.model.config),
        )

    def _tagged(self, mapper: Mapper[Any], schema: Schema, above: tuple[Model, ...], *, optional: bool) -> Node:
        name = schema["discriminator"]
        while isinstance(name, list) and len(name) == 1:
            name = name[0]
        if not isinstance(name, str) or name not in mapper.column_attrs:
            raise InPython(f"the kind of {mapper.class_.__name__} is told in Python")
        column = mapper.column_attrs[name].columns[0]
        by_class = column is mapper.polymorphic_on
        cases = []
        for tag, choice in schema["choices"].items():
            sub = mapper.polymorphic_map.get(tag) if by_class else None
            if by_class and (sub is None or not sub.isa(mapper)):
                continue  # no row of this class is ever loaded with that tag
            self._unions += 1
            node = self.object(sub or mapper, choice, above, (name, tag))
            self._unions -= 1
            cases.append(Case((tag,), Subclass(sub, node) if sub is not None and sub is not mapper else node))
        return Variant(mapper, name, tuple(cases), None, optional)

    def _identity(self, mapper: Mapper[Any]) -> str:
        if mapper.polymorphic_on is None:
            raise InPython(f"nothing tells the classes below {mapper.class_.__name__} apart")
        try:
            key = mapper.get_property_by_column(mapper.polymorphic_on).key
            getattr(mapper.class_, key)  # of concrete classes the union has a column that no class has
        except Exception as error:
            raise InPython(f"{mapper.class_.__name__}'s classes are told apart by an expression") from error
        return key

    def _ends(self, above: tuple[Model, ...], schema: Schema) -> bool:
        inside = {model["cls"] for model in self.reader.models(schema)}
        return any(sum(model.cls is cls for model in above) >= DEPTH for cls in inside)

    def _default(self, field: Field, config: Schema) -> str:
        texts = {
            self.reader.default(field, each, exclude_none=self.options.exclude_none)
            for each in ((config, {**config, _INFINITE: "strings"}) if self._unions else (config,))
        }
        if len(texts) > 1:
            raise InPython("inside a union Pydantic writes NaN in another way than outside")
        return texts.pop()

    def _refuse(self, schema: Schema) -> None:
        name = function(schema)
        if name is not None:
            raise InPython(f"it is validated by {name}()")


@dataclass(frozen=True, slots=True)
class Asked:
    """A field on the way to its attribute."""

    field: Field
    schema: Schema
    model: Model
    above: tuple[Model, ...]
    told: tuple[str, Any] | None = None

    def inside(self, schema: Schema) -> Asked:
        return replace(self, schema=schema)

    def proxied(self, prop: RelationshipProperty[Any], rest: Path) -> bool:
        """Whether an association proxy asks, and not an alias path."""
        return not any(path[-len(rest) - 1 :] == (prop.key, *rest) for path in self.field.sources)


def refuse_rest(rest: Path, name: str) -> None:
    """Raise InPython where an alias path goes on behind a single value."""
    if rest:
        raise InPython(f"its alias path reads inside of {name}")


def _refuse_order(prop: RelationshipProperty[Any]) -> None:
    kind = prop.collection_class
    if kind is None or (isinstance(kind, type) and issubclass(kind, list)):
        return
    if isinstance(kind, functools.partial) or not isinstance(kind, type):
        made: Any = kind()
        if isinstance(made, list):
            return
    raise InPython(f"{dotted(prop)} is no list")


def _said(schema: Schema) -> str:
    return "member of a union" if schema["type"] == "union" else str(schema["type"])
