import asyncio
import contextlib
import gc
import inspect
import itertools
import logging
import math
import os
import re
import sys
from dataclasses import fields

import asyncpg
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from verdigris.database import Database, sizing
from verdigris.database.build import lacking
from verdigris.database.settings import Settings
from verdigris.database.url import SSL_MODES, address
from verdigris.engine.dialect import place_of
from verdigris.engine.driver import Connection, ours
from verdigris.engine.limits import server_limits
from verdigris.errors import (
    CommitRefusedError,
    ConfigurationError,
    DatabaseUnavailableError,
    PoolExhaustedError,
    StatementTimeoutError,
    classify,
    sqlstate_of,
)

ANYWHERE = "postgresql://app@127.0.0.1:1/shop"


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    yield database
    await database.dispose()


async def backend(db):
    async with db.read() as session:
        return await session.scalar(text("SELECT pg_backend_pid()"))


# -- the address ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_becomes_asyncpg(scheme):
    db = Database(f"{scheme}://app:secret@db.example/shop")

    assert db.engine.url == make_url("postgresql+asyncpg://app:secret@db.example/shop")
    assert isinstance(db.engine, AsyncEngine)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql+psycopg2", "mysql", "sqlite+aiosqlite"])
def test_another_driver_or_database_is_refused_by_name(scheme):
    with pytest.raises(ConfigurationError, match=re.escape(scheme)):
        Database(f"{scheme}://app@db.example/shop")


def test_the_url_comes_from_the_environment_ours_first():
    both = {"VERDIGRIS_DATABASE_URL": "postgres://a/one", "DATABASE_URL": "postgres://a/two"}

    assert address(None, both).url.database == "one"
    assert address(None, {"DATABASE_URL": "postgres://a/two"}).url.database == "two"
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        address(None, {})


TRANSLATED = [
    ("sslmode=require", {"ssl": "require"}, {}),
    ("ssl=true", {"ssl": "require"}, {}),
    ("sslmode=verify-full&sslrootcert=/ca.pem", {"dsn": "postgresql://?sslmode=verify-full&sslrootcert=%2Fca.pem"}, {}),
    ("application_name=shop", {}, {"application_name": "shop"}),
    ("connect_timeout=3", {"timeout": 3.0}, {}),
    ("connect_timeout=0", {"timeout": 60.0}, {}),
    ("command_timeout=9", {"command_timeout": 9.0}, {}),
    ("statement_cache_size=0", {"statement_cache_size": 0}, {}),
    ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}, {}),
    ("options=-c%20search_path%3Da,b%20-c%20work_mem=8MB", {}, {"search_path": "a,b", "work_mem": "8MB"}),
    ("options=--lock-timeout%3D2s", {}, {"lock_timeout": "2s"}),
    ("channel_binding=prefer&gssencmode=disable&client_encoding=utf8", {}, {}),
]


@pytest.mark.parametrize(("query", "connect", "settings"), TRANSLATED)
def test_options_of_libpq_are_translated(query, connect, settings):
    found = address(f"postgresql://app@db.example/shop?{query}")

    assert found.connect == connect
    assert found.settings == settings
    assert found.url.query == {}


@pytest.mark.parametrize("query", ["channel_binding=require", "keepalives=1", "schema=public"])
def test_an_unknown_option_is_refused_by_name_at_construction(query):
    with pytest.raises(ConfigurationError, match=query.split("=")[0]):
        Database(f"{ANYWHERE}?{query}")


def test_a_misspelt_option_names_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean sslmode= where ssl_mode= stands"):
        Database(f"{ANYWHERE}?ssl_mode=require")


@pytest.mark.parametrize(
    ("query", "way_out"),
    [
        ("sslmode=yes", "disable, allow, prefer"),
        ("connect_timeout=soon", "Write a number:   ?connect_timeout=5"),
        ("statement_cache_size=some", "Write a whole number:   ?statement_cache_size=100"),
        ("pgbouncer=maybe", "Write ?pgbouncer=true, or ?pgbouncer=false."),
        ("options=-e", "options=-c%20name%3Dvalue"),
    ],
)
def test_an_option_with_a_value_that_cannot_be_is_refused_with_one_that_can(query, way_out):
    with pytest.raises(ConfigurationError, match=re.escape(way_out)):
        Database(f"{ANYWHERE}?{query}")


# -- the options ---------------------------------------------------------------------------------------------------


