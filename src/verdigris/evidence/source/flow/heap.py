"""The objects that queries and constructors made, and what reading a relationship of one comes to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.shapes import Link, Load, Shape
from verdigris.evidence.source.flow.values import Entity, Many, Value
from verdigris.evidence.source.models.relations import UNLOADABLE, Relation, Relations
from verdigris.evidence.values import Known, Missing, Place, Unknown

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.trail import Trail


class State(StrEnum):
    """What reading a relationship comes to."""

    LOADED = "loaded"
    MISSING = "missing"
    EMPTY = "empty"  # noload: it reads as nothing
    UNLOADABLE = "unloadable"  # dynamic, write_only: read as a whole
    DOUBT = "doubt"
    CALLER = "caller"  # it is the business of whoever calls
    SYNC = "sync"  # a synchronous session loads it when touched


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a read went, and why."""

    state: State
    reason: str
    origin: Place | None = None
    via: Place | None = None
    made: bool = False


@dataclass(slots=True)
class Heap:
    """Cells by number; copied at branches and joined after them."""

    relations: Relations
    trail: Trail
    cells: dict[int, Shape] = field(default_factory=dict)
    hooked: str | None = None  # a session hook that may add loader options to any statement

    def copy(self) -> Heap:
        """Return an independent state."""
        return Heap(self.relations, self.trail, dict(self.cells), self.hooked)

    def join(self, others: list[Heap]) -> Heap:
        """Join the states of several ways through the code."""
        cells = dict(self.cells)
        for other in others:
            for number, shape in other.cells.items():
                mine = cells.get(number)
                if mine is not shape:  # most are the same: they stand from before the ways parted
                    cells[number] = shape if mine is None else Shape.joined([mine, shape])
        return Heap(self.relations, self.trail, cells, self.hooked)

    # -- objects ----------------------------------------------------------------------------------

    def locate(self, entity: Entity) -> tuple[Entity, Shape]:
        """Return an object's own cell and shape, past what was assigned on the way."""
        shape = self.cells.get(entity.cell) or Shape(entity.model, opened="it is not followed here")
        for index, name in enumerate(entity.path):
            link = shape.link(name)
            alias = self._aliased(link)
            if alias is not None:
                return self.locate(replace(alias, path=(*alias.path, *entity.path[index + 1 :]), model=entity.model))
            if link is not None and link.shape is not None:
                shape = link.shape
            else:
                relation = self.relations.of(shape.model, name)
                target = relation.target if relation is not None and relation.target is not None else "?"
                shape = Shape(target, {}, shape.origin, shape.via, shape.opened, shape.silent, sync=shape.sync)
        return entity, shape

    def _aliased(self, link: Link | None) -> Entity | None:
        alias = link.alias if link is not None else None
        if isinstance(alias, Many):
            alias = alias.element
        return alias if isinstance(alias, Entity) else None

    def set(self, entity: Entity, shape: Shape) -> None:
        """Replace what is known of an object."""
        entity, _ = self.locate(entity)
        root = self.cells.get(entity.cell)
        if root is not None:
            self.cells[entity.cell] = self._put(root, entity.path, shape)

    def _put(self, root: Shape, path: tuple[str, ...], shape: Shape) -> Shape:
        if not path:
            return shape
        link = root.link(path[0])
        relation = self.relations.of(root.model, path[0])
        target = relation.target if relation is not None and relation.target is not None else "?"
        inner = (
            link.shape
            if link is not None and link.shape is not None
            else Shape(target, {}, root.origin, root.via, root.opened, root.silent, sync=root.sync)
        )
        how = link.how if link is not None else "same"
        certain = link.certain if link is not None else True
        return root.with_link(
            path[0], Link(how, certain, self._put(inner, path[1:], shape), link.alias if link else None)
        )

    def mark(self, entity: Entity, name: str, link: Link) -> None:
        """Say that a relationship of an object is now loaded (or not)."""
        entity, shape = self.locate(entity)
        old = shape.link(name)
        if link.shape is None and old is not None and link.alias is None:
            link = replace(link, shape=old.shape)
        self.set(entity, shape.with_link(name, link))

    def apply(self, entity: Entity, loads: tuple[Load, ...]) -> None:
        """Load more of an object that is there already."""
        entity, shape = self.locate(entity)
        self.set(entity, shape.loaded(loads, self.targets(shape.model, loads)))

    def targets(self, model: str, loads: tuple[Load, ...]) -> dict[tuple[str, str], str | None]:
        """Return the related models that loader options lead to."""
        found: dict[tuple[str, str], str | None] = {}
        for load in loads:
            owner = load.owner or model
            relation = self.relations.of(owner, load.name) or self.relations.of(model, load.name)
            target = relation.target if relation is not None else None
            found[owner, load.name] = found[model, load.name] = target
            if target is not None and load.below:
                found.update(self.targets(target, load.below))
        return found

    def add(self, entity: Entity, *, sync: bool) -> None:
        """Put a new object, and what it is related to, into a session."""
        entity, shape = self.locate(entity)
        if shape.added or not shape.made:
            return
        self.set(entity, replace(shape, added=True, sync=shape.sync or sync))
        for link in shape.links.values():
            alias = self._aliased(link)
            if alias is not None:
                self.add(alias, sync=sync)

    def persist(self) -> None:
        """A flush: what was pending has rows now, and reading what was not given is a query."""
        for number, shape in self.cells.items():
            if shape.fresh and shape.added:
                self.cells[number] = replace(shape, fresh=False)

    # -- reading ----------------------------------------------------------------------------------

    def target(self, entity: Entity, relation: Relation) -> Value:
        """Return the value of a relationship."""
        _, shape = self.locate(entity)
        link = shape.link(relation.name)
        if link is not None and link.alias is not None:
            return link.alias  # type: ignore[return-value]  # links keep any value; shapes can't know of them
        inner = Entity(entity.cell, (*entity.path, relation.name), relation.target or "?")
        return Many(inner) if relation.many == Known(True) else inner

    def read(self, entity: Entity, relation: Relation, *, whole: bool) -> Verdict:
        """Tell what reading a relationship of an object comes to; `whole` reads go through all of a collection."""
        entity, shape = self.locate(entity)
        root = self.cells.get(entity.cell)
        via = shape.via or (root.via if root is not None else None)
        return replace(self._read(entity, shape, relation, whole=whole), via=via)

    def _read(self, entity: Entity, shape: Shape, relation: Relation, *, whole: bool) -> Verdict:
        link = shape.link(relation.name)
        root = self.cells.get(entity.cell)
        if shape.sync or (root is not None and root.sync):
            return Verdict(State.SYNC, "a synchronous session loads it when it is touched")
        if link is not None and link.how == "loaded":
            if link.certain:
                return Verdict(State.LOADED, link.by or f"{relation.key} is loaded", shape.origin)
            return Verdict(State.DOUBT, f"{relation.key} is loaded under a condition", shape.origin)
        if shape.opened is not None:
            return Verdict(State.CALLER if shape.silent else State.DOUBT, shape.opened, shape.origin)
        if link is not None and link.how != "same":
            if not link.certain:
                return Verdict(State.DOUBT, f"how {relation.key} is loaded depends on a condition", shape.origin)
            state = State.EMPTY if link.how == "empty" else State.MISSING
            return Verdict(state, f"an option leaves {relation.key} out", shape.origin)
        return self._mapped(entity, shape, relation, whole=whole)

    def _mapped(self, entity: Entity, shape: Shape, relation: Relation, *, whole: bool) -> Verdict:
        """Judge by the relationship's own mapping."""
        lazy = relation.lazy
        if isinstance(lazy, (Unknown, Missing)):
            return Verdict(State.DOUBT, f"how {relation.key} is mapped is not settled", shape.origin)
        if lazy.value in UNLOADABLE:
            state = State.UNLOADABLE if whole else State.LOADED
            return Verdict(state, f"{relation.key} is lazy={lazy.value!r}: never loaded as a whole", shape.origin)
        if shape.fresh:
            return Verdict(
                State.LOADED, f"{relation.key} of an object that was not flushed yet needs no query", shape.origin
            )
        if relation.eager and not shape.hidden and not shape.made:
            return Verdict(State.LOADED, f"{relation.key} is mapped with lazy={lazy.value!r}", shape.origin)
        if self.hooked is not None:
            return Verdict(State.DOUBT, self.hooked, shape.origin)
        if lazy.value == "noload" and shape.made:
            return Verdict(State.LOADED, f"{relation.key} of a new object is empty", shape.origin)
        if lazy.value == "noload":
            return Verdict(State.EMPTY, f"{relation.key} is lazy='noload' and no option loads it", shape.origin)
        if shape.made:
            return self._constructed(entity, shape, relation)
        if self._is_null(shape, relation):
            return Verdict(
                State.LOADED, f"{relation.key} has no foreign key set: reading it needs no query", shape.origin
            )
        return self._elsewhere(entity, shape, relation) or Verdict(
            State.MISSING, f"{relation.key} is not loaded", shape.origin
        )

    def _is_null(self, shape: Shape, relation: Relation) -> bool:
        """Tell whether a row's own foreign key is NULL: the relationship is None without a query, unless it raises."""
        to_one = relation.many == Known(False) and bool(relation.columns)
        return to_one and relation.lazy != Known("raise") and not shape.hidden and shape.unset >= set(relation.columns)

    def _constructed(self, entity: Entity, shape: Shape, relation: Relation) -> Verdict:
        """Judge an object that was made here and flushed: it has only what it was given."""
        if shape.filled is not None:
            return Verdict(State.DOUBT, shape.filled, shape.origin)
        if relation.many != Known(True) and not set(relation.columns) & shape.given:
            if relation.many == Known(False) and relation.columns and "*" not in shape.given:
                return Verdict(
                    State.LOADED, f"{relation.key} has no foreign key set: reading it needs no query", shape.origin
                )
            return Verdict(
                State.DOUBT, f"whether {relation.key} of the new object was set is not settled", shape.origin
            )
        found = self._elsewhere(entity, shape, relation)
        return found or Verdict(
            State.MISSING, f"{relation.key} of the new object was not given", shape.origin, made=True
        )

    def _elsewhere(self, entity: Entity, shape: Shape, relation: Relation) -> Verdict | None:
        """Look for what another query of the same session may have put there, or into the identity map."""
        if relation.many == Known(False) and relation.lazy != Known("raise"):
            if self._is_way_back(entity, relation):
                return Verdict(State.LOADED, f"{relation.key} is the object it was reached from", shape.origin)
            self.trail.beyond += 1
            for other in self.cells.values():
                if self._holds(other, relation.target) and other is not shape:
                    where = f" ({other.origin})" if other.origin is not None else ""
                    return Verdict(
                        State.DOUBT,
                        f"{relation.key} may be in the session already: another query loads its class{where}",
                        shape.origin,
                    )
        return self._of_another_query(entity, shape, relation)

    def _of_another_query(self, entity: Entity, shape: Shape, relation: Relation) -> Verdict | None:
        """Look for an object of the class that may be this one: what hangs on another is one of the session."""
        self.trail.beyond += 1
        for number, other in self.cells.items():
            link = other.link(relation.name)
            if number == entity.cell or other.model != shape.model:
                continue
            if link is not None and link.how == "loaded":
                told = f"another query in the same session loads {relation.key} ({other.origin})"
                return Verdict(State.DOUBT, told, shape.origin)
            if entity.path and other.opened is not None and not other.silent:
                told = f"another query in the same session may load {relation.key} ({other.origin}): {other.opened}"
                return Verdict(State.DOUBT, told, shape.origin)
        return None

    def _is_way_back(self, entity: Entity, relation: Relation) -> bool:
        if not entity.path:
            return False
        parent = replace(entity, path=entity.path[:-1])
        _, above = self.locate(parent)
        forward = self.relations.of(above.model, entity.path[-1])
        return forward is not None and relation.target == above.model and relation.name == forward.inverse

    def _holds(self, shape: Shape, model: str | None, depth: int = 0) -> bool:
        if model is None or (shape.opened is not None and shape.silent):
            return False
        if shape.model == model or (not shape.hidden and not shape.made and model in self.relations.along(shape.model)):
            return True
        inner = (link.shape for link in shape.links.values() if link.how == "loaded" and link.shape is not None)
        return depth < 4 and any(self._holds(each, model, depth + 1) for each in inner)
