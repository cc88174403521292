"""The databases that tests reach, by engines of their own or through the environment."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Module, Scope
from verdigris.evidence.source.reading.names import Assigned
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.testing.borrowed import Loan
    from verdigris.evidence.source.testing.fixtures import Tests


_URLS = re.compile(r"(database|postgres|pg|sqlalchemy|rdms|sql|db)\w*(url|dsn|uri)$", re.IGNORECASE)
_SCHEMES = re.compile(r"^(postgres|mysql|mariadb|sqlite|cockroach|oracle|mssql)")
_TEST = re.compile(r"test|pytest|sqlite|:memory:|tmp_?path|container|embedded|ephemeral", re.IGNORECASE)
_SWITCHES = re.compile(r"[\"'_/](py)?test|test(config|settings|ing)", re.IGNORECASE)
_LOCAL = {
    "localhost",
    "127.0.0.1",
    "::1",
    "",
    "0.0.0.0",  # noqa: S104 - read here, not bound
    "db",
    "postgres",
    "postgresql",
    "database",
    "host.docker.internal",
}
_CLEAN = re.compile(r"\b(truncate|delete\s+from|drop\s+(table|schema|database)|create\s+database)\b", re.IGNORECASE)
_DESTROYS = {"drop_all", "create_all"}
DEPTH = 4


@dataclass(frozen=True, slots=True)
class Target:
    """A database that tests reach; `whose` is own, application, stranger (remote, not named for tests) or unknown."""

    whose: str
    place: Place
    told: str
    borrowed: bool = False  # reached by the application's own engine, factory or Database
    named: bool = False  # its URL says that it is for tests


class Targets:
    """Databases of one suite."""

    def __init__(self, tests: Tests) -> None:
        """Read them from a suite."""
        self.tests = tests
        self.source = tests.source

    @cached_property
    def every(self) -> list[Target]:
        """Every database that the tests name, by an engine of their own or through the environment."""
        return [*self._environment(), *self._settings(), *self._engines(), *self._borrowed()]

    def _borrowed(self) -> Iterator[Target]:
        """Yield the databases of the application's own engines, factories and Databases that tests use by name."""
        first = {(loan.owner.path, loan.name): loan for loan in reversed(self.tests.borrowed.every)}
        for loan in sorted(first.values(), key=lambda each: each.place):
            yield Target(self._whose(loan), loan.place, loan.told, borrowed=True)

    def _whose(self, loan: Loan) -> str:
        engine = loan.engine
        if engine is None or self.tests.borrowed.replaced(loan):
            return "unknown"
        if engine.url is None:
            return "application" if engine.maker.package == "verdigris" else "unknown"
        named = self._of_application(engine.url.node, engine.url.scope)
        worth = self.source.evaluator.value(engine.url)
        if isinstance(worth, Known) and isinstance(worth.value, str) and self._judged(worth.value, loan.place).named:
            return "own"
        switches = [
            module for module in (loan.owner, named) if module is not None and _SWITCHES.search(module.file.text)
        ]
        return "unknown" if switches else "application"

    def _engines(self) -> Iterator[Target]:
        for engine in self.tests.engines:
            if engine.url is None:
                continue
            worth = self.source.evaluator.value(engine.url)
            theirs = self._of_application(engine.url.node, engine.url.scope)
            given = self._from_environment(engine.url.node, engine.url.scope)
            if given is not None:
                told = f"`{ast.unparse(engine.url.node)[:60]}` is {given} of the environment, whatever that names"
                yield Target("unknown", engine.place, told)
            elif self._speaks_of_tests(engine.url.node, engine.url.scope):
                yield Target("own", engine.place, f"`{ast.unparse(engine.url.node)[:60]}`")
            elif theirs is not None:
                switches = _SWITCHES.search(theirs.file.text)  # settings that know of tests may switch by themselves
                told = f"`{ast.unparse(engine.url.node)[:60]}`"
                yield Target(
                    "unknown" if switches else "application",
                    engine.place,
                    f"{told} is not settled by the source" if switches else told,
                )
            elif isinstance(worth, Known) and isinstance(worth.value, str) and worth.by is None:
                yield self._judged(worth.value, engine.place)
            else:
                yield Target(
                    "unknown", engine.place, f"`{ast.unparse(engine.url.node)[:60]}` is not settled by the source"
                )

    def _environment(self) -> Iterator[Target]:
        """Yield what tests write into the environment, or into a settings object, before the application reads it."""
        for call in self.source.calls.named("setenv", "setdefault", "setitem", "setattr"):
            if call.module.role is not Role.TEST:
                continue
            if not call.node.args:
                continue
            *before, value = call.node.args
            name = next(
                (
                    each.value
                    for each in reversed(before)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                ),
                "",
            )
            if _URLS.search(name):
                yield from self._written(value, call.scope, call.place, name)
        for module in self.tests.modules:
            for scope in module.scope.walk():
                for node in scope.nodes():
                    if isinstance(node, ast.Assign) and len(node.targets) == 1:
                        name = _assigned(node.targets[0])
                        if name and _URLS.search(name):
                            yield from self._written(node.value, scope, module.place(node), name)

    def _settings(self) -> Iterator[Target]:
        """Yield what pytest's own settings put into the environment (pytest-env)."""
        for path, section in self.tests.settings.items():
            given = section.get("env", ())
            for line in given.splitlines() if isinstance(given, str) else given:
                name, _, value = str(line).partition("=")
                if _URLS.search(name.rpartition(":")[2].strip()):
                    yield self._judged(value.strip(), Place(path, 1))

    def _written(self, value: ast.expr, scope: Scope, place: Place, name: str) -> Iterator[Target]:
        worth = self.source.evaluator.value(Argument(value, scope))
        if isinstance(worth, Known) and isinstance(worth.value, str):
            found = self._judged(worth.value, place)
            if found.whose != "stranger" or not self._is_about_it(scope):
                yield found
        elif self._speaks_of_tests(value, scope):
            yield Target("own", place, f"{name} = `{ast.unparse(value)[:60]}`")
        else:
            yield Target("unknown", place, f"what {name} is set to is not settled by the source")

    def _is_about_it(self, scope: Scope) -> bool:
        """Tell whether a test sets another's URL to see what becomes of it, or a fixture that works elsewhere."""
        function = scope.function
        if function is None or function.name.startswith("test"):
            return function is not None
        own = (each for each in self.tests.engines if each.url is not None and each.made.scope.function is function)
        return any(self._speaks_of_tests(each.url.node, each.url.scope) for each in own if each.url is not None)

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
            return Target("own", place, shown, named=True)
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
                owner, bindings = found if found is not None else (scope, [])
                values = [each.value for each in bindings if each.value is not None and each.kind in {"value", "with"}]
                if any(self._speaks_of_tests(value, owner, depth + 1) for value in values):
                    return True
                if self._fixture_speaks(inner.id, depth):
                    return True
        return False

    def _from_environment(self, node: ast.expr, scope: Scope, depth: int = 0) -> str | None:
        """Return the variable that a URL is taken from as it is, unless it is named for tests: a default is none."""
        parts = list(ast.walk(node))
        if depth >= DEPTH or any(_makes_test(part) for part in parts):
            return None
        found = None
        for part in parts:
            if isinstance(part, ast.Call):
                found = found or _variable(part)
            elif isinstance(part, ast.Name):
                owner, bindings = scope.lookup(part.id) or (scope, [])
                for each in bindings:
                    if each.kind == "value" and each.value is not None:
                        if any(_makes_test(inner) for inner in ast.walk(each.value)):
                            return None
                        found = found or self._from_environment(each.value, owner, depth + 1)
        return found

    def _fixture_speaks(self, name: str, depth: int) -> bool:
        for fixture in self.tests.fixtures:
            if fixture.name == name:
                if any(_TEST.search(parameter.arg) for parameter in fixture.function.parameters):
                    return True
                given = (node for node in fixture.function.nodes() if isinstance(node, (ast.Return, ast.Yield)))
                values = [node.value for node in given if node.value is not None]
                if any(self._speaks_of_tests(value, fixture.function, depth + 1) for value in values):
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
        """Where the tests change the environment or a settings object: the URL may be another one by then."""
        for call in self.source.calls.named("setenv", "putenv", "setattr", "load_dotenv", "dict", "setdefault"):
            text = ast.unparse(call.node)
            patched = not text.startswith("dict(") and re.search(r"env|settings|config", text, re.IGNORECASE)
            if call.module.role is Role.TEST and ("environ" in text or (patched and _conftest(call.module))):
                return call.place
        for module in self.tests.modules:
            for scope in module.scope.walk():
                for node in scope.nodes():
                    if isinstance(node, ast.Assign) and re.match(
                        r"os\.environ\[|[\w.]*([sS]ettings|config)\.\w+$", ast.unparse(node.targets[0])
                    ):
                        return module.place(node)
        return next(
            (
                Place(path, 1)
                for path, section in self.tests.settings.items()
                if "env" in section or "env_files" in section
            ),
            None,
        )

    @cached_property
    def destructive(self) -> Place | None:
        """Where tests create, drop or empty tables."""
        for call in self.source.calls.named(*sorted(_DESTROYS), "run_sync", "execute"):
            if call.module.role is Role.TEST:
                text = ast.unparse(call.node)
                if any(name in text for name in _DESTROYS) or _CLEAN.search(text):
                    return call.place
        return None


