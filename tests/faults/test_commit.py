"""COMMIT under faults: what is raised is what happened, in bounded time."""

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from tests.faults.cancelling import once, storm, timeout
from tests.faults.rig import Fate, Postgres, Proxy, Standby, eventually, within
from verdigris import Database, after_commit
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
@pytest.mark.parametrize("cancel", [once, timeout, storm])
@pytest.mark.usefixtures("slow_commit")
async def test_a_cancelled_commit_is_waited_for_and_its_outcome_is_told(
    db, admin, caplog, write, cancel, postgres, database
):
    async def under_way():
        return any("COMMIT" in each["query"] for each in await postgres.backends(database, busy=True))

    await cancel(write(db), lambda: eventually(under_way))

    assert await balance(admin) == 1
    assert db.pool_status().in_use == 0
    if write is not in_a_block:  # SQLAlchemy 2.1 itself keeps the end of a block from being cancelled
        assert "cancelled while COMMIT was under way: the work is stored" in caplog.text


@pytest.mark.usefixtures("slow_commit")
async def test_a_cancelled_commit_that_gets_no_answer_ends_in_bounded_time_and_says_so(
    proxy, postgres, database, caplog
):
    db = Database(proxy.url(postgres.url_for(database)), commit_timeout=0.6)
    proxy.commit(Fate.HELD)

    await within(10, once(explicit(db), proxy.caught.wait))

    assert "cancelled while COMMIT was under way: its outcome is unknown" in caplog.text
    assert db.pool_status().in_use == 0
    await db.dispose()


@pytest.mark.parametrize("fate", [Fate.REPLY_HELD, Fate.REPLY_LOST, Fate.LOST, Fate.HELD])
async def test_a_commit_without_an_answer_is_an_outcome_unknown_in_bounded_time(proxy, postgres, database, admin, fate):
    db = Database(proxy.url(postgres.url_for(database)), commit_timeout=0.5)
    proxy.commit(fate)

    with pytest.raises(OutcomeUnknownError):
        await within(5, db.transaction(add))

    assert await balance(admin) == (1 if fate in {Fate.REPLY_HELD, Fate.REPLY_LOST} else 0)
    assert db.pool_status().in_use == 0
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

    assert db.pool_status().in_use == 0
    await db.dispose()
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("unit", UNITS)
async def test_leaving_a_transaction_on_a_frozen_server_is_bounded(proxy, postgres, database, unit):
    db = Database(proxy.url(postgres.url_for(database)), close_timeout=0.3)

    async def freeze(pid):
        postgres.freeze(pid)

    with pytest.raises(KeyError, match="the application's own"):
        await within(5, unit(db, freeze))

    assert db.pool_status().in_use == 0
    postgres.thaw()
    await db.dispose()
    await eventually(lambda: nobody(postgres, database))


async def nobody(postgres, database):
    return not await postgres.backends(database)


# -- asking what became of it --------------------------------------------------------------------------------------


@pytest.fixture
def short(proxy, postgres, database):
    """A Database through the proxy that gives a COMMIT half a second."""
    return Database(proxy.url(postgres.url_for(database)), commit_timeout=0.5)


@pytest.mark.parametrize("fate", list(Fate))
async def test_a_commit_without_an_answer_is_resolved_where_the_unit_asks_for_it(short, proxy, admin, fate, caplog):
    proxy.commit(fate)
    runs, effects = [], []

    async def work(session):
        runs.append(1)
        after_commit(session, lambda: effects.append(len(runs)))
        await add(session)
        return "done"

    assert await within(15, short.transaction(work, resolve=True)) == "done"

    stored_at_once = fate in {Fate.REPLY_LOST, Fate.REPLY_HELD}
    assert len(runs) == (1 if stored_at_once else 2)
    assert await balance(admin) == 1
    assert effects == [len(runs)]
    assert ("the work is stored" if stored_at_once else "it was rolled back") in caplog.text
    assert short.pool_status().in_use == 0
    await short.dispose()


