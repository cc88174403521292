"""Pydantic models as the source shows them: which attributes an object must have to become one, and what is in those.

Aliases, inheritance, optional values, unions, collections, generic models, root models and validators that see the
object first are read; nothing is imported.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.reading.modules import Binding, Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

DEPTH = 12
_PACKAGES = {"pydantic", "sqlmodel", "fastapi_users", "pydantic_settings", "fastapi_camelcase", "fastapi_utils"}
_BASES = {
    "BaseModel",
    "RootModel",
    "GenericModel",
    "SQLModel",
    "BaseSettings",
    "APIModel",
    "CamelModel",
    "FastAPIBaseModel",
}
_COLLECTIONS = {
    "list",
    "List",
    "set",
    "Set",
    "frozenset",
    "FrozenSet",
    "Sequence",
    "Iterable",
    "Collection",
    "tuple",
    "Tuple",
}
_COLLECTIONS |= {
    "AsyncIterator",
    "Iterator",
    "AsyncIterable",
    "AsyncGenerator",
    "Generator",
    "MutableSequence",
    "deque",
}
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict"}
_WRAPPERS = {"Optional", "Annotated", "Awaitable", "Required", "NotRequired", "Final", "ReadOnly", "SkipValidation"}
_RAW = {"before", "plain", "wrap"}


@dataclass(frozen=True, slots=True)
class ModelType:
    """A Pydantic model of the tree, with what its type variables stand for."""

    scope: Scope
    arguments: tuple[tuple[str, Type], ...] = ()

    @property
    def name(self) -> str:
        """Its class's name."""
        return self.scope.name


@dataclass(frozen=True, slots=True)
class ListType:
    """A collection of something; of mappings, of their values."""

    element: Type


@dataclass(frozen=True, slots=True)
class UnionType:
    """One of several."""

    arms: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class PlainType:
    """Something that is no model and holds none."""


@dataclass(frozen=True, slots=True)
class OutsideType:
    """A generic model from outside the tree, a page of a pagination library for instance."""

    name: str
    arguments: tuple[Type, ...]


Type: TypeAlias = ModelType | ListType | UnionType | PlainType | OutsideType


@dataclass(frozen=True, slots=True)
class SchemaField:
    """A field: the attribute paths that are tried in order, and what is made of the value."""

    schema: str
    name: str
    sources: tuple[tuple[str, ...], ...]
    type: Type
    place: Place
    opaque: bool = False  # a validator sees the raw value first

    @property
    def label(self) -> str:
        """`OrderOut.lines`."""
        return f"{self.schema}.{self.name}"


@dataclass(slots=True)
class _Validators:
    """What decorators of a model say of raw values."""

    fields: set[str] = field(default_factory=set)
    whole: Scope | None = None


