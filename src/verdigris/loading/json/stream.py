"""A list too long for memory, row by row from a cursor of the server."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, select
from starlette.responses import StreamingResponse

from verdigris.loading.json import loaded
from verdigris.loading.json.rows import Columns
from verdigris.loading.json.statement import criteria_of, written

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.ext.asyncio import AsyncSession
    from starlette.types import Send

    from verdigris.loading.json.planner import Options
    from verdigris.loading.json.read import Found, Reads

_REFUSED = 1
#: How many rows are sent first, and then as many as make this many bytes, by those before them. (SQLAlchemy's cursor
#: fetches fifty at least.)
_FIRST, _PART = 8, 262_144


class StreamedAnswer(StreamingResponse):
    """A streamed response whose first part is made before its status is sent: an error at the start is an answer."""

    def __init__(self, parts: AsyncGenerator[bytes]) -> None:
        super().__init__(parts, media_type="application/json")
        self._parts = parts

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._parts) as parts:
            first = await anext(parts, b"")
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def listed(reads: Reads, statement: Any, type_: Any, options: Options) -> AsyncGenerator[bytes]:
    """Yield the parts of a JSON list; one connection and one transaction are held to its end."""
    async with reads.database.session() as session:  # a cursor needs a transaction
        heard = await reads.heard(statement, session)
        found, _ = reads.find(heard, type_, options)
        if found.compiled is None or isinstance(found.entity, Columns):  # which has no key to read a row again by
            parts = loaded.lines(session, statement, found, options)
        else:
            parts = _rows(session, heard, found, options)
        before = b"["
        async with aclosing(parts) as each:
            async for part in each:
                yield before + part
                before = b","
        yield b"[]" if before == b"[" else b"]"


async def _rows(session: AsyncSession, statement: Any, found: Found, options: Options) -> AsyncGenerator[bytes]:
    connection = await session.connection()
    result = await connection.stream(written(statement, found.answer, "rows"))
    size = _FIRST
    while rows := await result.fetchmany(size):
        part = b",".join([row[0] for row in rows])
        size = max(1, min(loaded.CHUNK, _PART * len(rows) // (len(part) + 1)))
        if _REFUSED in part:
            part = b",".join([await _row(session, statement, found, row, options) for row in rows])
        yield part


async def _row(session: AsyncSession, streamed: Any, found: Found, row: Any, options: Options) -> bytes:
    """Return a row's text; by way of `load()` if it holds what SQL does not write."""
    text: bytes = row[0]
    if _REFUSED not in text:
        return text
    mapper = inspect(found.entity).mapper
    keys = zip(mapper.primary_key, tuple(row)[1:], strict=True)
    statement = select(mapper.class_).where(*(column == value for column, value in keys))
    statement = statement.options(*criteria_of(streamed))  # who may not see a row may not see it here either
    value = await loaded.objects(session, statement, {}, found)
    return loaded.dumped(value, found.type_, options)[1:-1]
