"""The pool's figures: taken at checkout, on any pool that SQLAlchemy knows."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from verdigris.performance.queries import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine, Pool

_RECENT = 1_024  # waits that the quantiles are of


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The pool at one moment. Waits are seconds from asking for a connection to having it, the last 1,024 of them.

    Where event loops run side by side, in threads, each of `loops` has a pool of this size; the figures are of all.
    """

    size: int
    max_overflow: int
    in_use: int
    idle: int
    overflow: int
    #: Tasks that have asked for a connection and have none yet.
    waiting: int
    checkouts: int
    timeouts: int
    wait_p50: float
    wait_p99: float
    wait_max: float
    loops: int = 1


class Gauges:
    """Measures an engine's pool, and the pool that replaces it when the engine is disposed of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.waiting = 0
        self.checkouts = 0
        self.timeouts = 0
        self.waits = Histogram()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self.follow()
        when_disposed(engine, self.follow)

    def follow(self) -> None:
        """Measure the pool that the engine has now."""
        self._wrap(self._engine.pool)

    def _wrap(self, pool: Pool) -> None:
        if "connect" in vars(pool):
            return  # measured already: dispose() always makes a new pool, but is not the only one that asks
        connect = pool.connect

        def measured() -> Any:
            began, got = self.asked(), False
            try:
                connection = connect()
                got = True
            except PoolTimeoutError:
                self.timeouts += 1
                raise
            finally:
                self.answered(began, got=got)
            return connection

        patched: Any = pool
        patched.connect = measured
        if hasattr(pool, "gauges"):  # a Database's: it also hands out without connect()
            patched.gauges = self

    def asked(self) -> float:
        """Count one who waits from now on; return the moment."""
        self.waiting += 1
        return time.perf_counter()

    def answered(self, began: float, *, got: bool) -> None:
        """Count the end of a wait, which began then, with a connection or without."""
        self.waiting -= 1
        self.checkouts += got
        waited = time.perf_counter() - began
        self._recent.append(waited)
        self.waits.add(waited)

    def at_once(self) -> None:
        """Count a checkout that waited for nothing."""
        self.checkouts += 1
        self._recent.append(0.0)
        self.waits.counts[0] += 1

    def status(self) -> PoolStatus:
        """Return the figures of this moment."""
        pool: Any = self._engine.pool  # what a NullPool or StaticPool lacks is 0
        waits = sorted(self._recent.copy())
        pools: list[Any] = pool.all_loops() if hasattr(pool, "all_loops") else [pool]
        return PoolStatus(
            size=_figure(pool, "size"),
            max_overflow=max(0, getattr(pool, "_max_overflow", 0)),
            in_use=sum(_figure(each, "checkedout") for each in pools),
            idle=sum(_figure(each, "checkedin") for each in pools),
            overflow=sum(max(0, _figure(each, "overflow")) for each in pools),
            waiting=self.waiting,
            checkouts=self.checkouts,
            timeouts=self.timeouts,
            wait_p50=_quantile(waits, 0.5),
            wait_p99=_quantile(waits, 0.99),
            wait_max=waits[-1] if waits else 0.0,
            loops=len(pools),
        )


def when_disposed(engine: Engine, then: Callable[[], None]) -> None:
    """Call back when an engine is disposed of, and have no statement pay for it.

    SQLAlchemy sends the statements of an engine that has any listener of its own through all its events: 35 µs each.
    """
    listened_to = engine._has_events  # noqa: SLF001 - no public way to say that this listener is not for statements
    event.listen(engine, "engine_disposed", lambda _: then())
    engine._has_events = listened_to  # noqa: SLF001


def _figure(pool: Any, name: str) -> int:
    method = getattr(pool, name, None)
    return int(method()) if method is not None else 0


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
