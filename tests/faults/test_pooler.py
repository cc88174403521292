import asyncio

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.rig import NotHere, PgBouncer, eventually, within
from verdigris import Database
from verdigris.errors import ConfigurationError, SessionStateError, StatementTimeoutError, classify

SETTINGS = "statement_timeout,transaction_timeout,idle_in_transaction_session_timeout"


@pytest.fixture(scope="module")
def bouncer(_server):
    """PgBouncer in transaction mode with three server connections for everybody."""
    try:
        with PgBouncer(_server, size=3) as running:
            yield running
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture
def lenient(_server):
    """PgBouncer that passes unknown startup parameters by, so that it shows in nothing but its process number."""
    try:
        with PgBouncer(_server, size=3, ignore_startup_parameters=SETTINGS) as running:
            yield running
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def make(database):
    made = []

    def database_behind(pooler, query="", **options):
        db = Database(pooler.url_for(database) + query, pool_size=12, max_overflow=0, pool_timeout=60, **options)
        made.append(db)
        return db

    yield database_behind
    for db in made:
        await db.dispose()


async def transfer(session, amount):
    """Several statements with types, limits and results that differ: what a mixed-up statement would betray."""
    await session.execute(text("UPDATE account SET balance = balance + :by WHERE id = 1"), {"by": amount})
    echoed = await session.scalar(text(f"SELECT CAST(:n AS int) * {amount}"), {"n": 2})
    names = (await session.execute(text("SELECT id, balance, now() FROM account ORDER BY id"))).all()
    assert echoed == 2 * amount
    assert [row.id for row in names] == [1, 2]
    return await session.scalar(text("SHOW statement_timeout"))


async def busy(db, units=120):
    """Run units on more clients than there are server connections, reads in autocommit between them."""

    async def one(number):
        limit = await db.transaction(lambda session: transfer(session, number % 7))
        async with db.read() as session:
            assert await session.scalar(text("SELECT CAST(:n AS text)"), {"n": str(number)}) == str(number)
        return limit

    return await asyncio.gather(*(one(number) for number in range(units)))


@pytest.mark.parametrize("said", [True, False])
async def test_pgbouncer_works_out_of_the_box_said_or_not(bouncer, make, admin, said, caplog):
    db = make(bouncer, "?pgbouncer=true" if said else "")

    limits = await busy(db)

    assert (await admin("SELECT balance FROM account WHERE id = 1"))[0][0] == sum(n % 7 for n in range(120))
    assert set(limits) == {"30s"}  # set inside of the transaction: no parameter that PgBouncer would refuse
    assert ("?pgbouncer=true" in caplog.text) is not said
    assert caplog.text.count("a pooler stands before the database") == (not said)


async def test_a_teams_own_engine_works_behind_it_with_the_limits_too(bouncer, database, admin):
    db = Database.from_engine(create_async_engine(bouncer.url_for(database), pool_size=12), statement_timeout=20)

    limits = await busy(db, 60)

    assert set(limits) == {"20s"}
    assert (await admin("SELECT balance FROM account WHERE id = 1"))[0][0] == sum(n % 7 for n in range(60))
    await db.dispose()


async def test_it_is_found_out_where_it_refuses_nothing(lenient, make, caplog):
    db = make(lenient)

    await busy(db, 60)

    assert "the process that it names is not the one that answers" in caplog.text


@pytest.mark.slow
async def test_nothing_is_left_on_the_server_connections(bouncer, make):
    db = make(bouncer)
    await busy(db)

    async with db.engine.connect() as connection:
        kept = (await connection.execute(text("SELECT name FROM pg_prepared_statements"))).all()
        limit = await (await connection.get_raw_connection()).driver_connection.execute("SHOW statement_timeout")
    settings = set()
    for _ in range(6):
        async with db.read() as session:
            row = await session.execute(text("SELECT current_setting('statement_timeout'), current_setting('jit')"))
            settings.add(tuple(row.one()))

    assert kept == []
    assert limit == "SHOW"
    assert settings == {("0", "on")}


STATEFUL = [
    ("SET search_path = other", "SET search_path"),
    ("SELECT set_config('app.tenant', '7', false)", "set_config"),
    ("SELECT pg_advisory_lock(1)", "an advisory lock"),
    ("CREATE TEMPORARY TABLE staging (id int)", "temporary staging"),
    ("LISTEN news", "LISTEN news"),
]


@pytest.mark.parametrize(("statement", "named"), STATEFUL)
async def test_a_statement_that_would_leak_to_other_clients_is_refused(bouncer, make, statement, named):
    db = make(bouncer, "?pgbouncer=true")

    with pytest.raises(SessionStateError, match=named):
        async with db.session.begin() as session:
            await session.execute(text(statement))
    async with db.session.begin() as session:
        assert await session.scalar(text("SHOW search_path")) == '"$user", public'


