"""The queue of a pool, which gives a connection that comes back to whoever has waited longest.

SQLAlchemy's wakes the one who waits and leaves the connection where anybody may take it first: under load a few tasks
that come back at once keep it among themselves, and the others wait until they time out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import Context
from math import inf
from typing import TypeVar

from sqlalchemy.util import await_only
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full

T = TypeVar("T")


class HandOffQueue(AsyncAdaptedQueue[T]):
    """An `AsyncAdaptedQueue` without overtaking; like it, for one event loop."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        super().__init__(maxsize, use_lifo)
        self.items: deque[T] = deque()
        self._waiting: deque[tuple[asyncio.Future[T], float]] = (
            deque()
        )  # and until when each waits, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None  # one for all: most are served long before
        self._when = inf

    def empty(self) -> bool:
        return not self.items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.items)

    def qsize(self) -> int:
        return len(self.items)

    def next(self) -> T:
        """Return what `get` would return, and leave it."""
        return self.items[-1 if self.use_lifo else 0]

    def put_nowait(self, item: T) -> None:
        if self._handed_over(item):
            return
        if self.full():
            raise Full
        self.items.append(item)

    def put_back(self, item: T) -> None:
        """Put back what was waited for, for `get_nowait` to return next: for whoever shall get it in another way.

        Nobody who waits is given it, and there is room for it: it belongs to the pool.
        """
        if self.use_lifo:
            self.items.append(item)
        else:
            self.items.appendleft(item)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as above
        self.put_nowait(item)  # a pool never waits for room

    def get_nowait(self) -> T:
        if not self.items:
            raise Empty
        return self.items.pop() if self.use_lifo else self.items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> T:  # noqa: FBT001, FBT002 - as above
        if self.items or not block:
            return self.get_nowait()
        try:
            return await_only(self.turn(timeout))
        except TimeoutError as error:
            raise Empty from error

    async def turn(self, seconds: float | None) -> T:
        """Wait for an item, after all who wait already; TimeoutError after so many seconds."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[T] = loop.create_future()
        due = inf if seconds is None else loop.time() + seconds
        waiting = mine, due
        self._waiting.append(waiting)
        if due < self._when:
            self._set(loop, due)
        try:
            return await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                if not self._handed_over(mine.result()):  # it came in the moment of a cancellation: the next one's
                    self.put_back(mine.result())
            else:
                with suppress(ValueError):
                    self._waiting.remove(waiting)
            raise

    def _handed_over(self, item: T) -> bool:
        while self._waiting:
            first, _ = self._waiting.popleft()
            if not first.done():
                first.set_result(item)
                return True
        return False

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when  # in no request's context, which would live as long as the timer
        self._timer = loop.call_at(when, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up for whose time is over, and look again when the next one's is."""
        now, self._when, self._timer = max(loop.time(), self._when), inf, None
        for waiting, due in self._waiting:
            if due <= now and not waiting.done():
                waiting.set_exception(TimeoutError())  # leaves the line when it wakes
        soonest = min((due for waiting, due in self._waiting if not waiting.done()), default=inf)
        if soonest < inf:
            self._set(loop, soonest)
