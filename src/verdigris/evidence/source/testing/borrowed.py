"""What tests take from the application: its engines, its factories and its Databases, by their own names."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.types import ASYNC_FACTORY, SYNC_FACTORY
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.engine.engines import Engine
    from verdigris.evidence.source.reading.modules import Module, Scope
    from verdigris.evidence.source.testing.fixtures import Tests

_DATABASES = {"sqlalchemy", "sqlmodel", "verdigris", "asyncpg"}
DEPTH = 4
#: What gives several tests one event loop: a mark with a scope, a fixture, or a hook that may write such a mark.
_WIDE_LOOPS = r"mark\.asyncio\([^)]*scope=|def event_loop\b|pytest_collection_modifyitems"


@dataclass(frozen=True, slots=True)
class Loan:
    """One use of a name of the application in the tests; `engine` is behind it, where the source settles that."""

    name: str
    place: Place
    user: Scope
    owner: Module
    engine: Engine | None
    opens: bool  # a session or a connection is opened by it here

    @property
    def told(self) -> str:
        """The name and where it is from, for messages."""
        return f"`{self.name}` of {self.owner.path}"


class Borrowed:
    """Names of the application that one suite uses to reach the database."""

    def __init__(self, tests: Tests) -> None:
        """Read them from a suite."""
        self.tests = tests
        self.source = tests.source

    @cached_property
    def every(self) -> list[Loan]:
        """Every use, in the order of the files."""
        found: list[Loan] = []
        for module in self.tests.modules:
            imported = {
                name
                for scope in module.scope.walk()
                for name, bindings in scope.bindings.items()
                if any(binding.origin is not None for binding in bindings)
            }
            for scope in module.scope.walk():
                found += self._in(scope, imported)
        return found

    def _in(self, scope: Scope, imported: set[str]) -> Iterator[Loan]:
        for node in scope.nodes():
            root = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if not (isinstance(node, ast.Name | ast.Attribute) and isinstance(root, ast.Name) and root.id in imported):
                continue
            meaning = self.source.names.resolve(node, scope)
            if not isinstance(meaning, Assigned) or meaning.scope.is_function:
                continue
            if meaning.scope.module.role is Role.APPLICATION and self._reaches(node, scope):
                engine = self._engine(meaning.value, meaning.scope)
                opens = _opens(node, scope.module)
                yield Loan(meaning.name, scope.module.place(node), scope, meaning.scope.module, engine, opens)

    def _reaches(self, node: ast.expr, scope: Scope) -> bool:
        """Tell an engine, a factory or a Database from every other value."""
        kind = self.source.types.of(node, scope)
        if kind in {ASYNC_FACTORY, SYNC_FACTORY}:
            return True
        return isinstance(kind, External) and (
            kind.named("sqlalchemy", "AsyncEngine", "Engine") or kind.named("verdigris", "Database")
        )

    @cached_property
    def _engines(self) -> dict[int, Engine]:
        return {id(engine.call.node): engine for engine in self.source.engines}

    def _engine(self, value: ast.expr | None, scope: Scope, depth: int = 0) -> Engine | None:
        """Follow a factory to the engine that it is bound to."""
        if not isinstance(value, ast.Call) or depth > DEPTH:
            return None
        if id(value) in self._engines:
            return self._engines[id(value)]
        given = keyword(value, "bind") or (value.args[0] if value.args else None)
        meaning = self.source.names.resolve(given, scope) if given is not None else None
        if isinstance(meaning, Assigned):
            return self._engine(meaning.value, meaning.scope, depth + 1)
        return self._engines.get(id(given))

    def replaced(self, loan: Loan) -> bool:
        """Tell whether the tests put something else in a name's place, or bind the factory anew."""
        name = re.escape(loan.name)
        patched = rf"(setattr|patch(\.object)?)\([^)]*\b{name}\b|\b{name}\.configure\(|\.{name}\s*=[^=]"
        return any(re.search(patched, module.file.text) for module in self.tests.modules)

    @cached_property
    def crossing(self) -> list[Loan]:
        """The uses of pooled engines by tests that have an event loop each: one a test, where there are two or more."""
        if self._disposes or any(re.search(_WIDE_LOOPS, module.file.text) for module in self.tests.modules):
            return []
        first: dict[int, dict[Scope, Loan]] = {}
        for loan in self.every:
            engine = loan.engine
            if engine is not None and loan.opens and self._keeps(engine) and not self.replaced(loan):
                for test in self._on_own_loops(loan):
                    first.setdefault(id(engine.call.node), {}).setdefault(test, loan)
        crossing = {loan.place: loan for tests in first.values() if len(tests) > 1 for loan in tests.values()}
        return list(crossing.values())

    def _keeps(self, engine: Engine) -> bool:
        """Tell whether an engine of a module keeps its connections; a Database has a pool for each event loop."""
        ours = engine.ours
        made_once = engine.call.scope.function is None
        return engine.mode == "async" and not ours and made_once and engine.pooled == Known(value=True)

    def _on_own_loops(self, loan: Loan) -> list[Scope]:
        """Return the tests that use a name on an event loop of their own, by themselves or through a fixture."""
        user, path = loan.user.function, loan.place.path
        if user is None or (self.tests.setting(path, "asyncio_default_test_loop_scope") or "function") != "function":
            return []
        if user in self.tests.async_tests:
            return [user]
        fixture = next((each for each in self.tests.fixtures if each.function is user), None)
        if fixture is None or fixture.wide or not user.is_async:
            return []
        loop = fixture.loop_scope or self.tests.setting(path, "asyncio_default_fixture_loop_scope") or "function"
        taking = (test for test in self.tests.async_tests if any(each.arg == user.name for each in test.parameters))
        return list(taking) if loop == "function" else []

    @cached_property
    def _disposes(self) -> bool:
        """Tell whether the tests dispose of an engine, so that no connection outlives its event loop."""
        return any(re.search(r"\.dispose\(", module.file.text) for module in self.tests.modules)

    @cached_property
    def reaches_database(self) -> bool:
        """Tell whether what the tests import of the tree has to do with a database, directly or further down."""
        seen: set[int] = set()
        waiting = list(self.tests.modules)
        while waiting:
            module = waiting.pop()
            for dotted, name in _imports(module):
                if dotted.partition(".")[0] in _DATABASES and module.role is not Role.TEST:
                    return True
                for each in (f"{dotted}.{name}", dotted) if name else (dotted,):
                    found = self.source.names.module(each, module)
                    if found is not None and id(found) not in seen:
                        seen.add(id(found))
                        waiting.append(found)
        return False


def _opens(node: ast.AST, module: Module) -> bool:
    """Tell `SessionLocal()`, `SessionLocal.begin()` and `engine.connect()` from what only names them."""
    around = module.parents.get(node)
    if isinstance(around, ast.Attribute) and around.attr in {"begin", "connect", "session"}:
        node, around = around, module.parents.get(around)
    return isinstance(around, ast.Call) and around.func is node


def _imports(module: Module) -> Iterator[tuple[str, str | None]]:
    yield from ((dotted, None) for dotted in module.stars)
    for scope in module.scope.walk():
        for bindings in scope.bindings.values():
            for binding in bindings:
                if binding.origin is not None:
                    yield binding.origin