async def test_what_ends_with_the_transaction_is_not_refused(bouncer, make):
    db = make(bouncer, "?pgbouncer=true")

    async with db.session.begin() as session:
        await session.execute(text("SET LOCAL work_mem = '9MB'"))
        await session.execute(text("SELECT set_config('app.tenant', :tenant, :local)"), {"tenant": "7", "local": True})
        await session.execute(text("SELECT pg_advisory_xact_lock(1)"))
        await session.execute(text("CREATE TEMPORARY TABLE staging (id int) ON COMMIT DROP"))
        assert await session.scalar(text("SHOW work_mem")) == "9MB"
    async with db.session.begin() as session:
        assert await session.scalar(text("SHOW work_mem")) == "4MB"


async def test_isolation_levels_and_snapshots_hold_behind_it(bouncer, make):
    db = make(bouncer, "?pgbouncer=true")

    async with db.read(snapshot=True) as session:
        levels = [await session.scalar(text("SHOW transaction_isolation")) for _ in range(3)]

    assert levels == ["repeatable read"] * 3
    assert await db.transaction(
        lambda s: s.scalar(text("SHOW transaction_isolation")), isolation_level="SERIALIZABLE"
    ) == ("serializable")


SLEEP = text("SELECT pg_sleep(20)")


async def through_a_session(db):
    async with db.read() as session:
        await session.execute(SLEEP)


async def through_the_lane(db):
    await db.lane.fetchval(SLEEP.text)


async def among_others(db):
    await db.lane.fetch_each(SLEEP.text, [(), ()])


@pytest.mark.parametrize("read", [through_a_session, through_the_lane, among_others])
async def test_a_read_without_a_transaction_ends_by_statement_timeout_too(bouncer, make, postgres, database, read):
    db = make(bouncer, "?pgbouncer=true", statement_timeout=0.4)

    with pytest.raises(StatementTimeoutError) as slow:
        await within(5, read(db))
    with pytest.raises(exc.DBAPIError) as in_a_transaction:
        await db.transaction(lambda session: session.execute(SLEEP))

    async def stopped():
        return not [each for each in await postgres.backends(database, busy=True) if "pg_sleep" in each["query"]]

    assert (classify(slow.value).status, classify(in_a_transaction.value).sqlstate) == (504, "57014")
    assert await eventually(stopped, seconds=5)
    assert db.pool_status().in_use == 0
    async with db.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_setting_that_no_pooler_keeps_is_refused_with_the_edit(bouncer, make):
    db = make(bouncer, "?options=-c%20search_path%3Dapp")

    with pytest.raises(ConfigurationError, match="cannot keep the setting search_path"):
        async with db.read() as session:
            await session.execute(text("SELECT 1"))


@pytest.mark.slow
async def test_a_pooler_in_session_mode_keeps_what_a_server_keeps(postgres, make, caplog):
    try:
        with PgBouncer(postgres, mode="session", size=12, ignore_startup_parameters=SETTINGS) as pooler:
            db = make(pooler, "?pgbouncer=false")
            await busy(db, 60)
            async with db.session.begin() as session:
                await session.execute(text("SET work_mem = '9MB'"))
                kept = await session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
    except NotHere as reason:
        pytest.skip(str(reason))

    assert kept > 0
    assert "a pooler stands before" not in caplog.text


@pytest.mark.slow
async def test_the_usual_engine_fails_behind_it_and_so_does_the_uuid_recipe(bouncer, database):
    """What the checker calls an error is one: the first with caches, the second leaves statements behind."""
    from uuid import uuid4

    plain = create_async_engine(bouncer.url_for(database), pool_size=12)
    named = create_async_engine(
        bouncer.url_for(database),
        pool_size=12,
        connect_args={"statement_cache_size": 0, "prepared_statement_name_func": lambda: f"__{uuid4()}__"},
    )
    outcomes = {}
    for name, engine in (("plain", plain), ("named", named)):

        async def unit(number, engine=engine):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT balance FROM account WHERE id = :id"), {"id": number % 2 + 1})
                await asyncio.sleep(0.001)
                await connection.execute(text("SELECT CAST(:n AS int)"), {"n": number})

        done = await asyncio.gather(*(unit(number) for number in range(150)), return_exceptions=True)
        outcomes[name] = sum(isinstance(one, Exception) for one in done)
        await engine.dispose()

    assert outcomes["plain"] > 0
    assert outcomes["named"] > 0
