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


def abandon(record: ConnectionPoolEntry, home: Home | None, abandoned: list[object]) -> None:
    """Leave a connection of another home behind, without a word on a wire that is not ours."""
    driver = record.driver_connection
    if driver is None:
        return
    if home is not None and home.loop is getattr(driver, "_loop", None):
        with contextlib.suppress(Exception):
            driver.terminate()
    else:  # its socket belongs to the parent process, or its loop is gone: touching it would speak on their wire
        abandoned.append(driver)
    cast("Any", record).dbapi_connection = None
