"""Tests: their fixtures and settings, the database they reach, and how the next test finds it."""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.arguments import keyword
from verdigris.evidence.source.engines import Engine, engines
from verdigris.evidence.source.evaluate import Argument
from verdigris.evidence.source.files import Role, role_of
from verdigris.evidence.source.modules import Module, Scope
from verdigris.evidence.source.names import Assigned, External
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence.source import Source

OURS = ("verdigris_database", "verdigris_sandbox", "verdigris_session", "verdigris_queries")
_WIDE = {"session", "package", "module", "class"}
_URLS = re.compile(r"(database|postgres|pg|sqlalchemy|rdms|sql|db)\w*(url|dsn|uri)$", re.IGNORECASE)
_SCHEMES = re.compile(r"^(postgres|mysql|mariadb|sqlite|cockroach|oracle|mssql)")
_TEST = re.compile(r"test|pytest|sqlite|:memory:|tmp_?path|container|embedded|ephemeral", re.IGNORECASE)
_SWITCHES = re.compile(r"[\"'_/](py)?test|test(config|settings|ing)", re.IGNORECASE)
_LOCAL = {"localhost", "127.0.0.1", "::1", "", "0.0.0.0", "db", "postgres", "postgresql", "database", "host.docker.internal"}  # noqa: S104 - read, not bound
_CLEAN = re.compile(r"\b(truncate|delete\s+from|drop\s+(table|schema|database)|create\s+database)\b", re.IGNORECASE)
_DESTROYS = {"drop_all", "create_all"}
_ORDERED = {"order", "run", "dependency", "incremental"}
DEPTH = 4


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

    @property
    def wide(self) -> bool:
        """Tell whether several tests share it."""
        return self.scope in _WIDE

    @property
    def name(self) -> str:
        """Its name."""
        return self.function.name


