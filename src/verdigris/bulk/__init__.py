"""Section 6: many rows into one table, fast and in bounded memory, in the session's own transaction.

    from verdigris import bulk

    done = await bulk.insert(session, Product, rows)     # rows: mappings from any iterable or async iterable
    print(done)                                          # 200,000 rows in 1.4 s, 38 chunks by COPY

Like SQLAlchemy's own bulk insert it makes no objects: no `before_insert` event, no cascade, no `@validates`.
"""

from __future__ import annotations

import collections.abc
import inspect
import time
from typing import TYPE_CHECKING, Any

from verdigris.bulk.batches import Batch, Batches
from verdigris.bulk.columns import Columns
from verdigris.bulk.outcome import Chunk, Inserted, Position, position
from verdigris.bulk.tuning import MEMORY, Tuner
from verdigris.bulk.writing import Writer
from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Chunk", "Inserted", "Position", "insert", "position"]


async def insert(
    session: AsyncSession,
    entity: type | Table,
    rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
    *,
    chunk: int | None = None,
    memory: int = MEMORY,
    progress: Callable[[Inserted], object] | None = None,
) -> Inserted:
    """Insert `rows` into the table of `entity` and return what was done; nothing is committed.

    Rows are mappings by attribute name; for a `Table` that has no class, such as an association table, by column. They
    go in by binary COPY on the session's own connection; where COPY can't carry them (an SQL expression as value or
    default, a type with SQL of its own, a joined subclass) by batched INSERT. Python-side defaults are applied, None is
    NULL, columns left out get the server's default. Pending changes of the session are flushed first if it autoflushes.

    Each chunk is one statement. Its size is tuned while it runs, by the rows a second that the last sizes reached and
    so that about `memory` bytes of rows are held at once; `chunk` fixes it. `rows` is read between statements, so it
    may use the session itself. `progress` is called, and awaited if that returns an awaitable, after each chunk.

    Raises what SQLAlchemy raises for an INSERT (IntegrityError and so on); the message names the table and, where the
    server or the encoder knew it, the row: see `position(error)`. The transaction is then PostgreSQL's aborted one and
    the caller's to roll back. ConfigurationError for a key that is no column, before its chunk is sent, and for a
    `chunk` or `memory` below 1.
    """
    for name, value in (("chunk", chunk), ("memory", memory)):
        if value is not None and value < 1:
            raise ConfigurationError(
                f"bulk.insert({name}={value}) leaves no row to a chunk.",
                do=(f"Write {name}=1 or more, or leave it out: the size is then tuned while it runs.",),
                page="bulk/batch-tuned",
            )
    began = time.perf_counter()
    columns = Columns.of(entity, session)
    writer = Writer(session, columns)
    tuner = Tuner.fixed(chunk) if chunk is not None else Tuner(memory=memory)
    if session.sync_session.autoflush:
        await session.flush()
    chunks: list[Chunk] = []
    async for batch in _batches(rows, Batches(columns, tuner)):
        done = await writer.write(batch)
        tuner.learn(done.rows, done.seconds, batch.row_bytes)
        chunks.append(done)
        if progress is not None:
            answer = progress(Inserted.of(chunks, time.perf_counter() - began, writer.reason))
            if inspect.isawaitable(answer):
                await answer
    return Inserted.of(chunks, time.perf_counter() - began, writer.reason)


async def _batches(rows: Any, batches: Batches) -> AsyncIterator[Batch]:
    if isinstance(rows, collections.abc.AsyncIterable):
        async for row in rows:
            batch = batches.add(row)
            if batch is not None:
                yield batch
    else:
        for row in rows:
            batch = batches.add(row)
            if batch is not None:
                yield batch
    last = batches.rest()
    if last is not None:
        yield last