def test_what_both_constructors_take_is_what_the_settings_are_by_default():
    made, adopted = inspect.signature(Database.__init__).parameters, inspect.signature(Database.from_engine).parameters
    defaults = {field.name: field.default for field in fields(Settings)}
    both = [each for each in (*made.values(), *adopted.values()) if each.kind is each.KEYWORD_ONLY]

    assert {each.name: each.default for each in both if each.name != "replicas"} == {
        name: default for name, default in defaults.items() if name != "options"
    }
    assert made["connect_timeout"].default == 5.0
    assert adopted["connect_timeout"].annotation == "float | None"


@pytest.mark.parametrize(
    ("written", "meant"), [("statment_timeout", "statement_timeout"), ("ecko", "echo"), ("replica", "replicas")]
)
def test_an_option_that_nobody_knows_names_the_nearest(written, meant):
    with pytest.raises(ConfigurationError, match=f"Did you mean {meant}= where {written}= stands") as refused:
        Database(ANYWHERE, query_cache_size=100, native_inet_types=False, **{written: 5})

    assert refused.value.what == f"Database() has no option {written}."


def test_options_of_create_engine_pass():
    db = Database(ANYWHERE, query_cache_size=0, hide_parameters=False, native_inet_types=False)

    assert db.engine.sync_engine._compiled_cache is None
    assert db.engine.dialect._native_inet_types is False


