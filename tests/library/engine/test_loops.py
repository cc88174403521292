"""One Database in several event loops at the same time, each in a thread of its own."""

import asyncio
import contextlib
import gc
import threading

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from verdigris import Database

PID = "SELECT pg_backend_pid()"
LOOPS = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):  # which Windows has not
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


async def backend(db):
    async with db.session() as session:
        return await session.scalar(text(PID))


def in_a_thread(work, new_loop=asyncio.new_event_loop):
    """Start a thread that runs work() in a loop of its own; `result()` waits for what it returns."""
    done = []

    def run():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            done.append(runner.run(work()))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join()
        return done[0]

    return result


class Elsewhere:
    """A loop that runs in a thread until the block ends."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def backends(database_url):
    """Count the backends of the database, on a connection beside it; wait a moment for those that are ending."""

    async def count():
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        mine = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        try:
            for _ in range(50):
                found = await connection.fetchval(mine)
                if not found:
                    break
                await asyncio.sleep(0.01)
            return found
        finally:
            await connection.close()

    return asyncio.run(count())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_loops_that_run_side_by_side_never_share_a_connection(database_url, new_loop):
    db = Database(database_url, pool_size=3, max_overflow=0)

    async def session(_):
        return await backend(db)

    async def read(_):
        async with db.read() as session:
            return await session.scalar(text(PID))

    async def together(number):
        statement = f"SELECT ARRAY[pg_backend_pid(), $1::int] /* {number} */"
        pid, told = await db.lane.fetchval_together(statement, (number,))
        assert told == number
        return pid

    async def write(_):
        return await db.transaction(lambda session: session.scalar(text(PID)))

    async def work():
        seen = set()
        for _ in range(15):
            units = [unit(number) for number in range(3) for unit in (session, read, together, write)]
            async with asyncio.timeout(20):
                seen |= {*await asyncio.gather(*units)}
        gathered = await db.gather(*[lambda session: session.scalar(text(PID))] * 4)
        return seen | {*gathered}

    results = [in_a_thread(work, new_loop) for _ in range(4)]
    mine = asyncio.run(work())
    seen = [mine, *(result() for result in results)]

    assert sum(map(len, seen)) == len(set.union(*seen))
    assert all(1 <= len(pids) <= 3 for pids in seen)
    assert backends(database_url) == 0


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_loop_that_ends_closes_its_connections_without_being_asked(database_url, new_loop):
    db = Database(database_url)

    for _ in range(2):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(backend(db))
        assert backends(database_url) == 0
        assert db.pool_status().idle == 0


def test_what_a_loop_left_that_was_only_closed_goes_when_another_begins(database_url):
    db = Database(database_url)
    with Elsewhere() as there:
        before = there.run(backend(db))

    async def others():
        await backend(db)
        async with db.session() as session:
            while await session.scalar(text("SELECT 1 FROM pg_stat_activity WHERE pid = :pid"), {"pid": before}):
                await asyncio.sleep(0.01)
        return db.pool_status()

    status = asyncio.run(others())

    assert (status.loops, status.idle) == (1, 1)


def test_disposing_in_one_loop_leaves_what_another_has(database_url, caplog):
    caplog.set_level("INFO", "verdigris")
    db = Database(database_url, pool_size=2, max_overflow=1)
    with Elsewhere() as there:
        before = there.run(backend(db))

        async def beside():
            await backend(db)
            status = db.pool_status()
            await db.stop()
            return status, db.pool_status()

        during, after = asyncio.run(beside())

        assert (during.loops, during.idle, during.size) == (2, 2, 2)
        assert (after.loops, after.idle) == (1, 1)
        assert there.run(backend(db)) == before
        there.run(db.dispose())

    assert backends(database_url) == 0
    (told,) = [message for message in caplog.messages if "event loops" in message]
    assert told.endswith("in threads, and have a pool each: 1 worker x 2 x 3 = up to 6 connections")


def test_the_loop_that_came_first_is_disposed_of_and_the_others_go_on(database_url):
    db = Database(database_url)
    with Elsewhere() as there:

        async def beside():
            await backend(db)
            mine = there.run(backend(db))
            await db.dispose()
            again = await backend(db)
            return mine, again

        mine, again = asyncio.run(beside())

        assert there.run(backend(db)) == mine != again
        there.run(db.dispose())
    assert backends(database_url) == 0


def test_a_start_sizes_the_pool_of_its_own_loop_only(database_url):
    db = Database(database_url)
    with Elsewhere() as there:
        there.run(backend(db))
        used = db.engine.sync_engine.pool

        async def beside():
            await db.start()
            await backend(db)
            return db.engine.sync_engine.pool.here().limit

        limit = asyncio.run(beside())

        assert (used.limit, used.checkedout(), used.checkedin()) == (10, 0, 1)
        assert limit > 10
        there.run(db.dispose())


def test_more_than_the_server_has_is_a_warning(database_url, caplog):
    db = Database(database_url, pool_size=30, max_overflow=10)
    with Elsewhere() as there:
        there.run(db.start())
        asyncio.run(backend(db))
        there.run(db.dispose())

    (told,) = [record for record in caplog.records if "event loops" in record.message]
    assert told.levelname == "WARNING"
    assert "1 worker x 2 x 40 = up to 80 connections, more than the 57 that the server has" in told.message


@pytest.mark.filterwarnings("ignore:a session was dropped:ResourceWarning", "ignore:The garbage collector is trying")
@pytest.mark.parametrize("collect", [gc.collect, lambda: asyncio.run(greenlet_spawn(gc.collect))], ids=["", "task"])
def test_a_session_that_another_thread_collects_gives_its_place_back(database_url, collect, caplog):
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    with Elsewhere() as there:

        async def dropped():
            session = db.session()
            await session.execute(text(PID))
            session.keeps_itself = session  # so that only the collector frees it

        gc.disable()
        try:
            there.run(dropped())
            collect()  # in this thread
        finally:
            gc.enable()

        assert there.run(backend(db))
        there.run(db.dispose())
    assert "terminating connection" not in caplog.text  # by a task of this thread's, which cannot
    assert backends(database_url) == 0


def test_the_portal_of_a_test_client_and_the_loop_beside_it_use_one_database(database_url):
    db = Database(database_url)

    async def test():
        mine = await backend(db)
        with start_blocking_portal() as portal:  # as TestClient has one in a `with`, and each of its requests without
            theirs = await asyncio.to_thread(portal.call, backend, db)
            assert await backend(db) == mine != theirs
        with start_blocking_portal() as portal:
            assert await asyncio.to_thread(portal.call, backend, db) not in {mine, theirs}
        assert await backend(db) == mine
        await db.dispose()

    asyncio.run(test())

    assert backends(database_url) == 0
