"""What is sent as prepared does what asyncpg's own `fetch()` does: each case runs both ways."""

import asyncio

import asyncpg
import pytest

from verdigris.database import Database
from verdigris.engine.prepared import is_plain

WAYS = ("fetch", "fetch_prepared")
OF_EACH = ("fetchmany", "fetch_each_prepared")


@pytest.fixture
async def connect(database_url):
    """Give asyncpg's connection of a Database with some options of asyncpg's."""
    made = []

    async def connected(**options):
        database = Database(database_url, command_timeout=options.pop("limit", 60), connect_args=options)
        held = await database.engine.connect()
        made.append((database, held))
        return (await held.get_raw_connection()).driver_connection

    yield connected
    for database, held in made:
        await held.invalidate()
        await held.close()
        await database.dispose()


def ask(driver, way, query, *arguments):
    match way:
        case "fetch":
            return driver.fetch(query, *arguments)
        case "fetch_prepared":
            return driver.fetch_prepared(query, arguments)
        case _:
            return getattr(driver, way)(query, [arguments])


def fetches(driver):
    """Note what goes through `fetch()`, as a connection does that prepares first."""
    calls, original = [], driver.fetch

    def noted(query, *arguments, **options):
        calls.append(query)
        return original(query, *arguments, **options)

    driver.fetch = noted
    return calls


async def outcome(awaitable):
    """Return the rows, or the error as its class and text."""
    try:
        return [dict(row) for row in await awaitable]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
        return type(error), str(error)


async def test_only_the_first_time_goes_through_fetch(connect):
    driver = await connect()
    calls = fetches(driver)

    rows = [await driver.fetch_prepared("SELECT $1::int AS n", (n,)) for n in range(3)]

    assert [row[0]["n"] for row in rows] == [0, 1, 2]
    assert calls == ["SELECT $1::int AS n"]


async def test_of_several_arguments_each_has_its_row_and_only_the_first_time_goes_through_fetchmany(connect):
    driver = await connect()
    seen, original = [], driver.fetchmany

    def noted(query, arguments):
        seen.append(query)
        return original(query, arguments)

    driver.fetchmany = noted
    rows = [await driver.fetch_each_prepared("SELECT $1::int AS n", [(n,), (n + 1,)]) for n in range(3)]

    assert [[row["n"] for row in each] for each in rows] == [[0, 1], [1, 2], [2, 3]]
    assert seen == ["SELECT $1::int AS n"]


@pytest.mark.parametrize("way", WAYS + OF_EACH)
async def test_a_table_that_changes_is_read_as_it_is(connect, way):
    driver = await connect()
    await driver.execute("CREATE TEMP TABLE t AS SELECT 1 AS a")
    before = await ask(driver, way, "SELECT * FROM t")
    await driver.execute("ALTER TABLE t ADD COLUMN b text DEFAULT 'x', ALTER a TYPE bigint")

    after = [await ask(driver, way, "SELECT * FROM t") for _ in range(2)]

    assert [dict(row) for row in before] == [{"a": 1}]
    assert [[dict(row) for row in rows] for rows in after] == [[{"a": 1, "b": "x"}]] * 2


@pytest.mark.parametrize("way", WAYS + OF_EACH)
async def test_in_a_transaction_a_changed_table_is_an_error_and_the_next_transaction_reads_it(connect, way):
    driver = await connect()
    await driver.execute("CREATE TEMP TABLE t AS SELECT 1 AS a")
    await ask(driver, way, "SELECT * FROM t")
    await driver.execute("ALTER TABLE t ADD COLUMN b int")

    await driver.execute("BEGIN")
    within = await outcome(ask(driver, way, "SELECT * FROM t"))
    await driver.execute("ROLLBACK")
    after = await outcome(ask(driver, way, "SELECT * FROM t"))

    assert within[0] is asyncpg.InvalidCachedStatementError
    assert after == [{"a": 1, "b": None}]


