"""What is repeated when a database's error passes: units of work, or statements in a transaction that is lost."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.excepts import Caught, caught, named, own
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.transactions.transactions import WRITES, writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place

_LIBRARIES = {"tenacity", "stamina", "backoff", "retry", "retrying", "retry_async", "aioretry"}
_NEVER_RAISED = {"OperationalError"}  # asyncpg's dialect raises DBAPIError itself for these codes
_SENDS = {"execute", "scalar", "scalars", "flush", "commit", "exec", "get", "stream", "refresh", "merge"}


@dataclass(frozen=True, slots=True)
class Repetition(Subject):
    """Code that tries again after an error.

    `unit` is whole (a session of its own each time, or a rollback first), statement (the session stays in its failed
    transaction), decorated (a session that was handed in is used again), or unknown.
    """

    key: str
    place: Place
    unit: str
    session: str | None
    catches: str
    dead: bool  # it waits for an error that asyncpg's dialect never raises
    writes: bool = True


@dataclass(frozen=True, slots=True)
class DeadClause(Subject):
    """An except clause for OperationalError alone, where every engine runs on asyncpg."""

    key: str
    place: Place


class Retries:
    """Repetitions of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def on_asyncpg(self) -> bool:
        """Tell whether every async engine of the application runs on asyncpg."""
        engines = [engine for engine in self.source.engines if engine.mode == "async"]
        if any(engine.mode == "sync" for engine in self.source.engines) or not engines:
            return False
        for engine in engines:
            if engine.maker.package == "verdigris":
                continue
            texts = [] if engine.url is None else self.source.urls.drivers(engine.url)
            if not texts or not all((text.scheme or "").endswith("+asyncpg") for text in texts):
                return False
        return True

    @cached_property
    def every(self) -> list[Repetition]:
        """Every loop and every decorator that repeats work on a session."""
        found = [*self._loops(), *self._decorated()]
        return sorted(found, key=lambda each: each.place)

    def _dead(self, what: Caught) -> bool:
        return (
            self.on_asyncpg
            and not what.all
            and bool(what.leaves)
            and set(what.leaves) <= _NEVER_RAISED
            and not what.others
        )

    def _loops(self) -> Iterator[Repetition]:
        """Yield `for attempt in range(n): try: … except …: wait` and its like."""
        for function in self.source.functions:
            for node in function.nodes():
                if not isinstance(node, (ast.For, ast.While)) or not self._counts(node):
                    continue
                for attempt in node.body:
                    if isinstance(attempt, ast.Try):
                        found = self._loop(function, node, attempt)
                        if found is not None:
                            yield found

    def _counts(self, node: ast.For | ast.While) -> bool:
        """Tell attempts from items: `for attempt in range(3)`, `while attempt < 3`, never a loop over rows."""
        if isinstance(node, ast.While):
            text = ast.unparse(node.test).lower()
            return "attempt" in text or "retr" in text or "tries" in text
        names = {inner.id.lower() for inner in ast.walk(node.target) if isinstance(inner, ast.Name)}
        counted = isinstance(node.iter, ast.Call) and ast.unparse(node.iter.func) in {
            "range",
            "count",
            "itertools.count",
        }
        return counted and any(
            "attempt" in name or "retr" in name or name.startswith("tr") or name == "_" for name in names
        )

    def _loop(self, function: Scope, loop: ast.For | ast.While, attempt: ast.Try) -> Repetition | None:
        for handler in attempt.handlers:
            what = caught(handler, function, self.source.names)
            if not what or (handler.body and isinstance(handler.body[-1], (ast.Raise, ast.Return, ast.Break))):
                continue
            session = self._session(attempt.body, function)
            opened = self._opens(attempt.body, function)
            if session is None and not opened:
                continue
            place = function.module.place(loop)
            catches = ", ".join(what.leaves) or "Exception"
            unit = "whole" if opened else "unknown"
            if session is not None and not opened:
                rolled = any(
                    isinstance(inner, ast.Attribute) and inner.attr in {"rollback", "close"}
                    for inner in own(handler.body)
                )
                saved = any("begin_nested" in ast.unparse(inner) for inner in attempt.body)
                unit = "whole" if rolled or saved else "statement"
            return Repetition(
                f"{function.key}:loop", place, unit, session, catches, self._dead(what), self._writes(attempt.body)
            )
        return None

    def _writes(self, body: object) -> bool:
        """Tell whether statements write in sight: reads that are repeated prove nothing of transactions."""
        nodes = own(body) if isinstance(body, list) else ()
        calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        return any(
            node.func.attr in {*WRITES, "commit", "begin"} or (node.args and writes(node))
            for node in calls
            if isinstance(node.func, ast.Attribute)
        )

    def _session(self, body: list[ast.stmt], function: Scope) -> str | None:
        """Name a session that was opened before the attempt and is used in it."""
        bound = {
            item.optional_vars.id
            for node in own(body)
            if isinstance(node, (ast.AsyncWith, ast.With))
            for item in node.items
            if isinstance(item.optional_vars, ast.Name)
        }
        for node in own(body):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SENDS:
                name = ast.unparse(node.func.value)
                if name not in bound and self.source.types.session(node.func.value, function) == "async":
                    return name
        return None

    def _opens(self, body: list[ast.stmt], function: Scope) -> bool:
        inside = {id(node) for node in own(body)}
        return any(id(opened) in inside for opened in self.source.openings.of(function))

    def _decorated(self) -> Iterator[Repetition]:
        for function in self.source.functions:
            for decorator in function.decorators:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                meaning = self.source.names.resolve(target, function.parent or function.module.scope)
                if not (isinstance(meaning, External) and meaning.package in _LIBRARIES):
                    continue
                what = self._condition(decorator, function)
                session = self._handed_in(function)
                opens = next(self.source.openings.of(function), None) is not None
                if session is None and not opens:
                    continue
                unit = "whole" if session is None else "decorated"
                if session is not None and any(
                    "begin_nested" in ast.unparse(n) or ".rollback" in ast.unparse(n)
                    for n in function.nodes()
                    if isinstance(n, ast.Call)
                ):
                    unit = "whole"
                place = function.module.place(decorator)
                yield Repetition(
                    f"{function.key}:retry",
                    place,
                    unit,
                    session,
                    ", ".join(what.leaves) or "Exception",
                    self._dead(what),
                    self._writes(function.node.body),
                )

    def _condition(self, decorator: ast.expr, function: Scope) -> Caught:
        """Read which errors a decorator waits for: `retry_if_exception_type(E)`, `on=E`, an argument of backoff."""
        scope = function.parent or function.module.scope
        given: list[ast.expr] = []
        for node in ast.walk(decorator):
            if isinstance(node, ast.Call):
                leaf = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if leaf == "retry_if_exception_type":
                    given += node.args
                elif leaf == "on_exception":
                    given += node.args[1:2]
                given += [
                    keyword.value for keyword in node.keywords if keyword.arg in {"on", "exceptions", "exception_types"}
                ]
        if not given:
            return Caught(all=True, database=(), others=())
        read = [named(node, scope, self.source.names) for node in given]
        return Caught(
            any(each.all for each in read),
            tuple(error for each in read for error in each.database),
            tuple(name for each in read for name in each.others),
        )

    def _handed_in(self, function: Scope) -> str | None:
        for parameter in function.parameters:
            name = ast.copy_location(ast.Name(parameter.arg, ast.Load()), parameter)
            if parameter.arg not in {"self", "cls"} and self.source.types.session(name, function) == "async":
                return parameter.arg
        for node in function.nodes():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SENDS:
                owner = node.func.value
                if (
                    isinstance(owner, ast.Attribute)
                    and ast.unparse(owner).startswith("self.")
                    and self.source.types.session(owner, function) == "async"
                ):
                    return ast.unparse(owner)
        return None

    @cached_property
    def units(self) -> list[Place]:
        """Where application code repeats whole units of work by a Database's own means."""
        found = []
        for call in self.source.calls.named("transaction", "transactional"):
            if call.module.role is Role.APPLICATION and isinstance(call.node.func, ast.Attribute):
                owner = self.source.types.of(call.node.func.value, call.scope)
                if isinstance(owner, External) and owner.named("verdigris", "Database"):
                    found.append(call.place)
        return sorted(found)

    @cached_property
    def dead_clauses(self) -> list[DeadClause]:
        """Every clause for OperationalError alone around work on an asyncpg engine, outside of repetitions."""
        if not self.on_asyncpg:
            return []
        found: list[DeadClause] = []
        for function in self.source.functions:
            for node in function.nodes():
                if not isinstance(node, ast.Try) or not (
                    self._session(node.body, function) or self._opens(node.body, function)
                ):
                    continue
                found += self._dead_of(node, function)
        return found

    def _dead_of(self, attempt: ast.Try, function: Scope) -> list[DeadClause]:
        read = [(handler, caught(handler, function, self.source.names)) for handler in attempt.handlers]
        if any(what.all or {"DBAPIError", "SQLAlchemyError"} & set(what.leaves) for _, what in read):
            return []
        key = f"{function.key}:OperationalError"
        return [DeadClause(key, function.module.place(handler)) for handler, what in read if self._dead(what)]
