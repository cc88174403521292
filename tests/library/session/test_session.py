import asyncio
import contextlib
import gc
import inspect
import warnings

import anyio
import pytest
from sqlalchemy import delete, exc, func, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from verdigris.database import Database
from verdigris.errors import (
    CommitRefusedError,
    PositionError,
    ReadOnlyError,
    SessionClosedError,
    SessionSharedError,
    UnflushedError,
)
from verdigris.testing import Sandbox


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.dispose()


async def count(db):
    async with db.session() as session:
        return await session.scalar(text("SELECT count(*) FROM note"))


async def swallow(db):
    async with db.session.begin() as session:
        await session.execute(text("INSERT INTO note VALUES (1, 'one')"))
        with pytest.raises(exc.DBAPIError):
            await session.execute(text("SELECT 1/0"))


async def test_attributes_stay_readable_after_commit(db):
    async with db.session() as session:
        note = Note(id=1, text="kept")
        session.add(note)
        await session.commit()

    assert note.text == "kept"


async def test_attributes_expire_on_commit_when_asked_to(database_url, db):
    other = Database(database_url, expire_on_commit=True)
    async with other.session() as session:
        note = Note(id=1, text="gone")
        session.add(note)
        await session.commit()

        with pytest.raises(exc.MissingGreenlet):
            _ = note.text
    await other.dispose()


async def test_a_commit_after_a_swallowed_error_is_refused_and_names_the_cause(db):
    with pytest.raises(CommitRefusedError) as refused:
        await swallow(db)

    assert "22012" in str(refused.value)
    assert isinstance(refused.value.__cause__, exc.DBAPIError)
    assert await count(db) == 0


async def catches_a_failed_flush(session, block):
    async with block():
        session.add(Note(id=2, text="two"))
        await session.flush()
        session.add(Note(id=1, text="again"))
        with contextlib.suppress(exc.IntegrityError):
            await session.flush()
        session.add(Note(id=3, text="three"))


@pytest.mark.parametrize("shortcuts", [True, False])
async def test_a_block_in_which_a_failed_flush_was_caught_does_not_end_in_silence(database_url, db, shortcuts):
    other = Database(database_url, shortcuts=shortcuts)
    async with other.session.begin() as session:
        session.add(Note(id=1, text="one"))
    for block in ("begin", "begin_nested"):
        async with other.session() as session:
            with pytest.raises(exc.PendingRollbackError, match="duplicate key"):
                await catches_a_failed_flush(session, getattr(session, block))
            session.expunge_all()  # the third note is still pending
            assert (await session.scalars(select(Note.id))).all() == [1]
    assert await count(db) == 1
    assert other.pool_status().in_use == 0
    await other.dispose()


@pytest.mark.parametrize("shortcuts", [True, False])
async def test_a_savepoint_that_a_caught_flush_has_ended_says_so_and_the_transaction_around_it_goes_on(
    database_url, db, shortcuts
):
    other = Database(database_url, shortcuts=shortcuts)
    async with other.session.begin() as session:
        session.add(Note(id=1, text="one"))
        await session.flush()
        with pytest.raises(exc.PendingRollbackError, match="duplicate key"):
            await catches_a_failed_flush(session, session.begin_nested)
        session.expunge_all()  # the third note is still pending
        session.add(Note(id=4, text="four"))
    async with other.session() as session:
        assert (await session.scalars(select(Note.id).order_by(Note.id))).all() == [1, 4]
    await other.dispose()


