import asyncio
import gc
import json
import socket

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from verdigris.database import Database
from verdigris.errors import PoolExhaustedError, StatementTimeoutError, classify
from verdigris.lean import lane
from verdigris.testing.sandbox import Sandbox

PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0, pool_timeout=0.2)
    yield database
    await database.dispose()


@pytest.fixture
def spawned(monkeypatch):
    """How often the lane made a greenlet."""
    calls = []
    original = lane.greenlet_spawn

    async def spy(function, *args, **kwargs):
        calls.append(function)
        return await original(function, *args, **kwargs)

    monkeypatch.setattr(lane, "greenlet_spawn", spy)
    return calls


def held(db):
    return db.engine.sync_engine.pool.checkedout()


async def test_values_and_rows_are_read_with_arguments(db):
    value = await db.lane.fetchval("SELECT $1::int + $2::int", (1, 2))
    rows = await db.lane.fetch("SELECT n, n * n AS square FROM generate_series(1, $1) n", (3,))
    nothing = await db.lane.fetchval("SELECT 1 WHERE false")

    assert value == 3
    assert [(row["n"], row["square"]) for row in rows] == [(1, 1), (2, 4), (3, 9)]
    assert nothing is None


async def test_json_is_given_as_text_where_the_statement_says_so(db):
    found = await db.lane.fetchval("SELECT json_build_object('a', $1::int)::text", (1,))

    assert json.loads(found) == {"a": 1}


async def test_an_idle_connection_is_used_without_a_greenlet(db, spawned):
    first = await db.lane.fetchval(PID)
    spawned.clear()
    pids = {await db.lane.fetchval(PID) for _ in range(5)}

    assert spawned == []
    assert pids == {first}
    assert held(db) == 0


async def test_a_listener_of_the_pool_is_called_where_it_may_wait(db, spawned):
    seen = []
    pool = db.engine.sync_engine.pool
    event.listen(pool, "checkout", lambda *_: seen.append("checkout"))
    event.listen(pool, "checkin", lambda *_: seen.append("checkin"))

    await db.lane.fetchval(PID)
    await db.lane.fetchval(PID)

    assert seen == ["checkout", "checkin"] * 2
    assert len(spawned) == 4


async def test_other_pools_and_engines_of_the_teams_own_work_too(database_url):
    db = Database.from_engine(create_async_engine(database_url, poolclass=NullPool))

    pids = {await db.lane.fetchval(PID) for _ in range(2)}

    assert len(pids) == 2


async def test_a_new_connection_makes_room_for_large_answers_before_anything_else(db):
    async with db.engine.connect() as first, db.engine.connect() as second:
        driver = (await second.get_raw_connection()).driver_connection
        asked = text("SELECT query FROM pg_stat_activity WHERE pid = :pid")
        last = await first.scalar(asked, {"pid": driver.get_server_pid()})

    assert "repeat" in last


# -- errors ----------------------------------------------------------------------------------------------------------


async def test_errors_are_those_of_a_session_and_the_connection_stays_good(db):
    heard = []
    event.listen(db.engine.sync_engine, "handle_error", heard.append)
    pid = await db.lane.fetchval(PID)

    with pytest.raises(ProgrammingError) as missing:
        await db.lane.fetch("SELECT * FROM nowhere WHERE id = $1", (7,))
    with pytest.raises(DBAPIError) as unfit:
        await db.lane.fetchval("SELECT $1::int", ("x",))

    assert classify(missing.value).sqlstate == "42P01"
    assert "nowhere" in missing.value.statement
    assert "(7,)" not in str(missing.value)
    assert isinstance(unfit.value.orig.__cause__, asyncpg.DataError)
    assert len(heard) == 2
    assert await db.lane.fetchval(PID) == pid
    assert held(db) == 0


async def test_an_error_is_the_same_as_through_the_session(database_url):
    db = Database(database_url, statement_timeout=0.05)
    errors = []
    for statement in ("SELECT 1/0", "SELECT nothing", "SELECT (", "SELECT 'x'::uuid", "SELECT pg_sleep(5)"):
        async with db.read() as session:
            with pytest.raises(DBAPIError) as through_session:
                await session.execute(text(statement))
        with pytest.raises(DBAPIError) as through_lane:
            await db.lane.fetch(statement)
        errors.append([(type(e.value), type(e.value.orig), classify(e.value)) for e in (through_session, through_lane)])

    assert all(session == lane for session, lane in errors)
    assert held(db) == 0
    await db.dispose()


async def test_a_wait_beyond_command_timeout_is_the_librarys_own_error(database_url):
    db = Database(database_url, command_timeout=0.2)
    pid = await db.lane.fetchval(PID)

    with pytest.raises(StatementTimeoutError):
        await db.lane.fetchval("SELECT pg_sleep(5)")

    assert await db.lane.fetchval(PID) != pid
    assert held(db) == 0
    await db.dispose()


async def test_an_exhausted_pool_is_told_as_to_a_session(db):
    async with db.session() as one, db.session() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))

        with pytest.raises(PoolExhaustedError):
            await db.lane.fetchval(PID)

    assert await db.lane.fetchval(PID)


async def test_a_transaction_begun_as_text_never_reaches_the_next_user(db):
    pid = await db.lane.fetchval(PID)

    await db.lane.fetch("BEGIN")

    assert await db.lane.fetchval(PID) != pid
    assert held(db) == 0


# -- connections that died -------------------------------------------------------------------------------------------


