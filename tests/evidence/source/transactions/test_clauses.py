"""Except clauses around writes: who goes on with the session, and who does not."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

HEAD = """
from contextlib import suppress
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

factory = async_sessionmaker(create_async_engine("postgresql+asyncpg://localhost/shop"))
"""


def ends(folder, body):
    return [clause.end for clause in tree(folder, {"app.py": HEAD + body}).clauses.every]


def attempt(handler, after=""):
    return f"""
async def save(row: object) -> None:
    async with factory() as session:
        try:
            session.add(row)
            await session.flush()
        except Exception as error:
            {handler}
        {after}
"""


@pytest.mark.parametrize(
    ("handler", "after", "end"),
    [
        ("raise", "await session.commit()", "raised"),
        ("raise ValueError from error", "await session.commit()", "raised"),
        ("await session.rollback()", "await session.commit()", "rolled back"),
        ("session.rollback()", "await session.commit()", "swallowed"),
        ("await other.rollback()", "await session.commit()", "swallowed"),
        ("print(error)", "await session.commit()", "swallowed"),
        ("print(error)", "", "closed"),
        ("return", "await session.commit()", "closed"),
        ("await session.commit()", "", "raised"),
        ("row = None", "if row: await session.commit()", "closed"),
        ("if 'duplicate' not in str(error): raise", "await session.commit()", "swallowed"),
    ],
)
def test_a_clause_ends_as_what_it_does_with_the_session(tmp_path, handler, after, end):
    assert ends(tmp_path, attempt(handler, after)) == [end]


def test_suppress_is_a_clause_too(tmp_path):
    body = """
async def save(session: AsyncSession, row: object) -> None:
    with suppress(IntegrityError):
        session.add(row)
        await session.flush()
    await session.commit()
"""

    assert ends(tmp_path, body) == ["swallowed"]


def test_the_next_round_of_a_loop_goes_on_with_the_session(tmp_path):
    body = """
async def save(session: AsyncSession, rows: list[object]) -> None:
    for row in rows:
        try:
            session.add(row)
            await session.flush()
        except SQLAlchemyError:
            continue
"""

    assert ends(tmp_path, body) == ["swallowed"]


def test_a_session_for_each_round_is_closed_by_its_block(tmp_path):
    body = """
async def save(rows: list[object]) -> None:
    for row in rows:
        async with factory() as session:
            try:
                session.add(row)
                await session.commit()
            except SQLAlchemyError:
                continue
"""

    assert ends(tmp_path, body) == ["closed"]


def test_what_another_clause_does_comes_not_after(tmp_path):
    body = """
async def save(session: AsyncSession, row: object) -> None:
    try:
        await work(session)
    except ValueError:
        try:
            session.add(row)
            await session.commit()
        except Exception:
            print("no")
        raise
    except Exception:
        await session.rollback()
"""

    assert "swallowed" not in ends(tmp_path, body)


def test_a_caller_that_looks_at_the_answer_may_know(tmp_path):
    body = """
async def save(session: AsyncSession, row: object) -> bool:
    try:
        session.add(row)
        await session.flush()
    except IntegrityError:
        return False
    return True

async def all(session: AsyncSession) -> None:
    if not await save(session, object()):
        raise ValueError
    await session.commit()
"""

    assert ends(tmp_path, body) == ["unknown"]


def test_a_caller_that_does_not_look_goes_on(tmp_path):
    body = """
async def save(session: AsyncSession, row: object) -> None:
    try:
        session.add(row)
        await session.flush()
    except IntegrityError:
        print("taken")

async def all(session: AsyncSession) -> None:
    await save(session, object())
    await session.commit()
"""

    assert ends(tmp_path, body) == ["swallowed"]


@pytest.mark.parametrize(
    "opening", ["factory.begin() as session", "factory() as session, session.begin()", "unit() as session"]
)
@pytest.mark.parametrize(
    ("before", "handler", "after", "end"),
    [
        ("", "pass", "session.add(object())", "swallowed"),
        ("", "pass", "await session.execute(insert(object))", "swallowed"),
        ("session.add(object())", "pass", "", "swallowed"),
        ("session.add(object())", "return", "", "swallowed"),
        ("session.add(object())", "raise", "", "raised"),
        ("session.add(object())", "lost = True", "if lost: raise ValueError", "unknown"),
        ("", "pass", "", "closed"),
        ("if row is None: session.add(object())", "pass", "", "swallowed"),
        ("await session.scalar(select(object))", "pass", "", "closed"),
        ("", "pass", "print(row)", "closed"),
    ],
)
def test_a_block_that_commits_goes_on_with_what_was_written_in_it(tmp_path, opening, before, handler, after, end):
    body = f"""
from contextlib import asynccontextmanager
from sqlalchemy import insert, select

@asynccontextmanager
async def unit():
    async with factory() as session:
        yield session
        await session.commit()

async def save(row: object) -> None:
    async with {opening}:
        {before}
        try:
            session.add(row)
            await session.flush()
        except IntegrityError:
            {handler}
        {after}
"""

    assert ends(tmp_path, body) == [end]


def test_a_block_that_commits_does_not_do_so_for_a_savepoint_within(tmp_path):
    body = """
async def save(row: object) -> None:
    async with factory.begin() as session:
        try:
            async with session.begin_nested():
                session.add(row)
                await session.flush()
        except IntegrityError:
            pass
        session.add(object())
"""

    assert ends(tmp_path, body) == []


def test_what_another_branch_wrote_is_not_lost(tmp_path):
    body = """
async def save(row: object, new: bool) -> None:
    async with factory.begin() as session:
        if new:
            session.add(object())
        else:
            try:
                session.add(row)
                await session.flush()
            except IntegrityError:
                pass
"""

    assert ends(tmp_path, body) == ["closed"]


def test_a_block_that_commits_around_a_call_goes_on_too(tmp_path):
    body = """
async def ensure(session: AsyncSession, row: object) -> None:
    try:
        session.add(row)
        await session.flush()
    except IntegrityError:
        pass

async def all() -> None:
    async with factory.begin() as session:
        session.add(object())
        await ensure(session, object())
"""

    assert ends(tmp_path, body) == ["swallowed"]


@pytest.mark.parametrize(
    ("returns", "end"),
    [("NoReturn", "raised"), ("typing.Never", "raised"), ("None", "swallowed"), ("str", "swallowed")],
)
def test_a_clause_that_calls_what_never_returns_lets_the_error_go_on(tmp_path, returns, end):
    translate = f"""
import typing
from typing import NoReturn

def translate(error: Exception) -> {returns}:
    raise ValueError from error
"""

    assert ends(tmp_path, translate + attempt("translate(error)", "await session.commit()")) == [end]
