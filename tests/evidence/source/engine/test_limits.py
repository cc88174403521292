"""Time limits of engines, and what is repeated."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.evidence.values import Known, Missing, Unknown


def limits(folder, arguments, before=""):
    text = (
        f"{before}\nfrom sqlalchemy.ext.asyncio import create_async_engine\nengine = create_async_engine({arguments})\n"
    )
    source = tree(folder, {"app.py": text})
    (engine,) = source.engines
    return source.limits.of(engine)


@pytest.mark.parametrize(
    "arguments",
    [
        "'postgresql+asyncpg://h/d', connect_args={'command_timeout': 60}",
        "'postgresql+asyncpg://h/d', connect_args={'server_settings': {'statement_timeout': '30000'}}",
        "'postgresql+asyncpg://h/d?command_timeout=60'",
        "'postgresql+psycopg://h/d', connect_args={'options': '-c statement_timeout=30000'}",
    ],
)
def test_a_statement_is_bounded_by_the_driver_or_the_server(tmp_path, arguments):
    assert isinstance(limits(tmp_path, arguments).statement, Known)


@pytest.mark.parametrize(
    "arguments",
    [
        "'postgresql+asyncpg://h/d'",
        "'postgresql+asyncpg://h/d', connect_args={}",
        "'postgresql+asyncpg://h/d', connect_args={'timeout': 5}",
        "'postgresql+asyncpg://h/d', connect_args={'command_timeout': None}",
    ],
)
def test_without_either_nothing_bounds_it(tmp_path, arguments):
    assert limits(tmp_path, arguments).statement == Missing()


def test_arguments_from_elsewhere_are_not_settled(tmp_path):
    found = limits(tmp_path, "'postgresql+asyncpg://h/d', connect_args=settings()", "from settings import settings")

    assert isinstance(found.statement, Unknown)


def test_a_timeout_that_something_else_sets_is_not_settled(tmp_path):
    found = limits(tmp_path, "'postgresql+asyncpg://h/d'", "SQL = 'SET statement_timeout = 5000'")

    assert isinstance(found.statement, Unknown)


RETRY = """
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

factory = async_sessionmaker(create_async_engine("postgresql+asyncpg://localhost/shop"))

async def save(session: AsyncSession, rows: list[object]) -> None:
    for {target}:
        try:
            session.add(rows)
            await session.commit()
        except {error}:
            {handler}
"""


@pytest.mark.parametrize(
    ("target", "error", "handler", "expected"),
    [
        ("attempt in range(3)", "DBAPIError", "pass", [("statement", False)]),
        ("attempt in range(3)", "DBAPIError", "await session.rollback()", [("whole", False)]),
        ("attempt in range(3)", "OperationalError", "await session.rollback()", [("whole", True)]),
        ("attempt in range(3)", "(OperationalError, OSError)", "await session.rollback()", [("whole", False)]),
        ("row in rows", "DBAPIError", "pass", []),
        ("attempt in range(3)", "DBAPIError", "raise", []),
    ],
)
def test_attempts_are_told_from_items(tmp_path, target, error, handler, expected):
    source = tree(tmp_path, {"app.py": RETRY.format(target=target, error=error, handler=handler)})

    assert [(each.unit, each.dead) for each in source.retries.every] == expected
