"""Reads on a standby: never older than allowed, never without one's own writes, and the primary where it cannot be."""

import asyncio
import contextlib

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import exc, func, make_url, select, text
from sqlalchemy.orm import Mapped, mapped_column

from tests.faults.rig import Postgres, Standby, eventually, within
from verdigris import AsyncSession, Base, Database
from verdigris.errors import DatabaseUnavailableError, PositionError, StandbyError, classify
from verdigris.fastapi import install


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def pair():
    """A primary and its standby."""
    with Postgres() as primary, Standby(primary) as standby:
        asyncio.run(primary.run("CREATE TABLE note (id int PRIMARY KEY)"))
        asyncio.run(eventually(standby.caught_up))
        yield primary, standby


@pytest.fixture
async def make(pair):
    """A Database with a replica; what a test has paused goes on after it."""
    primary, standby = pair
    await primary.run("TRUNCATE note")
    made = []

    def database(**options):
        db = Database(
            primary.url_for("postgres"),
            **{"replicas": [standby.url_for("postgres")], "max_lag": 0.5, "pool_size": 4, "max_overflow": 0, **options},
        )
        made.append(db)
        return db

    yield database
    for db in made:
        await db.dispose()
    standby.start()
    await standby.run("SELECT pg_wal_replay_resume()")
    await eventually(standby.caught_up)


@contextlib.asynccontextmanager
async def paused(standby):
    """Let the standby replay nothing: as far behind as a replica can be."""
    await standby.run("SELECT pg_wal_replay_pause()")

    async def stands():
        return (await standby.run("SELECT pg_get_wal_replay_pause_state()"))[0][0] == "paused"

    await eventually(stands)
    try:
        yield
    finally:
        await standby.run("SELECT pg_wal_replay_resume()")


async def on_replica(db, **options):
    async with db.read(**options) as session:
        return await session.scalar(text("SELECT pg_is_in_recovery()"))


async def count(db, **options):
    async with db.read(**options) as session:
        return await session.scalar(text("SELECT count(*) FROM note"))


async def write(db, number):
    async with db.session.begin() as session:
        await session.execute(text("INSERT INTO note VALUES (:id)"), {"id": number})


def elsewhere(work):
    """Do it in a task of its own, which has written nothing."""
    return asyncio.create_task(work)


class ByName(AsyncSession):
    """A team's own class, whose `__init__` takes what AsyncSession's does and no more."""

    def __init__(self, bind=None, **options):
        AsyncSession.__init__(self, bind, **options)


@pytest.mark.parametrize("kind", [AsyncSession, ByName])
async def test_reads_go_to_the_replica_and_writes_to_the_primary(make, kind):
    db = make(session_class=kind)

    assert not await on_replica(db)  # nothing is known of it yet
    assert await eventually(lambda: elsewhere_on_replica(db))
    async with db.session() as session:
        assert not await session.scalar(text("SELECT pg_is_in_recovery()"))
    assert await on_replica(db, snapshot=True)
    assert not await on_replica(db, max_lag=0)


async def test_a_replica_that_gives_no_connection_more_is_read_for_by_the_primary(make, pair):
    primary, standby = pair
    await primary.run("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 1")  # which the follower has
    url = make_url(standby.url_for("postgres")).set(username="narrow", password="narrow")
    await eventually(standby.caught_up)
    db = make(replicas=[url])
    await on_replica(db)
    await eventually(lambda: elsewhere_followed(db))

    assert not await elsewhere_on_replica(db)
    await db.dispose()
    await primary.run("DROP ROLE narrow")


async def elsewhere_followed(db):
    (replica,) = db.replicas
    return replica.lag < 0.5


async def test_a_slow_read_is_explained_where_it_was_slow(make):
    db = make(slow_query=0.0, explain_slow="analyze")
    await eventually(lambda: elsewhere_on_replica(db))

    async with db.read() as session:
        await session.execute(text("SELECT 1 WHERE pg_is_in_recovery()"))
    await db.queries.aclose()

    (plan,) = [query.plan.plan for query in db.queries if "WHERE pg_is_in_recovery" in query.fingerprint]
    assert "rows=1" in plan.split("actual")[1]


