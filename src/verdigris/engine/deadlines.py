"""The time limits of a connection's statements, for which one timer of the event loop is enough.

asyncpg makes a timer for each statement that has a limit and cancels it with the answer. A connection runs one
statement at a time, and nearly all are answered long before their limit: a timer that is already set to an earlier
moment can look again then, instead of being made anew for every statement.
"""

from __future__ import annotations

from contextvars import Context
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable


class Deadlines:
    """The event loop as the driver of one connection sees it: `call_later()` keeps a timer between statements.

    It is also what `call_later()` returns: the handle by which the driver cancels.
    """

    __slots__ = ("_args", "_callback", "_due", "_timer", "_when", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self._callback: Callable[..., object] | None = None
        self._args: tuple[Any, ...] = ()
        self._due = inf
        self._timer: TimerHandle | None = None
        self._when = inf  # what the timer is set to

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Any:
        """Call back after so many seconds, unless it is cancelled; a second call beside the first has its own timer."""
        if self._callback is not None:
            return self.loop.call_later(delay, callback, *args)
        self._callback, self._args = callback, args
        self._due = due = self.loop.time() + delay
        if due < self._when:
            self._set(due)
        return self

    def cancel(self) -> None:
        """Forget what was to be called; the timer stays for the next statement."""
        self._callback, self._args = None, ()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when  # in no request's context, which would live as long as the timer
        self._timer = self.loop.call_at(when, self._look, context=Context())

    def _look(self) -> None:
        when, self._when, self._timer = self._when, inf, None
        callback, args = self._callback, self._args
        if callback is None:
            return
        if self._due > when:
            self._set(self._due)
            return
        self.cancel()
        callback(*args)


def plain(loop: Any) -> Any:
    """Return the event loop itself."""
    return loop.loop if isinstance(loop, Deadlines) else loop
