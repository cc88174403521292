"""A Database whose work is undone: one connection, one outer transaction, a savepoint for each transaction inside.

What is the same as in production: every statement, every rollback, deferred constraints (they fire at each inner
commit), the refusal to commit after a swallowed error. What is not: nobody else sees the work, `now()` stands still,
isolation levels are those of the outer transaction, and units run one inside the other. Where that matters, use a
database of the test's own (`verdigris_database`).
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from greenlet import getcurrent  # type: ignore[import-untyped]  # greenlet ships no types
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only, greenlet_spawn

from verdigris.database import Database
from verdigris.database.replicas import position_of
from verdigris.database.sessions import over
from verdigris.errors import CommitRefusedError, ConfigurationError, VerdigrisError, sqlstate_of
from verdigris.lean.lane import Lane, raise_as_session
from verdigris.lean.sync_sessions import ReadSession
from verdigris.performance.timing import MUTED
from verdigris.testing.loops import finish
from verdigris.testing.substitution import COPIED, standing_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncpg import Record
    from sqlalchemy import Connection

    from verdigris.session import AsyncSession

#: Of the sessions that are open, those of this task and of the tasks that made it.
_AROUND: ContextVar[frozenset[int]] = ContextVar("verdigris_sandbox_around", default=frozenset())

_KEY = "verdigris.sandbox"
_ABORTED = "25P02"
_PATIENCE = 10.0
_IMMEDIATE = """
    SELECT quote_ident(nspname) || '.' || quote_ident(conname)
    FROM pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace
    WHERE condeferrable AND NOT condeferred
"""


class SandboxBlockedError(VerdigrisError):
    """Two transactions in the sandbox wait for each other."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A session's transaction that is open in the sandbox: its savepoint, and the task that began it."""

    session: Session
    name: str
    task: asyncio.Task[Any] | None

    def surrounds_caller(self) -> bool:
        """Whether the caller's work is part of this: begun by its task, by one that made it, or left open by a test."""
        if self.session.hash_key in _AROUND.get() or self.task is None:
            return True
        return self.task.done() or self.task is asyncio.current_task()


