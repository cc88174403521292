"""BEGIN, sent together with the first statement of its transaction: one round trip less in each.

SQLAlchemy's dialect sends BEGIN in the moment of the first statement, and waits for the answer before it sends that.
The protocol of PostgreSQL asks for no such wait: messages may follow each other, and what comes behind one that fails
is skipped, up to the next Sync. So BEGIN is written as an extended query without a Sync of its own, right before what
the first statement writes, and both are answered at once. It begins no later than it ever did. Where the statement
never gets as far as the wire, the answer to BEGIN is asked for by itself; where BEGIN is refused, nothing was run, and
the next statement brings it again.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

    from verdigris.engine.driver import DriverSettings

_asyncpg: Any = asyncpg.Connection
_NAMES = "execute", "executemany", "fetch", "prepare", "_execute", "_executemany"
_STOCK = [getattr(_asyncpg, name) for name in _NAMES]
_FETCH: Any = PreparedStatement.fetch
_ASKS = "SHOW transaction_isolation"  # for an answer, and for nothing else: no snapshot is taken


class Beginning(asyncpg.Connection):
    """An asyncpg connection on which a transaction may begin with its first statement."""

    settings: ClassVar[DriverSettings]
    waits: ClassVar[bool] = True  # False where classes above have a say in what is sent
    first: bool = False  # while the transaction starts whose first statement comes right behind
    owed: str | None = None  # a BEGIN that goes with the next statement

    async def begin(self, how: str) -> None:
        """Begin a transaction by this statement, whose first statement follows at once."""
        if self._may_wait():
            self.owed = how
        else:
            await self.execute(how)

    def _may_wait(self) -> bool:
        """Tell whether nobody watches or changes what is sent; who traces asyncpg puts itself in its place any time."""
        own: Any = self
        return (
            self.waits
            and not own._query_loggers
            and not own._cancellations  # of a statement before, which could hit this one
            and not self.is_closed()
            and [getattr(_asyncpg, name) for name in _NAMES] == _STOCK
            and PreparedStatement.fetch is _FETCH
        )

    # These are not async themselves: a coroutine less to step through, in every statement.
    def execute(self, query: str, *args: object, timeout: float | None = None) -> Coroutine[Any, Any, str]:
        if self.first and query.startswith("BEGIN") and self._may_wait():
            self.owed = query
            return _answered("BEGIN")
        if self.owed is not None and query in {"COMMIT;", "ROLLBACK;"}:  # of a transaction of which nothing was sent
            self.owed = None
            return _answered(query[:-1])
        if self.owed is not None and not args:
            return self._in_one_text(query, timeout)
        sent: Coroutine[Any, Any, str] = self._behind(super().execute(query, *args, timeout=timeout))
        return sent

    async def _in_one_text(self, query: str, timeout: float | None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Send BEGIN and statements of the simple protocol as one text.

        That protocol has no Sync, so behind a BEGIN that is refused the server would skip them and not answer.
        """
        owed, self.owed = self.owed, None
        try:
            return await super().execute(f"{(owed or '').rstrip('; ')}; {query}", timeout=timeout)
        except Exception:
            await self._settle(owed)
            raise

    def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> Any:
        return self._behind(super().executemany(command, args, timeout=timeout))

    def fetch(self, query: str, *args: object, **options: Any) -> Any:
        return self._behind(super().fetch(query, *args, **options))

    async def prepare(self, query: str, **options: Any) -> Any:
        await self.begun()
        statement = await super().prepare(query, **options)
        if self.waits and type(statement) is PreparedStatement:
            statement.__class__ = FirstStatement
        return statement

    async def begun(self) -> None:
        """Send the BEGIN that is owed by itself, for what cannot bring it along."""
        if self.owed is not None:
            await self.execute(_ASKS)

    def _behind(self, statement: Any) -> Any:
        """Return what runs a statement: itself, or behind the BEGIN that it brings along."""
        return statement if self.owed is None else self.behind_begin(statement)

    async def behind_begin(self, statement: Awaitable[Any]) -> Any:
        """Send the BEGIN that is owed, and what a statement sends right behind it."""
        own: Any = self
        owed, self.owed = self.owed, None
        if owed is not None and not self.is_closed():
            _write_before(own._transport, _messages(owed))
        try:
            return await statement
        except Exception:
            await self._settle(owed)
            raise  # a cancelled one leaves a connection that its holder drops

    async def _settle(self, owed: str | None) -> None:
        """Learn what became of BEGIN when the statement behind it failed, perhaps before anything of it was sent."""
        own: Any = self
        if self.is_closed() or self.is_in_transaction():
            return
        try:
            await own._protocol.query(_ASKS, self.settings.close_timeout)
        except asyncpg.PostgresError:
            pass  # which is an answer
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.terminate()
            return
        if not self.is_closed() and not self.is_in_transaction():
            self.owed = owed


class FirstStatement(PreparedStatement):
    """A prepared statement that brings BEGIN along, if its connection owes one."""

    __slots__ = ()
    _connection: Beginning

    def fetch(self, *args: Any, **options: Any) -> Any:
        sent, own = super().fetch(*args, **options), self._connection
        if own.owed is None:
            return sent
        return own.behind_begin(sent) if self.get_name() else _after_begin(own, sent)

    def cursor(self, *args: Any, **options: Any) -> Any:
        opened, own = super().cursor(*args, **options), self._connection
        return opened if own.owed is None else _after_begin(own, opened)  # which SQLAlchemy awaits, as it does a cursor


async def _after_begin(connection: Beginning, sent: Awaitable[Any]) -> Any:
    """Begin first: BEGIN would take the place of a statement without a name, and cursors ask if it was answered."""
    await connection.begun()
    return await sent


class Adapter(AsyncAdapt_asyncpg_connection):
    """SQLAlchemy's adapter of a connection, which starts a transaction right before a statement."""

    __slots__ = ()

    async def _start_transaction(self) -> None:
        driver: Any = self._connection
        driver.first = True
        try:
            await super()._start_transaction()  # type: ignore[no-untyped-call]
        finally:
            driver.first = False


def _write_before(transport: Any, begin: bytes) -> None:
    """Write bytes together with what is written next: asyncio would make a system call, and a packet, of each."""

    def write(data: Any) -> None:
        del transport.write, transport.writelines
        transport.write(b"".join((begin, data)))

    def writelines(parts: Iterable[Any]) -> None:
        del transport.write, transport.writelines
        transport.writelines([begin, *parts])

    try:
        transport.write, transport.writelines = write, writelines
    except AttributeError:  # uvloop's own, which collects what is written
        transport.write(begin)


async def _answered(status: str) -> str:
    return status


@lru_cache(maxsize=64)
def _messages(query: str) -> bytes:
    """Return the messages Parse, Bind and Execute of a statement without parameters, and without a name."""
    bodies = (
        (b"P", b"\0%s\0\0\0" % query.encode()),
        (b"B", bytes(8)),
        (b"E", bytes(5)),
    )
    return b"".join(kind + struct.pack("!i", 4 + len(body)) + body for kind, body in bodies)
