"""COMMIT under faults: what is raised is what happened, in bounded time."""

import asyncio

import anyio
import pytest
from sqlalchemy import text

from tests.faults.rig import Fate, eventually, within
from verdigris import Database
from verdigris.errors import OutcomeUnknownError

ADD = text("UPDATE account SET balance = balance + 1 WHERE id = 1")
SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow()
"""


@pytest.fixture
async def slow_commit(admin):
    for statement in SLOW_COMMIT.split(";\nCREATE C"):
        await admin(statement if "FUNCTION slow() RETURNS" in statement else "CREATE C" + statement)


async def add(session):
    await session.execute(ADD)


async def balance(admin):
    return (await admin("SELECT balance FROM account WHERE id = 1"))[0][0]


async def explicit(db):
    async with db.session() as session:
        await add(session)
        await session.commit()


async def in_a_block(db):
    async with db.session.begin() as session:
        await add(session)


async def as_a_unit(db):
    await db.transaction(add)


@pytest.mark.parametrize("write", [explicit, in_a_block, as_a_unit])
@pytest.mark.parametrize("how", ["once", "again and again"])
@pytest.mark.usefixtures("slow_commit")
async def test_a_cancelled_commit_is_waited_for_and_its_outcome_is_told(db, admin, caplog, write, how):
    if how == "once":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write(db), 0.2)
    else:  # as the task groups of anyio cancel: at each await
        with anyio.move_on_after(0.2) as scope:
            await write(db)
        assert scope.cancelled_caught

    assert await balance(admin) == 1
    assert db.pool().in_use == 0
    if write is not in_a_block:  # SQLAlchemy 2.1 itself keeps the end of a block from being cancelled
        assert "cancelled while COMMIT was under way: the work is stored" in caplog.text


@pytest.mark.usefixtures("slow_commit")
async def test_a_cancelled_commit_that_gets_no_answer_ends_in_bounded_time_and_says_so(
    proxy, postgres, database, caplog
):
    db = Database(proxy.url(postgres.url_for(database)), commit_timeout=0.6)
    proxy.commit(Fate.HELD)

    with pytest.raises(TimeoutError):
        await within(5, asyncio.wait_for(explicit(db), 0.2))

    assert "cancelled while COMMIT was under way: its outcome is unknown" in caplog.text
    assert db.pool().in_use == 0
    await db.dispose()


@pytest.mark.parametrize("fate", [Fate.REPLY_HELD, Fate.REPLY_LOST, Fate.LOST, Fate.HELD])
async def test_a_commit_without_an_answer_is_an_outcome_unknown_in_bounded_time(proxy, postgres, database, admin, fate):
    db = Database(proxy.url(postgres.url_for(database)), commit_timeout=0.5)
    proxy.commit(fate)

    with pytest.raises(OutcomeUnknownError):
        await within(5, db.transaction(add))

    assert await balance(admin) == (1 if fate in {Fate.REPLY_HELD, Fate.REPLY_LOST} else 0)
    assert db.pool().in_use == 0
    await db.dispose()


async def plain(db, meanwhile):
    async with db.session.begin() as session:
        await meanwhile(await session.scalar(text("SELECT pg_backend_pid()")))
        raise KeyError("the application's own")


async def in_a_savepoint(db, meanwhile):
    async with db.session.begin() as session, session.begin_nested():
        await meanwhile(await session.scalar(text("SELECT pg_backend_pid()")))
        raise KeyError("the application's own")


async def in_a_unit(db, meanwhile):
    async def work(session):
        await meanwhile(await session.scalar(text("SELECT pg_backend_pid()")))
        raise KeyError("the application's own")

    await db.transaction(work)


UNITS = [plain, in_a_savepoint, in_a_unit]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("noticed", [False, True])
async def test_the_applications_error_is_not_hidden_by_a_rollback_that_fails(db, postgres, caplog, unit, noticed):
    async def kill(pid):
        await postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
        await asyncio.sleep(0.1 if noticed else 0)

    with pytest.raises(KeyError, match="the application's own"):
        await unit(db, kill)

    assert db.pool().in_use == 0
    await db.dispose()
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("unit", UNITS)
async def test_leaving_a_transaction_on_a_frozen_server_is_bounded(proxy, postgres, database, unit):
    db = Database(proxy.url(postgres.url_for(database)), close_timeout=0.3)

    async def freeze(pid):
        postgres.freeze(pid)

    with pytest.raises(KeyError, match="the application's own"):
        await within(5, unit(db, freeze))

    assert db.pool().in_use == 0
    postgres.thaw()
    await db.dispose()
    await eventually(lambda: nobody(postgres, database))


async def nobody(postgres, database):
    return not await postgres.backends(database)
