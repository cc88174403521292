"""The recorder's promises to the application: nothing it does wrong is noticed, and nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from unittest.mock import AsyncMock, create_autospec

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import Pool
from starlette.applications import Starlette

from verdigris import Database
from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording import record
from verdigris.evidence.recording.places import Places
from verdigris.evidence.recording.recorder import active

METHODS = [
    (Session, name) for name in ("__init__", "execute", "scalar", "scalars", "flush", "commit", "rollback", "close")
] + [
    (AsyncSession, "execute"),
    (AsyncSession, "__init__"),
    (sessionmaker, "__call__"),
    (Pool, "connect"),
    (Starlette, "__call__"),
]


def test_everything_is_put_back(tmp_path):
    before = [vars(owner).get(name) for owner, name in METHODS]

    with record(tmp_path):
        during = [vars(owner).get(name) for owner, name in METHODS]

    assert [vars(owner).get(name) for owner, name in METHODS] == before
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert active() is None


def test_an_engine_of_the_recording_goes_on_after_it_as_if_nothing_had_been(tmp_path):
    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        with Session(engine) as session:
            session.execute(text("select 1"))
        during = recorder.artefact()

    with Session(engine) as session:
        assert session.execute(text("select 2")).scalar() == 2
    assert "do_execute" not in vars(engine.dialect)
    assert sum(statement.count for statement in recorder.artefact().statements) == 1
    assert sum(statement.count for statement in during.statements) == 1
    engine.dispose()


def test_two_recordings_at_once_are_refused_and_the_first_goes_on(tmp_path):
    with record(tmp_path) as recorder:
        with pytest.raises(EvidenceError, match="recorded already"), record(tmp_path):
            pass

        assert active() is recorder


def test_an_error_of_the_recorder_is_counted_and_never_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Places, "here", lambda *_: 1 / 0)
    monkeypatch.setattr(Places, "caller", lambda *_: 1 / 0)

    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        factory = sessionmaker(engine)
        with factory() as session:
            session.execute(text("create table t (a int)"))
            session.execute(text("insert into t values (1)"))
            session.commit()
            assert session.execute(text("select a from t")).all() == [(1,)]
        engine.dispose()

    assert {error.message for error in recorder.artefact().recorder_errors} == {"ZeroDivisionError: division by zero"}


def test_errors_of_the_database_are_the_same_with_and_without_a_recorder(tmp_path, postgres):
    async def fail():
        engine = create_async_engine(str(postgres.url))
        try:
            async with AsyncSession(engine) as session:
                await session.execute(text("select nothing"))
        except Exception as error:  # noqa: BLE001 - the point
            return type(error), str(error)
        finally:
            await engine.dispose()

    without = asyncio.run(fail())
    with record(tmp_path):
        within = asyncio.run(fail())

    assert without == within


def test_engine_options_are_understood_while_recording(tmp_path):
    with record(tmp_path):
        engine = create_engine("sqlite://", echo=False, query_cache_size=7, hide_parameters=True, logging_name="x")

    assert engine.hide_parameters


def test_coroutine_functions_stay_what_they_are(tmp_path):
    with record(tmp_path):
        asked = inspect if sys.version_info >= (3, 12) else asyncio  # before, inspect knows no mark
        assert asked.iscoroutinefunction(AsyncSession.execute)
        assert isinstance(create_autospec(AsyncSession).execute, AsyncMock)
        assert list(inspect.signature(AsyncSession.execute).parameters)[:2] == ["self", "statement"]


def test_listeners_and_wrappers_of_others_are_named_and_ours_are_not(tmp_path):
    def watch(connection, cursor, statement, parameters, context, executemany):
        pass

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        with record(tmp_path) as recorder:
            engine = create_engine("sqlite://")
            with engine.connect() as connection:
                connection.execute(text("select 1"))
            recording = recorder.artefact()
        engine.dispose()
    finally:
        event.remove(Engine, "before_cursor_execute", watch)

    assert recording.engines[0].query_listeners == recording.query_times.watchers
    assert [name.rpartition(".")[2] for name in recording.query_times.watchers] == ["watch"]


def test_a_plain_sync_program_is_recorded_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    program = tmp_path / "program.py"
    program.write_text(
        "from sqlalchemy import create_engine, text\n"
        "from sqlalchemy.orm import sessionmaker\n"
        "make = sessionmaker(create_engine('sqlite://'))\n"
        "def main():\n"
        "    with make() as session:\n"
        "        for n in range(4):\n"
        "            session.execute(text('select :n'), {'n': n})\n"
    )
    with record(tmp_path) as recorder:
        names: dict = {}
        exec(compile(program.read_text(), str(program), "exec"), names)
        names["main"]()
        names["make"].kw["bind"].dispose()

    recording = recorder.artefact()
    assert recording.statements[0].uses[0].site == "program.py:7"
    assert (recording.repeats[0].scope, recording.repeats[0].different) == ("task", 4)
    assert recording.factories[0].engine == recording.engines[0].id == "program.py:3"
    assert recording.sessions[0].site == "program.py:5"


def test_a_session_that_was_open_when_the_recording_began_works_on(tmp_path, postgres):
    async def main():
        engine = create_async_engine(str(postgres.url))
        async with async_sessionmaker(engine)() as session:
            await session.execute(select(1))
            with record(tmp_path) as recorder:
                assert await session.scalar(select(2)) == 2
                await session.commit()
                assert await session.scalar(select(3)) == 3
        await engine.dispose()
        return recorder.artefact()

    assert asyncio.run(main()).recorder_errors == ()


@pytest.mark.parametrize("root", ["app", "lib/site-packages/app"])
def test_an_application_that_is_installed_is_one_and_what_lies_below_it_installed_is_not(root, tmp_path):
    places = Places(tmp_path / root)
    seen = {}

    for name in ("routes.py", "venv/lib/site-packages/other.py"):
        exec(compile("spot = places.here()", str(tmp_path / root / name), "exec"), {"places": places}, inside := {})
        seen[name] = inside["spot"] is not None

    assert seen == {"routes.py": True, "venv/lib/site-packages/other.py": False}


async def test_a_pool_that_is_sized_at_the_start_is_recorded_as_it_was_then(tmp_path, postgres):
    with record(tmp_path) as recorder:
        db = Database(postgres.url)
        async with db.lifespan(), asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(db.transaction(_wait_a_moment))
        recording = recorder.artefact()

    assert recording.engines[0].pool_size + recording.engines[0].max_overflow == recording.pools[0].capacity
    assert 10 < recording.pools[0].high_water <= recording.pools[0].capacity


async def _wait_a_moment(session):
    await session.execute(text("SELECT pg_sleep(0.5)"))


def test_a_connection_that_the_collector_returns_while_totals_are_added_up_does_not_stand_still(tmp_path):
    def add_up():
        with record(tmp_path) as recorder:
            engine = create_engine(f"sqlite:///{tmp_path}/some.db")
            cycle = [engine.connect()]
            cycle.append(cycle)
            del cycle
            with recorder.ledger.lock:
                gc.collect()
            returned.extend(recorder.artefact().pools)
            engine.dispose()

    returned = []
    thread = threading.Thread(target=add_up, daemon=True)

    thread.start()
    thread.join(10)

    assert [pool.checkouts for pool in returned] == [1]


def test_a_statement_that_is_no_text_costs_the_others_nothing(tmp_path):
    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            with pytest.raises(UnicodeEncodeError):
                connection.exec_driver_sql('select 1 as "\udcff"')
            connection.exec_driver_sql("select 2")
        engine.dispose()

    assert [statement.count for statement in recorder.artefact().statements] == [1, 1]
    assert recorder.artefact().recorder_errors == ()


def test_the_first_connection_of_one_engine_hides_no_statement_of_another_of_the_same_line(tmp_path, monkeypatch):
    initialize = SQLiteDialect_pysqlite.initialize
    threads = []

    def select_one(engine):
        with engine.connect() as connection:
            connection.execute(text("select 1"))
        engine.dispose()

    def initialize_while_another_works(dialect, connection):
        initialize(dialect, connection)
        if not threads:
            threads.append(threading.Thread(target=select_one, args=(engines[1],)))
            threads[0].start()
            threads[0].join()

    monkeypatch.setattr(SQLiteDialect_pysqlite, "initialize", initialize_while_another_works)
    with record(tmp_path) as recorder:
        engines = [create_engine("sqlite://") for _ in range(2)]
        select_one(engines[0])

    assert [engine.statements for engine in recorder.artefact().engines] == [2]


@pytest.mark.parametrize("names", [False, True])
def test_texts_without_end_are_folded_in_a_session_that_never_closes_and_every_one_counts(tmp_path, monkeypatch, names):
    monkeypatch.setattr("verdigris.evidence.recording.executions._TEXTS", 5)
    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            for number in range(100):
                connection.exec_driver_sql(f"select {number} as {f'a{number}' if names else 'a'}")
            (unit,) = recorder.units.alone
            cells = len(unit.cells)
        engine.dispose()

    assert cells == (11 if names else 6)
    assert sum(statement.count for statement in recorder.artefact().statements) == 100


def test_a_long_text_is_kept_with_its_values_only_while_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr("verdigris.evidence.recording.executions._KEPT", 1000)
    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            for number in range(10):
                connection.exec_driver_sql(f"select '{number}{'x' * 600}'")
        engine.dispose()

    assert sum(len(text.sql) for text in recorder.texts.values()) < 2000
    assert sum(statement.count for statement in recorder.artefact().statements) == 10


async def test_tasks_on_a_connection_that_stays_open_are_forgotten_when_they_end(tmp_path, postgres, monkeypatch):
    monkeypatch.setattr("verdigris.evidence.recording.units._MANY", 10)

    async def ask(number):
        await connection.execute(text("select cast(:number as int)"), {"number": number})

    with record(tmp_path) as recorder:
        recorder.units._many = 10
        engine = create_async_engine(str(postgres.url))
        async with engine.connect() as connection:
            for number in range(200):
                await asyncio.create_task(ask(number))
            waiting = len(recorder.units.alone)
        await engine.dispose()

    assert waiting < 30
    assert sum(statement.count for statement in recorder.artefact().statements) == 200


def test_an_engine_that_is_dropped_is_freed(tmp_path):
    with record(tmp_path) as recorder:
        engine = create_engine("sqlite://")
        dialect = weakref.ref(engine.dialect)
        engine.dispose()
        del engine
        gc.collect()

        assert dialect() is None
        assert recorder.artefact().engines[0].created == 1
