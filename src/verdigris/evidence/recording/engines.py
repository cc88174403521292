"""Engines, pools and statements: what SQLAlchemy's sync core does under every kind of session.

The driver call is recorded by overriding `do_execute` and its siblings on each engine's dialect instance, which are
public methods of `sqlalchemy.engine.Dialect`; a cursor event listener would cost three times as much.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import _get_running_loop
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.places import getcurrent
from verdigris.evidence.recording.units import Cell, Checkout, EngineState, Failure, InsertCell, Text, Unit

if TYPE_CHECKING:
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.places import Spot

KEY = "_verdigris_recording"  # in a dialect's __dict__, a connection's info, a session's __dict__
ORIGIN = "_verdigris_origin"  # execution option
_TEXTS = 20_000
_LATE_NS = 1_000_000_000
_MANY_ROWS = 100
_CHUNK = 50  # an IN list this long is a batch, not one of many single reads
_PEP_249 = frozenset(
    {
        "DataError", "DatabaseError", "Error", "IntegrityError", "InterfaceError", "InternalError", "NotSupportedError",
        "OperationalError", "ProgrammingError",
    }
)  # fmt: skip


class EngineWatch:
    """Records engines, their pools and every statement."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.states: dict[tuple[Any, ...], EngineState] = {}
        self._spent: dict[int, int] = {}  # by greenlet: what of a checkout's time went into connecting and pinging
        self.raw: dict[int, Checkout] = {}  # by driver connection
        self._timeout: type[BaseException] = TimeoutError

    def attach(self, sqlalchemy: ModuleType) -> None:
        """Start recording; the argument is the imported package."""
        from sqlalchemy import event, exc
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import Pool

        self._timeout = exc.TimeoutError
        patches = self.recorder.patches
        patches.method(Engine, "__init__", self._engine_init)
        patches.method(Engine, "dispose", self._engine_dispose)
        patches.method(Pool, "connect", self._pool_connect)
        for name, function in (("checkin", self._checkin), ("detach", self._detach), ("invalidate", self._invalidate)):
            event.listen(Pool, name, function)
            patches.later(lambda name=name, function=function: event.remove(Pool, name, function))

    def forget(self) -> None:
        """Keep the engines, drop their figures."""
        self.raw.clear()
        for state in self.states.values():
            state.clear()

    # Engines

    def _engine_init(self, original: Any) -> Any:
        created, recorder = self._created, self.recorder

        # create_engine() reads the parameters' names off this very function to know which options are the engine's.
        def __init__(  # noqa: N807, PLR0913 - what it stands in for
            self: Any,
            pool: Any,
            dialect: Any,
            url: Any,
            logging_name: Any = None,
            echo: Any = None,
            query_cache_size: int = 500,
            execution_options: Any = None,
            hide_parameters: bool = False,  # noqa: FBT001, FBT002 - as above
        ) -> None:
            original(self, pool, dialect, url, logging_name, echo, query_cache_size, execution_options, hide_parameters)
            try:
                created(self)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                recorder.trouble("an engine's construction", error)

        return __init__

    def _engine_dispose(self, original: Any) -> Any:
        def dispose(engine: Any, *args: Any, **kwargs: Any) -> Any:
            state = engine.dialect.__dict__.get(KEY)
            if state is not None:
                state.disposed += 1
            return original(engine, *args, **kwargs)

        return dispose

    def _created(self, engine: Any, *, late: bool = False) -> EngineState:
        from verdigris.evidence.recording.facts import engine_facts

        spot = None if late else self.recorder.places.here()
        facts = engine_facts(engine)
        key = (spot, *facts.values())
        state = self.states.get(key)
        if state is None:
            state = self.states[key] = EngineState(key, facts, spot)
        state.created += 1
        state.engines = [ref for ref in state.engines if ref() is not None]
        state.engines.append(weakref.ref(engine))
        unit = self.recorder.units.current.get()
        state.created_in_requests += unit is not None and unit.request is not None and not unit.request.ended
        self._instrument(engine.dialect, state)
        return state

    def _instrument(self, dialect: Any, state: EngineState) -> None:
        if KEY in dialect.__dict__:
            return
        dialect.__dict__[KEY] = state
        patches = self.recorder.patches
        patches.later(lambda: dialect.__dict__.pop(KEY, None))
        patches.method(dialect, "do_execute", lambda original: self._execute(state, original))
        patches.method(dialect, "do_executemany", lambda original: self._execute_many(state, original))
        patches.method(dialect, "do_execute_no_params", lambda original: self._execute_bare(state, original))
        patches.method(dialect, "do_begin", self._begin)
        patches.method(dialect, "do_commit", self._commit)
        patches.method(dialect, "do_rollback", self._rollback)
        patches.method(dialect, "do_rollback_to_savepoint", self._rollback_to_savepoint)
        patches.method(dialect, "connect", lambda original: self._connect(state, original))
        patches.method(dialect, "do_ping", lambda original: self._ping(state, original))
        patches.method(dialect, "initialize", lambda original: self._initialize(state, original))

    # Pools

    def _pool_connect(self, original: Any) -> Any:
        def connect(pool: Any) -> Any:
            me = id(getcurrent())
            self._spent.pop(me, None)
            start = perf_counter_ns()
            try:
                fairy = original(pool)
            except Exception as error:
                try:
                    self._not_connected(pool, error, perf_counter_ns() - start)
                except Exception as trouble:  # noqa: BLE001 - as above
                    self.recorder.trouble("a failed checkout", trouble)
                raise
            finally:
                spent = self._spent.pop(me, 0)
            try:
                self._checked_out(pool, fairy, max(0, perf_counter_ns() - start - spent))
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a checkout", error)
            return fairy

        return connect

    def _checked_out(self, pool: Any, fairy: Any, waited: int) -> None:
        recorder = self.recorder
        state: EngineState | None = pool._dialect.__dict__.get(KEY)  # noqa: SLF001 - a pool has no public way to its engine
        unit = recorder.units.unit()
        checkout = Checkout(state, unit, recorder.places.here())
        fairy.info[KEY] = checkout
        unit.holding += 1
        if checkout.request is not None:
            checkout.request.checkouts[id(checkout)] = checkout
        elif not unit.listed:
            recorder.units.list(unit)
        checkout.raw = id(fairy.driver_connection)
        self.raw[checkout.raw] = checkout
        loop = _get_running_loop()
        if fairy.info.setdefault("_verdigris_loop", id(loop)) != id(loop) and state is not None and state.facts["is_async"]:
            state.crossings[checkout.spot] = state.crossings.get(checkout.spot, 0) + 1
        if state is not None:
            with recorder.ledger.lock:
                state.waits.add(waited)
                state.in_use += 1
                state.high_water = max(state.high_water, state.in_use)
                state.requests_max = max(state.requests_max, recorder.active_requests)
            if recorder.tests is not None:
                recorder.tests.used(state.facts["url"])

    def _not_connected(self, pool: Any, error: Exception, waited: int) -> None:
        state: EngineState | None = pool._dialect.__dict__.get(KEY)  # noqa: SLF001 - as above
        if state is not None and isinstance(error, self._timeout):
            state.timeouts += 1
            state.waits.add(waited)
        self._failed(self.recorder.units.unit(), error, self.recorder.places.here())

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        try:
            checkout = record.info.pop(KEY, None)
            if checkout is not None:
                self._returned(checkout, collected=False)
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a checkin", error)

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        try:
            checkout = record.info.pop(KEY, None)
            if checkout is not None:
                self._returned(checkout, collected=record.fairy_ref is None)
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a detached connection", error)

    def _invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        checkout = record.info.get(KEY)
        if checkout is not None and checkout.engine is not None:
            checkout.engine.invalidated += 1

    def _returned(self, checkout: Checkout, *, collected: bool) -> None:
        recorder, state, request, unit = self.recorder, checkout.engine, checkout.request, checkout.unit
        now = perf_counter_ns()
        elapsed = now - checkout.since
        self.raw.pop(checkout.raw, None)
        if state is not None:
            with recorder.ledger.lock:
                state.in_use -= 1
                state.held.add(elapsed)
                state.statement_ns += checkout.statement_ns
                if elapsed > state.holder_ns:
                    state.holder_ns, state.holder = elapsed, checkout.spot
        unit.holding -= 1
        if request is not None:
            request.checkouts.pop(id(checkout), None)
            request.connection_ns += elapsed
            request.statement_ns += checkout.statement_ns
            if collected or (request.ended and now - request.ended > _LATE_NS):
                recorder.leaked(request, checkout)
        elif unit.holding <= 0 and unit.sessions <= 0:
            recorder.fold(unit)

    def _connect(self, state: EngineState, original: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                elapsed = perf_counter_ns() - start
                self._spend(elapsed)
                state.connects += 1
                state.longest_connect = max(state.longest_connect, elapsed)

        return connect

    def _ping(self, state: EngineState, original: Any) -> Any:
        def do_ping(dbapi_connection: Any) -> Any:
            start = perf_counter_ns()
            try:
                return original(dbapi_connection)
            finally:
                state.pings += 1
                self._spend(perf_counter_ns() - start)

        return do_ping

    def _initialize(self, state: EngineState, original: Any) -> Any:
        def initialize(connection: Any) -> Any:
            start = perf_counter_ns()
            state.muted += 1  # the dialect's own questions are not the application's
            try:
                return original(connection)
            finally:
                state.muted -= 1
                self._spend(perf_counter_ns() - start)

        return initialize

    def _spend(self, elapsed: int) -> None:
        me = id(getcurrent())
        self._spent[me] = self._spent.get(me, 0) + elapsed

    # Transactions

    def _begin(self, original: Any) -> Any:
        def do_begin(connection: Any) -> Any:
            checkout = _checkout(connection)
            if checkout is not None:
                checkout.begun, checkout.wrote, checkout.failure, checkout.pending = True, False, None, None
                if checkout.request is not None:
                    checkout.request.transactions += 1
            return original(connection)

        return do_begin

    def _commit(self, original: Any) -> Any:
        def do_commit(connection: Any) -> Any:
            checkout = _checkout(connection)
            try:
                result = original(connection)
            except Exception as error:
                try:
                    self._commit_failed(checkout, error)
                except Exception as trouble:  # noqa: BLE001 - as above
                    self.recorder.trouble("a failed commit", trouble)
                raise
            try:
                if checkout is not None:
                    self._committed(checkout)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a commit", error)
            return result

        return do_commit

    def _committed(self, checkout: Checkout) -> None:
        checkout.begun = False
        if checkout.failure is not None:
            checkout.failure.swallowed += 1
        elif checkout.unit.failures:
            for failure in checkout.unit.failures:
                failure.repeated = failure.repeated or int(not failure.swallowed)
        if checkout.request is not None and checkout.wrote:
            checkout.request.writing += 1
        if checkout.pending and self.recorder.tests is not None and checkout.failure is None:
            self.recorder.tests.committed(checkout.pending)
        checkout.pending = None
        checkout.failure = None

    def _commit_failed(self, checkout: Checkout | None, error: Exception) -> None:
        unit = self.recorder.units.unit()
        self._failed(unit, error, self.recorder.places.here())
        if checkout is not None:
            checkout.begun = False
            if checkout.answered and checkout.request is not None:
                checkout.request.lost += 1

    def _rollback(self, original: Any) -> Any:
        def do_rollback(connection: Any) -> Any:
            checkout = _checkout(connection)
            if checkout is not None:
                checkout.begun, checkout.failure, checkout.pending = False, None, None
            return original(connection)

        return do_rollback

    def _rollback_to_savepoint(self, original: Any) -> Any:
        def do_rollback_to_savepoint(connection: Any, name: str) -> Any:
            try:
                checkout = _checkout(connection.connection)
                if checkout is not None:
                    checkout.failure, checkout.pending = None, None
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a savepoint", error)
            return original(connection, name)

        return do_rollback_to_savepoint

    # Statements

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
            origin = None if context is None else context.execution_options.get(ORIGIN)
            unit = recorder.units.unit() if origin is None or origin.unit is None else origin.unit
            spot = recorder.spot(unit) if origin is None else origin.spot
            compiled = None if context is None else context.compiled
            sql = statement if compiled is None else compiled.string
            text = recorder.texts.get(sql)
            if text is None:
                text = self._text(sql, state)
            cell = unit.cells.get((text, spot))
            if cell is None:
                cell = unit.cells[text, spot] = Cell()
                if not unit.listed:
                    recorder.units.list(unit)
            rows = len(parameters) if many else cursor.rowcount
            if rows > 0:
                cell.rows += rows
                if rows > cell.rows_max:
                    cell.rows_max = rows
                if rows >= _MANY_ROWS and origin is not None and not origin.within and origin.text is None:
                    origin.text, origin.rows = text, rows
                    unit.origins.append(origin)
            if many:
                cell.batches += 1
                cell.batch_max = max(cell.batch_max, rows)
            elif (origin is None or not (origin.within or origin.lazy)) and (
                parameters is None or len(parameters) < _CHUNK
            ):
                cell.compare(parameters)
            cell.count += 1
            cell.total += elapsed
            if elapsed > cell.longest:
                cell.longest = elapsed
            state.statements += 1
            checkout = None if context is None else context.root_connection.connection.info.get(KEY)
            if checkout is not None:
                checkout.statement_ns += elapsed
            if text.writes or error is not None or not state.is_async:
                self._seldom(state, unit, text, spot, cell, checkout, rows, elapsed, many, error)
        except Exception as trouble:  # noqa: BLE001 - as above
            self.recorder.trouble("a statement", trouble)

    def _seldom(  # noqa: PLR0917 - as above
        self,
        state: EngineState,
        unit: Unit,
        text: Text,
        spot: Spot | None,
        cell: Cell,
        checkout: Checkout | None,
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
                failure = self._failed(unit, error, spot)
                if checkout is not None and checkout.begun:
                    checkout.failure = failure
            return
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

    def _count_rows(self, text: Text, checkout: Checkout, rows: int) -> None:
        from verdigris.evidence.recording import statements

        tables = statements.tables(statements.normalise(text.sql))
        change = {"INSERT": 1, "DELETE": -1}.get(text.kind, 0) * max(rows, 0)
        if text.kind in {"TRUNCATE", "DROP"}:
            self.recorder.tests.cleaned(" ".join(text.sql.split()[:2]).upper(), tables)  # type: ignore[union-attr]  # the caller looked
        elif tables:
            if checkout.pending is None:
                checkout.pending = {}
            checkout.pending[tables[0]] = checkout.pending.get(tables[0], 0) + change

    def _failed(self, unit: Unit, error: BaseException, spot: Spot | None) -> Failure:
        cause = error.__cause__
        codes = (getattr(error, "sqlstate", None), getattr(error, "pgcode", None), getattr(cause, "sqlstate", None))
        failure = Failure(_class_of(error), next((str(code) for code in codes if code), None), spot)
        unit.failures.append(failure)
        if not unit.listed:
            self.recorder.units.list(unit)
        return failure

    def _text(self, sql: str, state: EngineState) -> Text:
        from verdigris.evidence.recording import statements

        texts = self.recorder.texts
        if len(texts) >= _TEXTS:  # values written into the text: fold what differs only in them
            short = statements.normalise(sql)
            found = texts.get(short)
            if found is None:
                found = texts[short] = Text(sql, state)
            return found
        text = texts[sql] = Text(sql, state)
        return text


def _checkout(connection: Any) -> Checkout | None:
    try:
        found: Checkout | None = connection.info.get(KEY)
    except Exception:  # noqa: BLE001 - not every connection that a dialect is handed came out of a pool
        return None
    return found


def _class_of(error: BaseException) -> str:
    """Name the class of a driver's error as SQLAlchemy will: by the first name of PEP 249 among its ancestors."""
    for kind in type(error).__mro__:
        if kind.__name__ in _PEP_249:
            return "DBAPIError" if kind.__name__ == "Error" else kind.__name__
    return type(error).__name__


def task_is_done(unit: Unit) -> bool:
    """Tell whether the task of a unit has ended; a thread's never says."""
    task: asyncio.Task[Any] | None = unit.unfinished() if unit.unfinished is not None else None
    return task is None or task.done()
