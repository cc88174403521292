"""Except clauses around writes of a session: what becomes of the session, and who goes on with it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.arguments import is_generator
from verdigris.evidence.source.reading.excepts import Caught, afterwards, catching_first, named, own, raises
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.source.transactions.transactions import WRITES, writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.session.dependencies import SessionDependency
    from verdigris.evidence.values import Place

_SENDS = {
    "flush",
    "commit",
    "refresh",
    "merge",
    "delete",
    "execute",
    "scalar",
    "scalars",
    "get",
    "stream",
    "exec",
    "run_sync",
}
_STORES = {*WRITES, "commit"}
_NEVER = {"NoReturn", "Never"}
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True)
class Clause(Subject):
    """An except clause, or a `suppress`, around work on a session, and what becomes of the session.

    `end` is raised, rolled back, closed, savepoint, swallowed, or unknown; `then` says who goes on with it.
    """

    key: str
    place: Place
    session: str
    catches: str
    end: str
    then: str = ""
    after: Place | None = None


class Clauses:
    """Clauses of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def every(self) -> list[Clause]:
        """Every clause around writes of a session."""
        return [clause for function in self.source.functions for clause in self._clauses(function)]

    def _clauses(self, function: Scope) -> Iterator[Clause]:
        for node in function.nodes():
            if isinstance(node, ast.Try):
                session = self._written(node.body, function)
                if session is None:
                    continue
                found = [
                    self._clause(function, node, handler, session, _told(handler, what))
                    for handler, what in catching_first(node, function, self.source.names)
                ]
                ends = {
                    clause.end: clause for clause in reversed(found)
                }  # what all clauses of a try do alike is said once
                yield from sorted(ends.values(), key=lambda clause: clause.place)
            elif isinstance(node, ast.With):
                session = self._suppressed(node, function)
                if session is not None:
                    end = self._end(function, node, [], session)
                    place = function.module.place(node)
                    yield Clause(f"{function.key}:suppress", place, session[0], "suppress()", *end)

    def _suppressed(self, node: ast.With, function: Scope) -> tuple[str, ast.AST] | None:
        for item in node.items:
            call = item.context_expr
            maker = self.source.names.resolve(call.func, function) if isinstance(call, ast.Call) else None
            suppresses = isinstance(maker, External) and maker.dotted == "contextlib.suppress"
            arguments = call.args if suppresses and isinstance(call, ast.Call) else []
            if any(named(each, function, self.source.names) for each in arguments):
                return self._written(node.body, function)
        return None

    def _clause(
        self, function: Scope, attempt: ast.Try, handler: ast.ExceptHandler, session: tuple[str, ast.AST], catches: str
    ) -> Clause:
        end = self._end(function, attempt, handler.body, session, attempt.finalbody)
        return Clause(f"{function.key}:except", function.module.place(handler), session[0], catches, *end)

    def _written(self, body: list[ast.stmt], function: Scope) -> tuple[str, ast.AST] | None:
        """Return the session that statements write through, and the node that does."""
        opened = {name for node in own(body) if isinstance(node, ast.AsyncWith) for name in _bound(node)}
        stored: tuple[str, ast.AST] | None = None
        sent = False
        for node in own(body):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            method = node.func.attr
            if method not in _STORES | _SENDS or (
                method in {"add", "get", "delete", "merge"} and isinstance(node.func.value, ast.Constant)
            ):
                continue
            text = ast.unparse(node.func.value)
            if text.partition(".")[0] in opened or not self._is_open(node.func.value, function):
                continue
            if self._in_savepoint(node, body, function):
                continue
            sent = sent or method in _SENDS
            if method in _STORES or (method in {"execute", "scalar", "scalars", "exec"} and node.args and writes(node)):
                stored = stored or (text, node)
        return stored if sent else None

    def _is_open(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether an expression is what a transaction is in: an asynchronous session or connection."""
        return self.source.types.session(node, scope) == "async" or self.source.connections.is_one(node, scope)

    def _in_savepoint(self, node: ast.AST, body: list[ast.stmt], function: Scope) -> bool:
        for ancestor in function.module.ancestors(node):
            if ancestor in body:
                break
            if isinstance(ancestor, (ast.AsyncWith, ast.With)) and _nested(ancestor):
                return True
        return any(
            isinstance(top, (ast.AsyncWith, ast.With)) and _nested(top) and node in set(ast.walk(top)) for top in body
        )

    def _end(
        self,
        function: Scope,
        attempt: ast.Try | ast.With,
        handler: list[ast.stmt],
        session: tuple[str, ast.AST],
        final: list[ast.stmt] | None = None,
    ) -> tuple[str, str, Place | None]:
        """Tell what becomes of the session that a clause's error left in a failed transaction."""
        name = session[0]
        if raises(handler) or self._never_returns(function, handler):
            return "raised", "", None
        for node in own([*handler, *(final or [])]):
            if self._ends_transaction(node, name):
                return "rolled back", "", None
            if isinstance(node, ast.Call) and any(ast.unparse(arg) == name for arg in node.args):
                return "rolled back", "", None  # handed to a function that sees to it
            if self._is_use(node, name, _SENDS):
                return "raised", "", None  # whatever is sent in a failed transaction raises
        going_on = self._goes_on(function, attempt, handler, name, "this function")
        if going_on is not None:
            return going_on
        if self._opened_here(function, attempt, name):
            return "closed", "", None
        return self._callers(function, attempt, name)

    def _never_returns(self, function: Scope, handler: list[ast.stmt]) -> bool:
        """Tell whether a clause ends in a function of the tree that says it returns never: it translates the error."""
        for statement in handler:
            match statement:
                case ast.Return() | ast.Continue() | ast.Break():
                    return False
                case ast.Expr(value=ast.Await(value=ast.Call() as call) | (ast.Call() as call)):
                    called = self.source.types.callee(call, function)
                    if isinstance(called, Scope) and leaf_of(getattr(called.node, "returns", None)) in _NEVER:
                        return True
        return False

    def _ends_transaction(self, node: ast.AST, name: str) -> bool:
        """Tell whether a node awaits the rollback or the close of this session, or of what holds it."""
        call = node.value if isinstance(node, ast.Await) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            return False
        owner = ast.unparse(call.func.value)
        same = (
            owner == name
            or name.startswith(f"{owner}.")
            or owner.endswith(("transaction", "trans", "savepoint", "nested"))
        )
        return same and call.func.attr in {"rollback", "close", "aclose", "invalidate", "reset"}

    def _opened_here(self, function: Scope, attempt: ast.AST, name: str) -> bool:
        for ancestor in function.module.ancestors(attempt):
            if isinstance(ancestor, (ast.AsyncWith, ast.With)) and name in _bound(ancestor):
                return True
            if ancestor is function.node:
                break
        found = function.lookup(name) if name.isidentifier() else None
        return found is not None and found[0] is function and any(b.kind == "value" for b in found[1])

    def _goes_on(
        self, function: Scope, attempt: ast.stmt, handler: list[ast.stmt], name: str, who: str
    ) -> tuple[str, str, Place | None] | None:
        """Tell whether `who`, this function, goes on with the session: itself, or by leaving a block that commits.

        The block's COMMIT is answered with ROLLBACK, or not even sent after a failed flush, and leaving it raises
        nothing: what was added behind the clause, and what was written before it in the block, is gone in silence.
        """
        block = self._committing(function, attempt, name)
        methods = _SENDS if block is None else _SENDS | _STORES
        used = self._used_after(function, attempt, handler, name, methods)
        if used is not None:
            return "swallowed", who, used
        if block is None or self._written_before(function, block, attempt, name) is None:
            return None
        if _is_asked(function, block, attempt, _marks(handler)):
            return "unknown", "", None
        told = ", ".join(function.module.text(item.context_expr) for item in block.items)
        return "swallowed", f"the end of `async with {told[:60]}`", function.module.place(block)

    def _committing(self, function: Scope, attempt: ast.stmt, name: str) -> ast.AsyncWith | None:
        """Return the block around a clause that commits the session when it is left: `factory.begin()` and its like."""
        for ancestor in function.module.ancestors(attempt):
            if ancestor is function.node:
                return None
            for item in ancestor.items if isinstance(ancestor, ast.AsyncWith) else ():
                bound = isinstance(item.optional_vars, ast.Name) and item.optional_vars.id == name
                own_block = ast.unparse(item.context_expr) == f"{name}.begin()"
                if own_block or (bound and self.source.transactions.commits_when_left(item.context_expr, function)):
                    return ancestor if isinstance(ancestor, ast.AsyncWith) else None
        return None

    def _written_before(self, function: Scope, block: ast.AsyncWith, attempt: ast.stmt, name: str) -> ast.AST | None:
        """Return a write of the session that a block holds before a clause, and that the clause's error undoes."""
        elsewhere = {id(node) for node in _on_other_ways(function, block, attempt)}
        found: ast.AST | None = None
        for node in own(block.body):
            if not isinstance(node, ast.Call) or node.lineno >= attempt.lineno or id(node) in elsewhere:
                continue
            func = node.func
            if not isinstance(func, ast.Attribute) or ast.unparse(func.value) != name:
                continue
            sent = func.attr in {"execute", "scalar", "scalars", "exec"} and node.args and writes(node)
            if func.attr == "commit":
                found = None
            elif (func.attr in _STORES or sent) and not self._in_savepoint(node, block.body, function):
                found = found or node
        return found

    def _used_after(
        self, function: Scope, attempt: ast.stmt, handler: list[ast.stmt], name: str, methods: set[str]
    ) -> Place | None:
        """Return where the same function goes on with the session: behind the clause, or in the loop's next round."""
        marks = _marks(handler)
        end = handler[-1] if handler and isinstance(handler[-1], _LEAVING) else None

        def closes(block: ast.AST) -> bool:
            return isinstance(block, (ast.AsyncWith, ast.With)) and name in _bound(block)

        for statement in afterwards(function.module, attempt, end, closes):
            if isinstance(statement, ast.If) and marks & _names(statement.test):
                return None  # what the clause marks as failed (`row = None`) is asked first
            if any(closes(node) for node in ast.walk(statement)):
                return None
            used = next((node for node in own([statement]) if self._is_use(node, name, methods)), None)
            if used is not None:
                return function.module.place(used)
        return None

    def _is_use(self, node: ast.AST, name: str, methods: set[str]) -> bool:
        """Tell whether a node sends something through the session, or hands it on."""
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == name:
            return node.func.attr in methods
        return any(ast.unparse(arg) == name for arg in (*node.args, *(given.value for given in node.keywords)))

    def _committing_for(self, route: Scope, name: str) -> SessionDependency | None:
        """Return the dependency that commits what a route was given, or else any that commits."""
        own = {id(use.provider) for parameter, use in self.source.web.injected(route) if parameter.arg == name}
        every = self.source.session_dependencies
        given = [each for each in every if id(each.function) in own] or every
        return next((each for each in given if self.source.transactions.commit_of(each) is not None), None)

    def _callers(self, function: Scope, attempt: ast.AST, name: str, depth: int = 0) -> tuple[str, str, Place | None]:
        """Ask who goes on with a session that the function was given."""
        if function.name in {"__aexit__", "__exit__"}:
            return "unknown", "", None
        route = any(route.function is function for route in self.source.web.routes)
        if route:
            commits = self._committing_for(function, name)
            return (
                ("closed", "", None)
                if commits is None
                else ("swallowed", f"{commits.short}, which commits,", commits.place)
            )
        owner = function.lookup(name) if name.isidentifier() else None
        if owner is not None and owner[0] is not function and owner[0].is_function and not is_generator(function):
            return "swallowed", f"the next call of {function.name}()", function.place
        for call in self.source.calls.to(function):
            if call.module.role is not Role.APPLICATION or call.scope.function is None:
                continue
            handed = next(
                (
                    ast.unparse(arg)
                    for arg in (*call.node.args, *(kw.value for kw in call.node.keywords))
                    if self._is_open(arg, call.scope)
                ),
                None,
            )
            if handed is None and isinstance(call.node.func, ast.Attribute) and name.startswith("self."):
                handed = ast.unparse(call.node.func.value) if ast.unparse(call.node.func.value) != "self" else name
            if handed is None:
                continue
            statement = _statement(call)
            if not isinstance(statement, ast.Expr):
                continue  # the caller looks at what it is told
            going_on = self._goes_on(call.scope.function, statement, [], handed, f"{call.scope.function.name}()")
            if going_on is not None:
                return going_on
        return "unknown", "", None


def _marks(handler: list[ast.stmt]) -> set[str]:
    """Return the names that a clause assigns: by these, what comes later may know that it failed."""
    return {node.id for node in own(handler) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _on_other_ways(function: Scope, block: ast.AST, attempt: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of branches inside a block that do not lead to a clause."""
    inner: ast.AST = attempt
    for ancestor in function.module.ancestors(attempt):
        if ancestor is block:
            return
        if isinstance(ancestor, ast.If):
            for statement in ancestor.orelse if inner in ancestor.body else ancestor.body:
                yield from ast.walk(statement)
        if isinstance(ancestor, ast.Try) and inner in ancestor.handlers:
            for statement in ancestor.orelse:
                yield from ast.walk(statement)
        inner = ancestor


def _is_asked(function: Scope, block: ast.AsyncWith, attempt: ast.stmt, marks: set[str]) -> bool:
    """Tell whether a condition behind a clause, in the block that commits, asks for what the clause marks."""
    behind = afterwards(function.module, attempt, None, lambda each: each is block)
    return any(isinstance(statement, ast.If) and bool(marks & _names(statement.test)) for statement in behind)


def _told(handler: ast.ExceptHandler, what: Caught) -> str:
    return "except" if handler.type is None else f"except {', '.join(what.leaves) or 'Exception'}"


def _bound(node: ast.AsyncWith | ast.With) -> set[str]:
    return {item.optional_vars.id for item in node.items if isinstance(item.optional_vars, ast.Name)}


def _nested(node: ast.AsyncWith | ast.With) -> bool:
    return any(
        "begin_nested" in ast.unparse(item.context_expr) or "savepoint" in ast.unparse(item.context_expr).lower()
        for item in node.items
    )


def _statement(call: Call) -> ast.stmt | None:
    return next((node for node in call.module.ancestors(call.node) if isinstance(node, ast.stmt)), None)


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
