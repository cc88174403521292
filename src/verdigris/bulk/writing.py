"""A batch on its way to the server: by COPY where that can carry it, by INSERT otherwise."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import Table, insert
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.util import await_only

from verdigris.bulk.columns import Columns, Copied
from verdigris.bulk.outcome import Chunk, Position, mark
from verdigris.performance import measured
from verdigris.performance.timing import MUTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from verdigris.bulk.batches import Batch

log = logging.getLogger("verdigris.bulk")

_PARAMETERS = 32_767  # what one statement of the extended protocol can carry
_ROW_SECURITY = "SELECT row_security_active(to_regclass($1))"
# Of "COPY products, line 3, column price", in which the word is translated.
_LINE = re.compile(r"^COPY .*?, \w+ (\d+)", re.MULTILINE)


class Writer:
    """Writes batches for one entity on a session's connection."""

    def __init__(self, session: AsyncSession, columns: Columns) -> None:
        self._session = session
        self._columns = columns
        self._statement = f"COPY {columns.table} FROM STDIN"
        self._asked = False
        self._refused: str | None = None  # why nothing goes by COPY
        #: Why a batch did not go by COPY; None as long as all did.
        self.reason: str | None = None

    async def write(self, batch: Batch) -> Chunk:
        """Write one batch and say what it took."""
        copied = self._refused or ("a value is SQL" if batch.has_expressions else self._columns.copied(batch.keys))
        if isinstance(copied, Copied) and not self._asked:
            self._asked = True
            self._refused = await self._session.run_sync(self._refusal)
            copied = self._refused or copied
        began = time.perf_counter()
        if isinstance(copied, Copied):
            await self._session.run_sync(self._copy, batch, copied)
            return Chunk(len(batch.rows), time.perf_counter() - began, "copy")
        if self.reason is None:
            self.reason = copied
            log.info("bulk.insert into %s goes by INSERT: %s", self._columns.table, copied)
        await self._insert(batch)
        return Chunk(len(batch.rows), time.perf_counter() - began, "insert")

    def _refusal(self, session: Session) -> str | None:
        """Ask, before the first COPY, whether the server would refuse it: an error would end the transaction."""
        connection = session.connection(bind_arguments=self._columns.bind_arguments)
        table = self._columns.target
        assert isinstance(table, Table)  # noqa: S101 - as in _copy
        quote, schema = connection.dialect.identifier_preparer.quote, _schema(connection, table)
        name = quote(table.name) if schema is None else f"{quote(schema)}.{quote(table.name)}"
        muted = MUTED.set(True)
        try:
            active = connection.exec_driver_sql(_ROW_SECURITY, (name,)).scalar()
        finally:
            MUTED.reset(muted)
        return f"row-level security of {self._columns.table} holds for this role" if active else None

    # -- COPY ----------------------------------------------------------------------------------------------------------

    def _copy(self, session: Session, batch: Batch, copied: Copied) -> None:
        """Run COPY inside the session's transaction, on the thread of control that its other statements have."""
        table = self._columns.target
        assert isinstance(table, Table)  # noqa: S101 - Columns gives a reason instead of a Copied for anything else
        connection = session.connection(bind_arguments=self._columns.bind_arguments)
        pooled: Any = connection.connection
        driver = pooled.driver_connection
        if not driver.is_in_transaction():  # where the source of the rows has committed
            connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins with its first statement, which COPY is not
        rows = _Encoded(batch, copied)
        began, failed = time.perf_counter(), True
        try:
            await_only(
                driver.copy_records_to_table(
                    table.name, records=rows, columns=copied.columns, schema_name=_schema(connection, table)
                )
            )
            failed = False
        except Exception as error:  # noqa: BLE001 - raised again, as what an INSERT would have raised
            self._failed(error, connection, batch, rows)
        finally:  # COPY passes by the dialect, where other statements are measured
            queries = measured(connection.dialect)
            if queries is not None:
                queries.observe(self._statement, None, time.perf_counter() - began, failed=failed)

    def _failed(self, error: Exception, connection: Connection, batch: Batch, rows: _Encoded) -> NoReturn:
        """Raise the error that an INSERT would have raised, with the place."""
        where = self._position(batch, _line_of(error, rows))
        pooled: Any = connection.connection
        dialect = connection.dialect
        raised = _translated(error, pooled.dbapi_connection)
        if isinstance(raised, dialect.loaded_dbapi.Error):
            raised = DBAPIError.instance(
                self._statement,
                None,
                raised,
                dialect.loaded_dbapi.Error,
                hide_parameters=True,
                connection_invalidated=pooled.driver_connection.is_closed(),
                dialect=dialect,
            )
        elif isinstance(raised, TypeError | ValueError | OverflowError):
            raised = StatementError(
                f"{type(raised).__name__}: {raised}", self._statement, None, raised, hide_parameters=True
            )
        mark(raised, where)
        if isinstance(raised, StatementError):
            raised.add_detail(str(where))
        raise raised from error

    # -- INSERT --------------------------------------------------------------------------------------------------------

    async def _insert(self, batch: Batch) -> None:
        rows = [dict(zip(batch.keys, row, strict=True)) for row in batch.rows]
        entity = self._columns.entity
        try:
            if not batch.has_expressions:
                await self._session.execute(insert(entity), rows, execution_options={"render_nulls": True})
                return
            step = max(1, _PARAMETERS // max(1, len(self._columns.by_key)))
            rows = [self._columns.filled(batch.keys, row) for row in rows]
            for start in range(0, len(rows), step):
                await self._session.execute(insert(entity).values(rows[start : start + step]))
        except StatementError as error:
            where = self._position(batch, None)
            mark(error, where)
            error.add_detail(str(where))
            raise

    def _position(self, batch: Batch, line: int | None) -> Position:
        row = None if line is None else batch.first + line
        return Position(self._columns.table, batch.first, batch.first + len(batch.rows) - 1, row)


def _translated(error: Exception, adapter: Any) -> Exception:
    """Return the driver's error as SQLAlchemy's dialect raises it for any statement."""
    try:
        adapter._handle_exception(error)  # noqa: SLF001 - no public name for the dialect's own translation
    except Exception as translated:  # noqa: BLE001 - whatever it is, it is the translation
        return translated
    return error


class _Encoded:
    """The rows of a batch as COPY takes them, and how many of them have been asked for."""

    def __init__(self, batch: Batch, copied: Copied) -> None:
        self._batch = batch
        self._copied = copied
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        processes, defaults, keys = self._copied.processes, self._copied.defaults, self._batch.keys
        for given in self._batch.rows:
            self.taken += 1
            if not processes and not defaults:
                yield given
                continue
            row = list(given)
            for index, process, even_none in processes:
                if row[index] is not None or even_none:
                    row[index] = process(row[index])
            if defaults:
                values = dict(zip(keys, given, strict=True))
                row.extend(default(values) for default in defaults)
            yield row


def _line_of(error: Exception, rows: _Encoded) -> int | None:
    """Return which row of the chunk was at fault, from 0: the server says so, or it was the one being encoded."""
    context = getattr(error, "context", None)
    if isinstance(context, str):
        found = _LINE.search(context)
        return int(found[1]) - 1 if found else None
    return rows.taken - 1 if not hasattr(error, "sqlstate") and rows.taken else None


def _schema(connection: Connection, table: Table) -> str | None:
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    schema = translated.get(table.schema, table.schema)
    return str(schema) if schema else None
