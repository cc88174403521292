"""Tests: their fixtures and settings, the database they reach, and how the next test finds it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.engine.engines import Engine, engines
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role, role_of
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.testing import pytest_settings
from verdigris.evidence.source.testing.borrowed import Borrowed
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Module, Scope

OURS = ("verdigris_database", "verdigris_sandbox", "verdigris_session", "verdigris_queries")
_WIDE = {"session", "package", "module", "class"}


@dataclass(frozen=True, slots=True)
class Suite(Subject):
    """The project's tests, as one subject: their shape is a convention."""

    key: str
    place: Place


@dataclass(frozen=True, slots=True)
class Leftover(Subject):
    """Something that is better changed and breaks nothing today: an override that stays, an event_loop fixture."""

    key: str
    place: Place
    kind_: str
    told: str


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fixture: `maker` is pytest or pytest_asyncio, `wide` says that several tests share what it gives."""

    function: Scope
    maker: str
    scope: str
    loop_scope: str | None
    place: Place
    autouse: bool = False

    @property
    def wide(self) -> bool:
        """Tell whether several tests share it."""
        return self.scope in _WIDE

    @property
    def name(self) -> str:
        """Its name."""
        return self.function.name


@dataclass(frozen=True, slots=True)
class Fact:
    """Something seen in the tests, and where."""

    kind: str
    place: Place
    told: str = ""


class Tests:
    """The tests of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def modules(self) -> list[Module]:
        """The test modules."""
        return [module for module in self.source.names.modules if module.role is Role.TEST]

    @cached_property
    def functions(self) -> list[Scope]:
        """Every function of the test modules."""
        return [scope for module in self.modules for scope in module.scope.walk() if scope.is_function]

    @cached_property
    def exist(self) -> bool:
        """Tell whether there are tests, those included that say no word of databases and were not parsed."""
        passed_over = (path for path in self.source.files.irrelevant if role_of(path) is Role.TEST)
        return any(function.name.startswith("test") for function in self.functions) or any(
            path.rpartition("/")[2].startswith("test_") or path.endswith("_test.py") for path in passed_over
        )

    @cached_property
    def suite(self) -> Suite | None:
        """The suite, if the tests have to do with the database or the application."""
        packages = {
            binding.origin[0].partition(".")[0]
            for module in self.modules
            for scope in module.scope.walk()
            for bindings in scope.bindings.values()
            for binding in bindings
            if binding.origin is not None
        }
        if (
            not self.modules
            or not self.exist
            or not (
                packages & {"sqlalchemy", "sqlmodel", "verdigris", "asyncpg", "fastapi", "httpx", "starlette"}
                or self.ours
                or self.borrowed.reaches_database
            )
        ):
            return None
        conftest = next((module for module in self.modules if module.path.endswith("conftest.py")), self.modules[0])
        return Suite("tests", Place(conftest.path, 1))

    @cached_property
    def fixtures(self) -> list[Fixture]:
        """Every fixture of the test modules."""
        return [fixture for function in self.functions for fixture in self._fixture(function)]

    def _fixture(self, function: Scope) -> Iterator[Fixture]:
        around = function.parent or function.module.scope
        for decorator in function.decorators:
            call = decorator if isinstance(decorator, ast.Call) else None
            meaning = self.source.names.resolve(call.func if call is not None else decorator, around)
            if not (
                isinstance(meaning, External)
                and meaning.leaf == "fixture"
                and meaning.package in {"pytest", "pytest_asyncio"}
            ):
                continue
            yield Fixture(
                function,
                meaning.package,
                self._text(call, "scope", around) or "function",
                self._text(call, "loop_scope", around),
                function.place,
                self._text(call, "autouse", around) == "True",
            )

    def _text(self, call: ast.Call | None, name: str, scope: Scope) -> str | None:
        given = keyword(call, name) if call is not None else None
        worth = self.source.evaluator.value(Argument(given, scope)) if given is not None else None
        return str(worth.value) if isinstance(worth, Known) else None

    @cached_property
    def ours(self) -> frozenset[str]:
        """The library's fixtures that tests and fixtures take, as parameters or by name."""
        found = {parameter.arg for function in self.functions for parameter in function.parameters}
        for call in self.source.calls.named("getfixturevalue", "usefixtures"):
            for node in call.node.args:
                found |= {
                    each.value
                    for each in ast.walk(node)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
        return frozenset(found & set(OURS))

    @cached_property
    def borrowed(self) -> Borrowed:
        """What the tests take from the application."""
        return Borrowed(self)

    @cached_property
    def engines(self) -> list[Engine]:
        """The engines that the tests make."""
        return [engine for engine in engines(self.source) if engine.role is Role.TEST]

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of pytest by the file that holds them."""
        read = ((path, pytest_settings.section(path, text)) for path, text in self.source.files.settings.items())
        return {path: section for path, section in read if section is not None}

    def setting(self, path: str, name: str) -> str | None:
        """Return a setting of pytest as a test file sees it: from the nearest directory above that has any."""
        best = ""
        worth: str | None = None
        for where, section in self.settings.items():
            folder = where.rpartition("/")[0]
            if (not folder or path.startswith(folder + "/")) and len(folder) >= len(best):
                best, worth = folder, pytest_settings.given(section, name)
        return worth

    @cached_property
    def anyio(self) -> bool:
        """Tell whether anyio's plugin runs the async tests."""
        return any("anyio_backend" in module.file.text or "mark.anyio" in module.file.text for module in self.modules)

    @cached_property
    def async_tests(self) -> list[Scope]:
        """The tests that are coroutines."""
        return [function for function in self.functions if function.is_async and function.name.startswith("test")]

    @property
    def has_async(self) -> bool:
        """Tell whether a test or a fixture is a coroutine."""
        return bool(self.async_tests) or any(fixture.function.is_async for fixture in self.fixtures)

    @cached_property
    def loops(self) -> list[Fact]:
        """What is wrong with the event loops of the tests."""
        return [*self._unmarked_fixtures(), *self._unmarked_tests(), *self._crossing()]

    def mode(self, path: str) -> str:
        """Return the mode in which pytest-asyncio runs a test file: auto, or strict."""
        return "auto" if self._commanded_auto else self.setting(path, "asyncio_mode") or "strict"

    @cached_property
    def _commanded_auto(self) -> bool:
        """Tell whether a Makefile or tox starts pytest in auto mode; which of the tests it means, it does not say."""
        commands = (text for path, text in self.source.files.settings.items() if path.endswith(("akefile", "tox.ini")))
        return any(pytest_settings.commanded(text, "asyncio_mode") == "auto" for text in commands)

    def _unmarked_fixtures(self) -> Iterator[Fact]:
        for fixture in self.fixtures:
            plain = fixture.maker == "pytest" and fixture.function.is_async
            if plain and not self.anyio and self.mode(fixture.place.path) != "auto":
                yield Fact(
                    "plain",
                    fixture.place,
                    f"pytest hands the coroutine of {fixture.name} to the test unawaited: asyncio_mode is strict",
                )

    def _unmarked_tests(self) -> Iterator[Fact]:
        hooked = any("pytest_collection_modifyitems" in module.file.text for module in self.modules)
        for test in self.async_tests:
            if hooked or self.anyio or self.mode(test.module.path) == "auto" or self._marked(test):
                continue
            yield Fact(
                "unmarked",
                test.place,
                f"{test.name} is a coroutine that nothing runs: asyncio_mode is strict, and it has no mark",
            )
            return

    def _marked(self, test: Scope) -> bool:
        marks = [ast.unparse(decorator) for decorator in test.decorators]
        if test.enclosing_class is not None:
            marks += [ast.unparse(decorator) for decorator in test.enclosing_class.decorators]
            bases = getattr(test.enclosing_class.node, "bases", [])
            marks += ["asyncio" for base in bases]  # a base class may bring its marks, or be unittest's
        scopes = [test.module.scope, *([test.enclosing_class] if test.enclosing_class is not None else [])]
        for scope in scopes:
            marks += [
                ast.unparse(binding.value)
                for binding in scope.bindings.get("pytestmark", ())
                if binding.value is not None
            ]
        return any("asyncio" in mark or "trio" in mark for mark in marks) or not all(
            "pytest.mark" in mark or mark.startswith("patch") for mark in marks
        )

    def _crossing(self) -> Iterator[Fact]:
        """Yield engines that are made on one loop and used on others: they keep connections of the first."""
        if self.anyio or any(fixture.name == "event_loop" for fixture in self.fixtures):
            return
        for engine in self.engines:
            fixture = next((each for each in self.fixtures if each.function is engine.call.scope.function), None)
            if (
                fixture is None
                or not fixture.function.is_async
                or engine.mode != "async"
                or engine.pooled != Known(value=True)
            ):
                continue
            path = fixture.place.path
            default = self.setting(path, "asyncio_default_fixture_loop_scope")
            loop = fixture.loop_scope or default or fixture.scope
            tests = self.setting(path, "asyncio_default_test_loop_scope") or "function"
            marked = any(re.search(r"mark\.asyncio\([^)]*scope=", module.file.text) for module in self.modules)
            if loop == "session" and fixture.wide and tests == "function" and not marked:
                yield Fact(
                    "crosses",
                    engine.place,
                    f"the engine of {fixture.name} lives on the session's event loop, each test on one of its own",
                )

        for loan in self.borrowed.crossing:
            told = (
                f"the pooled engine behind {loan.told} keeps the connections of one test's event loop for the next test"
            )
            yield Fact("crosses", loan.place, told)

    @cached_property
    def event_loops(self) -> list[Leftover]:
        """Fixtures that replace pytest-asyncio's own event loop, as one could before its version 1.0."""
        told = "pytest-asyncio 1.0 takes no event_loop fixture any more"
        return [
            Leftover(each.function.key, each.place, "event-loop", told)
            for each in self.fixtures
            if each.name == "event_loop"
        ][:1]