class Sandbox(Database):
    """A Database for one test: what is written through it is rolled back when the test ends."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **{**options, "pool_size": 1, "max_overflow": 0, "pool_timeout": 1.0})
        given = {name: self.session.kw[name] for name in COPIED if name in self.session.kw}
        inside: Any = async_sessionmaker(
            self.engine,
            class_=self.session.class_,
            sync_session_class=self.inside(self.session.kw.get("sync_session_class", Session)),
            join_transaction_mode="create_savepoint",
            info={_KEY: self},
            **given,
        )
        self.session = inside
        self.lane = _LaneInside(self)
        self._outer: Connection | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._immediate: list[str] = []
        self._open: list[_Unit] = []  # innermost last
        self._asking: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()  # by greenlet: whose statement it runs
        self._moved: asyncio.Event | None = None
        self._over = False

    # -- what a Database does otherwise --------------------------------------------------------------------------------

    def _open_session(self, isolation_level: str | None = None, **options: Any) -> AsyncSession:
        """Return a session; its isolation level is that of the outer transaction, whatever is asked."""
        return self.session(**options)

    def read(self, *, snapshot: bool = False, after: str | None = None, max_lag: float | None = None) -> AsyncSession:
        """Open a session that only reads: on the sandbox's connection, so that it sees what was written here."""
        if after:
            position_of(after)
        return self.session(sync_session_class=self.inside(over(ReadSession, self.session.class_.sync_session_class)))

    async def position(self) -> str:
        """Return the beginning of the log: whoever reads here sees what was written here."""
        return "0/0"

    @staticmethod
    def inside(kind: type[Session]) -> type[Session]:
        """Return what the synchronous half of a session, such as that of `db.read()`, is in the sandbox."""
        if kind not in _kinds:
            _kinds[kind] = type(f"{kind.__name__}Inside", (_Inside, kind), {})
        return _kinds[kind]

    async def start(self) -> None:
        """Do nothing: the pool of one connection is what a sandbox is."""

    async def dispose(self) -> None:
        """Roll everything back and close; the sandbox can't be used again."""
        self._over = True
        await greenlet_spawn(self._end)
        await self.queries.aclose()
        await super().dispose()

    @contextmanager
    def standing_in(self, database: Database) -> Iterator[Sandbox]:
        """Let the application's own Database be this sandbox inside the block, session factory and dependency too.

        Its settings for sessions and retries stay. What was made from `database.engine` itself is not redirected.
        """
        with standing_in(self, database):
            yield self

    def finish(self) -> None:
        """Roll everything back and close, from synchronous code, in the loop that the connection lives in."""
        if not self._over and not finish(self._home, self.dispose):
            self._over = True
            self._abandon()

    def finish_session(self, session: AsyncSession) -> None:
        """Close a session from synchronous code, in the loop that the connection lives in."""
        if not finish(self._home, session.close):
            session._guard.closed = True  # noqa: SLF001 - one of ours; its loop is gone, and the connection is cut as the sandbox ends

    def _abandon(self) -> None:
        """Drop a connection whose event loop is gone; the server rolls back when its socket closes."""
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.detach()
            driver: Any = outer.connection.driver_connection
            transport = getattr(driver, "_transport", None)
            socket = transport.get_extra_info("socket") if transport is not None else None
            if socket is not None:
                socket.close()

    # -- the outer transaction, seen from SQLAlchemy's synchronous half ------------------------------------------------

    def connection_for(self, session: Session) -> Connection:
        """Return the one connection, begun, when it is this session's turn; called for each of its statements."""
        self._check_loop()
        if self._outer is None:
            self._starting = self._starting or asyncio.Lock()
            await_only(self._starting.acquire())
            try:
                if self._outer is None:  # in a context of its own: it outlives the request that happens to be the first
                    beginning = greenlet_spawn(self._begin)
                    self._outer = await_only(asyncio.create_task(beginning, context=Context()))
            finally:
                self._starting.release()
        self._asking[getcurrent()] = session
        self._wait_for_turn(session)
        return self._outer

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._over:
            raise _misused("was used after it had ended", "It ends with its test, or when the application shuts down.")
        if self._home is None:
            self._home = loop
        elif self._home is not loop:
            raise _misused("was used in two event loops", "Its one connection lives in the loop that used it first.")

    def _begin(self) -> Connection:
        muted = MUTED.set(True)
        try:
            outer = self.engine.sync_engine.connect()
            outer.begin()
            self._immediate = list(outer.exec_driver_sql(_IMMEDIATE).scalars())
        finally:
            MUTED.reset(muted)
        event.listen(outer, "savepoint", self._savepoint)
        event.listen(outer, "release_savepoint", self._leaving)
        event.listen(outer, "rollback_savepoint", self._leaving)
        return outer

    def _end(self) -> None:
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.close()  # rolls back

    def _savepoint(self, _connection: Connection, name: str) -> None:
        """Let a transaction begin inside those of its own task and of the tasks that wait for it; after any other.

        Inside another's it would be undone with it: units that run side by side go one after the other.
        """
        session = self._asking.get(getcurrent())
        if session is None or self._holds(session):
            return  # a savepoint of the application's own
        while self._open and not self._open[-1].surrounds_caller():
            self._wait()
        _AROUND.set(_AROUND.get() | {session.hash_key})
        self._open.append(_Unit(session, name, asyncio.current_task()))

    def _leaving(self, _connection: Connection, name: str, _context: None) -> None:
        for unit in self._open:
            if unit.name == name:
                self._wait_for_turn(unit.session)
                return

    def _wait_for_turn(self, session: Session) -> None:
        """Wait until the transactions that began inside this session's have ended: savepoints nest."""
        while self._holds(session) and self._open[-1].session is not session:
            self._wait()

    def _holds(self, session: Session) -> bool:
        return any(unit.session is session for unit in self._open)

    def _wait(self) -> None:
        self._moved = self._moved or asyncio.Event()
        try:
            await_only(asyncio.wait_for(self._moved.wait(), _PATIENCE))
        except TimeoutError:
            raise _blocked(len(self._open)) from None

    def left(self, session: Session) -> None:
        """Note that a session's transaction has ended, and let those that wait for it go on."""
        self._open = [unit for unit in self._open if unit.session is not session]
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    def committing(self, session: Session) -> None:
        """Do what COMMIT does and RELEASE does not: fire deferred constraints, refuse a failed transaction."""
        session.flush()
        if not self._holds(session):
            return  # nothing was sent: there is nothing to commit
        connection = self.connection_for(session)
        try:
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
            if self._immediate:
                connection.exec_driver_sql(f"SET CONSTRAINTS {', '.join(self._immediate)} IMMEDIATE")
        except DBAPIError as error:
            if sqlstate_of(error) != _ABORTED:
                raise
            raise CommitRefusedError(
                "PostgreSQL would answer this COMMIT with ROLLBACK: nothing is stored.",
                why="An earlier statement of the transaction failed, and the error was caught and not raised again.",
                do=("raise   # in the except block", "or put the statement into a savepoint:   session.begin_nested()"),
                page="errors/rollback-then-raise",
            ) from error