@pytest.mark.parametrize(
    ("option", "way_out"),
    [
        ({"workers": 0}, "WEB_CONCURRENCY"),
        ({"retry": 5}, "Database(retry=Retry(attempts=5))"),
        ({"statement_timeout": "30s"}, "statement_timeout=30"),
        ({"command_timeout": 0}, "command_timeout=None"),
        ({"pool_timeout": None}, "pool_timeout=3"),
        ({"close_timeout": -1}, "close_timeout=2"),
        ({"explain_slow": "always"}, 'explain_slow="analyze"'),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_with_one_that_it_can(option, way_out):
    engine = create_async_engine(ANYWHERE.replace("postgresql", "postgresql+asyncpg"))

    with pytest.raises(ConfigurationError, match=re.escape(way_out)):
        Database(ANYWHERE, **option)
    if "pool_timeout" not in option:
        with pytest.raises(ConfigurationError, match=re.escape(way_out)):
            Database.from_engine(engine, **option)


async def test_the_drivers_own_limits_can_be_left_out(database_url):
    db = Database(database_url, connect_timeout=None, command_timeout=None)

    assert await backend(db) > 0
    assert db.engine.dialect.verdigris.settings.commit_timeout == 10
    await db.dispose()


@pytest.mark.parametrize(
    ("option", "way_out"),
    [
        (
            {"pool_size": 5, "pool_timeout": 2},
            "These belong to it:   create_async_engine(..., pool_size=5, pool_timeout=2)",
        ),
        ({"connect_args": {"password": "hunter2"}}, "This belongs to it:   create_async_engine(..., connect_args=...)"),
        ({"replicas": ["postgresql://one/shop"]}, "Database(url, replicas=[...])"),
        ({"statment_timeout": 5}, "Did you mean statement_timeout= where statment_timeout= stands"),
        ({"colour": "blue"}, "Remove it."),
    ],
)
def test_what_from_engine_does_not_take_is_refused_with_where_it_belongs(option, way_out):
    engine = create_async_engine(ANYWHERE.replace("postgresql", "postgresql+asyncpg"))

    with pytest.raises(ConfigurationError, match=re.escape(way_out)) as refused:
        Database.from_engine(engine, **option)

    assert "hunter2" not in str(refused.value)


def test_a_password_behind_the_question_mark_moves_to_where_it_is_masked():
    db = Database("postgresql://db.example/shop?user=app&password=s3cret")

    assert db.engine.url.password == "s3cret"
    assert "s3cret" not in repr(db) + str(db.url) + repr(db.url) + repr(db.engine)


def test_a_password_given_twice_is_refused_without_repeating_it():
    with pytest.raises(ConfigurationError) as refused:
        Database("postgresql://app:one1@db.example/shop?password=two2")

    assert "one1" not in str(refused.value)
    assert "two2" not in str(refused.value)


def test_an_unreadable_url_is_refused_without_repeating_it():
    with pytest.raises(ConfigurationError) as refused:
        Database("postgresql://app:hunter2@db:port/shop")

    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_several_hosts_are_tried_in_turn():
    found = address("postgres://app@a.example,b.example:6432/shop?target_session_attrs=primary")

    assert found.url.query["host"] == ("a.example:5432", "b.example:6432")
    assert found.connect == {"target_session_attrs": "primary"}


def test_a_unix_socket_stays_one():
    found = address("postgresql://app@/shop?host=/run/postgresql&port=5433")

    assert found.url.query == {"host": "/run/postgresql", "port": "5433"}


async def test_a_socket_is_connected_to(postgres, database_url):
    name = make_url(database_url).database
    db = Database(postgres.url_for(name, driver="postgresql", socket=True))

    assert await backend(db) > 0
    await db.dispose()


def test_a_url_object_and_a_secret_are_taken():
    class Secret:
        def get_secret_value(self):
            return "postgres://app:pw@db.example/shop"

    assert Database(URL.create("postgresql", host="db.example")).url.drivername == "postgresql+asyncpg"
    assert Database(Secret()).url.host == "db.example"


@pytest.mark.parametrize("mode", SSL_MODES[:3])
async def test_asyncpg_takes_what_was_translated(database_url, mode):
    url = (
        f"{database_url.replace('+asyncpg', '')}?sslmode={mode}&application_name=shop&connect_timeout=4"
        "&options=-c%20work_mem%3D9MB&target_session_attrs=any&gssencmode=disable"
    )
    db = Database(url)
    async with db.read() as session:
        row = (
            await session.execute(text("SELECT current_setting('application_name'), current_setting('work_mem')"))
        ).one()

    assert tuple(row) == ("shop", "9MB")
    await db.dispose()


# -- the defaults of section 1 -------------------------------------------------------------------------------------


def test_the_engine_is_built_as_the_checklist_asks():
    db = Database(ANYWHERE)
    pool = db.engine.sync_engine.pool

    assert pool._pre_ping
    assert pool._recycle == 1800
    assert pool._timeout == 3.0
    assert pool._pool.use_lifo
    assert (pool.size(), pool._max_overflow) == (sizing.DEFAULT_SIZE, sizing.DEFAULT_OVERFLOW)
    assert db.engine.sync_engine.hide_parameters
    assert isinstance(db.session, async_sessionmaker)


def test_another_queue_pool_keeps_the_defaults():
    pool = Database(ANYWHERE, poolclass=AsyncAdaptedQueuePool).engine.sync_engine.pool

    assert (pool._pre_ping, pool._recycle, pool._timeout, pool.size()) == (True, 1800, 3.0, 5)


def test_every_default_can_be_opted_out_of():
    db = Database(
        ANYWHERE,
        pool_pre_ping=False,
        pool_recycle=-1,
        pool_size=7,
        max_overflow=1,
        pool_timeout=9,
        hide_parameters=False,
        isolation_level="REPEATABLE READ",
    )
    pool = db.engine.sync_engine.pool

    assert not pool._pre_ping
    assert pool._recycle == -1
    assert (pool.size(), pool._max_overflow, pool._timeout) == (7, 1, 9)
    assert not db.engine.sync_engine.hide_parameters


async def test_the_servers_own_limits_reach_the_server(database_url):
    default = Database(database_url)
    chosen = Database(database_url, statement_timeout=7, isolation_level="SERIALIZABLE")
    none = Database(database_url, statement_timeout=None)
    never = Database(database_url, statement_timeout=math.inf)
    found = []
    for db in (default, chosen, none, never):
        async with db.session() as session:
            found.append(await session.scalar(text("SHOW statement_timeout")))
        await db.dispose()

    assert found == ["30s", "7s", "0", "0"]
    least = server_limits(statement=0.0004, transaction=1e9, idle_in_transaction=0)
    assert list(least.values()) == ["1", "2147483647", "0"]  # not 0, which is no limit, for what is less than 1 ms


async def test_bind_values_do_not_show_in_errors(db):
    with pytest.raises(exc.DBAPIError) as failed:
        async with db.session() as session:
            await session.execute(text("SELECT 1 / (length(:secret) - 11)"), {"secret": "123-45-6789"})

    assert "123-45-6789" not in str(failed.value)


# -- the size of the pool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maximum", "workers", "expected"),
    [(100, 1, (14, 6)), (100, 4, (8, 4)), (100, 16, (2, 1)), (100, 60, (1, 0)), (20, 2, (3, 1))],
)
def test_the_pool_is_a_workers_share_of_half_the_connections(maximum, workers, expected):
    size = sizing.computed(sizing.Limits(maximum, 3), workers, None, None)

    assert (size.size, size.overflow) == expected
    assert size.fits == (workers < 60 or size.total <= 97)


@pytest.mark.parametrize(
    ("workers", "overflow", "expected", "says"),
    [
        (4, None, (8, 4), "= 48 of the server's 97 usable connections (100 - 3 reserved), half of them left to"),
        (4, 2, (10, 2), "= 48 of the server's 97 usable connections (100 - 3 reserved), half of them left to"),
        (4, 0, (12, 0), "half of them left to"),
        (4, 15, (1, 15), "(100 - 3 reserved), 33 of them left to rolling deploys and other clients, which need half"),
        (60, None, (1, 0), "= 60 of the server's 97 usable connections (100 - 3 reserved), 37 of them left to"),
        (4, -1, (12, -1), "4 workers x (12 + any number of overflow) = inf of"),
    ],
)  # fmt: skip
def test_a_chosen_overflow_is_part_of_the_share_and_the_text_says_what_is_left(workers, overflow, expected, says):
    size = sizing.computed(sizing.Limits(100, 3), workers, None, overflow)

    assert (size.size, size.overflow) == expected
    assert says in str(size)
    assert size.fits == (overflow != -1)


def test_what_the_role_may_use_counts_too():
    assert sizing.Limits(100, 3, role=10).usable == 10
    assert sizing.Limits(100, 3, role=-1, database=20).usable == 20


async def test_the_size_is_read_at_the_start_and_explained_in_one_line(database_url, caplog):
    db = Database(database_url, workers=3)
    with caplog.at_level(logging.INFO, "verdigris"):
        async with db.lifespan():
            status = db.pool_status()

    assert (status.size, status.max_overflow) == (6, 3)
    assert (
        "pool: 3 workers x (6 + 3 overflow) = 27 of the server's 57 usable connections (60 - 3 reserved)" in caplog.text
    )
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_the_number_of_workers_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "6")

    assert Database(ANYWHERE).workers == 6
    assert Database(ANYWHERE, workers=2).workers == 2
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ConfigurationError, match="WEB_CONCURRENCY=many"):
        Database(ANYWHERE)


