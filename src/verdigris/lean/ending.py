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

from verdigris.engine.commit import ToItsEnd
from verdigris.engine.pool import Pool, driver_of
from verdigris.lean.closing import is_changed
from verdigris.lean.session_listeners import OF_CLOSE, OF_COMMIT
from verdigris.lean.transaction import lean_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from verdigris.lean.transaction import LeanTransaction


async def commit_at_once(session: Session, finish: Callable[[], object] | None = None) -> bool:
    """Commit a session's transaction; False, with nothing done, where SQLAlchemy shall do it.

    `finish` is what SQLAlchemy does where nothing is left to wait for: `session.commit()` unless it is told.
    """
    held = lean_transaction(session)
    if held is not None:
        return await _commit_lean(session, held, finish)
    finish = finish or session.commit
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
        finish()
    else:
        await greenlet_spawn(finish)
    return True


async def _commit_lean(session: Any, held: LeanTransaction, finish: Callable[[], object] | None) -> bool:
    if is_changed(session) or OF_COMMIT.any(session) or held.is_heard("commit") or held.driver.is_closed():
        return False  # a connection that is known to be closed has its error raised by the driver's transaction
    begun, held.begun = held.begun, None
    if begun is not None:
        try:
            await held.driver.execute("COMMIT;")
        except BaseException as error:  # noqa: BLE001 - raised again, by do_commit
            held.driver.unfinished = error
    if held.driver.unfinished is not None or not held.give():
        held.opened()
        await greenlet_spawn(finish or session.commit)
    elif finish is not None or session.expire_on_commit:
        (finish or session.commit)()
    else:
        held.owner.close()  # nothing more is left of `session.commit()` where nobody listens and nothing expires
    return True


def closes_lean(session: Session | Any) -> LeanTransaction | None:
    """Return a session's transaction, if closing the session comes to one ROLLBACK that nobody hears."""
    held = lean_transaction(session)
    if held is None or OF_CLOSE.any(session) or held.is_heard("rollback") or held.driver.is_closed():
        return None
    return held if held.pool.returns_at_once(held.driver) else None


async def close(session: Session, held: LeanTransaction) -> None:
    """Roll a session's lean transaction back, to its end also if the caller is cancelled meanwhile, and close it."""
    begun, held.begun = held.begun, None
    failure: Exception | None = None
    cancelled = None
    if begun is not None:
        try:
            answer = ToItsEnd(held.driver.execute("ROLLBACK;"))
            try:
                await answer
            finally:
                cancelled = answer.cancelled
        except Exception as error:  # noqa: BLE001 - a connection that is dropped has rolled back
            failure = error
    if failure is not None:
        held.opened().invalidate(failure)
        session.close()
    elif held.give():
        session.close()
    else:
        held.opened()
        await greenlet_spawn(session.close)
    if cancelled is not None:
        raise cancelled


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
    if is_changed(session) or OF_COMMIT.any(session):
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