@dataclass(frozen=True, slots=True)
class Target:
    """A database that tests reach; `whose` is own, application, stranger (remote and not named for tests), or unknown."""

    whose: str
    place: Place
    told: str


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
        if not self.modules or not self.exist or not (packages & {"sqlalchemy", "sqlmodel", "verdigris", "asyncpg", "fastapi", "httpx", "starlette"} or self.ours):
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
            if not (isinstance(meaning, External) and meaning.leaf == "fixture" and meaning.package in {"pytest", "pytest_asyncio"}):
                continue
            yield Fixture(
                function, meaning.package, self._text(call, "scope", around) or "function", self._text(call, "loop_scope", around), function.place
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
                found |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
        return frozenset(found & set(OURS))

    # The database they reach

    @cached_property
    def targets(self) -> list[Target]:
        """Every database that the tests name, by an engine of their own or through the environment."""
        return [*self._environment(), *self._settings(), *self._engines()]

    @cached_property
    def engines(self) -> list[Engine]:
        """The engines that the tests make."""
        return [engine for engine in engines(self.source) if engine.role is Role.TEST]

    def _engines(self) -> Iterator[Target]:
        for engine in self.engines:
            if engine.url is None:
                continue
            worth = self.source.evaluator.value(engine.url)
            theirs = self._of_application(engine.url.node, engine.url.scope)
            if self._speaks_of_tests(engine.url.node, engine.url.scope):
                yield Target("own", engine.place, f"`{ast.unparse(engine.url.node)[:60]}`")
            elif theirs is not None:
                switches = _SWITCHES.search(theirs.file.text)  # settings that know of tests may switch by themselves
                told = f"`{ast.unparse(engine.url.node)[:60]}`"
                yield Target("unknown" if switches else "application", engine.place, f"{told} is not settled by the source" if switches else told)
            elif isinstance(worth, Known) and isinstance(worth.value, str) and worth.by is None:
                yield self._judged(worth.value, engine.place)
            else:
                yield Target("unknown", engine.place, f"`{ast.unparse(engine.url.node)[:60]}` is not settled by the source")

    def _environment(self) -> Iterator[Target]:
        """Yield what tests write into the environment, or into a settings object, before the application reads it."""
        for call in self.source.calls.named("setenv", "setdefault", "setitem", "setattr"):
            if call.module.role is not Role.TEST:
                continue
            *before, value = call.node.args or [None]
            name = next((each.value for each in reversed(before) if isinstance(each, ast.Constant) and isinstance(each.value, str)), "")
            if isinstance(value, ast.expr) and _URLS.search(name):
                yield self._written(value, call.scope, call.place, name)
        for module in self.modules:
            for scope in module.scope.walk():
                for node in scope.nodes():
                    if isinstance(node, ast.Assign) and len(node.targets) == 1:
                        name = _assigned(node.targets[0])
                        if name and _URLS.search(name):
                            yield self._written(node.value, scope, module.place(node), name)

    def _settings(self) -> Iterator[Target]:
        """Yield what pytest's own settings put into the environment (pytest-env)."""
        for path, section in self.settings.items():
            given = section.get("env", ())
            for line in given.splitlines() if isinstance(given, str) else given:
                name, _, value = str(line).partition("=")
                if _URLS.search(name.rpartition(":")[2].strip()):
                    yield self._judged(value.strip(), Place(path, 1))

    def _written(self, value: ast.expr, scope: Scope, place: Place, name: str) -> Target:
        worth = self.source.evaluator.value(Argument(value, scope))
        if isinstance(worth, Known) and isinstance(worth.value, str):
            return self._judged(worth.value, place)
        if self._speaks_of_tests(value, scope):
            return Target("own", place, f"{name} = `{ast.unparse(value)[:60]}`")
        return Target("unknown", place, f"what {name} is set to is not settled by the source")

    def _judged(self, url: str, place: Place) -> Target:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return Target("unknown", place, "its URL cannot be read")
        if not _SCHEMES.match(parts.scheme):
            return Target("unknown", place, "what it names is no URL of a database")
        shown = f"{parts.scheme}://{host}{parts.path}"
        if parts.scheme.startswith("sqlite") or _TEST.search(parts.path) or _TEST.search(host):
            return Target("own", place, shown)
        return Target("own", place, f"{shown}, on this machine") if host in _LOCAL else Target("stranger", place, shown)

    def _speaks_of_tests(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """Tell whether an expression, or what its names are made of, says that it is for tests."""
        if _TEST.search(ast.unparse(node)):
            return True
        if depth >= DEPTH:
            return False
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                found = scope.lookup(inner.id)
                for binding in found[1] if found is not None else ():
                    if binding.value is not None and binding.kind in {"value", "with"}:
                        if self._speaks_of_tests(binding.value, found[0] if found is not None else scope, depth + 1):
                            return True
                if self._fixture_speaks(inner.id, depth):
                    return True
        return False

    def _fixture_speaks(self, name: str, depth: int) -> bool:
        for fixture in self.fixtures:
            if fixture.name == name:
                if any(_TEST.search(parameter.arg) for parameter in fixture.function.parameters):
                    return True
                for node in fixture.function.nodes():
                    if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
                        if self._speaks_of_tests(node.value, fixture.function, depth + 1):
                            return True
        return False

    def _of_application(self, node: ast.expr, scope: Scope, depth: int = 0) -> Module | None:
        """Return the module of the application that a URL comes from, through variables of the tests too."""
        for inner in ast.walk(node):
            if isinstance(inner, (ast.Name, ast.Attribute)):
                meaning = self.source.names.resolve(inner, scope)
                owner = meaning.scope.module if isinstance(meaning, Assigned) else getattr(meaning, "module", None)
                if isinstance(owner, Module) and owner.role is Role.APPLICATION:
                    return owner
                if isinstance(meaning, Assigned) and meaning.value is not None and depth < DEPTH:
                    found = self._of_application(meaning.value, meaning.scope, depth + 1)
                    if found is not None:
                        return found
        return None

    @cached_property
    def altered(self) -> Place | None:
        """Where the tests change the environment or a settings object: the application's URL may be another one by then."""
        for call in self.source.calls.named("setenv", "putenv", "setattr", "load_dotenv", "dict", "setdefault"):
            text = ast.unparse(call.node)
            if call.module.role is Role.TEST and (call.module.path.endswith("conftest.py") or "environ" in text):
                if "environ" in text or not text.startswith(("dict(", "os.environ.get")) and ("env" in text.lower() or "settings" in text.lower() or "config" in text.lower()):
                    return call.place
        for module in self.modules:
            for scope in module.scope.walk():
                for node in scope.nodes():
                    if isinstance(node, ast.Assign) and re.match(r"os\.environ\[|[\w.]*([sS]ettings|config)\.\w+$", ast.unparse(node.targets[0])):
                        return module.place(node)
        return next((Place(path, 1) for path, section in self.settings.items() if "env" in section or "env_files" in section), None)

    @cached_property
    def destructive(self) -> Place | None:
        """Where tests create, drop or empty tables."""
        for call in self.source.calls.named(*_DESTROYS, "run_sync", "execute"):
            if call.module.role is Role.TEST:
                text = ast.unparse(call.node)
                if any(name in text for name in _DESTROYS) or _CLEAN.search(text):
                    return call.place
        return None

    # What the next test finds

    @cached_property
    def cleaning(self) -> list[Fact]:
        """Every way in which a test's writes are made to vanish, or are not."""
        found = [*self._modes()]
        for fixture in self.fixtures:
            found += self._cleaned(fixture)
        return found

    def _modes(self) -> Iterator[Fact]:
        for call in self.source.calls.with_keyword("join_transaction_mode"):
            if call.module.role is Role.TEST:
                given = keyword(call.node, "join_transaction_mode")
                worth = self.source.evaluator.value(Argument(given, call.scope)) if given is not None else None
                if isinstance(worth, Known):
                    yield Fact("leaks" if worth.value == "control_fully" else "rolled back", call.place, f"join_transaction_mode={worth.value!r}")

    def _cleaned(self, fixture: Fixture) -> Iterator[Fact]:
        calls = self._inside(fixture.function)
        text = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
        source = "\n".join(ast.unparse(call) for call in calls)
        connects = bool(text & {"connect"}) or "engine.begin" in source
        outer = ("rollback" in text and "begin" in text) or ("begin" in text and connects and "listens_for" in ast.unparse(fixture.function.node))
        if outer and (connects or "connection" in source or "conn." in source):
            yield Fact("rolled back", fixture.place, f"{fixture.name} rolls an outer transaction back")
        elif "begin_nested" in text and "begin" not in text and "listens_for" not in ast.unparse(fixture.function.node):
            yield Fact("savepoint", fixture.place, f"{fixture.name} opens a savepoint on the session, which the first commit releases")
        elif not fixture.wide and (_CLEAN.search(source) or "drop_all" in source or ".delete()" in source or "delete(" in source):
            yield Fact("emptied", fixture.place, f"{fixture.name} empties the database for each test")
        elif not fixture.wide and any(engine.call.scope.function is fixture.function and _fresh(engine) for engine in self.engines):
            yield Fact("fresh", fixture.place, f"{fixture.name} makes a database for each test")

    def _inside(self, function: Scope, depth: int = 0) -> list[ast.Call]:
        """Return the calls of a function, and of the functions of the tests that it calls."""
        calls = [node for scope in function.walk() for node in scope.calls]
        if depth < 2:  # noqa: PLR2004 - a fixture calls a function that calls one
            for node in list(calls):
                called = self.source.types.callee(node, function)
                if isinstance(called, Scope) and called.is_function and called.module.role is Role.TEST and called is not function:
                    calls += self._inside(called, depth + 1)
        return calls

    @cached_property
    def commits(self) -> Place | None:
        """Where tests or their fixtures commit rows through a session."""
        for call in self.source.calls.named("commit"):
            if call.module.role is Role.TEST and isinstance(call.node.func, ast.Attribute):
                if self.source.types.session(call.node.func.value, call.scope) is not None:
                    return call.place
        return None

    @cached_property
    def shared(self) -> list[Fact]:
        """What one test may find of another: rows of wide fixtures, overrides that stay, an order, globals."""
        found = [fact for fixture in self.fixtures if fixture.wide for fact in self._rows(fixture)]
        for function in self.functions:
            if not function.name.startswith("test"):
                continue
            if function.outer:
                found.append(Fact("global", function.place, f"{function.name} assigns the global {sorted(function.outer)[0]}"))
            for decorator in function.decorators:
                text = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
                if text.startswith("pytest.mark.") and text.rpartition(".")[2] in _ORDERED:
                    found.append(Fact("ordered", function.place, f"{function.name} has its place in an order"))
        return found

    def _rows(self, fixture: Fixture) -> Iterator[Fact]:
        added, kept = None, False
        for node in fixture.function.nodes():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in {"add", "add_all", "merge"} and self.source.types.session(node.func.value, fixture.function) is not None:
                    added = added or node
                kept = kept or node.func.attr in {"commit", "begin"}
        gives = any(isinstance(node, (ast.Return, ast.Yield)) and node.value is not None for node in fixture.function.nodes())
        if added is not None and kept and gives:  # rows that nobody is handed are the reference data of all tests
            yield Fact("shared-data", fixture.function.module.place(added), f"the rows of {fixture.name} are one {fixture.scope}'s, and each test may change them")

    @cached_property
    def overrides(self) -> list[Leftover]:
        """What tests put in the application's place and never take away."""
        return list(self._overrides())

    def _overrides(self) -> Iterator[Leftover]:
        for module in self.modules:
            if "dependency_overrides" not in module.file.text:
                continue
            if re.search(r"dependency_overrides(\.clear|\.pop|\s*=\s*\{|\s*=\s*\w)|del\s+\S*dependency_overrides|setitem\([^)]*dependency_overrides", module.file.text):
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
        for module in self.modules:
            for number, line in enumerate(module.file.lines, 1):
                if "worker_id" in line or "PYTEST_XDIST_WORKER" in line:
                    return Place(module.path, number)
        return None

    # Event loops

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """pytest's settings by the file that holds them."""
        found: dict[str, Mapping[str, Any]] = {}
        for path, text in self.source.files.settings.items():
            name = path.rpartition("/")[2]
            section = _toml(text) if name == "pyproject.toml" else _ini(name, text)
            if section is not None:
                found[path] = section
        return found

    def setting(self, path: str, name: str) -> str | None:
        """Return a setting of pytest as a test file sees it: from the nearest directory above that has any."""
        best = ""
        worth: str | None = None
        for where, section in self.settings.items():
            folder = where.rpartition("/")[0]
            if (not folder or path.startswith(folder + "/")) and len(folder) >= len(best):
                best, worth = folder, str(section[name]) if name in section else None
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

    def _strict(self, path: str) -> bool:
        return (self.setting(path, "asyncio_mode") or "strict") != "auto"

    def _unmarked_fixtures(self) -> Iterator[Fact]:
        for fixture in self.fixtures:
            plain = fixture.maker == "pytest" and fixture.function.is_async
            if plain and not self.anyio and self._strict(fixture.place.path):
                yield Fact("plain", fixture.place, f"pytest hands the coroutine of {fixture.name} to the test unawaited: asyncio_mode is strict")

    def _unmarked_tests(self) -> Iterator[Fact]:
        hooked = any("pytest_collection_modifyitems" in module.file.text for module in self.modules)
        for test in self.async_tests:
            if hooked or self.anyio or not self._strict(test.module.path) or self._marked(test):
                continue
            yield Fact("unmarked", test.place, f"{test.name} is a coroutine that nothing runs: asyncio_mode is strict, and it has no mark")
            return

    def _marked(self, test: Scope) -> bool:
        marks = [ast.unparse(decorator) for decorator in test.decorators]
        if test.enclosing_class is not None:
            marks += [ast.unparse(decorator) for decorator in test.enclosing_class.decorators]
            bases = getattr(test.enclosing_class.node, "bases", [])
            marks += ["asyncio" for base in bases]  # a base class may bring its marks, or be unittest's
        scopes = [test.module.scope, *([test.enclosing_class] if test.enclosing_class is not None else [])]
        for scope in scopes:
            marks += [ast.unparse(binding.value) for binding in scope.bindings.get("pytestmark", ()) if binding.value is not None]
        return any("asyncio" in mark or "trio" in mark for mark in marks) or not all("pytest.mark" in mark or mark.startswith("patch") for mark in marks)

    def _crossing(self) -> Iterator[Fact]:
        """Yield engines that are made on one loop and used on others: they keep connections of the first."""
        if self.anyio or any(fixture.name == "event_loop" for fixture in self.fixtures):
            return
        for engine in self.engines:
            fixture = next((each for each in self.fixtures if each.function is engine.call.scope.function), None)
            if fixture is None or not fixture.function.is_async or engine.mode != "async" or engine.pooled != Known(value=True):
                continue
            path = fixture.place.path
            default = self.setting(path, "asyncio_default_fixture_loop_scope")
            loop = fixture.loop_scope or default or fixture.scope
            tests = self.setting(path, "asyncio_default_test_loop_scope") or "function"
            marked = any(re.search(r"mark\.asyncio\([^)]*scope=", module.file.text) for module in self.modules)
            if loop == "session" and fixture.wide and tests == "function" and not marked:
                yield Fact("crosses", engine.place, f"the engine of {fixture.name} lives on the session's event loop, and each test runs on one of its own")

    @cached_property
    def event_loops(self) -> list[Leftover]:
        """Fixtures that replace pytest-asyncio's own event loop, as one could before its version 1.0."""
        told = "pytest-asyncio 1.0 takes no event_loop fixture any more"
        return [Leftover(each.function.key, each.place, "event-loop", told) for each in self.fixtures if each.name == "event_loop"][:1]


def _fresh(engine: Engine) -> bool:
    text = ast.unparse(engine.call.node)
    return "tmp" in text or ":memory:" in text or "sqlite" in text or any("sqlite" in (each.scheme or "") for each in (engine.urls.drivers(engine.url) if engine.url is not None else ()))


def _assigned(target: ast.expr) -> str:
    """Name what an assignment writes, if others read it: `os.environ["X"]`, `settings.X`."""
    match target:
        case ast.Subscript(value=base, slice=ast.Constant(value=str(name))) if ast.unparse(base).endswith("environ"):
            return name
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in {"settings", "config", "cfg"}:
            return name
        case _:
            return ""


def _toml(text: str) -> Mapping[str, Any] | None:
    try:
        section = tomllib.loads(text).get("tool", {}).get("pytest", {})
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return section.get("ini_options") if isinstance(section, dict) else None


def _ini(name: str, text: str) -> Mapping[str, Any] | None:
    section = {"pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}.get(name)
    if section is None:
        return None
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return dict(parser[section]) if parser.has_section(section) else None


