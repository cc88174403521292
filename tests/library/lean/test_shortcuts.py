"""`Database(shortcuts=False)`: SQLAlchemy's and asyncpg's own way, with the same results and the same guards."""

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, mapped_column, relationship, selectinload

from verdigris import Base, Database
from verdigris.engine.deadlines import Deadlines
from verdigris.engine.pipelined_begin import Beginning
from verdigris.engine.pool import Pool
from verdigris.engine.prepared import Prepared
from verdigris.errors import CommitRefusedError, SessionClosedError, SessionSharedError
from verdigris.lean import ending, methods
from verdigris.lean.making import Maker
from verdigris.lean.plans import Plan
from verdigris.lean.reads import LeanReads
from verdigris.lean.transaction import LeanTransaction
from verdigris.session import session as sessions

SHORT = [
    (LeanReads, "_rows"),
    (Plan, "first"),
    (Maker, "make"),
    (Pool, "take"),
    (LeanTransaction, "fetch"),
    (Beginning, "behind_begin"),
    (Deadlines, "call_later"),
    (ending, "commit_at_once"),
    (ending, "close"),
    (methods, "nothing_to_commit"),
    (sessions, "close_at_once"),
]


# On a release of SQLAlchemy's that lacks each name that the short ways look for.
WITHOUT = """
    import asyncio, logging, os

    from verdigris.lean import theirs

    found = theirs.theirs
    theirs.theirs = lambda module, *names: found(module, *(f"no{name}" for name in names))
    logging.basicConfig(format="%(message)s")

    from pydantic import BaseModel
    from sqlalchemy import select
    from sqlalchemy.orm import Mapped, mapped_column
    from verdigris import Base, Database

    class Note(Base):
        __tablename__ = "notes"

        id: Mapped[int] = mapped_column(primary_key=True)

    class NoteOut(BaseModel):
        id: int

    async def add(session):
        session.add(Note())

    async def run():
        db = Database(os.environ["DATABASE_URL"])
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await db.transaction(add)
        async with db.session.begin() as session:
            assert await session.get(Note, 1)
        statement = select(Note).where(Note.id < 9).order_by(Note.id).limit(5)
        for _ in range(4):
            for opened in (db.session, db.read):
                async with opened() as session:
                    print([note.id for note in await session.scalars(statement)])
        print((await db.json(statement, list[NoteOut])).body, await db.fetch(statement, list[NoteOut]))
        await db.dispose()

    asyncio.run(run())
"""


class Tree(Base):
    __tablename__ = "shortcuts_trees"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    leaves: Mapped[list["Leaf"]] = relationship(lazy="raise_on_sql", order_by="Leaf.id")


class Leaf(Base):
    __tablename__ = "shortcuts_leaves"
    id: Mapped[int] = mapped_column(primary_key=True)
    tree_id: Mapped[int] = mapped_column(ForeignKey("shortcuts_trees.id"))


async def made(url, how):
    options = {"pool_size": 2, "max_overflow": 0}
    if how == "from_engine":
        db = Database.from_engine(create_async_engine(url, **options), shortcuts=False)
    else:
        db = Database(url, **options, shortcuts=how == "short")
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Tree.__table__, Leaf.__table__])
    async with db.session.begin() as session:
        session.add_all([Tree(id=1, name="oak"), Tree(id=2, name="elm"), Leaf(id=7, tree_id=1), Leaf(id=8, tree_id=1)])
    return db


@pytest.fixture
async def plain(database_url):
    database = await made(database_url, "plain")
    yield database
    await database.dispose()


@pytest.fixture
def taken(monkeypatch):
    """Note which of the short ways are taken."""
    found = set()
    for home, name in SHORT:
        monkeypatch.setattr(home, name, noting(getattr(home, name), found, f"{home.__name__}.{name}"))
    prepared = Prepared.fetch_prepared

    async def fetch_prepared(self, query, arguments):
        found.update({"Prepared"} if self.direct else ())
        return await prepared(self, query, arguments)

    monkeypatch.setattr(Prepared, "fetch_prepared", fetch_prepared)
    return found


def noting(original, found, name):
    def noted(*args, **options):
        found.add(name)
        return original(*args, **options)

    return noted


