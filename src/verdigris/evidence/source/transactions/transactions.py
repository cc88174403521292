"""Who commits: the project's own convention for ending transactions."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.source.reading.excepts import caught, named, own, raises
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.types import ASYNC_FACTORY, SYNC_FACTORY
from verdigris.evidence.source.reading.versions import below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.session.dependencies import SessionDependency
    from verdigris.evidence.values import Place

WRITES = ("add", "add_all", "delete", "merge", "flush", "bulk_save_objects", "bulk_insert_mappings")
_DML = {"insert", "update", "delete"}
_READS = re.compile(r"\s*(select|show|explain\s+(?!.*analy))", re.IGNORECASE)
_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
_NAMES = {"session", "db", "db_session", "async_session"}
_DEPTH = 3
_AFTER_SINCE = 118  # FastAPI 0.118


class Transactions:
    """Commits, rollbacks and writes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def on_sessions(self, *methods: str) -> list[tuple[Place, Scope]]:
        """Return where application code calls these methods of a SQLAlchemy session."""
        found = []
        for call in self.source.calls.named(*methods):
            if call.module.role is not Role.APPLICATION or not isinstance(call.node.func, ast.Attribute):
                continue
            if self.source.types.session(call.node.func.value, call.scope) is not None:
                found.append((call.place, call.scope))
        return found

    @cached_property
    def committers(self) -> list[Place]:
        """Places outside of session dependencies that commit: commit(), blocks of begin(), and units of work."""
        owners = {
            id(dependency.function)
            for dependency in self.source.session_dependencies
            if dependency.function is not None
        }
        found = [place for place, scope in self.on_sessions("commit", "begin") if id(scope.function) not in owners]
        return sorted({*found, *self._units(owners)})

    def _units(self, owners: set[int]) -> Iterator[Place]:
        """Yield `factory.begin()` and the units of work of a Database."""
        for call in self.source.calls.named("begin", "transaction", "transactional"):
            if call.module.role is not Role.APPLICATION or not isinstance(call.node.func, ast.Attribute):
                continue
            owner = self.source.types.of(call.node.func.value, call.scope)
            unit = isinstance(owner, External) and owner.named("verdigris", "Database")
            begun = owner in {ASYNC_FACTORY, SYNC_FACTORY} and call.node.func.attr == "begin"
            if (unit or begun) and id(call.scope.function) not in owners:
                yield call.place

    @cached_property
    def writers(self) -> list[Place]:
        """Places that write through a session."""
        found = [place for place, _ in self.on_sessions(*WRITES)]
        for call in self.source.calls.named("execute", "scalar", "scalars"):
            if (
                call.module.role is not Role.APPLICATION
                or not isinstance(call.node.func, ast.Attribute)
                or not call.node.args
            ):
                continue
            if writes(call.node) and self.source.types.session(call.node.func.value, call.scope) is not None:
                found.append(call.place)
        return sorted(found)

    @cached_property
    def unsettled(self) -> Place | None:
        """The first place that may write unseen: a statement apart, raw SQL, a connection, a route by its method."""
        for call in self.source.calls.named("commit"):
            owner = call.node.func.value if isinstance(call.node.func, ast.Attribute) else None
            if call.module.role is Role.APPLICATION and owner and self.source.connections.is_one(owner, call.scope):
                return call.place
        for call, _ in self.source.calls.outside({"sqlalchemy", "sqlmodel"}, *sorted(_DML)):
            if call.module.role is Role.APPLICATION:
                return call.place
        for call, _ in self.source.calls.outside({"sqlalchemy", "sqlmodel"}, "text"):
            sql = call.node.args[0] if call.node.args else None
            told = sql.value if isinstance(sql, ast.Constant) else None
            if call.module.role is Role.APPLICATION and not (isinstance(told, str) and _READS.match(told)):
                return call.place
        return next((route.place for route in self.source.web.routes if route.method in _CHANGING), None)

    @cached_property
    def handed_over(self) -> Place | None:
        """The first place that gives a session to something from outside the tree, which may write and commit."""
        for call in self.source.calls.every():
            if call.module.role is not Role.APPLICATION:
                continue
            for node in (*call.node.args, *(keyword.value for keyword in call.node.keywords)):
                if not (isinstance(node, ast.Name) and node.id in _NAMES):
                    continue
                if self.source.types.session(node, call.scope) is not None and not isinstance(
                    self.source.calls.reaches(call), Scope
                ):
                    return call.place
        return None

    def commit_of(self, dependency: SessionDependency) -> Place | None:
        """Return where a dependency commits after its yield, or None if it does not commit."""
        if dependency.function is None:
            promise = guaranteed("verdigris.Database.request_session", "commit")
            return dependency.place if promise is not None else None
        return self._commit_after_yield(dependency.function, 0) if dependency.yields else None

    def _commit_after_yield(self, function: Scope, depth: int) -> Place | None:
        yields = [node for node in function.nodes() if isinstance(node, (ast.Yield, ast.YieldFrom))]
        if not yields or depth > _DEPTH:
            return None
        for node in function.nodes():
            later = isinstance(node, ast.Call) and node.lineno >= yields[0].lineno
            if (
                later
                and isinstance(node, ast.Call)
                and self._commits(node, function)
                and not _in_clause(node, function)
            ):
                return function.module.place(node)
            if isinstance(node, (ast.AsyncWith, ast.With)) and any(
                isinstance(inner, ast.Yield) for inner in ast.walk(node)
            ):
                for item in node.items:
                    found = self._commit_on_leaving(item.context_expr, function, depth)
                    if found is not None:
                        return found
            if isinstance(node, (ast.AsyncFor, ast.For)) and isinstance(node.iter, ast.Call):
                inner = self.source.types.callee(node.iter, function)
                if isinstance(inner, Scope) and inner.is_function:
                    found = self._commit_after_yield(inner, depth + 1)
                    if found is not None:
                        return found
        return None

    def _commits(self, node: ast.Call, function: Scope) -> bool:
        """Tell whether a call commits: `x.commit()`, or a function of the tree that does so with what it is given."""
        if isinstance(node.func, ast.Attribute) and node.func.attr == "commit":
            return True
        if not any(self.source.types.session(each, function) is not None for each in node.args):
            return False
        called = self.source.types.callee(node, function)
        return (
            isinstance(called, Scope)
            and called.is_function
            and any(
                isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == "commit"
                for inner in called.nodes()
            )
        )

    def commits_when_left(self, node: ast.expr, function: Scope) -> bool:
        """Tell whether leaving a context commits."""
        return self._commit_on_leaving(node, function, 0) is not None

    def _commit_on_leaving(self, node: ast.expr, function: Scope, depth: int) -> Place | None:
        """Return where leaving a context commits: `begin()`, a context manager of the tree, or a class of it."""
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Attribute) and node.func.attr == "begin":
            return function.module.place(node)
        entered = self.source.types.callee(node, function)
        if not isinstance(entered, Scope):
            return None
        if entered.is_function:
            return self._commit_after_yield(entered, depth + 1)
        for base in self.source.names.lineage(entered):
            leaving = base.member("__aexit__") or base.member("__exit__") if isinstance(base, Scope) else None
            for inner in leaving.nodes() if leaving is not None else ():
                if (
                    isinstance(inner, ast.Call)
                    and isinstance(inner.func, ast.Attribute)
                    and inner.func.attr == "commit"
                ):
                    return base.module.place(inner) if isinstance(base, Scope) else None
        return None

    def swallows(self, dependency: SessionDependency) -> Place | None:
        """Return the clause around a dependency's yield that catches a database's errors and does not raise."""
        function = dependency.function
        if function is None:
            return None
        for node in function.nodes():
            if isinstance(node, (ast.With, ast.AsyncWith)) and _around_yield(node):
                for item in node.items:
                    if self._suppresses(item.context_expr, function):
                        return function.module.place(item.context_expr)
            if not isinstance(node, ast.Try) or not _around_yield(node):
                continue
            if any(isinstance(inner, (ast.Return, ast.Break, ast.Continue)) for inner in own(node.finalbody)):
                return function.module.place(node.finalbody[0])
            for handler in node.handlers:
                if caught(handler, function, self.source.names) and not raises(handler.body):
                    return function.module.place(handler)
        return None

    def _suppresses(self, node: ast.expr, function: Scope) -> bool:
        """Tell whether entering this is `contextlib.suppress` of a database's errors."""
        if not isinstance(node, ast.Call):
            return False
        entered = self.source.names.resolve(node.func, function)
        if not (isinstance(entered, External) and entered.named("contextlib", "suppress")):
            return False
        return any(bool(named(each, function, self.source.names)) for each in node.args)

    def commits_errors(self, dependency: SessionDependency) -> Place | None:
        """Return where a dependency commits though the request failed: in the finally around its yield."""
        function = dependency.function
        if function is None:
            return None
        for node in function.nodes():
            if not isinstance(node, ast.Try) or not _around_yield(node) or _rolls_back(node):
                continue
            for inner in own(node.finalbody):
                if not isinstance(inner, ast.Call) or _conditional(inner, node, function):
                    continue
                if self._commits(inner, function):
                    return function.module.place(inner)
        return None

    @cached_property
    def exits_after_response(self) -> bool:
        """Tell whether the code after a dependency's yield runs behind the response, as since FastAPI 0.118."""
        bound = below(self.source.files, "fastapi")
        return bound is None or bound > _AFTER_SINCE


def _around_yield(node: ast.Try | ast.With | ast.AsyncWith) -> bool:
    return any(isinstance(inner, ast.Yield) for inner in own(node.body))


def _rolls_back(attempt: ast.Try) -> bool:
    """Tell whether some clause rolls back: what a later commit commits is then another transaction."""
    inside = [inner for handler in attempt.handlers for inner in own(handler.body)]
    return any(isinstance(inner, ast.Attribute) and inner.attr == "rollback" for inner in inside)


def _conditional(node: ast.AST, limit: ast.AST, function: Scope) -> bool:
    """Tell whether a node inside another runs only on a condition."""
    for around in function.module.ancestors(node):
        if around is limit:
            return False
        if isinstance(around, (ast.If, ast.IfExp, ast.BoolOp, ast.Match)):
            return True
    return False


def writes(call: ast.Call) -> bool:
    """Tell whether `execute(...)` is given an insert, an update or a delete built on the spot."""
    node: ast.expr = call.args[0]
    while isinstance(node, (ast.Call, ast.Attribute)):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            leaf = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if leaf in _DML and node.args:
                return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return False


def _in_clause(node: ast.AST, function: Scope) -> bool:
    return any(isinstance(around, ast.ExceptHandler) for around in function.module.ancestors(node))
