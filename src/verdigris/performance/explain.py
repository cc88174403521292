"""Slow reads explain themselves: apart from the request, without side effects, within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from verdigris.performance.fingerprint import fingerprint, parameters_of
from verdigris.performance.timing import MUTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger("verdigris.queries")

_AGAIN = 300.0  # seconds before the same query is explained again
_WAITING = 8  # plans waiting to be fetched; more slow queries than that are logged only
_LIMIT = 5.0  # seconds that fetching one plan may take


@dataclass(frozen=True, slots=True)
class Explained:
    """A query's plan as PostgreSQL prints it, without values."""

    plan: str
    analyzed: bool
    at: float


class Explainer:
    """Fetches plans one after the other, each on a connection of its own to the server that was slow."""

    def __init__(self, *, analyze: bool = False) -> None:
        self._analyze = analyze
        self._last: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def submit(
        self, engine: Engine, text: str, statement: str, parameters: Any, keep: Callable[[Explained], None]
    ) -> None:
        """Ask for the plan of a statement that was slow on an engine; returns at once."""
        now = time.monotonic()
        if now - self._last.get(text, -_AGAIN) < _AGAIN or len(self._tasks) >= _WAITING:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a synchronous engine has no loop to do it on
        if len(self._last) > _WAITING * 1_000:
            self._last.clear()
        self._last[text] = now
        run = self._run(engine, statement, parameters if self._analyze else None, keep)
        task = loop.create_task(run, context=Context())  # of no request, which would be taken to go on
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for the plans under way, at most as long as one may take; give up the rest."""
        tasks = [task for task in self._tasks.copy() if task.get_loop() is asyncio.get_running_loop()]
        if tasks:
            await asyncio.wait(tasks, timeout=_LIMIT)
        self.give_up()

    def give_up(self) -> None:
        """Cancel what is under way."""
        for task in self._tasks.copy():
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the task with it
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def _run(self, engine: Engine, statement: str, parameters: Any, keep: Callable[[Explained], None]) -> None:
        MUTED.set(True)
        try:
            async with self._lock(), asyncio.timeout(_LIMIT + 1):
                explained = await self._explain(engine, statement, parameters)
        except Exception as error:  # noqa: BLE001 - of any driver; who was slow shall not fail for it too
            log.info("no plan for a slow query: %s", type(error).__name__)
            return
        keep(explained)
        log.warning("plan of the slow query:\n%s", explained.plan)

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = (loop, asyncio.Lock())
        return self._turn[1]

    async def _explain(self, sync: Engine, statement: str, parameters: Any) -> Explained:
        """Fetch one plan in a read-only transaction that is rolled back."""
        engine = AsyncEngine(Engine(sync.pool.recreate(), sync.dialect, sync.url, hide_parameters=True))
        try:
            async with engine.connect() as plain:
                connection = await plain.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)
                await connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_LIMIT:.0f}s'")
                if self._analyze:
                    analyzed = f"EXPLAIN (ANALYZE, BUFFERS) {statement}"
                    result = await connection.exec_driver_sql(analyzed, parameters or ())
                else:
                    result = await _generic(connection, statement)
                lines = [str(line) for (line,) in result]
                await connection.rollback()
        finally:
            await engine.dispose()
        return Explained("\n".join(map(_without_values, lines)), self._analyze, time.time())


async def _generic(connection: AsyncConnection, statement: str) -> Any:
    """Explain a statement as it is planned without its values, which are not needed then; nothing is executed."""
    count = parameters_of(statement)
    arguments = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    await connection.exec_driver_sql(f"PREPARE verdigris_slow AS {statement}")
    result = await connection.exec_driver_sql(f"EXPLAIN EXECUTE verdigris_slow{arguments}")
    await connection.exec_driver_sql("DEALLOCATE verdigris_slow")
    return result


def _without_values(line: str) -> str:
    """Drop the literals of a condition; the figures of the plan stay."""
    label, colon, condition = line.partition(": ")
    name = label.strip()
    if colon and name.endswith(("Cond", "Filter", "Key", "Output")) and not name.startswith("Rows Removed"):
        return f"{label}: {fingerprint(condition)}"
    return line
