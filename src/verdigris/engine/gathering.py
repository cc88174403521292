"""`db.gather()`: units side by side, within what the pool can give."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from verdigris.concurrency import gather
from verdigris.engine.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Engine


class SideBySide:
    """Runs units side by side: over all callers, never more at once than half of what the pool holds.

    The other half is for those who hold a session already. A unit that could only wait for its own caller's connection
    is refused at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def run(self, units: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
        """Run the units and return their results in order; a failure cancels the others and is raised."""
        pool = self._engine.pool
        limit = pool.limit if isinstance(pool, Pool) else 1
        half = max(1, limit // 2) if limit >= 0 else len(units)
        slots = self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(half))
        if not isinstance(pool, Pool):
            return await gather(units, slots)
        with pool.extras.queue.gathers(len(units)) as caller:
            return await gather(units, slots, lambda: pool.extras.queue.ended(caller))
