"""The pools of one engine: one in each event loop that runs, as threads have them. Connections cross no border."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from verdigris.engine.homes import AtTheEnd, Home, moving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.pool import Pool as AnyPool

    from verdigris.engine.pool import Pool

log = logging.getLogger("verdigris")
_running_loop = asyncio._get_running_loop  # noqa: SLF001 - None where none runs, instead of an exception
_LOOK = 0.002  # seconds between two looks whether it is our turn


class InTurn:
    """A lock among the tasks of all event loops, for `with` in a greenlet; SQLAlchemy's is for those of one.

    The first connection tells the dialect what the server is, for all that come later: they wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            await_only(self._acquired())

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def holds(self, pool: AnyPool) -> None:
        """Be the lock of a pool's first connection."""
        listeners: Any = pool.dispatch.connect
        listeners.for_modify(pool.dispatch)._exec_once_mutex = self  # noqa: SLF001 - no public way to it

    async def _acquired(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 - of one loop only
            await asyncio.sleep(_LOOK)


@dataclass(slots=True)
class Beside:
    """Which pool of an engine is whose; shared by all of them. Each has the size that the engine's has."""

    pools: dict[asyncio.AbstractEventLoop | None, Pool] = field(default_factory=dict)
    first: InTurn = field(default_factory=InTurn)
    usable: float = float("inf")  # connections that the server has for all processes
    most: int = 1  # loops at the same time, of which the log has told

    def found(self) -> Pool | None:
        """Return the pool of the running loop; None if it has none yet."""
        pool = self.pools.get(_running_loop())
        if pool is None:
            return None
        home = pool.extras.home
        return pool if home is not None and home.lasts() else None

    def here(self, asked: Pool) -> Pool:
        """Return the pool of the running loop: the one that is asked, unless that lives on in another."""
        found = self.found()
        if found is not None:
            return found
        with moving():
            self.leave_ended()
            pool = asked.another() if asked in self.pools.values() else asked
            self.first.holds(pool)
            pool.leave()  # a home that has ended
            home = pool.extras.home = Home.here()
            self.pools = {**self.pools, home.loop: pool}
            if home.loop is not None:
                pool.extras.at_the_end = AtTheEnd(_ending(weakref.ref(pool)))
            self._tell(pool)
        return pool

    def leave_ended(self) -> None:
        """Leave the pools of loops that have ended; what they had open is closed as far as that is anybody's."""
        with moving():
            ended = {pool for pool in self.pools.values() if not lives(pool)}
            self.drop(*ended)
            for pool in ended:
                pool.leave()

    def drop(self, *pools: Pool) -> None:
        """Forget these."""
        with moving():
            self.pools = {loop: pool for loop, pool in self.pools.items() if pool not in pools}

    def living(self, asked: Pool) -> Iterator[Pool]:
        """Yield all, with the one that is asked."""
        yield asked
        yield from (pool for pool in self.pools.values() if pool is not asked and lives(pool))

    def _tell(self, pool: Pool) -> None:
        count = len(self.pools)
        if count <= self.most:
            return
        self.most = count
        workers, limit = pool.extras.workers, pool.limit
        each = "any number of" if limit < 0 else str(limit)
        total = float("inf") if limit < 0 else workers * count * limit
        log.log(
            logging.INFO if total <= self.usable else logging.WARNING,
            "pool: %d event loops use this Database at the same time, in threads, and have a pool each:"
            " %d worker%s x %d x %s = up to %g connections%s",
            *(count, workers, "s" if workers > 1 else "", count, each, total),
            "" if total <= self.usable else f", more than the {self.usable:g} that the server has",
        )


def lives(pool: Pool) -> bool:
    """Tell whether a pool is that of a loop that has not ended."""
    home = pool.extras.home
    return home is not None and (home.lasts() or home.goes_on())


def _ending(pool: weakref.ref[Pool]) -> Callable[[], Awaitable[None]]:
    async def end() -> None:
        there = pool()
        if there is not None:
            await there.end()

    return end
