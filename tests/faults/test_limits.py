"""Limits of the server: on connections, and on transactions and sessions that idle or last."""

import asyncio
import contextlib
import logging

import asyncpg
import pytest
from sqlalchemy import exc, text

from tests.faults.rig import Postgres, eventually, within
from tests.faults.service import ADD, Service, Work, come_back, name_of
from verdigris import Database
from verdigris.errors import classify


@pytest.fixture
async def limited(postgres, database, proxy, admin):
    """A Database whose role may have one connection."""
    await admin(f"CREATE ROLE one_{database} LOGIN PASSWORD 'one' CONNECTION LIMIT 1")
    await admin(f"GRANT ALL ON account TO one_{database}")
    url = proxy.url(postgres.url_for(database)).set(username=f"one_{database}", password="one")
    db = Database(url, pool_size=3, max_overflow=0)
    yield db
    await db.dispose()
    await admin(f"DROP OWNED BY one_{database}")
    await admin(f"DROP ROLE one_{database}")


async def test_a_server_without_a_connection_to_spare_is_waited_for(limited, balance):
    service = Service(limited)
    async with limited.session.begin() as holder:
        await holder.execute(text("SELECT 1"))
        unit = asyncio.create_task(limited.transaction(Work()))
        request = asyncio.create_task(service.ask("retried", Work()))
        await asyncio.sleep(0.3)
        assert not unit.done()

    await within(10, unit)
    assert (await within(10, request)).status_code == 200
    assert await balance() == 2


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_server_without_a_connection_to_spare_answers_503(limited, balance, way):
    async with limited.session.begin() as holder:
        await holder.execute(text("SELECT 1"))
        answer = await within(5, Service(limited).ask(way, Work()))

    assert come_back(answer)
    assert name_of(answer) == "too-many-connections"
    assert await balance() == 0
    assert limited.pool_status().in_use == 0


@pytest.mark.slow
async def test_all_connections_of_a_server_taken_is_waited_for_too(tmp_path):
    with Postgres({"max_connections": 8, "superuser_reserved_connections": 0, "max_wal_senders": 0}) as small:
        db = Database(small.url_for("postgres"), pool_size=2, max_overflow=0)
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    taken = await asyncpg.connect(small.url_for("postgres").replace("+asyncpg", ""))
                    stack.push_async_callback(taken.close)
            with pytest.raises(exc.DBAPIError) as full:
                async with db.session() as session:
                    await session.execute(text("SELECT 1"))
            assert classify(full.value).sqlstate == "53300"
            unit = asyncio.create_task(db.transaction(lambda session: session.scalar(text("SELECT 1"))))
            await asyncio.sleep(0.2)
        assert await within(10, unit) == 1
        await db.dispose()


def database_with(postgres, proxy, database, **settings):
    return Database(proxy.url(postgres.url_for(database)), connect_args={"server_settings": settings})


async def test_a_transaction_that_idles_too_long_is_an_error_that_is_logged_and_stores_nothing(
    postgres, proxy, database, balance, caplog
):
    db = database_with(postgres, proxy, database, idle_in_transaction_session_timeout="100ms")

    async def idle(session):
        await asyncio.sleep(0.4)
        await session.execute(ADD)

    with pytest.raises(exc.DBAPIError) as ended:
        await db.transaction(work := Work(idle), attempts=1)
    with caplog.at_level(logging.WARNING, "verdigris"):
        answers = [await Service(db).ask(way, Work(idle)) for way in ("plain", "route")]

    assert work.attempts == 1
    assert classify(ended.value).status >= 500
    assert all(answer.status_code >= 500 for answer in answers)
    assert "POST /plain" in caplog.text
    assert await balance() == 0
    await db.dispose()


async def test_a_transaction_that_lasts_too_long_is_ended_and_stores_nothing(postgres, proxy, database, balance):
    if int(postgres.server.version.split(".")[0]) < 17:
        pytest.skip("PostgreSQL has it since 17")
    db = database_with(postgres, proxy, database, transaction_timeout="200ms")

    async def last(session):
        await session.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(exc.DBAPIError):
        await within(10, db.transaction(Work(last), attempts=1))
    answer = await within(10, Service(db).ask("plain", Work(last)))

    assert answer.status_code in {503, 504}
    assert await balance() == 0
    await db.dispose()


async def test_a_session_that_the_server_ended_while_idle_is_not_noticed_by_anybody(postgres, proxy, database, balance):
    db = database_with(postgres, proxy, database, idle_session_timeout="100ms")
    await db.transaction(Work())

    async def ended():
        gone = not await postgres.backends(database)
        await asyncio.sleep(0.05)  # the end of the connection is on its way to us
        return gone

    await eventually(ended)
    async with db.session.begin() as session:
        await session.execute(ADD)
    await eventually(ended)
    answer = await Service(db).ask("plain", Work())

    assert answer.status_code == 200
    assert await balance() == 3
    await db.dispose()