@pytest.mark.parametrize("way", WAYS + OF_EACH)
async def test_a_type_that_changes_is_an_error_once(connect, way):
    driver = await connect()
    await driver.execute("DROP TABLE IF EXISTS of_pair; DROP TYPE IF EXISTS pair; CREATE TYPE pair AS (x int, y int)")
    await driver.execute("CREATE TEMP TABLE of_pair AS SELECT (1, 2)::pair AS pair")
    await ask(driver, way, "SELECT pair FROM of_pair")
    await driver.execute("ALTER TYPE pair ADD ATTRIBUTE z int CASCADE")

    found = [await outcome(ask(driver, way, "SELECT pair FROM of_pair")) for _ in range(2)]
    await driver.execute("DROP TABLE of_pair; DROP TYPE pair")

    assert found[0][0] is asyncpg.OutdatedSchemaCacheError
    assert found[1] == [{"pair": (1, 2, None)}]


@pytest.mark.parametrize("forgotten", ["DEALLOCATE ALL", "DISCARD ALL"])
async def test_statements_that_the_server_has_forgotten_are_the_same_error(connect, forgotten):
    found = []
    for way in WAYS:
        driver = await connect()
        await ask(driver, way, "SELECT 1 AS n")
        await driver.execute(forgotten)
        found.append([await outcome(ask(driver, way, "SELECT 1 AS n")), await outcome(ask(driver, way, "SELECT 2"))])

    (first, other), (prepared, prepared_other) = found
    assert first[0] is prepared[0] is asyncpg.InvalidSQLStatementNameError
    assert other == prepared_other


async def test_where_nothing_is_kept_everything_goes_through_fetch(connect):
    driver = await connect(statement_cache_size=0)
    calls = fetches(driver)

    rows = [await driver.fetch_prepared("SELECT 1 AS n", ()) for _ in range(3)]

    assert len(rows) == len(calls) == 3
    left = await driver.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1 AS n'")
    assert left == 0


async def test_what_is_used_is_kept_and_what_is_not_goes(connect):
    driver = await connect(statement_cache_size=2)
    calls = fetches(driver)

    for text in ("SELECT 1", "SELECT 2", "SELECT 1", "SELECT 3", "SELECT 1", "SELECT 2"):
        await driver.fetch_prepared(text, ())

    assert calls == ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 2"]


async def test_of_two_texts_in_a_cache_of_one_each_is_prepared_anew_and_none_is_left(connect):
    driver = await connect(statement_cache_size=1)

    rows = [await driver.fetch_prepared(f"SELECT {n % 2} AS n", ()) for n in range(6)]
    left = await driver.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'AS n$'")

    assert [row[0]["n"] for row in rows] == [0, 1] * 3
    assert left <= 1


async def test_a_text_too_large_to_be_kept_goes_through_fetch(connect):
    driver = await connect(max_cacheable_statement_size=20)
    calls = fetches(driver)
    large = "SELECT 1 AS a_name_of_some_length"

    for _ in range(2):
        await driver.fetch_prepared(large, ())
        await driver.fetch_prepared("SELECT 1", ())

    assert calls == [large, "SELECT 1", large]


@pytest.mark.parametrize("way", WAYS + OF_EACH)
async def test_a_cancelled_read_stops_on_the_server_and_leaves_the_connection_right(connect, way):
    driver, other = await connect(), await connect()
    text = "SELECT pg_sleep($1)"
    await ask(driver, way, text, 0)

    task = asyncio.create_task(ask(driver, way, text, 30))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await ask(driver, way, "SELECT 1 AS n")
    active = await other.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", driver.get_server_pid())

    assert found[0]["n"] == 1
    assert active == "idle"


@pytest.mark.parametrize("way", WAYS + OF_EACH)
async def test_a_wait_beyond_the_limit_ends_and_leaves_the_connection_right(connect, way):
    driver = await connect(limit=0.2)
    await ask(driver, way, "SELECT pg_sleep($1)", 0)

    with pytest.raises(TimeoutError):
        await ask(driver, way, "SELECT pg_sleep($1)", 30)
    found = await ask(driver, way, "SELECT 1 AS n")

    assert found[0]["n"] == 1


