"""The recorder and the library together: what verdigris does by itself shows in a recording as any other's work."""

from __future__ import annotations

import asyncio
import gc

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from verdigris import Database
from verdigris.evidence.recording import pools, record
from verdigris.testing import Sandbox

PROGRAM = """
from sqlalchemy import text
from verdigris import Database


def make(url):
    return Database(url, slow_query=0.01, workers=1)


async def use(db):
    async with db.session() as session:
        await session.execute(text("select pg_sleep(0.02)"))
        await session.execute(text("select 1"))
    await db.transaction(work)
    await db.gather(work, work)
    await db.lane.fetchval("select 4 + $1::int", (1,))


async def work(session):
    await session.execute(text("select 3"))
"""


@pytest.fixture
def recording(tmp_path, postgres, monkeypatch):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    names: dict = {}

    async def main():
        db = names["make"](str(postgres.url))
        try:
            await names["use"](db)
            await asyncio.sleep(0.3)  # the slow query's plan is asked for apart
        finally:
            await db.dispose()

    with record(tmp_path) as recorder:
        exec(compile(PROGRAM, str(program), "exec"), names)
        asyncio.run(main())
    return recorder.artefact()


def test_the_librarys_engine_is_where_the_application_made_its_database(recording):
    engine = recording.engines[0]

    assert engine.id == "program.py:7"
    assert (engine.pre_ping, engine.pool_recycle, engine.created) == (True, 1800, 1)
    assert recording.factories[0].engine == engine.id
    assert recording.factories[0].close_resets_only is False


def test_statements_have_the_applications_lines_and_are_counted_once(recording):
    uses = {statement.text: statement.uses for statement in recording.statements if statement.kind == "SELECT"}

    assert [(use.site, use.count) for use in uses["select pg_sleep(?)"]] == [("program.py:12", 1)]
    assert [(use.site, use.count) for use in uses["select ?"]] == [("program.py:13", 1), ("program.py:20", 3)]
    assert [(use.site, use.count, use.rows) for use in uses["select ? + ?"]] == [("program.py:16", 1, 1)]
    assert recording.overlaps == ()


def test_sessions_are_all_closed(recording):
    assert sum(sessions.created for sessions in recording.sessions) >= 4
    assert [each for each in recording.sessions if each.created != each.closed] == []


def test_the_librarys_timing_is_seen_and_so_is_the_plan_of_a_slow_query(recording):
    assert any(name.startswith("verdigris.performance.") for name in recording.query_times.watchers)
    assert {(explain.analyze, explain.plan.split("  ")[0]) for explain in recording.explains} == {(False, "Result")}


def test_the_recorder_had_no_trouble(recording):
    assert recording.recorder_errors == ()


CHECKED = """
create table if not exists checked (id int primary key, of int references checked deferrable initially deferred)
"""


@pytest.mark.parametrize("make", [Database, create_async_engine])
async def test_a_session_of_a_block_whose_commit_failed_is_over_although_nobody_closed_it(make, tmp_path, postgres):
    with record(tmp_path) as recorder:
        made = make(str(postgres.url))
        factory = made.session if isinstance(made, Database) else async_sessionmaker(made)
        async with factory.begin() as session:
            await session.execute(text(CHECKED))
        with pytest.raises(IntegrityError):
            async with factory.begin() as session:
                await session.execute(text("insert into checked values (1, 7)"))
        del session
        gc.collect()
        recording = recorder.artefact()
        await made.dispose()

    assert [(each.used, each.closed, each.abandoned) for each in recording.sessions if each.used] == [(2, 2, 0)]
    assert recording.recorder_errors == ()


async def test_the_connection_of_a_slow_querys_plan_is_none_of_the_pools(tmp_path, postgres):
    with record(tmp_path) as recorder:
        db = Database(str(postgres.url), slow_query=0.01, pool_size=1, max_overflow=0)
        async with db.session() as session:
            await session.execute(text("select pg_sleep(0.02)"))
            await asyncio.sleep(0.3)
        await db.dispose()
        recording = recorder.artefact()

    assert [each.analyze for each in recording.explains] == [False]
    assert [(pool.capacity, pool.high_water, pool.checkouts) for pool in recording.pools] == [(1, 1, 1)]


SERVICE = """
import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

app, jobs, kept = FastAPI(), [], []


def session_of(db):
    return Annotated[AsyncSession, Depends(db.request_session, scope="function")]


async def job(db):
    async with db.session() as session:
        await session.execute(text("select 1"))
        await asyncio.sleep(0.1)


def serve(db):
    @app.get("/slow")
    async def slow(session: session_of(db)):
        await session.execute(text("select pg_sleep(0.02)"))

    @app.get("/starts-a-job")
    async def starts() -> None:
        jobs.append(asyncio.create_task(job(db)))
        await asyncio.sleep(0.05)

    @app.get("/keeps")
    async def keeps() -> None:
        session = db.session()
        await session.execute(text("select 1"))
        kept.append(session)
"""


def test_only_what_a_request_itself_holds_is_left_behind_by_it(tmp_path, postgres, monkeypatch):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    monkeypatch.setattr(pools, "_LATE_NS", 0)
    (program := tmp_path / "program.py").write_text(SERVICE)
    names: dict = {}

    async def main():
        db = Database(str(postgres.url), slow_query=0.01, workers=1)
        names["serve"](db)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://service") as client:
            for path in ("/slow", "/starts-a-job", "/keeps"):
                assert (await client.get(path)).status_code == 200
        await asyncio.sleep(0.3)  # the plan of the slow query, the job
        for session in names["kept"]:
            await session.close()
        await asyncio.gather(*names["jobs"])
        await db.dispose()

    with record(tmp_path) as recorder:
        exec(compile(SERVICE, str(program), "exec", dont_inherit=True), names)
        asyncio.run(main())

    artefact = recorder.artefact()
    assert len(artefact.explains) == 1
    assert {each.route: each.left_checked_out for each in artefact.requests} == {
        "GET /slow": 0, "GET /starts-a-job": 0, "GET /keeps": 1
    }  # fmt: skip


def test_a_sandbox_that_a_request_is_the_first_to_use_is_not_left_behind_by_it(tmp_path, postgres, monkeypatch):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    monkeypatch.setattr(pools, "_LATE_NS", 0)
    (program := tmp_path / "program.py").write_text(SERVICE)
    names: dict = {}

    async def main():
        db = Database(str(postgres.url), workers=1)
        names["serve"](db)
        sandbox = Sandbox(str(postgres.url))
        with sandbox.standing_in(db):
            client = httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://service")
            async with client:
                assert (await client.get("/slow")).status_code == 200
        await sandbox.dispose()
        await db.dispose()

    with record(tmp_path) as recorder:
        exec(compile(SERVICE, str(program), "exec", dont_inherit=True), names)
        asyncio.run(main())

    artefact = recorder.artefact()
    assert [each.left_checked_out for each in artefact.requests] == [0]
    assert artefact.recorder_errors == ()
