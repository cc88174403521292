"""The recorder and the library together: what verdigris does by itself shows in a recording as any other's work."""

from __future__ import annotations

import asyncio

import pytest

from verdigris.evidence.recording import record

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
