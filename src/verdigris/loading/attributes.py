"""What reading an attribute of a mapped class touches: columns, relationships, what properties and proxies read."""

from __future__ import annotations

import functools
import inspect as python
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.hybrid import hybrid_property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Mapper, RelationshipProperty


@dataclass(frozen=True, slots=True)
class Relation:
    """A relationship is read; then, of the other side, the rest of a path, or any of some names."""

    owner: Mapper[Any]
    prop: RelationshipProperty[Any]
    path: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Deferred:
    """A deferred column is read."""

    owner: Mapper[Any]
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """An attribute of a mapped subclass is read, which a query for the base class does not load by itself."""

    owner: Mapper[Any]


Touched = Relation | Deferred | Part


def touched(mapper: Mapper[Any], path: tuple[str, ...]) -> tuple[Touched, ...] | None:
    """Return what reading `path` touches, on `mapper` or on a mapped subclass; None where no such attribute exists.

    An attribute of subclasses only is returned for each subclass that has it.
    """
    found = _of(mapper, path)
    if found is not None:
        return found
    below: list[Touched] = []
    for sub in mapper.self_and_descendants:
        found = _of(sub, path) if sub is not mapper and _of(sub.inherits or mapper, path) is None else None
        if found is not None:
            below += [Part(sub), *found]
    return tuple(below) or None


def named(mapper: Mapper[Any], names: frozenset[str]) -> Iterator[Touched]:
    """Yield what code touches that mentions `names`, on objects reached from `mapper`'s class."""
    for name in sorted(names):
        if name in mapper.relationships:
            yield Relation(mapper, mapper.relationships[name], names=names - {name})
        elif name in mapper.column_attrs and mapper.column_attrs[name].deferred:
            yield Deferred(mapper, name)


def _of(mapper: Mapper[Any], path: tuple[str, ...]) -> tuple[Touched, ...] | None:
    name, rest = path[0], path[1:]
    if name in mapper.synonyms:
        return _of(mapper, (mapper.synonyms[name].name, *rest))
    if name in mapper.relationships:
        return (Relation(mapper, mapper.relationships[name], rest),)
    if name in mapper.column_attrs:
        return (Deferred(mapper, name),) if mapper.column_attrs[name].deferred else ()
    if name in mapper.composites:
        return ()
    try:
        value = python.getattr_static(mapper.class_, name)
    except AttributeError:
        declared = any(name in vars(cls).get("__annotations__", {}) for cls in mapper.class_.__mro__)
        return () if declared or hasattr(mapper.class_, "__getattr__") else None
    if isinstance(value, AssociationProxy):
        return _of(mapper, (value.target_collection, value.value_attr, *rest))
    getter = _getter(value)
    return () if getter is None else tuple(_read_by(mapper, getter))


def _getter(value: object) -> types.FunctionType | None:
    if isinstance(value, property | hybrid_property):
        function: Any = value.fget
    elif isinstance(value, functools.cached_property):
        function = value.func
    else:
        return None
    return function if isinstance(function, types.FunctionType) else None


def _read_by(mapper: Mapper[Any], function: types.FunctionType) -> Iterator[Touched]:
    """Yield what a property's code touches, other properties of the same class that it mentions included."""
    seen: set[types.CodeType] = set()
    waiting = [function]
    names: set[str] = set()
    while waiting:
        code = waiting.pop().__code__
        if code in seen:
            continue
        seen.add(code)
        fresh = set(_names(code))
        names |= fresh
        for name in fresh:
            getter = _getter(python.getattr_static(mapper.class_, name, None))
            if getter is not None:
                waiting.append(getter)
    yield from named(mapper, frozenset(names))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
