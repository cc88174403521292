"""The session: SQLAlchemy's own `AsyncSession`, which one task uses at a time and which says so when it is closed.

The class stays substitutable for SQLAlchemy's: what changes semantics (`expire_on_commit=False`,
`close_resets_only=False`) is given by the factory of `Database`, not by the class.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.ext.asyncio import AsyncSessionTransaction as _AsyncSessionTransaction

from verdigris._places import Place
from verdigris.errors import ConfigurationError
from verdigris.lean import methods
from verdigris.lean.closing import close_at_once, closes_at_once
from verdigris.lean.ending import closes_lean
from verdigris.session.effects import AfterCommit
from verdigris.session.exec import ExecSession
from verdigris.session.guard import Guard, gone, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, TracebackType

    from verdigris.lean.reads import LeanReads

log = logging.getLogger("verdigris")
_FACTORIES = ("sqlalchemy.", "verdigris.")
_ENDS = ("commit", "rollback", "close", "reset", "invalidate", "__aexit__")


class Transaction(_AsyncSessionTransaction):
    """`async with session.begin()`: the same guard on entering, committing and leaving."""

    __slots__ = ()

    @property
    def _guard(self) -> Guard:
        session = self.session
        assert isinstance(session, AsyncSession)  # noqa: S101 - made by its begin() and begin_nested() only
        return session._guard  # noqa: SLF001 - its own

    @property
    def info(self) -> dict[Any, Any]:
        return self.session.info

    @property
    def _short(self) -> bool:
        """Whether the session may do less than SQLAlchemy's."""
        session = self.session
        assert isinstance(session, AsyncSession)  # noqa: S101 - as above
        return session._lean is not None  # noqa: SLF001 - its own

    start = guarded(methods.start)
    commit = guarded(_AsyncSessionTransaction.commit)
    rollback = guarded(_AsyncSessionTransaction.rollback)
    _leave = guarded(methods.leave, waits=True)

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the block that ends
        shared = self._guard.shared(self._leave, frame.f_code, frame.f_lasti) if type_ is None else None
        if shared is None:
            await self._leave(type_, value, traceback)
            return
        await self._leave(type(shared), shared, None)  # rolls back: another task was in the middle of its work
        raise shared


