"""Calls in progress: of a function that is run, and of whatever an expression calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.values import Closure, Value

if TYPE_CHECKING:
    import ast

    from verdigris.evidence.source.flow.heap import Heap
    from verdigris.evidence.source.reading.modules import Scope


@dataclass(slots=True)
class Frame:
    """One call of a function: its variables, what it returned so far, and the states at its exits."""

    scope: Scope
    names: dict[str, Value]
    returns: list[Value] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)
    exits: list[Heap] = field(default_factory=list)
    jumps: list[tuple[dict[str, Value], Heap]] = field(default_factory=list)
    outer: Closure | None = None
    conditions: int = 0
    guarded: int = 0

    @property
    def closure(self) -> Closure:
        """The variables that functions defined here see."""
        return Closure({**(self.outer.names if self.outer is not None else {}), **self.names})


@dataclass(slots=True)
class Call:
    """A call in progress, its arguments evaluated; `opened` says that it may pass more than is known."""

    node: ast.Call
    arguments: list[Value]
    keywords: dict[str, Value]
    frame: Frame
    awaited: bool = False
    opened: bool = False

    def get(self, index: int, *names: str) -> Value | None:
        """Return an argument by place or name."""
        if 0 <= index < len(self.arguments):
            return self.arguments[index]
        return next((self.keywords[name] for name in names if name in self.keywords), None)

    def of(self, arguments: list[Value]) -> Call:
        """Return a call from the same place of something else."""
        return Call(self.node, arguments, {}, self.frame)
