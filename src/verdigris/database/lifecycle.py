"""How a `Database` begins and ends: sized at the start; at the end it admits nobody, waits, cancels once, closes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, cast

from verdigris._background import finished, running
from verdigris._places import place_in, request_in
from verdigris.database import sizing
from verdigris.engine.pool import Pool
from verdigris.errors import RetryLevel, StandbyError, classify
from verdigris.errors.classify import FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger("verdigris")
_PAUSE = 0.02
_LAST_WAIT = 2.0  # for the tasks that were cancelled


async def size_pool(engine: AsyncEngine, workers: int, chosen: tuple[int | None, int | None]) -> None:
    """Ask the server for its limits, size the pool by them and log one line that explains it."""
    pool = engine.sync_engine.pool
    try:
        async with engine.connect() as connection:
            limits = await sizing.limits_of(connection)
    except StandbyError as error:
        log.warning("%s", error)  # it may be promoted
        return
    except FAILURES as error:
        if classify(error).retry is not RetryLevel.CONNECT:
            raise
        log.warning("the database does not answer yet (%s); the pool keeps its default size", classify(error).name)
        return
    if not isinstance(pool, Pool):
        return
    size = sizing.computed(limits, workers, *chosen)
    if not size.chosen:
        await engine.dispose()
        pool = cast("Pool", engine.sync_engine.pool).here()
        pool.resize(size.size, size.overflow)
    pool.extras.beside.usable = limits.usable
    log.log(logging.INFO if size.fits else logging.WARNING, "pool: %s%s", size, "" if size.fits else ": too many")


async def drain(engines: Sequence[AsyncEngine], seconds: float) -> None:
    """Hand out no connection any more, wait for those that are out, then cancel the tasks that hold them, once.

    The caller's own task is not waited for. Hooks of `after_commit` still get a connection: they end what is stored.
    """
    pools = [engine.sync_engine.pool for engine in engines]
    ours = [pool.here() for pool in pools if isinstance(pool, Pool)]
    for pool in ours:
        pool.extras.closing = True
    deadline = time.monotonic() + seconds
    while (any(map(_is_busy, ours)) or running()) and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(_PAUSE)
    working = {*running(), *(task for pool in ours for task in _holders(pool))}
    for task in working:
        log.warning("still at work after %.1f s, cancelled: %s", seconds, _described(task))
        task.cancel()
    if working:
        await asyncio.wait(working, timeout=_LAST_WAIT)


async def dispose(engines: Sequence[AsyncEngine], seconds: float, *closing: Callable[[], Awaitable[None]]) -> None:
    """Close what else there is, then the pools' connections; after so many seconds what does not answer is dropped."""
    try:
        async with asyncio.timeout(seconds):
            await finished(seconds)
            for close in closing:
                await close()
            for engine in engines:
                await engine.dispose()
    except TimeoutError:
        log.warning("the pool did not close within %s s; its connections were dropped", seconds)
        for engine in engines:
            pool = engine.sync_engine.pool
            if isinstance(pool, Pool):
                pool.terminate()
            await engine.dispose(close=False)


def _holders(pool: Pool) -> list[asyncio.Task[Any]]:
    me = asyncio.current_task()
    tasks = (held.task() for held in pool.extras.held.values() if held.task is not None)
    return [task for task in tasks if task is not None and task is not me and not task.done()]


def _is_busy(pool: Pool) -> bool:
    """Tell whether somebody holds or is about to get a connection, besides the caller and tasks that have ended."""
    idle = len(pool.extras.held) - len(_holders(pool))
    return pool.checkedout() > idle


def _described(task: asyncio.Task[Any]) -> str:
    place = place_in(task)
    return f"{request_in(task) or task.get_name()}{f' ({place})' if place else ''}"
