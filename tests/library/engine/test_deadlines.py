"""One timer of the event loop for a connection's statements, and each limit still kept."""

import asyncio
import time
from contextvars import ContextVar

import pytest
from sqlalchemy import text

from verdigris import Database
from verdigris.engine.deadlines import Deadlines
from verdigris.errors import StatementTimeoutError

REQUEST = ContextVar("of_this_test")


class Timers:
    """How many timers a connection has made in the loop."""

    def __init__(self, monkeypatch):
        self.made = 0
        original = Deadlines._set

        def counted(deadlines, when):
            self.made += 1
            original(deadlines, when)

        monkeypatch.setattr(Deadlines, "_set", counted)


async def test_hundreds_of_statements_make_no_more_timers_than_there_are_different_limits(database_url, monkeypatch):
    timers = Timers(monkeypatch)
    db = Database(database_url)

    async with db.session() as session:
        for _ in range(200):
            await session.execute(text("SELECT 1"))
        await session.commit()

    assert 1 <= timers.made <= 3  # of statements, and of COMMIT, which has less time
    await db.dispose()


async def test_a_statement_that_takes_too_long_ends_after_others_that_did_not(database_url):
    db = Database(database_url, command_timeout=0.4, statement_timeout=None)

    async with db.session() as session:
        for _ in range(3):
            await session.execute(text("SELECT pg_sleep(0.15)"))
        began = time.monotonic()
        with pytest.raises(StatementTimeoutError):
            await session.execute(text("SELECT pg_sleep(30)"))

    assert 0.35 <= time.monotonic() - began < 5
    await db.dispose()


async def test_a_shorter_limit_after_a_longer_one_is_kept(database_url):
    db = Database(database_url, statement_timeout=None)

    async with db.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.fetch("SELECT 1")  # with a minute
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await driver.fetch("SELECT pg_sleep(30)", timeout=0.2)

    assert 0.15 <= time.monotonic() - began < 5
    await db.dispose()


async def test_a_call_beside_another_has_a_timer_of_its_own():
    deadlines, called = Deadlines(asyncio.get_running_loop()), []

    deadlines.call_later(0.05, called.append, "first")
    deadlines.call_later(0.01, called.append, "second")
    third = deadlines.call_later(0.02, called.append, "third")
    third.cancel()
    await asyncio.sleep(0.2)

    assert called == ["second", "first"]


async def test_a_timer_does_not_keep_the_context_of_the_request_that_made_it():
    kept, deadlines = [], Deadlines(asyncio.get_running_loop())
    REQUEST.set("a request")

    deadlines.call_later(0.01, lambda: kept.append(REQUEST.get(None)))
    await asyncio.sleep(0.1)

    assert kept == [None]