async def test_a_connection_that_the_server_closed_is_replaced_unseen(db, admin):
    pid = await db.lane.fetchval(PID)
    await admin(f"SELECT pg_terminate_backend({pid})")
    await asyncio.sleep(0.1)

    assert await db.lane.fetchval(PID) != pid


async def test_a_connection_that_dies_unnoticed_runs_the_read_once_more(db):
    pid = await db.lane.fetchval(PID)
    (driver,) = [found for found in gc.get_objects() if isinstance(found, asyncpg.Connection) and not found.is_closed()]
    raw = socket.socket(fileno=driver._transport.get_extra_info("socket").fileno())
    raw.shutdown(socket.SHUT_RDWR)  # the event loop has not looked yet
    raw.detach()

    assert await db.lane.fetchval(PID) != pid
    assert held(db) == 0


async def test_a_read_that_kills_its_connection_again_is_an_error(db):
    with pytest.raises(DBAPIError) as raised:
        await db.lane.fetch("SELECT pg_terminate_backend(pg_backend_pid())")

    assert classify(raised.value).name == "connection-lost"
    assert [query.count for query in db.queries if "terminate" in query.fingerprint] == [2]
    assert held(db) == 0


async def test_when_the_budget_for_repetitions_is_spent_the_first_error_stands(db):
    while db._budget.faults.spend():
        pass

    with pytest.raises(DBAPIError):
        await db.lane.fetch("SELECT pg_terminate_backend(pg_backend_pid())")

    assert [query.count for query in db.queries if "terminate" in query.fingerprint] == [1]


async def test_a_read_tells_its_own_time_whatever_runs_beside_it(db):
    told = {}

    async def read(seconds):
        return await db.lane.fetch("SELECT pg_sleep($1)", (seconds,), took=lambda took: told.update({seconds: took}))

    await asyncio.gather(read(0.05), read(0.05))  # two connections are at hand
    await asyncio.gather(read(0.3), read(0.0))

    assert told[0.0] < 0.25
    assert told[0.3] >= 0.3


# -- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storm", [1, 5])
async def test_a_cancelled_read_stops_on_the_server_and_frees_its_slot(db, admin, storm):
    task = asyncio.create_task(db.lane.fetchval("SELECT pg_sleep(60) /* cancelled */"))
    await asyncio.sleep(0.1)
    for _ in range(storm):
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(50):
        running = await admin(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%/* cancelled */' AND state = 'active'"
            " AND pid <> pg_backend_pid()"
        )
        if not running:
            break
        await asyncio.sleep(0.05)

    assert running == []
    assert held(db) == 0
    assert await asyncio.gather(db.lane.fetchval("SELECT 1"), db.lane.fetchval("SELECT 2")) == [1, 2]


async def test_a_read_cancelled_at_any_point_loses_no_slot(db):
    async def reads():
        for _ in range(4):
            await db.lane.fetchval("SELECT 1")

    for turns in range(40):
        task = asyncio.create_task(reads())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert held(db) == 0

    assert await asyncio.gather(*(db.lane.fetchval("SELECT 1") for _ in range(2))) == [1, 1]


# -- observed --------------------------------------------------------------------------------------------------------


async def test_its_reads_are_timed_with_their_place_and_its_checkouts_counted(db):
    await db.lane.fetchval("SELECT 41 + $1::int", (1,))
    query = list(db.queries)[-1]

    assert query.fingerprint == "SELECT ? + $1::int"
    assert query.sites[0].place.startswith("tests/library/lean/test_lane.py")
    assert db.pool_status().checkouts == 1


# -- in a test's sandbox ---------------------------------------------------------------------------------------------


async def test_in_a_sandbox_it_sees_what_the_test_wrote_and_its_errors_undo_nothing(database_url):
    sandbox = Sandbox(database_url)
    async with sandbox.session.begin() as session:
        await session.execute(text("CREATE TABLE kept (n int)"))
        await session.execute(text("INSERT INTO kept VALUES (1)"))

    with pytest.raises(ProgrammingError):
        await sandbox.lane.fetch("SELECT * FROM nowhere")
    (row,) = await sandbox.lane.fetch("SELECT n FROM kept WHERE n = $1", (1,))

    assert row["n"] == 1
    (row,) = await asyncio.create_task(sandbox.lane.fetch("SELECT n FROM kept WHERE n = $1", (1,)))  # as a request is
    assert row["n"] == 1
    await sandbox.dispose()


REFUSED = "SELECT count(*) FROM pg_class WHERE relnatts = $1"


async def read_in_a_session(database):
    async with database.read() as session:
        await session.execute(text(REFUSED.replace("$1", ":n")), {"n": "many"})


@pytest.mark.parametrize(
    "read",
    [
        lambda database: database.lane.fetch(REFUSED, (2**40,)),
        lambda database: database.lane.fetchval_together(REFUSED, (2**40,)),
        read_in_a_session,
    ],
    ids=["alone", "together", "session"],
)
async def test_a_statement_whose_arguments_are_refused_leaves_nothing_open_in_the_pool(database_url, read):
    """asyncpg prepares it and asks for no end: tables stay locked, also against an ALTER TABLE, until the next use."""
    begun = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL")
    database, other = Database(database_url, pool_size=1, max_overflow=0), create_async_engine(database_url)

    with pytest.raises(DBAPIError):
        await read(database)

    async with other.connect() as connection:
        assert await connection.scalar(begun) == 1  # its own
    assert await database.lane.fetchval("SELECT 1") == 1
    await other.dispose()
    await database.dispose()
