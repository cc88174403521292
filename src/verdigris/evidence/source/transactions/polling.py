"""Loops that poll the database for as long as the program runs, and whether the first lost connection ends them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.excepts import caught
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class Loop(Subject):
    """A loop that polls the database for as long as the program runs; `guarded` if an error does not end it."""

    key: str
    place: Place
    guarded: bool


class Polling:
    """Polling loops of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def loops(self) -> list[Loop]:
        """Every endless loop that sleeps and works with the database in its own body."""
        return [loop for function in self.source.functions if function.is_async for loop in self._loops(function)]

    def _loops(self, function: Scope) -> Iterator[Loop]:
        for node in function.nodes():
            if not (isinstance(node, ast.While) and self._endless(node) and self._sleeps(node, function)):
                continue
            work = [
                opened for opened in self.source.openings.of(function) if node in set(function.module.ancestors(opened))
            ]
            if work:
                guarded = all(self._guarded(each, node, function) for each in work)
                yield Loop(f"{function.key}:loop", function.module.place(node), guarded)

    def _endless(self, node: ast.While) -> bool:
        """A loop that something ends waits for it: whoever called then has its error."""
        if isinstance(node.test, ast.Constant) and bool(node.test.value):
            return not any(isinstance(inner, (ast.Break, ast.Return)) for inner in ast.walk(node))
        return False

    def _sleeps(self, node: ast.While, function: Scope) -> bool:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Await) and isinstance(inner.value, ast.Call):
                called = self.source.names.resolve(inner.value.func, function)
                if isinstance(called, External) and called.leaf in {"sleep", "wait_for", "wait"}:
                    return True
        return False

    def _guarded(self, opened: ast.AST, loop: ast.While, function: Scope) -> bool:
        """Tell whether an except clause inside the loop catches what opening and using the session raises."""
        inner = opened
        for ancestor in function.module.ancestors(opened):
            if ancestor is loop:
                return False
            handlers = ancestor.handlers if isinstance(ancestor, ast.Try) and inner in ancestor.body else []
            if any(caught(handler, function, self.source.names) for handler in handlers):
                return True
            if isinstance(ancestor, (ast.With, ast.AsyncWith)) and "suppress" in ast.unparse(
                ancestor.items[0].context_expr
            ):
                return True
            inner = ancestor
        return False
