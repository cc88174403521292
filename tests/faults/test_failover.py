"""A primary that moves: a real standby takes over while the service runs."""

import asyncio
import socket

import pytest
from sqlalchemy import exc, text

from tests.faults.rig import Postgres, Standby, eventually, within
from tests.faults.service import Service, Work, come_back, name_of
from verdigris import Database
from verdigris.errors import classify

pytestmark = pytest.mark.slow


@pytest.fixture
async def pair():
    """A primary with an account in it, and its standby."""
    with Postgres() as primary:
        await primary.run("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
        await primary.run("INSERT INTO account VALUES (1, 0)")
        with Standby(primary) as standby:
            await eventually(standby.caught_up)
            yield primary, standby


def both(primary, standby, **options):
    """Return a Database that knows both addresses and wants the one that takes writes."""
    server = primary.server
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    return Database(
        f"postgresql://{server.user}:{server.password}@{hosts}/postgres?target_session_attrs=read-write",
        pool_size=3,
        max_overflow=0,
        **options,
    )


async def balance(server):
    return (await server.run("SELECT balance FROM account WHERE id = 1"))[0][0]


async def test_the_primary_is_found_among_several_hosts_and_again_after_a_failover(pair):
    primary, standby = pair
    db = both(primary, standby)
    service = Service(db)
    await db.transaction(Work())
    await eventually(standby.caught_up)

    await asyncio.to_thread(primary.stop, at_once=True)
    without = await within(10, service.ask("plain", Work()))
    unit = asyncio.create_task(db.transaction(work := Work()))
    request = asyncio.create_task(service.ask("retried", Work()))
    await standby.promote()

    await within(15, unit)
    assert (await within(15, request)).status_code == 200
    assert come_back(without)
    assert work.attempts == 1
    assert await balance(standby) == 3
    assert db.pool_status().in_use == 0
    await db.dispose()


async def test_connections_to_a_primary_that_became_read_only_are_dropped_and_the_unit_repeated_on_the_new_one(pair):
    primary, standby = pair
    db = both(primary, standby)
    service = Service(db)
    await asyncio.gather(*(db.transaction(Work()) for _ in range(3)))
    await eventually(standby.caught_up)
    await standby.promote()
    await primary.run("ALTER SYSTEM SET default_transaction_read_only = on")  # fenced, its connections still open
    await primary.run("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)

    await within(10, db.transaction(work := Work()))
    answer = await within(10, service.ask("plain", Work()))

    assert work.attempts == 2
    assert answer.status_code == 200
    assert (await balance(primary), await balance(standby)) == (3, 5)
    await db.dispose()


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_write_that_reaches_a_standby_answers_503_and_no_connection_to_it_is_kept(pair, way):
    _, standby = pair
    db = Database(standby.url_for("postgres"), pool_size=3, max_overflow=0)

    async def write(session):
        await session.execute(text("UPDATE account SET balance = 1"))

    with pytest.raises(exc.DBAPIError) as refused:
        await db.transaction(write, attempts=1)
    answer = await Service(db).ask(way, write)

    assert classify(refused.value).sqlstate == "25006"
    assert come_back(answer)
    assert name_of(answer) == "read-only"
    assert await eventually(lambda: _without_clients(standby))
    await db.dispose()


async def _without_clients(server):
    return len(await server.backends("postgres")) == 1  # the one that asks


async def test_a_name_that_leads_elsewhere_is_followed_by_new_connections(pair, monkeypatch):
    primary, standby = pair
    leads_to = primary
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def getaddrinfo(host, port, **options):
        if host == "db.example":  # the resolver's answer is the one thing here that is not real
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", leads_to.port))]
        return await resolve(host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    server = primary.server
    url = f"postgresql://{server.user}:{server.password}@db.example/postgres?sslmode=disable"
    db = Database(url, pool_size=2, max_overflow=0)
    await db.transaction(Work())
    await eventually(standby.caught_up)

    leads_to = standby
    await standby.promote()
    await asyncio.to_thread(primary.stop, at_once=True)
    await within(10, db.transaction(Work()))

    assert await balance(standby) == 2
    await db.dispose()
