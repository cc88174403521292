"""What is loaded of an object: a tree over relationships, with what is certain and what depends on a condition."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class Load:
    """A loader option for one relationship, and those below it. `how` is loaded, unloaded, empty or same.

    `owner` is None for an option that names its relationship by a string. `same` keeps the relationship as its mapping
    has it (defaultload) and says something of what is below.
    """

    owner: str | None
    name: str  # "*" for all that are not named
    how: str
    below: tuple[Load, ...] = ()
    guarantee: str | None = None  # it comes with everything that a response model needs

    def at(self, depth: int, more: tuple[Load, ...]) -> Load:
        """Put options beneath the relationship at a depth of this chain, beside those that are there."""
        if not depth:
            return replace(self, below=(*self.below, *more))
        return replace(self, below=(*self.below[:-1], self.below[-1].at(depth - 1, more)))


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of one relationship of one object. `alias` is the value that was assigned to it, if one was."""

    how: str  # loaded, unloaded, empty
    certain: bool = True
    shape: Shape | None = None
    alias: object = None
    by: str | None = None  # the guarantee that it is loaded


@dataclass(frozen=True, slots=True)
class Shape:
    """What is loaded of an object of a model.

    `opened` says why other relationships may be loaded as well; `silent` that this is the caller's business. `fresh`
    objects were made here and are not flushed: reading what was not given is no query.
    """

    model: str
    links: Mapping[str, Link] = field(default_factory=dict)
    origin: Place | None = None
    via: Place | None = None  # the call that led there from another module
    opened: str | None = None
    silent: bool = False
    filled: str | None = None  # what may have set more of a new object than its constructor did
    fresh: bool = False
    made: bool = False  # by its constructor, not by a query
    added: bool = False  # to a session
    given: frozenset[str] = frozenset()  # attributes that the constructor set
    unset: frozenset[str] = frozenset()  # columns that are NULL, by the statement that gave the row
    sync: bool = False
    hidden: bool = False  # every relationship that is not named raises (raiseload("*"))

    def __hash__(self) -> int:
        """Hash what tells shapes apart cheaply."""
        return hash((self.model, tuple(self.links), self.origin, self.opened, self.fresh))

    def link(self, name: str) -> Link | None:
        """Return what is known of a relationship."""
        return self.links.get(name)

    def with_link(self, name: str, link: Link) -> Shape:
        """Say something of a relationship."""
        return replace(self, links={**self.links, name: link})

    def loaded(
        self, loads: Iterable[Load], targets: Mapping[tuple[str, str], str | None], *, certain: bool = True
    ) -> Shape:
        """Apply loader options; `targets` gives the related model by model and name."""
        shape = self
        for load in loads:
            if load.name == "*":  # says nothing of those that another option names
                shape = replace(shape, hidden=load.how == "unloaded" or shape.hidden)
                continue
            old = shape.links.get(load.name)
            target = targets.get((load.owner or shape.model, load.name)) or targets.get((shape.model, load.name))
            inner = (old.shape if old is not None else None) or Shape(
                target or "?", origin=self.origin, via=self.via, sync=self.sync
            )
            inner = inner.loaded(load.below, targets)
            how = load.how if load.how != "same" else old.how if old is not None else "same"
            shape = shape.with_link(load.name, Link(how, certain, inner, by=load.guarantee))
        return shape

    def in_doubt(self, reason: str) -> Shape:
        """Say that more may be loaded than is known, of this object and of all that was loaded with it."""
        links = {
            name: link if link.shape is None else replace(link, shape=link.shape.in_doubt(reason))
            for name, link in self.links.items()
        }
        return replace(self, links=links, opened=self.opened or reason)

    @classmethod
    def joined(cls, shapes: list[Shape]) -> Shape:
        """Join what alternatives have loaded: certain is only what is certain in each."""
        first = shapes[0]
        for other in shapes[1:]:
            if other is not first:
                first = first._join(other)
        return first

    def _join(self, other: Shape) -> Shape:
        links: dict[str, Link] = {}
        for name in [*self.links, *(name for name in other.links if name not in self.links)]:
            one, two = self.links.get(name), other.links.get(name)
            present = one or two
            assert present is not None  # noqa: S101 - the name comes from one of them
            if one is None or two is None:
                links[name] = replace(present, certain=False)
            else:
                inner = one.shape
                if one.shape is not None and two.shape is not None and one.shape is not two.shape:
                    inner = one.shape._join(two.shape)
                same = one.how == two.how
                how = one.how if same else "loaded" if "loaded" in {one.how, two.how} else one.how
                alias = one.alias if one.alias == two.alias else None
                links[name] = Link(
                    how, same and one.certain and two.certain, inner or two.shape, alias, one.by and two.by
                )
        return replace(
            self,
            links=links,
            opened=self.opened or other.opened,
            silent=self.silent or other.silent,
            filled=self.filled or other.filled,
            fresh=self.fresh or other.fresh,
            made=self.made and other.made,
            added=self.added or other.added,
            given=self.given | other.given,
            unset=self.unset & other.unset,
            hidden=self.hidden and other.hidden,
        )
