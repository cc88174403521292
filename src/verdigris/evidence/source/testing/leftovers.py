"""What a test leaves for the next one: rows, overrides, an order."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.types import ASYNC_FACTORY, SYNC_FACTORY
from verdigris.evidence.source.testing import emptying
from verdigris.evidence.source.testing.fixtures import Fact, Fixture, Leftover, Tests
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.engine.engines import Engine

_WORKER = "PYTEST_XDIST_WORKER"
_ORDERED = {"order", "run", "dependency", "incremental"}


class Leftovers:
    """What the tests of one suite leave."""

    def __init__(self, tests: Tests) -> None:
        """Read them from a suite."""
        self.tests = tests
        self.source = tests.source

    @cached_property
    def cleaning(self) -> list[Fact]:
        """Every way in which a test's writes are made to vanish, or are not."""
        found = [*self._modes()]
        for fixture in self.tests.fixtures:
            found += self._cleaned(fixture)
        return found

    def _modes(self) -> Iterator[Fact]:
        for call in self.source.calls.with_keyword("join_transaction_mode"):
            if call.module.role is Role.TEST:
                given = keyword(call.node, "join_transaction_mode")
                worth = self.source.evaluator.value(Argument(given, call.scope)) if given is not None else None
                if isinstance(worth, Known):
                    yield Fact(
                        "leaks" if worth.value == "control_fully" else "rolled back",
                        call.place,
                        f"join_transaction_mode={worth.value!r}",
                    )

    def _cleaned(self, fixture: Fixture) -> Iterator[Fact]:
        inside = self._inside(fixture.function)
        calls = [call for call, _ in inside]
        text = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
        source = "\n".join(ast.unparse(call) for call in calls)
        connects = bool(text & {"connect"}) or "engine.begin" in source
        outer = ("rollback" in text and "begin" in text) or (
            "begin" in text and connects and "listens_for" in ast.unparse(fixture.function.node)
        )
        if outer and (connects or "connection" in source or "conn." in source):
            yield Fact("rolled back", fixture.place, f"{fixture.name} rolls an outer transaction back")
        elif "begin_nested" in text and "begin" not in text and "listens_for" not in ast.unparse(fixture.function.node):
            yield Fact(
                "savepoint",
                fixture.place,
                f"{fixture.name} opens a savepoint on the session, which the first commit releases",
            )
        elif self._left_out(fixture) or not self._asked(fixture) or self._of_one_file(fixture):
            return
        elif not fixture.wide and emptying.empties(self.source, inside):
            yield Fact("emptied", fixture.place, f"{fixture.name} empties the database for each test")
        elif self._fresh(fixture) or emptying.makes_file(self.tests, fixture):
            yield Fact("fresh", fixture.place, f"{fixture.name} makes a database for each test")

    def _asked(self, fixture: Fixture) -> bool:
        """Tell whether anything speaks of a fixture that does not run by itself."""
        return fixture.autouse or fixture.name in self._spoken

    @cached_property
    def _spoken(self) -> frozenset[str]:
        return emptying.spoken(self.tests)

    def _fresh(self, fixture: Fixture) -> bool:
        made = (engine for engine in self.tests.engines if engine.call.scope.function is fixture.function)
        return not fixture.wide and any(_fresh(engine) for engine in made)

    def _of_one_file(self, fixture: Fixture) -> bool:
        """Tell whether a fixture serves the tests of its file alone, where other tests have engines of their own."""
        path = fixture.place.path
        return emptying.local(fixture) and any(engine.place.path != path for engine in self.tests.engines)

    def _left_out(self, fixture: Fixture) -> bool:
        """Tell whether tests that share a session do without a fixture which each of them would have to name."""
        if fixture.autouse or fixture.wide or fixture.name in self._asked_for:
            return False
        return any(
            self._shared_sessions & (names := {parameter.arg for parameter in test.parameters})
            and fixture.name not in names
            for test in self.tests.functions
            if test.name.startswith("test")
        )

    @cached_property
    def _asked_for(self) -> frozenset[str]:
        """The fixtures that other fixtures take, or a mark asks for."""
        found = {parameter.arg for fixture in self.tests.fixtures for parameter in fixture.function.parameters}
        for call in self.source.calls.named("usefixtures", "getfixturevalue"):
            found |= {str(each.value) for each in call.node.args if isinstance(each, ast.Constant)}
        return frozenset(found)

    @cached_property
    def _shared_sessions(self) -> frozenset[str]:
        """The fixtures that give several tests one session."""
        produced = self.source.types.produced
        return frozenset(
            fixture.name
            for fixture in self.tests.fixtures
            if fixture.wide
            and (made := produced(fixture.function)) is not None
            and self.source.types.session_type(made) is not None
        )

    def _inside(self, function: Scope, depth: int = 0) -> list[tuple[ast.Call, Scope]]:
        """Return the calls of a function, and of the functions of the tests that it calls, with where they stand."""
        calls = [(node, scope) for scope in function.walk() for node in scope.calls]
        if depth < 2:
            for node, _ in list(calls):
                called = self.source.types.callee(node, function)
                if (
                    isinstance(called, Scope)
                    and called.is_function
                    and called.module.role is Role.TEST
                    and called is not function
                ):
                    calls += self._inside(called, depth + 1)
        return calls

    @property
    def commits(self) -> Place | None:
        """Where tests or their fixtures commit rows."""
        return next((place for place, _ in self._committing), None)

    @property
    def commits_each(self) -> Place | None:
        """Where tests commit, or fixtures of one test do; what a wide fixture commits may be its own clearing up."""
        wide = [fixture.function for fixture in self.tests.fixtures if fixture.wide]
        return next((place for place, scope in self._committing if scope.function not in wide), None)

    @cached_property
    def _committing(self) -> list[tuple[Place, Scope]]:
        """Where tests commit through a session, or leave a block of a factory that does."""
        found = []
        for call in self.source.calls.named("commit", "begin"):
            owner = call.node.func.value if isinstance(call.node.func, ast.Attribute) else None
            if call.module.role is not Role.TEST or owner is None:
                continue
            commits = call.node.func.attr == "commit"  # type: ignore[attr-defined]  # an attribute, as asked above
            if (commits and self.source.types.session(owner, call.scope) is not None) or (
                not commits and self.source.types.of(owner, call.scope) in {ASYNC_FACTORY, SYNC_FACTORY}
            ):
                found.append((call.place, call.scope))
        return found

    @cached_property
    def shared(self) -> list[Fact]:
        """What one test may find of another: rows of wide fixtures, overrides that stay, an order, globals."""
        found = [fact for fixture in self.tests.fixtures if fixture.wide for fact in self._rows(fixture)]
        for function in self.tests.functions:
            if not function.name.startswith("test"):
                continue
            if function.outer:
                found.append(
                    Fact("global", function.place, f"{function.name} assigns the global {min(function.outer)}")
                )
            for decorator in function.decorators:
                text = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
                if text.startswith("pytest.mark.") and text.rpartition(".")[2] in _ORDERED:
                    found.append(Fact("ordered", function.place, f"{function.name} has its place in an order"))
        return found

    def _rows(self, fixture: Fixture) -> Iterator[Fact]:
        added, kept = None, False
        for node in fixture.function.nodes():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if (
                    node.func.attr in {"add", "add_all", "merge"}
                    and self.source.types.session(node.func.value, fixture.function) is not None
                ):
                    added = added or node
                kept = kept or node.func.attr in {"commit", "begin"}
        gives = any(
            isinstance(node, (ast.Return, ast.Yield)) and node.value is not None for node in fixture.function.nodes()
        )
        if added is not None and kept and gives:  # rows that nobody is handed are the reference data of all tests
            yield Fact(
                "shared-data",
                fixture.function.module.place(added),
                f"the rows of {fixture.name} are one {fixture.scope}'s, and each test may change them",
            )

    @cached_property
    def overrides(self) -> list[Leftover]:
        """What tests put in the application's place and never take away."""
        return list(self._overrides())

    def _overrides(self) -> Iterator[Leftover]:
        for module in self.tests.modules:
            if "dependency_overrides" not in module.file.text:
                continue
            if re.search(
                r"dependency_overrides(\.clear|\.pop|\s*=\s*\{|\s*=\s*\w)|del\s+\S*dependency_overrides|setitem\([^)]*dependency_overrides",
                module.file.text,
            ):
                continue
            for scope in module.scope.walk():
                for node in scope.nodes() if scope.is_function else ():
                    if isinstance(node, ast.Assign) and "dependency_overrides[" in ast.unparse(node.targets[0]):
                        told = "what a fixture puts in the application's place stays there"
                        yield Leftover(f"{scope.key}:overrides", module.place(node), "overrides", told)
                        return

    @cached_property
    def per_worker(self) -> Place | None:
        """Where the tests name a database by their xdist worker."""
        for module in self.tests.modules:
            if "worker_id" not in module.file.text and "PYTEST_XDIST_WORKER" not in module.file.text:
                continue
            for scope in module.scope.walk():
                named = [
                    *(each for each in scope.parameters if each.arg == "worker_id"),
                    *(each for each in scope.nodes() if isinstance(each, ast.Constant) and each.value == _WORKER),
                ]
                for node in named:
                    if emptying.names_database(module, node, scope):
                        return module.place(node)
        return None


def _fresh(engine: Engine) -> bool:
    text = ast.unparse(engine.call.node)
    return (
        "tmp" in text
        or ":memory:" in text
        or "sqlite" in text
        or any(
            "sqlite" in (each.scheme or "")
            for each in (engine.urls.drivers(engine.url) if engine.url is not None else ())
        )
    )