class Schemas:
    """The Pydantic models of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._fields: dict[ModelType, tuple[SchemaField, ...]] = {}
        self._known: dict[Scope, bool] = {}

    def is_schema(self, scope: Scope) -> bool:
        """Tell whether a class is a Pydantic model and no table."""
        if scope not in self._known:
            self._known[scope] = scope.is_class and self.source.models.of(scope) is None and self._derives(scope)
        return self._known[scope]

    def _derives(self, scope: Scope) -> bool:
        bases = [base for base in self.source.names.lineage(scope) if isinstance(base, External)]
        return any(
            base.package in _PACKAGES and (base.leaf in _BASES or base.package == "fastapi_users") for base in bases
        )

    def type(
        self, annotation: ast.expr | None, scope: Scope, bound: Mapping[str, Type] | None = None, depth: int = 0
    ) -> Type:
        """Read an annotation or a `response_model=` as a tree of models, collections and unions."""
        node = parsed(annotation)
        if node is None or depth > DEPTH:
            return PlainType()
        match node:
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _union([self.type(arm, scope, bound, depth + 1) for arm in (left, right)])
            case ast.Subscript(value=base, slice=inner):
                return self._generic(base, inner, scope, bound or {}, depth)
            case ast.Name() | ast.Attribute():
                return self._named(node, scope, bound or {}, depth)
            case _:
                return PlainType()

    def _named(self, node: ast.expr, scope: Scope, bound: Mapping[str, Type], depth: int) -> Type:
        if isinstance(node, ast.Name) and node.id in bound:
            return bound[node.id]
        meaning = self.source.names.resolve(node, scope)
        if isinstance(meaning, Scope) and meaning.is_class and self.is_schema(meaning):
            return self._root(meaning, bound, depth) or ModelType(meaning)
        if isinstance(meaning, Assigned):
            value = meaning.value or _type_alias(meaning)
            if value is not None and value is not node:
                return self.type(value, meaning.scope, bound, depth + 1)
        return PlainType()

    def _generic(self, base: ast.expr, inner: ast.expr, scope: Scope, bound: Mapping[str, Type], depth: int) -> Type:
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        meaning = self.source.names.resolve(base, scope)
        leaf = meaning.leaf if isinstance(meaning, External) else getattr(base, "attr", getattr(base, "id", ""))
        if isinstance(meaning, Scope) and meaning.is_class and self.is_schema(meaning):
            made = [self.type(item, scope, bound, depth + 1) for item in items]
            pairs = tuple(zip(self._variables(meaning), made, strict=False))
            return self._root(meaning, dict(pairs), depth) or ModelType(meaning, pairs)
        if leaf in _WRAPPERS:
            return self.type(items[0], scope, bound, depth + 1)
        if leaf == "Union":
            return _union([self.type(item, scope, bound, depth + 1) for item in items])
        if leaf in _COLLECTIONS:
            first = _union([self.type(item, scope, bound, depth + 1) for item in items])
            return first if isinstance(first, PlainType) else ListType(first)
        if leaf in _MAPPINGS:
            last = self.type(items[-1], scope, bound, depth + 1)
            return last if isinstance(last, PlainType) else ListType(last)
        if (
            isinstance(meaning, Assigned) and meaning.value is not None
        ):  # a generic alias: its own arguments are not followed
            return self.type(meaning.value, meaning.scope, bound, depth + 1)
        made = [self.type(item, scope, bound, depth + 1) for item in items]
        return PlainType() if all(isinstance(each, PlainType) for each in made) else OutsideType(leaf, tuple(made))

    def _variables(self, scope: Scope) -> list[str]:
        """Return the names of a generic class's type variables, in order."""
        own = [getattr(parameter, "name", "") for parameter in getattr(scope.node, "type_params", ())]
        if own:
            return own
        found: list[str] = []
        for base in getattr(scope.node, "bases", ()):
            if isinstance(base, ast.Subscript):
                items = base.slice.elts if isinstance(base.slice, ast.Tuple) else [base.slice]
                names = [item.id for item in items if isinstance(item, ast.Name) and self._is_variable(item, scope)]
                generic = getattr(base.value, "id", getattr(base.value, "attr", "")) in {"Generic", "Protocol"}
                found = names if generic else found + [name for name in names if name not in found]
                if generic:
                    return found
        return found

    def _is_variable(self, node: ast.Name, scope: Scope) -> bool:
        meaning = self.source.names.resolve(node, scope.parent or scope.module.scope)
        value = meaning.value if isinstance(meaning, Assigned) else None
        return isinstance(value, ast.Call) and getattr(value.func, "id", getattr(value.func, "attr", "")) == "TypeVar"

    def _root(self, scope: Scope, bound: Mapping[str, Type], depth: int) -> Type | None:
        """A root model is what it wraps."""
        for base in getattr(scope.node, "bases", ()):
            if isinstance(base, ast.Subscript):
                meaning = self.source.names.resolve(base.value, scope.parent or scope.module.scope)
                if isinstance(meaning, External) and meaning.leaf == "RootModel":
                    return self.type(base.slice, scope.parent or scope.module.scope, bound, depth + 1)
        root = scope.bindings.get("root") if self.source.names.derives(scope, "pydantic", "RootModel") else None
        return self.type(root[-1].annotation, scope, bound, depth + 1) if root else None

    def fields(self, model: ModelType) -> tuple[SchemaField, ...]:
        """Return the fields of a model, inherited ones included."""
        if model not in self._fields:
            self._fields[model] = ()  # a model that contains itself asks for its own fields
            self._fields[model] = tuple(self._read(model))
        return self._fields[model]

    def _read(self, model: ModelType) -> Iterator[SchemaField]:
        raw = self._validators(model.scope)
        by_name = self._by_name(model.scope)
        seen: set[str] = set()
        for owner, bound in self._owners(model):
            for name, bindings in owner.bindings.items():
                binding = bindings[-1]
                if binding.annotation is None or name.startswith("_") or name in seen or name == "model_config":
                    continue
                seen.add(name)
                if _is_class_variable(binding.annotation):
                    continue
                sources = tuple(_sources(name, binding, by_name=by_name))
                opaque = name in raw.fields or "*" in raw.fields or _raw_annotation(binding.annotation)
                made = self.type(binding.annotation, owner, bound)
                yield SchemaField(model.name, name, sources, made, owner.module.place(binding.node), opaque)

    def _owners(self, model: ModelType) -> Iterator[tuple[Scope, Mapping[str, Type]]]:
        """Yield a model and its bases, each with what its own type variables stand for."""
        yield model.scope, dict(model.arguments)
        queue: list[tuple[Scope, Mapping[str, Type]]] = [(model.scope, dict(model.arguments))]
        seen = {model.scope}
        while queue:
            scope, bound = queue.pop(0)
            around = scope.parent or scope.module.scope
            for base in getattr(scope.node, "bases", ()):
                inner = base.value if isinstance(base, ast.Subscript) else base
                meaning = self.source.names.resolve(inner, around)
                if not (isinstance(meaning, Scope) and meaning.is_class) or meaning in seen:
                    continue
                seen.add(meaning)
                items = (
                    (base.slice.elts if isinstance(base.slice, ast.Tuple) else [base.slice])
                    if isinstance(base, ast.Subscript)
                    else []
                )
                made = [self.type(item, around, bound) for item in items]
                passed = dict(zip(self._variables(meaning), made, strict=False))
                yield meaning, passed
                queue.append((meaning, passed))

    def whole_validator(self, scope: Scope) -> Scope | None:
        """Return the validator that is given the object before any field is read."""
        return self._validators(scope).whole

    def _validators(self, scope: Scope) -> _Validators:
        found = _Validators()
        for owner in self.source.names.lineage(scope):
            for method in owner.scopes if isinstance(owner, Scope) else ():
                for decorator in method.decorators:
                    if isinstance(decorator, ast.Call):
                        self._validator(decorator, method, found)
        return found

    def _validator(self, decorator: ast.Call, method: Scope, found: _Validators) -> None:
        leaf = getattr(decorator.func, "attr", getattr(decorator.func, "id", ""))
        given = {keyword.arg: keyword.value for keyword in decorator.keywords}
        mode = given.get("mode")
        raw = isinstance(mode, ast.Constant) and mode.value in _RAW
        pre = isinstance(given.get("pre"), ast.Constant) and getattr(given.get("pre"), "value", False) is True
        if leaf in {"field_validator", "validator"} and (raw or pre):
            found.fields |= {str(arg.value) for arg in decorator.args if isinstance(arg, ast.Constant)}
        elif leaf in {"model_validator", "root_validator"} and (raw or pre) and found.whole is None:
            found.whole = method

    def _by_name(self, scope: Scope) -> bool:
        """Tell whether fields with an alias are read by their name too."""
        return self._configured(scope, {"populate_by_name", "validate_by_name", "allow_population_by_field_name"})

    def from_attributes(self, scope: Scope) -> bool:
        """Tell whether a model may be made of an object's attributes."""
        return self._configured(scope, {"from_attributes", "orm_mode"})

    def _configured(self, scope: Scope, words: set[str]) -> bool:
        """Tell whether a model's configuration, or a base's, turns one of these on."""
        for owner in self.source.names.lineage(scope):
            if not isinstance(owner, Scope):
                continue
            configs: list[ast.AST] = [binding.node for binding in owner.bindings.get("model_config", ())]
            inner = owner.member("Config")
            configs += [inner.node] if inner is not None else []
            if any(_turns_on(node, words) for config in configs for node in ast.walk(config)):
                return True
        return False


