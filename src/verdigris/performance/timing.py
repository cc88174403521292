"""The one override: the driver call of one engine's dialect, timed."""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from verdigris.performance.queries import Queries

#: Set where our own statements run, which are not the application's.
MUTED: ContextVar[bool] = ContextVar("verdigris_muted", default=False)


def measure(dialect: Dialect, queries: Queries) -> None:
    """Wrap `do_execute`, `do_executemany` and `do_execute_no_params` on this instance of the dialect.

    They are where SQLAlchemy calls the driver, with the same signatures in 2.0 and 2.1; a test holds them to it.
    """
    execute, executemany, without = dialect.do_execute, dialect.do_executemany, dialect.do_execute_no_params

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if MUTED.get():
            execute(cursor, statement, parameters, context)
            return
        began = perf_counter()
        try:
            execute(cursor, statement, parameters, context)
        except BaseException:
            queries.observe(statement, parameters, perf_counter() - began, failed=True)
            raise
        queries.observe(statement, parameters, perf_counter() - began, failed=False)

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if MUTED.get():
            executemany(cursor, statement, parameters, context)
            return
        began = perf_counter()
        try:
            executemany(cursor, statement, parameters, context)
        except BaseException:
            queries.observe(statement, None, perf_counter() - began, failed=True)
            raise
        queries.observe(statement, None, perf_counter() - began, failed=False)

    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        if MUTED.get():
            without(cursor, statement, context)
            return
        began = perf_counter()
        try:
            without(cursor, statement, context)
        except BaseException:
            queries.observe(statement, (), perf_counter() - began, failed=True)
            raise
        queries.observe(statement, (), perf_counter() - began, failed=False)

    patched: Any = dialect
    patched.do_execute = do_execute
    patched.do_executemany = do_executemany
    patched.do_execute_no_params = do_execute_no_params
    if hasattr(dialect, "lane_executed"):  # a Database's: its lane calls the driver itself
        patched.lane_executed = _lane_measured(patched.lane_executed, queries)


def _lane_measured(unmeasured: Callable[..., None], queries: Queries) -> Callable[..., None]:
    def lane_executed(statement: str, arguments: Any, seconds: float, rows: int, error: BaseException | None) -> None:
        if not MUTED.get():
            queries.observe(statement, arguments, seconds, failed=error is not None)
        unmeasured(statement, arguments, seconds, rows, error)

    return lane_executed
