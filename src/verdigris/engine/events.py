"""What a `Database` does when the engine reports an error: public events of SQLAlchemy, nothing wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.util import await_only

from verdigris.engine.driver import ours
from verdigris.engine.pool import jitter
from verdigris.errors import ConfigurationError, StandbyError, StatementTimeoutError, sqlstate_of

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry

    from verdigris.engine.driver import Connection
_READ_ONLY, _NOT_SUPPORTED = "25006", "0A000"
#: What PostgreSQL from 14 on reports before the answer that follows: it takes writes where both are "off".
_OF_SERVER = "default_transaction_read_only", "in_hot_standby"
_OF_SESSION = frozenset({"SET default_transaction_read_only", "SET characteristics"})


def listen(engine: Engine, recycle: float) -> None:
    """Attach the listeners to an engine; they travel with it to `execution_options()` copies and new pools."""

    def connected(connection: Any, record: ConnectionPoolEntry) -> None:
        if ours(connection.driver_connection) is None:
            connection.driver_connection.terminate()
            raise unguarded()
        jitter(record, recycle)

    event.listen(engine, "handle_error", _on_error)
    event.listen(engine, "connect", connected)


def _on_error(context: ExceptionContext) -> BaseException | None:
    original = context.original_exception
    if context.connection is None or context.connection.invalidated:
        return None
    if isinstance(original, TimeoutError) and not isinstance(original, StatementTimeoutError):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        return _too_slow()
    driver = ours(context.connection.connection.driver_connection)
    if sqlstate_of(original) == _READ_ONLY and not _asked_for_read_only(context, driver):
        context.is_disconnect = True  # the primary has moved: every pooled connection leads to the old one
    elif sqlstate_of(original) == _NOT_SUPPORTED and _is_serializable_on_standby(context, driver):
        context.is_disconnect = True  # as above
        return _standby()
    elif driver is not None and not driver.is_closed() and driver.is_in_transaction():
        driver.failed = context.sqlalchemy_exception or original
    elif driver is not None and not driver.is_closed() and _was_never_sent(original.__cause__):
        await_only(driver.settle())
    return None


def _was_never_sent(error: BaseException | None) -> bool:
    """Whether asyncpg itself refused a statement's arguments: such an error has no severity, which the server gives."""
    refused = isinstance(error, asyncpg.DataError) and getattr(error, "severity", None) is None
    return refused or isinstance(error, asyncpg.InterfaceError)


def unguarded() -> ConfigurationError:
    """Return the error for an engine whose connections are made past its dialect, and with it past every guard."""
    return ConfigurationError(
        "an engine with a creator of its own makes connections that the guards are not on.",
        why="COMMIT would report success where nothing was stored, and nothing would bound a wait.",
        do=[
            "Let the function take asyncpg.connect()'s arguments, and pass them on:",
            '  connect_args={"async_creator_fn": connect}   in the place of   async_creator=connect',
        ],
        page="errors/rollback-then-raise",
    )


def _asked_for_read_only(context: ExceptionContext, driver: Connection | None) -> bool:
    """Tell whether the application has made its transaction read-only itself, on a server that takes writes.

    Behind a pooler nobody knows: what was reported is of the server that it had then.
    """
    options = context.connection.get_execution_options() if context.connection is not None else {}
    if options.get("postgresql_readonly"):
        return True
    dialect: Any = context.dialect
    if driver is None or dialect.verdigris.pooler.between:
        return False
    if not _OF_SESSION.isdisjoint(getattr(driver, "left", None) or ()):
        return True
    told = driver.get_settings()
    return all(getattr(told, name, None) == "off" for name in _OF_SERVER)


def _is_serializable_on_standby(context: ExceptionContext, driver: Connection | None) -> bool:
    """Tell whether a SERIALIZABLE transaction met a standby, which has none; PostgreSQL says what it is from 14 on."""
    if context.connection is None or driver is None or getattr(driver.get_settings(), "in_hot_standby", "") != "on":
        return False
    adapter: Any = context.connection.connection.dbapi_connection
    level = context.connection.get_execution_options().get("isolation_level") or adapter.isolation_level
    return str(level).upper() == "SERIALIZABLE"


def _standby() -> StandbyError:
    return StandbyError(
        "the database takes no SERIALIZABLE transactions now: it is a standby.",
        why="A standby does not know what the transactions on the primary have read, so that PostgreSQL refuses them.",
        do=[
            'Name all hosts, and the one that takes writes is found:   "postgresql://app@one,two/shop"',
            'or, where it is read from on purpose:   Database(isolation_level="REPEATABLE READ")',
            "or give its URL to the Database of the primary, for db.read():   Database(url, replicas=[standby])",
        ],
        page="docs/topologies.md",
    )


def _too_slow() -> StatementTimeoutError:
    return StatementTimeoutError(
        "a statement got no answer in time; its connection was closed and its transaction is lost.",
        why="command_timeout was over: a server that is well ends sooner, by its own statement_timeout. Behind a pooler"
        " the driver keeps to that for a read outside of a transaction.",
        do=["Make the statement faster, or give it longer:   Database(statement_timeout=..., command_timeout=...)"],
        page="errors/connection-errors",
    )
