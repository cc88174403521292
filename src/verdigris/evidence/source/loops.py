"""Queries in loops: which of them run once for each row, and which only look like it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.modules import Scope
from verdigris.evidence.source.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

_READS = {"execute", "scalar", "scalars", "get", "get_one", "exec", "refresh", "stream", "stream_scalars"}
_UNITS = {"commit", "begin"}
_ONCE = ("chunk", "batch", "page", "attempt", "retr", "worker", "queue", "event", "message", "shard", "partition", "step")
DEPTH = 3  # calls followed from the loop to the query

Loop = ast.For | ast.AsyncFor | ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


@dataclass(frozen=True, slots=True)
class RowQuery(Subject):
    """A query that a loop awaits: `rows` is what it goes over, `unsure` why it may not run for each of them."""

    key: str
    place: Place
    loop: Place
    rows: str
    call: str
    unsure: str | None = None
    unit: bool = False  # each round is a transaction of its own


class Loops:
    """Loops of one tree that await queries."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._asks: dict[Scope, bool] = {}

    @cached_property
    def row_queries(self) -> list[RowQuery]:
        """Every query of application code that a loop over rows awaits, the outermost loop of each function first."""
        found: dict[ast.Call, RowQuery] = {}
        for function in self.source.functions:
            for node in function.nodes():
                if isinstance(node, Loop):
                    query = self._query_in(node, function)
                    if query is not None:
                        found.setdefault(query, self._row_query(node, query, function))
        return list(found.values())

    def _query_in(self, loop: Loop, scope: Scope) -> ast.Call | None:
        """Return the first read that each round of a loop over rows sends, or None."""
        if self._over_few(loop, scope):
            return None
        for node in _rounds(loop):
            if isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and self._queries(node.value, scope, 0):
                return node.value
        if isinstance(loop, (ast.ListComp, ast.GeneratorExp)) and self._gathered(loop, scope):
            element = loop.elt
            if isinstance(element, ast.Call) and self._queries(element, scope, 0):
                return element
        return None

    def _gathered(self, loop: ast.AST, scope: Scope) -> bool:
        """`gather(*[load(x) for x in rows])` is a query for each row too."""
        for ancestor in scope.module.ancestors(loop):
            if isinstance(ancestor, ast.Call):
                meaning = self.source.names.resolve(ancestor.func, scope)
                return isinstance(meaning, External) and meaning.leaf == "gather" and meaning.package == "asyncio"
            if isinstance(ancestor, ast.stmt):
                return False
        return False

    def _over_few(self, loop: Loop, scope: Scope) -> bool:
        """Tell a loop over chunks, attempts or a few written-out things from one over rows."""
        target, over = _header(loop)
        if isinstance(loop, ast.AsyncFor) and self.source.types.session(target, scope) is not None:
            return True  # `async for session in get_session()` goes round once
        if isinstance(over, (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Constant)):
            return True
        if self.source.writes.chunk_size(over, scope) is not None:
            return True
        if isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id in {"range", "zip"}:
            return True
        words = f"{ast.unparse(target)} {ast.unparse(over)}".lower()
        if any(word in words for word in _ONCE):
            return True
        meaning = self.source.names.resolve(over, scope)
        if isinstance(meaning, Scope) and meaning.is_class:
            return True  # the members of an enumeration
        value = meaning.value if isinstance(meaning, Assigned) else None
        return isinstance(value, (ast.Tuple, ast.List, ast.Set, ast.Dict)) and bool(ast.unparse(value).strip("()[]{} "))

    def _queries(self, call: ast.Call, scope: Scope, depth: int) -> bool:
        """Tell whether awaiting a call reads from the database."""
        if isinstance(call.func, ast.Attribute):
            if call.func.attr in _READS and self.source.types.session(call.func.value, scope) is not None:
                return not self._writes(call, scope)
        callee = self.source.types.callee(call, scope)
        if not (isinstance(callee, Scope) and callee.is_function) or depth >= DEPTH:
            return False
        return self.asks(callee, depth + 1)

    def _writes(self, call: ast.Call, scope: Scope) -> bool:
        """An UPDATE or DELETE for each row is another matter: it has no batched read to be replaced by."""
        for node in ast.walk(call.args[0]) if call.args else ():
            if isinstance(node, ast.Call):
                meaning = self.source.names.resolve(node.func, scope)
                if isinstance(meaning, External) and meaning.leaf in {"update", "delete", "insert"} and meaning.package == "sqlalchemy":
                    return True
        return False

    def asks(self, function: Scope, depth: int = 0) -> bool:
        """Tell whether a function reads from the database, itself or through what it awaits."""
        if function not in self._asks:
            self._asks[function] = False  # while it is being found out: a circle asks nothing by itself
            self._asks[function] = any(
                isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and self._queries(node.value, function, depth)
                for node in function.nodes()
            )
        return self._asks[function]

    def _row_query(self, loop: Loop, query: ast.Call, function: Scope) -> RowQuery:
        module = function.module
        _, over = _header(loop)
        rounds = list(_rounds(loop))
        unsure = None
        if any(isinstance(node, (ast.Break, ast.Return)) for node in rounds):
            unsure = "it ends with the first that fits"
        elif self._remembered(query, loop, function):
            unsure = "what was asked before may be remembered"
        unit = any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _UNITS for node in rounds
        ) or any(isinstance(node, ast.AsyncWith) for node in rounds)
        return RowQuery(
            f"{function.key}:{ast.unparse(over)[:40]}",
            module.place(query),
            module.place(loop),
            ast.unparse(over)[:60],
            ast.unparse(query.func)[:60],
            unsure,
            unit,
        )

    def _remembered(self, query: ast.Call, loop: Loop, function: Scope) -> bool:
        """`if key not in memo: memo[key] = await …` asks once for each key."""
        for ancestor in function.module.ancestors(query):
            if ancestor is loop:
                return False
            if isinstance(ancestor, ast.If) and any(isinstance(op, (ast.In, ast.NotIn)) for op in _comparisons(ancestor.test)):
                return True
        return False


def _comparisons(test: ast.expr) -> Iterator[ast.cmpop]:
    for node in ast.walk(test):
        if isinstance(node, ast.Compare):
            yield from node.ops


def _header(loop: Loop) -> tuple[ast.expr, ast.expr]:
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return loop.target, loop.iter
    return loop.generators[0].target, loop.generators[0].iter


def _rounds(loop: Loop) -> Iterator[ast.AST]:
    """Yield what a loop does in each round; what it goes over is evaluated once."""
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        stack: list[ast.AST] = list(reversed(loop.body))
    else:
        first = loop.generators[0]
        results = [loop.key, loop.value] if isinstance(loop, ast.DictComp) else [loop.elt]
        stack = [*results, *first.ifs, *loop.generators[1:]]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.While)):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))