class AsyncSession(ExecSession):
    """An `AsyncSession` that refuses a second task while one is using it, and use after it was closed for good.

    Handing a session from one task to another is legal as long as their uses do not overlap. `guard_tasks=False` turns
    the first guard off, `close_resets_only=True` the second. With `lean`, plain reads skip SQLAlchemy's engine and
    what waits for nothing is done at once; with `alone`, each read may run on a connection of its own, because the
    session reads in autocommit.

    A team's own class, `class Session(verdigris.AsyncSession)`, is given as `Database(session_class=Session)`. Its
    methods may override those here and call `super()`.
    """

    #: Whether a class has a say in how its sessions end, so that none of them is ended without it.
    _minds_its_end: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._minds_its_end = any(getattr(cls, name) is not getattr(AsyncSession, name) for name in _ENDS)

    def __init__(
        self,
        bind: Any = None,
        *,
        guard_tasks: bool = True,
        lean: LeanReads | None = None,
        alone: bool = False,
        **options: Any,
    ) -> None:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the warning that nobody closed it names the line
        while frame is not None and frame.f_globals.get("__name__", "").startswith(_FACTORIES):
            frame = frame.f_back
        self._made = None if frame is None else (frame.f_code, frame.f_lasti)
        self._guard = Guard(guard_tasks, options.get("close_resets_only") is False)
        self._lean = lean if lean is None or guard_tasks else lean.unguarded
        self._alone = alone
        if lean is None or self._minds_its_end:
            super().__init__(bind, **options)
        else:
            self._unbuilt = (bind, options)

    if not TYPE_CHECKING:  # for types there are SQLAlchemy's attributes and no others

        def __getattr__(self, name: str) -> Any:
            """Build the synchronous half when something of it is first asked for: many a request never does."""
            unbuilt = None if name.startswith("__") else self.__dict__.pop("_unbuilt", None)
            if unbuilt is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            super().__init__(unbuilt[0], **unbuilt[1])
            if self._guard.closed:
                self.sync_session.close()
            return getattr(self, name)

    @property
    def _unused(self) -> bool:
        """Whether nothing was asked of the session yet."""
        return "_unbuilt" in self.__dict__

    def __del__(self) -> None:
        inner = self.__dict__.get("sync_session")  # none where nothing was asked of it, or its making failed
        if inner is None or self._guard.closed or not inner.in_transaction():
            return
        what = f"a session was dropped without being closed; it was made at {Place(*self._made) if self._made else '?'}"
        warnings.warn(f"{what}. Its work is rolled back.", ResourceWarning, source=self, stacklevel=1)
        log.warning("%s; write `async with db.session() as session:`", what)

    if not TYPE_CHECKING:  # for types they are SQLAlchemy's, with all overloads
        execute = guarded(methods.execute)
        scalar = guarded(methods.scalar)
        get = guarded(methods.get)

    scalars = guarded(_AsyncSession.scalars)
    stream = guarded(_AsyncSession.stream)
    stream_scalars = guarded(_AsyncSession.stream_scalars)
    get_one = guarded(_AsyncSession.get_one)
    refresh = guarded(_AsyncSession.refresh)
    merge = guarded(_AsyncSession.merge)
    delete = guarded(_AsyncSession.delete)
    flush = guarded(_AsyncSession.flush)
    connection = guarded(_AsyncSession.connection)
    run_sync = guarded(_AsyncSession.run_sync)
    commit = guarded(methods.commit)
    rollback = guarded(_AsyncSession.rollback)
    invalidate = guarded(_AsyncSession.invalidate, waits=True)
    reset = guarded(_AsyncSession.reset, waits=True)
    _close = guarded(methods.close, waits=True)
    if hasattr(_AsyncSession, "merge_all"):  # SQLAlchemy 2.1
        merge_all = guarded(_AsyncSession.merge_all)
        delete_all = guarded(_AsyncSession.delete_all)

    async def close(self) -> None:
        guard = self._guard
        guard.closed = guard.dies
        if guard.use is not None or guard.leaving or guard.after is not None:
            await self._close()
        elif self._unused:
            return  # when it is built it will know that it is closed
        elif self._lean is not None and closes_at_once(self.sync_session):
            close_at_once(self.sync_session)  # there is nothing to wait for, and so nothing to guard
        else:
            await self._close()

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inner = None if self._unused else self.sync_session
        short = self._lean is not None and self._guard.use is None
        if short and (inner is None or closes_at_once(inner) or closes_lean(inner) is not None):
            await self.close()  # it waits for nothing or to its end, and needs no task that outlives a cancellation
        else:
            await super().__aexit__(type_, value, traceback)

    def begin(self) -> Transaction:
        return Transaction(self)

    def begin_nested(self) -> Transaction:
        return Transaction(self, nested=True)

    def add(self, instance: object, *, _warn: bool = True) -> None:
        if self._guard.closed:
            raise gone(self.info)
        super().add(instance, _warn=_warn)

    def add_all(self, instances: Iterable[object]) -> None:
        if self._guard.closed:
            raise gone(self.info)
        super().add_all(instances)


def after_commit(session: _AsyncSession, hook: Callable[[], object]) -> None:
    """Run a hook, plain or async, when a session's transaction in progress is stored: for effects outside the database.

    It runs after COMMIT was answered and the connection given back, in the order given, and before a request's
    answer leaves. It does not run when the transaction, or the savepoint that it was given in, is rolled back, nor
    when nobody knows the outcome. A hook that fails is logged: what is stored stays stored. It needs a session of
    its own for statements. Hooks live in this process: what must not be lost belongs into a table (an outbox).

    Raises ConfigurationError for a session that no `Database` made, and SessionClosedError.
    """
    if not isinstance(session, AsyncSession):
        raise ConfigurationError(
            f"after_commit() got a {type(session).__name__} that no Database made.",
            why="What runs after COMMIT needs to know how COMMIT ended, and the sessions of a Database do.",
            do=["async with db.session() as session: ..."],
            page="fastapi/commit-or-rollback",
        )
    guard = session._guard  # noqa: SLF001 - one of ours
    if guard.closed:
        raise gone(session.info)
    if guard.after is None:
        guard.after = AfterCommit(session.sync_session)
    guard.after.add(session.sync_session, hook)
