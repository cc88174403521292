"""The session: SQLAlchemy's own `AsyncSession`, which one task uses at a time and which says so when it is closed.

The class stays substitutable for SQLAlchemy's: what changes semantics (`expire_on_commit=False`,
`close_resets_only=False`) is given by the factory of `Database`, not by the class.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from sqlalchemy import TextClause, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.ext.asyncio import AsyncSessionTransaction as _AsyncSessionTransaction
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement

from verdigris._places import Place, caller, place_in, request_name
from verdigris.errors import ReadOnlyError, SessionClosedError, SessionSharedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, MutableMapping
    from types import TracebackType

    from sqlalchemy.orm import ORMExecuteState

    from verdigris.engine import Database

_Method = TypeVar("_Method")
_PAGE = "concurrency/session-per-task"
_QUERY = re.compile(r"\s*(--[^\n]*\n\s*)*(SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN)\b", re.IGNORECASE)


class _Use(NamedTuple):
    task: asyncio.Task[Any] | None
    verb: str
    place: Place


def _guarded(method: _Method, *, waits: bool = False) -> _Method:
    """Let one task at a time into a method; the same task may enter again (`scalars()` calls `execute()`).

    With `waits`, a second task is let in when the first has finished: closing must happen, and must not overlap.
    """
    function = cast("Callable[..., Coroutine[Any, Any, Any]]", method)

    @functools.wraps(function)
    def call(self: AsyncSession | _Transaction, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        session = cast("AsyncSession", self.session) if isinstance(self, _Transaction) else self
        work = functools.partial(function, self, *args, **kwargs)
        return session._alone(work, function.__name__, caller(), waits=waits)  # noqa: SLF001 - same module

    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(call)
    return cast("_Method", call)


class _Transaction(_AsyncSessionTransaction):
    """`async with session.begin()`: the same guard on entering, committing and leaving."""

    __slots__ = ()

    start = _guarded(_AsyncSessionTransaction.start)
    commit = _guarded(_AsyncSessionTransaction.commit)
    rollback = _guarded(_AsyncSessionTransaction.rollback)
    _leave = _guarded(_AsyncSessionTransaction.__aexit__, waits=True)

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = cast("AsyncSession", self.session)
        shared = session._shared_with_another("leave the transaction") if type_ is None else None  # noqa: SLF001
        if shared is None:
            await self._leave(type_, value, traceback)
            return
        await self._leave(type(shared), shared, None)  # rolls back: another task was in the middle of its work
        raise shared


class AsyncSession(_AsyncSession):
    """An `AsyncSession` that refuses a second task while one is using it, and use after it was closed for good.

    Handing a session from one task to another is legal as long as their uses do not overlap. `guard_tasks=False` turns
    the first guard off; `close_resets_only=True` the second.
    """

    def __init__(self, bind: Any = None, *, guard_tasks: bool = True, **options: Any) -> None:
        super().__init__(bind, **options)
        self._guards = guard_tasks
        self._dies = options.get("close_resets_only") is False
        self._closed = False
        self._use: _Use | None = None
        self._free: asyncio.Event | None = None
        self._leaving = 0  # tasks that wait to close it

    execute = _guarded(_AsyncSession.execute)
    scalar = _guarded(_AsyncSession.scalar)  # type: ignore[arg-type, assignment]  # mypy cannot match its overloads
    scalars = _guarded(_AsyncSession.scalars)
    stream = _guarded(_AsyncSession.stream)
    stream_scalars = _guarded(_AsyncSession.stream_scalars)
    get = _guarded(_AsyncSession.get)
    get_one = _guarded(_AsyncSession.get_one)
    refresh = _guarded(_AsyncSession.refresh)
    merge = _guarded(_AsyncSession.merge)
    delete = _guarded(_AsyncSession.delete)
    flush = _guarded(_AsyncSession.flush)
    connection = _guarded(_AsyncSession.connection)
    run_sync = _guarded(_AsyncSession.run_sync)
    commit = _guarded(_AsyncSession.commit)
    rollback = _guarded(_AsyncSession.rollback)
    invalidate = _guarded(_AsyncSession.invalidate, waits=True)
    reset = _guarded(_AsyncSession.reset, waits=True)
    _close = _guarded(_AsyncSession.close, waits=True)
    if hasattr(_AsyncSession, "merge_all"):  # SQLAlchemy 2.1
        merge_all = _guarded(_AsyncSession.merge_all)
        delete_all = _guarded(_AsyncSession.delete_all)

    async def close(self) -> None:
        self._closed = self._dies
        await self._close()

    def begin(self) -> _Transaction:
        return _Transaction(self)

    def begin_nested(self) -> _Transaction:
        return _Transaction(self, nested=True)

    def add(self, instance: object, *, _warn: bool = True) -> None:
        self._still_open()
        super().add(instance, _warn=_warn)

    async def _alone(
        self, work: Callable[[], Coroutine[Any, Any, Any]], verb: str, place: Place, *, waits: bool
    ) -> Any:
        """Run one method of this session unless another task is inside one."""
        task = asyncio.current_task()
        use = self._use
        if use is None and self._leaving and not waits:
            raise self._gone()  # another task waits to close it: this one came back for more
        while use is not None and use.task is not task and self._guards:
            if not waits:
                raise self._shared(use, _Use(task, verb, place))
            self._leaving += 1
            try:
                self._free = self._free or asyncio.Event()
                await self._free.wait()
            finally:
                self._leaving -= 1
            use = self._use
        if use is None:
            self._use = _Use(task, verb, place)
        try:
            return await work()
        except sa_exc.InvalidRequestError as error:
            if self._closed and not isinstance(error, SessionClosedError):
                raise self._gone() from error
            raise
        finally:
            if use is None:
                self._use = None
                if self._free is not None:
                    self._free.set()
                    self._free = None

    def _shared_with_another(self, verb: str) -> SessionSharedError | None:
        use, task = self._use, asyncio.current_task()
        if use is None or not self._guards or use.task is task:
            return None
        return self._shared(use, _Use(task, verb, caller(2)))

    def _shared(self, first: _Use, second: _Use) -> SessionSharedError:
        return SessionSharedError(
            f"{_who(second)} used a session while {_who(first)} was using it.",
            why="A session is one connection and one transaction: two at once lose writes and break the connection.",
            do=[
                "Give each its own:   await db.gather(first, second)",
                "  or   async with db.session() as session: ...",
            ],
            page=_PAGE,
        )

    def _still_open(self) -> None:
        if self._closed:
            raise self._gone()

    def _gone(self) -> SessionClosedError:
        scope = self.info.get("verdigris.scope")
        if scope is None:
            return SessionClosedError(
                "a session was used after it had been closed.",
                why="Its `async with` block is over; nobody would end the transaction that this would begin.",
                do=["Open one for this work:   async with db.session() as session: ..."],
                page="fastapi/closed",
            )
        return SessionClosedError(
            f"the session of {request_name(scope)} was used after it had been closed.",
            why="It commits and closes before the response leaves; a streaming body, a background task and a generator"
            " run after that.",
            do=["Open one inside the body or task:   async with db.session() as session: ..."],
            page="fastapi/closed",
        )


def _who(use: _Use) -> str:
    task = use.task
    name = f"task {task.get_name()!r}" if task else "code outside a task"
    place = use.place
    if task is not None and task is not asyncio.current_task():
        place = place_in(task) or place
    return f"{name} ({use.verb} at {place})"


class ReadSession(Session):
    """The synchronous half of a session of `db.read()`: it flushes nothing and sends queries only."""

    def flush(self, objects: Any = None) -> None:
        if self.new or self.dirty or self.deleted:
            raise _reads_only("flush changes")


@event.listens_for(ReadSession, "do_orm_execute")
def _only_queries(state: ORMExecuteState) -> None:
    statement = state.statement
    if isinstance(statement, TextClause):
        writes = not _QUERY.match(statement.text)
    else:
        writes = state.is_insert or state.is_update or state.is_delete or isinstance(statement, ExecutableDDLElement)
    if writes:
        raise _reads_only("run a statement that writes")


def _reads_only(what: str) -> ReadOnlyError:
    return ReadOnlyError(
        f"a session of db.read() was asked to {what}.",
        why="It runs in autocommit, where each write would be stored at once and alone.",
        do=["Write in a transaction:   async with db.session.begin() as session: ..."],
        page="session/async-sessionmaker",
    )


@dataclass(slots=True)
class RequestUnit:
    """The transaction of one request; the route class may ask it to undo its work although nothing was raised."""

    database: Database
    session: AsyncSession
    undo: bool = False


@asynccontextmanager
async def request_unit(database: Database, scope: MutableMapping[str, Any]) -> AsyncGenerator[AsyncSession]:
    """Run a request's transaction: commit at the end, roll back on any exception, close on every path."""
    database.budget.unit_began()
    session = database.open(scope.get("verdigris.isolation_level"))
    session.info["verdigris.scope"] = scope
    unit = RequestUnit(database, session)
    scope.setdefault("verdigris.units", []).append(unit)
    async with session:  # closing rolls back what was not committed, and runs to its end when cancelled
        yield session
        if not unit.undo:
            await session.commit()
