"""Connections that die: while idle, at work, before COMMIT, and between COMMIT and its answer."""

import asyncio
import logging

import pytest
from sqlalchemy import text

from tests.faults.rig import Fate, within
from tests.faults.service import ADD, PID, Work, come_back, driver_of, name_of, noticed
from verdigris.errors import DatabaseUnavailableError, OutcomeUnknownError, classify


@pytest.fixture(
    params=[
        "mid-query",
        "between statements",
        "before COMMIT",
        "cut",
        pytest.param("kill -9", marks=pytest.mark.slow),
        pytest.param("restart", marks=pytest.mark.slow),
    ]
)
def strike(request, postgres, proxy, admin):
    """What happens to the connection, before COMMIT is sent."""

    async def strike(session):
        driver = await driver_of(session)
        pid = await session.scalar(PID)
        match request.param:
            case "mid-query":
                await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            case "before COMMIT":
                await admin("SELECT pg_terminate_backend($1)", pid)
                await noticed(driver)
                return
            case "between statements":
                await admin("SELECT pg_terminate_backend($1)", pid)
            case "cut":
                proxy.cut()
            case "kill -9":
                postgres.kill_backend(pid)
            case "restart":
                await asyncio.to_thread(postgres.restart, at_once=True)
        await noticed(driver)
        await session.execute(text("SELECT 1"))

    return strike


async def test_a_connection_that_died_in_the_pool_is_not_noticed_by_anybody(db, service, admin, balance, whole):
    await db.transaction(work := Work())
    await admin("SELECT pg_terminate_backend($1)", work.pids[0])
    await asyncio.sleep(0.1)

    async with db.session.begin() as session:
        await session.execute(ADD)
    await admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
    )
    await asyncio.sleep(0.1)
    answer = await service.ask("plain", Work())

    assert answer.status_code == 200
    assert await balance() == 3
    assert await whole()


async def test_a_connection_lost_before_commit_was_sent_repeats_the_unit_and_stores_it_once(db, strike, balance, whole):
    work = Work(strike)

    await within(15, db.transaction(work))

    assert work.attempts == 2
    assert await balance() == 1
    assert await whole()


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_connection_lost_before_commit_was_sent_answers_503_and_stores_nothing(
    service, way, strike, balance, whole
):
    answer = await within(15, service.ask(way, Work(strike)))

    assert come_back(answer)
    assert await balance() == 0
    assert await whole()
    assert (await within(15, service.ask("retried", Work()))).status_code == 200


async def test_a_connection_lost_before_commit_was_sent_on_a_retried_route_answers_200_and_stores_once(
    service, strike, balance, whole
):
    answer = await within(15, service.ask("retried", Work(strike)))

    assert answer.status_code == 200
    assert await balance() == 1
    assert await whole()


@pytest.mark.parametrize(("fate", "stored"), [(Fate.REPLY_LOST, 1), (Fate.LOST, 0)])
async def test_a_lost_answer_to_commit_is_an_unknown_outcome_and_never_repeated(
    db, proxy, balance, whole, fate, stored
):
    proxy.commit(fate)

    with pytest.raises(OutcomeUnknownError):
        await within(10, db.transaction(work := Work()))

    assert work.attempts == 1
    assert await balance() == stored
    assert await whole()


@pytest.mark.parametrize("way", ["plain", "route", "retried"])
@pytest.mark.parametrize(("fate", "stored"), [(Fate.REPLY_LOST, 1), (Fate.LOST, 0)])
async def test_a_lost_answer_to_commit_answers_503_that_says_so_and_does_not_invite_to_repeat(
    service, proxy, balance, whole, way, fate, stored
):
    proxy.commit(fate)

    answer = await within(10, service.ask(way, Work()))

    assert (answer.status_code, name_of(answer)) == (503, "outcome-unknown")
    assert "retry-after" not in answer.headers
    assert await balance() == stored
    assert await whole()


