import asyncio

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from verdigris.database import Database
from verdigris.errors import PoolExhaustedError, classify
from verdigris.lean import coalescing
from verdigris.testing.sandbox import Sandbox

DOUBLE = "SELECT $1::int * 2"


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=3, max_overflow=0)
    await database.lane.fetchval("SELECT 1")
    yield database
    await database.dispose()


async def double(db, n, statement=DOUBLE):
    return await db.lane.fetchval_together(statement, (n,))


async def warm(db, statement=DOUBLE):
    """Let it be known that the statement is short; the first read of each connection prepares it."""
    for n in range(1, 20):
        await double(db, n, statement)


async def test_reads_that_wait_in_the_same_moment_go_together_and_each_gets_its_own(db, flights):
    await warm(db)
    found = await asyncio.gather(*(double(db, n) for n in range(100)))

    assert found == [n * 2 for n in range(100)]
    assert 95 <= sum(flights) <= 98  # and now and then one alone, to know what that takes
    assert len(flights) <= 6
    assert db.pool_status().in_use == 0


async def test_a_read_that_nobody_waits_beside_goes_at_once(db, flights):
    found = [await double(db, n) for n in range(5)]

    assert found == [0, 2, 4, 6, 8]
    assert flights == []


async def test_no_row_is_none_for_whoever_found_none(db, flights):
    statement = "SELECT n FROM generate_series(1, 5) n WHERE n = $1::int"

    await warm(db, statement)
    found = await asyncio.gather(*(double(db, n, statement) for n in (0, 1, 9, 2, 8, 3)))

    assert found == [None, 1, None, 2, None, 3]
    assert flights != []


async def test_one_wrong_argument_fails_its_own_caller_only(db, flights):
    statement = "SELECT 10 / $1::int"

    await warm(db, statement)
    found = await asyncio.gather(*(double(db, n, statement) for n in (1, 2, 5, 0, 10, "x", 2)), return_exceptions=True)

    assert [one for one in found if isinstance(one, int)] == [10, 5, 2, 1, 5]
    assert [type(one).__name__ for one in found if not isinstance(one, int)] == ["DBAPIError", "DBAPIError"]
    assert "division by zero" in str(found[3])
    assert isinstance(found[5], DBAPIError)
    assert db.pool_status().in_use == 0


async def test_readers_behind_a_lock_wait_for_it_together_and_the_next_ones_alone(database_url, admin, flights):
    await admin("CREATE TABLE locked AS SELECT g AS id FROM generate_series(1, 100) g")
    statement = "SELECT id FROM locked WHERE id = $1::int"
    db = Database(database_url, pool_size=5, statement_timeout=0.3)
    await warm(db, statement)
    locking = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with locking.transaction():
        await locking.execute("LOCK TABLE locked")
        began = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(double(db, n, statement) for n in range(20)), return_exceptions=True)
        took = asyncio.get_running_loop().time() - began
    together = len(flights)
    after = await asyncio.gather(*(double(db, n, statement) for n in range(1, 21)))

    assert [classify(one).name for one in found] == ["too-slow"] * 20
    assert took < 20 * 0.3 / 2  # one after another would be as long as twenty
    assert after == list(range(1, 21))
    assert len(flights) == together
    await locking.close()
    await db.dispose()


async def test_who_is_cancelled_leaves_the_others_on_their_way(db, flights):
    await warm(db)
    tasks = [asyncio.create_task(double(db, n)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert [one for one in found if isinstance(one, int)] == [n * 2 for n in range(1, 20, 2)]
    assert sum(isinstance(one, asyncio.CancelledError) for one in found) == 10
    assert db.pool_status().in_use == 0
    assert await double(db, 21) == 42


async def test_where_no_connection_comes_free_all_wait_once(database_url, monkeypatch):
    monkeypatch.setattr(coalescing, "_PAYS", 1000.0)
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=0.3)
    await warm(db)
    async with db.engine.connect():
        began = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(double(db, n) for n in range(10)), return_exceptions=True)
        seconds = asyncio.get_running_loop().time() - began
    await db.dispose()

    assert [type(one) for one in found] == [PoolExhaustedError] * 10
    assert seconds < 0.3 * 3


async def test_a_connection_that_dies_under_a_flight_costs_nobody_an_answer(db, flights, admin):
    await warm(db)
    pids = [await db.lane.fetchval("SELECT pg_backend_pid()") for _ in range(3)]
    await admin(f"SELECT pg_terminate_backend({pids[0]})")

    found = await asyncio.gather(*(double(db, n) for n in range(30)))

    assert found == [n * 2 for n in range(30)]


async def test_who_comes_in_the_same_turn_goes_along_where_many_come(db, flights):
    await warm(db)
    await asyncio.gather(*(double(db, n) for n in range(40)))
    before = len(flights)

    found = await asyncio.gather(*(double(db, n) for n in range(10)))

    assert found == [n * 2 for n in range(10)]
    assert flights[before:] in ([10], [9])  # one now and then goes alone, to know what that takes