@pytest.mark.parametrize("second", WAYS + OF_EACH)
@pytest.mark.parametrize("first", WAYS + OF_EACH)
async def test_a_second_statement_beside_another_is_refused_and_the_first_goes_on(connect, first, second):
    driver = await connect()
    for way in (first, second):
        await ask(driver, way, "SELECT pg_sleep(0.1), $1::int AS n", 0)

    running = asyncio.create_task(ask(driver, first, "SELECT pg_sleep(0.1), $1::int AS n", 1))
    await asyncio.sleep(0.02)
    beside = await outcome(ask(driver, second, "SELECT pg_sleep(0.1), $1::int AS n", 2))

    assert beside == (asyncpg.InterfaceError, "cannot perform operation: another operation is in progress")
    assert (await running)[0]["n"] == 1


@pytest.mark.parametrize("how", ["close", "terminate"])
async def test_a_closed_connection_says_so(connect, how):
    driver = await connect()
    await driver.fetch_prepared("SELECT 1", ())
    if how == "close":
        await driver.close()
    else:
        driver.terminate()

    assert await outcome(driver.fetch_prepared("SELECT 1", ())) == await outcome(driver.fetch("SELECT 1"))


@pytest.mark.parametrize("ways", [WAYS, OF_EACH])
async def test_arguments_that_do_not_fit_are_the_same_errors(connect, ways):
    driver = await connect()
    await driver.fetch("SELECT $1::int AS n", 1)

    for arguments in ((), (1, 2), ("x",), (2**40,)):
        found = [await outcome(ask(driver, way, "SELECT $1::int AS n", *arguments)) for way in ways]

        assert found[0] == found[1]
        assert issubclass(found[0][0], asyncpg.InterfaceError | asyncpg.DataError)


async def test_a_query_logger_hears_every_statement(connect):
    driver = await connect()
    await driver.fetch_prepared("SELECT 1", ())
    heard = []

    async def hear(record):
        heard.append(record.query)

    with driver.query_logger(hear):
        await driver.fetch_prepared("SELECT 1", ())
    await asyncio.sleep(0)

    assert heard == ["SELECT 1"]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("fetch", "fetch_prepared"),
        ("_execute", "fetch_prepared"),
        ("fetchmany", "fetch_each_prepared"),
        ("_executemany", "fetch_each_prepared"),
    ],
)
async def test_what_traces_statements_by_taking_the_place_of_asyncpgs_methods_sees_them(
    connect, name, way, monkeypatch
):
    driver = await connect()
    await driver.fetch_prepared("SELECT 1", ())
    seen, original = [], getattr(asyncpg.Connection, name)

    def traced(self, query, *args, **options):
        seen.append(query)
        return original(self, query, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, name, traced)
    await ask(driver, way, "SELECT 1")

    assert seen == ["SELECT 1"]


class Loud(asyncpg.Connection):
    heard: list[str] = []  # noqa: RUF012 - of the test

    async def fetch(self, query, *args, **options):
        self.heard.append(query)
        return await super().fetch(query, *args, **options)


async def test_a_class_of_the_teams_own_that_fetches_in_its_way_is_asked(connect):
    driver = await connect(connection_class=Loud)
    Loud.heard.clear()

    for _ in range(2):
        await driver.fetch_prepared("SELECT 1", ())

    assert Loud.heard == ["SELECT 1"] * 2
    assert not is_plain(Loud)
    assert is_plain(None)


async def test_statements_that_leave_state_are_noted_each_time(connect):
    driver = await connect()

    for _ in range(2):
        await driver.fetch_prepared("SELECT set_config('search_path', 'public', false)", ())

    assert driver.left == {"SET by set_config()": 2}
