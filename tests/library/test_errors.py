import asyncio
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import exc, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from verdigris import errors
from verdigris.database import Database
from verdigris.errors import DRIVER_TEXTS, SQLSTATES, UNCLASSIFIED, RetryLevel, classify, fault_of, sqlstate_of


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=3, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.dispose()


async def failure(db, *statements):
    """The error of the last of some statements, as SQLAlchemy raises it."""
    with pytest.raises(Exception) as raised:  # noqa: PT012 - the statements before must pass
        async with db.session() as session:
            for statement in statements:
                await session.execute(text(statement))
    return raised.value


REAL = [
    ("SELECT 1/0", "22012", "wrong-statement", 500, RetryLevel.NEVER),
    ("SELECT 'x'::int", "22P02", "unusable-value", 422, RetryLevel.NEVER),
    ("SELECT 'x'::timestamp", "22007", "unusable-value", 422, RetryLevel.NEVER),
    ("SELECT '99999999999'::int", "22003", "unusable-value", 422, RetryLevel.NEVER),
    ("SELEKT 1", "42601", "wrong-statement", 500, RetryLevel.NEVER),
    ("SELECT * FROM nowhere", "42P01", "wrong-statement", 500, RetryLevel.NEVER),
    ("SELECT nothing FROM stock", "42703", "wrong-statement", 500, RetryLevel.NEVER),
    ("INSERT INTO stock VALUES (1, 1), (1, 1)", "23505", "duplicate", 409, RetryLevel.NEVER),
    ("INSERT INTO stock VALUES (1, NULL)", "23502", "missing-value", 422, RetryLevel.NEVER),
]
RAISED = [
    ("23514", "check", 422, RetryLevel.NEVER),
    ("23503", "reference", 409, RetryLevel.NEVER),
    ("23P01", "overlap", 409, RetryLevel.NEVER),
    ("25006", "read-only", 503, RetryLevel.UNIT),
    ("25P02", "nothing-stored", 500, RetryLevel.NEVER),
    ("40001", "serialization", 503, RetryLevel.UNIT),
    ("40P01", "deadlock", 503, RetryLevel.UNIT),
    ("42501", "not-permitted", 500, RetryLevel.NEVER),
    ("53100", "no-resources", 503, RetryLevel.NEVER),
    ("53300", "too-many-connections", 503, RetryLevel.CONNECT),
    ("55P03", "locked", 409, RetryLevel.UNIT),
    ("57014", "too-slow", 504, RetryLevel.NEVER),
    ("57P03", "unavailable", 503, RetryLevel.CONNECT),
    ("58030", "no-resources", 503, RetryLevel.NEVER),
    ("P0001", "database-error", 500, RetryLevel.NEVER),
    ("XX000", "internal", 500, RetryLevel.NEVER),
]


@pytest.mark.parametrize(("statement", "sqlstate", "name", "status", "retry"), REAL)
async def test_a_server_error_is_classified_by_its_sqlstate(db, statement, sqlstate, name, status, retry):
    error = await failure(db, statement)
    fault = classify(error)

    assert (fault.sqlstate, fault.name, fault.status, fault.retry) == (sqlstate, name, status, retry)
    assert sqlstate_of(error) == sqlstate
    assert classify(error.orig.__cause__) == fault


