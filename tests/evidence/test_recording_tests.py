"""A recording of tests: the application is judged by it, what tests do on purpose is not."""

from __future__ import annotations

import asyncio
import importlib
import sys

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.recording import record
from verdigris.evidence.recording.artefact import DatabaseFailure, Recording, Repeat, Request, Sessions
from verdigris.evidence.source import Source

APP = """
from typing import Annotated
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from verdigris import Database
from verdigris.fastapi import install

db = Database()
SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]
app = FastAPI()
install(app, db)

@app.post("/orders")
async def create(session: SessionDep) -> int: ...
"""


@pytest.mark.parametrize(("site", "verdict"), [("app.py:13", Verdict.FAILS), ("tests/test_app.py:9", Verdict.HOLDS)])
@pytest.mark.parametrize("box", ["fastapi/commit-or-rollback", "errors/handled"])
def test_a_careless_route_of_a_test_is_no_finding_about_the_application(tmp_path, box, site, verdict):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    recording = Recording(
        requests=(Request("POST /refuse", site=site, count=1, answered_before_commit=1),),
        errors=(DatabaseFailure("IntegrityError", "23505", status=500, count=1, site=site, route="POST /refuse"),),
    )

    assert boxes()[box][1].conclude(Evidence(Source.read(tmp_path), recording)).verdict is verdict


ELSEWHERE = """
from fastapi import Depends, FastAPI
from somebody import provide_service

app = FastAPI()

@app.post("/orders")
async def create(service = Depends(provide_service(Orders))) -> int: ...
"""


@pytest.mark.parametrize(
    ("box", "request_"),
    [
        ("fastapi/commit-or-rollback", {"answered_before_commit": 9, "lost_after_answer": 1}),
        ("fastapi/closed", {"left_checked_out": 1}),
    ],
)
def test_a_run_refutes_where_the_source_does_not_know_who_gives_the_session(tmp_path, box, request_):
    (tmp_path / "app.py").write_text(ELSEWHERE, "utf-8")
    box, source = boxes()[box][1], Source.read(tmp_path)
    seen = Request("POST /orders", site="app.py:7", count=9, transactions=9, **request_)
    fine = Request("GET /orders", site="app.py:3", count=9, transactions=9)

    verdicts = [box.conclude(Evidence(source, Recording(requests=run))).verdict for run in ((fine,), (fine, seen))]
    found = box.conclude(Evidence(source, Recording(requests=(fine, seen)))).findings

    assert verdicts == [Verdict.UNPROVEN, Verdict.FAILS]
    assert [(finding.subject, finding.place.line) for finding in found] == [("POST /orders", 7)]


def test_sessions_that_a_package_never_closed_are_one_finding(tmp_path):
    (tmp_path / "app.py").write_text(ELSEWHERE, "utf-8")
    requests = tuple(Request(f"GET /{name}", site="app.py:7", count=1, transactions=1) for name in "ab")
    sessions = (Sessions(None, True, "AsyncSession", abandoned=3),)

    found = boxes()["fastapi/closed"][1].conclude(
        Evidence(Source.read(tmp_path), Recording(requests=requests, sessions=sessions))
    )

    assert [finding.message for finding in found.findings] == ["of the sessions made by a package, 3 never closed"]


@pytest.mark.parametrize(("ends", "early"), [("commit", 0), ("rollback", 0), ("flush", 1)])
def test_in_a_tests_transaction_savepoints_are_the_codes_transactions(tmp_path, postgres, monkeypatch, ends, early):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    held = []

    async def main() -> None:
        app, engine = FastAPI(), create_async_engine(str(postgres.url))

        @app.post("/orders")
        async def create() -> None:
            connection = await engine.connect()  # in a test: opened at its first use, rolled back when the test ends
            await connection.begin()
            session = AsyncSession(connection, join_transaction_mode="create_savepoint")
            held.extend((connection, session))
            await session.execute(text("CREATE TABLE sandboxed (id int)"))
            await getattr(session, ends)()

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            assert (await client.post("/orders")).status_code == 200
        await held[0].rollback()
        await held[0].close()
        await engine.dispose()

    with record(tmp_path) as recorder:
        recorder.testing()
        asyncio.run(main())

    assert sum(request.answered_before_commit for request in recorder.artefact().requests) == early


CALLED = """
from sqlalchemy import text


async def by_name(session, name):
    await session.execute(text("select :name"), {"name": name})


async def every(session):
    for name in "abcd":
        await by_name(session, name)
"""

CALLING = """
import asyncio

from program import by_name, every


async def test_four(session):
    for name in "abcd":
        await by_name(session, name)


async def test_spawned(session):
    await asyncio.gather(every(session))
"""


@pytest.mark.parametrize(("test", "scope"), [("test_four", "test"), ("test_spawned", "task")])
def test_how_often_a_test_calls_the_application_is_told_from_what_the_application_does(
    tmp_path, postgres, monkeypatch, test, scope
):
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    (tmp_path / "program.py").write_text(CALLED)
    (tmp_path / "test_program.py").write_text(CALLING)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("program", "test_program"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    async def main(work) -> None:
        engine = create_async_engine(str(postgres.url))
        async with AsyncSession(engine) as session:
            await asyncio.create_task(work(session))
        await engine.dispose()

    with record(tmp_path) as recorder:
        recorder.testing().current = "test_program.py::test"
        asyncio.run(main(getattr(importlib.import_module("test_program"), test)))

    assert [(seen.scope, seen.site, seen.different) for seen in recorder.artefact().repeats] == [
        (scope, "program.py:6", 4)
    ]


@pytest.mark.parametrize(("scope", "verdict"), [("task", Verdict.FAILS), ("test", Verdict.HOLDS)])
def test_a_query_that_a_test_repeats_is_no_query_a_row(tmp_path, scope, verdict):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    recording = Recording(repeats=(Repeat("f", site="app.py:3", scope=scope, different=8, scopes=1),))

    assert boxes()["loading/no-n-plus-one"][1].conclude(Evidence(Source.read(tmp_path), recording)).verdict is verdict
