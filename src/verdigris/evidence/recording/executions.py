"""Statements: every call of the driver, with its time, its rows and its place."""

from __future__ import annotations

from asyncio import _get_running_loop
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording import statements
from verdigris.evidence.recording.failures import failed
from verdigris.evidence.recording.keys import KEY, ORIGIN
from verdigris.evidence.recording.units import Cell, InsertCell, Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.units import Checkout, EngineState, Unit

_TEXTS = 20_000
_MANY_ROWS = 100
_CHUNK = 50  # an IN list this long is a batch, not one of many single reads


class ExecutionWatch:
    """Records statements."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def overrides(self, state: EngineState) -> dict[str, Callable[[Any], Any]]:
        """Return what goes onto an engine's dialect."""
        return {
            "do_execute": lambda original: self._execute(state, original),
            "do_executemany": lambda original: self._execute_many(state, original),
            "do_execute_no_params": lambda original: self._execute_bare(state, original),
        }

    def _execute(self, state: EngineState, original: Any) -> Any:
        executed = self._executed

        def do_execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, parameters, context)
            except BaseException as error:
                executed(state, cursor, statement, parameters, context, perf_counter_ns() - start, False, error)
                raise
            executed(state, cursor, statement, parameters, context, perf_counter_ns() - start, False, None)

        return do_execute

    def _execute_many(self, state: EngineState, original: Any) -> Any:
        executed = self._executed

        def do_executemany(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, parameters, context)
            except BaseException as error:
                executed(state, cursor, statement, parameters, context, perf_counter_ns() - start, True, error)
                raise
            executed(state, cursor, statement, parameters, context, perf_counter_ns() - start, True, None)

        return do_executemany

    def _execute_bare(self, state: EngineState, original: Any) -> Any:
        executed = self._executed

        def do_execute_no_params(cursor: Any, statement: Any, context: Any = None) -> None:
            start = perf_counter_ns()
            try:
                original(cursor, statement, context)
            except BaseException as error:
                executed(state, cursor, statement, None, context, perf_counter_ns() - start, False, error)
                raise
            executed(state, cursor, statement, None, context, perf_counter_ns() - start, False, None)

        return do_execute_no_params

    def _executed(  # noqa: PLR0917 - called once per statement: keywords cost time here
        self,
        state: EngineState,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        elapsed: int,
        many: bool,  # noqa: FBT001 - as above
        error: BaseException | None,
    ) -> None:
        try:
            if state.muted:
                return
            recorder = self.recorder
            origin = checkout = compiled = None
            if context is not None:
                origin = context.execution_options.get(ORIGIN)
                compiled = context.compiled
                checkout = context.root_connection.connection.info.get(KEY)
            unit = recorder.units.unit() if origin is None or origin.unit is None else origin.unit
            spot = recorder.spot(unit) if origin is None else origin.spot
            sql = statement if compiled is None else compiled.string
            text = recorder.texts.get(sql) or self._text(sql, state)
            cell = unit.cells.get((text, spot)) or self._cell(unit, text, spot)
            rows = len(parameters) if many else cursor.rowcount
            if many:
                cell.batch(rows)
            elif (origin is None or not origin.loads) and (parameters is None or len(parameters) < _CHUNK):
                cell.compare(parameters)
            cell.add(elapsed, rows)
            if rows >= _MANY_ROWS and origin is not None:
                origin.fetched(text, rows, unit)
            state.statements += 1
            if checkout is not None:
                checkout.statement_ns += elapsed
            if text.seldom or error is not None or not state.is_async:
                self._seldom(state, unit, text, spot, cell, checkout, cursor, rows, elapsed, many, error)
        except Exception as trouble:  # noqa: BLE001 - a recorder's error never reaches the application
            self.recorder.trouble("a statement", trouble)

    def _cell(self, unit: Unit, text: Text, spot: Spot | None) -> Cell:
        cell = unit.cells[text, spot] = Cell()
        if not unit.listed:
            self.recorder.units.list(unit)
        return cell

    def _seldom(  # noqa: PLR0917 - as above
        self,
        state: EngineState,
        unit: Unit,
        text: Text,
        spot: Spot | None,
        cell: Cell,
        checkout: Checkout | None,
        cursor: Any,
        rows: int,
        elapsed: int,
        many: bool,  # noqa: FBT001 - as above
        error: BaseException | None,
    ) -> None:
        if not state.is_async and _get_running_loop() is not None:
            state.on_loop[spot] = state.on_loop.get(spot, 0) + 1
        if error is not None:
            cell.errors += 1
            if isinstance(error, Exception):
                failure = failed(self.recorder, unit, error, spot)
                if checkout is not None and checkout.begun:
                    checkout.failure = failure
            return
        if text.kind == "EXPLAIN":
            self._explained(text, cursor)
        if not text.writes:
            return
        if checkout is not None:
            checkout.wrote = True
            if self.recorder.tests is not None:
                self._count_rows(text, checkout, rows)
        if text.kind == "INSERT" and rows > 0:
            inserts = unit.inserts.get((text.table, spot))
            if inserts is None:
                inserts = unit.inserts[text.table, spot] = InsertCell()
            inserts.statements += 1
            inserts.rows += rows
            inserts.rows_max = max(inserts.rows_max, rows)
            inserts.single += rows == 1 and not many
            inserts.nanoseconds += elapsed

    def _explained(self, text: Text, cursor: Any) -> None:
        """Keep the plan's first node; what a cursor has fetched already is its own affair, so often there is none."""
        fetched = getattr(cursor, "_rows", None)
        if fetched:
            self.recorder.plans[text] = statements.first_node(fetched[0][0])

    def _count_rows(self, text: Text, checkout: Checkout, rows: int) -> None:
        tables = statements.tables(statements.normalise(text.sql))
        change = {"INSERT": 1, "DELETE": -1}.get(text.kind, 0) * max(rows, 0)
        if text.kind in {"TRUNCATE", "DROP"}:
            self.recorder.tests.cleaned(" ".join(text.sql.split()[:2]).upper(), tables)  # type: ignore[union-attr]  # the caller looked
        elif tables:
            if checkout.pending is None:
                checkout.pending = {}
            checkout.pending[tables[0]] = checkout.pending.get(tables[0], 0) + change

    def _text(self, sql: str, state: EngineState) -> Text:
        texts = self.recorder.texts
        if len(texts) >= _TEXTS:  # values written into the text: fold what differs only in them
            short = statements.normalise(sql)
            found = texts.get(short)
            if found is None:
                found = texts[short] = Text(sql, state)
            return found
        text = texts[sql] = Text(sql, state)
        return text
