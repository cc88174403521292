"""A test suite: run by name, so that pytest does not find it among the project's own."""

import asyncio
import os

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def run(*statements, commit):
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
        await (connection.commit() if commit else connection.rollback())
    await engine.dispose()


@pytest.mark.parametrize("number", [1, 2])
def test_that_leaves_rows(number):
    asyncio.run(
        run("create table if not exists left_behind (id int)", "insert into left_behind values (1)", commit=True)
    )


def test_that_rolls_back():
    asyncio.run(run("insert into left_behind values (1)", commit=False))


def test_that_cleans_up():
    asyncio.run(run("create table tidy (id int)", "insert into tidy values (1)", commit=True))
    asyncio.run(run("truncate table tidy", commit=True))


def test_that_fails():
    raise AssertionError
