import asyncio
import itertools

import pytest

from tests.faults.rig import Postgres, Proxy
from verdigris import Database

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _server():
    with Postgres() as running:
        yield running


@pytest.fixture
def postgres(_server):
    """The server of these tests: whatever a test does to it, the next one finds it running."""
    yield _server
    _server.thaw()
    _server.start()


@pytest.fixture
def database(postgres):
    """The name of a database of this test's own, with an `account` of 0 in it."""
    name = f"faults_test_{next(_numbers)}"
    asyncio.run(_create(postgres, name))
    yield name
    postgres.thaw()
    postgres.start()
    asyncio.run(postgres.run(f"DROP DATABASE {name} WITH (FORCE)"))


async def _create(postgres, name):
    await postgres.run(f"CREATE DATABASE {name} STRATEGY file_copy")
    await postgres.run("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)", database=name)
    await postgres.run("INSERT INTO account VALUES (1, 0), (2, 0)", database=name)


@pytest.fixture
def admin(postgres, database):
    """Run a statement beside the code under test, past the proxy, and return its rows."""

    async def run(statement, *values):
        return await postgres.run(statement, *values, database=database)

    return run


@pytest.fixture
async def proxy(postgres):
    """A proxy to the server; `proxy.url(...)` leads through it."""
    async with Proxy("127.0.0.1", postgres.port) as running:
        yield running


@pytest.fixture
async def db(postgres, proxy, database):
    """A Database that reaches the server through the proxy."""
    made = Database(proxy.url(postgres.url_for(database)), pool_size=3, max_overflow=2)
    yield made
    postgres.thaw()
    proxy.flow()
    await made.dispose()
