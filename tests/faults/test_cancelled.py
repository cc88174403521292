"""Work that is cancelled, or runs out of time: at every stage, once and repeatedly."""

import asyncio
import contextlib
import logging

import anyio
import pytest
from sqlalchemy import exc, text
from starlette.responses import Response

from tests.faults.cancelling import once, storm, timeout
from tests.faults.rig import Fate, eventually, within
from tests.faults.service import ADD, Work, name_of
from verdigris import Database
from verdigris.errors import PoolExhaustedError, StatementTimeoutError, classify

SLEEP = text("SELECT pg_sleep(30)")


@pytest.fixture
def asleep(postgres, database):
    """Wait until SLEEP runs on the server."""

    async def seen():
        return any("pg_sleep" in each["query"] for each in await postgres.backends(database, busy=True))

    return lambda: eventually(seen)


async def a_moment():
    await asyncio.sleep(0.15)


@pytest.mark.parametrize("cancel", [once, timeout, storm])
async def test_a_unit_cancelled_mid_query_leaves_no_backend_and_no_slot_behind_and_is_not_repeated(
    db, balance, whole, cancel, asleep
):
    async def sleep(session):
        await session.execute(SLEEP)

    await cancel(db.transaction(work := Work(sleep)), asleep)

    assert work.attempts == 1
    assert await whole()
    assert await balance() == 0
    await db.transaction(Work())
    assert await balance() == 1


@pytest.mark.parametrize("cancel", [once, timeout, storm])
async def test_a_session_cancelled_mid_query_is_usable_after_its_rollback(db, balance, whole, cancel, asleep):
    async with db.session() as session:
        await session.execute(ADD)
        await cancel(session.execute(SLEEP), asleep)

        with pytest.raises(exc.PendingRollbackError):
            await session.execute(ADD)
        await session.rollback()
        await session.execute(ADD)
        await session.commit()

    assert await balance() == 1
    assert await whole()


@pytest.mark.parametrize("cancel", [once, storm])
@pytest.mark.parametrize("way", ["plain", "route", "retried"])
async def test_a_request_cancelled_mid_query_is_rolled_back_and_not_repeated(
    service, balance, whole, way, cancel, asleep
):
    async def sleep(session):
        await session.execute(SLEEP)

    await cancel(service.ask(way, work := Work(sleep)), asleep)

    assert work.attempts == 1
    assert await balance() == 0
    assert await whole()


@pytest.mark.parametrize("cancel", [once, storm])
@pytest.mark.parametrize(("fate", "stored"), [(Fate.REPLY_HELD, 1), (Fate.HELD, 0)])
@pytest.mark.parametrize("idempotent", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_commit_that_is_cancelled_is_logged_as_unknown_and_never_repeated(
    db, proxy, balance, whole, caplog, fate, stored, cancel, idempotent
):
    proxy.commit(fate)

    with caplog.at_level(logging.WARNING, "verdigris"):
        await within(20, cancel(db.transaction(work := Work(), idempotent=idempotent), proxy.caught.wait))

    assert proxy.caught.is_set()
    assert work.attempts == 1
    assert "cancelled while COMMIT was under way: its outcome is unknown" in caplog.text
    assert await whole()
    assert await balance() == stored


@pytest.mark.parametrize("cancel", [once, storm])
async def test_a_cancelled_wait_for_a_connection_costs_no_slot(db, whole, cancel):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            session = await stack.enter_async_context(db.session())
            await asyncio.create_task(session.execute(text("SELECT 1")))  # held by others: not a wait for itself
        await cancel(db.transaction(Work()), lambda: eventually(lambda: db.pool_status().waiting))

    assert await whole()
    await asyncio.gather(*(db.transaction(Work()) for _ in range(5)))


@pytest.mark.parametrize("cancel", [once, storm])
async def test_a_cancelled_connect_costs_no_slot(db, proxy, whole, cancel):
    proxy.black_hole()
    await within(5, cancel(db.transaction(Work()), a_moment))
    proxy.flow()

    assert await whole()
    await asyncio.gather(*(db.transaction(Work()) for _ in range(5)))
    await eventually(lambda: len(proxy) <= 5)


async def test_a_query_over_the_command_timeout_answers_504_and_is_not_repeated(
    proxy, postgres, database, balance, service
):
    async def sleep(session):
        await session.execute(SLEEP)

    db = Database(proxy.url(postgres.url_for(database)), command_timeout=0.3)
    with pytest.raises(StatementTimeoutError) as slow:
        await within(10, db.transaction(work := Work(sleep)))
    answers = [await within(10, type(service)(db).ask(way, Work(sleep))) for way in ("plain", "route", "retried")]

    assert work.attempts == 1
    assert classify(slow.value).status == 504
    assert [answer.status_code for answer in answers] == [504, 504, 504]
    assert await balance() == 0
    assert db.pool_status().in_use == 0
    await db.dispose()


async def test_a_query_over_the_statement_timeout_answers_504_and_keeps_its_connection(
    proxy, postgres, database, balance, service
):
    async def sleep(session):
        await session.execute(SLEEP)

    db = Database(proxy.url(postgres.url_for(database)), statement_timeout=0.3)
    with pytest.raises(exc.DBAPIError) as slow:
        await within(10, db.transaction(work := Work(sleep)))
    answers = [await within(10, type(service)(db).ask(way, Work(sleep))) for way in ("plain", "route", "retried")]
    await db.transaction(after := Work())

    assert (classify(slow.value).sqlstate, work.attempts) == ("57014", 1)
    assert [answer.status_code for answer in answers] == [504, 504, 504]
    assert work.pids == after.pids
    assert await balance() == 1
    await db.dispose()


async def in_time(session):
    async with asyncio.timeout(0.15):
        await session.execute(SLEEP)


async def waited_for(session):
    await asyncio.wait_for(session.execute(SLEEP), 0.15)


async def failed_after(session):
    with anyio.fail_after(0.15):
        await session.execute(SLEEP)


async def side_by_side(session):
    async with asyncio.timeout(0.15), asyncio.TaskGroup() as group:
        group.create_task(session.execute(SLEEP))


@pytest.mark.parametrize("bounded", [in_time, waited_for, failed_after, side_by_side])
@pytest.mark.parametrize("way", ["plain", "route", "retried"])
async def test_a_handlers_own_timeout_around_a_statement_answers_504(service, balance, whole, way, bounded):
    answer = await service.ask(way, work := Work(bounded))

    assert (answer.status_code, name_of(answer)) == (504, "too-slow")
    assert work.attempts == 1
    assert await balance() == 0
    assert await whole()


async def test_a_timeout_of_the_applications_own_stays_its_own(service, balance, whole):
    async def elsewhere(session):
        async with asyncio.timeout(0.05):
            await asyncio.sleep(10)

    assert (await service.ask("route", Work(elsewhere))).status_code == 500
    service.app.add_exception_handler(OSError, lambda *_: Response(status_code=418))
    assert (await service.ask("route", Work(elsewhere))).status_code == 418
    assert await balance() == 0
    assert await whole()


async def test_a_full_pool_answers_503_in_pool_timeout_and_is_not_repeated(proxy, postgres, database, service):
    db = Database(proxy.url(postgres.url_for(database)), pool_size=1, max_overflow=0, pool_timeout=0.3)
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(PoolExhaustedError):
            await within(2, asyncio.create_task(db.transaction(work := Work())))
        for way in ("plain", "route", "retried"):
            answer = await within(2, asyncio.create_task(type(service)(db).ask(way, work)))
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)

    assert work.attempts == 0
    await db.dispose()
