"""Statements: every call of the driver, with its time, its rows and its place."""

from __future__ import annotations

from asyncio import _get_running_loop
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

from verdigris.evidence.recording import statements
from verdigris.evidence.recording.failures import failed
from verdigris.evidence.recording.keys import KEY, ORIGIN
from verdigris.evidence.recording.places import whose
from verdigris.evidence.recording.units import Cell, InsertCell, Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.suites import TestRun
    from verdigris.evidence.recording.units import Checkout, EngineState, Unit

_TEXTS = 20_000
_KEPT = 50_000_000  # characters of them
_MANY_ROWS = 100
_CHUNK = 50  # an IN list this long is a batch, not one of many single reads


class Call:
    """What was not plain about a call of the driver: that it failed, or that it was an executemany of so many rows."""

    __slots__ = ("batch", "error")

    def __init__(self, error: BaseException | None = None, batch: int | None = None) -> None:
        self.error = error
        self.batch = batch


_PLAIN = Call()


class LaneRead:
    """A read of `Database.lane`, which has no cursor and no context of SQLAlchemy's: what is asked of both."""

    __slots__ = ("rowcount",)

    compiled = None
    root_connection = None
    execution_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, rowcount: int) -> None:
        self.rowcount = rowcount


class ExecutionWatch:
    """Records statements."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._kept = 0

    def overrides(self, state: EngineState) -> dict[str, Callable[[Any], Any]]:
        """Return what goes onto an engine's dialect."""
        return {
            "do_execute": lambda original: self._execute(state, original),
            "do_executemany": lambda original: self._execute_many(state, original),
            "do_execute_no_params": lambda original: self._execute_bare(state, original),
            "lane_executed": lambda original: self._lane(state, original),
        }

    def _execute(self, state: EngineState, original: Any) -> Any:
        executed = self._recording(state)

        def do_execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, parameters, context)
            except BaseException as error:
                executed(cursor, statement, parameters, context, perf_counter_ns() - start, Call(error))
                raise
            executed(cursor, statement, parameters, context, perf_counter_ns() - start)

        return do_execute

    def _execute_many(self, state: EngineState, original: Any) -> Any:
        executed = self._recording(state)

        def do_executemany(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, parameters, context)
            except BaseException as error:
                executed(cursor, statement, None, context, perf_counter_ns() - start, Call(error, len(parameters)))
                raise
            executed(cursor, statement, None, context, perf_counter_ns() - start, Call(None, len(parameters)))

        return do_executemany

    def _execute_bare(self, state: EngineState, original: Any) -> Any:
        executed = self._recording(state)

        def do_execute_no_params(cursor: Any, statement: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, context)
            except BaseException as error:
                executed(cursor, statement, None, context, perf_counter_ns() - start, Call(error))
                raise
            executed(cursor, statement, None, context, perf_counter_ns() - start)

        return do_execute_no_params

    def _lane(self, state: EngineState, original: Any) -> Any:
        executed = self._recording(state)

        def lane_executed(
            statement: str, arguments: Any, seconds: float, rows: int, error: BaseException | None
        ) -> None:
            read = LaneRead(rows)
            executed(read, statement, arguments, read, int(seconds * 1e9), None if error is None else Call(error))
            original(statement, arguments, seconds, rows, error)

        return lane_executed

    def _recording(self, state: EngineState) -> Callable[..., None]:
        """Return what counts one call of the driver: written for speed, it runs once per statement."""
        recorder = self.recorder
        get_unit, new_cell, seldom = recorder.units.unit, self._cell, self._seldom

        def executed(  # noqa: PLR0917 - keywords cost time here
            cursor: Any, statement: str, parameters: Any, context: Any, elapsed: int, call: Call | None = None
        ) -> None:
            if state.muted and whose() in state.muted:
                return
            try:
                unit = get_unit()
                origin = context.execution_options.get(ORIGIN)
                compiled = context.compiled
                sql = statement if compiled is None else compiled.string
                spot = recorder.spot(unit) if origin is None else origin.spot
                cell = unit.cells.get((sql, spot))
                if cell is None:
                    cell = new_cell(unit, sql, spot, state)
                cell.count += 1
                cell.total += elapsed
                if elapsed > cell.longest:  # noqa: PLR1730 - max() costs a call, once per statement
                    cell.longest = elapsed
                state.statements += 1
                state.statement_ns += elapsed
                if unit.request is not None:
                    unit.request.statement_ns += elapsed
                rows = cursor.rowcount
                if rows > 0:
                    cell.rows += rows
                    if rows > cell.rows_max:  # noqa: PLR1730 - as above
                        cell.rows_max = rows
                    if rows >= _MANY_ROWS and origin is not None:
                        origin.fetched(cell.text, rows, unit)
                if cell.compares and (origin is None or not origin.loads) and len(parameters or ()) < _CHUNK:
                    cell.compare(parameters)
                if call is not None or cell.text.seldom or not state.is_async:
                    seldom(unit, cell, spot, state, cursor, context, elapsed, call or _PLAIN)
            except Exception as trouble:  # noqa: BLE001 - a recorder's error never reaches the application
                recorder.trouble("a statement", trouble)

        return executed

    def _cell(self, unit: Unit, sql: str, spot: Spot | None, state: EngineState) -> Cell:
        text = self.recorder.texts.get(sql) or self._text(sql, state)
        cell = unit.cells.get((text.sql, spot))  # one is there if the text was folded
        if cell is None:
            cell = unit.cells[text.sql, spot] = Cell(text)
        if not unit.listed:
            self.recorder.units.list(unit)
        return cell

    def _seldom(  # noqa: PLR0917 - as above
        self,
        unit: Unit,
        cell: Cell,
        spot: Spot | None,
        state: EngineState,
        cursor: Any,
        context: Any,
        elapsed: int,
        call: Call,
    ) -> None:
        text = cell.text
        if not state.is_async and _get_running_loop() is not None:
            state.on_loop[spot] = state.on_loop.get(spot, 0) + 1
        root = context.root_connection
        checkout: Checkout | None = None if root is None else root.connection.info.get(KEY)
        if call.error is not None:
            cell.errors += 1
            if isinstance(call.error, Exception):
                failure = failed(self.recorder, unit, call.error, spot)
                if checkout is not None and checkout.begun:
                    checkout.failure = failure
            return
        rows = max(cursor.rowcount, 0)
        if call.batch is not None:
            cell.batches += 1
            cell.batch_max = max(cell.batch_max, call.batch)
            cell.rows += call.batch - rows
            cell.rows_max = max(cell.rows_max, call.batch)
            rows = call.batch
        if text.kind == "EXPLAIN":
            self._explained(text, cursor)
        if not text.writes:
            return
        if checkout is not None:
            checkout.wrote = True
            if self.recorder.tests is not None:
                self._count_rows(self.recorder.tests, text, checkout, rows)
        if text.kind == "INSERT" and rows:
            inserts = unit.inserts.get((text.table, spot))
            if inserts is None:
                inserts = unit.inserts[text.table, spot] = InsertCell()
            inserts.statements += 1
            inserts.rows += rows
            inserts.rows_max = max(inserts.rows_max, rows)
            inserts.single += rows == 1 and call.batch is None
            inserts.nanoseconds += elapsed

    def _explained(self, text: Text, cursor: Any) -> None:
        """Keep the plan's first node; what a cursor has fetched already is its own affair, so often there is none."""
        fetched = getattr(cursor, "_rows", None)
        if fetched:
            self.recorder.plans[text] = statements.first_node(fetched[0][0])

    def _count_rows(self, tests: TestRun, text: Text, checkout: Checkout, rows: int) -> None:
        tables = statements.tables(statements.normalise(text.sql))
        change = {"INSERT": 1, "DELETE": -1}.get(text.kind, 0) * max(rows, 0)
        gone = statements.database_gone(text.sql)
        if gone is not None:
            tests.gone(gone)
        if text.kind in {"TRUNCATE", "DROP"}:
            url = checkout.engine.facts["url"] if checkout.engine is not None else ""
            tests.cleaned(" ".join(text.sql.split()[:2]).upper(), url, tables)
        elif tables:
            if checkout.pending is None:
                checkout.pending = {}
            checkout.pending[tables[0]] = checkout.pending.get(tables[0], 0) + change

    def _text(self, sql: str, state: EngineState) -> Text:
        texts = self.recorder.texts
        if len(texts) < _TEXTS and self._kept < _KEPT:
            self._kept += len(sql)
            text = texts[sql] = Text(sql, state)
            return text
        short = statements.normalise(sql)  # values written into the text: fold what differs only in them
        if short not in texts and len(texts) >= 2 * _TEXTS:  # and names, too
            short = f"{statements.kind(sql)} …"
        found = texts.get(short)
        if found is None:
            found = texts[short] = Text(short, state)
        return found
