"""The one override: the driver call of one engine's dialect, timed."""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any

from verdigris.performance.pool import when_disposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from verdigris.performance.queries import Queries

#: Set where our own statements run, which are not the application's.
MUTED: ContextVar[bool] = ContextVar("verdigris_muted", default=False)


def measure(engine: Engine, queries: Queries) -> None:
    """Wrap `do_execute`, `do_executemany` and `do_execute_no_params` on this instance of the engine's dialect.

    They are where SQLAlchemy calls the driver, with the same signatures in 2.0 and 2.1; a test holds them to it.
    """
    dialect: Any = engine.dialect
    execute, executemany, without = dialect.do_execute, dialect.do_executemany, dialect.do_execute_no_params

    def timed(send: Callable[..., None], parameters: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if MUTED.get():
            send(cursor, statement, *rest)
            return
        began, failed = perf_counter(), True
        try:
            send(cursor, statement, *rest)
            failed = False
        finally:
            queries.observe(statement, parameters, perf_counter() - began, failed=failed, engine=engine)

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        timed(execute, parameters, cursor, statement, parameters, context)

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        timed(executemany, None, cursor, statement, parameters, context)

    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        timed(without, (), cursor, statement, context)

    dialect.do_execute = do_execute
    dialect.do_executemany = do_executemany
    dialect.do_execute_no_params = do_execute_no_params
    if hasattr(dialect, "lane_executed"):  # a Database's: its lane calls the driver itself
        dialect.lane_executed = _lane_measured(dialect.lane_executed, engine, queries)
    if queries.explainer is not None:
        when_disposed(engine, queries.explainer.give_up)


def _lane_measured(unmeasured: Callable[..., None], engine: Engine, queries: Queries) -> Callable[..., None]:
    def lane_executed(statement: str, arguments: Any, seconds: float, rows: int, error: BaseException | None) -> None:
        if not MUTED.get():
            queries.observe(statement, arguments, seconds, failed=error is not None, engine=engine)
        unmeasured(statement, arguments, seconds, rows, error)

    return lane_executed
