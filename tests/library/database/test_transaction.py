"""A transaction of lean reads: it ends as SQLAlchemy's own does, and becomes one as soon as somebody looks."""

import asyncio
import contextlib
import gc
import logging
import warnings

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.orm import Mapped, Session, mapped_column

from verdigris import Base, Database
from verdigris.errors import OutcomeUnknownError
from verdigris.lean.transaction import lean_transaction


class Stone(Base):
    __tablename__ = "transaction_stones"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def made(url, **options):
    db = Database(url, **{"pool_size": 2, "max_overflow": 0, **options})
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Stone.__table__])
        await connection.execute(text("INSERT INTO transaction_stones VALUES (1, 'grey') ON CONFLICT DO NOTHING"))
    for _ in range(3):  # SQLAlchemy's engine runs the first of each shape
        async with db.session() as session:
            await session.get(Stone, 1)
            await session.scalar(select(Stone.name).where(Stone.id == 1))
            await session.commit()
    return db


@pytest.fixture
async def db(database_url):
    database = await made(database_url)
    yield database
    await database.dispose()


@pytest.fixture
async def unguarded(database_url):
    """Its sessions' transactions are begun and ended by SQLAlchemy: what the others are compared with."""
    database = await made(database_url, guard_tasks=False)
    yield database
    await database.dispose()


def is_lean(session):
    return lean_transaction(session.sync_session) is not None


def pid(session):
    return lean_transaction(session.sync_session).driver.get_server_pid()


STATE = text("SELECT pg_backend_pid(), xact_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")


# -- when it is one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [None, "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "snapshot"])
async def test_it_begins_as_its_engine_says(db, unguarded, level):
    found = []
    for database in (db, unguarded):
        session = database.read(snapshot=True) if level == "snapshot" else database._open_session(level)
        async with session:
            await session.get(Stone, 1)
            found.append(is_lean(session))
            shown = [await session.scalar(text(f"SHOW transaction_{name}")) for name in ("isolation", "read_only")]
            found.append((*shown, await session.scalar(text("SHOW transaction_deferrable"))))
            await session.commit()

    assert (found[0], found[2]) == (True, False)
    assert found[1] == found[3]
    async with db.session() as session:  # and leaves nothing of it on the connection
        assert await session.scalar(text("SHOW transaction_isolation")) == "read committed"


async def test_begin_is_sent_before_the_first_read_and_seen_by_in_transaction(db, admin):
    async with db.session() as session:
        await session.get(Stone, 1)
        (row,) = await admin("SELECT state FROM pg_stat_activity WHERE pid = $1", pid(session))

        assert row["state"] == "idle in transaction"
        assert session.in_transaction()
        assert not session.in_nested_transaction()
        assert is_lean(session)
        assert db.pool_status().in_use == 1


def _heard(*_):
    pass


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Session, "after_begin"),
        (Session, "after_transaction_create"),
        ("engine", "begin"),
        ("engine", "engine_connect"),
        ("pool", "checkout"),
        ("pool", "checkin"),
    ],
)
async def test_who_listens_to_its_beginning_hears_sqlalchemys(db, target, name):
    heard = {"engine": db.engine.sync_engine, "pool": db.engine.sync_engine.pool}.get(target, target)
    event.listen(heard, name, _heard)
    try:
        async with db.session() as session:
            await session.get(Stone, 1)
            assert not is_lean(session)
    finally:
        event.remove(heard, name, _heard)


async def test_a_session_without_the_guard_has_none(unguarded):
    async with unguarded.session() as session:
        await session.get(Stone, 1)
        assert not is_lean(session)


async def test_an_engine_in_autocommit_begins_none(database_url, admin):
    db = await made(database_url, isolation_level="AUTOCOMMIT")
    async with db.session() as session:
        await session.get(Stone, 1)
        states = await admin("SELECT state FROM pg_stat_activity WHERE state LIKE 'idle in%'")
        assert not is_lean(session)
        await session.commit()
    await db.dispose()

    assert states == []


