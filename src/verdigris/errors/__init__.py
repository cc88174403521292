"""Errors: one table from SQLSTATE to meaning, used by the retry loop, by the HTTP answers and by your own code.

`classify(error)` gives a `Fault`: `classify(error).name == "duplicate"`, `.status`, `.retry`, `.constraint`.
"""

from __future__ import annotations

from verdigris.errors.classify import classify, sqlstate_of
from verdigris.errors.exceptions import (
    CommitRefusedError,
    ConfigurationError,
    DatabaseUnavailableError,
    NotFoundError,
    OutcomeUnknownError,
    PoolExhaustedError,
    PositionError,
    ReadOnlyError,
    SessionClosedError,
    SessionSharedError,
    SessionStateError,
    ShuttingDownError,
    StandbyError,
    StatementTimeoutError,
    TransactionLostError,
    UnflushedError,
    VerdigrisError,
)
from verdigris.errors.sqlstates import (
    DRIVER_TEXTS,
    OUTCOME_UNKNOWN,
    SQLSTATES,
    UNAVAILABLE,
    UNCLASSIFIED,
    Fault,
    RetryLevel,
    fault_of,
)

__all__ = [
    "DRIVER_TEXTS",
    "OUTCOME_UNKNOWN",
    "SQLSTATES",
    "UNAVAILABLE",
    "UNCLASSIFIED",
    "CommitRefusedError",
    "ConfigurationError",
    "DatabaseUnavailableError",
    "Fault",
    "NotFoundError",
    "OutcomeUnknownError",
    "PoolExhaustedError",
    "PositionError",
    "ReadOnlyError",
    "RetryLevel",
    "SessionClosedError",
    "SessionSharedError",
    "SessionStateError",
    "ShuttingDownError",
    "StandbyError",
    "StatementTimeoutError",
    "TransactionLostError",
    "UnflushedError",
    "VerdigrisError",
    "classify",
    "fault_of",
    "sqlstate_of",
]
