"""The library's own exceptions: what happened, why it is an error, what to do, and the page.

Where SQLAlchemy has a class that code already catches, ours is one of them too: `except sqlalchemy.exc.TimeoutError`
still sees an exhausted pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exc as sa_exc
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Sequence


class VerdigrisError(Exception):
    """An error with its parts apart: `what` happened, `why` it is an error, what to `do`, and the `page`.

    The page is what `verdigris explain` takes: a box's, or where no box is about it one of the documentation.
    """

    def __init__(self, what: str, *, why: str = "", do: Sequence[str] = (), page: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.do = tuple(do)
        self.page = page

    def __str__(self) -> str:
        lines = [self.why, *self.do, f"verdigris explain {self.page}" if self.page else ""]
        return "\n  ".join([self.what, *(line for line in lines if line)])


class ConfigurationError(VerdigrisError, sa_exc.ArgumentError):
    """A setting cannot work as written; raised where it is given, before the first request."""


class DatabaseUnavailableError(VerdigrisError, sa_exc.SQLAlchemyError, ConnectionError):
    """No connection could be made: refused, not resolved, not answered in time, or still starting. Nothing ran."""


class StandbyError(DatabaseUnavailableError):
    """The server is a standby, which refuses what only a primary does. Nothing ran."""


class ShuttingDownError(DatabaseUnavailableError):
    """The application is shutting down and begins nothing new. Nothing ran."""


class PoolExhaustedError(VerdigrisError, sa_exc.TimeoutError):
    """No connection came free within the pool's timeout."""


class StatementTimeoutError(VerdigrisError, sa_exc.SQLAlchemyError, TimeoutError):
    """The driver gave up waiting for a statement's answer (`command_timeout`); its transaction is lost."""


class CommitRefusedError(VerdigrisError, sa_exc.InvalidRequestError):
    """PostgreSQL answered COMMIT with ROLLBACK: an earlier error had aborted the transaction. Nothing was stored."""


class OutcomeUnknownError(VerdigrisError, sa_exc.SQLAlchemyError):
    """COMMIT was sent and no answer came back: the work may be stored, or not."""


class TransactionLostError(VerdigrisError, sa_exc.SQLAlchemyError):
    """The connection was lost in COMMIT, and the server says that nothing was stored: the unit may be run again."""


class SessionSharedError(VerdigrisError, sa_exc.InvalidRequestError):
    """A task used a session while another task was using it."""


class SessionClosedError(VerdigrisError, sa_exc.InvalidRequestError):
    """A session was used after it had been closed for good."""


class SessionStateError(VerdigrisError, sa_exc.InvalidRequestError):
    """Behind a pooler, a statement would have left state in a server connection that other clients use."""


class UnflushedError(VerdigrisError, sa_exc.InvalidRequestError):
    """With autoflush off, a statement would have missed or dropped changes that are still pending."""


class PositionError(VerdigrisError, ValueError):
    """What was given as a position in the log of a database, perhaps by a client, is none."""


class ReadOnlyError(VerdigrisError, sa_exc.InvalidRequestError):
    """A session of `db.read()` was asked to write, or to stream without `snapshot=True`."""


class _NotFound(HTTPException):
    """A 404 that is made with what any exception takes."""

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)
        self.status_code = 404
        self.detail = "Not Found"
        self.headers = None


class NotFoundError(VerdigrisError, sa_exc.NoResultFound, _NotFound):
    """No row answers a request for one: 404, with `install()` as a problem and without it as FastAPI writes it."""
