"""What is remembered across roots: what names mean, which functions matter, what calls gave."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.flow.shapes import Link, Shape
from verdigris.evidence.source.flow.values import (
    Awaitables,
    Const,
    Either,
    Entity,
    Func,
    Instance,
    Many,
    Record,
    Result,
    Row,
    Value,
    entities,
)
from verdigris.evidence.source.reading.modules import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.flow.heap import Heap
    from verdigris.evidence.source.reading.names import Meaning

Key: TypeAlias = tuple[object, ...]
_QUERIES = {
    "execute",
    "stream",
    "select",
    "query",
    "get_one",
    "scalars",
    "scalar",
    "stream_scalars",
    "exec",
    "refresh",
    "merge",
}
_SINKS = frozenset({"model_validate", "from_orm", "validate_python", "awaitable_attrs"})
_NOTHING: frozenset[str] = frozenset()
_OPTIONS = {"joinedload", "selectinload", "subqueryload", "contains_eager", "options", "load"}
_GUARDS = {"unloaded", "__dict__", "instance_dict", "instance_state", "NO_VALUE", "unmodified"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: its value, the objects it made, and whether it flushed."""

    value: Value
    cells: tuple[tuple[int, Shape], ...]
    flushed: bool


class Memory:
    """Shared by the machines of one tree."""

    def __init__(self, source: Source) -> None:
        """Remember nothing yet."""
        self.source = source
        self.outcomes: dict[Key, Outcome] = {}
        self._meanings: dict[ast.expr, Meaning | None] = {}
        self._constants: dict[ast.Constant, Const] = {}

    def meaning(self, node: ast.expr, scope: Scope) -> Meaning | None:
        """Resolve a name once."""
        if node not in self._meanings:
            self._meanings[node] = self.source.names.resolve(node, scope)
        return self._meanings[node]

    def constant(self, node: ast.Constant) -> Const:
        """Return a constant's value, the same object each time."""
        if node not in self._constants:
            self._constants[node] = Const(node.value)
        return self._constants[node]

    def guarded(self, scope: Scope) -> bool:
        """Tell whether a function asks what is loaded before it reads."""
        return bool(self._mentions.get(scope, _NOTHING) & _GUARDS)

    def matters(self, scope: Scope) -> bool:
        """Tell whether a function, or anything it may call, queries, loads or reads relationships."""
        return scope in self._mattering or scope not in self._mentions

    def reads(self, scope: Scope) -> bool:
        """Tell whether a function itself mentions a relationship, or turns objects into models."""
        return bool(self._mentions.get(scope, _NOTHING) & (self.source.relations.names | _SINKS))

    @cached_property
    def listened(self) -> frozenset[str]:
        """The models whose objects an event listener or a validator may complete when they are made."""
        found: set[str] = set()
        for call in self.source.calls.named("listens_for", "listen"):
            for node in call.node.args[:1]:
                owner = node.value if isinstance(node, ast.Attribute) else node
                for each in (node, owner):
                    model = self.source.statements.model(each, call.scope)
                    if model is not None:
                        found.add(model.key)
        for model in self.source.models.every:
            methods = [
                method
                for base in self.source.names.lineage(model.scope)
                if isinstance(base, Scope)
                for method in base.scopes
            ]
            if any("validates" in ast.unparse(decorator) for method in methods for decorator in method.decorators):
                found.add(model.key)
        return frozenset(found)

    @cached_property
    def _mentions(self) -> dict[Scope, frozenset[str]]:
        """The names and attributes that each function's own code mentions."""
        return {scope: frozenset(_mentioned(scope)) for scope in self.source.functions}

    @cached_property
    def _mattering(self) -> set[Scope]:
        """Close "mentions a query or a relationship" over calls, by name."""
        words = (
            _QUERIES
            | _SINKS
            | _OPTIONS
            | self.source.relations.names
            | {model.name for model in self.source.models.every}
        )
        words |= {scope.name for scope in self.source.classes if self.source.schemas.is_schema(scope)}
        callers: dict[str, list[Scope]] = {}
        for scope, mentioned in self._mentions.items():
            for name in mentioned:
                callers.setdefault(name, []).append(scope)
        waiting = [scope for scope, mentioned in self._mentions.items() if mentioned & words]
        found = set(waiting)
        while waiting:
            scope = waiting.pop()
            names = [scope.name]
            if scope.enclosing_class is not None and scope.name == "__init__":
                names.append(scope.enclosing_class.name)
            around = scope.parent.function if scope.parent is not None else None
            reached = [caller for name in names for caller in callers.get(name, ())]
            for caller in [*reached, *([around] if around is not None else [])]:
                if caller not in found:
                    found.add(caller)
                    waiting.append(caller)
        return found

    # -- calls ------------------------------------------------------------------------------------

    def key(self, scope: Scope, names: dict[str, Value], closure: object, *, greenlet: bool) -> Key | None:
        """Return what a call depends on, or None when it is given objects or functions of its caller."""
        if closure is not None or any(not closed(value) for value in names.values()):
            return None
        return (scope, tuple(names.items()), greenlet)

    def recall(self, outcome: Outcome, heap: Heap, number: int) -> tuple[Value, int]:
        """Give a remembered value again, with objects of its own; return it and the last number used."""
        renumbered = {old: number + index for index, (old, _) in enumerate(outcome.cells, 1)}
        for old, shape in outcome.cells:
            heap.cells[renumbered[old]] = renumbered_shape(shape, renumbered)
        return renumbered_value(outcome.value, renumbered), number + len(outcome.cells)

    def keep(self, key: Key, value: Value, before: Heap, after: Heap, *, flushed: bool) -> None:
        """Remember a call."""
        made = [(number, shape) for number, shape in after.cells.items() if number not in before.cells]
        self.outcomes[key] = Outcome(value, tuple(_reduced(value, made)), flushed)