async def test_a_pool_that_cannot_fit_is_warned_about(database_url, caplog):
    db = Database(database_url, workers=8, pool_size=10, max_overflow=5)
    async with db.lifespan():
        status = db.pool_status()

    assert (status.size, status.max_overflow) == (10, 5)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "8 workers x (10 + 5 overflow) = 120 of the server's 57 usable connections" in record.getMessage()
    assert "too many" in record.getMessage()


async def test_a_server_that_is_down_does_not_keep_the_application_from_starting(caplog):
    async with Database(ANYWHERE).lifespan():
        pass

    assert "does not answer yet (unavailable)" in caplog.text


async def test_a_server_that_refuses_the_login_does(postgres):
    wrong = make_url(postgres.url).set(password="wrong")

    with pytest.raises((exc.DBAPIError, asyncpg.PostgresError)):
        await Database(wrong).start()


# -- pre-ping, recycling -------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch):
    """What goes over the wire through `Connection.execute`: BEGIN, ROLLBACK, pings."""
    statements = []
    original = asyncpg.Connection.execute

    async def spy(self, query, *args, **kwargs):
        statements.append(query)
        return await original(self, query, *args, **kwargs)

    monkeypatch.setattr(asyncpg.Connection, "execute", spy)
    return statements


async def test_a_connection_used_a_moment_ago_is_not_asked_over_the_wire(db, sent):
    await backend(db)
    sent.clear()
    for _ in range(3):
        await backend(db)

    assert sent == []


async def test_a_connection_that_sat_idle_is_asked_in_one_round_trip(db, sent):
    first = await backend(db)
    (driver,) = [found for found in gc.get_objects() if isinstance(found, Connection) and not found.is_closed()][-1:]
    driver.released -= 3600
    sent.clear()
    second = await backend(db)

    assert sent == ["SELECT 1"]
    assert first == second


async def test_a_connection_that_the_server_closed_is_replaced_unseen(db, admin):
    first = await backend(db)
    await admin(f"SELECT pg_terminate_backend({first})")
    await asyncio.sleep(0.1)
    second = await backend(db)

    assert second != first


async def test_connections_do_not_expire_in_one_moment(database_url):
    db = Database(database_url, pool_size=8, max_overflow=0, pool_recycle=1000)
    records = []

    @event.listens_for(db.engine.sync_engine, "connect")
    def connect(connection, record):
        records.append(record)

    async def held(session):
        return await session.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.2)"))

    async def backends():
        sessions = [db.session() for _ in range(8)]
        found = await asyncio.gather(*map(held, sessions))
        await asyncio.gather(*(session.close() for session in sessions))
        return set(found)

    first = await backends()
    ends = sorted(record.lifetime for record in records)
    gap, after = max((later - end, end) for end, later in itertools.pairwise(ends))
    for record in records:
        record.starttime -= after + gap / 2  # so much time has passed
    second = await backends()
    await db.dispose()

    assert 800 <= ends[0] < ends[-1] - 10 < 1000
    assert len(first & second) == sum(end > after for end in ends)


