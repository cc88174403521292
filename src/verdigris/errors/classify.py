"""From an exception to its `Fault`: by SQLSTATE first, by a closed list of driver texts where there is none."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import exc as sa_exc
from sqlalchemy.orm import exc as orm_exc

from verdigris.errors import exceptions as own
from verdigris.errors import sqlstates as table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.errors.sqlstates import Fault

#: What talking to a server may raise: SQLAlchemy 2.0 lets the driver's own errors through when it connects, and
#: TimeoutError is an OSError.
FAILURES = (sa_exc.SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_OWN: tuple[tuple[type[BaseException], Fault], ...] = (
    (own.CommitRefusedError, table.NOTHING_STORED),
    (own.TransactionLostError, table.CONNECTION_LOST),
    (own.OutcomeUnknownError, table.OUTCOME_UNKNOWN),
    (own.PoolExhaustedError, table.POOL_EXHAUSTED),
    (own.StatementTimeoutError, table.TOO_SLOW),
    (own.ShuttingDownError, table.SHUTTING_DOWN),
    (own.StandbyError, table.SQLSTATES["25006"]),
    (own.DatabaseUnavailableError, table.UNAVAILABLE),
    (own.SessionClosedError, table.MISUSE),
    (own.SessionSharedError, table.MISUSE),
    (own.SessionStateError, table.MISUSE),
    (own.UnflushedError, table.MISUSE),
    (own.ReadOnlyError, table.MISUSE),
    (own.NotFoundError, table.NOT_FOUND),
    (own.PositionError, table.INPUT),
    (sa_exc.TimeoutError, table.POOL_EXHAUSTED),
    (sa_exc.PendingRollbackError, table.NOTHING_STORED),
    (sa_exc.MissingGreenlet, table.NOT_LOADED),
    (orm_exc.StaleDataError, table.STALE_DATA),
)
# DETAIL says `Key (email)=(a@x) already exists.`, in the server's language; the columns are ours, the values are not.
_KEY = re.compile(r"\(([^()]+)\)=\(")
_NOT_LOADED = "is not available due to "  # lazy= or raiseload=: SQLAlchemy has no class for it, and no hook before it
_MET_DATABASE = "__verdigris_met_database__"
_COLUMN = re.compile(r"[A-Za-z_]\w*\Z")


def classify(error: BaseException) -> Fault:
    """Return what an error of SQLAlchemy, asyncpg or this library means; `UNCLASSIFIED` for any other.

    The answer rests on the SQLSTATE of the server, wherever it is found on the way to the driver's own exception;
    where the driver gives none, on `DRIVER_TEXTS`. It carries names only: no SQL, no value, no message.

    A group of exceptions, as `asyncio.TaskGroup` raises, is the worst of them; unclassified if one is none of the
    database's, unless an outcome is unknown. A TimeoutError that `asyncio.timeout()` made of a cancelled statement is
    `too-slow`; any other is unclassified.
    """
    causes = list(_causes(error))
    fault = next((fault for cause in causes for kind, fault in _OWN if isinstance(cause, kind)), None)
    if fault is not None:  # also where the application has wrapped it: an unknown outcome stays one
        return fault.at(sqlstate_of(error))
    group = next((cause for cause in causes if isinstance(cause, BaseExceptionGroup)), None)
    if group is not None:
        return max(map(classify, group.exceptions), key=_gravity)
    if any(map(_timed_out, causes)):
        return table.TOO_SLOW
    if not _from_database(causes):
        return table.UNCLASSIFIED
    if any(type(cause) is sa_exc.InvalidRequestError and _NOT_LOADED in str(cause) for cause in causes):
        return table.NOT_LOADED
    text = next((fault for cause in causes if (fault := _by_text(cause)) is not None), None)
    sqlstate = sqlstate_of(error)
    if text is not None:
        return text.at(sqlstate)
    if sqlstate is not None:
        return _named(table.fault_of(sqlstate), causes)
    if isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated:
        return table.CONNECTION_LOST
    return table.UNCLASSIFIED


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that an exception carries, itself or on its way to the driver's exception."""
    for cause in _causes(error):
        sqlstate = getattr(cause, "sqlstate", None)
        if isinstance(sqlstate, str):
            return sqlstate
    return None


def says_not_loaded(text: str) -> bool:
    """Tell whether `Class: message`, all that a validator keeps of an error, is of what was read and not loaded."""
    kind, _, message = text.partition(": ")
    return kind == "MissingGreenlet" or (kind == "InvalidRequestError" and _NOT_LOADED in message)


def met_database(cancelled: BaseException) -> None:
    """Note on a cancellation that it ended something of the database's: a TimeoutError made of it says so."""
    setattr(cancelled, _MET_DATABASE, True)


def _timed_out(error: BaseException) -> bool:
    """Tell whether this is what `asyncio.timeout()` and `wait_for()` make of a cancellation that met a query."""
    return isinstance(error, TimeoutError) and getattr(error.__cause__, _MET_DATABASE, False) is True


def _gravity(fault: Fault) -> tuple[int, float]:
    """Order faults: the outcome nobody knows, what is wrong here, at the client, at the server; then what repeats."""
    if fault.name == table.OUTCOME_UNKNOWN.name:
        return 5, 0
    if fault.retry is table.RetryLevel.NEVER:
        return (4 if fault.status == 500 else 3 if fault.status < 500 else 2), fault.status
    return (1 if fault.retry is table.RetryLevel.UNIT else 0), -math.inf if fault.repeats is None else -fault.repeats


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the exception, the DBAPI exception it wraps and the driver's own: SQLAlchemy drops the code on some."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        orig = getattr(step, "orig", None)
        step = orig if isinstance(orig, BaseException) else step.__cause__


def _from_database(causes: list[BaseException]) -> bool:
    return any(type(cause).__module__.startswith(("asyncpg.", "sqlalchemy.")) for cause in causes)


def _by_text(error: BaseException) -> Fault | None:
    if isinstance(error, sa_exc.StatementError):
        return None  # its text holds the statement: the driver's own text is asked, further down
    text = str(error.args[0]) if error.args else ""
    return next((fault for part, fault in table.DRIVER_TEXTS if part in text), None)


def _named(fault: Fault, causes: list[BaseException]) -> Fault:
    """Add the names of constraint, table and columns that the server sent along."""
    for cause in causes:
        constraint = getattr(cause, "constraint_name", None)
        column = getattr(cause, "column_name", None)
        if constraint is None and column is None:
            continue
        columns = (column,) if column else _columns(getattr(cause, "detail", None))
        return replace(fault, constraint=constraint, table=getattr(cause, "table_name", None), columns=columns)
    return fault


def _columns(detail: str | None) -> tuple[str, ...]:
    found = _KEY.search(detail or "")
    names = [name.strip() for name in found[1].split(",")] if found else []
    return tuple(names) if all(_COLUMN.match(name) for name in names) else ()