class _LaneInside(Lane):
    """The lane of a sandbox: its reads see what the test wrote, and leave the outer transaction whole if they fail."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox.engine, sandbox._budget, shortcuts=False)  # noqa: SLF001 - a Database's own
        self._sandbox = sandbox

    async def fetchval_together(self, statement: str, arguments: Sequence[Any] = (), *, most: int = 1) -> Any:
        return await self.fetchval(statement, arguments)

    def _pool(self) -> None:
        return None  # its one connection is never free

    async def _fetch(self, work: Any) -> list[Record]:
        async with self._sandbox.read() as session:  # closing it rolls its savepoint back
            connection = await session.connection()
            pooled = await connection.get_raw_connection()
            try:
                rows: list[Record] = await work(pooled.driver_connection)
            except Exception as error:  # noqa: BLE001 - raised again, as a session would raise it
                sent = work.keywords
                await greenlet_spawn(
                    raise_as_session, connection.sync_connection, sent["statement"], sent["arguments"], error
                )
            return rows


class _Inside(Session):
    """The synchronous half of a session in a sandbox: its connection is the sandbox's."""

    def get_bind(self, *arguments: Any, **options: Any) -> Any:
        sandbox = cast("Sandbox", self.info[_KEY])
        if not getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False):
            return sandbox.engine.sync_engine  # asked from outside, for the dialect's sake
        return sandbox.connection_for(self)


_kinds: dict[type[Session], type[Session]] = {Session: _Inside}


@event.listens_for(_Inside, "before_commit")
def _before_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_KEY].committing(session)


@event.listens_for(_Inside, "after_transaction_end")
def _after_transaction_end(session: Session, transaction: Any) -> None:
    if transaction.parent is None:
        session.info[_KEY].left(session)


def _misused(what: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The sandbox of this test {what}.",
        why=why,
        do=(
            "Call the application in the test's own loop:   httpx.AsyncClient(transport=httpx.ASGITransport(app))",
            "or take the fixture verdigris_database, whose connections may live anywhere.",
        ),
        page="testing/async-fixtures",
    )


def _blocked(count: int) -> SandboxBlockedError:
    return SandboxBlockedError(
        f"A transaction in the sandbox waited {_PATIENCE:.0f} s for another to end; {count} are open.",
        why="The sandbox is one connection: transactions run one after the other, or one inside the other.",
        do=("Close the inner session first, or take the fixture verdigris_database for this test.",),
        page="testing/rolled-back",
    )