async def test_what_connects_after_the_pool_was_invalidated_stays_in_it(database_url, admin):
    db = Database(database_url)
    await admin("SELECT pg_terminate_backend($1)", await backend(db))
    await eventually_closed(db)
    first = await backend(db)

    assert db.engine.sync_engine.pool._invalidate_time > 0
    assert await backend(db) == first
    async with db.session() as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) == first
    await db.dispose()


async def eventually_closed(db):
    """Wait until the pool's one connection knows that the server has closed it."""
    (record,) = db.engine.sync_engine.pool._pool.items
    while not record.driver_connection.is_closed():
        await asyncio.sleep(0.01)


async def test_a_connection_older_than_recycle_is_replaced(database_url):
    db = Database(database_url, pool_recycle=0)
    first = await backend(db)
    await asyncio.sleep(0.01)

    assert await backend(db) != first
    await db.dispose()


# -- waits end -----------------------------------------------------------------------------------------------------


class BlackHole:
    """A proxy to the server that can stop forwarding, both ways, without closing anything."""

    def __init__(self, host, port):
        self.upstream, self.open, self.writers = (host, port), asyncio.Event(), []
        self.open.set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.writers:
            task.cancel()
        await asyncio.gather(*self.writers, return_exceptions=True)

    async def serve(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection(*self.upstream)
        for source, target in ((reader, other_writer), (other_reader, writer)):
            self.writers.append(asyncio.create_task(self.pump(source, target)))

    async def pump(self, source, target):
        try:
            while data := await source.read(65536):
                await self.open.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()


@pytest.fixture
async def hole(database_url):
    url = make_url(database_url)
    async with BlackHole(url.host, url.port) as made:
        made.url = url.set(host="127.0.0.1", port=made.port)
        yield made


async def limited(awaitable, seconds):
    """Await something that must end by itself within so many seconds."""
    return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(awaitable)), seconds)


async def test_a_statement_into_a_black_hole_ends_with_an_error_of_its_own(hole):
    db = Database(hole.url, command_timeout=0.5)
    await backend(db)
    hole.open.clear()

    with pytest.raises(StatementTimeoutError):
        await limited(backend(db), 5)

    hole.open.set()
    assert await limited(backend(db), 5) > 0
    await db.dispose()


async def test_leaving_a_transaction_into_a_black_hole_ends(hole):
    db = Database(hole.url, command_timeout=0.5)

    async def unit():
        async with db.session.begin() as session:
            await session.execute(text("SELECT 1"))
            hole.open.clear()
            raise KeyError("the application's own")

    with pytest.raises(KeyError):
        await limited(unit(), 6)
    assert db.pool_status().in_use == 0
    await db.dispose()


async def test_connecting_to_a_black_hole_ends(hole):
    hole.open.clear()
    db = Database(hole.url, connect_timeout=0.5)

    with pytest.raises(DatabaseUnavailableError, match="no answer in time"):
        await limited(backend(db), 3)
    await db.dispose()


async def test_callers_of_a_dead_server_do_not_queue_up_for_its_timeout_and_it_heals(hole):
    hole.open.clear()
    db, clock = Database(hole.url, connect_timeout=0.3), asyncio.get_running_loop().time
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError, match="no answer in time"):
            await backend(db)
    began = clock()
    with pytest.raises(DatabaseUnavailableError, match="3 times in a row; not tried again just now"):
        await backend(db)

    assert clock() - began < 0.2
    hole.open.set()
    await asyncio.sleep(0.5)
    assert await backend(db) > 0
    await db.dispose()


class Starting(BlackHole):
    """A proxy to a server that says that it is starting up, as long as the proxy is told so."""

    starting, asked = True, 0

    async def serve(self, reader, writer):
        if not self.starting:
            await super().serve(reader, writer)
            return
        self.asked += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while (await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4))[:2] == b"\x04\xd2":
                writer.write(b"N")  # no TLS
        fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        writer.close()


async def test_a_server_that_starts_is_not_asked_by_all_who_wait_for_it(database_url):
    url = make_url(database_url)
    async with Starting(url.host, url.port) as server:
        db = Database(url.set(host="127.0.0.1", port=server.port), pool_size=5, max_overflow=0)
        one = text("SELECT 1")
        tries = [asyncio.create_task(db.transaction(lambda session: session.scalar(one))) for _ in range(20)]
        await asyncio.sleep(1)
        asked = server.asked
        with pytest.raises(DatabaseUnavailableError, match="starts, stops or recovers") as error:
            await backend(db)
        server.starting = False

        assert await limited(asyncio.gather(*tries), 8) == [1] * 20
        await db.dispose()
    assert asked <= 10  # those whom the pool lets connect, and one after each pause; 28 if each asked for itself
    assert classify(error.value).status == 503


