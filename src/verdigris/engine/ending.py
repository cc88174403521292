"""COMMIT sent from where it is awaited: SQLAlchemy's synchronous half then finds nothing left to wait for.

`AsyncSession.commit()` runs in a greenlet, because somewhere inside it the connection waits for COMMIT's answer. In the
plain case, one connection and nothing to flush, that wait is known beforehand: the connection's own commit is awaited
first, and `Session.commit()` then does all of its bookkeeping at once, on a connection that has no transaction left.
A COMMIT that failed is raised where it would have been, inside of `Session.commit()`, by the dialect's `do_commit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.base import RootTransaction
from sqlalchemy.util import greenlet_spawn

from verdigris._sync_sessions import OF_COMMIT
from verdigris.engine.pool import Pool, driver_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


async def commit(session: Session) -> bool:
    """Commit a session's transaction; False, with nothing done, where SQLAlchemy shall do it."""
    fairy = _only_connection(session)
    if fairy is None:
        return False
    adapter, driver = fairy.dbapi_connection, fairy.driver_connection
    if adapter._transaction is not None:
        try:
            await adapter._transaction.commit()
        except BaseException as error:  # noqa: BLE001 - raised again, by do_commit
            driver.unfinished = error
        _discard(adapter)
    if driver.unfinished is None and fairy._pool.returns_at_once(driver):
        session.commit()
    else:
        await greenlet_spawn(session.commit)
    return True


def _discard(adapter: Any) -> None:
    """Note that a connection's transaction has ended, as the adapter does itself after each COMMIT."""
    adapter._transaction = None
    if hasattr(adapter, "_started"):  # SQLAlchemy 2.0
        adapter._started = False


def _only_connection(session: Any) -> Any:
    """Return a session's connection, if its commit comes to one COMMIT on it and nothing that anybody hears."""
    transaction = session._transaction
    if transaction is None or transaction.nested or transaction._parent is not None or session.twophase:
        return None
    if session._new or session._deleted or session.identity_map._modified or OF_COMMIT.hear(session):
        return None
    connections = set(transaction._connections.values())
    if len(connections) != 1:
        return None
    connection, begun, should_commit, acquired = connections.pop()
    if type(begun) is RootTransaction and begun.is_active and should_commit and acquired:
        return _unheard(connection)
    return None


def _unheard(connection: Any) -> Any:
    """Return what a connection has checked out, if nobody hears of its COMMIT and giving it back waits for nothing."""
    fairy = connection._dbapi_connection
    if fairy is None or connection._echo or _is_heard(connection):
        return None
    record, pool = fairy._connection_record, fairy._pool
    if record is None or record.finalize_callback or not isinstance(pool, Pool):
        return None
    driver = driver_of(record)
    return fairy if driver is not None and pool.returns_at_once(driver) else None


def _is_heard(connection: Any) -> bool:
    """Tell whether somebody hears of a COMMIT; who once heard of anything in any engine leaves `_has_events` set."""
    has_events = connection._has_events or connection.engine._has_events
    return has_events and bool(connection.dispatch.commit)
