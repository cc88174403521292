"""The pytest plugin: fixtures for tests on a PostgreSQL of their own. `-p no:verdigris` switches it off.

pytest loads this module wherever the package is installed: it imports nothing beyond pytest until a fixture is used.

Fixtures, all of them synchronous, so that tests may run under pytest-asyncio (either mode), anyio or without a loop:
`verdigris_server`, `verdigris_schema` (override it: what the template database holds), `verdigris_template`,
`verdigris_database`, `verdigris_sandbox`, `verdigris_session`, `verdigris_queries`. With `verdigris_aliases = true` in
the ini file also `database`, `sandbox`, `session` and `queries`; a fixture of that name in your conftest.py wins.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.database import Database
    from verdigris.session import AsyncSession
    from verdigris.testing import Databases, QueryLog, Sandbox

VARIABLE = "VERDIGRIS_TEST_DATABASE_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini settings."""
    group = parser.getgroup("verdigris")
    group.addoption(
        "--verdigris-url",
        metavar="URL",
        help=f"a test database on a server to use instead of a private one (also {VARIABLE})",
    )
    parser.addini("verdigris_url", "as --verdigris-url", default="")
    parser.addini("verdigris_aliases", "offer database, sandbox, session and queries too", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Offer the short names where they are asked for."""
    if config.getini("verdigris_aliases"):
        config.pluginmanager.register(_Aliases(), "verdigris_aliases")


@pytest.fixture(scope="session")
def verdigris_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Give the server that the tests run on: private and one for all xdist workers, or the one that a URL names.

    A URL whose database is neither named nor marked as one for tests is refused.
    """
    from verdigris.testing.shared import server_for

    url = request.config.getoption("--verdigris-url") or request.config.getini("verdigris_url")
    worker = getattr(request.config, "workerinput", {}).get("workerid")
    base = tmp_path_factory.getbasetemp()
    with server_for(url or os.environ.get(VARIABLE, ""), base.parent if worker else base) as databases:
        yield databases


@pytest.fixture(scope="session")
def verdigris_schema() -> Any:
    """Say what the tests' databases hold: MetaData, or a function of the URL that migrates. Override it."""
    return None


@pytest.fixture(scope="session")
def verdigris_template(verdigris_server: Databases, verdigris_schema: Any) -> str:
    """Give the name of the database that the tests' databases are copies of."""
    from verdigris.testing.shared import locked

    with locked(verdigris_server):
        return verdigris_server.template(verdigris_schema)


@pytest.fixture(scope="session")
def verdigris_worker_url(
    request: pytest.FixtureRequest, verdigris_server: Databases, verdigris_template: str
) -> Iterator[str]:
    """Give the URL of this worker's own copy, which sandboxes leave as it was."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    name = verdigris_server.clone(verdigris_template, worker)
    yield verdigris_server.url_of(name)
    verdigris_server.drop(name)


@pytest.fixture
def verdigris_database(
    request: pytest.FixtureRequest, verdigris_server: Databases, verdigris_template: str
) -> Iterator[Database]:
    """Give a Database on a database of this test's own, dropped afterwards: COMMIT is COMMIT, others see it."""
    from verdigris.testing.fixtures import database

    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    name = verdigris_server.clone(verdigris_template, f"{worker}_own")
    with ExitStack() as stack:
        stack.callback(verdigris_server.drop, name)
        stack.enter_context(_loop(request))
        yield stack.enter_context(database(verdigris_server.url_of(name)))


@pytest.fixture
def verdigris_sandbox(request: pytest.FixtureRequest, verdigris_worker_url: str) -> Iterator[Sandbox]:
    """Give a Database whose work is undone after the test, commits included."""
    from verdigris.testing.fixtures import sandbox

    with _loop(request), sandbox(verdigris_worker_url) as made:
        yield made


@pytest.fixture
def verdigris_session(verdigris_sandbox: Sandbox) -> Iterator[AsyncSession]:
    """Give a session of the sandbox; it may commit, and it is undone all the same. It is closed after the test."""
    from verdigris.testing.fixtures import session

    with session(verdigris_sandbox) as made:
        yield made


@pytest.fixture
def verdigris_queries(request: pytest.FixtureRequest) -> Iterator[QueryLog]:
    """Count the statements of the test's sandbox, or of its database if it takes that: `queries.at_most(3)`."""
    from verdigris.testing import QueryLog

    taken = "verdigris_database" if "verdigris_database" in request.fixturenames else "verdigris_sandbox"
    log = QueryLog()
    with log.listening(request.getfixturevalue(taken).queries):
        yield log


def _loop(request: pytest.FixtureRequest) -> Any:
    from verdigris.testing.fixtures import loop_kept_open

    return loop_kept_open(request)


class _Aliases:
    """Short names for the fixtures."""

    @pytest.fixture
    def database(self, verdigris_database: Database) -> Database:
        return verdigris_database

    @pytest.fixture
    def sandbox(self, verdigris_sandbox: Sandbox) -> Sandbox:
        return verdigris_sandbox

    @pytest.fixture
    def session(self, verdigris_session: AsyncSession) -> AsyncSession:
        return verdigris_session

    @pytest.fixture
    def queries(self, verdigris_queries: QueryLog) -> QueryLog:
        return verdigris_queries