async def test_disposing_of_connections_in_a_black_hole_ends(hole):
    db = Database(hole.url)
    sessions = [db.session() for _ in range(4)]
    await asyncio.gather(*(session.connection() for session in sessions))
    await asyncio.gather(*(session.close() for session in sessions))
    hole.open.clear()

    await limited(db.dispose(), 8)


@pytest.mark.parametrize("url", ["postgresql://app@127.0.0.1:1/x", "postgresql://app@/x?host=/nowhere"])
async def test_a_server_that_cannot_be_reached_is_an_error_of_ours_and_an_os_error(url):
    db = Database(url)

    with pytest.raises(DatabaseUnavailableError) as failed:
        await backend(db)
    assert isinstance(failed.value, OSError)
    assert isinstance(failed.value, exc.SQLAlchemyError)


async def test_a_server_that_is_away_is_named_with_what_to_do_and_without_the_password():
    db = Database("postgresql://somebody:hunter2@127.0.0.1:1/shop")

    with pytest.raises(DatabaseUnavailableError) as failed:
        await backend(db)

    assert failed.value.what == "no connection to the database shop at 127.0.0.1:1: ConnectionRefusedError."
    assert "Start it, or correct its address:   DATABASE_URL=" in str(failed.value)
    assert "hunter2" not in str(failed.value)
    assert "somebody" not in str(failed.value)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({}, " at localhost:5432"),
        ({"host": ["one", "two"], "port": [5432, 6432], "database": "shop"}, " shop at one:5432, two:6432"),
        ({"host": "::1", "port": 5433}, " at [::1]:5433"),
        ({"host": "/run/postgresql", "database": "shop"}, " shop at /run/postgresql:5432"),
        ({"service": "shop", "password": "hunter2"}, ""),
    ],
)
def test_the_place_of_a_server_is_what_asyncpg_is_told(arguments, place):
    assert place_of(arguments, {}) == place


async def test_an_exhausted_pool_names_its_longest_holders_in_time(database_url):
    db = Database(database_url, pool_size=1, max_overflow=1, pool_timeout=0.3, workers=4)

    async def hold(seconds):
        async with db.session() as session:
            await session.execute(text(f"SELECT pg_sleep({seconds})"))

    holders = [asyncio.create_task(hold(1), name=f"holder {number}") for number in range(2)]
    await asyncio.sleep(0.1)
    with pytest.raises(PoolExhaustedError) as exhausted:
        await backend(db)
    await asyncio.gather(*holders)

    message = str(exhausted.value)
    assert message.startswith("no connection came free in 0.3 s; 2 of 2 are checked out (1 pool + 1 overflow).")
    assert re.search(r"Longest holders: holder \d 0\.\d s \(\S*test_engine\.py:\d+\), holder \d", message)
    assert "4 workers x 2 = 8 connections" in message
    assert isinstance(exhausted.value, exc.TimeoutError)
    await db.dispose()


async def test_a_task_that_waits_for_itself_is_told_so(database_url):
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(PoolExhaustedError, match="all 1 are held by tasks that wait for another one"):
            await backend(db)
    await db.dispose()


# -- another loop, another process, another engine -----------------------------------------------------------------


def loops():
    with contextlib.suppress(ImportError):  # which Windows has not
        import uvloop

        yield uvloop.new_event_loop
    yield asyncio.new_event_loop


@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's close(), which an error would hang
@pytest.mark.parametrize("new_loop", list(loops()))
def test_the_engine_follows_the_event_loop_and_leaves_no_backend_behind(database_url, new_loop):
    db = Database(database_url)

    async def backends(db):
        pid = await backend(db)
        await asyncio.sleep(0.1)  # the server's time to see who is gone
        mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        async with db.session() as session:
            return await session.scalar(text(mine)), pid

    seen = []
    for _ in range(4):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            seen.append(runner.run(backends(db)))
    asyncio.run(db.dispose())

    assert [count for count, _ in seen] == [1] * 4
    assert len({pid for _, pid in seen}) == 4
    del db
    gc.collect()  # and nothing warns of what is not closed


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_connections_alone(database_url):
    db, loop = Database(database_url), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    before = loop.run_until_complete(backend(db))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = asyncio.run(backend(db))
        except Exception:  # noqa: BLE001 - the parent asserts on it
            found = -1
        os.write(writing, str(found).encode())
        os._exit(0)
    os.waitpid(child, 0)
    in_child = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)

    assert in_child not in {before, -1}
    assert loop.run_until_complete(backend(db)) == before
    loop.run_until_complete(db.dispose())
    loop.close()
    asyncio.set_event_loop(None)


