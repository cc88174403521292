"""BEGIN goes with the first statement of its transaction: one trip less, and in all else as if it had gone before."""

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database, bulk
from verdigris.engine import pipelined_begin
from verdigris.engine.pipelined_begin import Beginning
from verdigris.errors import CommitRefusedError


class Shell(Base):
    __tablename__ = "beginning_shells"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Line:
    """A proxy that counts turns: how often the client speaks after the server did."""

    def __init__(self, url):
        self.upstream = make_url(url)
        self.turns = 0

    @contextlib.asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        async with server:
            yield self.upstream.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1])

    async def _client(self, reader, writer):
        upstream = await asyncio.open_connection(self.upstream.host, self.upstream.port)
        spoke = ["server"]
        with contextlib.suppress(OSError):
            await asyncio.gather(
                self._pass(reader, upstream[1], spoke, "client"), self._pass(upstream[0], writer, spoke, "server")
            )

    async def _pass(self, reader, writer, spoke, who):
        while data := await reader.read(65536):
            self.turns += (spoke[0], who) == ("server", "client")
            spoke[0] = who
            writer.write(data)
        writer.close()


async def made(url, **options):
    db = Database(url, **{"pool_size": 1, "max_overflow": 0, **options})
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Shell.__table__])
    return db


@pytest.fixture
async def db(database_url):
    database = await made(database_url)
    yield database
    await database.dispose()


@pytest.fixture
def waits(request, monkeypatch):
    """Whether BEGIN goes with the first statement, or before it as SQLAlchemy sends it."""
    if not request.param:
        monkeypatch.setattr(Beginning, "_may_wait", lambda _: False)
    return request.param


INSERT = text("INSERT INTO beginning_shells VALUES (:id, :name)")
BOTH = pytest.mark.parametrize("waits", [True, False], ids=["together", "before"], indirect=True)


async def read(session):
    assert await session.get(Shell, 1) is None


async def scalars(session):
    await session.scalars(select(Shell))


async def core(session):
    await session.execute(text("SELECT count(*) FROM beginning_shells"))


async def many(session):
    values = [{"id": n, "name": "x"} for n in (7, 8)]
    await (await session.connection()).execute(text("UPDATE beginning_shells SET name = :name WHERE id = :id"), values)


async def changed(session):
    await session.execute(update(Shell).where(Shell.id == 9).values(name="x"))


@pytest.mark.parametrize("work", [read, scalars, core, many, changed])
@BOTH
async def test_a_transaction_takes_one_trip_less(database_url, waits, work):
    line = Line(database_url)
    async with line.open() as url:
        db = await made(url)
        for _ in range(3):  # prepared, and planned by the lean reads
            async with db.session.begin() as session:
                await work(session)
        before = line.turns
        async with db.session.begin() as session:
            await work(session)

        assert line.turns - before == (2 if waits else 3)
        await db.dispose()


@BOTH
async def test_the_first_statement_is_in_the_transaction(db, waits):
    for _ in range(2):
        async with db.session() as session:
            await session.execute(insert(Shell).values(id=1, name="first"))
            await session.rollback()
        async with db.session() as session:
            assert await session.scalar(select(Shell.name)) is None


async def one_row(session):
    await (await session.connection()).execute(INSERT, {"id": 1, "name": "x"})


async def many_rows(session):
    await (await session.connection()).execute(INSERT, [{"id": n, "name": "x"} for n in (1, 2)])


async def copied(session):
    await bulk.insert(session, Shell, [{"id": n, "name": "x"} for n in range(200)])


async def flushed(session):
    session.add_all([Shell(id=1, name="x"), Shell(id=2, name="y")])
    await session.flush()


@pytest.mark.parametrize("write", [one_row, many_rows, copied, flushed])
@BOTH
async def test_whatever_is_written_first_is_in_the_transaction(db, waits, write):
    for _ in range(3):
        async with db.session() as session:
            await write(session)
            await session.rollback()
        async with db.session() as session:
            assert list(await session.scalars(select(Shell.id))) == []


class Pipe:
    """A transport as asyncio's are, which keeps what it sends."""

    def __init__(self):
        self.sent = []

    def write(self, data):
        self.sent.append(bytes(data))

    def writelines(self, parts):
        self.sent.append(b"".join(parts))


