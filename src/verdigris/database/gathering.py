"""`db.gather()`: units side by side, within what the pool can give."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import NullPool, QueuePool

from verdigris.concurrency import gather
from verdigris.database import sizing
from verdigris.engine.homes import OfLoop
from verdigris.engine.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Engine
    from sqlalchemy import Pool as AnyPool


class SideBySide:
    """Runs units side by side: over all callers, never more at once than half of what the pool holds.

    The other half is for those who hold a session already. A unit that could only wait for its own caller's connection
    is refused at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots: OfLoop[dict[int, asyncio.Semaphore]] = OfLoop(dict)  # by how many there are

    async def run(self, units: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
        """Run the units and return their results in order; a failure cancels the others and is raised."""
        pool = self._engine.pool
        limit = _limit(pool)
        slots = self._shared(max(1, limit // 2)) if limit >= 0 else asyncio.Semaphore(len(units))
        if not isinstance(pool, Pool):
            return await gather(units, slots)
        queue = pool.here().extras.queue
        with queue.gathers(len(units)) as caller:
            return await gather(units, slots, lambda: queue.ended(caller))

    def _shared(self, half: int) -> asyncio.Semaphore:
        """Return the slots of all callers: new ones when the pool's size is another one, as it is after the start."""
        known = self._slots.here()
        if half not in known:
            known.clear()
            known[half] = asyncio.Semaphore(half)
        return known[half]


def _limit(pool: AnyPool) -> int:
    """Return how many connections there may be at once; -1 where there is no limit."""
    if isinstance(pool, QueuePool):
        return pool.size() + pool._max_overflow if pool._max_overflow >= 0 else -1  # noqa: SLF001 - no public name
    if isinstance(pool, NullPool):
        return sizing.DEFAULT_SIZE + sizing.DEFAULT_OVERFLOW  # it has no limit, but the server has one
    return 1  # a StaticPool has one connection for all
