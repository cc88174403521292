"""The server's own limits on what a connection may do, sent when it connects."""

from __future__ import annotations

import logging
from math import ceil, isinf
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("verdigris")
_SINCE_17 = "transaction_timeout"


def server_limits(
    *, statement: float | None, transaction: float | None, idle_in_transaction: float | None
) -> dict[str, str]:
    """Return the settings that end what takes too long, from seconds.

    None leaves the server's own value; 0 and infinity are no limit.
    """
    limits = {
        "statement_timeout": statement,
        _SINCE_17: transaction,
        "idle_in_transaction_session_timeout": idle_in_transaction,
    }
    return {name: _milliseconds(seconds) for name, seconds in limits.items() if seconds is not None}


def _milliseconds(seconds: float) -> str:
    """Return a server's limit, which is in whole milliseconds of 32 bits, and none if it is 0."""
    return "0" if isinf(seconds) else str(min(ceil(seconds * 1000), 2**31 - 1))


def connector(
    given: Callable[..., Awaitable[asyncpg.Connection]] | None, unknown: set[str]
) -> Callable[..., Awaitable[asyncpg.Connection]]:
    """Return `given`, else `asyncpg.connect`, for servers before PostgreSQL 17 too.

    They refuse a setting that they do not know. The first connection finds it out and adds it to `unknown`, which each
    Database has; the others do without.
    """
    opens = given or asyncpg.connect

    async def connect(*args: Any, server_settings: dict[str, str], **options: Any) -> asyncpg.Connection:
        settings = {name: value for name, value in server_settings.items() if name not in unknown}
        try:
            return await opens(*args, server_settings=settings, **options)
        except asyncpg.UndefinedObjectError as error:
            if _SINCE_17 not in settings or _SINCE_17 not in str(error):
                raise
        if _SINCE_17 not in unknown:  # several may have connected at once
            log.info("the server knows no %s (PostgreSQL 17 does): a transaction has no limit as a whole", _SINCE_17)
        unknown.add(_SINCE_17)
        return await connect(*args, server_settings=settings, **options)

    return connect
