"""What the source shows of sessions that are held, and of work that runs at once."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import asyncio
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine, expire_on_commit=False)
"""


def variants(folder: Path, box: str, text: str) -> list[str]:
    (folder / "app.py").write_text(HEAD + dedent(text), "utf-8")
    _, judge = boxes()[box]
    return [finding.variant for finding in judge.conclude(Evidence(Source.read(folder))).findings]


def test_a_sleep_after_the_transaction_is_over_holds_no_connection(tmp_path: Path) -> None:
    found = variants(
        tmp_path,
        "concurrency/pool-for-load",
        """
        async def store(text: str) -> None:
            for attempt in range(5):
                async with factory() as session:
                    try:
                        async with session.begin():
                            await session.get(object, text)
                        return
                    except ValueError:
                        await asyncio.sleep(attempt)

        async def poll() -> None:
            async with factory() as session:
                await session.get(object, 1)
                await session.commit()
                await asyncio.sleep(5)
        """,
    )

    assert found == []


def test_a_sleep_between_a_query_and_its_commit_holds_a_connection(tmp_path: Path) -> None:
    found = variants(
        tmp_path,
        "concurrency/pool-for-load",
        """
        async def poll() -> None:
            async with factory() as session:
                await session.commit()
                await session.get(object, 1)
                await asyncio.sleep(5)
                await session.commit()
        """,
    )

    assert found == ["asleep"]


def test_a_commit_on_another_branch_gives_nothing_back(tmp_path: Path) -> None:
    found = variants(
        tmp_path,
        "concurrency/pool-for-load",
        """
        async def poll() -> None:
            while True:
                async with factory() as session:
                    work = await session.get(object, 1)
                    if work is not None:
                        await session.commit()
                    else:
                        await asyncio.sleep(5)
        """,
    )

    assert found == ["asleep"]


def test_tasks_that_are_gathered_are_one_finding(tmp_path: Path) -> None:
    found = variants(
        tmp_path,
        "concurrency/pool-for-load",
        """
        async def evaluate(item: int) -> None:
            async with factory() as session:
                await session.get(object, item)

        async def evaluate_all(items: list[int]) -> None:
            tasks = []
            for item in items:
                task = asyncio.create_task(evaluate(item))
                tasks.append(task)
            await asyncio.gather(*tasks)
        """,
    )

    assert found == ["unbounded"]


@pytest.mark.parametrize(
    "joined",
    [
        "await asyncio.gather(*map(one, ids))",
        "tasks = {i: asyncio.create_task(session.get(Order, i)) for i in ids}\n    await asyncio.wait(tasks.values())",
    ],
)
def test_a_map_and_a_dictionary_of_tasks_are_many_tasks(joined, tmp_path):
    source = tree(
        tmp_path,
        {
            "main.py": f"""
import asyncio
from sqlalchemy.ext.asyncio import AsyncSession

async def read(session: AsyncSession, ids):
    async def one(i):
        return await session.get(Order, i)
    {joined}
"""
        },
    )

    assert "session" in {fan_out.shared for fan_out in source.fan_outs}


CONTEXT = """
class Unit:
    session: AsyncSession

    async def __aexit__(self, *error: object) -> None:
        CLOSING
"""


@pytest.mark.parametrize(
    "closing",
    [
        "task = asyncio.create_task(self.session.close())\n        await asyncio.shield(task)",
        "task: asyncio.Task[None] = asyncio.create_task(self.session.close())\n        await task",
        "await asyncio.shield(asyncio.create_task(self.session.close()))",
    ],
)
def test_a_close_that_is_shielded_and_waited_for_is_no_task_beside_the_sessions_owner(
    tmp_path: Path, closing: str
) -> None:
    assert variants(tmp_path, "concurrency/session-per-task", CONTEXT.replace("CLOSING", closing)) == []


def test_a_close_that_nobody_waits_for_runs_beside_the_sessions_owner(tmp_path: Path) -> None:
    text = CONTEXT.replace("CLOSING", "asyncio.create_task(self.session.close())")

    assert variants(tmp_path, "concurrency/session-per-task", text) == ["escapes"]


def test_a_connection_serves_one_task_at_a_time_as_a_session_does(tmp_path: Path) -> None:
    found = variants(
        tmp_path,
        "concurrency/separate-sessions",
        """
        from sqlalchemy.ext.asyncio import AsyncConnection

        async def count(connection: AsyncConnection, table: str) -> int: ...

        async def together() -> None:
            async with engine.connect() as connection:
                await asyncio.gather(count(connection, "orders"), count(connection, "customers"))

        async def handed_in(connection: AsyncConnection) -> None:
            await asyncio.gather(*(count(connection, table) for table in ("orders", "customers")))

        async def apart() -> None:
            async with engine.connect() as one, engine.connect() as two:
                await asyncio.gather(count(one, "orders"), count(two, "customers"))
        """,
    )

    assert found == ["shared", "shared"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("tasks.append(asyncio.create_task(sweep()))\n                await tasks[-1]", []),
        ("task = asyncio.create_task(sweep())\n                await task", []),
        ("await asyncio.create_task(sweep())", []),
        ("tasks.append(asyncio.create_task(sweep()))", ["unbounded"]),
        ("task = asyncio.create_task(sweep())\n                tasks.append(task)", ["unbounded"]),
    ],
)
def test_a_loop_that_waits_for_each_of_its_tasks_has_one_at_a_time(tmp_path, body, found):
    text = f"""
        async def sweep() -> None:
            async with factory() as session:
                await session.commit()

        async def run(tasks: list[asyncio.Task[None]]) -> None:
            while True:
                {body}
    """

    assert variants(tmp_path, "concurrency/pool-for-load", text) == found
