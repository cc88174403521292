"""Section 9: the plugin's fixtures, seen from a team's project, and the sandbox, seen from inside."""

import asyncio
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, MetaData, UniqueConstraint, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database, Retry
from verdigris.errors import CommitRefusedError, ConfigurationError, PoolExhaustedError, UnflushedError
from verdigris.testing import Sandbox, SandboxBlockedError, StatementCountError, refuse_unless_test, standing_in
from verdigris.testing.databases import Databases, fill

SOURCE = Path(__file__).parents[2] / "src"
INSTALLED = any(each.value == "verdigris.pytest_plugin" for each in entry_points(group="pytest11"))
LOADED = [] if INSTALLED else ["-p", "verdigris.pytest_plugin"]


class Keeper(Base):
    __tablename__ = "testing_keeper"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Animal(Base):
    __tablename__ = "testing_animal"
    __table_args__ = (UniqueConstraint("place", deferrable=True, initially="IMMEDIATE", name="one_to_a_place"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    keeper_id: Mapped[int] = mapped_column(ForeignKey("testing_keeper.id", deferrable=True, initially="DEFERRED"))
    place: Mapped[int | None]


TABLES = [Keeper.__table__, Animal.__table__]


@pytest.fixture
async def sandbox(database_url):
    outside = Database(database_url)
    async with outside.engine.begin() as connection:
        await connection.run_sync(lambda sync: Base.metadata.create_all(sync, tables=TABLES))
    await outside.dispose()
    made = Sandbox(database_url)
    yield made
    await made.dispose()


async def keepers(session):
    return list(await session.scalars(select(Keeper.name).order_by(Keeper.id)))


# -- the sandbox -------------------------------------------------------------------------------------------------------


async def test_a_commit_in_the_sandbox_is_seen_by_the_next_session_and_by_nobody_else(sandbox, admin):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada"]
    assert await admin("SELECT name FROM testing_keeper") == []


async def test_nothing_is_left_when_the_sandbox_ends(sandbox, admin):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    await sandbox.dispose()

    assert await admin("SELECT name FROM testing_keeper") == []


async def test_a_rollback_undoes_its_own_session_only(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    async with sandbox.session() as session:
        session.add(Keeper(name="Grace"))
        await session.flush()
        await session.rollback()

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada"]


async def test_a_deferred_constraint_fires_at_the_inner_commit_and_earlier_work_survives(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    with pytest.raises(IntegrityError, match="testing_animal_keeper_id"):
        async with sandbox.session.begin() as session:
            session.add(Animal(keeper_id=4711))

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada"]
        assert await session.scalar(select(func.count()).select_from(Animal)) == 0


async def test_a_deferred_constraint_is_still_deferred_after_an_inner_commit(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    async with sandbox.session.begin() as session:
        await session.execute(text("INSERT INTO testing_animal (keeper_id) VALUES (4711)"))
        await session.execute(text("INSERT INTO testing_keeper (id, name) VALUES (4711, 'Grace')"))


async def test_a_constraint_that_is_initially_immediate_stays_immediate_after_an_inner_commit(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(id=1, name="Ada"))

    async with sandbox.session() as session:
        await session.execute(text("INSERT INTO testing_animal (keeper_id, place) VALUES (1, 7)"))
        with pytest.raises(IntegrityError, match="one_to_a_place"):
            await session.execute(text("INSERT INTO testing_animal (keeper_id, place) VALUES (1, 7)"))


async def test_a_commit_after_a_swallowed_error_is_refused_as_in_production(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    async with sandbox.session() as session:
        with suppress(IntegrityError):
            await session.execute(text("INSERT INTO testing_keeper (name) VALUES ('Ada')"))
        with pytest.raises(CommitRefusedError, match="nothing is stored"):
            await session.commit()

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada"]


async def test_a_savepoint_of_the_application_works_inside_the_sandbox(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))
        await session.flush()
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Keeper(name="Ada"))
        session.add(Keeper(name="Grace"))

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada", "Grace"]


async def test_a_test_session_that_is_open_does_not_stand_in_the_way_of_the_application(sandbox):
    async with sandbox.session() as test:
        test.add(Keeper(name="Ada"))
        await test.flush()

        await sandbox.transaction(
            lambda session: session.execute(text("INSERT INTO testing_keeper (name) VALUES ('B')"))
        )

        assert await keepers(test) == ["Ada", "B"]


async def test_units_of_work_side_by_side_do_not_disturb_each_other(sandbox):
    async def unit(name):
        async with sandbox.session() as session:
            session.add(Keeper(name=name))
            await session.flush()
            await asyncio.sleep(0.01)
            await session.execute(select(Keeper))
            await (session.rollback() if name.startswith("bad") else session.commit())

    await asyncio.gather(*[unit(f"{kind} {number}") for number in range(5) for kind in ("good", "bad")])

    async with sandbox.session() as session:
        assert sorted(await keepers(session)) == [f"good {number}" for number in range(5)]


async def test_transactions_that_wait_for_each_other_are_told_so(sandbox, monkeypatch):
    monkeypatch.setattr("verdigris.testing.sandbox._PATIENCE", 0.1)

    async with sandbox.session() as outer, sandbox.session() as inner:
        await outer.execute(select(Keeper))
        await inner.execute(select(Keeper))

        with pytest.raises(SandboxBlockedError, match="one after the other, or one inside the other"):
            await outer.execute(select(Keeper))


async def test_the_retry_loop_reads_and_isolation_levels_run_in_the_sandbox(sandbox):
    async with sandbox.session.begin() as session:
        session.add(Keeper(name="Ada"))

    names = await sandbox.transaction(keepers, isolation_level="SERIALIZABLE")
    async with sandbox.read() as session:
        read = await keepers(session)

    assert names == read == ["Ada"]


async def test_the_engine_of_a_sandbox_does_not_leak_into_the_database(sandbox):
    async with sandbox.session() as session:
        await session.execute(select(Keeper))

        with pytest.raises(PoolExhaustedError):
            async with sandbox.engine.begin():
                pass


async def test_an_applications_own_database_and_factory_become_the_sandbox_for_a_while(sandbox, database_url, admin):
    application = Database(database_url, expire_on_commit=True)
    factory = application.session

    with sandbox.standing_in(application):
        async with application.session.begin() as session:
            session.add(Keeper(name="Ada"))
        async with factory.begin() as session:
            session.add(Keeper(name="Grace"))
        assert sandbox.session.kw["expire_on_commit"] is True
    async with application.session() as session:
        outside = await keepers(session)
    await application.dispose()

    async with sandbox.session() as session:
        assert await keepers(session) == ["Ada", "Grace"]
    assert outside == []
    assert type(application) is Database


async def test_a_database_whose_flushes_are_explicit_keeps_them_so_in_the_sandbox(sandbox):
    application = Database("postgresql://127.0.0.1:1/nowhere_test", autoflush=False)

    with sandbox.standing_in(application):
        async with application.session() as session:
            session.add(Keeper(name="Ada"))
            with pytest.raises(UnflushedError):
                await keepers(session)
            await session.commit()
        async with application.read() as session:
            assert await keepers(session) == ["Ada"]


async def test_the_budget_for_repetitions_in_the_sandbox_is_the_applications(sandbox):
    application = Database("postgresql://127.0.0.1:1/nowhere_test", retry=Retry(base=0, conflict_budget=2))
    tries = []

    async def always_loses(session):
        tries.append(1)
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    with sandbox.standing_in(application), pytest.raises(DBAPIError) as raised:
        await application.transaction(always_loses)

    assert len(tries) == 3
    assert "Retry(conflict_budget=...)" in raised.value.__notes__[0]


async def test_a_database_of_the_tests_own_stands_in_as_well(sandbox, database_url):
    application = Database("postgresql://127.0.0.1:1/nowhere_test")
    own = Database(database_url)

    with standing_in(own, application):
        async with application.session.begin() as session:
            session.add(Keeper(name="Ada"))

    async with own.session() as session:
        assert await keepers(session) == ["Ada"]
    assert application.url.port == 1
    await own.dispose()


def test_a_sandbox_used_in_two_event_loops_says_so(database_url):
    sandbox = Sandbox(database_url)

    async def use():
        async with sandbox.session() as session:
            await session.execute(text("SELECT 1"))

    async def use_and_end():
        await use()
        return sandbox

    with asyncio.Runner() as runner:
        runner.run(use_and_end())
        with pytest.raises(ConfigurationError, match="in two event loops"):
            asyncio.run(use())
        runner.run(sandbox.dispose())


# -- counting ----------------------------------------------------------------------------------------------------------


async def test_a_test_that_allows_three_statements_fails_at_the_fourth_and_names_them(
    verdigris_sandbox, verdigris_queries
):
    async with verdigris_sandbox.session() as session:
        with verdigris_queries.at_most(3):
            for _ in range(3):
                await session.execute(text("SELECT 1"))
            await session.commit()

        one = verdigris_queries.exactly(1)
        one.__enter__()
        for _ in range(2):
            await session.execute(text("SELECT 1"))
        with pytest.raises(StatementCountError, match=r"2 x SELECT \?   at .*test_testing\.py:\d+") as raised:
            one.__exit__(None, None, None)

    assert "2 statements ran where 1 should" in str(raised.value)
    assert verdigris_queries.count == 5


def test_too_few_statements_are_the_wrong_number_too(verdigris_queries):
    with pytest.raises(StatementCountError, match=r"^0 statements ran where 3 should\.$"), verdigris_queries.exactly(3):
        pass


# -- which databases tests may use -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app_test", "test", "test_app", "app-tests", "testing", "app_test2"])
def test_a_database_named_as_a_test_database_is_accepted(name):
    assert refuse_unless_test(f"postgresql://u:p@h/{name}").database == name


@pytest.mark.parametrize("name", ["app", "contest", "latest", "production", "attestation"])
def test_any_other_database_is_refused(postgres, name):
    with pytest.raises(ConfigurationError, match=f"{name} on 127.0.0.1 is not named as a test database"):
        refuse_unless_test(_made(postgres, name))


def test_a_database_marked_as_one_for_tests_is_accepted(postgres):
    url = _made(postgres, "acceptance", "COMMENT ON DATABASE acceptance IS 'verdigris: test'")

    assert refuse_unless_test(url).database == "acceptance"


def _made(postgres, name, *statements):
    from sqlalchemy import make_url

    databases = Databases(make_url(postgres.url))
    databases.drop(name)
    asyncio.run(databases._run(f'CREATE DATABASE "{name}"', *statements))
    return postgres.url_for(name)


# -- the plugin, in a project of its own -------------------------------------------------------------------------------

CONFTEST = """
    import pytest
    from sqlalchemy import MetaData, Table, Column, Integer

    metadata = MetaData()
    Table("things", metadata, Column("id", Integer, primary_key=True))

    @pytest.fixture(scope="session")
    def verdigris_schema():
        return metadata

    async def count(database):
        from sqlalchemy import text
        async with database.session() as session:
            return await session.scalar(text("SELECT count(*) FROM things"))

    async def add(database, number):
        from sqlalchemy import text
        async with database.session.begin() as session:
            await session.execute(text("INSERT INTO things VALUES (:number)"), {"number": number})
"""

TESTS = """
    import pytest
    from conftest import add, count

    {mark}

    @pytest.mark.parametrize("number", range(4))
    async def test_sandbox(verdigris_sandbox, number):
        assert await count(verdigris_sandbox) == 0
        await add(verdigris_sandbox, 1)
        assert await count(verdigris_sandbox) == 1

    @pytest.mark.parametrize("number", range(2))
    async def test_database(verdigris_database, number):
        assert await count(verdigris_database) == 0
        await add(verdigris_database, 1)
        assert await count(verdigris_database) == 1

    {fixture}
    async def stored(verdigris_sandbox):
        await add(verdigris_sandbox, 7)
        return 7

    {fixture}
    async def stored_for_long(verdigris_sandbox):
        await add(verdigris_sandbox, 8)
        yield 8
        assert await count(verdigris_sandbox) == 2

    async def test_fixtures(stored, stored_for_long, verdigris_session):
        from sqlalchemy import text
        assert await verdigris_session.scalar(text("SELECT sum(id) FROM things")) == 15
"""


@pytest.fixture
def shared(postgres):
    """The option that lets a project use a server that runs already: starting one takes seconds."""
    return ["--verdigris-url", _made(postgres, "plugin_test")]


def project(tmp_path, tests, *, conftest=CONFTEST, ini="", arguments=(), variables=None):
    """Run pytest in a project of its own and return its output."""
    (tmp_path / "conftest.py").write_text(textwrap.dedent(conftest))
    (tmp_path / "test_it.py").write_text(textwrap.dedent(tests))
    if "fixture_loop_scope" not in ini and "no:asyncio" not in arguments:
        ini += "\nasyncio_default_fixture_loop_scope = function"
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\npythonpath = .\n" + textwrap.dedent(ini))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **(variables or {})}
    command = [sys.executable, "-m", "pytest", *LOADED, "-q", *arguments]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return ran.stdout + ran.stderr


def test_the_fixtures_work_under_pytest_asyncio_in_strict_mode(tmp_path, shared):
    tests = TESTS.format(
        mark="pytestmark = pytest.mark.asyncio", fixture="import pytest_asyncio\n    @pytest_asyncio.fixture"
    )

    assert "\n7 passed in" in project(tmp_path, tests, arguments=shared)


def test_the_fixtures_work_under_pytest_asyncio_in_auto_mode(tmp_path, shared):
    tests = TESTS.format(mark="", fixture="@pytest.fixture")

    assert "\n7 passed in" in project(tmp_path, tests, ini="asyncio_mode = auto", arguments=shared)


READS = """
    import gc
    import pytest
    from sqlalchemy import text

    {mark}

    @pytest.mark.parametrize("number", range(3))
    async def test_reads(verdigris_session, number):
        gc.collect()
        assert await verdigris_session.scalar(text("SELECT 1")) == 1

    async def test_unused(verdigris_session):
        gc.collect()
"""


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_a_session_that_a_test_has_only_read_with_is_closed_after_it(tmp_path, shared, plugin):
    backend = "\n    @pytest.fixture\n    def anyio_backend():\n        return 'asyncio'\n"
    mark, ini, arguments = {
        "asyncio": ("", "asyncio_mode = auto", shared),
        "anyio": ("pytestmark = pytest.mark.anyio" + backend, "", [*shared, "-p", "no:asyncio"]),
    }[plugin]

    assert "\n4 passed in" in project(tmp_path, READS.format(mark=mark), ini=ini, arguments=arguments)


def test_the_fixtures_work_with_one_loop_for_a_module(tmp_path, shared):
    tests = TESTS.format(mark="", fixture="@pytest.fixture")
    ini = "asyncio_mode = auto\nasyncio_default_test_loop_scope = module\nasyncio_default_fixture_loop_scope = module"

    assert "\n7 passed in" in project(tmp_path, tests, ini=ini, arguments=shared)


def test_the_fixtures_work_under_anyio(tmp_path, shared):
    backend = "\n    @pytest.fixture\n    def anyio_backend():\n        return 'asyncio'\n"
    tests = TESTS.format(mark="pytestmark = pytest.mark.anyio" + backend, fixture="@pytest.fixture")

    assert "\n7 passed in" in project(tmp_path, tests, arguments=["-p", "no:asyncio", *shared])


def test_workers_share_one_server_and_have_a_database_each(tmp_path):
    tests = """
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("number", range(8))
        async def test_it(verdigris_sandbox, verdigris_server, number):
            async with verdigris_sandbox.session.begin() as session:
                await session.execute(text("INSERT INTO things VALUES (1)"))
                print("seen", verdigris_server.url.port, await session.scalar(text("SELECT current_database()")))
    """

    output = project(tmp_path, tests, ini="asyncio_mode = auto", arguments=["-n2", "-rP"])

    seen = {tuple(line.split()[1:]) for line in output.splitlines() if line.startswith("seen")}
    assert "\n8 passed in" in output
    assert len({port for port, _ in seen}) == 1
    assert {database.split("_")[2] for _, database in seen} == {"gw0", "gw1"}


def test_short_names_are_there_when_asked_for_and_a_conftest_of_the_same_names_wins(tmp_path, shared):
    tests = """
        def test_it(sandbox, session, queries, database):
            assert sandbox == "ours"
            assert type(session).__name__ == "AsyncSession"
    """
    own = CONFTEST + "\n    @pytest.fixture\n    def sandbox():\n        return 'ours'\n"

    without = project(tmp_path, tests, conftest=own, arguments=shared)
    with_aliases = project(tmp_path, tests, conftest=own, ini="verdigris_aliases = true", arguments=shared)

    assert "fixture 'session' not found" in without
    assert "1 passed" in with_aliases


def test_a_url_of_a_database_that_is_no_test_database_stops_the_tests(tmp_path, postgres):
    url = _made(postgres, "shop")

    output = project(tmp_path, "def test_it(verdigris_sandbox): pass", variables={"VERDIGRIS_TEST_DATABASE_URL": url})

    assert "shop on 127.0.0.1 is not named as a test database" in output
    assert "1 error" in output


def test_a_url_where_no_server_answers_stops_the_tests_with_what_to_write(tmp_path):
    output = project(
        tmp_path, READS.format(mark=""), arguments=["--verdigris-url", "postgresql://127.0.0.1:1/app_test"]
    )

    assert "the tests' server, 127.0.0.1:1, gives no connection to app_test: ConnectionRefusedError" in output
    assert "Start it, or name another one:   pytest --verdigris-url" in output


@pytest.mark.parametrize(("schema", "says"), [(Base, "Return Base.metadata"), ("things", "gave str, which is neither")])
def test_a_schema_that_is_neither_metadata_nor_a_function_is_refused_by_name(schema, says):
    with pytest.raises(ConfigurationError, match=says):
        fill("postgresql+asyncpg://127.0.0.1:1/app_test", schema)


def test_metadata_that_knows_no_table_yet_is_refused():
    with pytest.raises(ConfigurationError, match="holds no table"):
        fill("postgresql+asyncpg://127.0.0.1:1/app_test", MetaData())


def test_a_migration_that_went_to_another_database_is_refused_instead_of_tests_without_tables(postgres):
    databases = Databases(make_url(postgres.url), "verdigris_test_migrated")

    def migrate(url: str) -> None:
        """As an env.py does that takes its URL from the application's settings."""

    with pytest.raises(ConfigurationError, match=r"migrate\(\), which verdigris_schema gave, made nothing in"):
        databases.template(migrate)


def test_a_url_of_a_test_database_is_used_and_left_clean(tmp_path, postgres):
    url = _made(postgres, "shop_test")
    tests = TESTS.format(mark="", fixture="@pytest.fixture")

    output = project(tmp_path, tests, ini="asyncio_mode = auto", arguments=["--verdigris-url", url, "-n2"])

    databases = asyncio.run(Databases(refuse_unless_test(url))._names())
    assert "\n7 passed in" in output
    assert [name for name in databases if name.startswith("shop_test")] == ["shop_test"]


def test_the_plugin_can_be_switched_off(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(verdigris_session): pass")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTEST_PLUGINS": "verdigris.pytest_plugin"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:verdigris.pytest_plugin", "-p", "no:verdigris"]

    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert "fixture 'verdigris_session' not found" in ran.stdout


def test_the_plugin_imports_nothing_but_pytest_until_a_fixture_is_used():
    program = """if True:
        import sys, verdigris.pytest_plugin
        print([name for name in ("sqlalchemy", "asyncpg", "pydantic") if name in sys.modules])
    """
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}

    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.stdout.strip() == "[]"