@pytest.mark.parametrize(("sqlstate", "name", "status", "retry"), RAISED)
async def test_a_code_means_the_same_whoever_raises_it(db, sqlstate, name, status, retry):
    error = await failure(db, f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = 'x'; END $$")
    fault = classify(error)

    assert (fault.sqlstate, fault.name, fault.status, fault.retry) == (sqlstate, name, status, retry)


def test_every_code_in_the_table_is_one_that_postgresql_has():
    known = {
        kind.sqlstate
        for kind in vars(asyncpg.exceptions).values()
        if isinstance(kind, type) and isinstance(getattr(kind, "sqlstate", None), str)
    }
    classes = {code[:2] for code in known}
    too_new = {"25P04", "57P05"}  # PostgreSQL 17's and 14's: asyncpg has no class of their own for them

    assert {code for code in SQLSTATES if len(code) == 5} - known <= too_new
    assert {code for code in SQLSTATES if len(code) == 2} <= classes


def test_the_longer_code_wins_and_an_unknown_one_is_unclassified():
    assert fault_of("40001").name == "serialization"
    assert fault_of("40999").name == "rolled-back"
    assert fault_of("P0001").name == UNCLASSIFIED.name
    assert fault_of("P0001").sqlstate == "P0001"


def test_a_connection_that_sqlalchemy_gave_up_is_lost_whatever_the_text():
    error = exc.DBAPIError("SELECT 1", {}, Exception("in words nobody has listed"))
    assert classify(error) is UNCLASSIFIED

    error.connection_invalidated = True

    assert classify(error).name == "connection-lost"


@pytest.mark.parametrize(
    "error",
    [
        exc.InvalidRequestError("'Order.lines' is not available due to lazy='raise_on_sql'"),
        exc.MissingGreenlet("greenlet_spawn has not been called; can't call await_() here."),
    ],
)
def test_what_was_not_loaded_is_an_error_of_the_service(error):
    assert (classify(error).name, classify(error).status) == ("not-loaded", 500)


def test_another_misuse_of_sqlalchemys_stays_unclassified():
    assert classify(exc.InvalidRequestError("This session is in 'prepared' state")) is UNCLASSIFIED


def test_what_is_not_the_databases_is_unclassified():
    for error in (
        ValueError("cached statement plan is invalid"),
        TimeoutError(),
        ConnectionRefusedError(),
        KeyError(1),
    ):
        assert classify(error) is UNCLASSIFIED


def of(sqlstate):
    error = asyncpg.PostgresError("text")
    error.sqlstate = sqlstate
    return error


@pytest.mark.parametrize(
    ("errors", "name", "retry"),
    [
        ([of("40001")], "serialization", RetryLevel.UNIT),
        ([of("53300"), of("40P01")], "deadlock", RetryLevel.UNIT),
        ([of("40001"), of("25006")], "read-only", RetryLevel.UNIT),  # the one that may be repeated the fewest times
        ([of("40001"), of("57014")], "too-slow", RetryLevel.NEVER),
        ([of("57014"), of("23505"), of("40001")], "duplicate", RetryLevel.NEVER),
        ([of("23505"), of("42601")], "wrong-statement", RetryLevel.NEVER),
        ([of("40001"), ExceptionGroup("inner", [of("23505")])], "duplicate", RetryLevel.NEVER),
        ([of("40001"), ValueError()], "database-error", RetryLevel.NEVER),
        ([of("42601"), errors.OutcomeUnknownError("COMMIT")], "outcome-unknown", RetryLevel.NEVER),
        ([ValueError(), errors.OutcomeUnknownError("COMMIT")], "outcome-unknown", RetryLevel.NEVER),
    ],
)
def test_a_group_of_errors_is_the_worst_of_them(errors, name, retry):
    group = ExceptionGroup("unhandled errors in a TaskGroup", errors)
    wrapped = RuntimeError("the application's own")
    wrapped.__cause__ = group

    for error in (group, wrapped):
        assert (classify(error).name, classify(error).retry) == (name, retry)


def test_a_group_of_the_applications_own_errors_is_unclassified():
    assert classify(ExceptionGroup("", [ValueError(), KeyError()])) is UNCLASSIFIED


async def test_a_timeout_that_cancelled_a_statement_is_told_from_any_other(db):
    async def sleep(session, seconds):
        async with asyncio.timeout(seconds):
            await session.execute(text("SELECT pg_sleep(10)"))

    with pytest.raises(TimeoutError) as slow:
        await db.transaction(lambda session: sleep(session, 0.1))
    with pytest.raises(TimeoutError) as waited:
        await asyncio.wait_for(db.transaction(lambda session: sleep(session, 10)), 0.1)
    with pytest.raises(TimeoutError) as other:
        await asyncio.wait_for(db.transaction(lambda _: asyncio.sleep(10)), 0.1)

    assert classify(slow.value).name == classify(waited.value).name == "too-slow"
    assert classify(other.value) is UNCLASSIFIED


async def test_a_constraint_is_named_with_its_columns_and_never_its_values(db):
    fault = classify(await failure(db, "INSERT INTO stock VALUES (4711, 1), (4711, 1)"))

    assert (fault.constraint, fault.table, fault.columns) == ("stock_pkey", "stock", ("id",))
    assert "4711" not in repr(fault)


async def test_columns_are_found_in_the_servers_own_language_and_expressions_are_not_shown(db, admin):
    await admin("CREATE UNIQUE INDEX odd ON stock ((version / 2))")
    fault = classify(await failure(db, "INSERT INTO stock VALUES (1, 4), (2, 5)"))

    assert fault.constraint == "odd"
    assert fault.columns == ()


async def test_a_stale_version_is_a_conflict(db, admin):
    async with db.session.begin() as session:
        session.add(Stock(id=1, version=1))
    async with db.session() as session:
        stock = await session.get(Stock, 1)
        await admin("UPDATE stock SET version = 99")
        stock.id = 2
        with pytest.raises(exc.SQLAlchemyError) as stale:
            await session.commit()

    assert classify(stale.value).name == "changed-meanwhile"
    assert classify(stale.value).status == 409


# -- errors without a code: each text of the closed list is seen in the wild ---------------------------------------


def text_of(error):
    """The entry of the closed list that an error, or one of its causes, matches."""
    while error is not None:
        for part, _ in DRIVER_TEXTS:
            if not isinstance(error, exc.StatementError) and part in str(error):
                return part
        error = error.__cause__
    return None


async def test_a_plan_that_the_schema_outlived_has_no_code_of_its_own(db, admin):
    async with db.session() as session:
        await session.execute(text("SELECT * FROM stock"))
        await session.commit()
        await admin("ALTER TABLE stock ADD COLUMN more int")
        with pytest.raises(exc.DBAPIError) as stale:
            await session.execute(text("SELECT * FROM stock"))

    assert text_of(stale.value) == "cached statement plan is invalid"
    assert classify(stale.value).name == "stale-plan"
    assert classify(stale.value).retry is RetryLevel.UNIT


async def test_a_backend_killed_in_the_middle_of_a_statement_is_a_lost_connection(db, admin):
    async with db.session() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        sleeping = asyncio.create_task(session.execute(text("SELECT pg_sleep(5)")))
        await asyncio.sleep(0.1)
        await admin(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(exc.DBAPIError) as lost:
            await sleeping

    assert text_of(lost.value) == "connection was closed in the middle of operation"
    assert classify(lost.value).name == "connection-lost"


async def test_a_backend_killed_between_two_statements_is_a_lost_connection(db, admin):
    async with db.session() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await admin(f"SELECT pg_terminate_backend({pid})")
        await asyncio.sleep(0.1)
        with pytest.raises(exc.DBAPIError) as lost:
            await session.execute(text("SELECT 1"))

    assert text_of(lost.value) == "connection is closed"
    assert sqlstate_of(lost.value) is None
    assert classify(lost.value).name == "connection-lost"


async def test_a_backend_killed_before_commit_is_a_lost_connection(db, admin):
    async with db.session() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await admin(f"SELECT pg_terminate_backend({pid})")
        await asyncio.sleep(0.1)
        with pytest.raises(exc.DBAPIError) as lost:
            await session.commit()

    assert text_of(lost.value) == "the underlying connection is closed"
    assert classify(lost.value).name == "connection-lost"


async def test_too_many_values_are_recognised(db):
    numbers = ", ".join(f":v{number}" for number in range(40_000))
    async with db.session() as session:
        with pytest.raises(exc.DBAPIError) as many:
            await session.execute(
                text(f"SELECT 1 WHERE 1 IN ({numbers})"), {f"v{number}": number for number in range(40_000)}
            )

    assert text_of(many.value) == "number of query arguments cannot exceed"
    assert classify(many.value).name == "too-many-arguments"


async def test_two_tasks_on_one_connection_are_recognised(db):
    async with db.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        sleeping = asyncio.create_task(raw.execute("SELECT pg_sleep(0.2)"))
        await asyncio.sleep(0.05)
        with pytest.raises(asyncpg.InterfaceError) as shared:
            await raw.execute("SELECT 1")
        await sleeping

    assert text_of(shared.value) == "another operation is in progress"
    assert classify(shared.value).name == "shared-connection"


async def test_an_enum_made_anew_is_recognised(db, admin):
    await admin("CREATE TYPE mood AS ENUM ('good')")
    async with db.session() as session:
        await session.execute(text("SELECT CAST(:mood AS mood)"), {"mood": "good"})
        await session.commit()
        await admin("DROP TYPE mood")
        await admin("CREATE TYPE mood AS ENUM ('good')")
        with pytest.raises(exc.DBAPIError) as stale:  # noqa: PT012 - the first may pass
            for _ in range(2):
                await session.execute(text("SELECT CAST(:mood AS mood)"), {"mood": "good"})

    assert text_of(stale.value) in {"cache lookup failed for type", "cached statement plan is invalid"}
    assert classify(stale.value).name == "stale-plan"


async def test_a_role_without_connections_to_spare_is_recognised(database_url, admin, db):
    await admin("CREATE ROLE clerk LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
    narrow = Database(make_url(database_url).set(username="clerk", password="x"))
    async with narrow.session() as session:
        await session.connection()
        with pytest.raises((exc.DBAPIError, asyncpg.PostgresError)) as full:
            async with narrow.session() as another:
                await another.connection()

    assert classify(full.value).name == "too-many-connections"
    assert classify(full.value).retry is RetryLevel.CONNECT
    await narrow.dispose()
    await admin("DROP ROLE clerk")


# -- our own exceptions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.VerdigrisError)],
)
def test_an_error_of_ours_has_its_parts_apart_and_one_text(kind):
    error = kind("what happened.", why="Why.", do=["Write this:", "  or that"], page="errors/handled")

    assert str(error) == "what happened.\n  Why.\n  Write this:\n    or that\n  verdigris explain errors/handled"
    assert (error.what, error.why, error.do, error.page) == (
        "what happened.",
        "Why.",
        ("Write this:", "  or that"),
        "errors/handled",
    )


def test_errors_of_ours_are_caught_by_the_classes_that_code_already_names():
    assert issubclass(errors.PoolExhaustedError, exc.TimeoutError)
    assert issubclass(errors.DatabaseUnavailableError, ConnectionError)
    assert issubclass(errors.StatementTimeoutError, TimeoutError)
    assert issubclass(errors.CommitRefusedError, exc.SQLAlchemyError)
    assert issubclass(errors.SessionClosedError, exc.InvalidRequestError)


def test_the_table_says_nothing_that_a_client_must_not_read():
    for fault in [*SQLSTATES.values(), *(fault for _, fault in DRIVER_TEXTS)]:
        assert re.fullmatch(r"[A-Z][\w ,;']+", fault.title)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", fault.name)
        assert (fault.retry is RetryLevel.UNIT) == (fault.repeats != 0)


def test_the_pages_say_what_the_code_says():
    script = Path(__file__).parents[2] / "tools" / "write_tables.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
