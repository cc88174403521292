"""PgBouncer between service and server: what works, and how what cannot work ends."""

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import text

from tests.faults.rig import NotHere, PgBouncer, within
from tests.faults.service import Service, Work, come_back
from verdigris import Database
from verdigris.errors import ConfigurationError

pytestmark = pytest.mark.slow


@pytest.fixture
def pooler(postgres, database):
    """Start a PgBouncer with these settings, and return a Database that goes through it."""
    with contextlib.ExitStack() as stack:

        def start(mode="transaction", *, settings=None, **options):
            try:
                bouncer = stack.enter_context(PgBouncer(postgres, mode=mode, **(settings or {})))
            except NotHere as reason:
                pytest.skip(str(reason))
            return Database(bouncer.url_for(database), **{"statement_timeout": None, **options})

        yield start


def many(db, number=100):
    return asyncio.gather(*(db.transaction(Work()) for _ in range(number)))


async def test_transaction_mode_works_with_the_statement_cache_off_and_leaves_no_statement_behind(
    pooler, admin, balance
):
    db = pooler(pool_size=10, max_overflow=0, connect_args={"statement_cache_size": 0}, settings={"size": 3})

    await within(30, many(db))
    answers = await within(30, asyncio.gather(*(Service(db).ask("plain", Work()) for _ in range(50))))

    assert {answer.status_code for answer in answers} == {200}
    assert await balance() == 150
    async with db.session() as session:
        assert await session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0
    await db.dispose()


async def test_transaction_mode_works_out_of_the_box(pooler, balance):
    db = pooler(pool_size=10, max_overflow=0, settings={"size": 3})

    await within(30, many(db))

    assert await balance() == 100
    await db.dispose()


async def test_a_setting_that_the_pooler_refuses_is_named_with_the_line_for_its_configuration(pooler):
    db = pooler("session", statement_timeout=30.0, pgbouncer=False)

    with pytest.raises(ConfigurationError, match="ignore_startup_parameters = statement_timeout"):
        await db.transaction(Work())
    await db.dispose()


async def test_a_pooler_that_takes_no_more_clients_is_waited_for_and_answers_503(pooler, postgres, database, balance):
    db = pooler(
        pool_size=5,
        max_overflow=0,
        connect_args={"statement_cache_size": 0},
        settings={"size": 1, "max_client_conn": 1},
    )
    async with db.session.begin() as holder:
        await holder.execute(text("SELECT 1"))
        answer = await within(5, Service(db).ask("plain", Work()))
        unit = asyncio.create_task(db.transaction(Work()))
        await asyncio.sleep(0.2)
        await holder.rollback()
        await holder.close()
        await db.engine.dispose()

    assert come_back(answer)
    await within(10, unit)
    assert await balance() == 1
    await db.dispose()


async def test_session_mode_with_a_pool_larger_than_the_poolers_ends_in_its_query_wait_timeout(pooler, balance):
    db = pooler("session", pool_size=5, max_overflow=0, pool_timeout=5, settings={"size": 1, "query_wait_timeout": 1})
    async with db.session.begin() as holder:
        await holder.execute(text("SELECT 1"))
        answer = await within(10, Service(db).ask("plain", Work()))

    assert come_back(answer)
    assert db.pool_status().in_use == 0
    assert await balance() == 0
    await db.dispose()


async def test_set_local_does_not_reach_the_next_client_of_the_servers_connection(pooler):
    db = pooler(pool_size=2, max_overflow=0, connect_args={"statement_cache_size": 0}, settings={"size": 1})

    async def tell(session):
        await session.execute(text("SET LOCAL app.tenant = '7'"))
        return await session.scalar(text("SELECT current_setting('app.tenant', true)"))

    assert await db.transaction(tell) == "7"
    async with db.session() as session:
        assert await session.scalar(text("SELECT current_setting('app.tenant', true)")) != "7"
    await db.dispose()


async def test_the_poolers_own_restart_is_a_lost_connection_and_the_unit_is_repeated(
    postgres, database, proxy, balance
):
    try:
        with PgBouncer(postgres) as bouncer:
            url = bouncer.url_for(database)
            db = Database(url, statement_timeout=None, connect_args={"statement_cache_size": 0})

            async def restart(session):
                await asyncio.to_thread(bouncer.restart)
                await session.execute(text("SELECT 1"))

            await within(15, db.transaction(work := Work(restart)))
            await db.dispose()
    except NotHere as reason:
        pytest.skip(str(reason))

    assert work.attempts == 2
    assert await balance() == 1


async def test_a_driver_that_prepares_statements_fails_through_transaction_mode_without_our_settings(
    postgres, database
):
    """The fault itself, so that the tests above prove something."""
    try:
        with PgBouncer(postgres, size=2) as bouncer:
            url = bouncer.url_for(database, driver="postgresql")
            clients = [await asyncpg.connect(url) for _ in range(6)]

            async def use(client):
                for _ in range(20):
                    async with client.transaction():
                        await client.fetchval("SELECT balance FROM account WHERE id = $1", 1)

            outcomes = await asyncio.gather(*(use(client) for client in clients), return_exceptions=True)
            for client in clients:
                client.terminate()
    except NotHere as reason:
        pytest.skip(str(reason))

    assert any(isinstance(outcome, asyncpg.PostgresError) for outcome in outcomes)