async def test_a_savepoint_around_an_expected_error_leaves_the_commit_alone(db):
    async with db.session.begin() as session:
        await session.execute(text("INSERT INTO note VALUES (1, 'one')"))
        with pytest.raises(exc.DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT 1/0"))

    assert await count(db) == 1


async def test_without_the_guard_postgresql_drops_the_work_in_silence(database_url, db):
    other = Database(database_url, guard_commit=False)
    await swallow(other)

    assert await count(db) == 0
    await other.dispose()


async def test_the_connection_of_a_refused_commit_goes_on_working(db):
    for _ in range(3):
        with pytest.raises(CommitRefusedError):
            await swallow(db)

    assert await count(db) == 0
    assert db.pool_status().in_use == 0
    assert db.pool_status().checkouts == 5


async def test_two_tasks_in_one_session_get_an_error_that_names_both(db):
    async def slow(session):
        await session.execute(text("SELECT pg_sleep(0.2)"))

    async with db.session() as session:
        with pytest.raises(SessionSharedError) as shared:
            await asyncio.gather(
                asyncio.create_task(slow(session), name="first"), asyncio.create_task(slow(session), name="second")
            )

    assert "task 'second' (execute at " in str(shared.value)
    assert "task 'first' (execute at " in str(shared.value)
    assert str(shared.value).count("test_session.py:") == 2


async def test_the_guard_holds_on_a_cold_and_on_a_warm_pool_and_on_bare_statements(db):
    for _ in range(2):
        async with db.session() as session:
            with pytest.raises(SessionSharedError) as shared:
                await asyncio.gather(session.scalar(text("SELECT 1")), session.scalar(text("SELECT 2")))

        assert str(shared.value).count("test_session.py:") == 2
    assert db.pool_status().in_use == 0


async def test_a_commit_while_another_task_reads_is_refused_and_poisons_nothing(db):
    async with db.session() as session:
        reading = asyncio.create_task(session.execute(text("SELECT pg_sleep(0.2)")))
        await asyncio.sleep(0.05)

        with pytest.raises(SessionSharedError):
            await session.commit()
        await reading

    async with db.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    assert db.pool_status().in_use == 0


async def test_a_session_may_be_handed_from_task_to_task(db):
    async with db.session() as session:
        for _ in range(3):
            assert await asyncio.create_task(session.scalar(text("SELECT 1"))) == 1
        assert await asyncio.wait_for(session.scalar(text("SELECT 1")), 5) == 1


async def test_sharing_goes_unnoticed_when_the_guard_is_off(database_url):
    other = Database(database_url, guard_tasks=False)
    async with other.session() as session:
        await session.connection()
        found = await asyncio.gather(session.scalar(text("SELECT 1")), session.scalar(text("SELECT 2")))

    assert found == [1, 2]
    await other.dispose()


async def test_leaving_a_session_waits_for_the_task_that_is_still_inside(db):
    finished = []

    async def straggler(session):
        await session.execute(text("SELECT pg_sleep(0.2)"))
        finished.append("statement")
        with pytest.raises(SessionClosedError):
            await session.execute(text("SELECT 1"))

    async with db.session() as session:
        task = asyncio.create_task(straggler(session))
        await asyncio.sleep(0.05)

    assert finished == ["statement"]
    await task
    assert db.pool_status().in_use == 0


async def test_leaving_a_transaction_while_another_task_works_in_it_rolls_back(db):
    stragglers = []

    async def leave():
        async with db.session.begin() as session:
            await session.execute(text("INSERT INTO note VALUES (1, 'one')"))
            stragglers.append(asyncio.create_task(session.execute(text("SELECT pg_sleep(0.2)"))))
            await asyncio.sleep(0.05)

    with pytest.raises(SessionSharedError):
        await leave()

    await stragglers[0]
    assert await count(db) == 0
    assert db.pool_status().in_use == 0


async def test_a_closed_session_says_what_to_use_instead(db):
    async with db.session() as session:
        pass

    for use in (lambda: session.execute(text("SELECT 1")), lambda: session.get(Note, 1), session.commit):
        with pytest.raises(SessionClosedError, match=r"async with db.session\(\) as session"):
            await use()
    with pytest.raises(SessionClosedError):
        session.add(Note(id=1, text="late"))
    await session.close()


async def test_a_closed_session_begins_again_when_asked_to(database_url):
    other = Database(database_url, close_resets_only=True)
    async with other.session() as session:
        pass

    assert await session.scalar(text("SELECT 1")) == 1
    await session.close()
    await other.dispose()


async def test_a_cancelled_unit_leaves_no_connection_behind(db):
    async def unit():
        async with db.session.begin() as session:
            await session.execute(text("INSERT INTO note VALUES (1, 'one')"))
            await session.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(unit(), 0.2)

    assert db.pool_status().in_use == 0
    assert await count(db) == 0


@pytest.mark.parametrize("how", ["edge", "level"])
async def test_a_cancelled_statement_is_stopped_on_the_server(db, admin, how):
    async def unit():
        async with db.session() as session:
            await session.execute(text("SELECT pg_sleep(7)"))

    if how == "edge":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(unit(), 0.2)
    else:  # a task group of anyio cancels again at every await
        with anyio.move_on_after(0.2):
            await unit()
    await asyncio.sleep(0.3)

    assert not await admin("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(7)' AND state = 'active'")
    assert db.pool_status().in_use == 0


@pytest.fixture
async def explicit(database_url, db):
    database = Database(database_url, autoflush=False)
    async with database.session.begin() as session:
        session.add(Note(id=1, text="one"))
    yield database
    await database.dispose()


MISSING = [
    lambda session: session.scalars(select(Note)),
    lambda session: session.execute(select(func.count()).select_from(Note)),
    lambda session: session.execute(select(Note.id).where(Note.id.in_(select(Note.id)))),
    lambda session: session.get(Note, 2),
    lambda session: session.execute(text("SELECT * FROM note")),
    lambda session: session.execute(update(Note).values(text="x")),
]


@pytest.mark.parametrize("statement", MISSING)
async def test_without_autoflush_a_statement_that_would_miss_pending_changes_is_an_error(explicit, statement):
    async with explicit.session() as session:
        session.add(Note(id=2, text="two"))
        with pytest.raises(UnflushedError, match=r"await session.flush\(\)"):
            await statement(session)
        await session.flush()
        await statement(session)


async def test_without_autoflush_a_refresh_drops_nothing(explicit):
    async with explicit.session() as session:
        note = await session.get(Note, 1)
        note.text = "changed"
        with pytest.raises(UnflushedError, match="drop the pending changes of Note"):
            await session.refresh(note)

        assert note.text == "changed"
        await session.flush()
        await session.refresh(note)
        await session.commit()
        assert note.text == "changed"


async def test_without_autoflush_what_does_not_touch_the_pending_goes_on(explicit):
    async with explicit.session() as session:
        session.add(Note(id=2, text="two"))

        assert await session.scalar(text("SELECT 7")) == 7
        assert await session.scalar(select(func.now())) is not None
        await session.commit()
    async with explicit.session() as session:
        assert len((await session.scalars(select(Note))).all()) == 2


async def test_with_autoflush_a_query_sees_what_is_pending(db):
    async with db.session() as session:
        session.add(Note(id=1, text="one"))

        assert (await session.scalar(select(Note))).id == 1


async def test_a_read_session_reads_in_one_round_trip_without_a_transaction(db):
    async with db.read() as session:
        first = await session.scalar(text("SELECT pg_current_xact_id()::text"))
        second = await session.scalar(text("SELECT pg_current_xact_id()::text"))

    assert first != second


def removal():
    return delete(Note).returning(Note.id).cte("gone")


def in_a_condition():
    return select(Note).where(Note.id.in_(select(removal().c.id)))


WRITES = [
    text("INSERT INTO note VALUES (1, 'one')"),
    text("WITH gone AS (DELETE FROM note RETURNING 1) SELECT count(*) FROM gone"),
    text("WITH kept AS (SELECT 1) UPDATE note SET text = ''"),
    text("WITH a AS MATERIALIZED (UPDATE ONLY \"note\" SET text = '' RETURNING 1) TABLE a"),
    text("EXPLAIN ANALYZE DELETE FROM note"),
    text("EXPLAIN (BUFFERS, ANALYZE) DELETE FROM note"),
    text("SELECT 1 AS one INTO made"),
    text("SELECT 1; DELETE FROM note"),
    text("/* SELECT */ TRUNCATE note"),
    text("-- only a word"),
    Note.__table__.insert().values(id=1, text="one"),
    select(removal().c.id),
    select(Note).add_cte(removal()),
    in_a_condition(),
]
READS = [
    "/* from /* where */ it's */ SELECT 1",
    "-- why\n(SELECT 1) UNION (SELECT 2)",
    "EXPLAIN DELETE FROM note",
    "EXPLAIN (ANALYZE) SELECT 1",
    "WITH a AS (SELECT id AS delete, id AS update FROM note FOR UPDATE) SELECT max(delete), (update) FROM a GROUP BY 2",
    "SELECT 'WITH a AS (DELETE FROM note)' AS \"INTO\", $$; DELETE FROM note$$, E'\\'; DELETE FROM note'",
    "VALUES (1), (2);",
]


async def test_a_read_session_refuses_to_write(db):
    async with db.session.begin() as session:
        session.add(Note(id=1, text="one"))
    ran = []
    for statement in WRITES:
        for way in ("execute", "scalar", "scalars", "stream", "connection"):
            async with db.read() as session:
                run = (await session.connection()).execute if way == "connection" else getattr(session, way)
                try:
                    await run(statement)
                except ReadOnlyError as refused:
                    assert "write" in refused.what  # noqa: PT017 - each is asked, and those that ran are told
                else:
                    ran.append((way, str(statement)))

    assert not ran
    async with db.read() as session:
        assert (await session.execute(select(Note.id, Note.text))).all() == [(1, "one")]


async def test_a_read_session_runs_queries_however_they_are_written(db):
    async with db.read() as session:
        for statement in READS:
            await session.execute(text(statement.replace(":", r"\:")))


async def test_what_writes_is_refused_also_where_other_sessions_have_run_it(db):
    for _ in range(4):
        async with db.session.begin() as session:
            await session.execute(in_a_condition())
            session.add(Note(id=1, text="one"))
    async with db.read() as session:
        with pytest.raises(ReadOnlyError):
            await session.scalars(in_a_condition())

    assert await count(db) == 1


async def test_a_read_session_streams_in_a_snapshot_only(db):
    async with db.read() as session:
        with pytest.raises(ReadOnlyError, match="stream") as error:
            await session.stream(select(Note))
    async with db.read(snapshot=True) as session:
        rows = await session.stream(select(Note))
        assert [row async for row in rows] == []

    assert "snapshot=True" in str(error.value)


@pytest.mark.parametrize("kind", [Database, Sandbox])
async def test_what_is_no_position_is_refused_also_where_there_is_no_replica(kind, database_url):
    db = kind(database_url)

    with pytest.raises(PositionError, match="'yesterday' is no position"):
        db.read(after="yesterday")
    await db.read(after="16/B374D848").close()

    await db.dispose()


async def test_a_read_session_flushes_nothing(db):
    async with db.read() as session:
        session.add(Note(id=1, text="one"))
        with pytest.raises(ReadOnlyError):
            await session.commit()

    assert await count(db) == 0


async def test_a_snapshot_sees_one_moment_and_the_server_refuses_writes(db):
    async with db.read(snapshot=True) as session:
        before = await session.scalar(text("SELECT count(*) FROM note"))
        async with db.session.begin() as writer:
            writer.add(Note(id=1, text="one"))
        after = await session.scalar(text("SELECT count(*) FROM note"))
        with pytest.raises(exc.DBAPIError, match="read-only"):
            await session.scalar(select(func.count()).select_from(removal()))

    assert (before, after) == (0, 0)
    assert await count(db) == 1


async def test_a_session_dropped_unclosed_warns_with_the_line_that_made_it(db, caplog):
    async def forget():
        session = db.session()
        await session.execute(text("SELECT 1"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await forget()
        gc.collect()

    (dropped,) = [each for each in caught if each.category is ResourceWarning]
    line = inspect.getsourcelines(forget)[1] + 1
    assert f"test_session.py:{line}" in str(dropped.message)
    assert f"test_session.py:{line}" in caplog.text
    caught.clear()
    del dropped  # the warning holds the session; SQLAlchemy has a word of its own on the connection that goes with it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


async def test_a_session_that_is_closed_or_was_never_used_is_dropped_without_a_word(db, recwarn):
    db.session()
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
    del session
    gc.collect()

    assert not [each for each in recwarn if each.category is ResourceWarning]


async def test_in_a_block_whose_transaction_has_ended_nothing_is_committed_in_silence(db):
    async with db.session() as session, session.begin_nested():
        await session.rollback()

        with pytest.raises(exc.InvalidRequestError, match="closed transaction inside context manager"):
            await session.commit()


@pytest.mark.parametrize("name", ["close", "expunge_all"])
async def test_who_watches_sessions_by_a_method_of_his_own_sees_them_closed(db, monkeypatch, name):
    closed, original = [], getattr(Session, name)

    def watching(session):
        closed.append(session)
        return original(session)

    monkeypatch.setattr(Session, name, watching)
    async with db.read() as session:
        await session.scalar(text("SELECT 1"))
    async with db.session() as other:
        await other.scalar(text("SELECT 1"))
        await other.commit()

    assert closed == [session.sync_session, other.sync_session]
