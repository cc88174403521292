"""A server or a network that says nothing any more: every wait ends, and nothing is left behind."""

import asyncio
import contextlib
import time

import pytest
from sqlalchemy import text

from tests.faults.rig import eventually, within
from tests.faults.service import ADD, Service, Work, come_back, driver_of
from verdigris import Database
from verdigris.engine.driver import Connection
from verdigris.errors import DatabaseUnavailableError, OutcomeUnknownError, StatementTimeoutError

LIMIT = 0.4


@pytest.fixture
async def db(postgres, proxy, database):
    made = Database(
        proxy.url(postgres.url_for(database)),
        pool_size=3,
        max_overflow=2,
        connect_timeout=LIMIT,
        command_timeout=LIMIT,
        pool_timeout=1.0,
    )
    yield made
    postgres.thaw()
    proxy.flow()
    await made.dispose()


@pytest.fixture(
    params=[
        "black hole",
        pytest.param("frozen server", marks=pytest.mark.slow),
        pytest.param("frozen backend", marks=pytest.mark.slow),
    ]
)
def silence(request, proxy, postgres, database):
    """Make the server silent, and let it speak again."""

    class Silence:
        def __init__(self):
            self.partial = request.param == "frozen backend"  # others are still answered

        async def begin(self):
            match request.param:
                case "black hole":
                    proxy.black_hole()
                case "frozen server":
                    postgres.freeze()
                case "frozen backend":
                    postgres.freeze(*(each["pid"] for each in await postgres.backends(database)))

        def end(self):
            proxy.flow()
            postgres.thaw()

    return Silence()


async def strike_with(silence):
    async def strike(session):
        await silence.begin()
        await session.execute(text("SELECT 1"))

    return strike


async def test_a_silent_server_ends_a_query_with_its_own_error_and_is_not_repeated(db, silence, balance, whole):
    work = Work(await strike_with(silence))

    with pytest.raises(StatementTimeoutError):
        await within(8, db.transaction(work))
    silence.end()

    assert work.attempts == 1
    assert await whole()
    assert await balance() == 0
    await within(10, db.transaction(Work()))


@pytest.mark.parametrize("way", ["plain", "route", "retried"])
async def test_a_silent_server_answers_504_in_bounded_time(service, silence, balance, whole, way):
    work = Work(await strike_with(silence))

    answer = await within(8, service.ask(way, work))
    silence.end()

    assert (answer.status_code, work.attempts) == (504, 1)
    assert await whole()
    assert await balance() == 0


async def test_leaving_a_session_of_a_silent_server_ends_and_keeps_the_applications_error(db, silence, balance, whole):
    async def fail(session):
        await silence.begin()
        raise KeyError("the application's own")

    with pytest.raises(KeyError):
        await within(8, db.transaction(Work(fail)))
    silence.end()

    assert await whole()
    assert await balance() == 0


async def test_leaving_a_session_of_a_silent_server_can_be_bounded_from_outside(db, silence, whole):
    async def leave():
        async with db.session() as session:
            await session.execute(ADD)
            await silence.begin()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await within(8, leave())
    assert time.monotonic() - began < 8
    silence.end()
    assert await whole()


async def test_a_commit_into_silence_is_an_unknown_outcome_in_bounded_time(db, service, silence, whole):
    async def go_silent(session):
        await silence.begin()

    with pytest.raises(OutcomeUnknownError):
        await within(8, db.transaction(Work(go_silent)))
    silence.end()

    assert await whole()


async def test_a_silent_server_is_not_waited_for_when_connecting(db, service, silence, whole):
    await silence.begin()
    if silence.partial:
        pytest.skip("a frozen backend does not keep others from connecting")

    with pytest.raises(DatabaseUnavailableError):
        async with db.session() as session:
            await within(5, session.execute(text("SELECT 1")))
    assert come_back(await within(5, service.ask("plain", Work())))
    silence.end()

    await asyncio.sleep(1)
    assert await whole()
    assert (await within(10, service.ask("retried", Work()))).status_code == 200


@pytest.mark.slow
async def test_a_ping_into_silence_ends_and_the_pool_recovers(db, silence, whole, monkeypatch):
    await db.transaction(Work())
    monkeypatch.setattr(Connection, "released", property(lambda _: 1.0, lambda *_: None))  # idle for ever
    await silence.begin()

    with contextlib.nullcontext() if silence.partial else pytest.raises(DatabaseUnavailableError):
        await within(12, db.transaction(Work(), attempts=1))  # another backend answers, where one can
    silence.end()

    await asyncio.sleep(1)
    await within(10, db.transaction(Work()))
    assert await whole()


@pytest.mark.slow
async def test_disposing_of_a_pool_of_silent_connections_ends(db, silence, postgres, database):
    await asyncio.gather(*(db.transaction(Work(_nap)) for _ in range(3)))
    await silence.begin()

    await within(8, db.dispose())
    silence.end()

    async def none():
        return not await postgres.backends(database)

    assert await eventually(none)


async def _nap(session):
    await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_callers_of_a_silent_server_are_turned_away_at_once_and_let_in_when_it_speaks(db, silence, whole):
    await silence.begin()
    if silence.partial:
        pytest.skip("a frozen backend does not keep others from connecting")
    service = Service(db)
    for _ in range(3):
        await within(5, service.ask("plain", Work()))

    began = time.monotonic()
    answers = await within(5, asyncio.gather(*(service.ask("plain", Work()) for _ in range(20))))

    assert all(come_back(answer) for answer in answers)
    assert time.monotonic() - began < 5
    silence.end()

    async def served():
        return (await service.ask("plain", Work())).status_code == 200

    assert await eventually(served)
    assert await whole()


async def test_a_connection_whose_end_is_not_answered_is_dropped_without_an_error(proxy, postgres, database, caplog):
    db = Database(proxy.url(postgres.url_for(database)), close_timeout=0.2)
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
        driver = await driver_of(session)
    proxy.black_hole()

    await within(10, db.engine.dispose())

    assert driver.is_closed()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    proxy.flow()
