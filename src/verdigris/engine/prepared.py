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
_STOCK = _FETCH, _EXECUTE = _asyncpg.fetch, _asyncpg._execute


class Prepared(Tracked):
    """An asyncpg connection that sends what it has prepared at once."""

    direct: ClassVar[bool] = True  # False where a class above has a `fetch()` of its own

    async def fetch_prepared(self, query: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Do what `fetch(query, *arguments)` does; limit of time, errors and cancellation are the same."""
        own: Any = self
        protocol = own._protocol
        if (
            protocol is not None
            and self.direct
            and _asyncpg.fetch is _FETCH  # those who trace statements put their own in its place, at any time
            and _asyncpg._execute is _EXECUTE
            and not own._query_loggers
            and not own._stmt_exclusive_section._acquired
            and not effects(query)
        ):
            statement = own._stmt_cache.get((query, protocol.get_record_class(), False))
            if statement is not None:
                try:
                    sent = protocol.bind_execute(statement, arguments, "", 0, False, None)
                    rows: list[asyncpg.Record] = await self._behind(sent)
                except asyncpg.OutdatedSchemaCacheError:
                    await self.reload_schema_state()
                    raise
                except asyncpg.InvalidCachedStatementError:
                    own._drop_global_statement_cache()
                    if protocol.is_in_transaction():
                        raise
                else:
                    return rows
        return await self.fetch(query, *arguments)  # type: ignore[no-any-return]


def is_plain(kind: type[asyncpg.Connection] | None) -> bool:
    """Tell whether a class fetches as asyncpg does, by code that this module knows."""
    own: Any = kind or asyncpg.Connection
    known = all(type(each) is FunctionType and each.__globals__ is vars(asyncpg_connection) for each in _STOCK)
    return known and (own.fetch, own._execute) == _STOCK
