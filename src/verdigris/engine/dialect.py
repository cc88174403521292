"""The dialect of an engine under a `Database`: a cheap ping, a rollback that hides nothing, a connect that gives up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.util import await_only

from verdigris.engine.driver import Connection
from verdigris.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

    from verdigris.engine.driver import DriverSettings

_PATIENCE = 3  # failures in a row before callers are turned away without another try
_LONGEST_PAUSE = 2.0


@dataclass(slots=True)
class Circuit:
    """Keeps callers of a dead server from waiting one after the other: most are turned away, one in a while tries."""

    failures: int = 0
    again: float = 0.0  # monotonic time of the next try
    reason: str = ""

    def check(self, seconds: float) -> None:
        """Raise DatabaseUnavailableError while it is not time for another try; else let this caller be the one."""
        now = time.monotonic()
        if self.failures < _PATIENCE:
            return
        if now < self.again:
            raise unavailable(f"{self.reason}, {self.failures} times in a row; not tried again just now")
        self.again = now + seconds  # the others wait for this one's outcome

    def failed(self, reason: str) -> None:
        """Count a failure and set the time of the next try."""
        self.failures += 1
        self.reason = reason
        self.again = time.monotonic() + min(_LONGEST_PAUSE, 0.05 * 2**self.failures)

    def worked(self) -> None:
        """Close the circuit."""
        self.failures = 0


@dataclass(frozen=True, slots=True)
class DialectOverrides:
    """The methods that an engine's dialect gets on the instance, by `adapt`; the rest stays the dialect's own."""

    dialect: PGDialect_asyncpg
    settings: DriverSettings
    stock_connect: Callable[..., Any]
    stock_rollback: Callable[[Any], None]
    stock_rollback_to: Callable[[Any, str], None]
    stock_close: Callable[[Any], None]
    circuit: Circuit = field(default_factory=Circuit)

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Tell whether a pooled connection lives: for free when the driver knows, else in one round trip.

        The stock ping of asyncpg's dialect costs three round trips and has no limit of its own.
        """
        driver = dbapi_connection.driver_connection
        if driver.is_closed():
            return False
        if time.monotonic() - getattr(driver, "released", 0.0) < self.settings.ping_after:
            return True
        try:
            await_only(driver.execute("SELECT 1", timeout=self.settings.close_timeout))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            driver.terminate()  # at once: a graceful close would wait for the same silence again
            return False
        return True

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back, which a lost connection has done already: its failure must not hide the error before it."""
        driver = dbapi_connection.driver_connection
        if driver is not None and driver.is_closed():
            return
        self.stock_rollback(dbapi_connection)

    def do_rollback_to_savepoint(self, connection: Any, name: str) -> None:
        """Roll back to a savepoint in bounded time; a lost connection hides nothing either."""
        driver = connection.connection.driver_connection
        if driver is not None and driver.is_closed():
            return
        savepoint = self.dialect.identifier_preparer.quote(name)
        if not isinstance(driver, Connection) or not await_only(driver.rollback_to(savepoint)):
            self.stock_rollback_to(connection, name)

    def do_close(self, dbapi_connection: Any) -> None:
        """Close a connection, unless it is closed: there is no transaction left to roll back."""
        driver = dbapi_connection.driver_connection
        if driver is None or not driver.is_closed():
            self.stock_close(dbapi_connection)

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        """Connect with the guarded connection class and limits, and name what the driver raises bare."""
        settings = self.settings
        cparams.setdefault("connection_class", settings.connection_class())
        cparams.setdefault("timeout", settings.connect_timeout)
        cparams.setdefault("command_timeout", settings.command_timeout)
        self.circuit.check(cparams["timeout"])
        try:
            connection = self.stock_connect(*cargs, **cparams)
        except OSError as error:  # TimeoutError and socket.gaierror are OSErrors too
            reason = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            self.circuit.failed(reason)
            raise unavailable(reason) from error
        except (
            asyncpg.ProtocolViolationError,
            self.dialect.loaded_dbapi.Error,
        ) as error:  # 2.1 translates, 2.0 does not
            if "unsupported startup parameter" in str(error):
                raise _refused_by_proxy() from error
            raise
        self.circuit.worked()
        return connection


def _lane_executed(
    statement: str, arguments: Sequence[Any], seconds: float, rows: int, error: BaseException | None
) -> None:
    """Do nothing; the lane calls it after each of its statements, which never pass through `do_execute`.

    Who watches the dialect's calls of the driver puts itself in its place, and calls it.
    """


def adapt(dialect: PGDialect_asyncpg, settings: DriverSettings) -> None:
    """Put the overrides on the dialect that an engine has; its class, the engine and its events stay as they are."""
    overrides = DialectOverrides(
        dialect, settings, dialect.connect, dialect.do_rollback, dialect.do_rollback_to_savepoint, dialect.do_close
    )
    vars(dialect).update(
        do_ping=overrides.do_ping,
        do_rollback=overrides.do_rollback,
        do_rollback_to_savepoint=overrides.do_rollback_to_savepoint,
        do_close=overrides.do_close,
        connect=overrides.connect,
        verdigris=overrides,
    )
    vars(dialect).setdefault("lane_executed", _lane_executed)  # there may be a recorder's already


def unavailable(reason: str) -> DatabaseUnavailableError:
    """Return the error for a server that cannot be reached."""
    return DatabaseUnavailableError(
        f"no connection to the database: {reason}.",
        why="It is stopped, unreachable, or its address is wrong. Nothing was run.",
        page="errors/connection-errors",
    )


def _refused_by_proxy() -> ConfigurationError:
    return ConfigurationError(
        "the proxy before the database refuses a setting that is sent when connecting.",
        why="PgBouncer takes only the startup parameters that it knows.",
        do=[
            "Let it pass them by:   ignore_startup_parameters = statement_timeout   (pgbouncer.ini)",
            "or send none:   Database(statement_timeout=None)   and set it for the role: ALTER ROLE app SET …",
        ],
        page="engine/async-driver",
    )