async def elsewhere_on_replica(db, **options):
    return await elsewhere(on_replica(db, **options))


async def test_a_task_reads_its_own_writes(make, pair):
    db, (_, standby) = make(max_lag=60), pair
    await eventually(lambda: elsewhere_on_replica(db))

    async with paused(standby):
        assert await on_replica(db)
        await write(db, 1)
        mine, others = await count(db), await elsewhere(count(db))

    assert (mine, others) == (1, 0)
    await eventually(lambda: on_replica(db))
    assert await count(db) == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["transaction", "commit", "gather", "core"])
async def test_a_write_is_ones_own_whichever_way_it_was_committed(make, pair, way):
    db, (_, standby) = make(max_lag=60), pair
    await eventually(lambda: elsewhere_on_replica(db))

    async def insert(connection):
        await connection.execute(text("INSERT INTO note VALUES (1)"))

    async with paused(standby):
        if way == "transaction":
            await db.transaction(insert)
        elif way == "gather":
            await db.gather(insert)
        elif way == "core":
            async with db.engine.begin() as connection:
                await insert(connection)
        else:
            async with db.session() as session:
                await insert(session)
                await session.commit()
        assert await count(db) == 1


async def test_a_lean_read_runs_on_the_replica_too(make, pair):
    db, (primary, standby) = make(max_lag=60), pair
    await eventually(lambda: elsewhere_on_replica(db))

    async def notes():
        async with db.read() as session:
            return (await session.execute(select(Note))).scalars().all()

    async with paused(standby):
        await primary.run("INSERT INTO note VALUES (1)")
        before = await elsewhere(notes())
        await write(db, 2)
        after = await notes()

    assert before == []
    assert [note.id for note in after] == [1, 2]


async def test_writing_and_reading_in_turn_misses_nothing_and_still_uses_the_replica(make):
    db, used = make(), 0
    await eventually(lambda: elsewhere_on_replica(db))

    for number in range(60):
        await write(db, number)
        await asyncio.sleep(0.02 * (number % 10 == 0))
        async with db.read() as session:
            found, replica = (
                await session.execute(text("SELECT (SELECT count(*) FROM note), pg_is_in_recovery()"))
            ).one()
        assert found == number + 1
        used += replica
        if number % 10 == 0:
            await eventually(lambda: on_replica(db))
            assert await count(db) == number + 1
            used += 1

    assert used >= 6


@pytest.mark.slow
async def test_a_replica_that_lags_is_used_up_to_the_lag_allowed_and_not_beyond(make, pair):
    db, (primary, standby) = make(max_lag=0.5), pair
    await eventually(lambda: elsewhere_on_replica(db))

    async with paused(standby):
        await primary.run("INSERT INTO note VALUES (1)")  # by somebody of whom this process knows nothing

        async def seen():
            return await elsewhere(count(db)) == 1

        await eventually(seen, seconds=5)
        assert not await elsewhere_on_replica(db)
        (replica,) = db.replicas
        assert replica.lag > 0.5
        assert await elsewhere_on_replica(db, max_lag=3600)

    assert await eventually(lambda: elsewhere_on_replica(db))


@pytest.mark.slow
async def test_a_position_carries_ones_writes_to_another_worker(make, pair):
    one, other, (_, standby) = make(max_lag=60), make(max_lag=60), pair
    await eventually(lambda: elsewhere_on_replica(other))

    async with paused(standby):
        await write(one, 1)
        position = await one.position()
        before = await elsewhere(count(other))
        after = await elsewhere(count(other, after=position))

    assert (before, after) == (0, 1)
    assert await eventually(lambda: elsewhere_on_replica(other, after=position))


async def test_a_standby_has_no_position_to_tell(pair):
    db = Database(pair[1].url_for("postgres"))

    with pytest.raises(DatabaseUnavailableError, match="it is a standby"):
        await db.position()
    await db.dispose()


@pytest.mark.parametrize("position", ["yesterday", "16-B374D848", "x/y"])
async def test_what_is_no_position_is_refused(make, position):
    with pytest.raises(PositionError, match="is no position") as refused:
        await count(make(), after=position)

    assert str(refused.value).endswith("\n  verdigris explain docs/topologies.md")


