"""Where connections live: in one process and one event loop. In any other they would corrupt or never answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

_running_loop = asyncio._get_running_loop  # noqa: SLF001 - None where none runs, instead of an exception


class Home(NamedTuple):
    """The process and the event loop in which connections live; they work in no other."""

    forks: int
    loop: asyncio.AbstractEventLoop | None

    @classmethod
    def here(cls) -> Home:
        """Return the home of what is made now."""
        return cls(_Process.forks, _running_loop())

    def lasts(self) -> bool:
        """Tell whether this is still where we are."""
        return self.loop is _running_loop() and self.forks == _Process.forks


class _Process:
    forks = 0  # above this process: counted, because asking the system for its number is a call in each checkout

    @classmethod
    def forked(cls) -> None:
        cls.forks += 1


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