async def test_an_engine_that_logs_says_begin_and_commit(db, caplog):
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        async with db.session() as session:
            await session.get(Stone, 1)
            await session.commit()

    assert [record.message for record in caplog.records if record.message.startswith(("BEGIN", "COMMIT"))] == [
        "BEGIN (implicit)",
        "COMMIT",
    ]


# -- ways out ----------------------------------------------------------------------------------------------------------


async def commits(session):
    await session.commit()


async def rolls_back(session):
    await session.rollback()


async def closes(session):
    await session.close()


async def invalidates(session):
    await session.invalidate()


async def resets(session):
    await session.reset()


@pytest.mark.parametrize("end", [commits, rolls_back, closes, invalidates, resets])
@pytest.mark.parametrize("expires", [False, True])
async def test_it_ends_as_sqlalchemys(db, unguarded, end, expires):
    seen = []
    for database in (db, unguarded):
        async with database.session(expire_on_commit=expires) as session:
            stone = await session.get(Stone, 1)
            assert is_lean(session) is (database is db)
            owner = session.sync_session.get_transaction()
            await end(session)
            pool = database.engine.pool
            seen.append(
                (
                    "name" in vars(stone),
                    stone in session,
                    session.in_transaction(),
                    owner.is_active,
                    pool.checkedout(),
                    [] if end is invalidates else pool.checkedin() > 0,
                )
            )

    assert seen[0] == seen[1]
    assert seen[0][4] == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_a_begin_block_ends_as_sqlalchemys(db, unguarded, fails):
    seen = []
    for database in (db, unguarded):
        stone = None
        with contextlib.suppress(ZeroDivisionError):
            async with database.session() as session, session.begin() as transaction:
                stone = await session.get(Stone, 1)
                seen.append(is_lean(session))
                _ = 1 / (not fails)
        seen.append((transaction.is_active, "name" in vars(stone), database.engine.pool.checkedout()))
        async with database.session.begin() as session:
            await session.get(Stone, 1)
        seen.append(database.engine.pool.checkedout())

    assert (seen[0], seen[3]) == (True, False)
    assert seen[1:3] == seen[4:6]


@pytest.mark.parametrize("end", [commits, rolls_back, closes])
async def test_a_backend_that_was_ended_is_an_error_as_before(db, unguarded, admin, end):
    seen = []
    for database in (db, unguarded):
        session = database.session()
        await session.get(Stone, 1)
        connected = [held.driver_connection for held in database.engine.pool.extras.held]
        await admin("SELECT pg_terminate_backend($1)", connected[0].get_server_pid())
        while not connected[0].is_closed():
            await asyncio.sleep(0.01)
        try:
            await end(session)
            seen.append(None)
        except Exception as error:  # noqa: BLE001 - compared
            seen.append((type(error), str(error)))
        await session.close()
        seen.append((session.in_transaction(), database.engine.pool.checkedout()))

    assert seen[:2] == seen[2:]


async def test_a_commit_without_an_answer_is_unknown(db, monkeypatch):
    async with db.session() as session:
        await session.get(Stone, 1)
        driver = lean_transaction(session.sync_session).driver
        monkeypatch.setattr(type(driver).__mro__[1], "_commit", _lost, raising=False)
        with pytest.raises(OutcomeUnknownError):
            await session.commit()

    assert db.engine.pool.checkedout() == 0


async def _lost(self, *_):
    self.terminate()
    raise OutcomeUnknownError("lost")


async def test_an_error_of_a_read_is_a_sessions_and_the_transaction_is_sqlalchemys_then(db):
    broken = select(Stone.id / (Stone.id - 1)).where(Stone.id == 1)
    async with db.session() as session:
        for _ in range(3):
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.execute(broken)
            await session.rollback()
        await session.get(Stone, 1)
        assert is_lean(session)
        with pytest.raises(DBAPIError, match="division by zero"):
            await session.execute(broken)
        assert not is_lean(session)
        with pytest.raises(Exception, match="nothing of this transaction was stored"):
            await session.commit()

    assert db.engine.pool.checkedout() == 0


