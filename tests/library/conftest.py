import asyncio
import contextlib
import itertools

import asyncpg
import pytest

from verdigris import embedded
from verdigris.lean import coalescing

_numbers = itertools.count()
_LOOPS = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):  # which Windows has not
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop
_ON_EACH = (
    "test_an_answer_is_written_at_once",
    "test_a_client_that_goes_between_head_and_body",
    "test_the_answers_of_one_flight",
    "test_nothing_comes_between",
)


def pytest_asyncio_loop_factories(item):
    """Run what depends on a transport on the event loop that uvicorn takes in production, too."""
    return _LOOPS if item.name.startswith(_ON_EACH) else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def postgres():
    """One private server for the library's tests."""
    with embedded.server(durable=False, settings={"max_connections": 60}) as running:
        yield running


@pytest.fixture(scope="session")
def major(postgres):
    """The server's version: what older ones do not know is not asked of them."""
    return int(postgres.version.split(".")[0])


@pytest.fixture
def database_url(postgres, major):
    """The URL of a database of this test's own."""
    name = f"library_test_{next(_numbers)}"
    strategy = " STRATEGY file_copy" if major >= 15 else ""  # the only one before it
    asyncio.run(_run(postgres.url, f"CREATE DATABASE {name}{strategy}"))
    yield postgres.url_for(name)
    asyncio.run(_run(postgres.url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def admin(database_url):
    """Run a statement on a connection of its own, beside the code under test, and return its rows."""

    async def run(statement, *values):
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    return run


async def _run(url, statement):
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def flights(db, monkeypatch):
    """How many reads each flight carried, on a machine that is never too slow for them."""
    monkeypatch.setattr(coalescing, "_PAYS", 1000.0)
    monkeypatch.setattr(coalescing, "_LONGEST", 1.0)
    carried = []
    original = db.lane.fetch_each

    async def spy(statement, arguments):
        carried.append(len(arguments))
        return await original(statement, arguments)

    monkeypatch.setattr(db.lane, "fetch_each", spy)
    return carried
