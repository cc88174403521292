"""Section 10: times by query, place and route; slow reads explained; the pool's figures."""

import asyncio
import inspect
import logging
import re

import pytest
from sqlalchemy import Integer, bindparam, column, create_engine, insert, make_url, select, table, text, update
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from verdigris import Database
from verdigris.performance import instrument
from verdigris.performance.exporters import observe_with_opentelemetry, prometheus_text
from verdigris.performance.fingerprint import fingerprint, is_read
from verdigris.performance.queries import Queries
from verdigris.performance.sites import REQUEST

things = table("things", column("id", Integer), column("name"))


class Measured:
    """An engine under measurement with a small table on it."""

    def __init__(self, url, *, pool=None, **settings):
        self.engine = create_async_engine(url, **(pool or {}))
        self.queries = instrument(self.engine, **settings)
        self.session = async_sessionmaker(self.engine)

    async def __aenter__(self):
        async with self.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS things (id int PRIMARY KEY, name text)")
            await connection.exec_driver_sql("INSERT INTO things SELECT g, 'n' || g FROM generate_series(1, 100) g")
        self.queries.clear()
        return self

    async def __aexit__(self, *_):
        await self.queries.aclose()
        await self.engine.dispose()

    async def plan_of(self, query):
        await self.queries.aclose()
        return query().plan


@pytest.fixture
async def measured(database_url):
    async with Measured(database_url) as made:
        yield made


def only(queries):
    (query,) = queries
    return query


# -- times -------------------------------------------------------------------------------------------------------------


async def test_a_query_is_counted_and_timed_under_its_fingerprint_and_place(measured):
    async with measured.session() as session:
        for number in range(3):
            await session.execute(select(things.c.name).where(things.c.id == number))

    query = only(measured.queries)
    assert query.fingerprint == "SELECT things.name FROM things WHERE things.id = $1::INTEGER"
    assert (query.count, query.failed) == (3, 0)
    assert 0 < query.max <= query.total
    assert query.mean == query.total / 3
    assert only(query.sites).place.split(":")[0].endswith("test_performance.py")


async def test_the_place_is_the_line_of_the_application_through_orm_core_and_driver_calls(measured):
    async with measured.session() as session:
        await session.scalars(select(things.c.id))
        line = inspect.currentframe().f_lineno - 1
        await session.run_sync(lambda sync: sync.execute(select(things.c.name)))
        inner = inspect.currentframe().f_lineno - 1
        await (await session.connection()).exec_driver_sql("SELECT 1")
        driver = inspect.currentframe().f_lineno - 1

    places = [only(query.sites).place for query in measured.queries]
    assert [int(place.rsplit(":", 1)[1]) for place in places] == [line, inner, driver]


async def test_one_query_from_two_places_keeps_them_apart(measured):
    async with measured.session() as session:
        await session.execute(select(things.c.id))
        await session.execute(select(things.c.id))

    assert len(only(measured.queries).sites) == 2


async def test_the_route_that_asked_is_kept_and_never_its_values(measured):
    async def request(number):
        REQUEST.set({"type": "http", "method": "GET", "path": f"/things/{number}", "route": Route})
        async with measured.session() as session:
            await session.execute(select(things.c.id))

    class Route:
        path = "/things/{id}"

    await asyncio.gather(request(1), request(2))

    assert [site.route for site in only(measured.queries).sites] == ["GET /things/{id}"]
    assert "GET /things/{id}" in str(only(measured.queries))


async def test_a_failed_statement_counts_as_failed(measured):
    async with measured.session() as session:
        with pytest.raises(ProgrammingError):
            await session.execute(text("SELECT * FROM nowhere"))

    assert (only(measured.queries).count, only(measured.queries).failed) == (1, 1)


async def test_many_rows_in_one_call_and_lists_of_any_length_are_one_query(measured):
    async with measured.session() as session:
        await session.execute(insert(things), [{"id": 200, "name": "a"}, {"id": 201, "name": "b"}])
        for length in range(1, 5):
            await session.execute(select(things.c.id).where(things.c.id.in_(range(length))))

    assert [(query.fingerprint[:6], query.count) for query in measured.queries] == [("INSERT", 1), ("SELECT", 4)]