class Sealed(Pipe):
    """One as uvloop's are, whose methods cannot be replaced."""

    __slots__ = ("sent",)

    def __setattr__(self, name, value):
        if name != "sent":
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_begin_is_sent_with_what_is_written_next_and_only_with_that():
    pipe = Pipe()
    for write, data in ((pipe.write, memoryview(b"one")), (pipe.writelines, [memoryview(b"o"), b"ne"])):
        pipelined_begin._write_before(pipe, b"BEGIN ")
        assert pipe.sent == []
        getattr(pipe, write.__name__)(data)
        pipe.write(b"two")
        assert pipe.sent == [b"BEGIN one", b"two"]
        pipe.sent.clear()


def test_a_transport_that_keeps_its_methods_is_given_begin_at_once():
    sealed = Sealed()
    pipelined_begin._write_before(sealed, b"BEGIN ")
    sealed.writelines([b"one"])

    assert sealed.sent == [b"BEGIN ", b"one"]


@BOTH
async def test_a_transaction_begins_with_the_level_that_was_asked_for(db, waits):
    engine = db.engine.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True)
    for _ in range(2):
        async with engine.connect() as connection:
            level = await connection.scalar(text("SHOW transaction_isolation"))
            only = await connection.scalar(text("SHOW transaction_read_only"))
            assert (level, only) == ("serializable", "on")
        async with db.session() as session:
            assert await session.scalar(text("SHOW transaction_isolation")) == "read committed"


@BOTH
async def test_a_first_statement_that_the_server_refuses_aborts_the_transaction(db, waits):
    async def refused(session):
        for _ in range(2):  # the second time it is prepared
            with pytest.raises(DBAPIError) as caught:
                await session.execute(text("SELECT 1 / count(*) FROM beginning_shells"))
            await session.rollback()
        with pytest.raises(DBAPIError) as caught:
            await session.execute(text("SELECT 1 / count(*) FROM beginning_shells"))
        with pytest.raises(DBAPIError) as after:
            await session.execute(text("SELECT 1"))
        return caught.value.orig.sqlstate, after.value.orig.sqlstate

    async with db.session() as session:
        assert await refused(session) == ("22012", "25P02")
        with pytest.raises(CommitRefusedError):
            await session.commit()
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@BOTH
async def test_a_value_that_never_reaches_the_server_leaves_the_transaction_open(db, waits):
    add = text("INSERT INTO beginning_shells VALUES (CAST(:id AS int), 'x')")
    async with db.session.begin() as session:
        await session.execute(add, {"id": 1})
    async with db.session() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.execute(add, {"id": "not a number"})
        assert "invalid input for query argument" in str(caught.value)
        await session.execute(add, {"id": 2})
        first = await session.scalar(text("SELECT pg_current_xact_id()::text"))
        assert await session.scalar(text("SELECT pg_current_xact_id()::text")) == first
        await session.rollback()
    async with db.session() as session:
        assert list(await session.scalars(select(Shell.id))) == [1]


async def test_a_begin_that_is_refused_is_sent_again_and_nothing_ran_without_it(db, monkeypatch):
    add = text("INSERT INTO beginning_shells VALUES (CAST(:id AS int), 'x')")
    async with db.session.begin() as session:
        await session.execute(add, {"id": 1})
    wrong, real = [pipelined_begin._messages("BEGIN ISOLATION LEVEL WEAK")], pipelined_begin._messages
    monkeypatch.setattr(pipelined_begin, "_messages", lambda query: wrong.pop() if wrong else real(query))

    async with db.session() as session:
        with pytest.raises(DBAPIError, match="syntax error"):
            await session.execute(add, {"id": 2})
        await session.execute(add, {"id": 3})
        await session.rollback()
    async with db.session() as session:
        with pytest.raises(DBAPIError, match="duplicate key"):
            await session.execute(add, {"id": 1})

    async with db.session() as session:
        assert list(await session.scalars(select(Shell.id))) == [1]


