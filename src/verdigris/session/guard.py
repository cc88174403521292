"""One task at a time in a session: the guard round each method that awaits, at about a microsecond a call.

SQLAlchemy does not detect sharing reliably: on a warm pool two statements are quietly serialised, on a cold one they
fail, and a commit beside a statement gives a connection back in the middle of its transaction, for the next user.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from asyncio import current_task
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from sqlalchemy import exc as sa_exc

from verdigris._places import Place, place_in, request_name
from verdigris.errors import SessionClosedError, SessionSharedError
from verdigris.errors.classify import met_database

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import CodeType

    from verdigris.session.effects import AfterCommit

    Method = Callable[..., Coroutine[Any, Any, Any]]

_Method = TypeVar("_Method")


class Use(NamedTuple):
    """Who is inside a session: kept as a bare tuple, which costs a third, and named only in an error."""

    task: asyncio.Task[Any] | None
    method: Method
    code: CodeType
    instruction: int

    def __str__(self) -> str:
        task = self.task
        if task is None:
            return f"code outside a task ({self.method.__name__} at {Place(self.code, self.instruction)})"
        stands = None if task is current_task() else place_in(task)
        place = stands or Place(self.code, self.instruction)
        return f"task {task.get_name()!r} ({self.method.__name__} at {place})"


class Guard:
    """The state of one session: which task is inside, who waits to close it, and whether it is closed for good."""

    closed = False
    cut = False  # a cancellation ended something in it
    use: tuple[asyncio.Task[Any] | None, Method, CodeType, int] | None = None
    leaving = 0  # tasks that wait to close the session
    free: asyncio.Event | None = None
    after: AfterCommit | None = None  # hooks, where there are any

    def __init__(self, enabled: bool, dies: bool) -> None:  # noqa: FBT001 - once a session: keywords would cost
        self.enabled = enabled  # whether a second task is refused
        self.dies = dies  # whether closing is for good

    def release(self) -> None:
        """Let in who waits."""
        if self.free is not None:
            self.free.set()
            self.free = None

    async def wait(self) -> None:
        """Wait until no other task is inside."""
        me = current_task()
        self.leaving += 1
        try:
            while self.use is not None and self.use[0] is not me:
                self.free = self.free or asyncio.Event()
                await self.free.wait()
        finally:
            self.leaving -= 1

    def shared(self, method: Method, code: CodeType, instruction: int) -> SessionSharedError | None:
        """Return the error for a task that enters while another is inside; None if it may."""
        use, me = self.use, current_task()
        if use is None or use[0] is me or not self.enabled:
            return None
        return SessionSharedError(
            f"{Use(me, method, code, instruction)} used a session while {Use(*use)} was using it.",
            why="A session is one connection and one transaction: two at once lose writes and break the connection.",
            do=[
                "Give each its own:   await db.gather(first, second)",
                "  or   async with db.session() as session: ...",
            ],
            page="concurrency/session-per-task",
        )


def guarded(method: _Method, *, waits: bool = False) -> _Method:
    """Let one task at a time into a method; the same task may enter again (`scalars()` calls `execute()`).

    With `waits`, a second task is let in when the first has finished: closing must happen, and must not overlap.
    """
    function = cast("Method", method)
    run = _when_free if waits else _alone

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        frame = sys._getframe(1)  # noqa: SLF001 - the caller, also where the coroutine gets a task of its own
        return run(function, frame.f_code, frame.f_lasti, self, args, kwargs)

    if hasattr(inspect, "markcoroutinefunction"):  # Python 3.12
        inspect.markcoroutinefunction(call)
    return cast("_Method", call)


async def _alone(  # noqa: PLR0917 - once a statement, from one place: keywords would cost
    method: Method, code: CodeType, instruction: int, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a method of a session, or of its transaction, unless another task is inside one."""
    guard: Guard = target._guard  # noqa: SLF001 - of a session or a transaction of ours
    outer, me = guard.use, current_task()
    if outer is None:
        if guard.leaving:  # another task waits to close the session: this one came back for more
            raise gone(target.info)
        guard.use = (me, method, code, instruction)
    elif outer[0] is not me and guard.enabled:
        raise cast("Exception", guard.shared(method, code, instruction))
    try:
        return await method(target, *args, **kwargs)
    except sa_exc.InvalidRequestError as error:
        if guard.closed and not isinstance(error, SessionClosedError):
            raise gone(target.info) from error
        raise
    except asyncio.CancelledError as cancelled:
        guard.cut = True
        met_database(cancelled)
        raise
    finally:
        if outer is None:
            guard.use = None
            if guard.free is not None:
                guard.release()
            if guard.after is not None:
                await guard.after.settle(sys.exc_info()[1])


async def _when_free(  # noqa: PLR0917 - as _alone
    method: Method, code: CodeType, instruction: int, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    guard: Guard = target._guard  # noqa: SLF001 - of a session or a transaction of ours
    if guard.use is not None and guard.enabled:
        await guard.wait()
    return await _alone(method, code, instruction, target, args, kwargs)


def gone(info: Mapping[Any, Any]) -> SessionClosedError:
    """Return the error for using a session that was closed for good; `info` is the session's."""
    scope = info.get("verdigris.scope")
    if scope is None:
        return SessionClosedError(
            "a session was used after it had been closed.",
            why="Its `async with` block is over; nobody would end the transaction that this would begin.",
            do=["Open one for this work:   async with db.session() as session: ..."],
            page="fastapi/closed",
        )
    return SessionClosedError(
        f"the session of {request_name(scope)} was used after it had been closed.",
        why="It commits and closes before the response leaves; a streaming body, a background task and a generator run"
        " after that.",
        do=["Open one inside the body or task:   async with db.session() as session: ..."],
        page="fastapi/closed",
    )