async def test_the_slowest_and_the_heaviest_come_first(measured):
    async with measured.session() as session:
        await session.execute(text("SELECT pg_sleep(0.05)"))
        for _ in range(8):
            await session.execute(text("SELECT pg_sleep(0.01), 'often'"))

    assert "?," not in measured.queries.slowest(1)[0].fingerprint
    assert "pg_sleep(?), ?" in measured.queries.heaviest(1)[0].fingerprint
    assert len(measured.queries) == 2


async def test_copies_of_the_engine_are_measured_and_a_second_call_gives_the_same_figures(measured):
    copy = measured.engine.execution_options(isolation_level="AUTOCOMMIT")

    async with copy.connect() as connection:
        await connection.execute(select(things.c.id))

    assert only(measured.queries).count == 1
    assert instrument(measured.engine) is measured.queries
    assert instrument(copy) is measured.queries


async def test_another_engine_is_not_measured(measured, database_url):
    other = create_async_engine(database_url)
    async with other.connect() as connection:
        await connection.execute(select(things.c.id))
    await other.dispose()

    assert len(measured.queries) == 0


async def test_times_can_be_left_out(database_url):
    async with Measured(database_url, time_queries=False, pool_metrics=False) as made:
        async with made.session() as session:
            await session.execute(select(things.c.id))

        assert len(made.queries) == 0
        with pytest.raises(RuntimeError, match=re.escape("Turn it on:   Database(pool_metrics=True)")):
            made.queries.pool_status()


def test_memory_is_bounded_however_many_different_statements_come():
    queries = Queries()

    for number in range(5_000):
        queries.observe(f"SELECT column_{number} FROM things", None, 0.001, failed=False)

    assert 1_900 < len(queries) <= 2_000
    assert len(queries._by_text) <= 2_000


def test_a_query_that_goes_on_is_kept_however_many_others_come():
    queries = Queries()

    for number in range(5_000):
        queries.observe("SELECT always FROM things", None, 0.001, failed=False)
        queries.observe(f"SELECT column_{number} FROM things", None, 0.001, failed=False)

    assert [query.count for query in queries if "always" in query.fingerprint] == [5_000]


@pytest.mark.parametrize("name", ["do_execute", "do_executemany", "do_execute_no_params"])
def test_the_methods_that_are_wrapped_have_the_signatures_that_were_wrapped(name):
    positional = [each for each in inspect.signature(getattr(DefaultDialect, name)).parameters if each != "self"]

    expected = ["cursor", "statement", "parameters", "context"]
    assert positional == [each for each in expected if each != "parameters" or name != "do_execute_no_params"]


# -- fingerprints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT  1\n FROM t -- why\n", "SELECT ? FROM t"),
        ("SELECT 'it''s', E'a\\'b', $$raw 'x'$$, $f$y$f$", "SELECT ?, ?, ?, ?"),
        ("SELECT t1.c2 FROM t1 WHERE c2 = 3.5 AND d = $1::NUMERIC(10, 2)", None),
        ("x IN ($1)", "x IN (…)"),
        ("x IN ($1::INTEGER, $2::INTEGER, $3::INTEGER)", "x IN (…)"),
        ("VALUES ($1::TIMESTAMP WITH TIME ZONE, $2), ($3::TIMESTAMP WITH TIME ZONE, $4)", "VALUES (…)"),
        ("SELECT a /* user 17 */ FROM t", "SELECT a FROM t"),
        ("coalesce($1, 2)", "coalesce(…)"),
    ],
)
def test_a_fingerprint_holds_no_values(statement, expected):
    made = fingerprint(statement)

    assert "secret" not in made
    if expected is not None:
        assert made == expected


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("SELECT 1", True),
        ("  (SELECT 'delete from' UNION SELECT 2)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", False),
        ("SELECT * INTO new FROM t", False),
        ("SELECT * FROM t FOR UPDATE", False),
        ("SELECT nextval('s')", False),
        ("UPDATE t SET a = 1", False),
        ("EXPLAIN SELECT 1", False),
    ],
)
def test_only_what_certainly_reads_counts_as_a_read(statement, reads):
    assert is_read(statement) is reads


# -- slow queries ------------------------------------------------------------------------------------------------------


async def test_a_slow_query_is_logged_with_its_place_and_without_its_values(database_url, caplog):
    statement = text(
        "SELECT pg_sleep(0.05) FROM things WHERE name = :name AND name <> 'literal secret' OR id = 1 LIMIT 1"
    )

    with caplog.at_level(logging.WARNING, logger="verdigris.queries"):
        async with Measured(database_url, slow_query=0.04) as made, made.session() as session:
            await session.execute(statement, {"name": "bound secret"})

    line = caplog.records[0].getMessage()
    assert line.startswith("slow query: 0.")
    assert "test_performance.py:" in line
    assert "secret" not in caplog.text


