"""Section 10: every query's time with its place and route, slow ones explained, the pool's figures exported.

queries = instrument(engine)              # Database does this for its own engine
for query in queries.slowest(5):
    print(query)
queries.pool_status()                     # size, in use, idle, overflow, waiting, wait times
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from verdigris.performance.explain import Explained, Explainer
from verdigris.performance.pool import Gauges, PoolStatus
from verdigris.performance.queries import SLOW, Queries, Query, Site
from verdigris.performance.timing import measure

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect

__all__ = ["Explained", "PoolStatus", "Queries", "Query", "Site", "instrument", "measured"]

_MARK = "_verdigris_queries"


def measured(dialect: Dialect) -> Queries | None:
    """Return where the figures of a dialect's engine are; None where it is not measured."""
    return dialect.__dict__.get(_MARK)


def instrument(
    engine: AsyncEngine | Engine,
    *,
    slow_query: float = SLOW,
    explain_slow: bool | Literal["analyze"] = True,
    time_queries: bool = True,
    pool_metrics: bool = True,
) -> Queries:
    """Measure an engine from now on, and return where the figures are; a second call returns the same.

    Each statement is timed as the driver gives it: sent, executed and fetched, waiting for a connection not included.
    One that takes `slow_query` seconds or more is logged, its values never. A slow read is then explained, apart from
    the request: on a connection of its own, in a read-only transaction that is rolled back and limited in time. Plain
    EXPLAIN does not run the statement; `explain_slow="analyze"` allows EXPLAIN ANALYZE, which does. Writes are never
    analysed.

    The dialect of this engine is what is wrapped, `do_execute` and its two siblings: a listener would cost three times
    as much. Copies made by `execution_options()` share the dialect and are measured with it.
    """
    sync: Engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    known = measured(sync.dialect)
    if known is not None:
        if known.gauges is not None:
            known.gauges.follow()  # from_engine() has given the engine another pool
        return known
    queries = Queries(slow_query=slow_query)
    if pool_metrics:
        queries.gauges = Gauges(sync)
    if time_queries:
        if explain_slow:
            queries.explainer = Explainer(analyze=explain_slow == "analyze")
        measure(sync, queries)
    setattr(sync.dialect, _MARK, queries)
    return queries
