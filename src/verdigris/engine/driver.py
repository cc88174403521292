"""The connection of asyncpg under a `Database`: an honest COMMIT, waits that end, no statement left running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
from asyncpg import connect_utils

from verdigris._background import background
from verdigris.engine.commit import UNANSWERED, ToItsEnd, marked, outcome, outcome_unknown, refused
from verdigris.engine.deadlines import plain

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger("verdigris")

_LONGEST_END = 16  # COMMIT and ROLLBACK with some room round them
_LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """What every connection of one database gets; all times in seconds."""

    connect_timeout: float | None
    command_timeout: float | None
    commit_timeout: float  # or command_timeout, if that is shorter
    close_timeout: float  # also the limit of a ROLLBACK and of a ping
    guard_commit: bool
    shortcuts: bool  # what rests on attributes of SQLAlchemy's and asyncpg's that are not public
    ping_after: float = 10.0  # a connection that was used more recently is not asked over the wire

    def __post_init__(self) -> None:
        if self.command_timeout is not None:
            object.__setattr__(self, "commit_timeout", min(self.commit_timeout, self.command_timeout))

    def connection_class(self) -> type[Connection]:
        """Return a connection class with these settings on it; asyncpg takes a class, not a factory."""
        return type("Connection", (Connection,), {"settings": self})


class Connection(asyncpg.Connection):
    """An asyncpg connection whose COMMIT tells the truth, and whose ROLLBACK and close end in bounded time."""

    settings: ClassVar[DriverSettings]  # of the class that each engine has of its own
    released: float = 0.0  # monotonic time of the return to the pool; 0 while it is checked out
    committing: bool = False
    closing: bool = False  # a graceful close is under way: asyncpg calls the connection closed already
    failed: BaseException | None = None  # the error that aborted the transaction in progress
    unfinished: BaseException | None = None  # what a COMMIT that was sent already has raised, for do_commit to raise

    def __init__(self, protocol: Any, transport: Any, loop: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, plain(loop), *rest)

    # Not async itself: a coroutine less to step through, in each BEGIN and COMMIT.
    def execute(self, query: str, *args: object, timeout: float | None = None) -> Coroutine[Any, Any, str]:
        if len(query) < _LONGEST_END:
            verb = _verb(query)
            if verb == "COMMIT" and self.settings.guard_commit:
                return self._commit(query, timeout)
            if verb == "ROLLBACK":
                return self._rollback(query, timeout)
        return super().execute(query, *args, timeout=timeout)

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        self.closing = not self.is_closed()
        try:
            await super().close(timeout=timeout or self.settings.close_timeout)
        except TimeoutError:  # dropped by now: as bounded as it was meant to be, and no error of anybody's
            if timeout is not None:
                raise
        self.closing = False

    def terminate(self) -> None:
        """Drop the connection, and stop the statement that it leaves running on the server.

        A task group of anyio delivers its cancellation at every await, the one included in which asyncpg would send its
        CancelRequest: without this the backend works, and locks, to the end of the statement (asyncpg#1156).
        """
        loop: Any = self._loop  # type: ignore[attr-defined]  # not in the stubs
        if loop.is_running() and not self.is_at_home():  # the garbage collector runs in any thread
            loop.call_soon_threadsafe(self.terminate)
            return
        alive = self.closing or not self.is_closed()
        busy = alive and not self.released and not self.committing
        protocol = self._protocol if busy and self.is_at_home() else None  # type: ignore[attr-defined]  # not in the stubs
        super().terminate()
        if protocol is not None:
            background(_cancel(self._addr, self._params, protocol, self.settings.connect_timeout))  # type: ignore[attr-defined]

    def is_at_home(self) -> bool:
        """Tell whether the event loop of this connection runs; when it is collected, another may, or none."""
        try:
            return asyncio.get_running_loop() is self._loop  # type: ignore[attr-defined]
        except RuntimeError:
            return False

    async def settle(self) -> None:
        """End what the server has begun for a statement whose arguments asyncpg refused to send.

        Preparing it asks for no end: the server waits for more, with the tables locked and a snapshot held, and would
        wait in the pool.
        """
        if getattr(self, "owed", None) is not None:  # a BEGIN: that was settled with it
            return
        own: Any = self
        try:
            await own._protocol.query("SHOW transaction_isolation", self.settings.close_timeout)  # noqa: SLF001 - ends it
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.terminate()

    async def rollback_to(self, savepoint: str) -> bool:
        """Roll back to a savepoint in bounded time; False if the server has an answer of its own that is an error.

        A connection that is lost, or that does not answer, has rolled back altogether: it is dropped without a word, so
        that the error which ended the savepoint goes on to the caller.
        """
        try:
            await super().execute(f"ROLLBACK TO SAVEPOINT {savepoint}", timeout=self.settings.close_timeout)
        except _LOST:
            self.terminate()
        except asyncpg.PostgresError:
            return False
        return True

    async def _rollback(self, query: str, timeout: float | None) -> str:  # noqa: ASYNC109 - asyncpg's
        self.failed = None
        try:
            return await super().execute(query, timeout=timeout or self.settings.close_timeout)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError):
            self.terminate()  # a lost connection has rolled back: its failure must not hide the error before it
            return "ROLLBACK"

    async def _commit(self, query: str, timeout: float | None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Send COMMIT and wait for its answer up to `commit_timeout`, also when the caller is cancelled meanwhile."""
        timeout = timeout or self.settings.commit_timeout
        if self.is_closed():  # never sent: asyncpg says so, and the unit may be repeated
            return await super().execute(query, timeout=timeout)
        self.committing = True
        answer = ToItsEnd(super().execute(query, timeout=timeout))
        status: str
        try:
            status, failure = await answer, None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            status, failure = "", self._failure(error)
        self.committing = False
        failed, self.failed = self.failed, None
        if status == "ROLLBACK":
            failure = refused(failed)
        if answer.cancelled is not None:
            log.warning("cancelled while COMMIT was under way: %s", outcome(failure))
            raise marked(answer.cancelled, failure)
        if failure is not None:
            raise failure
        return status

    def _failure(self, error: Exception) -> Exception:
        """Return what an error in COMMIT says of the transaction: rolled back, or nobody knows."""
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate is not None and not sqlstate.startswith(UNANSWERED):
            return error  # the server answered: the transaction is rolled back
        self.terminate()
        return outcome_unknown(error)


def ours(driver: object) -> Connection | None:
    """Return a driver's connection if it is of our class; `isinstance()` says yes to every class of asyncpg's."""
    return driver if hasattr(driver, "committing") else None  # type: ignore[return-value]  # only ours has it


@lru_cache(maxsize=64)
def _verb(query: str) -> str:
    return query.rstrip("; \n").upper()


async def _cancel(address: Any, parameters: Any, protocol: Any, seconds: float | None) -> None:
    """Send a CancelRequest for a backend, on a connection of its own; asyncpg knows how to reach the server."""
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(seconds):
            await connect_utils._cancel(  # type: ignore[attr-defined]  # noqa: SLF001 - the one place that knows sockets, TLS and the message
                loop=asyncio.get_running_loop(),
                addr=address,
                params=parameters,
                backend_pid=protocol.backend_pid,
                backend_secret=protocol.backend_secret,
            )