async def test_the_backend_of_a_commit_that_never_arrived_is_ended_so_that_its_locks_go(
    short, proxy, postgres, database, admin
):
    proxy.commit(Fate.HELD)

    await within(15, short.transaction(add, resolve=True))

    await admin("UPDATE account SET balance = balance + 1 WHERE id = 1")  # not locked by a forgotten transaction
    assert await balance(admin) == 2
    await short.dispose()


async def test_a_commit_lost_in_a_crash_of_the_server_is_never_called_stored_by_mistake(short, proxy, postgres, admin):
    proxy.commit(Fate.REPLY_LOST)

    async def work(session):
        await add(session)
        await session.execute(text("SELECT 1"))

    async def crash():
        await proxy.caught.wait()
        await asyncio.to_thread(postgres.restart, at_once=True)

    crashing = asyncio.create_task(crash())
    try:
        await within(25, short.transaction(work, resolve=True, attempts=1))
    except OutcomeUnknownError:
        told = None
    else:
        told = "stored"
    await crashing

    assert await balance(admin) == 1
    assert told is None  # "committed" may be the answer for another transaction that got the id after the crash
    await short.dispose()


async def test_an_outcome_that_nobody_can_tell_stays_unknown(proxy, postgres, database, admin):
    db = Database(proxy.url(postgres.url_for(database)), resolve_timeout=0.6, connect_timeout=0.3)
    proxy.commit(Fate.REPLY_LOST)
    effects = []

    async def work(session):
        after_commit(session, lambda: effects.append(1))
        await add(session)

    async def vanish():
        await proxy.caught.wait()
        await proxy.refuse()

    vanishing = asyncio.create_task(vanish())
    with pytest.raises(OutcomeUnknownError):
        await within(5, db.transaction(work, resolve=True))

    await vanishing
    assert await balance(admin) == 1
    assert effects == []
    await db.dispose()


@pytest.mark.slow
async def test_after_a_failover_an_outcome_stays_unknown():
    with Postgres() as primary, Standby(primary) as standby:
        await primary.run("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
        await primary.run("INSERT INTO account VALUES (1, 0)")
        await eventually(standby.caught_up)
        async with Proxy("127.0.0.1", primary.port) as proxy:
            db = Database(proxy.url(primary.url_for("postgres")), resolve_timeout=8)
            proxy.commit(Fate.REPLY_LOST)
            unit = asyncio.ensure_future(db.transaction(add, resolve=True))
            await proxy.caught.wait()
            proxy.black_hole()
            await eventually(standby.caught_up)
            await asyncio.to_thread(primary.stop, at_once=True)
            await standby.promote()
            proxy.upstream = ("127.0.0.1", standby.port)
            proxy.cut()
            proxy.flow()

            with pytest.raises(OutcomeUnknownError):
                await within(20, unit)
            await db.dispose()
        rows = await standby.run("SELECT balance FROM account WHERE id = 1")
        assert rows[0][0] == 1


@pytest.mark.parametrize("fate", [Fate.REPLY_HELD, Fate.HELD])
async def test_a_cancelled_commit_without_an_answer_is_resolved_in_the_background(short, proxy, admin, fate, caplog):
    proxy.commit(fate)
    effects = []

    async def work(session):
        after_commit(session, lambda: effects.append(1))
        await add(session)

    await within(10, once(short.transaction(work, resolve=True), proxy.caught.wait))
    await eventually(lambda: "asked later" in caplog.text)

    stored = fate is Fate.REPLY_HELD
    assert ("the work is stored" if stored else "it was rolled back") in caplog.text
    await eventually(lambda: effects == ([1] if stored else []))
    assert await balance(admin) == stored
    await short.dispose()


async def test_resolving_costs_one_round_trip_and_works_for_a_role_without_rights(postgres, database, admin):
    await admin("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    await admin("GRANT ALL ON account TO clerk")
    url = make_url(postgres.url_for(database)).set(username="clerk", password="x", host="127.0.0.1", port=postgres.port)
    db = Database(url)
    sent = []
    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))

    await db.transaction(add, resolve=True)

    assert len(sent) == 2
    assert "pg_current_xact_id" in sent[1]
    await db.dispose()
    await admin("DROP OWNED BY clerk")
    await admin("DROP ROLE clerk")