async def test_a_slow_read_is_explained_without_being_run_again(database_url):
    async with Measured(database_url, slow_query=0.05) as made, made.session() as session:
        statement = select(things.c.name, text("pg_sleep(0.06)")).where(
            things.c.id == bindparam("id"), things.c.name != "x"
        )
        await session.execute(statement, {"id": 7})

        plan = await made.plan_of(lambda: only(made.queries))

        assert only(made.queries).count == 1
    assert plan.analyzed is False
    assert "Index Scan using things_pkey" in plan.plan
    assert "Index Cond: (id = $1)" in plan.plan


async def test_the_request_does_not_wait_for_the_plan_nor_lend_its_connection(database_url):
    pool = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.5}
    async with Measured(database_url, slow_query=0.02, pool=pool) as made, made.session() as session:
        await session.execute(text("SELECT pg_sleep(0.03)"))
        waiting = only(made.queries).plan
        plan = await made.plan_of(lambda: only(made.queries))
        in_use = made.queries.pool_status().in_use

    assert waiting is None
    assert plan.plan.startswith("Result")
    assert in_use == 1


async def test_the_same_query_is_explained_once(database_url, caplog):
    with caplog.at_level(logging.WARNING, logger="verdigris.queries"):
        async with Measured(database_url, slow_query=0.1) as made, made.session() as session:
            for _ in range(3):
                await session.execute(text("SELECT pg_sleep(0.11)"))
            await made.queries.aclose()

    assert caplog.text.count("slow query: ") == 3
    assert caplog.text.count("plan of the slow query") == 1


async def test_a_plan_with_real_times_needs_permission_and_shows_no_values(database_url):
    async with Measured(database_url, slow_query=0.05, explain_slow="analyze") as made, made.session() as session:
        await session.execute(text("SELECT pg_sleep(0.06) FROM things WHERE name = :name"), {"name": "n17"})

        plan = await made.plan_of(lambda: only(made.queries))

    assert plan.analyzed is True
    assert "actual" in plan.plan
    assert re.search(r"Rows Removed by Filter: \d+", plan.plan)
    assert "n17" not in plan.plan


async def test_a_write_is_never_explained(database_url):
    async with Measured(database_url, slow_query=0.0, explain_slow="analyze") as made, made.session() as session:
        await session.execute(update(things).values(name="changed").where(things.c.id == 1))
        await session.rollback()
        await made.queries.aclose()

        assert only(made.queries).plan is None


async def test_what_hides_a_write_is_stopped_by_the_read_only_transaction(database_url):
    async with Measured(database_url, slow_query=100.0, explain_slow="analyze") as made, made.session() as session:
        await session.execute(
            text("CREATE FUNCTION hidden() RETURNS int LANGUAGE sql AS 'DELETE FROM things RETURNING 1'")
        )
        await session.commit()
        made.queries.clear()
        made.queries.slow_query = 0.0
        await session.execute(text("SELECT hidden()"))
        await session.rollback()
        plan = await made.plan_of(lambda: only(made.queries))

        made.queries.slow_query = 100.0
        left = await session.scalar(text("SELECT count(*) FROM things"))

    assert plan is None
    assert left == 100


async def test_explaining_can_be_left_out(database_url):
    async with Measured(database_url, slow_query=0.0, explain_slow=False) as made, made.session() as session:
        await session.execute(select(things.c.id))
        await made.queries.aclose()

        assert only(made.queries).plan is None


async def test_a_synchronous_engine_is_timed_too(database_url):
    engine = create_engine("sqlite://")
    queries = instrument(engine, slow_query=0.0)

    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()

    assert only(queries).count == 1


# -- the pool ----------------------------------------------------------------------------------------------------------