async def test_a_lost_answer_to_the_commit_of_a_get_answers_503_that_may_be_sent_again(service, proxy, whole, caplog):
    proxy.commit(Fate.REPLY_LOST)

    answer = await within(10, service.ask("plain", Work(), "GET"))

    assert come_back(answer)
    assert name_of(answer) == "connection-lost"
    assert "GET /plain answered 503: connection-lost" in caplog.messages
    assert await whole()


async def test_a_lost_answer_to_commit_repeats_work_that_is_declared_idempotent(db, service, proxy, balance):
    async def settle(session):
        await session.execute(text("UPDATE account SET balance = 7 WHERE id = 1"))

    proxy.commit(Fate.REPLY_LOST)
    await within(10, db.transaction(settle, idempotent=True))
    proxy.commit(Fate.LOST)
    answer = await within(10, service.ask("idempotent", settle))

    assert answer.status_code == 200
    assert proxy.commits == 4
    assert await balance() == 7


async def test_what_may_be_stored_stays_unknown_when_the_repetition_fails_too(db, service, proxy, balance, whole):
    async def settle(session):
        if proxy.caught.is_set():
            await session.execute(text("SELECT 1 / 0"))
        await session.execute(ADD)

    proxy.commit(Fate.REPLY_LOST)
    with pytest.raises(OutcomeUnknownError) as unknown:
        await within(10, db.transaction(settle, idempotent=True))
    proxy.commit(Fate.REPLY_LOST)
    answer = await within(10, service.ask("idempotent", settle))

    assert classify(unknown.value.__cause__).sqlstate == "22012"
    assert (answer.status_code, name_of(answer)) == (503, "outcome-unknown")
    assert await balance() == 2
    assert await whole()


async def test_callers_that_fail_together_keep_a_server_that_is_back_waiting_no_longer_than_one(
    db, postgres, balance, whole
):
    await asyncio.to_thread(postgres.stop)
    await asyncio.gather(*(db.transaction(Work(), attempts=1) for _ in range(20)), return_exceptions=True)
    await asyncio.to_thread(postgres.start)

    await asyncio.sleep(0.2)  # the first pause is 0.1 s; twenty failures in a row would have made it 2 s
    await db.transaction(Work(), attempts=1)

    assert await balance() == 1
    assert await whole()


async def test_a_stopped_server_answers_503_at_once_and_200_when_it_is_back(db, service, postgres, balance, whole):
    assert (await service.ask("plain", Work())).status_code == 200
    await asyncio.to_thread(postgres.stop)

    assert come_back(await within(5, service.ask("plain", Work())))
    assert come_back(await within(5, service.ask("route", Work())))
    async with db.session() as session:
        with pytest.raises(DatabaseUnavailableError) as refused:
            await within(5, session.execute(ADD))
    assert classify(refused.value).status == 503

    await asyncio.to_thread(postgres.start)
    assert (await within(15, service.ask("retried", Work()))).status_code == 200
    assert await balance() == 2
    assert await whole()


async def test_a_server_that_comes_back_within_the_deadline_is_waited_for(db, service, postgres, balance, whole):
    await asyncio.to_thread(postgres.stop)
    unit = asyncio.create_task(db.transaction(Work()))
    request = asyncio.create_task(service.ask("retried", Work()))
    await asyncio.sleep(0.3)

    await asyncio.to_thread(postgres.start)

    await within(15, unit)
    assert (await within(15, request)).status_code == 200
    assert await balance() == 2
    assert await whole()


async def test_the_applications_own_error_is_not_hidden_by_the_lost_connection(db, service, admin, caplog):
    async def fail(session):
        driver = await driver_of(session)
        await admin("SELECT pg_terminate_backend($1)", await session.scalar(PID))
        await noticed(driver)
        raise KeyError("the application's own")

    with pytest.raises(KeyError):
        await db.transaction(fail)
    with caplog.at_level(logging.CRITICAL):
        assert (await service.ask("route", fail)).status_code == 500
