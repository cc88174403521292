"""The lane: plain reads on the engine's own pool, in autocommit and without greenlets.

A session's read passes through SQLAlchemy's synchronous half, which costs a greenlet and, outside of autocommit, BEGIN
and ROLLBACK. Where the statement is text already, all of it can be left out: an idle connection is checked out inline,
asyncpg is awaited, the connection goes back inline. A greenlet is made only where SQLAlchemy itself has to wait: for a
new connection, for one to come free, for a ping over the wire, for what listeners of the pool do.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.engine import Connection as EngineConnection
from sqlalchemy.util import greenlet_spawn

from verdigris.engine.homes import OfLoop
from verdigris.engine.pool import Pool
from verdigris.errors.classify import met_database
from verdigris.lean.coalescing import MOST, Together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import NoReturn

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

    from verdigris.concurrency import Budget
    from verdigris.engine.pool import Taken

    _Work = partial[Coroutine[Any, Any, list[asyncpg.Record]]]  # awaited with the driver's connection


class Lane:
    """Runs plain reads, each alone, in autocommit, on a connection of the engine's pool.

    Statements are PostgreSQL's own text with `$1` for the first argument; rows are asyncpg's. Each must be a read that
    may run twice: one whose connection turns out to be dead runs once more on another. Errors are those of a session,
    in the same classes, and pass through the engine's `handle_error` listeners. Limits of time are the connection's.
    A read that is cancelled is stopped on the server, and its connection dropped.

    Ask `db.lane` each time: a test's sandbox puts its own in the place of it.
    """

    def __init__(self, engine: AsyncEngine, budget: Budget, *, shortcuts: bool) -> None:
        self._engine: Engine = engine.sync_engine
        self._dialect: Any = engine.sync_engine.dialect
        self._budget = budget
        self._shortcuts = shortcuts
        self._of_loops = OfLoop(partial(Together, self))
        self._together: Together | None = None  # of the loop that asked last

    async def fetchval(self, statement: str, arguments: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row; None if there is no row."""
        rows = await self.fetch(statement, arguments)
        return rows[0][0] if rows else None

    def fetchval_together(self, statement: str, arguments: Sequence[Any] = (), *, most: int = MOST) -> Awaitable[Any]:
        """Return the value of a statement with at most one row, sent together with others that wait like it.

        Under load one round trip serves up to `most`; a read that nobody waits beside is sent at once, alone, and so is
        one that is not short or gains nothing from company.
        """
        together = self._together
        if together is None or together.loop is not asyncio.get_running_loop():
            together = self._together = self._of_loops.here()
        return together.fetchval(statement, arguments, most)

    async def fetch(
        self,
        statement: str,
        arguments: Sequence[Any] = (),
        *,
        again: bool = True,
        timed: bool = True,
        each: bool = False,
        took: Callable[[float], object] | None = None,
    ) -> list[asyncpg.Record]:
        """Return all rows; `again=False` for a statement that must not run twice, `timed=False` if others time it.

        `took` is told the seconds of a read that went out at once on a connection that was at hand. With `each`, there
        are the arguments of several runs: see `fetch_each`.
        """
        self._budget.unit_began()
        own = self._pool()  # and from here what `_fetch` and `run` do, in one coroutine: a read is as long as three
        taken = None if own is None else own.take() or await own.take_in_turn()
        if taken is None:
            work = self._work(statement, arguments, timed=timed, each=each)
            return await self._twice(work, again, self._fetch(work))
        pool, record, driver = taken
        fetch = driver.fetch_each_prepared if each else driver.fetch_prepared
        failure: BaseException | None = None
        rows = []
        began = perf_counter()
        try:
            rows = await fetch(statement, arguments)
        except BaseException as error:  # noqa: BLE001 - raised again, as a session would raise it
            failure = error
        count = len(rows) if failure is None else -1
        seconds = perf_counter() - began
        if timed:
            self._dialect.lane_executed(statement, arguments, seconds, count, failure)
        if failure is not None:
            work = self._work(statement, arguments, timed=timed, each=each)
            try:
                return await self._twice(work, again, self._failed(taken, work, failure))
            finally:
                failure = None  # whose traceback holds this frame
        if took is not None:
            took(seconds)
        if driver.is_in_transaction() or not pool.give(record, driver):
            await self._return(taken)
        return rows

    def fetch_each(self, statement: str, arguments: Sequence[Sequence[Any]]) -> Awaitable[list[asyncpg.Record]]:
        """Run a statement that gives one row with each of several arguments, in one round trip; return those rows.

        All fail if one does. Not timed: who asked for each is elsewhere.
        """
        return self.fetch(statement, arguments, timed=False, each=True)

    def _work(self, statement: str, arguments: Sequence[Any], *, timed: bool, each: bool) -> _Work:
        run = _each if each else self.run if timed else _untimed
        return partial(run, statement=statement, arguments=arguments)

    def _pool(self) -> Pool | None:
        """Return the pool, if it hands out without a proxy."""
        pool = self._engine.pool
        return pool if self._shortcuts and isinstance(pool, Pool) else None

    async def _twice(
        self,
        work: _Work,
        again: bool,  # noqa: FBT001 - from two places, above
        first: Awaitable[list[asyncpg.Record]],
    ) -> list[asyncpg.Record]:
        try:
            return await first
        except _ConnectionDiedError as died:
            error = died.error
        except asyncio.CancelledError as cancelled:
            met_database(cancelled)
            raise
        if not (again and self._budget.faults.spend()):
            raise error
        try:
            return await self._fetch(work)
        except _ConnectionDiedError as died:
            error = died.error
        raise error  # outside of the except blocks, so that it keeps its own cause only

    async def _fetch(self, work: _Work) -> list[asyncpg.Record]:
        own = self._pool()
        taken = None if own is None else own.take() or await own.take_in_turn()
        if taken is None:
            return await self._fetch_proxied(work)
        pool, record, driver = taken
        try:
            rows = await work(driver)
        except BaseException as error:  # noqa: BLE001 - raised again, as a session would raise it
            await self._failed(taken, work, error)
        if driver.is_in_transaction() or not pool.give(record, driver):
            await self._return(taken)
        return rows

    async def _failed(self, taken: Taken, work: _Work, error: BaseException) -> NoReturn:
        """Give the connection of a read that failed back, and raise the error as a session would raise it."""
        pool, record, _ = taken
        proxied = pool.proxied(record)
        if isinstance(error, Exception):
            await greenlet_spawn(self._fail, proxied, work, error)
        proxied.invalidate(error)  # outside of a greenlet: stopped, dropped, slot free
        raise error

    async def _return(self, taken: Taken) -> None:
        """Give a connection back that needs more than that: one with leavings, or in a transaction, or too many."""
        pool, record, driver = taken
        proxied = pool.proxied(record)
        if driver.is_in_transaction():  # BEGIN was sent as text, and must not reach the next one
            proxied.invalidate()
        else:
            await greenlet_spawn(proxied.close)

    async def _fetch_proxied(self, work: _Work) -> list[asyncpg.Record]:
        """Do the same with a proxy of SQLAlchemy's, which knows whom to call when: for whatever is not at hand."""
        pooled = await greenlet_spawn(self._engine.pool.connect)
        driver: Any = pooled.driver_connection
        try:
            rows = await work(driver)
        except Exception as error:  # noqa: BLE001 - as above
            await greenlet_spawn(self._fail, pooled, work, error)
        except BaseException as cancelled:
            pooled.invalidate(cancelled)
            raise
        if driver.is_in_transaction():
            pooled.invalidate()
        else:
            await greenlet_spawn(pooled.close)
        return rows

    async def run(self, driver: Any, *, statement: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Run a statement on a connection that the caller holds, and let it be timed; errors are the driver's."""
        failure: BaseException | None = None
        count, began = -1, perf_counter()
        try:
            rows: list[asyncpg.Record] = await driver.fetch_prepared(statement, arguments)
            count = len(rows)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._dialect.lane_executed(statement, arguments, perf_counter() - began, count, failure)
        return rows

    def executed(
        self, statement: str, arguments: Sequence[Any], seconds: float, rows: int, error: BaseException | None
    ) -> None:
        """Let a statement be timed that was run by `fetch_each`."""
        self._dialect.lane_executed(statement, arguments, seconds, rows, error)

    def _fail(self, pooled: PoolProxiedConnection, work: _Work, error: Exception) -> NoReturn:
        """Give the connection back and raise the error; in a greenlet, because listeners and closing may wait."""
        driver: Any = pooled.driver_connection
        if isinstance(error, asyncpg.InternalClientError):
            driver.terminate()  # "cannot switch to state": asyncpg wrote to a socket that had just closed
        died = driver.is_closed() and not isinstance(error, TimeoutError)
        connection = EngineConnection(self._engine, pooled)
        try:
            raise_as_session(connection, work.keywords["statement"], work.keywords["arguments"], error)
        except Exception as raised:
            if died:
                raise _ConnectionDiedError(raised) from None
            raise
        finally:
            connection.close()


async def _untimed(driver: Any, *, statement: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await driver.fetch_prepared(statement, arguments)
    return rows


async def _each(driver: Any, *, statement: str, arguments: Sequence[Sequence[Any]]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await driver.fetch_each_prepared(statement, arguments)
    return rows


class _ConnectionDiedError(Exception):
    """Carries the error of a read whose connection died, which may run once more."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def raise_as_session(
    connection: EngineConnection, statement: str, arguments: Sequence[Any], error: Exception
) -> NoReturn:
    """Raise an error of asyncpg as a session's statement would: translated, heard by listeners, the pool renewed."""
    pooled: Any = connection.connection
    try:
        pooled.dbapi_connection._handle_exception(error)  # the adapter's own translation
    except Exception as translated:  # noqa: BLE001 - raised again, wrapped
        known = isinstance(translated, connection.dialect.loaded_dbapi.Error)
        connection._handle_dbapi_exception(  # the one place that knows the listeners and the pool
            translated,
            statement if known else None,
            tuple(arguments),
            None,
            None,  # a session wraps no others either
        )
    raise AssertionError  # both always raise
