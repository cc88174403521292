"""What calls ask of the database: whether awaiting one reads from it, where, and whether it does more than that."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import inside, leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

DEPTH = 5  # calls followed to the query
_READS = {"execute", "exec", "scalar", "scalars", "get", "get_one", "refresh", "stream", "stream_scalars"}
#: What of the library reads when it is awaited: a Database without a session, its lane, a read that was prepared.
_OURS = {
    "Database": {"fetch", "json"},
    "Lane": {"fetch", "fetchval", "fetchval_together", "fetch_each"},
    "JSONRead": {"", "fetch"},
}
_SHARING = {
    ("Database", "fetch"),
    ("Database", "json"),
    ("Lane", "fetchval_together"),
    ("JSONRead", ""),
    ("JSONRead", "fetch"),
}
_CHANGES = {"add", "add_all", "delete", "merge"}
_WRITES = {"update", "delete", "insert"}
_CACHES = re.compile(r"cache|memo|alru", re.IGNORECASE)


class Asking:
    """The calls of one tree that read from the database."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._asks: dict[tuple[Scope, int], Place | None] = {}  # by how deep it was asked: else who asks first decides
        self._working: dict[tuple[Scope, int], bool] = {}

    def query(self, call: ast.Call, scope: Scope, depth: int = 0) -> Place | None:
        """Return where awaiting a call reads from the database, or None if it does not."""
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr in _READS and self.source.types.sends(func.value, scope):
            return scope.module.place(call) if self._reads(call, scope) else None
        if self._is_ours(call, scope):
            return scope.module.place(call)
        callee = self.source.types.callee(call, scope)
        if isinstance(callee, Scope) and callee.is_function and callee.is_async and depth < DEPTH:
            return self.asked_by(callee, depth)
        return None

    def asked_by(self, function: Scope, depth: int = 0) -> Place | None:
        """Return the first read that a function sends, itself or through what it awaits; none if it remembers."""
        asked = function, depth
        if asked not in self._asks:
            cached = any(_CACHES.search(ast.unparse(decorator)) for decorator in function.decorators)
            self._asks[asked] = None if cached else self._first(function, depth)
        return self._asks[asked]

    def _first(self, function: Scope, depth: int) -> Place | None:
        remembers = False
        for node in function.nodes():
            if isinstance(node, ast.If):
                remembers = remembers or _returns_what_it_asks_for(node)
            elif isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
                asked = self.query(node.value, function, depth + 1)
                if asked is not None:
                    return None if remembers else asked
        return None

    def _is_ours(self, call: ast.Call, scope: Scope) -> bool:
        """Tell whether awaiting a call reads by the library's own API."""
        return self._ours(call, scope) is not None

    def may_share(self, call: ast.Call, scope: Scope) -> bool:
        """Tell whether the library may send a call's read together with others that wait in the same moment."""
        return self._ours(call, scope) in _SHARING

    def _ours(self, call: ast.Call, scope: Scope) -> tuple[str, str] | None:
        """Name the library's own read that awaiting a call sends: `db.fetch()`, `db.lane.fetchval()`, `read()`."""
        callee, method = self.source.types.callee(call, scope), ""
        if callee is None or isinstance(callee, Assigned):
            callee = self.source.types.of(call.func, scope)
        elif isinstance(callee, External):
            dotted, _, method = callee.dotted.rpartition(".")
            callee = External(dotted)
        if not (isinstance(callee, External) and callee.package == "verdigris"):
            return None
        return (callee.leaf, method) if method in _OURS.get(callee.leaf, ()) else None

    # -- what a statement is ----------------------------------------------------------------------

    def _reads(self, call: ast.Call, scope: Scope) -> bool:
        """Tell a SELECT from a write: what is executed is a select, a get, a refresh, or text that begins so."""
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"get", "get_one", "refresh"}:
            return True
        verbs = set(self._verbs(call.args[0], scope, 0)) if call.args else set()
        if verbs & _WRITES or not call.args:
            return False
        return "select" in verbs or (not verbs and _is_used(call, scope))

    def _verbs(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """Yield the verbs of a statement, through the variables and functions that built it."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                yield from self._verb(inner, scope, depth)
            elif isinstance(inner, ast.Name) and depth < 3:
                meaning = self.source.names.resolve(inner, scope)
                for binding in meaning.bindings if isinstance(meaning, Assigned) else ():
                    if binding.kind == "value" and binding.value is not None and binding.value is not node:
                        yield from self._verbs(binding.value, scope, depth + 1)

    def _verb(self, call: ast.Call, scope: Scope, depth: int) -> Iterator[str]:
        meaning = self.source.types.reach(call.func, scope)
        if isinstance(meaning, External) and meaning.package in {"sqlalchemy", "sqlmodel"}:
            if meaning.leaf in {"select", *_WRITES}:
                yield meaning.leaf
            elif meaning.leaf == "text" and call.args:
                yield _first_word(call.args[0])
        elif isinstance(meaning, Scope) and meaning.is_function and not meaning.is_async and depth < 3:
            for node in meaning.nodes():
                if isinstance(node, ast.Return) and node.value is not None:
                    yield from self._verbs(node.value, meaning, depth + 1)

    # -- work -------------------------------------------------------------------------------------

    def does_work(self, sent: ast.Call | ast.Attribute, scope: Scope) -> bool:
        """Tell whether what is called for each row does more than to read: writes, or waits for something else."""
        callee = self.source.types.callee(sent, scope) if isinstance(sent, ast.Call) else None
        return isinstance(callee, Scope) and callee.is_function and self._works(callee, 0)

    def works_in(self, block: ast.AsyncWith, scope: Scope) -> bool:
        """Tell whether a block does more than to read: whoever flushes or commits has written."""
        return any(
            self._is_work(node, scope, 0) or (isinstance(node, ast.Call) and leaf_of(node.func) in {"commit", "flush"})
            for node in inside(block.body)
        )

    def _works(self, function: Scope, depth: int) -> bool:
        asked = function, depth
        if asked not in self._working:
            self._working[asked] = any(self._is_work(node, function, depth) for node in function.nodes())
        return self._working[asked]

    def _is_work(self, node: ast.AST, scope: Scope, depth: int) -> bool:
        if isinstance(node, ast.Await):
            inner = node.value
            if isinstance(inner, ast.Name):  # a coroutine that a caller hands in may do anything
                return any(parameter.arg == inner.id for parameter in scope.parameters)
            return isinstance(inner, ast.Call) and not self._reads_only(inner, scope, depth)
        if not isinstance(node, ast.Call):
            return False
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr in _CHANGES and self.source.types.sends(func.value, scope):
            return True
        meaning = self.source.types.callee(node, scope)
        if isinstance(meaning, External):
            return meaning.package in {"sqlalchemy", "sqlmodel"} and meaning.leaf in _WRITES
        return isinstance(meaning, Scope) and not meaning.is_async and self._does(meaning, depth)

    def _reads_only(self, call: ast.Call, scope: Scope, depth: int) -> bool:
        """Tell whether awaiting a call does nothing but to read from the database."""
        func = call.func
        if isinstance(func, ast.Attribute) and self.source.types.sends(func.value, scope):
            return func.attr not in _CHANGES
        if self._is_ours(call, scope):
            return True
        callee = self.source.types.callee(call, scope)
        if isinstance(callee, Scope) and callee.is_function:
            return not (self._does(callee, depth) or self._hands_on(callee, depth))
        return isinstance(callee, External) and callee.leaf in {"gather", "sleep", "wait_for", "shield"}

    def _hands_on(self, function: Scope, depth: int) -> bool:
        """Tell whether a function that is not async gives a coroutine to be awaited which does more than to read."""
        if function.is_async or depth >= DEPTH:
            return False
        given = (node.value for node in function.nodes() if isinstance(node, ast.Return))
        return any(isinstance(each, ast.Call) and not self._reads_only(each, function, depth + 1) for each in given)

    def _does(self, function: Scope, depth: int) -> bool:
        return function.is_function and depth < DEPTH and self._works(function, depth + 1)


def _returns_what_it_asks_for(node: ast.If) -> bool:
    """`if self.service: return self.service`: what was found once is kept, and no later call asks again."""
    last = node.body[-1]
    kept = last.value if isinstance(last, ast.Return) else None
    if isinstance(kept, ast.Subscript):
        kept = kept.value
    match kept:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            known = ast.dump(kept)
            return any(ast.dump(inner) == known for inner in ast.walk(node.test))
        case _:
            return False


def _first_word(node: ast.expr) -> str:
    words = node.value.split(None, 1) if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
    return words[0].lower() if words else ""


def _is_used(call: ast.Call, scope: Scope) -> bool:
    """Tell whether a result is looked at: that of a statement nobody knows is a read then."""
    parent = scope.module.parents.get(call)
    if isinstance(parent, ast.Await):
        parent = scope.module.parents.get(parent)
    return not isinstance(parent, ast.Expr)