def _variable(call: ast.Call) -> str | None:
    """Return the variable of a URL that `os.getenv("DATABASE_URL", ...)` reads, unless it is named for tests."""
    match call:
        case ast.Call(func=ast.Attribute(attr=reader), args=[ast.Constant(value=str(name)), *_]) if (
            reader == "getenv" or (reader == "get" and "environ" in ast.unparse(call.func))
        ):
            return name if _URLS.search(name) and not _TEST.search(name) else None
        case _:
            return None


def _makes_test(node: ast.AST) -> bool:
    """Tell whether an expression makes a URL one for tests: by a suffix, another database, or what it replaces."""
    match node:
        case ast.Call(func=ast.Attribute(attr="replace"), args=[old, new, *_]):
            return bool(_TEST.search(ast.unparse(new))) and not _TEST.search(ast.unparse(old))
        case ast.BinOp(op=ast.Add(), right=ast.Constant(value=str(text))):
            return bool(_TEST.search(text))
        case ast.keyword(arg="database" | "path", value=value):
            return bool(_TEST.search(ast.unparse(value)))
        case _:
            return False


def _assigned(target: ast.expr) -> str:
    """Name what an assignment writes, if others read it: `os.environ["X"]`, `settings.X`."""
    match target:
        case ast.Subscript(value=base, slice=ast.Constant(value=str(name))) if ast.unparse(base).endswith("environ"):
            return name
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in {"settings", "config", "cfg"}:
            return name
        case _:
            return ""


def _conftest(module: Module) -> bool:
    return module.path.endswith("conftest.py")
