"""Transactions that only lean reads have used: BEGIN was sent, and SQLAlchemy has made no connection of it yet.

SQLAlchemy's `Connection`, the proxy of its checkout, its `RootTransaction` and the greenlets round them cost more than
BEGIN and COMMIT themselves. A transaction of lean reads needs none of them: it needs a connection of the pool on which
the driver has sent BEGIN. The session's `SessionTransaction` is SQLAlchemy's own all the while; of the connections that
it keeps, this one is made in the moment when somebody looks. Every way by which SQLAlchemy comes to a transaction's
connection leads through there: a flush, a statement, a savepoint, `connection()`, a rollback. From then on nothing is
different from a transaction that SQLAlchemy has begun.
"""

from __future__ import annotations

from collections import UserDict
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from asyncpg.transaction import Transaction, TransactionState
from sqlalchemy.engine import Connection
from sqlalchemy.util import greenlet_spawn

from verdigris.engine.pool import Pool
from verdigris.lean.engine_listeners import every_connection_is_heard
from verdigris.lean.lane import raise_as_session
from verdigris.lean.session_listeners import OF_BEGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import SessionTransaction

    from verdigris.engine.pool import Taken
    from verdigris.lean.engine_listeners import EngineListeners
    from verdigris.lean.lane import Lane

_AUTOCOMMIT = "autocommit"


class LeanTransaction(UserDict[Any, Any]):
    """The connections of a `SessionTransaction` while only lean reads use the one that there is.

    For one task at a time: the guard of the session sees to that.
    """

    def __init__(self, owner: SessionTransaction, bind: Engine, taken: Taken) -> None:
        self.owner = owner
        self.bind = bind
        self.pool, self.record, self.driver = taken
        self.begun: tuple[str | None, bool, bool] | None = None  # how, once BEGIN was sent

    @cached_property
    def data(self) -> dict[Any, Any]:  # type: ignore[override]  # an attribute there, which is set when it is made
        """What SQLAlchemy keeps of a connection whose transaction it began: from now on it is SQLAlchemy's."""
        self.data = {}  # a listener may fail: also then it is the proxy's, and no more this one's
        connection = Connection(self.bind, self.pool.proxied(self.record))
        if self.begun is not None:
            adapter: Any = self.record.dbapi_connection
            adapter._transaction = self._of_driver(*self.begun)
            if hasattr(adapter, "_started"):  # SQLAlchemy 2.0
                adapter._started = True
        entry = (connection, connection.begin(), True, True)
        made: dict[Any, Any] = {connection: entry, connection.engine: entry}
        self.owner._connections = made
        return made

    def opened(self) -> Connection:
        """Return the connection as SQLAlchemy's, whose it is from now on."""
        connection: Connection = self.data[self.bind][0]
        return connection

    async def fetch(self, lane: Lane, text: str, arguments: Sequence[Any]) -> list[Record]:
        """Run a statement, with BEGIN if that was not sent yet; errors are those of a session."""
        try:
            if self.begun is None:
                how = _manner(self.bind, self.record.dbapi_connection)
                await self.driver.begin(_begin(*how))
                self.begun = how
            return await lane.run(self.driver, statement=text, arguments=arguments)
        except Exception as error:  # noqa: BLE001 - raised again, as the session would raise it
            return await greenlet_spawn(raise_as_session, self.opened(), text, arguments, error)
        except BaseException as cancelled:
            self.opened().invalidate(cancelled)  # outside of a greenlet: dropped, and stopped on the server
            raise

    def _of_driver(self, isolation: Any, readonly: bool, deferrable: bool) -> Any:  # noqa: FBT001 - how it began
        """Return the driver's own object for the transaction that was begun, as if it had begun it."""
        transaction: Any = Transaction(self.driver, isolation, readonly, deferrable)  # also of a closed connection
        transaction._state, self.driver._top_xact = TransactionState.STARTED, transaction
        return transaction

    def is_heard(self, ending: str) -> bool:
        """Tell whether somebody hears of this connection's COMMIT, or of its ROLLBACK."""
        return every_connection_is_heard() or bool(getattr(self.bind.dispatch, ending))

    def give(self) -> bool:
        """Give the connection back after COMMIT or ROLLBACK, if nobody has to wait for that."""
        if self.driver.is_in_transaction() or not self.pool.give(self.record, self.driver):
            return False
        self.data = self.owner._connections = {}
        return True

    def __del__(self) -> None:
        if "data" not in self.__dict__:  # dropped in the middle: what SQLAlchemy does then, its proxy does when it ends
            self.pool.proxied(self.record)


def lean_transaction(session: Any) -> LeanTransaction | None:
    """Return a session's transaction, if only lean reads have used it."""
    owner = session._transaction
    if owner is None or type(owner._connections) is not LeanTransaction:
        return None
    held: LeanTransaction = owner._connections
    return held


async def begun(session: Any, listening: EngineListeners) -> LeanTransaction | None:
    """Return a session's transaction for a lean read, on a connection of the pool; None if SQLAlchemy shall begin it.

    Raises what checking out a connection raises.
    """
    held = lean_transaction(session)
    if held is not None or not _suits(session, listening):
        return held
    owner = session._transaction or session._autobegin_t()
    taken = session.bind.pool.take() or await session.bind.pool.take_in_turn()
    if taken is None:
        return None
    held = owner._connections = LeanTransaction(owner, session.bind, taken)
    if _manner(held.bind, held.record.dbapi_connection)[0] == _AUTOCOMMIT:
        held.opened()
        return None
    return held


def _suits(session: Any, listening: EngineListeners) -> bool:
    """Tell whether nobody could tell that SQLAlchemy does not begin a session's transaction itself."""
    owner, bind = session._transaction, session.bind
    if owner is not None and (owner._parent is not None or not owner.is_active or owner._connections):
        return False
    options = bind._execution_options
    known = listening.plain and ("isolation_level" not in options or _level(bind))
    return bool(
        known
        and isinstance(bind.pool, Pool)
        and not session.twophase
        and not OF_BEGIN.any(session)
        and not every_connection_is_heard()
        and not listening.to_opening()
        and not bind._should_log_info()
    )


def _level(bind: Any) -> str | None:
    """Return the driver's name of the isolation level that an engine's options ask for, if it has one."""
    level: str | None = bind.dialect._isolation_lookup.get(bind._execution_options.get("isolation_level"))
    return level


@lru_cache(maxsize=64)
def _begin(isolation: str | None, readonly: bool, deferrable: bool) -> str:  # noqa: FBT001 - as a connection has them
    """Return the statement that begins a transaction so, as asyncpg would write it."""
    level = f" ISOLATION LEVEL {isolation.replace('_', ' ').upper()}" if isolation else ""
    return f"BEGIN{level}{' READ ONLY' if readonly else ''}{' DEFERRABLE' if deferrable else ''};"


def _manner(bind: Any, adapter: Any) -> tuple[str | None, bool, bool]:
    """Return how a connection begins its transactions under an engine: isolation level, read only, deferrable."""
    options = bind._execution_options
    if not options:
        return adapter.isolation_level, adapter.readonly, adapter.deferrable
    return (
        _level(bind) or adapter.isolation_level,
        options.get("postgresql_readonly", adapter.readonly),
        options.get("postgresql_deferrable", adapter.deferrable),
    )