def _turns_on(node: ast.AST, words: set[str]) -> bool:
    match node:
        case ast.keyword(arg=str(name), value=ast.Constant(value=True)):
            return name in words
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return any(
                getattr(key, "value", None) in words and getattr(value, "value", None) is True for key, value in pairs
            )
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=True)):
            return name in words
        case _:
            return False


def holds_model(made: Type) -> bool:
    """Tell whether a type has a model in it."""
    match made:
        case PlainType():
            return False
        case ListType(element=element):
            return holds_model(element)
        case UnionType(arms=arms) | OutsideType(arguments=arms):
            return any(holds_model(arm) for arm in arms)
        case _:
            return True


def _union(arms: list[Type]) -> Type:
    real = tuple(dict.fromkeys(arm for arm in arms if not isinstance(arm, PlainType)))
    if not real:
        return PlainType()
    return real[0] if len(real) == 1 else UnionType(real)


def _type_alias(meaning: Assigned) -> ast.expr | None:
    """`type X = ...` of Python 3.12."""
    for binding in meaning.bindings:
        value = getattr(binding.node, "value", None)
        if type(binding.node).__name__ == "TypeAlias" and isinstance(value, ast.expr):
            return value
    return None


def _is_class_variable(annotation: ast.expr) -> bool:
    node = parsed(annotation)
    base = node.value if isinstance(node, ast.Subscript) else node
    return getattr(base, "attr", getattr(base, "id", "")) in {"ClassVar", "PrivateAttr"}


def _raw_annotation(annotation: ast.expr) -> bool:
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(parsed(annotation) or annotation)}
    return bool(names & {"BeforeValidator", "PlainValidator", "WrapValidator"})


def _sources(name: str, binding: Binding, *, by_name: bool) -> Iterator[tuple[str, ...]]:
    """Yield the attribute paths a field is read from, by alias first."""
    aliases: list[ast.expr] = []
    for call in _field_calls(binding):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        alias = given.get("validation_alias", given.get("alias"))
        if alias is not None and not (isinstance(alias, ast.Constant) and alias.value is None):
            aliases.append(alias)
    for alias in aliases:
        yield from _paths(alias)
    if not aliases or by_name:
        yield (name,)


def _field_calls(binding: Binding) -> Iterator[ast.Call]:
    roots = [binding.value, parsed(binding.annotation)]
    for root in roots:
        for node in ast.walk(root) if root is not None else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "Field":
                yield node


def _paths(alias: ast.expr) -> Iterator[tuple[str, ...]]:
    match alias:
        case ast.Constant(value=str(text)):
            yield (text,)
        case ast.Call(func=func, args=args):
            leaf = getattr(func, "attr", getattr(func, "id", ""))
            if leaf == "AliasPath":
                parts = [arg.value for arg in args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                yield tuple(parts)
            elif leaf == "AliasChoices":
                for arg in args:
                    yield from _paths(arg)