async def everything(db):
    """Use a database in the ways that have a short one, each often enough for it, and return what came of it."""
    by_name = select(Tree).where(Tree.name == "oak")
    with_leaves = select(Tree).options(selectinload(Tree.leaves)).order_by(Tree.id)
    came = []
    for _ in range(4):
        async with db.session() as session:
            came.append((await session.get(Tree, 1)).name)
            came.append((await session.scalar(by_name)).id)
        async with db.session.begin() as session:
            came += [[leaf.id for leaf in tree.leaves] for tree in await session.scalars(with_leaves)]
            came.append((await session.execute(select(Tree.id, Tree.name).order_by(Tree.id))).all())
        async with db.read() as session:
            came.append((await session.scalar(by_name)).name)
        async with db.read(snapshot=True) as session:
            came.append((await session.get(Tree, 2)).name)
        async with db.session() as session:
            (await session.get(Tree, 2)).name += "!"
            await session.commit()
        async with db.session() as session:
            await session.commit()
        async with db.session() as session:
            await session.get(Tree, 1)
            await session.commit()
        came.append(await db.lane.fetchval("SELECT name FROM shortcuts_trees WHERE id = $1", (2,)))
        came.append(await db.transaction(lambda session: session.scalar(select(Tree.name).where(Tree.id == 2))))
    return came


@pytest.mark.parametrize("how", ["plain", "from_engine"])
async def test_none_of_the_short_ways_is_taken_and_the_results_are_the_same(database_url, taken, how):
    db = await made(database_url, how)
    came = await everything(db)
    ways = set(taken)
    async with db.engine.connect() as connection:
        adapter = (await connection.get_raw_connection()).dbapi_connection
        kind, driver = type(adapter), adapter.driver_connection
        short = driver.direct, driver.waits
        await connection.run_sync(Base.metadata.drop_all, tables=[Leaf.__table__, Tree.__table__])
        await connection.commit()
    await db.dispose()

    other = await made(database_url, "short")
    taken.clear()
    assert await everything(other) == came
    await other.dispose()

    assert ways == set()
    assert kind is AsyncAdapt_asyncpg_connection
    assert short == (False, False)
    assert taken == {*(f"{home.__name__}.{name}" for home, name in SHORT), "Prepared"}  # all that is looked at exists


async def swallow(db):
    async with db.session.begin() as session:
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT 1/0"))


async def test_the_guards_stay(plain):
    async with plain.session() as session:
        with pytest.raises(SessionSharedError):
            await asyncio.gather(*(session.execute(text("SELECT pg_sleep(0.1)")) for _ in range(2)))
    with pytest.raises(SessionClosedError):
        await session.scalar(select(Tree.id))
    with pytest.raises(CommitRefusedError):
        await swallow(plain)

    assert plain.pool_status().in_use == 0


SLOW_COMMIT = (
    (
        "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'"
    ),
    (
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON shortcuts_trees"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.slow()"
    ),
)


async def test_a_commit_that_is_cancelled_is_waited_for_and_stored(plain):
    committing = asyncio.Event()

    async def unit():
        async with plain.session() as session:
            for statement in SLOW_COMMIT:
                await session.execute(text(statement))
            session.add(Tree(id=3, name="ash"))
            await session.flush()
            committing.set()
            await session.commit()

    task = asyncio.create_task(unit())
    await committing.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task

    assert cancelled.value.__notes__ == ["It came while COMMIT was under way: the work is stored."]
    async with plain.read() as session:
        assert (await session.get(Tree, 3)).name == "ash"
    assert plain.pool_status().in_use == 0


async def test_a_unit_that_is_cancelled_gives_its_connection_back(plain):
    async def unit():
        async with plain.session() as session:
            await session.get(Tree, 1)
            await asyncio.sleep(5)

    task = asyncio.create_task(unit())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert plain.pool_status().in_use == 0


def test_a_release_that_lacks_a_name_has_sqlalchemys_way_and_is_told(database_url):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(methods.__file__).parents[2]),
        "DATABASE_URL": str(database_url),
    }
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT)]

    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["[1]"] * 8 + ["b'[{\"id\":1}]' [NoteOut(id=1)]"]
    told = ran.stderr.strip()
    assert told.startswith("sessions go SQLAlchemy's way, as with shortcuts=False: this release has no sqlalchemy.")
    assert len(told.splitlines()) == 1
