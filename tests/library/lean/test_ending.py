"""A COMMIT that is awaited before SQLAlchemy's bookkeeping: the same outcome, listeners and errors as within it."""

import asyncio

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession as PlainSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from verdigris import Base, Database
from verdigris.errors import CommitRefusedError
from verdigris.lean import ending


class Pebble(Base):
    __tablename__ = "ending_pebbles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


ADD = text("INSERT INTO ending_pebbles VALUES (1, 'grey')")


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=1, max_overflow=1)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Pebble.__table__])
    yield database
    await database.dispose()


@pytest.fixture
def awaited(monkeypatch):
    """What `ending.commit_at_once` said of each commit: whether it did it."""
    said, original = [], ending.commit_at_once

    async def spy(*arguments):
        said.append("raised")
        said[-1] = await original(*arguments)
        return said[-1]

    monkeypatch.setattr(ending, "commit_at_once", spy)
    return said


async def count(db):
    async with db.read() as session:
        return await session.scalar(text("SELECT count(*) FROM ending_pebbles"))


async def test_a_plain_commit_is_awaited_first_and_gives_the_connection_back(db, awaited):
    async with db.session() as session:
        await session.execute(ADD)
        await session.commit()

        assert db.engine.pool.checkedout() == 0
        assert not session.in_transaction()
        await session.execute(text("UPDATE ending_pebbles SET name = 'white'"))
        await session.commit()

    assert awaited == [True, True]
    assert await count(db) == 1


async def test_a_listener_of_statements_in_any_engine_does_not_take_it_away_but_one_of_commits_does(db, awaited):
    def statements(*_):
        pass

    event.listen(Engine, "before_cursor_execute", statements)
    try:
        async with db.session() as session:
            await session.execute(ADD)
            await session.commit()
    finally:
        event.remove(Engine, "before_cursor_execute", statements)
    heard = []
    event.listen(db.engine.sync_engine, "commit", heard.append)
    async with db.session() as session:
        await session.execute(text("UPDATE ending_pebbles SET name = 'white'"))
        await session.commit()

    assert awaited == [True, False]
    assert len(heard) == 1


async def test_objects_stay_in_the_session_or_expire_as_it_was_told(db, awaited):
    async with db.session(expire_on_commit=True) as session:
        await session.execute(ADD)
        pebble = await session.get(Pebble, 1)
        await session.commit()

        assert "name" not in vars(pebble)
        assert pebble in session

    async with db.session() as session:
        pebble = await session.get(Pebble, 1)
        await session.commit()

        assert pebble.name == "grey"

    assert awaited == [True, True]


async def test_what_is_pending_is_flushed_within_the_commit_of_sqlalchemy(db, awaited):
    async with db.session() as session:
        await session.execute(text("SELECT 1"))
        session.add(Pebble(id=2, name="black"))
        await session.commit()

    assert awaited == [False]
    assert await count(db) == 1


async def test_an_open_savepoint_is_released_within_the_commit_of_sqlalchemy(db, awaited):
    async with db.session() as session:
        await session.execute(ADD)
        await session.begin_nested()
        await session.commit()

    assert awaited == [False]
    assert await count(db) == 1


@pytest.mark.parametrize("name", ["before_commit", "after_commit"])
async def test_listeners_of_a_session_and_of_all_are_called_in_their_order(db, awaited, name):
    heard = []
    async with db.session() as session:
        await session.execute(ADD)
        event.listen(session.sync_session, name, lambda _: heard.append("its own"))
        await session.commit()

    def anybody(_):
        heard.append("all")

    event.listen(Session, name, anybody)
    try:
        async with db.session() as session:
            await session.execute(text("SELECT 1"))
            await session.commit()
    finally:
        event.remove(Session, name, anybody)

    assert heard == ["its own", "all"]
    assert awaited == [False, False]


async def test_listeners_of_the_engine_hear_of_the_commit(db, awaited):
    heard = []
    event.listen(db.engine.sync_engine, "commit", lambda _: heard.append("commit"))

    async with db.session() as session:
        await session.execute(ADD)
        await session.commit()

    assert heard == ["commit"]
    assert awaited == [False]


async def test_a_commit_that_the_server_refuses_raises_the_same_error_as_sqlalchemys(db, awaited):
    defer = "ALTER TABLE ending_pebbles ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"
    twice = text("INSERT INTO ending_pebbles VALUES (1, 'grey'), (2, 'grey')")
    async with db.session.begin() as session:
        await session.execute(text(defer))
    awaited.clear()
    errors = []

    for session in (db.session(), PlainSession(db.engine)):
        async with session:
            await session.execute(twice)
            with pytest.raises(IntegrityError) as caught:
                await session.commit()
            errors.append(caught.value)
            await session.rollback()
            await session.execute(text("SELECT 1"))

    assert awaited == ["raised"]
    assert type(errors[0].orig) is type(errors[1].orig)
    assert str(errors[0]) == str(errors[1])
    assert db.engine.pool.checkedout() == 0
    assert await count(db) == 0


async def test_a_transaction_that_was_aborted_is_refused(db, awaited):
    async with db.session() as session:
        with pytest.raises(Exception, match="nowhere"):
            await session.execute(text("SELECT * FROM nowhere"))
        with pytest.raises(CommitRefusedError):
            await session.commit()

    assert awaited == ["raised"]
    assert db.engine.pool.checkedout() == 0


async def test_a_connection_that_must_be_cleared_is_given_back_in_a_greenlet(db, awaited):
    async with db.session() as session:
        await session.execute(text("SET work_mem = '5MB'"))
        await session.commit()

    async with db.session() as session:
        assert await session.scalar(text("SHOW work_mem")) == "4MB"
        await session.commit()

    assert awaited == [False, True]


async def test_one_that_the_pool_has_no_room_for_is_closed(db, awaited):
    async with db.session() as one, db.session() as other:
        await asyncio.create_task(one.execute(text("SELECT 1")))
        await asyncio.create_task(other.execute(text("SELECT 1")))
        await asyncio.create_task(one.commit())
        await asyncio.create_task(other.commit())

    assert awaited == [True, False]
    assert (db.engine.pool.checkedin(), db.engine.pool.checkedout()) == (1, 0)
