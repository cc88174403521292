"""Services on SQLAlchemy's Core: connections are handed out, committed and left failed as sessions are."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checker.understood import understood
from verdigris.checklist.errors import RollbackThenRaise
from verdigris.checklist.fastapi import AsyncWith, CommitOrRollback, Yielded
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence

APP = """
from collections.abc import AsyncIterator
from fastapi import Depends, FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
metadata = MetaData()
orders = Table("orders", metadata, Column("id", Integer, primary_key=True))
app = FastAPI()

async def get_connection() -> AsyncIterator[AsyncConnection]:
    async with engine.begin() as connection:
        yield connection

async def get_reader() -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        yield connection

"""
WRITE = "await connection.execute(insert(orders).values(id=1))"


def evidence(folder, *lines, given="get_connection"):
    head = f"@app.post('/orders')\nasync def create(connection: AsyncConnection = Depends({given})):\n"
    return Evidence(tree(folder, {"app.py": APP + head + "".join(f"    {line}\n" for line in lines)}))


def test_a_connection_that_is_committed_after_the_yield_is_committed_after_the_answer(tmp_path):
    given = evidence(tmp_path, WRITE)

    (finding,) = CommitOrRollback().conclude(given).findings

    assert (finding.variant, finding.subject) == ("after-response", "app.py:get_connection")
    assert {box().conclude(given).verdict for box in (AsyncWith, Yielded)} == {Verdict.HOLDS}
    assert understood(given.source).endswith("; the session dependency commits")


@pytest.mark.parametrize(
    ("lines", "verdict", "told"),
    [
        ((WRITE,), Verdict.FAILS, "no commit seen"),
        ((WRITE, "await connection.commit()"), Verdict.HOLDS, "services commit"),
        (("async with connection.begin():", f"    {WRITE}"), Verdict.HOLDS, "services commit"),
        (("async with engine.begin() as connection:", f"    {WRITE}"), Verdict.HOLDS, "services commit"),
        (
            ("async with engine.begin() as other:", "    await other.run_sync(metadata.create_all)"),
            Verdict.UNPROVEN,
            "no commit seen",
        ),
        (
            ("async with engine.begin() as other:", "    await other.execute(select(orders))", WRITE),
            Verdict.FAILS,
            "no commit seen",
        ),
    ],
)
def test_who_commits_connections_is_said_and_one_that_makes_tables_is_none(tmp_path, lines, verdict, told):
    given = evidence(tmp_path, *lines, given="get_reader")

    assert CommitOrRollback().conclude(given).verdict is verdict
    assert understood(given.source).endswith(told)


def test_a_reader_beside_a_dependency_that_commits_is_in_doubt(tmp_path):
    text = "@app.get('/orders')\nasync def read(connection: AsyncConnection = Depends(get_reader)): ...\n"
    given = "Depends(get_connection, scope='function')"
    text += f"@app.post('/orders')\nasync def create(connection: AsyncConnection = {given}):\n    {WRITE}\n"

    conclusion = CommitOrRollback().conclude(Evidence(tree(tmp_path, {"app.py": APP + text})))

    assert conclusion.findings == ()
    assert [doubt.subject for doubt in conclusion.doubts] == ["app.py:get_reader"]


@pytest.mark.parametrize(
    ("given", "clause", "ends"),
    [
        ("get_connection", "return 0", ["swallowed"]),
        ("get_connection", "raise", []),
        ("get_connection", "await connection.rollback()", []),
        ("get_reader", "return 0", []),  # nobody commits what it left
    ],
)
def test_a_clause_around_a_write_of_a_connection_leaves_a_failed_transaction(tmp_path, given, clause, ends):
    lines = ("try:", f"    {WRITE}", "except IntegrityError:", f"    {clause}")
    found = evidence(tmp_path, *lines, given=given)

    assert [finding.variant for finding in RollbackThenRaise().conclude(found).findings] == ends