async def test_where_few_come_again_a_read_goes_at_once(db, flights):
    await warm(db)
    await asyncio.gather(*(double(db, n) for n in range(40)))
    for n in range(40):
        await double(db, n)
    before = len(flights)

    found = [await double(db, n) for n in range(5)]

    assert found == [0, 2, 4, 6, 8]
    assert len(flights) == before


def known(*, alone=None, shared=None, crowd=5.0):
    """Return a statement of which that much is known, in seconds."""
    statement = coalescing._Statement("SELECT 1", most=20, reads=1000)
    if alone is not None:
        statement.landed(alone, 1)
    if shared is not None:
        statement.landed(shared * 10, 10)
    statement.crowd = crowd
    return statement


@pytest.mark.parametrize(
    ("statement", "alone"),
    [
        (known(), True),  # nothing is known
        (known(alone=0.001), False),  # tried
        (known(alone=0.001, shared=0.0001), False),
        (known(alone=0.001, shared=0.0006), False),
        (known(alone=0.001, shared=0.0007), True),  # does not pay
        (known(alone=0.006, shared=0.0001), True),  # not short
        (known(alone=0.001, shared=0.0001, crowd=1.0), True),  # nobody else is there
    ],
)
def test_short_statements_that_gain_from_company_have_it(statement, alone):
    assert statement.goes_alone() is alone


def test_what_was_measured_long_ago_is_forgotten():
    least = coalescing._Least()
    least.add(0.001)
    for _ in range(3 * 256):
        least.add(0.004)

    assert least.value == 0.004


@pytest.mark.parametrize(("shared", "flights"), [(0.00002, 1), (0.00025, 3), (0.002, 21)])
def test_slower_statements_have_more_in_the_air(shared, flights):
    statement = known(alone=0.004, shared=shared)
    while not statement.full():
        statement.flights.add(object())

    assert len(statement.flights) == flights


async def test_what_does_not_pay_is_tried_again_now_and_then():
    statement = known(alone=0.001, shared=0.0007)

    assert 0.01 < sum(not statement.goes_alone() for _ in range(10_000)) / 10_000 < 0.1


async def test_nobody_waits_behind_a_flight_that_takes_long(db, flights):
    statement = "SELECT CASE WHEN $1::int = 7 THEN pg_sleep(1)::text ELSE '' END || $1::int"
    await warm_but(db, statement, 7)
    began = asyncio.get_running_loop().time()
    slow = [asyncio.create_task(double(db, n, statement)) for n in (1, 2, 3, 7, 4)]
    await asyncio.sleep(0)
    late = [asyncio.create_task(double(db, n, statement)) for n in range(10, 40)]

    assert await asyncio.gather(*late) == [str(n) for n in range(10, 40)]
    assert asyncio.get_running_loop().time() - began < 0.9
    assert await asyncio.gather(*slow) == ["1", "2", "3", "7", "4"]


async def warm_but(db, statement, number):
    for n in range(30):
        if n != number:
            await double(db, n, statement)


async def test_each_read_is_timed_where_it_was_asked_for(db):
    await warm(db)
    db.queries.clear()
    await asyncio.gather(*(double(db, n) for n in range(50)))

    (query,) = db.queries
    assert query.count == 50
    assert query.sites[0].place.startswith("tests/library/lean/test_coalescing.py")


def test_it_goes_on_in_another_event_loop(database_url):
    db = Database(database_url)

    async def interrupted():
        task = asyncio.create_task(db.lane.fetchval_together("SELECT pg_sleep($1::int)::text", (5,)))
        await asyncio.sleep(0.2)
        task.cancel()

    async def reads():
        found = await asyncio.gather(*(double(db, n) for n in range(10)))
        await db.dispose()
        return found

    asyncio.run(interrupted())
    assert asyncio.run(reads()) == [n * 2 for n in range(10)]


async def test_in_a_sandbox_reads_go_one_after_the_other(database_url):
    sandbox = Sandbox(database_url)

    assert await sandbox.lane.fetchval_together(DOUBLE, (2,)) == 4
    await sandbox.dispose()


# -- the queue of the pool -------------------------------------------------------------------------------------------


async def test_whoever_waits_longest_for_a_connection_gets_the_next(database_url):
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    order = []

    async def greedy():
        for _ in range(20):
            await db.lane.fetchval("SELECT 1")
            order.append("greedy")

    async def modest():
        async with db.session() as session:
            await session.connection()
            order.append("modest")

    await db.lane.fetchval("SELECT 1")
    await asyncio.gather(greedy(), modest(), modest())

    assert order.index("modest") < 3
    assert db.pool_status().waiting == 0
    await db.dispose()


async def test_a_connection_handed_to_one_who_gives_up_goes_to_the_next(database_url):
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    held = await db.engine.connect()
    waiting = [asyncio.create_task(db.lane.fetchval("SELECT 1")) for _ in range(3)]
    await asyncio.sleep(0.05)
    await held.close()
    waiting[0].cancel()

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert found[1:] == [1, 1]
    assert db.pool_status().in_use == 0
    await db.dispose()
