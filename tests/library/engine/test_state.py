import asyncio

import pytest
from sqlalchemy import event, func, select, text

from verdigris import Database
from verdigris.engine.state import effects

LEAVES = [
    ("SET work_mem = '9MB'", "SET work_mem"),
    ("set session work_mem to '9MB'", "SET work_mem"),
    ("-- a note\n  SET ROLE app", "SET role"),
    ("/* a note */ SET SESSION AUTHORIZATION app", "SET authorization"),
    ("SELECT 1; SET work_mem = 1", "SET work_mem"),
    ("SELECT set_config('app.tenant', '7', false)", "SET by set_config()"),
    ("SELECT pg_advisory_lock(1)", "an advisory lock"),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", "an advisory lock"),
    ("CREATE TEMP TABLE staging (id int)", "temporary staging"),
    ("CREATE LOCAL TEMPORARY TABLE IF NOT EXISTS staging AS SELECT 1", "temporary staging"),
    ("CREATE TEMPORARY TABLE staging (id int) ON COMMIT PRESERVE ROWS", "temporary staging"),
    ("SELECT * INTO TEMP staging FROM note", "temporary staging"),
    ("LISTEN news", "LISTEN news"),
    ("PREPARE find AS SELECT 1", "PREPARE find"),
    ("DECLARE rows CURSOR WITH HOLD FOR SELECT 1", "the cursor rows"),
    ("LOAD 'auto_explain'", "LOAD 'auto_explain'"),
]

LEAVES_NOTHING = [
    "SELECT * FROM note WHERE id = $1",
    "UPDATE note SET text = $1 WHERE id = 2",
    "SET LOCAL work_mem = '9MB'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT set_config('app.tenant', '7', true)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "CREATE TEMPORARY TABLE staging (id int) ON COMMIT DROP",
    "CREATE TABLE temporary_note (id int)",
    "BEGIN;",
    "COMMIT",
    "PREPARE TRANSACTION 'one'",
    "DECLARE rows CURSOR FOR SELECT 1",
    "PREPARE verdigris_slow AS SELECT 1",  # our own, taken away in the same transaction
]


@pytest.mark.parametrize(("statement", "left"), LEAVES)
def test_what_outlives_the_transaction_is_known_from_the_text(statement, left):
    assert [(effect.what, effect.change) for effect in effects(statement)] == [(left, 1)]


@pytest.mark.parametrize("statement", LEAVES_NOTHING)
def test_what_ends_with_it_is_left_alone(statement):
    assert effects(statement) == ()


@pytest.fixture
async def db(database_url):
    """A pool of one connection: whatever one user leaves, the next one finds."""
    made = Database(database_url, pool_size=1, max_overflow=0)
    yield made
    await made.dispose()


async def show(db, expression):
    async with db.session() as session:
        return await session.scalar(text(f"SELECT {expression}"))


@pytest.fixture
def sent(monkeypatch):
    """The simple queries that go over the wire."""
    import asyncpg

    statements, original = [], asyncpg.Connection.execute

    async def spy(self, query, *args, **kwargs):
        statements.append(query)
        return await original(self, query, *args, **kwargs)

    monkeypatch.setattr(asyncpg.Connection, "execute", spy)
    return statements


FINDS = [
    ("SET work_mem = '9MB'", "current_setting('work_mem')", "4MB"),
    ("SELECT set_config('work_mem', '9MB', false)", "current_setting('work_mem')", "4MB"),
    ("SET ROLE pg_monitor", "current_user::text", "postgres"),
    ("SELECT pg_advisory_lock(1)", "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')", 0),
    ("CREATE TEMP TABLE staging AS SELECT 1", "to_regclass('staging')::text", None),
    ("LISTEN news", "(SELECT count(*) FROM pg_listening_channels())", 0),
]


@pytest.mark.parametrize(("statement", "expression", "clean"), FINDS)
async def test_the_next_user_does_not_find_what_one_left(db, statement, expression, clean, caplog):
    backend = await show(db, "pg_backend_pid()")
    async with db.session.begin() as session:
        await session.execute(text(statement))

    assert await show(db, expression) == clean
    assert await show(db, "pg_backend_pid()") == backend
    assert caplog.text.count("came back") == 1
    assert "test_state.py:" in caplog.text
    assert "9MB" not in caplog.text


async def test_what_cannot_be_cleared_goes_with_its_connection(db, caplog):
    async with db.session.begin() as session:
        await session.execute(text("PREPARE find AS SELECT 1"))

    assert await show(db, "(SELECT count(*) FROM pg_prepared_statements WHERE name = 'find')") == 0
    assert "it was closed" in caplog.text


