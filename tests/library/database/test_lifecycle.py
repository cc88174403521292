"""How a Database begins and ends while work is under way."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from verdigris import after_commit, embedded
from verdigris.database import Database
from verdigris.embedded import Machine
from verdigris.errors import ShuttingDownError, classify


@pytest.fixture
async def db(database_url, admin):
    await admin("CREATE TABLE note (id int PRIMARY KEY)")
    database = Database(database_url, drain_timeout=5)
    yield database
    await database.dispose()


async def insert(session, number, seconds=0.0):
    await session.execute(text("INSERT INTO note VALUES (:id)"), {"id": number})
    await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def stored(admin):
    return [row["id"] for row in await admin("SELECT id FROM note ORDER BY id")]


async def test_at_the_end_work_under_way_is_waited_for_and_nothing_new_begins(db, admin):
    working = asyncio.create_task(db.transaction(lambda session: insert(session, 1, 0.2)))
    await asyncio.sleep(0)  # it has only begun to connect
    stopping = asyncio.create_task(db.stop())
    await asyncio.sleep(0)

    with pytest.raises(ShuttingDownError) as refused:
        await db.transaction(lambda session: insert(session, 2))
    await stopping

    assert (classify(refused.value).status, classify(refused.value).retry_after) == (503, 1)
    assert working.done()
    assert await stored(admin) == [1]


async def test_at_the_end_what_does_not_finish_is_named_cancelled_once_and_rolled_back(database_url, db, admin, caplog):
    cancelled, db = [], Database(database_url, drain_timeout=0.4)

    async def endless(session):
        try:
            await insert(session, 1, 30)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    working = asyncio.create_task(db.transaction(endless), name="nightly")
    while not await admin("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"):
        await asyncio.sleep(0.02)
    await db.stop()

    assert working.cancelled()
    assert cancelled == [1]
    assert "still at work after 0.4 s, cancelled: nightly (" in caplog.text
    assert "test_lifecycle.py:" in caplog.text
    assert await stored(admin) == []
    assert not await admin("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'")


async def test_hooks_that_still_run_at_the_end_are_waited_for_and_may_use_the_database(db, admin):
    async def hook():
        await asyncio.sleep(0.1)
        await db.transaction(lambda session: insert(session, 2))

    async def work(session):
        await insert(session, 1)
        after_commit(session, hook)

    working = asyncio.create_task(db.transaction(work))
    while not await stored(admin):
        await asyncio.sleep(0.01)
    await db.stop()
    await working

    assert await stored(admin) == [1, 2]


async def test_a_stopped_database_can_be_started_again(db, admin):
    await db.stop()
    async with db.lifespan():
        await db.transaction(lambda session: insert(session, 1))

    assert await stored(admin) == [1]


@pytest.mark.parametrize(
    ("setting", "statements"),
    [
        ("transaction_timeout", ["SELECT pg_sleep(0.3)", "SELECT pg_sleep(0.3)"]),
        ("idle_in_transaction_timeout", ["SELECT 1", "idle", "SELECT 1"]),
    ],
)
async def test_the_server_ends_a_transaction_that_takes_too_long(database_url, major, setting, statements):
    if setting == "transaction_timeout" and major < 17:
        pytest.skip("PostgreSQL has it since 17")
    db = Database(database_url, **{setting: 0.4})

    async def work(session):
        for statement in statements:
            if statement == "idle":
                await asyncio.sleep(0.7)
            else:
                await session.execute(text(statement))

    with pytest.raises(Exception) as ended:
        await db.transaction(work, attempts=1)

    assert classify(ended.value).name in {"transaction-too-long", "connection-lost"}
    assert db.pool_status().in_use == 0
    await db.dispose()


OLD = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.skipif(not OLD.exists(), reason="needs a PostgreSQL before 17")
async def test_a_server_that_knows_no_transaction_timeout_is_connected_to_without(caplog):
    caplog.set_level("INFO", "verdigris")
    async with embedded.server(durable=False, provider=Machine(OLD)) as old:
        db = Database(old.url)
        async with db.session() as session, db.session() as another:
            await another.execute(text("SELECT 1"))
            assert await session.scalar(text("SELECT current_setting('idle_in_transaction_session_timeout')")) == "1min"
        await db.transaction(lambda session: session.execute(text("SELECT 1")), resolve=True)
        await db.dispose()

    assert caplog.text.count("the server knows no transaction_timeout") == 1