async def test_a_teams_own_engine_gets_the_guards_and_keeps_its_settings(database_url):
    engine = create_async_engine(database_url, pool_size=4, max_overflow=2, pool_timeout=0.2)
    db = Database.from_engine(engine)
    pool = engine.sync_engine.pool

    assert db.engine is engine
    assert (pool.size(), pool._max_overflow, pool._timeout, pool._pre_ping) == (4, 2, 0.2, True)
    with pytest.raises(CommitRefusedError):
        await swallow(db)
    first = await backend(db)
    assert await backend(db) == first
    async with db.lifespan():
        assert (db.pool_status().size, db.pool_status().max_overflow) == (4, 2)


async def test_a_teams_own_engine_gets_the_servers_limits_and_keeps_its_own_words(database_url, major):
    engine = create_async_engine(database_url, connect_args={"server_settings": {"statement_timeout": "1500"}})
    db = Database.from_engine(engine, transaction_timeout=120, idle_in_transaction_timeout=None, close_timeout=1)
    asked = ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout")
    async with db.read() as session:
        told = [await session.scalar(text(f"SELECT current_setting('{name}', true)")) for name in asked]
        with pytest.raises(exc.DBAPIError) as failed:
            await session.execute(text("SELECT 1/0 WHERE :secret <> ''"), {"secret": "mine"})

    assert told == ["1500ms", "2min" if major >= 17 else None, "0"]
    assert "mine" not in str(failed.value)
    assert engine.dialect.verdigris.settings.close_timeout == 1
    await db.dispose()


async def test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units(database_url):
    engine = create_async_engine(database_url)
    db = Database.from_engine(engine)
    attempts = 0

    async def work(session):
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '40001'; END $$"))
        return await session.scalar(text("SELECT 1"))

    assert await db.transaction(work) == 1
    assert attempts == 2
    assert {query.fingerprint for query in db.queries} >= {"SELECT ?"}
    assert db.pool_status().checkouts == 2
    limits = engine.dialect.verdigris.settings
    assert (limits.connect_timeout, limits.command_timeout) == (5.0, 60.0)
    await db.dispose()


async def test_what_an_engine_that_was_taken_over_lacks_is_named_at_the_start(database_url, caplog):
    weak = Database.from_engine(create_async_engine(database_url))
    strong = Database.from_engine(create_async_engine(database_url, pool_timeout=3, pool_recycle=1800))
    loose = Database.from_engine(create_async_engine(database_url, poolclass=NullPool))
    lines = []
    for db in (weak, strong, loose):
        caplog.clear()
        async with db.lifespan():
            lines.append([each.getMessage() for each in caplog.records if "taken over" in each.getMessage()])

    assert [len(each) for each in lines] == [2, 0, 1]
    assert "pool_timeout=3" in lines[0][0]
    assert "pool_recycle=1800" in lines[0][1]
    assert "NullPool" in lines[2][0]


def test_an_unverified_certificate_of_another_machine_is_among_what_it_lacks():
    engine = create_async_engine("postgresql+asyncpg://app@db.example/shop", pool_timeout=3, pool_recycle=1800)
    Database.from_engine(engine)
    assert list(lacking(engine)) == []  # not connected: nothing is known

    engine.dialect.verdigris.trusts_anybody = True

    assert [line.rpartition(": ")[2] for line in lacking(engine)] == ["'verify-full'}"]


async def test_connections_that_would_be_made_past_the_guards_are_refused(database_url):
    made = []

    async def connect():
        made.append(await asyncpg.connect(database_url.replace("+asyncpg", "")))
        return made[-1]

    with pytest.raises(ConfigurationError, match="creator"):
        Database(database_url, async_creator=connect)
    db = Database.from_engine(create_async_engine("postgresql+asyncpg://", async_creator=connect))
    with pytest.raises(ConfigurationError, match="creator"):
        await backend(db)
    assert [each.is_closed() for each in made] == [True]
    assert db.pool_status().in_use == 0


async def test_a_function_of_ones_own_may_connect_with_what_it_is_given(database_url):
    async def connect(*args, **options):
        return await asyncpg.connect(*args, **options)

    db = Database(database_url, connect_args={"async_creator_fn": connect})
    with pytest.raises(CommitRefusedError):
        await swallow(db)
    await db.dispose()


