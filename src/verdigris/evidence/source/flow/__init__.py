"""What code and response models read of mapped objects, and whether the query behind them loaded it.

Each route, then every other function, is run over abstract values: statements carry what their options load, objects
what their statement loaded, and reading a relationship that is certainly not there is noted with the query's place.
"""

from __future__ import annotations

import ast
import sys
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.fastapi.schemas import PlainType
from verdigris.evidence.source.flow.heap import State
from verdigris.evidence.source.flow.machine import Machine, TooLargeError
from verdigris.evidence.source.flow.reads import Read, Reads, Serving
from verdigris.evidence.source.flow.values import Func, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Route
    from verdigris.evidence.source.reading.modules import Scope

NESTING = 12_000  # Python frames: a call of the checked code takes a dozen


class Flow:
    """The reads of one tree."""

    def __init__(self, source: Source) -> None:
        """Follow an index."""
        self.source = source

    @cached_property
    def reads(self) -> Reads:
        """Run every route and every function that no route reached."""
        reads = Reads(self.source)
        if not self.source.relations.names or not self.source.uses_async:
            return reads
        seen: set[Scope] = set()
        with _deep():
            for route in self.source.web.routes:
                self._route(route, reads, seen)
            for function in self.source.functions:
                if function not in seen and not isinstance(function.node, ast.Lambda) and reads.memory.reads(function):
                    with _bounded(function, reads):
                        self._run(function, reads, seen)
        return reads

    def _route(self, route: Route, reads: Reads, seen: set[Scope]) -> None:
        scope = route.function.parent or route.function.module.scope
        made = self.source.schemas.type(route.response_model, scope)
        with _bounded(route.function, reads):
            machine, value = self._run(route.function, reads, seen)
            if not isinstance(made, PlainType):
                reads.serve(machine, value, made, Serving(route.key, route.place, route.place, route.key))

    def _run(self, function: Scope, reads: Reads, seen: set[Scope]) -> tuple[Machine, Value]:
        machine = Machine(self.source, reads)
        machine.visited = seen
        return machine, machine.root(Func(function))


@contextmanager
def _bounded(function: Scope, reads: Reads) -> Iterator[None]:
    """Give a function up, with what was found so far, where it is too much to follow."""
    try:
        yield
    except TooLargeError:
        reads.gave_up(function, f"{function.name}() and what it calls are too large to follow")
    except RecursionError:
        reads.gave_up(function, f"{function.name}() is nested too deeply to follow")


@contextmanager
def _deep() -> Iterator[None]:
    """Let Python's stack be as deep as the checked code's."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, NESTING))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


__all__ = ["Flow", "Read", "Reads", "State"]
