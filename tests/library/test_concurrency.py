import asyncio
import inspect

import pytest
from sqlalchemy import exc, text
from sqlalchemy.pool import NullPool

from verdigris.concurrency import Attempts, Budget, Retry
from verdigris.database import Database
from verdigris.errors import (
    CommitRefusedError,
    ConfigurationError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    PoolExhaustedError,
)
from verdigris.fastapi import retrying

SCHEMA = ["CREATE TABLE counter (id int PRIMARY KEY, value int NOT NULL)", "INSERT INTO counter VALUES (1, 0), (2, 0)"]


def raise_code(code):
    return text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'planted'; END $$")


class Naps:
    """A clock that sleeps without waiting, and remembers."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def time(self):
        return self.now


@pytest.fixture
def naps():
    return Naps()


@pytest.fixture
async def db(database_url, admin, naps):
    for statement in SCHEMA:
        await admin(statement)
    database = Database(
        database_url, pool_size=4, max_overflow=0, pool_timeout=1, retry=Retry(sleep=naps.sleep, clock=naps.time)
    )
    yield database
    await database.dispose()


async def value(admin, number=1):
    return (await admin("SELECT value FROM counter WHERE id = $1", number))[0]["value"]


async def add(session, by=1):
    await session.execute(text("UPDATE counter SET value = value + :by WHERE id = 1"), {"by": by})
    return by


class Failing:
    """A unit of work that fails so many times before it succeeds."""

    def __init__(self, times, code):
        self.times, self.code, self.sessions = times, code, []

    async def __call__(self, session):
        self.sessions.append(session)
        await add(session)
        if len(self.sessions) <= self.times:
            await session.execute(raise_code(self.code))
        return len(self.sessions)


async def test_a_unit_commits_and_returns_its_result(db, admin):
    assert await db.transaction(add) == 1
    assert await value(admin) == 1


async def test_a_unit_that_raises_is_rolled_back_and_raises_the_same_error(db, admin):
    error = KeyError("mine")

    async def work(session):
        await add(session)
        raise error

    with pytest.raises(KeyError) as raised:
        await db.transaction(work)

    assert raised.value is error
    assert await value(admin) == 0


async def test_a_misspelt_isolation_level_is_refused_by_name_and_takes_no_connection(db):
    for given in (
        lambda level: Database("postgresql://localhost/a", isolation_level=level),
        lambda level: db.transactional(isolation_level=level),
        lambda level: retrying(isolation_level=level),
    ):
        with pytest.raises(ConfigurationError, match='isolation_level="SERIALIZABLE"'):
            given("SERIALISABLE")
    with pytest.raises(ConfigurationError, match="READ COMMITTED, REPEATABLE READ, SERIALIZABLE"):
        await db.transaction(add, isolation_level="SERIALISABLE")

    assert db.pool_status().in_use == 0


@pytest.mark.parametrize("level", ["SERIALIZABLE", "serializable", "Serializable"])
async def test_an_isolation_level_may_be_written_as_sqlalchemy_takes_it(db, level):
    async def asked(session):
        return await session.scalar(text("SHOW transaction_isolation"))

    assert await db.transaction(asked, isolation_level=level) == "serializable"


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_a_conflict_repeats_the_whole_unit_from_a_fresh_session(db, admin, naps, code):
    work = Failing(2, code)

    assert await db.transaction(work) == 3
    assert await value(admin) == 1
    assert len(set(map(id, work.sessions))) == 3
    assert len(naps.slept) == 2


async def test_real_serialization_failures_lose_no_update(database_url, db, admin):
    real = Database(database_url, pool_size=8, max_overflow=0)

    @real.transactional(isolation_level="SERIALIZABLE")
    async def increment(session):
        found = await session.scalar(text("SELECT value FROM counter WHERE id = 1"))
        await asyncio.sleep(0.01)
        await session.execute(text("UPDATE counter SET value = :value WHERE id = 1"), {"value": found + 1})

    done = await asyncio.gather(*(increment() for _ in range(5)), return_exceptions=True)

    assert await value(admin) == sum(one is None for one in done)
    assert sum(one is None for one in done) >= 3
    await real.dispose()


async def test_a_real_deadlock_is_repeated(database_url, db, admin):
    await admin("ALTER DATABASE " + database_url.rsplit("/", 1)[1] + " SET deadlock_timeout = '50ms'")
    real, meeting, tries = Database(database_url), asyncio.Barrier(2), []

    async def swap(session, first, second):
        tries.append(first)
        await session.execute(text("UPDATE counter SET value = value + 1 WHERE id = :id"), {"id": first})
        if len(tries) <= 2:
            await meeting.wait()
        await session.execute(text("UPDATE counter SET value = value + 1 WHERE id = :id"), {"id": second})

    await asyncio.gather(real.transaction(lambda s: swap(s, 1, 2)), real.transaction(lambda s: swap(s, 2, 1)))

    assert await value(admin, 1) == await value(admin, 2) == 2
    assert len(tries) == 3
    await real.dispose()


async def test_the_attempts_end(db, naps):
    work = Failing(99, "40001")

    with pytest.raises(exc.DBAPIError) as raised:
        await db.transaction(work, attempts=4)

    assert len(work.sessions) == 4
    assert "not repeated after 4 attempts" in raised.value.__notes__[0]
    assert "no more than 4 may be made" in raised.value.__notes__[0]


async def test_attempts_that_a_unit_asks_for_count_whatever_the_database_says(database_url, db, naps):
    few = Database(database_url, retry=Retry(attempts=2, sleep=naps.sleep, clock=naps.time))
    work, usual = Failing(5, "40001"), Failing(5, "40001")

    assert await few.transaction(work, attempts=6) == 6
    with pytest.raises(exc.DBAPIError):
        await few.transaction(usual)
    assert len(usual.sessions) == 2
    await few.dispose()


async def test_an_error_with_a_number_of_its_own_keeps_it_whatever_a_unit_asks_for(db):
    work = Failing(9, "55P03")

    with pytest.raises(exc.DBAPIError) as raised:
        await db.transaction(work, attempts=9)

    assert len(work.sessions) == 3
    assert "locked is repeated 2x at most" in raised.value.__notes__[0]


async def test_work_that_is_no_asynchronous_function_is_told_what_to_write(db, admin):
    async def work(session):
        return await add(session)

    def plain(session):
        return 1

    with pytest.raises(
        ConfigurationError, match=r"work\(\), which is called already(.|\n)*await db.transaction\(work\)"
    ):
        await db.transaction(work(None))
    with pytest.raises(ConfigurationError, match=r"work\(\), which is called already"):
        await db.gather(work, work(None))
    with pytest.raises(ConfigurationError, match=r"async def plain\(session\)"):
        await db.transaction(plain)
    with pytest.raises(ConfigurationError, match="a unit of work is 3"):
        await db.transaction(3)
    assert await value(admin) == 0
    assert db.pool_status().in_use == 0


@pytest.mark.parametrize("attempts", [0, -1])
async def test_no_attempt_at_all_is_refused(db, attempts):
    for given in (lambda: db.transactional(attempts=attempts), lambda: Retry(attempts=attempts)):
        with pytest.raises(ConfigurationError, match="leaves no attempt"):
            given()
    with pytest.raises(ConfigurationError, match="leaves no attempt"):
        await db.transaction(add, attempts=attempts)


@pytest.mark.parametrize("code", ["23505", "22012", "42601", "57014", "53100", "25P02", "P0001"])
async def test_what_would_fail_again_is_not_repeated(db, code):
    work = Failing(1, code)

    with pytest.raises(exc.DBAPIError):
        await db.transaction(work)
    assert len(work.sessions) == 1


async def test_the_deadline_ends_the_attempts(database_url, admin, db, naps):
    tight = Database(database_url, retry=Retry(base=10, cap=10, sleep=naps.sleep, clock=naps.time))
    work = Failing(9, "40001")

    with pytest.raises(exc.DBAPIError):
        await tight.transaction(work, deadline=0.0)
    assert len(work.sessions) == 1
    await tight.dispose()


async def test_an_attempt_that_would_end_after_the_deadline_is_not_begun():
    now = [100.0]
    retry = Retry(base=0.001, cap=0.001, sleep=lambda _: asyncio.sleep(0), clock=lambda: now[0])

    def attempts(**options):
        return Attempts.of(retry, Budget(), attempts=4, deadline=10, idempotent=False, **options)

    error = DatabaseUnavailableError("no connection")
    slow, again = attempts(), []
    assert await attempts(since=4.0).again(error)
    assert not await attempts(since=6.0).again(error)
    for _ in range(4):
        now[0] += 3.0
        again.append(await slow.again(error))

    assert again == [True, True, False, False]  # three of 3 s fit into ten, a fourth does not


def test_the_waits_grow_are_jittered_and_capped():
    settings = Retry(base=0.1, cap=1.0)
    waits = {attempt: [settings.wait(attempt) for _ in range(200)] for attempt in (1, 2, 10)}

    assert max(waits[1]) <= 0.2 < max(waits[2]) <= 0.4
    assert 0.4 < max(waits[10]) <= 1.0
    assert len(set(waits[1])) > 100


def test_repetitions_have_a_budget_over_all_callers():
    budget = Budget()
    burst = sum(budget.faults.spend() for _ in range(100))
    for _ in range(100):
        budget.unit_began()
    later = sum(budget.faults.spend() for _ in range(100))

    assert (burst, later) == (20, 10)


def test_conflicts_prove_that_the_server_works_and_have_a_larger_budget_of_their_own():
    budget, unlimited = Budget(), Budget(Retry(conflict_budget=None))
    burst = sum(budget.conflicts.spend() for _ in range(900))
    for _ in range(100):
        budget.unit_began()
    later = sum(budget.conflicts.spend() for _ in range(900))

    assert (burst, later) == (200, 20)
    assert sum(budget.faults.spend() for _ in range(100)) == 20
    assert all(unlimited.conflicts.spend() for _ in range(900))


async def test_a_budget_that_is_spent_is_told_once_in_a_while_and_on_the_error(database_url, db, naps, caplog):
    poor = Database(database_url, retry=Retry(conflict_budget=3, sleep=naps.sleep, clock=naps.time))

    async def fails():
        with pytest.raises(exc.DBAPIError) as raised:
            await poor.transaction(Failing(99, "40001"))
        return raised.value.__notes__[0]

    notes = [await fails() for _ in range(3)]
    naps.now += 61
    await fails()
    told = [record.message for record in caplog.records if "budget" in record.message]

    assert "not repeated after 4 attempts" in notes[0]
    assert "what all units have for repetitions after conflicts is spent, Retry(conflict_budget=...)" in notes[0]
    assert ["last: 1;" in told[0], "last: 3;" in told[1], len(told)] == [True, True, 2]
    assert "Retry(conflict_budget=3)" in told[0]
    await poor.dispose()


async def test_a_burst_of_conflicts_on_one_row_is_stored_within_the_usual_budget(database_url, db, admin):
    real = Database(database_url, pool_timeout=30)

    @real.transactional(isolation_level="SERIALIZABLE")
    async def increment(session):
        found = await session.scalar(text("SELECT value FROM counter WHERE id = 1"))
        await session.execute(text("UPDATE counter SET value = :value WHERE id = 1"), {"value": found + 1})

    done = await asyncio.gather(*(increment() for _ in range(40)), return_exceptions=True)

    assert await value(admin) == sum(one is None for one in done)
    assert sum(one is None for one in done) >= 38
    await real.dispose()


async def test_waiting_for_a_server_takes_nothing_of_the_budget_and_ends_at_the_deadline():
    now = [100.0]

    async def nap(seconds):
        now[0] += seconds

    retry = Retry(sleep=nap, clock=lambda: now[0])
    budget = Budget()

    async def waits(error):
        attempts = Attempts.of(retry, budget, attempts=4, deadline=10, idempotent=False)
        began = now[0]
        while await attempts.again(error):
            pass
        return now[0] - began

    away = [await waits(DatabaseUnavailableError("no connection")) for _ in range(30)]

    assert all(8.9 < seconds <= 10 for seconds in away)  # another wait of up to a second would not have fitted
    assert sum(budget.faults.spend() for _ in range(100)) == 20


async def test_without_retry_a_conflict_is_raised_at_once(database_url, db, admin):
    once = Database(database_url, retry=False)
    work = Failing(1, "40001")

    with pytest.raises(exc.DBAPIError):
        await once.transaction(work)
    assert len(work.sessions) == 1
    await once.dispose()


async def test_a_connection_lost_before_commit_was_sent_repeats_the_unit(db, admin):
    tries = []

    async def work(session):
        tries.append(await session.scalar(text("SELECT pg_backend_pid()")))
        await add(session)
        if len(tries) == 1:
            await admin(f"SELECT pg_terminate_backend({tries[0]})")
            await asyncio.sleep(0.1)

    await db.transaction(work)

    assert len(tries) == 2
    assert await value(admin) == 1


async def test_a_connection_lost_in_a_statement_repeats_the_unit(db, admin):
    tries = []

    async def work(session):
        tries.append(await session.scalar(text("SELECT pg_backend_pid()")))
        await add(session)
        if len(tries) == 1:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    await db.transaction(work)

    assert len(tries) == 2
    assert await value(admin) == 1


@pytest.fixture
def lost_answer(monkeypatch):
    """Let the server commit, and lose its answer: the socket dies after COMMIT was sent."""
    import asyncpg

    original, left = asyncpg.Connection.execute, [1]

    async def execute(self, query, *args, **kwargs):
        if query != "COMMIT;" or not left[0]:
            return await original(self, query, *args, **kwargs)
        left[0] -= 1
        await original(self, query, *args, **kwargs)
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)


async def test_a_lost_answer_to_commit_is_not_repeated(db, admin, lost_answer):
    with pytest.raises(OutcomeUnknownError, match="may be stored, or not"):
        await db.transaction(add)

    assert await value(admin) == 1
    assert db.pool_status().in_use == 0


async def test_a_lost_answer_to_commit_is_not_repeated_when_the_application_wraps_the_error(db, admin, lost_answer):
    async def work(session):
        await add(session)
        try:
            await session.commit()
        except exc.SQLAlchemyError as error:
            raise KeyError("wrapped") from error

    with pytest.raises(KeyError):
        await db.transaction(work)
    assert await value(admin) == 1


async def test_a_lost_answer_to_commit_is_repeated_for_idempotent_work(db, admin, lost_answer):
    async def work(session):
        await session.execute(text("UPDATE counter SET value = 7 WHERE id = 1"))

    await db.transaction(work, idempotent=True)

    assert await value(admin) == 7


async def test_a_deferred_failure_at_commit_is_definite_and_repeated(db, admin):
    await admin(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.value < 2 THEN RAISE EXCEPTION USING ERRCODE = '40001'; END IF; RETURN NEW; END $$"
    )
    await admin(
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON counter DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    tries = []

    async def work(session):
        tries.append(1)
        await add(session, by=len(tries))

    await db.transaction(work)

    assert len(tries) == 2
    assert await value(admin) == 2


async def test_a_swallowed_error_is_refused_and_not_repeated(db, admin):
    tries = []

    async def work(session):
        tries.append(1)
        await add(session)
        with pytest.raises(exc.DBAPIError):
            await session.execute(raise_code("P0001"))

    with pytest.raises(CommitRefusedError):
        await db.transaction(work)
    assert len(tries) == 1
    assert await value(admin) == 0


async def test_a_cancelled_unit_is_rolled_back_and_never_repeated(db, admin):
    tries = []

    async def work(session):
        tries.append(1)
        await add(session)
        await session.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(db.transaction(work), 0.3)

    assert len(tries) == 1
    assert await value(admin) == 0
    assert db.pool_status().in_use == 0


async def test_a_transactional_function_lost_its_session_from_the_signature(db, admin):
    @db.transactional
    async def credit(session, by, *, note=None):
        """Say it."""
        await add(session, by)
        return note

    assert await credit(3, note="x") == "x"
    assert await value(admin) == 3
    assert credit.__name__ == "credit"
    assert credit.__doc__ == "Say it."
    assert inspect.iscoroutinefunction(credit)


def test_a_method_is_no_transactional_function(db):
    with pytest.raises(ConfigurationError, match=r"Tills\.credit\(\) is a method: .* `self`, would be the session"):

        class Tills:
            @db.transactional
            async def credit(self, session, by):
                await add(session, by)


async def test_units_side_by_side_have_sessions_and_backends_of_their_own(db):
    meeting = asyncio.Barrier(2)

    async def unit(session):
        await session.execute(text("SELECT 1"))
        await meeting.wait()
        return id(session), await session.scalar(text("SELECT pg_backend_pid()"))

    (one, first), (two, second) = await db.gather(unit, unit)

    assert one != two
    assert first != second


async def test_results_come_in_order(db):
    def unit(number):
        async def work(session):
            await session.execute(text("SELECT pg_sleep(:wait)"), {"wait": (5 - number) / 100})
            return number

        return work

    assert await db.gather(*map(unit, range(5))) == (0, 1, 2, 3, 4)


async def test_side_by_side_never_takes_more_than_half_the_pool_over_all_callers(db):
    most = []

    async def unit(session):
        await session.execute(text("SELECT pg_sleep(0.02)"))
        most.append(db.pool_status().in_use)

    await asyncio.gather(db.gather(*[unit] * 8), db.gather(*[unit] * 8))

    assert max(most) == 2


async def test_side_by_side_follows_the_pools_size_when_the_start_has_found_another(db):
    most = []

    async def unit(session):
        await session.execute(text("SELECT pg_sleep(0.02)"))
        most.append(db.pool_status().in_use)

    await db.gather(*[unit] * 8)
    before = max(most)
    await db.engine.dispose()
    db.engine.sync_engine.pool.resize(6, 2)  # as `start()` does
    await db.gather(*[unit] * 12)

    assert (before, max(most)) == (2, 4)


async def test_side_by_side_where_no_connection_is_kept_is_five_at_once(database_url):
    db = Database(database_url, poolclass=NullPool)
    running, most = 0, 0

    async def unit(session):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await session.execute(text("SELECT pg_sleep(0.05)"))
        running -= 1

    await db.gather(*[unit] * 12)

    assert most == 5


async def test_side_by_side_on_a_pool_without_a_limit_has_none_at_any_call(database_url):
    db = Database(database_url, max_overflow=-1)
    meeting = asyncio.Barrier(6)

    async def unit(_):
        async with asyncio.timeout(5):
            await meeting.wait()

    async def alone(_): ...

    await db.gather(alone)
    await db.gather(*[unit] * 6)
    await db.dispose()


async def test_the_first_failure_cancels_the_others_and_is_raised_as_it_is(db, admin):
    done = []

    async def slow(session):
        await add(session)
        await session.execute(text("SELECT pg_sleep(2)"))
        done.append(1)

    async def fails(session):
        await session.execute(text("SELECT pg_sleep(0.05)"))
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await db.gather(slow, fails)

    assert done == []
    assert db.pool_status().in_use == 0
    assert await value(admin) == 0


async def test_an_unknown_outcome_among_failures_side_by_side_is_the_one_that_is_raised(db):
    async def fails(session):
        raise KeyError

    async def ends_unknown(session):
        try:
            await asyncio.sleep(10)
        finally:
            raise OutcomeUnknownError("COMMIT was sent")

    with pytest.raises(OutcomeUnknownError):
        await db.gather(fails, ends_unknown)


async def test_a_schema_that_changed_under_a_running_service_repeats_the_unit(db, admin):
    tries = []

    async def work(session):
        tries.append(1)
        return (await session.execute(text("SELECT * FROM counter WHERE id = 1"))).one()

    before = await db.transaction(work)
    await admin("ALTER TABLE counter ADD COLUMN note text")
    after = await db.transaction(work)

    assert (len(before), len(after)) == (2, 3)
    assert len(tries) == 3


async def test_a_full_pool_is_not_repeated(database_url):
    db = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    tries = []

    async def work(session):
        tries.append(1)
        await session.execute(text("SELECT 1"))

    async with db.session() as session:
        await session.connection()
        with pytest.raises(PoolExhaustedError):
            await db.transaction(work)

    assert len(tries) == 1
    await db.dispose()


async def test_a_server_that_comes_back_is_found_within_the_deadline(postgres, database_url, naps):
    db = Database(database_url, retry=Retry(sleep=naps.sleep, clock=naps.time))
    real, down = db.engine.sync_engine.dialect.connect, [3]

    def connect(*args, **kwargs):
        if down[0]:
            down[0] -= 1
            from verdigris.errors import DatabaseUnavailableError

            raise DatabaseUnavailableError("down")
        return real(*args, **kwargs)

    db.engine.sync_engine.dialect.connect = connect

    async def work(session):
        return await session.scalar(text("SELECT 1"))

    assert await db.transaction(work) == 1
    assert len(naps.slept) == 3
    await db.dispose()
