"""A pooler in transaction mode, such as PgBouncer, between us and the server: found out, then lived with.

Each transaction may run on another server connection there. What outlives a transaction goes to whoever comes next, so
nothing may be left: statements are not kept prepared, limits are set inside the transaction, and a statement that would
change the session is refused before it is sent.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from verdigris.engine.state import Effect, Tracked
from verdigris.errors import ConfigurationError, SessionStateError

log = logging.getLogger("verdigris")

_PAGE = "engine/async-driver"
# PgBouncer follows these from client to client.
_FOLLOWED = frozenset({"application_name", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"})
# Limits: set with BEGIN, in the same round trip. Where there is no BEGIN, the driver keeps to statement_timeout.
_LIMITS = frozenset({"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"})


class _Timed(PreparedStatement):
    """A prepared statement that, outside of a transaction, is given up and stopped after `statement_timeout`."""

    __slots__ = ()
    _connection: PooledConnection

    async def fetch(self, *args: Any, timeout: float | None = None, **options: Any) -> Any:  # noqa: ASYNC109 - asyncpg's
        return await super().fetch(*args, timeout=timeout or self._connection.limit(), **options)


class PooledConnection(Tracked):
    """A connection whose transactions may each run on another server connection."""

    limits: ClassVar[dict[str, str]] = {}
    seconds: ClassVar[float | None] = None  # of a statement that has no transaction to carry its limit
    begin_with: str | None = None

    def limit(self) -> float | None:
        """Return what a statement has now, in seconds; None where the server or `command_timeout` sees to it."""
        return None if self.is_in_transaction() else self.seconds

    async def prepare(self, query: str, **options: Any) -> Any:
        statement = await super().prepare(query, **options)
        if type(statement) is PreparedStatement:
            statement.__class__ = _Timed
        return statement

    async def fetch(self, query: str, *args: object, timeout: float | None = None, **options: Any) -> Any:  # noqa: ASYNC109 - as above
        return await super().fetch(query, *args, timeout=timeout or self.limit(), **options)

    async def fetchmany(self, query: str, args: Any, *, timeout: float | None = None, **options: Any) -> Any:  # noqa: ASYNC109 - as above
        return await super().fetchmany(query, args, timeout=timeout or self.limit(), **options)

    def changes(self, found: tuple[Effect, ...], args: tuple[object, ...]) -> None:
        """Refuse a statement that would leave something behind: here there is nobody to clear it."""
        super().changes(found, args)
        left, self.left = self.left, None
        if left:
            raise _would_leak(next(iter(left)))

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        if query.startswith("BEGIN"):
            if self.begin_with is None:
                self.begin_with = self._limits()
            query += self.begin_with
        return await super().execute(query, *args, timeout=timeout)

    def _limits(self) -> str:
        known = [name for name in self.limits if name != "transaction_timeout" or self.get_server_version() >= (17,)]
        return "".join(f" SET LOCAL {name} = '{self.limits[name]}';" for name in known)


@dataclass(slots=True)
class Pooler:
    """Whether a pooler stands before the server: told by the user, or None until the first connection has shown it."""

    between: bool | None = None
    told: bool = False

    def found(self, how: str) -> None:
        """Take note of a pooler that nobody has told us about, and say once what to write."""
        if self.between:
            return
        self.between = True
        log.warning(
            "a pooler stands before the database (%s): it is treated as one in transaction mode. Write it down, and it"
            " need not be found out:   postgresql://…?pgbouncer=true   (or pgbouncer=false, if it keeps prepared"
            " statements and each client its session)",
            how,
        )

    def arguments(self, given: dict[str, Any], connection_class: type[asyncpg.Connection]) -> dict[str, Any]:
        """Return asyncpg's arguments for a connection through the pooler; raises ConfigurationError where none fit."""
        settings = {name.lower(): value for name, value in (given.get("server_settings") or {}).items()}
        others = settings.keys() - _FOLLOWED - _LIMITS
        if others:
            raise _cannot_keep(sorted(others))
        limits = {name: settings[name] for name in sorted(_LIMITS & settings.keys())}
        given.pop("prepared_statement_name_func", None)  # names of one's own are kept by the server as well
        return {
            **given,
            "statement_cache_size": 0,  # asyncpg then parses an unnamed statement with each use: none is left behind
            "server_settings": {name: value for name, value in settings.items() if name in _FOLLOWED},
            "connection_class": type(
                "Connection",
                (connection_class, PooledConnection),
                {"limits": limits, "seconds": _seconds(limits), "waits": False},  # limits go with BEGIN, as one text
            ),
        }


def _seconds(limits: dict[str, str]) -> float | None:
    """Return `statement_timeout` as the driver takes it; None where it is off, or in words of PostgreSQL's."""
    milliseconds = limits.get("statement_timeout", "")
    return int(milliseconds) / 1000 if milliseconds.isdecimal() and int(milliseconds) else None


async def stands_before(connection: asyncpg.Connection, *, seconds: float | None) -> bool:
    """Tell whether a new connection ends at a pooler: it then names another process than the one that answers.

    COPY goes over the simple protocol: a prepared statement would be left on a server connection that others use.
    """
    answer = bytearray()

    async def receive(data: bytes) -> None:
        answer.extend(data)

    try:
        await connection.copy_from_query("SELECT pg_backend_pid()", output=receive, timeout=seconds)
    except asyncpg.PostgresError:  # a server of another kind that does not know this; it speaks for itself
        return False
    return int(answer) != connection.get_server_pid()


def refused_setting(error: BaseException) -> bool:
    """Tell whether PgBouncer refused a startup parameter; PostgreSQL itself says it in other words."""
    return "unsupported startup parameter" in str(error)


def refuses_settings() -> ConfigurationError:
    """Return the error for a proxy that refuses startup parameters, and that was said to be no such pooler."""
    return ConfigurationError(
        "the proxy before the database refuses a setting that is sent when connecting.",
        why="PgBouncer takes only the startup parameters that it knows.",
        do=[
            "Let it pass them by:   ignore_startup_parameters = statement_timeout   (pgbouncer.ini)",
            "or send none:   Database(statement_timeout=None)   and set it for the role: ALTER ROLE app SET …",
        ],
        page=_PAGE,
    )


def _cannot_keep(names: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"a pooler in transaction mode cannot keep the setting{'s' if len(names) > 1 else ''} {', '.join(names)}.",
        why="The next transaction may run on a server connection that does not have it.",
        do=[
            f"Set it at the server:   ALTER ROLE app SET {names[0]} = …",
            "or, if the pooler gives each client a session of its own, say so:   ?pgbouncer=false",
        ],
        page=_PAGE,
    )


def _would_leak(what: str) -> SessionStateError:
    return SessionStateError(
        f"a statement would leave {what} in a server connection that other clients use next.",
        why="Behind a pooler in transaction mode a session ends with the transaction, and what it set stays.",
        do=[
            "Let it end with the transaction:   SET LOCAL …, set_config(…, true), pg_advisory_xact_lock(…),",
            "                                   CREATE TEMPORARY TABLE … ON COMMIT DROP",
            "or connect past the pooler for this work:   Database(direct_url)",
        ],
        page=_PAGE,
    )
