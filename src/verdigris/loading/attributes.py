"""What reading an attribute of a mapped class touches: columns, relationships, what properties and proxies read."""

from __future__ import annotations

import inspect as python
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.associationproxy import AssociationProxy

from verdigris._annotations import annotations_of
from verdigris.loading.code import closure, function_of, names_in, reads_anything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Mapper, RelationshipProperty


#: How many relationships in a row code is followed along, when it is known by the names that it mentions only.
HOPS = 6


@dataclass(frozen=True, slots=True)
class Relation:
    """A relationship is read; then, of the other side, the rest of a path, or any of some names."""

    owner: Mapper[Any]
    prop: RelationshipProperty[Any]
    path: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    #: Whether a schema's field reads it, and not only code on the field's behalf.
    plain: bool = True
    #: How much further code is followed from the other side.
    hops: int = HOPS


@dataclass(frozen=True, slots=True)
class Column:
    """A column is read."""

    owner: Mapper[Any]
    name: str

    @property
    def is_deferred(self) -> bool:
        return self.owner.column_attrs[self.name].deferred


@dataclass(frozen=True, slots=True)
class Part:
    """An attribute of a mapped subclass is read, which a query for the base class does not load by itself."""

    owner: Mapper[Any]


@dataclass(frozen=True, slots=True)
class Anything:
    """Code is run that may read any column."""

    what: str


Touched = Relation | Column | Part | Anything


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


def named(mapper: Mapper[Any], names: frozenset[str], hops: int = HOPS) -> Iterator[Touched]:
    """Yield what code touches that mentions `names`, on objects of `mapper`'s class.

    Code is not followed value by value: whatever has a name that it mentions counts as read, on every object that it
    reaches within `hops` relationships. Too much may be loaded for it; too little only beyond.
    """
    known = closure(mapper.class_, names)
    if reads_anything(known):
        yield Anything(f"code that reads {mapper.class_.__name__}")
    for name in sorted(known):
        value = python.getattr_static(mapper.class_, name, None)
        if function_of(value) is not None:
            continue  # its own names are among the known ones
        if name in mapper.all_orm_descriptors or isinstance(value, AssociationProxy):
            for item in _of(mapper, (name,)) or ():
                if not isinstance(item, Relation):
                    yield item
                elif hops:
                    further = (known - {name}) | frozenset(item.path)
                    yield replace(item, path=(), names=further, plain=False, hops=hops - 1)


def _of(mapper: Mapper[Any], path: tuple[str, ...]) -> tuple[Touched, ...] | None:
    name, rest = path[0], path[1:]
    if name in mapper.synonyms:
        return _of(mapper, (mapper.synonyms[name].name, *rest))
    if name in mapper.relationships:
        return (Relation(mapper, mapper.relationships[name], rest),)
    if name in mapper.column_attrs:
        return (Column(mapper, name),)
    if name in mapper.composites:
        return tuple(_composite(mapper, name))
    try:
        value = python.getattr_static(mapper.class_, name)
    except AttributeError:
        declared = any(name in annotations_of(cls) for cls in mapper.class_.__mro__)
        return (Anything(name),) if declared or hasattr(mapper.class_, "__getattr__") else None
    if isinstance(value, AssociationProxy):
        return _of(mapper, (value.target_collection, value.value_attr, *rest))
    function = function_of(value)
    if function is None:
        return (Anything(name),)
    return tuple(named(mapper, names_in(function) | frozenset(rest)))


def _composite(mapper: Mapper[Any], name: str) -> Iterator[Column]:
    for prop in mapper.composites[name].props:
        yield Column(mapper, prop.key)