async def test_the_pools_figures_say_who_is_in_and_who_waits(database_url):
    pool = {"pool_size": 1, "max_overflow": 1, "pool_timeout": 0.3}
    async with Measured(database_url, pool=pool) as made:
        release = asyncio.Event()

        async def hold():
            async with made.engine.connect():
                await release.wait()

        holders = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0.15)
        full = made.queries.pool_status()
        await asyncio.sleep(0.3)
        release.set()
        answers = await asyncio.gather(*holders, return_exceptions=True)
        after = made.queries.pool_status()

    assert (full.size, full.max_overflow, full.in_use, full.overflow, full.waiting) == (1, 1, 2, 1, 1)
    assert [type(answer) for answer in answers if answer is not None] == [PoolTimeoutError]
    assert (after.in_use, after.idle, after.overflow, after.waiting, after.timeouts) == (0, 1, 0, 0, 1)
    assert 0.25 < after.wait_max < 1.0
    assert after.wait_p50 <= after.wait_p99 <= after.wait_max


async def test_an_unused_pool_has_no_negative_overflow(database_url):
    engine = create_async_engine(database_url, pool_size=5)

    status = instrument(engine).pool_status()

    assert (status.size, status.in_use, status.idle, status.overflow) == (5, 0, 0, 0)


async def test_the_figures_go_on_when_the_pool_is_replaced(measured):
    before = measured.queries.pool_status().checkouts

    await measured.engine.dispose()
    async with measured.engine.connect():
        assert measured.queries.pool_status().in_use == 1

    assert measured.queries.pool_status().checkouts == before + 1


async def test_the_figures_go_on_when_a_database_takes_the_engine_over(database_url):
    engine = create_async_engine(database_url)
    queries = instrument(engine)
    db = Database.from_engine(engine)

    async with db.session() as session:
        await session.execute(text("SELECT 1"))
        used = queries.pool_status()
    await db.dispose()

    assert db.queries is queries
    assert (used.checkouts, used.in_use) == (1, 1)


async def test_a_pool_that_keeps_nothing_has_figures_too(database_url):
    engine = create_async_engine(database_url, poolclass=NullPool)
    queries = instrument(engine)

    async with engine.connect():
        status = queries.pool_status()

    assert (status.size, status.overflow, status.checkouts) == (0, 0, 1)
    await engine.dispose()


# -- exporters ---------------------------------------------------------------------------------------------------------


async def test_prometheus_gets_the_pool_and_the_times(measured):
    async with measured.session() as session:
        await session.execute(select(things.c.id))
        shown = prometheus_text({"main": measured.queries}).decode()

    lines = shown.splitlines()
    assert 'verdigris_pool_in_use{database="main"} 1.0' in lines
    assert 'verdigris_pool_size{database="main"} 5.0' in lines
    assert 'verdigris_query_seconds_count{database="main",operation="select"} 1.0' in lines
    assert 'verdigris_query_seconds_bucket{database="main",le="+Inf",operation="select"} 1.0' in lines
    assert any(line.startswith('verdigris_pool_wait_seconds_count{database="main"}') for line in lines)


async def test_opentelemetry_gets_the_pools_gauges(measured):
    registered = {}

    class Meter:
        def create_observable_gauge(self, name, callbacks, description):
            registered[name] = callbacks[0]

    observe_with_opentelemetry({"main": measured.queries}, Meter())

    (observation,) = registered["verdigris.pool.size"](None)
    assert (observation.value, observation.attributes) == (5, {"database": "main"})
    assert set(registered) == {
        f"verdigris.pool.{name}" for name in ("size", "max_overflow", "in_use", "idle", "overflow", "waiting")
    }


async def test_a_server_that_gives_no_connection_for_a_plan_disturbs_nobody(database_url, admin, caplog):
    role = f"poor_{database_url.rsplit('/', 1)[1]}"
    await admin(f"CREATE ROLE {role} LOGIN PASSWORD 'poor' CONNECTION LIMIT 1")
    engine = create_async_engine(make_url(database_url).set(username=role, password="poor"))
    queries = instrument(engine, slow_query=0.0)

    with caplog.at_level(logging.INFO, logger="verdigris.queries"):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await queries.aclose()
    await engine.dispose()
    await admin(f"DROP ROLE {role}")

    assert "no plan for a slow query: " in caplog.text


async def test_a_query_that_fails_while_it_is_explained_disturbs_nobody(database_url, caplog):
    async with Measured(database_url, slow_query=0.0) as made:
        async with made.session() as session:
            await session.execute(text("CREATE TEMP TABLE mine (id int)"))
            await session.execute(text("SELECT id FROM mine"))  # which no other connection sees
            await made.queries.aclose()
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT id FROM nobodys"))

        assert all(query.plan is None for query in made.queries)
