"""What each SQLSTATE means for a unit of work: its name, whether repeating the unit can help, and the HTTP answer.

The classes of the exceptions do not tell: with asyncpg a serialization failure, a deadlock and a killed backend all
arrive as the same bare `DBAPIError`, and `OperationalError` is never raised at all.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class RetryLevel(enum.Enum):
    """What has to be repeated for another attempt to make sense. A lone statement never: its transaction is gone."""

    NEVER = "never"
    UNIT = "unit"  # the whole transaction, from a fresh session
    CONNECT = "connect"  # nothing ran: connecting again is enough, until the deadline


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, and what follows from it. Holds no SQL, no values and no message of the server."""

    name: str
    title: str
    status: int
    retry: RetryLevel = RetryLevel.NEVER
    repeats: int | None = 0  # how often at most; None: while the attempts last; 0 with CONNECT: until the deadline
    retry_after: int | None = None  # seconds
    sqlstate: str | None = None
    constraint: str | None = None
    table: str | None = None
    columns: tuple[str, ...] = ()

    def at(self, sqlstate: str | None) -> Fault:
        """Return the same fault with the code it was seen with."""
        return self if sqlstate == self.sqlstate else replace(self, sqlstate=sqlstate)


NEVER, UNIT, CONNECT = RetryLevel.NEVER, RetryLevel.UNIT, RetryLevel.CONNECT

UNCLASSIFIED = Fault("database-error", "The database reported an error", 500)
CONNECTION_LOST = Fault("connection-lost", "The connection to the database was lost", 503, UNIT, 2, 1)
UNAVAILABLE = Fault("unavailable", "The database is not available", 503, CONNECT, 0, 2)
SHUTTING_DOWN = Fault("shutting-down", "This instance is shutting down", 503, NEVER, 0, 1)
STALE_PLAN = Fault("stale-plan", "The schema changed under a prepared statement", 503, UNIT, 2, 1)
NOTHING_STORED = Fault("nothing-stored", "The transaction had failed; nothing was stored", 500)
INPUT = Fault("unusable-value", "A value cannot be stored as given", 422)
WRONG_STATEMENT = Fault("wrong-statement", "A statement of this service is wrong", 500)
MISCONFIGURED = Fault("refused-login", "The service cannot log in to its database", 500)
NO_RESOURCES = Fault("no-resources", "The database is out of resources", 503, NEVER, 0, 5)
TOO_SLOW = Fault("too-slow", "The database did not finish in time", 504)
POOL_EXHAUSTED = Fault("pool-exhausted", "All database connections are in use", 503, NEVER, 0, 1)
OUTCOME_UNKNOWN = Fault("outcome-unknown", "It is not known whether this was stored; look before sending it again", 503)
MISUSE = Fault("misuse", "This service used its database wrongly", 500)
NOT_LOADED = Fault("not-loaded", "This service read something that it had not loaded", 500)
NOT_FOUND = Fault("not-found", "There is no such record", 404)
STALE_DATA = Fault("changed-meanwhile", "The record was changed or removed meanwhile", 409)

# A code of five characters speaks for itself, one of two for its class; the longer one wins.
SQLSTATES: dict[str, Fault] = {
    "08": CONNECTION_LOST,
    "08001": UNAVAILABLE,
    "08004": UNAVAILABLE,
    "08P01": Fault("protocol-violation", "The database or a proxy refused the connection", 503, CONNECT, 0, 2),
    "0A000": Fault("not-supported", "The database does not support this statement", 500),
    "22": INPUT,
    "22012": WRONG_STATEMENT,
    "23": Fault("constraint", "A rule of the database was broken", 409),
    "23000": Fault("constraint", "A rule of the database was broken", 409),
    "23001": Fault("still-referenced", "Other records still refer to this one", 409),
    "23502": Fault("missing-value", "A required value is missing", 422),
    "23503": Fault("reference", "A record that this refers to does not exist, or one still refers to it", 409),
    "23505": Fault("duplicate", "A record with this value exists already", 409),
    "23514": Fault("check", "A value breaks a rule", 422),
    "23P01": Fault("overlap", "This overlaps with a record that exists already", 409),
    "25006": Fault("read-only", "The database takes no writes at the moment", 503, UNIT, 1, 2),
    "25P02": NOTHING_STORED,
    "25P03": Fault("idle-too-long", "The transaction waited too long and was ended", 500),
    "25P04": Fault("transaction-too-long", "The transaction took too long and was ended", 504),
    "26000": STALE_PLAN,
    "28": MISCONFIGURED,
    "3D000": MISCONFIGURED,
    "40": Fault("rolled-back", "The transaction was rolled back", 503, UNIT, None, 1),
    "40001": Fault("serialization", "Another transaction was faster; try again", 503, UNIT, None, 1),
    "40002": Fault("constraint", "A rule of the database was broken", 409),
    "40003": OUTCOME_UNKNOWN,
    "40P01": Fault("deadlock", "Two transactions waited for each other; try again", 503, UNIT, None, 1),
    "42": WRONG_STATEMENT,
    "42501": Fault("not-permitted", "The service's database role may not do this", 500),
    "53": NO_RESOURCES,
    "53300": Fault("too-many-connections", "The database has no connection to spare", 503, CONNECT, 0, 2),
    "55P03": Fault("locked", "The record is locked by another transaction", 409, UNIT, 2),
    "57014": TOO_SLOW,
    "57P01": CONNECTION_LOST,
    "57P02": CONNECTION_LOST,
    "57P03": UNAVAILABLE,
    "57P04": MISCONFIGURED,
    "57P05": CONNECTION_LOST,
    "58": NO_RESOURCES,
    "XX": Fault("internal", "The database reported an internal error", 500),
}

# The few cases in which asyncpg gives no code (or a code that says less). The list is closed: each text was seen from a
# real server, those that can be provoked at will are by a test, and anything else without a code stays unclassified.
DRIVER_TEXTS: tuple[tuple[str, Fault], ...] = (
    ("cached statement plan is invalid", STALE_PLAN),
    ("cache lookup failed for type", STALE_PLAN),
    ("number of columns in the result row", STALE_PLAN),
    ("connection was closed in the middle of operation", CONNECTION_LOST),
    ("the underlying connection is closed", CONNECTION_LOST),
    ("connection is closed", CONNECTION_LOST),
    ("cannot switch to state", CONNECTION_LOST),
    ("number of query arguments cannot exceed", Fault("too-many-arguments", "Too many values in one statement", 500)),
    ("another operation is in progress", Fault("shared-connection", "Two tasks used one connection", 500)),
)


def fault_of(sqlstate: str) -> Fault:
    """Return what a SQLSTATE means: the code's own entry, else that of its class, else unclassified."""
    found = SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or UNCLASSIFIED
    return found.at(sqlstate)