async def test_the_settings_of_the_connection_itself_survive(database_url):
    db = Database(f"{database_url}?application_name=shop", pool_size=1, max_overflow=0, statement_timeout=7)
    async with db.session.begin() as session:
        await session.execute(text("SET statement_timeout = '1s'"))

    assert (
        await show(db, "current_setting('statement_timeout') || ' ' || current_setting('application_name')")
        == "7s shop"
    )
    await db.dispose()


async def test_only_a_connection_with_something_to_clear_pays_a_round_trip(db, sent):
    await show(db, "1")
    sent.clear()
    async with db.session.begin() as session:
        await session.execute(text("SELECT set_config('app.tenant', :tenant, :local)"), {"tenant": "7", "local": True})
        await session.execute(select(func.pg_advisory_xact_lock(1)))
    clean = list(sent)
    sent.clear()
    async with db.session.begin() as session:
        await session.execute(select(func.set_config("app.tenant", "7", False)))

    assert clean == ["BEGIN;", "COMMIT;"]
    assert len(sent) == 3
    assert "RESET ALL" in sent[2]


async def test_what_was_taken_away_again_needs_no_clearing(db, sent, caplog):
    await show(db, "1")
    sent.clear()
    async with db.session.begin() as session:
        await session.execute(text("SELECT pg_advisory_lock(1)"))
        await session.execute(text("CREATE TEMP TABLE staging (id int)"))
        await session.execute(text("DROP TABLE staging"))
        await session.execute(text("SELECT pg_advisory_unlock(1)"))
        await session.execute(text("PREPARE find AS SELECT 1"))
        await session.execute(text("DEALLOCATE find"))

    assert sent == ["BEGIN;", "COMMIT;"]
    assert "came back" not in caplog.text


async def test_a_statement_that_is_prepared_already_is_seen_each_time(db):
    for _ in range(2):
        async with db.session.begin() as session:
            await session.execute(text("SELECT pg_advisory_lock(1)"))
        assert await show(db, "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')") == 0


async def test_a_session_that_dies_half_way_leaves_nothing_either(db):
    async def fails(session):
        await session.execute(text("SELECT pg_advisory_lock(1)"))
        raise KeyError

    with pytest.raises(KeyError):
        await db.transaction(fails)

    assert await show(db, "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')") == 0


async def test_cancelled_while_it_is_cleared_the_slot_is_free_again(db, monkeypatch):
    from verdigris.engine.state import Tracked

    clearing = asyncio.Event()

    async def clear(self):
        clearing.set()
        await asyncio.sleep(30)

    monkeypatch.setattr(Tracked, "clear", clear)

    async def work():
        connection = await db.engine.connect()
        await connection.execute(text("SET work_mem = '9MB'"))
        await connection.close()

    task = asyncio.create_task(work())
    await clearing.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    monkeypatch.undo()

    assert await show(db, "current_setting('work_mem')") == "4MB"
    assert db.pool_status().in_use == 0


async def test_what_listeners_set_up_is_nobodys_leaving(database_url, sent, caplog):
    db = Database(database_url, pool_size=1, max_overflow=0)

    @event.listens_for(db.engine.sync_engine, "connect")
    def connect(connection, record):
        cursor = connection.cursor()
        cursor.execute("SET work_mem = '9MB'")
        cursor.close()
        connection.commit()

    first = await show(db, "current_setting('work_mem')")
    backend = await show(db, "pg_backend_pid()")
    same = await show(db, "pg_backend_pid()")
    async with db.session.begin() as session:
        await session.execute(text("SET work_mem = '5MB'"))

    assert (first, same) == ("9MB", backend)
    assert await show(db, "current_setting('work_mem')") == "9MB"  # on a new connection, which the listener set up
    assert await show(db, "pg_backend_pid()") != backend
    assert not [statement for statement in sent if "RESET ALL" in statement]
    assert "it was closed" in caplog.text
    await db.dispose()


async def test_with_reset_off_it_is_only_told(database_url, caplog):
    db = Database(database_url, pool_size=1, max_overflow=0, reset=False)
    async with db.session.begin() as session:
        await session.execute(text("SET work_mem = '9MB'"))

    assert await show(db, "current_setting('work_mem')") == "9MB"
    assert "the next user has it" in caplog.text
    await db.dispose()


async def test_a_read_on_the_lane_leaves_nothing_either(db):
    await db.lane.fetch("SELECT pg_advisory_lock(1)")

    assert await show(db, "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')") == 0
