"""What calls that are given objects do: each is run once for a state of these objects, not once for each caller.

A function sees of its caller's session the objects that its arguments lead to. Where these are as they were in an
earlier call, it does what it did then: what it read is noted already; what it returned, changed and made is its
summary. A call that looked beyond its arguments has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.memory import Key, closed, renumbered_shape, renumbered_value
from verdigris.evidence.source.flow.trail import DEPTH
from verdigris.evidence.source.flow.values import (
    Awaitables,
    Either,
    Entity,
    Func,
    Instance,
    Many,
    Method,
    Record,
    Result,
    Row,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verdigris.evidence.source.flow.machine import Machine
    from verdigris.evidence.source.flow.shapes import Shape
    from verdigris.evidence.source.reading.modules import Scope


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call did. The objects it was given are numbered from 1; those that it made come after them."""

    value: Value
    cells: tuple[tuple[int, Shape], ...]  # the objects that it changed or made
    made: int  # the numbers it took for those
    steps: int
    flushed: bool
    height: int  # calls inside calls
    entered: frozenset[Scope]


class Summaries:
    """Shared by the machines of one tree."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[Key, Summary] = {}

    def call(self, machine: Machine, scope: Scope, names: dict[str, Value], run: Callable[[], Value]) -> Value:
        """Return what a call gives: as its summary has it, or by running it."""
        given = _reached(list(names.values()), machine)
        if given is None:
            return run()
        numbers = {cell: index for index, cell in enumerate(given, 1)}
        shapes = [machine.heap.cells.get(cell) for cell in given]
        key = (
            scope,
            tuple((name, renumbered_value(value, numbers)) for name, value in names.items()),
            tuple(None if shape is None else renumbered_shape(shape, numbers) for shape in shapes),
            machine.greenlet > 0,
        )
        summary = self._known.get(key)
        if summary is None:
            return self._summed_up(machine, key, numbers, run)
        return _repeated(summary, machine, given) if _holds(summary, machine, numbers) else run()

    def _summed_up(self, machine: Machine, key: Key, given: dict[int, int], run: Callable[[], Value]) -> Value:
        """Run a call, and remember what it did if it looked at nothing but what it was given."""
        trail, last, flushes = machine.trail, machine.last, machine.flushes
        before, steps = dict(machine.heap.cells), machine.steps - trail.once
        beyond, entered, deepest = trail.beyond, len(trail.entered), trail.deepest
        trail.deepest = depth = len(machine.stack)
        value = run()
        height, trail.deepest = trail.deepest - depth, max(trail.deepest, deepest)
        if trail.beyond > beyond:
            return value
        cells = [(cell, shape) for cell, shape in machine.heap.cells.items() if before.get(cell) is not shape]
        reached = _reached([value, *(inner for _, shape in cells for inner in _assigned(shape))], machine)
        made = machine.last - last
        numbers = given | {last + index: len(given) + index for index in range(1, made + 1)}
        if reached is None or not numbers.keys() >= {*reached, *(cell for cell, _ in cells)}:
            return value
        self._known[key] = Summary(
            renumbered_value(value, numbers),
            tuple((numbers[cell], renumbered_shape(shape, numbers)) for cell, shape in cells),
            made,
            machine.steps - trail.once - steps,
            machine.flushes > flushes,
            height,
            frozenset(trail.entered[entered:]),
        )
        return value


def _holds(summary: Summary, machine: Machine, given: dict[int, int]) -> bool:
    """Tell whether a call goes as it went before: it is not cut short, and no other object waits for its flush."""
    if len(machine.stack) + summary.height >= DEPTH or not summary.entered.isdisjoint(machine.stack):
        return False
    return not summary.flushed or not any(
        shape.fresh and shape.added for cell, shape in machine.heap.cells.items() if cell not in given
    )


def _repeated(summary: Summary, machine: Machine, given: list[int]) -> Value:
    """Do what a call did, to the objects given now."""
    trail = machine.trail
    trail.deepest = max(trail.deepest, len(machine.stack) + summary.height)
    trail.entered += summary.entered
    machine.count(summary.steps)
    machine.flushes += summary.flushed
    numbers = dict(enumerate([*given, *range(machine.last + 1, machine.last + summary.made + 1)], 1))
    machine.last += summary.made
    for cell, shape in summary.cells:  # each has a shape of its own, which tells it from others
        machine.heap.cells[numbers[cell]] = replace(renumbered_shape(shape, numbers))
    return renumbered_value(summary.value, numbers)


def _reached(values: list[Value], machine: Machine) -> list[int] | None:
    """Return the objects that values lead to; None where a value holds objects in a way that is not followed."""
    found: dict[int, None] = {}
    for value in values:  # grows on the way
        match value:
            case Entity(cell=cell):
                if cell not in found:
                    found[cell] = None
                    shape = machine.heap.cells.get(cell)
                    values += _assigned(shape) if shape is not None else ()
            case Many(element=element, held=held):
                values += (element, *(held or ()))
            case Row(values=inner) | Either(values=inner) | Result(columns=inner):
                values += inner
            case Record(items=items, rest=rest):
                values += (rest, *(item for _, item in items))
            case Instance(fields=fields):
                values += [item for _, item in fields]
            case Awaitables():
                return None
            case Func(bound=bound, closure=closure) if closure is not None or (bound is not None and not closed(bound)):
                return None
            case Method(owner=owner) if not closed(owner):
                return None
            case _:
                pass
    return list(found)


def _assigned(shape: Shape) -> Iterator[Value]:
    """Yield what was assigned to the relationships of an object."""
    for link in shape.links.values():
        if link.alias is not None:
            yield link.alias  # type: ignore[misc]  # links keep any value
        if link.shape is not None:
            yield from _assigned(link.shape)