def _mentioned(scope: Scope) -> Iterator[str]:
    for node in scope.nodes():
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def _reduced(value: Value, made: list[tuple[int, Shape]]) -> list[tuple[int, Shape]]:
    """Keep the objects that a value leads to, and one of each kind of the others: they tell what the session holds."""
    shapes = dict(made)
    needed: set[int] = set()
    waiting = [entity.cell for entity in entities(value)]
    while waiting:
        number = waiting.pop()
        if number in needed or number not in shapes:
            continue
        needed.add(number)
        waiting += [entity.cell for entity in _aliases(shapes[number])]
    kept, kinds = [], set()
    for number, shape in made:
        kind = (shape.model, shape.origin)
        if number in needed or (kind not in kinds and not any(link.alias is not None for link in shape.links.values())):
            kept.append((number, shape))
        kinds.add(kind)
    return kept


def _aliases(shape: Shape) -> list[Entity]:
    found: list[Entity] = []
    for link in shape.links.values():
        if link.alias is not None:
            found += entities(link.alias)  # type: ignore[arg-type]  # links keep any value
        if link.shape is not None:
            found += _aliases(link.shape)
    return found


def closed(value: Value, depth: int = 0) -> bool:
    """Tell whether a value stands for itself: no object with a state, no function with variables."""
    if depth > 6:
        return False
    match value:
        case Entity() | Awaitables() | Result():
            return False
        case Func(bound=bound, closure=closure):
            return closure is None and (bound is None or closed(bound, depth + 1))
        case Many(element=element, held=held):
            return closed(element, depth + 1) and all(closed(item, depth + 1) for item in held or ())
        case Row(values=values) | Either(values=values):
            return all(closed(item, depth + 1) for item in values)
        case Record(items=items, rest=rest):
            return closed(rest, depth + 1) and all(closed(item, depth + 1) for _, item in items)
        case Instance(fields=fields):
            return all(closed(item, depth + 1) for _, item in fields)
        case _:
            return True


def renumbered_value(value: Value, numbers: dict[int, int]) -> Value:
    """Return a value with the cells of its objects renamed."""
    if not numbers:
        return value
    match value:
        case Entity(cell=cell):
            return replace(value, cell=numbers.get(cell, cell))
        case Many(element=element, held=held):
            kept = None if held is None else tuple(renumbered_value(item, numbers) for item in held)
            return Many(renumbered_value(element, numbers), kept)
        case Row(values=values):
            return Row(tuple(renumbered_value(item, numbers) for item in values))
        case Either(values=values):
            return Either(tuple(renumbered_value(item, numbers) for item in values))
        case Result(columns=columns, scalars=scalars):
            return Result(tuple(renumbered_value(item, numbers) for item in columns), scalars)
        case Record(items=items, rest=rest):
            return Record(
                tuple((name, renumbered_value(item, numbers)) for name, item in items), renumbered_value(rest, numbers)
            )
        case Instance(scope=scope, fields=fields):
            return Instance(scope, tuple((name, renumbered_value(item, numbers)) for name, item in fields))
        case _:
            return value


def renumbered_shape(shape: Shape, numbers: dict[int, int]) -> Shape:
    """Return a shape with the cells of the objects that were assigned to it renamed."""
    if not any(link.alias is not None or link.shape is not None for link in shape.links.values()):
        return shape
    links = {}
    for name, link in shape.links.items():
        alias = renumbered_value(link.alias, numbers) if link.alias is not None else None  # type: ignore[arg-type]  # links keep any value
        inner = renumbered_shape(link.shape, numbers) if link.shape is not None else None
        links[name] = Link(link.how, link.certain, inner, alias, link.by)
    return replace(shape, links=links)
