"""Statements that a connection has prepared already, sent without the steps before that.

`asyncpg.Connection.fetch()` goes through five functions to the statement that it has kept, and takes a fifth of a
one-row read for that. Here the kept statement is asked for first. It is asyncpg's own, in asyncpg's own cache: how many
are kept and how long, when one is out of date and what is done then stay as they are there. Whatever is not plain goes
to `fetch()`: a text that is not prepared yet or must not be, query loggers, a `fetch()` that somebody has replaced.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
from asyncpg import connection as asyncpg_connection

from verdigris.engine.state import Tracked, effects

if TYPE_CHECKING:
    from collections.abc import Sequence

_asyncpg: Any = asyncpg.Connection
_NAMES = "fetch", "_execute", "fetchmany", "_executemany"
_STOCK = _FETCH, _EXECUTE, _FETCH_MANY, _EXECUTE_MANY = [getattr(_asyncpg, name) for name in _NAMES]
_OUT_OF_DATE = asyncpg.OutdatedSchemaCacheError, asyncpg.InvalidCachedStatementError


class Prepared(Tracked):
    """An asyncpg connection that sends what it has prepared at once."""

    direct: ClassVar[bool] = True  # False where a class above has a `fetch()` of its own

    async def fetch_prepared(self, query: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Do what `fetch(query, *arguments)` does; limit of time, errors and cancellation are the same."""
        own: Any = self
        if _asyncpg.fetch is _FETCH and _asyncpg._execute is _EXECUTE:  # who traces puts its own there, at any time
            statement = self._kept(query)
            if statement is not None:
                try:
                    sent = own._protocol.bind_execute(statement, arguments, "", 0, False, None)
                    rows: list[asyncpg.Record] = await self._behind(sent)
                except _OUT_OF_DATE as error:
                    await self._renew(error)
                else:
                    return rows
        return await self.fetch(query, *arguments)  # type: ignore[no-any-return]

    async def fetch_each_prepared(self, query: str, arguments: Sequence[Sequence[Any]]) -> list[asyncpg.Record]:
        """Do what `fetchmany(query, arguments)` does, likewise."""
        own: Any = self
        if _asyncpg.fetchmany is _FETCH_MANY and _asyncpg._executemany is _EXECUTE_MANY:
            statement = self._kept(query)
            if statement is not None:
                try:
                    sent = own._protocol.bind_execute_many(statement, arguments, "", None, True)
                    rows: list[asyncpg.Record] = await self._behind(sent)
                except _OUT_OF_DATE as error:
                    await self._renew(error)
                else:
                    return rows
        return await own.fetchmany(query, arguments)  # type: ignore[no-any-return]

    def _kept(self, query: str) -> Any:
        """Return what asyncpg has prepared of a text; None where it has not, or where there is more to do."""
        own: Any = self
        protocol = own._protocol
        if (
            protocol is None
            or not self.direct
            or own._query_loggers
            or own._stmt_exclusive_section._acquired
            or effects(query)
        ):
            return None
        return own._stmt_cache.get((query, protocol.get_record_class(), False))

    async def _renew(self, error: Exception) -> None:
        """Forget what is out of date, as asyncpg does; raises the error where the statement must not run again."""
        own: Any = self
        if isinstance(error, asyncpg.OutdatedSchemaCacheError):
            await self.reload_schema_state()
            raise error
        own._drop_global_statement_cache()
        if own._protocol.is_in_transaction():
            raise error


def is_plain(kind: type[asyncpg.Connection] | None) -> bool:
    """Tell whether a class fetches as asyncpg does, by code that this module knows."""
    own: Any = kind or asyncpg.Connection
    known = all(type(each) is FunctionType and each.__globals__ is vars(asyncpg_connection) for each in _STOCK)
    return known and [getattr(own, name) for name in _NAMES] == _STOCK
