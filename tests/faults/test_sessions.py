"""Sessions and transactions that are used wrongly, or leave something behind."""

import asyncio
import contextlib
import gc
import random
import warnings

import pytest
from sqlalchemy import event, exc, text

from tests.faults.service import ADD, Service, Work, name_of
from verdigris import Database
from verdigris.errors import CommitRefusedError, classify


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_any_exception_in_a_begin_block_rolls_back_base_exceptions_too(db, balance, whole, error):
    async def block():
        async with db.session.begin() as session:
            await session.execute(ADD)
            raise error

    with pytest.raises(error):
        await block()
    assert await balance() == 0
    assert await whole()


async def swallow(session):
    with contextlib.suppress(exc.DBAPIError):
        await session.execute(text("SELECT 1 / 0"))


async def test_a_swallowed_error_fails_the_unit_and_the_request_and_never_reports_success(db, service, balance, whole):
    with pytest.raises(CommitRefusedError):
        await db.transaction(work := Work(swallow))

    async def block():
        async with db.session.begin() as session:
            await session.execute(ADD)
            await swallow(session)

    with pytest.raises(CommitRefusedError):
        await block()
    answers = [await service.ask(way, Work(swallow)) for way in ("plain", "route", "retried")]

    assert work.attempts == 1
    assert [(answer.status_code, name_of(answer)) for answer in answers] == [(500, "nothing-stored")] * 3
    assert await balance() == 0
    assert await whole()


def failing_side_by_side(db, sqlstate):
    async def fail(session):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            group.create_task(broken())

    async def broken():
        async with db.session.begin() as session:
            await session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"))

    return fail


@pytest.mark.parametrize(
    ("sqlstate", "way", "status"),
    [("40001", "plain", 503), ("40001", "retried", 200), ("23505", "route", 409), ("23505", "retried", 409)],
)
async def test_a_group_of_errors_is_answered_and_repeated_as_the_worst_of_them(
    db, service, balance, whole, sqlstate, way, status
):
    answer = await service.ask(way, work := Work(failing_side_by_side(db, sqlstate)))

    assert answer.status_code == status
    assert work.attempts == (2 if status == 200 else 1)
    assert await balance() == (1 if status == 200 else 0)
    assert await whole()


async def test_a_group_with_an_error_of_the_applications_own_is_a_500_and_not_repeated(service, balance, whole):
    async def fail(session):
        async with asyncio.TaskGroup() as group:
            group.create_task(session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")))
            group.create_task(broken())

    async def broken():
        try:
            await asyncio.sleep(10)
        finally:
            raise KeyError

    answer = await service.ask("retried", work := Work(fail))

    assert answer.status_code == 500
    assert work.attempts == 1
    assert await balance() == 0
    assert await whole()


async def test_an_error_swallowed_in_a_savepoint_is_loud_at_its_release(db, balance, whole):
    async def block(session):
        async with session.begin_nested():
            await session.execute(ADD)
            await swallow(session)

    with pytest.raises(exc.DBAPIError) as loud:
        await db.transaction(block)

    assert classify(loud.value).sqlstate == "25P02"
    assert await balance() == 0
    assert await whole()


async def test_an_error_caught_around_a_savepoint_undoes_that_alone(db, balance, whole):
    async def careful(session):
        await session.execute(ADD)
        with contextlib.suppress(exc.DBAPIError):
            async with session.begin_nested():
                await session.execute(ADD)
                await session.execute(text("SELECT 1 / 0"))

    await db.transaction(careful)

    assert await balance() == 1
    assert await whole()


async def test_pipelined_begin_twice_is_refused_and_the_first_transaction_goes_on(db, balance, whole):
    async with db.session.begin() as session:
        await session.execute(ADD)
        with pytest.raises(exc.InvalidRequestError, match="already begun"):
            async with session.begin():
                pass
        await session.execute(ADD)

    assert await balance() == 2
    assert await whole()


async def test_a_commit_inside_a_begin_block_is_refused_for_what_follows(db, balance, whole):
    async def block():
        async with db.session.begin() as session:
            await session.execute(ADD)
            await session.commit()
            await session.execute(ADD)

    with pytest.raises(exc.InvalidRequestError):
        await block()
    assert await balance() == 1
    assert await whole()


async def test_isolation_level_and_read_only_do_not_reach_the_next_user_of_the_connection(postgres, database):
    db = Database(postgres.url_for(database), pool_size=1, max_overflow=0)
    ask = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")

    async def told(session):
        return tuple((await session.execute(ask)).one())

    assert await db.transaction(told, isolation_level="SERIALIZABLE") == ("serializable", "off")
    async with db.read(snapshot=True) as session:
        assert await told(session) == ("repeatable read", "on")
    assert await db.transaction(told) == ("read committed", "off")
    await db.dispose()


async def test_an_advisory_lock_of_the_transaction_and_set_local_end_with_it(postgres, database):
    db = Database(postgres.url_for(database), pool_size=1, max_overflow=0)

    async def leave(session):
        await session.execute(text("SET LOCAL search_path = nowhere"))
        await session.execute(text("SELECT pg_advisory_xact_lock(1)"))

    async def told(session):
        path = await session.scalar(text("SELECT current_setting('search_path')"))
        return path, await session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))

    await db.transaction(leave)
    assert (await db.transaction(told)) == ('"$user", public', 0)
    await db.dispose()


async def test_one_request_is_one_transaction_however_many_ask_for_the_session(db, balance):
    answers = await asyncio.gather(*(Service(db).ask("plain", Work()) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert await balance() == 20


async def test_a_session_dropped_unclosed_warns_with_the_line_that_made_it_and_its_slot_comes_back(db, whole):
    async def forget():
        session = db.session()
        await session.execute(ADD)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await forget()
        gc.collect()
        told = [str(each.message) for each in caught if each.category is ResourceWarning]
        caught.clear()  # a warning holds its session
        gc.collect()

    assert ["test_sessions.py" in each for each in told] == [True]
    assert await whole()


@pytest.mark.parametrize("take", ["sessions", "reads"])
async def test_a_pool_never_has_more_connections_open_than_it_may(postgres, database, take):
    db = Database(postgres.url_for(database), pool_size=3, max_overflow=2, pool_timeout=5)
    draw, drivers, most = random.Random(1), [], 0

    @event.listens_for(db.engine.sync_engine, "connect")
    def connected(connection, _):
        nonlocal most
        drivers.append(connection.driver_connection)
        most = max(most, sum(not each.is_closed() for each in drivers))

    async def use():
        opened = db.session() if take == "sessions" else db.read()
        async with asyncio.timeout(draw.choice([5, 5, 0.002])), opened as session:
            pid = await session.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.001)"))
            if draw.random() < 0.1:
                await postgres.run("SELECT pg_terminate_backend($1)", pid)

    async def user():
        for _ in range(15):
            with contextlib.suppress(exc.SQLAlchemyError, TimeoutError):
                await use()

    await asyncio.gather(*(user() for _ in range(20)))
    backends = len(await postgres.backends(database))
    status = db.pool_status()
    await db.dispose()

    assert most == 5
    assert backends <= 5
    assert (status.in_use, status.waiting) == (0, 0)