@pytest.mark.slow
async def test_a_request_reads_its_own_writes_in_whatever_task(make, pair):
    db, (_, standby) = make(max_lag=60), pair
    app = FastAPI()
    install(app, db)

    @app.post("/notes")
    async def create():
        await asyncio.create_task(write(db, 1))
        return await asyncio.create_task(count(db))

    @app.get("/notes")
    async def read(session=Depends(db.request_session, scope="function")):
        return await session.scalar(text("SELECT count(*) FROM note")), await count(db)

    await eventually(lambda: elsewhere_on_replica(db))
    async with (
        paused(standby),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        assert (await client.post("/notes")).json() == 1
        assert (await client.get("/notes")).json() == [
            1,
            0,
        ]  # another request: who knows whose


@pytest.mark.slow
async def test_a_replica_that_dies_is_left_and_taken_again(make, pair, caplog):
    async def told():
        return "is not used" in caplog.text

    db, (_, standby) = make(), pair
    await eventually(lambda: elsewhere_on_replica(db))
    async with db.read() as session:
        await session.execute(text("SELECT 1"))

    await asyncio.to_thread(standby.stop, at_once=True)
    answers = [await within(5, elsewhere_on_replica(db)) for _ in range(20)]
    assert answers[-1] is False
    assert await eventually(told, seconds=10)
    await asyncio.to_thread(standby.start)

    assert await eventually(lambda: elsewhere_on_replica(db), seconds=20)


@pytest.mark.slow
async def test_a_replica_that_freezes_is_left_within_the_lag(make, pair):
    db, (_, standby) = make(), pair
    await eventually(lambda: elsewhere_on_replica(db))

    standby.freeze()
    try:
        await asyncio.sleep(0.6)  # more than the lag allowed: what was known of it is too old
        answers = await within(5, asyncio.gather(*(elsewhere_on_replica(db) for _ in range(20))))
    finally:
        standby.thaw()

    assert not any(answers)
    assert await eventually(lambda: elsewhere_on_replica(db), seconds=20)


SLEEPING = text("SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")


async def struck(standby, strike):
    """Wait until something sleeps on the replica, and strike it."""

    async def sleeper():
        return next((row["pid"] for row in await standby.run(SLEEPING.text)), None)

    await strike(await eventually(sleeper))


READS = {
    "text": lambda session: session.scalar(text("SELECT pg_is_in_recovery() FROM pg_sleep(0.4)")),
    "rows": lambda session: session.scalars(text("SELECT pg_is_in_recovery() FROM pg_sleep(0.4)")),
    "objects": lambda session: session.execute(select(Note, func.pg_is_in_recovery(), func.pg_sleep(0.4))),
}


@pytest.mark.parametrize("read", [*READS])
async def test_a_read_whose_replica_dies_under_it_is_answered_by_the_primary(make, pair, read):
    db, (primary, standby) = make(), pair
    await primary.run("INSERT INTO note VALUES (7)")
    await eventually(standby.caught_up)
    await eventually(lambda: elsewhere_on_replica(db))

    async with db.read() as session:
        note = await session.get(Note, 7)
        reading = asyncio.create_task(READS[read](session))
        await struck(standby, lambda pid: standby.run("SELECT pg_terminate_backend($1)", pid))
        answer = await within(10, reading)
        row = answer if read == "text" else answer.one()
        again = await session.scalar(text("SELECT pg_is_in_recovery()"))
        assert (await session.get(Note, 7), note.id) == (note, 7)

    assert (row[1] if read == "objects" else row) is False
    assert again is False
    assert db.pool_status().in_use == 0
    assert await eventually(lambda: elsewhere_on_replica(db))


async def test_a_read_that_recovery_cancels_is_answered_by_the_primary(make, pair):
    db, (primary, standby) = make(), pair
    await standby.run("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await standby.run("SELECT pg_reload_conf()")
    await eventually(lambda: elsewhere_on_replica(db))
    question = text("SELECT pg_is_in_recovery(), count(note.id) FROM pg_sleep(0.4), note")

    async with db.read() as session:
        reading = asyncio.create_task(session.execute(question))
        await struck(standby, lambda _: primary.run("TRUNCATE note"))
        answer = (await within(10, reading)).one()

    assert tuple(answer) == (False, 0)
    await standby.run("ALTER SYSTEM RESET max_standby_streaming_delay")
    await standby.run("SELECT pg_reload_conf()")


@pytest.mark.parametrize("shortcuts", [True, False])
async def test_a_standby_refuses_a_serializable_transaction_at_once_and_goes_on(pair, shortcuts):
    db = Database(pair[1].url_for("postgres"), pool_size=1, max_overflow=0, shortcuts=shortcuts)
    app = FastAPI()
    install(app, db)

    @app.get("/")
    async def read() -> int:
        return await db.transaction(lambda session: session.scalar(text("SELECT 1")), isolation_level="SERIALIZABLE")

    async with db.session() as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        with pytest.raises(StandbyError, match="takes no SERIALIZABLE transactions now: it is a standby"):
            await within(5, session.execute(text("SELECT 1")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answer = await within(5, client.get("/"))

    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (503, "read-only")
    assert 2 <= int(answer.headers["retry-after"]) <= 4
    assert db.pool_status().in_use == 0
    async with db.session() as session:
        assert await session.scalar(text("SELECT pg_is_in_recovery()"))
        with pytest.raises(exc.DBAPIError) as other:  # what else a server does not do is not taken for that
            await session.execute(text("SELECT DISTINCT 1 FROM pg_class FOR UPDATE"))
    assert classify(other.value).name == "not-supported"
    await db.dispose()


async def test_a_database_of_serializable_transactions_says_at_the_start_that_it_is_on_a_standby(pair, caplog):
    db = Database(pair[1].url_for("postgres"), isolation_level="SERIALIZABLE")
    other = Database(pair[0].url_for("postgres"), isolation_level="SERIALIZABLE")

    await db.start()
    await other.start()

    (told,) = [record.message for record in caplog.records if "SERIALIZABLE" in record.message]
    assert 'Database(isolation_level="REPEATABLE READ")' in told
    with pytest.raises(StandbyError):
        await db.transaction(lambda session: session.scalar(text("SELECT 1")))
    await db.dispose()
    await other.dispose()


async def test_a_service_of_serializable_transactions_reads_on_its_replica_too(make):
    db = make(isolation_level="SERIALIZABLE")

    assert await eventually(lambda: elsewhere_on_replica(db))
    assert await on_replica(db, snapshot=True)
    async with db.session() as session:
        assert await session.scalar(text("SHOW transaction_isolation")) == "serializable"


async def test_a_snapshot_whose_replica_dies_is_an_error(make, pair):
    db, (_, standby) = make(), pair
    await eventually(lambda: elsewhere_on_replica(db))

    async with db.read(snapshot=True) as session:
        reading = asyncio.create_task(READS["text"](session))
        await struck(standby, lambda pid: standby.run("SELECT pg_terminate_backend($1)", pid))
        with pytest.raises(exc.DBAPIError) as lost:
            await within(10, reading)

    assert classify(lost.value).name == "connection-lost"


@pytest.mark.slow
async def test_a_replica_without_room_leaves_the_read_to_the_primary(make):
    db = make(pool_size=2)
    await eventually(lambda: elsewhere_on_replica(db))

    async with contextlib.AsyncExitStack() as stack:
        where = []
        for _ in range(4):
            session = await stack.enter_async_context(db.read())
            where.append(await session.scalar(text("SELECT pg_is_in_recovery()")))

    assert sorted(where) == [False, False, True, True]


@pytest.mark.slow
async def test_a_primary_listed_as_its_own_replica_is_not_taken_for_one(make, pair):
    db = make(replicas=[pair[0].url_for("postgres")])

    for _ in range(10):
        assert not await elsewhere_on_replica(db)
        await asyncio.sleep(0.05)


async def test_a_database_without_replicas_follows_nothing(make):
    db = make(replicas=())

    assert await count(db) == 0
    assert len(db.replicas) == 0
    assert not [task for task in asyncio.all_tasks() if "keep_following" in repr(task)]
