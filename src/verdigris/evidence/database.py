"""The live database as evidence: its catalogue, read without leaving a trace and within a time limit.

One connection, one transaction: read-only, repeatable read, with timeouts of its own, rolled back at the end.
pg_stat_statements is left out of the catalogue where it is not installed or may not be read; the views of PostgreSQL's
own, which anyone may read unless somebody took that away, are needed.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from verdigris.evidence import queries
from verdigris.evidence.catalogue import Catalogue, Client, ForeignKey, Index, StatementFigures, Table
from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording import statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "Catalogue",
    "Client",
    "DatabaseUnreachableError",
    "ForeignKey",
    "Index",
    "StatementFigures",
    "Table",
    "inspect",
]

T = TypeVar("T")
TIMEOUT = 10.0
_SCHEMES = frozenset({"postgresql", "postgres"})
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_FORBIDDEN = "42501"  # insufficient_privilege
_NAME = "Name a database that is up:   VERDIGRIS_DATABASE_URL=postgresql://user:password@host/name"
_ALLOW = "Let this user read it, which shows no row of data:   GRANT SELECT ON pg_catalog.<the view> TO <the user>"
_LEAVE_OUT = "or leave it out:   verdigris check --evidence source"
# What asyncpg reads from a URL; drivers' and SQLAlchemy's other options would reach the server as unknown settings.
_OPTIONS = frozenset(
    {
        "host", "port", "user", "password", "dbname", "database", "passfile", "service", "servicefile", "sslmode",
        "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib",
    }
)  # fmt: skip


class DatabaseUnreachableError(EvidenceError):
    """The database that was named could not be asked; the URL is told without its password."""


def inspect(url: str, *, timeout: float = TIMEOUT) -> Catalogue:
    """Return the catalogue of a PostgreSQL database; nothing in it is changed or locked against others.

    `url` may name a SQLAlchemy driver; only asyncpg is used. `timeout` (seconds) bounds the connect and each query.
    Raise DatabaseUnreachableError when it cannot be reached or asked.
    """
    dsn, masked, secrets = _dsn(url)

    def ask() -> Catalogue:
        return asyncio.run(_inspect(dsn, timeout))

    try:
        if _loop_runs():
            with ThreadPoolExecutor(max_workers=1) as pool:
                return pool.submit(ask).result()
        return ask()
    except ImportError as error:
        raise DatabaseUnreachableError(
            f"{masked} was not asked: asyncpg is not installed here.",
            why="The database is read by asyncpg, whatever driver the application uses.",
            do=('pip install "verdigris[fastapi]"', _LEAVE_OUT),
        ) from error
    except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
        reason = _reason(error, timeout)
        for secret in secrets:
            reason = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", reason)
        raise DatabaseUnreachableError(
            f"{masked} could not be asked.",
            why=reason,
            do=(_ALLOW if getattr(error, "sqlstate", None) == _FORBIDDEN else _NAME, _LEAVE_OUT),
        ) from (None if secrets else error)  # drivers repeat the URL in some of their messages


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _dsn(url: str) -> tuple[str, str, tuple[str, ...]]:
    """Return what asyncpg is to be given, the same without the password for messages, and what to keep out of them."""
    try:
        parts = urlsplit(url)
        secrets = tuple(
            dict.fromkeys(filter(None, (parts.password, unquote(parts.password or ""), *_passwords(parts.query))))
        )
        masked = _masked(parts)
        port = parts.port
    except ValueError as error:
        raise _unreadable("it cannot be read as a URL") from error
    if parts.scheme.partition("+")[0] not in _SCHEMES:
        raise _unreadable(f"its scheme is {parts.scheme!r}, and only PostgreSQL has a catalogue that is read here")
    options = [
        ("sslmode" if name == "ssl" else name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    options = [
        (name, {"true": "require", "false": "disable"}.get(value.lower(), value) if name == "sslmode" else value)
        for name, value in options
    ]
    query = urlencode([(name, value) for name, value in options if name in _OPTIONS])
    del port  # reading it checks it
    return urlunsplit(("postgresql", parts.netloc, parts.path, query, "")), masked, secrets


def _unreadable(why: str) -> DatabaseUnreachableError:
    return DatabaseUnreachableError(
        "The database URL was not understood.",
        why=f"{why[0].upper()}{why[1:]}.",
        do=("VERDIGRIS_DATABASE_URL=postgresql://user:password@host:5432/name",),
    )


def _passwords(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if "pass" in name.lower()]


def _masked(parts: Any) -> str:
    user = f"{parts.username}{':***' if parts.password else ''}@" if parts.username else ""
    host = parts.netloc.rpartition("@")[2]
    query = urlencode(
        [(name, "***" if "pass" in name.lower() else value) for name, value in parse_qsl(parts.query)],
        quote_via=quote,
        safe="/*",
    )
    return str(urlunsplit(("postgresql", f"{user}{host}", parts.path, query, "")))


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"It did not answer within {timeout:g} s."
    if isinstance(error, socket.gaierror):
        return "Its host name is not known."
    if isinstance(error, ConnectionRefusedError):
        return "It refused the connection: nothing listens there."
    if isinstance(error, FileNotFoundError):
        return "Its socket is not there: nothing listens at that path."
    code = getattr(error, "sqlstate", None)
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{type(error).__name__}{f' ({code})' if code else ''}: {text}"


async def _inspect(dsn: str, timeout: float) -> Catalogue:  # noqa: ASYNC109 - it bounds the connect and each query apart
    import asyncpg

    connection = await asyncpg.connect(
        dsn,
        timeout=timeout,
        command_timeout=timeout,
        statement_cache_size=0,  # a transaction pooler in between knows no prepared statements
        server_settings={"application_name": "verdigris check"},
    )
    try:
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        try:
            milliseconds = max(1, int(timeout * 1000))
            await connection.execute(
                f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"
            )
            return await _read(connection)
        finally:
            await transaction.rollback()
    finally:
        try:
            await connection.close(timeout=1)
        except Exception:  # noqa: BLE001 - as above
            connection.terminate()


async def _read(connection: Any) -> Catalogue:
    server = await connection.fetchrow(queries.SERVER)
    settings = {row["name"]: row for row in await connection.fetch(queries.SETTINGS)}
    indexes = tuple(_index(row) for row in await connection.fetch(queries.INDEXES))
    on_table: defaultdict[tuple[str, str], list[Index]] = defaultdict(list)  # for databases of thousands of tables
    for index in indexes:
        on_table[index.schema, index.table].append(index)
    figures = await _optional(connection, lambda: connection.fetch(queries.STATEMENTS))
    logged = float(settings["log_min_duration_statement"]["setting"])
    return Catalogue(
        version=server["version"],
        version_number=server["version_number"],
        database=server["database"],
        user=server["user"],
        max_connections=_number(settings, "max_connections"),
        superuser_reserved_connections=_number(settings, "superuser_reserved_connections"),
        reserved_connections=_number(settings, "reserved_connections"),
        role_limit=server["role_limit"],
        database_limit=server["database_limit"],
        in_recovery=server["in_recovery"],
        clients=tuple(Client(**row) for row in await connection.fetch(queries.CLIENTS)),
        idle_session_timeout=_seconds(settings, "idle_session_timeout"),
        idle_in_transaction_session_timeout=_seconds(settings, "idle_in_transaction_session_timeout"),
        statement_timeout=_seconds(settings, "statement_timeout"),
        lock_timeout=_seconds(settings, "lock_timeout"),
        transaction_timeout=_seconds(settings, "transaction_timeout"),
        log_min_duration_statement=None if logged < 0 else logged / 1000,
        statistics_since=server["statistics_since"],
        tables=tuple(_table(row) for row in await connection.fetch(queries.TABLES)),
        indexes=indexes,
        foreign_keys=tuple(_foreign_key(row, on_table) for row in await connection.fetch(queries.FOREIGN_KEYS)),
        statements=tuple(_statement(row) for row in figures or ()),
        statements_known=figures is not None,
    )


async def _optional(connection: Any, ask: Callable[[], Awaitable[T]]) -> T | None:
    """Ask what may not be there or not be allowed, in a savepoint so that the rest goes on."""
    import asyncpg

    try:
        async with connection.transaction():
            return await ask()
    except asyncpg.PostgresError:
        return None


def _number(settings: dict[str, Any], name: str) -> int:
    return int(settings[name]["setting"]) if name in settings else 0


def _seconds(settings: dict[str, Any], name: str) -> float:
    """Return a timeout as the database, user and configuration set it: `SET LOCAL` above changed only `setting`."""
    return float(settings[name]["reset_val"] or 0) / 1000 if name in settings else 0.0


def _table(row: Any) -> Table:
    values = dict(row)
    values["columns"] = tuple(values["columns"])
    return Table(**values)


def _index(row: Any) -> Index:
    values = dict(row)
    values["columns"] = tuple(values["columns"])
    return Index(**values)


def _foreign_key(row: Any, on_table: dict[tuple[str, str], list[Index]]) -> ForeignKey:
    columns = tuple(row["columns"])
    serving = (index.name for index in on_table[row["schema"], row["table"]] if index.serves(columns))
    return ForeignKey(
        schema=row["schema"],
        table=row["table"],
        name=row["name"],
        columns=columns,
        target=row["target"],
        target_columns=tuple(row["target_columns"]),
        index=next(serving, None),
        on_delete=_ACTIONS.get(row["on_delete"], "NO ACTION"),
    )


def _statement(row: Any) -> StatementFigures:
    text = statements.normalise(row["query"])
    return StatementFigures(
        fingerprint=statements.fingerprint(text),
        text=text,
        calls=row["calls"],
        total_ms=row["total"],
        mean_ms=row["mean"],
        max_ms=row["max"],
        rows=row["rows"],
    )
