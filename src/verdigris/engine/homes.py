"""Where connections live: in one process and one event loop. In any other they would corrupt or never answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

_running_loop = asyncio._get_running_loop  # noqa: SLF001 - None where none runs, instead of an exception


class Home(NamedTuple):
    """The process and the event loop in which connections live; they work in no other."""

    forks: int
    loop: asyncio.AbstractEventLoop | None
    thread: threading.Thread

    @classmethod
    def here(cls) -> Home:
        """Return the home of what is made now."""
        return cls(_Process.forks, _running_loop(), threading.current_thread())

    def lasts(self) -> bool:
        """Tell whether this is still where we are."""
        return self.loop is _running_loop() and self.forks == _Process.forks

    def goes_on(self) -> bool:
        """Tell whether its event loop runs, or may run again, in a thread beside ours: what is there is its own.

        Of one thread only the loop that it runs has a home: one that stands still was left for another.
        """
        if self.forks != _Process.forks or self.loop is None or self.loop.is_closed():
            return False
        return self.loop.is_running() or (self.thread is not threading.current_thread() and self.thread.is_alive())


class _Process:
    forks = 0  # above this process: counted, because asking the system for its number is a call in each checkout
    moving = threading.RLock()  # in or out of a home, which is rare

    @classmethod
    def forked(cls) -> None:
        cls.forks += 1
        cls.moving = threading.RLock()  # a thread that there is no more may have held it


def moving() -> threading.RLock:
    """Return the lock that is held while something gets a home, or loses it."""
    return _Process.moving


class OfLoop(Generic[T]):
    """One of a kind in each event loop of a process, made when it is first asked for there."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._all: dict[asyncio.AbstractEventLoop | None, tuple[Home, T]] = {}

    def here(self) -> T:
        """Return that of the running loop; those of loops that have ended are dropped when one is made."""
        known = self._all.get(_running_loop())
        if known is not None and known[0].lasts():
            return known[1]
        with moving():
            kept = {loop: (home, one) for loop, (home, one) in self._all.items() if home.goes_on()}
            home, made = Home.here(), self._make()
            self._all = {**kept, home.loop: (home, made)}
        return made


class AtTheEnd:
    """Has something awaited when the running loop ends, unless it is forgotten before.

    `asyncio.run()`, and with it uvicorn, anyio and pytest-asyncio, end the asynchronous generators of a loop before
    they close it. One that waits is all it takes; who closes a loop without that is found closed by the next.
    """

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work = [work]
        self._waiting = _waiting(self._work)
        with contextlib.suppress(StopIteration, ResourceWarning):  # the second: it is ending already
            self._waiting.asend(None).send(None)

    def forget(self) -> None:
        """Have nothing awaited any more."""
        self._work.clear()
        with contextlib.suppress(StopIteration, RuntimeError):  # the second: it is at it
            self._waiting.aclose().send(None)

    __del__ = forget


async def _waiting(work: list[Callable[[], Awaitable[object]]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        for each in work:
            await each()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.forked)


def abandon(record: ConnectionPoolEntry, of: Home | None, abandoned: list[object]) -> None:
    """Leave a connection of another home behind; only in its own process there is anything to be said to its server.

    A loop that is closed leaves its connections open, and the server a backend for each: a job that is a process's
    `asyncio.run()` would take one more each time.
    """
    driver: Any = record.driver_connection
    if driver is None:
        return
    loop = getattr(driver, "_loop", None)
    if of is None or of.forks != _Process.forks or loop is None:
        abandoned.append(driver)  # its socket is the parent process's: whatever is sent goes over their wire
    else:
        with contextlib.suppress(Exception):
            if loop is _running_loop():
                driver.terminate()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(driver.terminate)  # of another thread, or to be run again
            else:
                _hang_up(driver)
    cast("Any", record).dbapi_connection = None


def _hang_up(driver: Any) -> None:
    """Close the socket of a connection whose loop is closed, without that loop; uvloop has done it already."""
    outer, driver._aborted = driver._transport, True  # noqa: SLF001 - or it warns of itself, as unclosed
    inner: Any = getattr(getattr(outer, "_ssl_protocol", None), "_transport", None)
    for transport in (outer, inner):
        if getattr(transport, "_sock", None) is not None:
            transport._sock.close()  # noqa: SLF001 - abort() asks the loop to do it
            transport._sock = None  # noqa: SLF001
        if hasattr(transport, "_closed"):  # of TLS
            transport._closed = True  # noqa: SLF001
