"""Which fixtures empty the database, and whom that serves."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Module, Scope
    from verdigris.evidence.source.testing.fixtures import Fixture, Tests

_CLEAN = re.compile(r"\b(truncate|delete\s+from|drop\s+(table|schema|database)|create\s+database)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_OF_SQL = {"sqlalchemy", "sqlmodel"}
_FILE = re.compile(r"sqlite|\.db\b", re.IGNORECASE)
_DATABASE = re.compile(r"database|(\b|_)db(\b|_)|dbname|dsn|sqlite|postgres|schema", re.IGNORECASE)


def empties(source: Source, calls: Sequence[tuple[ast.Call, Scope]]) -> bool:
    """Tell whether calls, and what their functions say, delete rows or drop tables; other stores have a delete()."""
    told = "\n".join(ast.unparse(call) for call, _ in calls)
    if "drop_all" in told or _CLEAN.search(told):
        return True
    functions = {id(scope): scope for _, scope in calls}.values()
    return any(_CLEAN.search(text) for scope in functions for text in _texts(scope)) or any(
        _deletes(source, call, scope) for call, scope in calls
    )


def _texts(scope: Scope) -> Iterator[str]:
    """Yield the texts of a function but its docstring: statements may wait in a list."""
    body = getattr(scope.node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    docstring = first.value if isinstance(first, ast.Expr) else None
    for node in scope.nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node is not docstring:
            yield node.value


def _deletes(source: Source, call: ast.Call, scope: Scope) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    meaning = source.names.resolve(call.func, scope)
    if isinstance(meaning, External):
        return meaning.package in _OF_SQL and meaning.leaf == "delete"
    if name != "delete" or not isinstance(call.func, ast.Attribute):
        return False
    if not call.args and {given.arg for given in call.keywords} <= {"synchronize_session"}:  # of a table or a query
        return True
    return source.types.session(call.func.value, scope) is not None


def spoken(tests: Tests) -> frozenset[str]:
    """Return the words that the tests say more than once, or that their settings say: a definition is once."""
    words: Counter[str] = Counter()
    for module in tests.modules:
        words.update(_WORD.findall(module.file.text))
    said = {word for word, count in words.items() if count > 1}
    for text in tests.source.files.settings.values():
        if "usefixtures" in text:
            said.update(_WORD.findall(text))
    return frozenset(said)


def local(fixture: Fixture) -> bool:
    """Tell whether only the tests of one file can have a fixture."""
    name = fixture.place.path.rpartition("/")[2]
    return name.startswith("test_") or name.endswith("_test.py")


def makes_file(tests: Tests, fixture: Fixture) -> bool:
    """Tell whether a fixture makes a database in each test's own directory, in a suite that has no server."""
    parameters = {parameter.arg for parameter in fixture.function.parameters}
    wide = [each.function for each in tests.fixtures if each.wide]
    return (
        not fixture.wide
        and bool(parameters & {"tmp_path", "tmpdir"})
        and any(_FILE.search(text) for scope in fixture.function.walk() for text in _texts(scope))
        and not any("testcontainers" in module.file.text for module in tests.modules)
        and not any(engine.call.scope.function in wide for engine in tests.engines)
    )


def names_database(module: Module, node: ast.AST, scope: Scope) -> bool:
    """Tell whether what a test worker's name is used for is a database, and no port or file."""
    if isinstance(node, ast.arg):
        return _DATABASE.search(ast.unparse(scope.node)) is not None
    return _DATABASE.search(module.file.text) is not None
