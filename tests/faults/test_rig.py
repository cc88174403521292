"""The faults themselves: what the rig claims to do, it does."""

import asyncio
import os

import asyncpg
import pytest

from tests.faults.rig import Fate, NotHere, PgBouncer, Postgres, Standby, eventually, small_tablespace, within


async def connect(url):
    return await asyncpg.connect(str(url.set(drivername="postgresql").render_as_string(hide_password=False)), timeout=5)


@pytest.fixture
async def client(postgres, proxy, database):
    connection = await connect(proxy.url(postgres.url_for(database)))
    yield connection
    connection.terminate()


def balance(rows):
    return rows[0][0]


BALANCE = "SELECT balance FROM account WHERE id = 1"
ADD = "UPDATE account SET balance = balance + 1 WHERE id = 1"


@pytest.mark.parametrize(
    ("fate", "stored"), [(Fate.REPLY_LOST, 1), (Fate.REPLY_HELD, 1), (Fate.LOST, 0), (Fate.HELD, 0)]
)
async def test_a_commit_meets_its_fate_and_only_that_one(client, proxy, admin, fate, stored):
    await client.execute("BEGIN")
    await client.execute(ADD)
    proxy.commit(fate)

    with pytest.raises((asyncpg.ConnectionDoesNotExistError, OSError)):
        await client.execute("COMMIT", timeout=1)
    client.terminate()

    assert proxy.caught.is_set()
    await eventually(lambda: len(proxy) == 0)
    assert balance(await admin(BALANCE)) == stored
    assert (proxy.commits, len(proxy.fates)) == (1, 0)


async def test_a_black_hole_swallows_and_gives_back(client, proxy):
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await within(0.3, asyncio.shield(waiting := asyncio.ensure_future(client.fetchval("SELECT 1"))))

    proxy.flow()

    assert await within(5, waiting) == 1


async def test_a_cut_resets_and_a_refusal_refuses(client, proxy, postgres, database):
    proxy.cut()
    with pytest.raises((asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError, OSError)):
        await client.fetchval("SELECT 1")

    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy.url(postgres.url_for(database)))

    await proxy.accept()
    again = await connect(proxy.url(postgres.url_for(database)))
    assert await again.fetchval("SELECT 1") == 1
    again.terminate()


async def test_a_cancel_request_is_seen(client, proxy, postgres, database):
    with pytest.raises(TimeoutError):
        await client.fetchval("SELECT pg_sleep(30)", timeout=0.2)

    async def stopped():
        return not await postgres.backends(database, busy=True)

    assert await eventually(stopped)
    assert proxy.cancels == 1


async def test_a_frozen_server_keeps_its_sockets_and_goes_on_when_thawed(client, postgres):
    postgres.freeze()
    waiting = asyncio.ensure_future(client.fetchval("SELECT 1"))
    with pytest.raises(TimeoutError):
        await within(0.3, asyncio.shield(waiting))

    postgres.thaw()

    assert await within(5, waiting) == 1


async def test_a_killed_backend_takes_the_others_along_and_the_server_recovers(client, postgres, database):
    postgres.kill_backend(await client.fetchval("SELECT pg_backend_pid()"))

    await eventually(client.is_closed)
    assert await postgres.run("SELECT 1")
    with pytest.raises(ProcessLookupError):
        postgres.kill_backend(os.getpid())


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_restart_keeps_the_address_and_what_was_committed(client, postgres, admin, at_once):
    await client.execute(ADD)

    await asyncio.to_thread(postgres.restart, at_once=at_once)

    assert balance(await admin(BALANCE)) == 1
    await eventually(client.is_closed)


@pytest.mark.slow
async def test_a_standby_follows_and_takes_over():
    with Postgres() as primary, Standby(primary) as standby:
        await primary.run("CREATE TABLE here AS SELECT 1 AS one")
        await eventually(standby.caught_up)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await standby.run("DELETE FROM here")

        primary.stop(at_once=True)
        await standby.promote()

        await standby.run("DELETE FROM here")
        assert await standby.run("SELECT * FROM here") == []


@pytest.mark.slow
async def test_pgbouncer_leads_to_the_server(postgres, database):
    try:
        with PgBouncer(postgres) as bouncer:
            connection = await asyncpg.connect(
                bouncer.url_for(database, driver="postgresql"), statement_cache_size=0, timeout=5
            )
            assert await connection.fetchval(BALANCE) == 0
            connection.terminate()
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
async def test_a_small_tablespace_fills_up(postgres, database, admin):
    try:
        async with small_tablespace(postgres) as name:
            await admin(f"CREATE TABLE big (a text) TABLESPACE {name}")
            with pytest.raises(asyncpg.DiskFullError):
                await admin("INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
            await admin("DROP TABLE big")
    except NotHere as reason:
        pytest.skip(str(reason))