@pytest.mark.parametrize("made", ["by us", "by them"])
async def test_a_function_of_ones_own_reaches_a_server_without_transaction_timeout(database_url, made, caplog):
    caplog.set_level("INFO", "verdigris")

    async def connect(*args, server_settings, **options):
        await asyncio.sleep(0)
        if "transaction_timeout" in server_settings:  # as PostgreSQL 16 does
            raise asyncpg.UndefinedObjectError('unrecognized configuration parameter "transaction_timeout"')
        return await asyncpg.connect(*args, server_settings=server_settings, **options)

    told = {"async_creator_fn": connect}
    if made == "by us":
        db = Database(database_url, connect_args=told)
    else:
        db = Database.from_engine(create_async_engine(database_url, connect_args=told))

    assert len({*await db.gather(*[lambda s: s.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.1)"))] * 2)}) == 2
    assert caplog.text.count("the server knows no transaction_timeout") == 1
    with pytest.raises(CommitRefusedError):
        await swallow(db)
    await db.dispose()


class TheirConnection(asyncpg.Connection):
    def named(self):
        return "theirs"


@pytest.mark.parametrize("made", ["by us", "by them"])
async def test_a_connection_class_of_the_teams_own_gets_the_guards_before_it(database_url, made):
    told = {"connection_class": TheirConnection}
    if made == "by us":
        db = Database(database_url, connect_args=told)
    else:
        db = Database.from_engine(create_async_engine(database_url, connect_args=told))

    with pytest.raises(CommitRefusedError):
        await swallow(db)
    async with db.session() as session:
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        assert driver.named() == "theirs"
        assert ours(driver) is driver
    await db.dispose()


async def test_only_connections_of_our_class_are_ours(database_url):
    plain = await asyncpg.connect(database_url.replace("+asyncpg", ""))

    assert isinstance(plain, Connection)  # which is asyncpg's doing: any of its connections is an instance of any class
    assert ours(plain) is None
    await plain.close()


async def swallow(db):
    async with db.session.begin() as session:
        with pytest.raises(exc.DBAPIError):
            await session.execute(text("SELECT 1/0"))


async def test_an_engine_with_another_driver_or_in_use_is_refused(database_url):
    with pytest.raises(ConfigurationError, match="psycopg"):
        Database.from_engine(create_psycopg(database_url))
    engine = create_async_engine(database_url)
    async with engine.connect():
        with pytest.raises(ConfigurationError, match="in use already"):
            Database.from_engine(engine)
    await engine.dispose()


def create_psycopg(url):
    class Dialect:
        name, driver = "postgresql", "psycopg"

    class Engine:
        dialect = Dialect

    return Engine()


async def test_a_pool_of_connections_to_a_demoted_primary_is_renewed_at_once(database_url, admin, postgres):
    name = make_url(database_url).database
    await admin("CREATE TABLE note (id int)")
    await admin(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # as a standby answers
    db = Database(database_url)
    sessions = [db.session() for _ in range(3)]
    await asyncio.gather(*(session.connection() for session in sessions))
    await asyncio.gather(*(session.close() for session in sessions))
    promoting = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
    await promoting.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await promoting.close()
    tries = []

    async def write(session):
        tries.append(await session.scalar(text("SELECT pg_backend_pid()")))
        await session.execute(text("INSERT INTO note VALUES (1)"))

    await asyncio.gather(*(db.transaction(write) for _ in range(3)))

    assert [row["count"] for row in await admin("SELECT count(*) FROM note")] == [3]
    assert len(tries) <= 6
    await db.dispose()


@pytest.mark.parametrize(
    "readonly",
    [
        "SET TRANSACTION READ ONLY",
        "SET LOCAL transaction_read_only = on",
        "SET LOCAL default_transaction_read_only = on; SET TRANSACTION READ ONLY",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET TRANSACTION READ ONLY",
        "SET default_transaction_read_only = on; SET TRANSACTION READ ONLY",
    ],
)
async def test_a_transaction_that_the_application_made_read_only_itself_costs_no_connection(
    database_url, admin, readonly
):
    await admin("CREATE TABLE note (id int)")
    db = Database(database_url)
    before = await backend(db)

    for way in ("execute", "scalar"):
        async with db.session() as session:
            for statement in readonly.split("; "):
                await session.execute(text(statement))
            with pytest.raises(exc.DBAPIError) as refused:
                await getattr(session, way)(text("INSERT INTO note VALUES (1) RETURNING id"))

    assert sqlstate_of(refused.value) == "25006"
    assert not refused.value.connection_invalidated
    assert await backend(db) == before
    await db.dispose()


async def test_another_pool_class_is_left_as_it_is(database_url):
    db = Database(database_url, poolclass=NullPool)

    assert await backend(db) != await backend(db)
    with pytest.raises(CommitRefusedError):
        await swallow(db)
    async with db.lifespan():
        pass


async def test_several_databases_stand_side_by_side(database_url, postgres):
    one, two = Database(database_url), Database(postgres.url)
    names = []
    for db in (one, two):
        async with db.read() as session:
            names.append(await session.scalar(text("SELECT current_database()")))
        await db.dispose()

    assert names == [make_url(database_url).database, make_url(postgres.url).database]
