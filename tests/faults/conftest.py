import asyncio
import contextlib

import pytest

from tests.faults.rig import Postgres, Proxy, eventually
from tests.faults.service import Service
from verdigris import Database

_NAME = "faults"
_LOOPS = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):  # which Windows has not
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop
_ON_EACH = {"test_cancelled", "test_commit", "test_sweep"}  # what depends on how an event loop cancels
_ALWAYS = (  # of these; the others run there in `make faults`
    "test_a_cancelled_commit_is_waited_for_and_its_outcome_is_told[uvloop",
    "test_a_unit_cancelled_mid_query_leaves_no_backend_and_no_slot_behind_and_is_not_repeated[uvloop",
    "test_a_cancellation_at_any_suspension_leaves_nothing_behind[uvloop-a_unit-warm-once",
)


def pytest_asyncio_loop_factories(item):
    """Run what cancels on the event loop that uvicorn takes in production, too."""
    return _LOOPS if item.path.stem in _ON_EACH else {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "[uvloop" in item.name and not item.name.startswith(_ALWAYS):
            item.add_marker(pytest.mark.slow)


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
    """The name of a database with two accounts of 0 in it and nothing else."""
    asyncio.run(_empty(postgres))
    return _NAME


async def _empty(postgres):
    """Make it anew: a schema costs a twentieth of a database."""
    if not await postgres.run("SELECT 1 FROM pg_database WHERE datname = $1", _NAME):
        await postgres.run(f"CREATE DATABASE {_NAME}")
    await postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", _NAME)
    for statement in (
        "DROP SCHEMA IF EXISTS public CASCADE",  # a set-up that was cut short has none
        "CREATE SCHEMA public",
        "GRANT ALL ON SCHEMA public TO PUBLIC",
        "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)",
        "INSERT INTO account VALUES (1, 0), (2, 0)",
    ):
        await postgres.run(statement, database=_NAME)


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
    url = proxy.url(postgres.url_for(database))
    made = Database(url, pool_size=3, max_overflow=2, commit_timeout=2)  # also what a cancelled COMMIT waits
    yield made
    postgres.thaw()
    proxy.flow()
    await made.dispose()


@pytest.fixture
def service(db):
    return Service(db)


@pytest.fixture
def balance(admin):
    """Return what the first account holds."""

    async def of(number=1):
        return (await admin("SELECT balance FROM account WHERE id = $1", number))[0][0]

    return of


@pytest.fixture
def whole(db, postgres, database):
    """Say that nothing leaked: no slot of the pool is taken, and no backend works or waits in a transaction."""

    async def check():
        async def still():
            return db.pool_status().in_use == 0 and not await postgres.backends(database, busy=True)

        return await eventually(still)

    return check
