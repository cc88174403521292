"""Queries in loops: which of them run once for each row, and which only look like it.

A loop over chunks, attempts, a few written-out things or a queue's messages is none, nor is a query that does not
depend on what the loop goes over. What may be answered from memory, or ends with the first that fits, is a doubt.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.source.statements.asking import Asking
from verdigris.evidence.source.statements.iterated import Iterated
from verdigris.evidence.source.statements.remembered import Remembered, remembered
from verdigris.evidence.source.statements.rounds import (
    LOOPS,
    Loop,
    counted,
    depends,
    ends,
    header,
    is_chained,
    is_grouped,
    is_in_one_round,
    rounds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place


_SHARED = "reads that wait in the same moment may go to the server together"


@dataclass(frozen=True, slots=True)
class RowQuery(Subject):
    """A query that a loop sends in each round: `rows` is what the loop goes over, `unsure` why it may not."""

    key: str
    place: Place
    loop: Place
    rows: str
    call: str
    query: Place  # where it is sent, which may be in a function that is called
    function: Place
    gathered: bool = False
    works: bool = False  # what is called for each row does more than to read: a unit of work for each
    unsure: str | None = None
    different: str | None = None  # a mapping spares what was asked for before: a query for each different one of these


class Loops:
    """Loops of one tree that send queries."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self.asking = Asking(source)
        self.iterated = Iterated(source, self.asking)

    @cached_property
    def row_queries(self) -> list[RowQuery]:
        """Every loop of application code that queries once for each row, by its first such query."""
        found: list[RowQuery] = []
        for function in self.source.functions:
            if not isinstance(function.node, ast.Lambda):
                found += self._of(function)
        return found

    def _of(self, function: Scope) -> Iterator[RowQuery]:
        claimed: set[ast.AST] = set()
        for node in function.nodes():
            if not isinstance(node, LOOPS) or (isinstance(node, ast.While) and counted(node) is None):
                continue
            if not self.iterated.is_over_rows(node, function):
                continue
            queries = list(self._sent(node, function))
            for sent, asked, gathered in queries:
                if sent not in claimed and depends(sent, node) and not is_in_one_round(sent, node, function):
                    claimed |= {inner for inner, _, _ in queries}
                    yield self._row_query(node, sent, asked, function, gathered=gathered)
                    break

    def _row_query(
        self, loop: Loop, sent: ast.Call | ast.Attribute, asked: Place, function: Scope, *, gathered: bool
    ) -> RowQuery:
        module = function.module
        _, over = header(loop)
        known = remembered(loop, sent, function)
        shared = gathered and self._may_share(sent, function)
        return RowQuery(
            f"{function.key} for {module.text(over)[:60]}",
            module.place(sent),
            module.place(loop),
            module.text(over)[:60],
            module.text(sent.func if isinstance(sent, ast.Call) else sent)[:60],
            asked,
            function.place,
            gathered,
            self.asking.does_work(sent, function) or self._is_unit(loop, sent, function),
            _SHARED if shared else _unsure(loop, sent, known),
            module.text(known.key)[:60] if known is not None and known.empty and known.key is not None else None,
        )

    def _is_unit(self, loop: Loop, sent: ast.AST, function: Scope) -> bool:
        """Tell whether a query belongs to a session that each round opens, and in which it does more than to read."""
        opened = set(self.source.openings.of(function))
        for ancestor in function.module.ancestors(sent):
            if ancestor is loop:
                return False
            if isinstance(ancestor, ast.AsyncWith) and ancestor in opened:
                return self.asking.works_in(ancestor, function)
        return False

    def _may_share(self, sent: ast.Call | ast.Attribute, function: Scope) -> bool:
        return isinstance(sent, ast.Call) and self.asking.may_share(sent, function)

    # -- what a loop sends ------------------------------------------------------------------------

    def _sent(self, loop: Loop, scope: Scope) -> Iterator[tuple[ast.Call | ast.Attribute, Place, bool]]:
        """Yield the queries that each round sends: awaited, or gathered afterwards."""
        together = self._gathered(loop, scope)
        for node in rounds(loop):
            if isinstance(node, ast.Await):
                inner = node.value
                if isinstance(inner, ast.Attribute) and _is_awaitable_attribute(inner):
                    yield inner, scope.module.place(inner), False
                elif isinstance(inner, ast.Call):
                    asked = self.asking.query(inner, scope)
                    if asked is not None:
                        yield inner, asked, False
            elif together and isinstance(node, ast.Call):
                asked = self.asking.query(node, scope)
                if asked is not None:
                    yield node, asked, True

    def _gathered(self, loop: Loop, scope: Scope) -> bool:
        """Tell whether the coroutines that a loop makes are awaited together: `gather(*[load(x) for x in rows])`."""
        if isinstance(loop, (ast.For, ast.AsyncFor, ast.While)):
            return any(
                isinstance(node, ast.Call) and leaf_of(node.func) in {"append", "create_task"} for node in rounds(loop)
            ) and any(isinstance(node, ast.Call) and leaf_of(node.func) == "gather" for node in scope.nodes())
        for ancestor in scope.module.ancestors(loop):
            if isinstance(ancestor, ast.Call):
                meaning = self.source.names.resolve(ancestor.func, scope)
                return isinstance(meaning, External) and meaning.leaf in {"gather", "as_completed", "wait"}
            if isinstance(ancestor, ast.Assign) and isinstance(ancestor.targets[0], ast.Name):
                return _is_gathered_later(ancestor.targets[0].id, scope)
            if isinstance(ancestor, ast.stmt):
                return False
        return False


def _is_gathered_later(name: str, scope: Scope) -> bool:
    return any(
        isinstance(node, ast.Call)
        and leaf_of(node.func) == "gather"
        and any(isinstance(inner, ast.Name) and inner.id == name for arg in node.args for inner in ast.walk(arg))
        for node in scope.nodes()
    )


def _unsure(loop: Loop, sent: ast.Call | ast.Attribute, known: Remembered | None) -> str | None:
    """Say why a query may not run once for each row, or not be one that could be asked for all at once."""
    if isinstance(sent, ast.Attribute):
        return "whether the attribute is loaded already is not settled"
    if is_grouped(loop):
        return "each round asks for all of a group"
    if ends(loop, sent):
        return "it ends with the first that fits"
    if is_chained(loop, sent):
        return "each round needs what the one before found"
    if known is not None and known.only is not None:
        return f"it runs only where `{ast.unparse(known.only)[:60]}`"
    if known is not None and not known.empty:
        return "it runs only for those that another way did not find"
    if known is not None and known.key is not None and not known.identity:
        return f"it asks once for each different `{ast.unparse(known.key)[:60]}`, of which there may be few"
    return None


def _is_awaitable_attribute(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Attribute) and node.value.attr == "awaitable_attrs"