@pytest.mark.parametrize("first", ["prepare", "execute"])
async def test_a_begin_that_is_refused_is_an_answer_to_whatever_comes_first(db, first):
    async with db.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.begin("BEGIN ISOLATION LEVEL WEAK;")
        async with asyncio.timeout(5):
            with pytest.raises(asyncpg.PostgresSyntaxError):
                await getattr(driver, first)("SELECT 2")
        assert not driver.is_in_transaction()

        driver.owed = "BEGIN ISOLATION LEVEL SERIALIZABLE;"
        await getattr(driver, first)("SELECT 3")
        assert await driver.fetchval("SHOW transaction_isolation") == "serializable"
        assert driver.is_in_transaction()
        await driver.execute("ROLLBACK")


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_after_a_begin_that_was_refused_there_is_nothing_to_end(db, monkeypatch, end):
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
    weak = pipelined_begin._messages("BEGIN ISOLATION LEVEL WEAK")
    with monkeypatch.context() as patched:
        patched.setattr(pipelined_begin, "_messages", lambda _: weak)
        async with db.session() as session:
            with pytest.raises(DBAPIError, match="syntax error"):
                await session.execute(text("SELECT 1"))
            await getattr(session, end)()

    assert db.pool_status().in_use == 0
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@BOTH
async def test_rows_of_a_cursor_and_rows_by_copy_may_come_first(db, waits):
    async with db.session.begin() as session:
        await bulk.insert(session, Shell, [{"id": n, "name": str(n)} for n in range(200)])
    for _ in range(2):
        async with db.session() as session:
            found = [row async for row in await session.stream_scalars(select(Shell.id).order_by(Shell.id))]
        assert found == list(range(200))


@BOTH
async def test_statements_without_names_are_not_mistaken_for_begin(database_url, waits):
    unnamed = {"prepared_statement_name_func": lambda: "", "prepared_statement_cache_size": 0}
    db = await made(database_url, connect_args=unnamed)
    for n in range(3):
        async with db.engine.connect() as connection:
            assert (await connection.execute(text("SELECT CAST(:n AS int)"), {"n": n})).scalar() == n
    await db.dispose()


@BOTH
async def test_a_first_statement_that_takes_too_long_ends_as_any_other(database_url, waits):
    db = await made(database_url, command_timeout=0.3)
    wait = text("SELECT pg_sleep(CAST(:seconds AS float))")
    async with db.session() as session:
        await session.execute(wait, {"seconds": 0})
    async with db.session() as session:
        with pytest.raises((DBAPIError, TimeoutError)):
            await session.execute(wait, {"seconds": 30})
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    assert db.pool_status().in_use == 0
    await db.dispose()


@BOTH
async def test_a_first_statement_that_is_cancelled_leaves_no_transaction_behind(db, admin, waits):
    wait = text("SELECT pg_sleep(CAST(:seconds AS float))")
    async with db.session() as session:
        await session.execute(wait, {"seconds": 0})

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), db.session() as session:
            await session.execute(wait, {"seconds": 30})

    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    open_ones = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    assert await admin(open_ones) == []


@BOTH
async def test_a_connection_that_died_fails_the_first_statement_as_any_other(db, admin, waits):
    async with db.session() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with db.session() as session:
        await session.connection()
        await admin(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DBAPIError) as caught:
            await session.execute(text("SELECT 1"))
        assert caught.value.connection_invalidated
    async with db.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_listeners_of_after_begin_find_it_begun(db):
    def tenant(session, transaction, connection):
        connection.execute(text("SELECT set_config('app.tenant', '7', true)"))

    async with db.session() as session:
        event.listen(session.sync_session, "after_begin", tenant)
        assert await session.scalar(text("SELECT current_setting('app.tenant')")) == "7"
    async with db.session() as session:
        assert await session.scalar(text("SELECT current_setting('app.tenant', true)")) in {None, ""}


async def test_who_traces_the_driver_sees_begin(db, monkeypatch):
    sent, original = [], asyncpg.Connection.execute

    async def traced(self, query, *args, **options):
        sent.append(query)
        return await original(self, query, *args, **options)

    async with db.session() as session:
        await session.execute(text("SELECT 1"))
    monkeypatch.setattr(asyncpg.Connection, "execute", traced)
    async with db.session.begin() as session:
        await session.execute(text("SELECT 1"))

    assert sent == ["BEGIN;", "COMMIT;"]


async def test_a_logger_of_queries_sees_begin(db):
    seen = []
    async with db.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        driver = (await connection.get_raw_connection()).driver_connection
        await connection.rollback()
        with driver.query_logger(lambda record: seen.append(record.query)):
            await connection.execute(text("SELECT 1"))
            await connection.rollback()

    assert seen[0] == "BEGIN;"
    assert seen[-1] == "ROLLBACK;"


async def test_the_drivers_own_transactions_begin_at_once(db):
    async with db.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        async with driver.transaction():
            assert driver.is_in_transaction()
            assert driver.owed is None
