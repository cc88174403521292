"""The dialect of an engine under a `Database`: a cheap ping, a rollback that hides nothing, a connect that gives up."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.util import await_only

from verdigris.engine import pooler, tls
from verdigris.engine.deadlines import Deadlines
from verdigris.engine.driver import ours
from verdigris.engine.limits import connector
from verdigris.engine.pipelined_begin import Adapter
from verdigris.engine.pooler import Pooler
from verdigris.engine.prepared import Prepared, is_plain
from verdigris.engine.read_only import READS, check
from verdigris.engine.secrecy import without_frames
from verdigris.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

    from verdigris.engine.driver import DriverSettings

_PATIENCE = 3  # failures in a row before callers are turned away without another try
_LONGEST_PAUSE = 2.0
#: Once a backend has freed so much at once, its malloc (glibc's) keeps twice that, instead of giving it back after each
#: statement: an answer of 50 kB costs a hundred page faults less, a quarter of its CPU, for half a megabyte each.
_ROOM = "SELECT length(repeat(' ', 300000))"


@dataclass(slots=True)
class Circuit:
    """Keeps callers of a dead server from waiting one after the other: most are turned away, one in a while tries."""

    failures: int = 0
    pauses: int = 0
    paused: float = 0.0  # monotonic time at which the last pause began
    again: float = 0.0  # monotonic time of the next try
    reason: str = ""

    def check(self, seconds: float | None, place: str) -> None:
        """Raise DatabaseUnavailableError while it is not time for another try; else let this caller be the one."""
        now = time.monotonic()
        if self.failures < _PATIENCE:
            return
        if now < self.again:
            raise unavailable(place, f"{self.reason}, {self.failures} times in a row; not tried again just now")
        self.again = now + (_LONGEST_PAUSE if seconds is None else seconds)  # the others wait for this one's outcome

    def failed(self, reason: str, began: float) -> None:
        """Count a failure and set the time of the next try; those that fail together lengthen the pause once."""
        self.failures += 1
        self.reason = reason
        if began < self.paused:
            return
        self.pauses += 1
        self.paused = time.monotonic()
        self.again = self.paused + min(_LONGEST_PAUSE, 0.05 * 2**self.pauses)

    def worked(self) -> None:
        """Close the circuit."""
        self.failures = self.pauses = 0


@dataclass(eq=False)
class DialectOverrides:
    """The methods that an engine's dialect gets on the instance, by `adapt`; the rest stays the dialect's own."""

    dialect: PGDialect_asyncpg
    settings: DriverSettings
    stock_connect: Callable[..., Any]
    stock_commit: Callable[[Any], None]
    stock_rollback: Callable[[Any], None]
    stock_rollback_to: Callable[[Any, str], None]
    stock_close: Callable[[Any], None]
    stock_execute: Callable[..., None]
    stock_executemany: Callable[..., None]
    pooler: Pooler
    verifies: bool  # nobody has decided about TLS, and the database is on another machine
    limits: dict[str, str]  # of the server, for engines whose connect arguments are the team's own
    unknown: set[str] = field(default_factory=set)  # of these, what the server does not know
    circuit: Circuit = field(default_factory=Circuit)
    trusts_anybody: bool = False  # the last connection was made without a word about TLS: asyncpg verifies nothing
    made: dict[type | None, type[asyncpg.Connection]] = field(default_factory=dict)  # classes, by the one below them

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

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Send a statement; raises ReadOnlyError for what a connection of `db.read()` in autocommit must not send."""
        if context is not None and READS in context.execution_options:
            check(statement, context)
        self.stock_execute(cursor, statement, parameters, context)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Send a statement for each of several parameters; as `do_execute`."""
        if context is not None and READS in context.execution_options:
            check(statement, context)
        self.stock_executemany(cursor, statement, parameters, context)

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit, or raise what a COMMIT that was awaited before has raised (`ending.commit_at_once`)."""
        driver = dbapi_connection.driver_connection
        error = getattr(driver, "unfinished", None)
        if error is None:
            self.stock_commit(dbapi_connection)
            return
        driver.unfinished = None
        if isinstance(error, Exception):
            dbapi_connection._handle_exception(error)  # noqa: SLF001 - the adapter's own translation
        raise error

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
        mine = ours(driver)
        if mine is None or not await_only(mine.rollback_to(savepoint)):
            self.stock_rollback_to(connection, name)

    def do_close(self, dbapi_connection: Any) -> None:
        """Close a connection, unless it is closed: there is no transaction left to roll back."""
        driver = dbapi_connection.driver_connection
        if driver is None or not driver.is_closed():
            self.stock_close(dbapi_connection)

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        """Connect with the guarded connection class and limits, and name what the driver raises bare."""
        settings = self.settings
        cparams["connection_class"] = self.connection_class(cparams.get("connection_class"))
        cparams.setdefault("timeout", settings.connect_timeout)
        cparams.setdefault("command_timeout", settings.command_timeout)
        if settings.shortcuts:
            cparams.setdefault("loop", Deadlines(asyncio.get_running_loop()))
        if self.verifies:
            cparams["ssl"] = self.verifying
        self.trusts_anybody = not tls.is_told(cparams)
        if self.limits:
            cparams["server_settings"] = {**self.limits, **(cparams.get("server_settings") or {})}
            cparams["async_creator_fn"] = connector(cparams.get("async_creator_fn"), self.unknown)
        began, place = time.monotonic(), place_of(cparams)
        self.circuit.check(cparams["timeout"], place)
        try:
            connection = self._connected(cargs, cparams)
        except OSError as error:  # TimeoutError and socket.gaierror are OSErrors too
            refused = tls.refused(error)
            if refused is not None:
                raise refused from without_frames(error)
            raise self._unavailable(place, _reason(error), began) from without_frames(error)
        except BaseException as error:  # noqa: BLE001 - raised again
            original = _original(error)
            if isinstance(original, asyncpg.TargetServerAttributeNotMatched):  # in the middle of a failover
                reason = "no host is the kind of server asked for"
                raise self._unavailable(place, reason, began) from without_frames(error)
            if getattr(original, "sqlstate", None) == asyncpg.CannotConnectNowError.sqlstate:
                raise self._unavailable(place, "it starts, stops or recovers", began) from without_frames(error)
            raise without_frames(error)  # noqa: B904 - the same error
        self.circuit.worked()
        return connection

    def _unavailable(self, place: str, reason: str, began: float) -> DatabaseUnavailableError:
        self.circuit.failed(reason, began)
        return unavailable(place, reason)

    def _connected(self, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
        """Connect to the server itself or, where one stands before it, through a pooler."""
        if not self.pooler.between:
            connection = self._direct(cargs, cparams)
            if connection is not None:
                return connection
        return self.stock_connect(*cargs, **self.pooler.arguments(cparams, cparams["connection_class"]))

    def _direct(self, cargs: tuple[Any, ...], cparams: dict[str, Any]) -> Any:
        """Connect as to a server; None where it shows on the way that it is a pooler."""
        try:
            connection = self.stock_connect(*cargs, **cparams)
        except (asyncpg.PostgresError, self.dialect.loaded_dbapi.Error) as error:
            if not pooler.refused_setting(error):
                raise
            if self.pooler.told:
                raise pooler.refuses_settings() from error
            self.pooler.found("it refuses a setting that PostgreSQL takes")
            return None
        driver = connection.driver_connection
        try:
            between = self.pooler.between
            if between is None:
                between = await_only(pooler.stands_before(driver, seconds=cparams["timeout"]))
            if not between:
                await_only(driver.execute(_ROOM, timeout=cparams["timeout"]))
        except BaseException:
            driver.terminate()
            raise
        if not between:
            self.pooler.between = False
            known = type(connection) is AsyncAdapt_asyncpg_connection and ours(driver) is not None
            if known and self.settings.shortcuts:
                connection.__class__ = Adapter
            return connection
        driver.terminate()
        self.pooler.found("the process that it names is not the one that answers")
        return None

    def connection_class(self, given: type[asyncpg.Connection] | None) -> type[asyncpg.Connection]:
        """Return the class of every connection of this engine: the guards, before what the engine was told to use."""
        if given not in self.made:
            above = () if given is None else (given,)
            short = self.settings.shortcuts
            own = {"direct": short and is_plain(given), "waits": short and given is None}
            self.made[given] = type("Connection", (self.settings.connection_class(), Prepared, *above), own)
        return self.made[given]

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """The context that verifies the server; reading the system's authorities takes some 20 ms, so once."""
        return tls.verifying()


def _lane_executed(
    statement: str, arguments: Sequence[Any], seconds: float, rows: int, error: BaseException | None
) -> None:
    """Do nothing; the lane calls it after each of its statements, which never pass through `do_execute`.

    Who watches the dialect's calls of the driver puts itself in its place, and calls it.
    """


def adapt(
    dialect: PGDialect_asyncpg,
    settings: DriverSettings,
    *,
    pgbouncer: bool | None = None,
    verifies: bool = False,
    limits: dict[str, str] | None = None,
) -> None:
    """Put the overrides on the dialect that an engine has; its class, the engine and its events stay as they are."""
    overrides = DialectOverrides(
        dialect,
        settings,
        dialect.connect,
        dialect.do_commit,
        dialect.do_rollback,
        dialect.do_rollback_to_savepoint,
        dialect.do_close,
        dialect.do_execute,
        dialect.do_executemany,
        Pooler(pgbouncer, told=pgbouncer is not None),
        verifies,
        limits or {},
    )
    vars(dialect).update(
        do_ping=overrides.do_ping,
        do_commit=overrides.do_commit,
        do_rollback=overrides.do_rollback,
        do_rollback_to_savepoint=overrides.do_rollback_to_savepoint,
        do_close=overrides.do_close,
        do_execute=overrides.do_execute,
        do_executemany=overrides.do_executemany,
        connect=overrides.connect,
        verdigris=overrides,
    )
    vars(dialect).setdefault("lane_executed", _lane_executed)  # there may be a recorder's already


def unavailable(place: str, reason: str) -> DatabaseUnavailableError:
    """Return the error for a server that cannot be reached."""
    return DatabaseUnavailableError(
        f"no connection to the database{place}: {reason}.",
        why="It is stopped, unreachable, or its address is wrong. Nothing was run.",
        do=["Start it, or correct its address:   DATABASE_URL=postgresql://user@host:5432/name"],
        page="errors/connection-errors",
    )


def place_of(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """Return where asyncpg's arguments lead, as ` shop at db.example:5432`: neither the user nor the password."""
    name = arguments.get("database") or environ.get("PGDATABASE")
    elsewhere = {"dsn", "service"} & arguments.keys()  # they may name a host too
    hosts = arguments.get("host") or environ.get("PGHOST") or ([] if elsewhere else ["localhost"])
    hosts = [hosts] if isinstance(hosts, str) else hosts
    ports = arguments.get("port") or environ.get("PGPORT") or 5432
    ports = ports if isinstance(ports, list | tuple) else [ports] * len(hosts)
    places = [f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in zip(hosts, ports, strict=False)]
    return (f" {name}" if name else "") + (f" at {', '.join(places)}" if places else "")


def _reason(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _original(error: BaseException) -> BaseException:
    """Return asyncpg's own exception, which SQLAlchemy 2.1 wraps."""
    return error.__cause__ if isinstance(error.__cause__, asyncpg.InternalClientError) else error