async def test_a_dropped_session_loses_its_connection_with_sqlalchemys_warning(db):
    async def forget():
        session = db.session()
        await session.get(Stone, 1)
        assert is_lean(session)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore", ResourceWarning)  # which would keep the session, as its source
        warnings.simplefilter("always", SAWarning)
        await forget()
        gc.collect()

    assert ["non-checked-in connection" in str(each.message) for each in warned] == [True]
    assert db.engine.pool.checkedout() == 0


# -- what makes it SQLAlchemy's ----------------------------------------------------------------------------------------


async def _adds(session):
    session.add(Stone(id=2, name="black"))
    await session.flush()


async def _changes(session):
    (await session.get(Stone, 1)).name = "white"
    await session.flush()


async def _streams(session):
    async for _ in await session.stream(text("SELECT 1")):
        pass


async def _refreshes(session):
    await session.refresh(await session.get(Stone, 1))


async def _merges(session):
    await session.merge(Stone(id=1, name="red"))
    await session.flush()


async def _deletes(session):
    await session.delete(await session.get(Stone, 1))
    await session.flush()


async def _looks(session):
    assert len(session.get_transaction().sync_transaction._connections) == 2


async def _nests(session):
    async with session.begin_nested():
        await session.get(Stone, 7)


TRIGGERS = {
    "connection()": lambda session: session.connection(),
    "execute()": lambda session: session.execute(text("SELECT 1")),
    "scalars()": lambda session: session.scalars(text("SELECT 1")),
    "run_sync()": lambda session: session.run_sync(lambda inner: inner.connection()),
    "lock": lambda session: session.get(Stone, 1, with_for_update=True),
    "add": _adds,
    "change": _changes,
    "stream": _streams,
    "refresh": _refreshes,
    "merge": _merges,
    "delete": _deletes,
    "look": _looks,
    "savepoint": _nests,
}


@pytest.mark.parametrize("trigger", TRIGGERS)
async def test_it_becomes_sqlalchemys_in_the_same_transaction(db, trigger, admin):
    async with db.session() as session:
        await session.get(Stone, 1)
        backend = pid(session)
        (before,) = await admin("SELECT xact_start FROM pg_stat_activity WHERE pid = $1", backend)

        await TRIGGERS[trigger](session)

        assert not is_lean(session)
        assert await session.get(Stone, 1, populate_existing=True) is not None or trigger == "delete"
        assert tuple((await session.execute(STATE)).one()) == (backend, before["xact_start"])
        assert db.pool_status().in_use == 1
        await session.execute(text("INSERT INTO transaction_stones VALUES (9, 'late')"))
        await session.commit()
        assert db.pool_status().in_use == 0

    async with db.session() as session:
        assert (await session.get(Stone, 9)).name == "late"
        assert is_lean(session)


@pytest.mark.parametrize("name", ["commit", "rollback"])
async def test_who_listens_to_its_end_hears_it(db, name):
    heard = []
    async with db.session() as session:
        await session.get(Stone, 1)
        event.listen(db.engine.sync_engine, name, heard.append)
        if name == "commit":
            await session.commit()

    assert [type(each) for each in heard] == [Connection]
    assert db.engine.pool.checkedout() == 0


@pytest.mark.parametrize("name", ["before_commit", "after_commit", "after_transaction_end"])
async def test_listeners_of_the_session_may_use_its_connection(db, name):
    heard = []
    async with db.session() as session:
        await session.get(Stone, 1)
        event.listen(session.sync_session, name, lambda *_: heard.append(name))
        await session.commit()

    assert heard == [name]
