"""The times of queries: by fingerprint, with places and routes; in memory, bounded, never a bound value."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from verdigris.performance.fingerprint import fingerprint, is_read, operation
from verdigris.performance.sites import calling_place, current_route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from verdigris._places import Place
    from verdigris.performance.explain import Explained, Explainer
    from verdigris.performance.pool import Gauges, PoolStatus

log = logging.getLogger("verdigris.queries")

#: Upper edges, in seconds, of the buckets that query times are counted in.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Seconds from which on a query is slow.
SLOW = 0.5
_KEPT = 2_000  # fingerprints; then those that were not seen for longest go, some at a time
_GO = 50
_LOGGED = 1_000  # characters of a statement in the log


@dataclass(frozen=True, slots=True)
class Site:
    """One place and route that run a query, with their share of its time in seconds."""

    place: str | None
    route: str | None
    count: int
    total: float
    max: float


@dataclass(frozen=True, slots=True)
class Query:
    """One query: how often, how many seconds in all and at most, from where, and its plan if it was slow."""

    fingerprint: str
    count: int
    failed: int
    total: float
    max: float
    sites: tuple[Site, ...]
    plan: Explained | None = None

    @property
    def mean(self) -> float:
        """Seconds on average."""
        return self.total / self.count if self.count else 0.0

    def __str__(self) -> str:
        first = self.sites[0] if self.sites else None
        where = f" at {first.place}" if first and first.place else ""
        route = f" ({first.route})" if first and first.route else ""
        figures = f"{self.count} x {self.mean * 1000:.1f} ms, at most {self.max * 1000:.1f} ms"
        return f"{figures}{where}{route}: {self.fingerprint}"


@dataclass(slots=True)
class _Tally:
    count: int = 0
    failed: int = 0
    total: float = 0.0
    max: float = 0.0

    def add(self, seconds: float, failed: bool) -> None:  # noqa: FBT001 - once a statement: keywords would cost
        self.count += 1
        self.failed += failed
        self.total += seconds
        if seconds > self.max:  # noqa: PLR1730 - as above
            self.max = seconds


@dataclass(slots=True)
class _AtSite(_Tally):
    place: Place | None = None
    route: str | None = None


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, for exporters."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.total += seconds
        self.counts[bisect_left(BUCKETS, seconds)] += 1


@dataclass(slots=True)
class _Entry:
    text: str
    operation: Histogram
    reads: bool
    seen: int = 0  # when it was last, counted in statements
    #: By the identity of the place's code, which its site keeps, its instruction, and the route.
    sites: dict[tuple[int, int, str | None], _AtSite] = field(default_factory=dict)
    plan: Explained | None = None


class Queries:
    """What an engine's statements took. Kept for this process, since `since`; `clear()` starts over."""

    def __init__(self, *, slow_query: float = SLOW) -> None:
        self.slow_query = slow_query
        self.explainer: Explainer | None = None
        self.gauges: Gauges | None = None
        self.since = time.time()
        self.operations: dict[str, Histogram] = {}
        self._entries: dict[str, _Entry] = {}
        self._by_text: dict[str, _Entry] = {}  # by the statement's own: SQLAlchemy keeps one object per query
        self._observed = 0
        self._listeners: list[Callable[[str, Place | None], None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Query]:
        return iter([_query(entry) for entry in list(self._entries.values())])

    def slowest(self, n: int = 10) -> list[Query]:
        """Return the `n` queries with the longest single execution."""
        return sorted(self, key=lambda query: query.max, reverse=True)[:n]

    def heaviest(self, n: int = 10) -> list[Query]:
        """Return the `n` queries that took the most time in all."""
        return sorted(self, key=lambda query: query.total, reverse=True)[:n]

    def pool_status(self) -> PoolStatus:
        """Return the pool's figures of this moment; raises RuntimeError where they were switched off."""
        if self.gauges is None:
            raise RuntimeError(
                "the pool is not measured: pool_metrics is off.\n"
                "  Turn it on:   Database(pool_metrics=True), or instrument(engine, pool_metrics=True)"
            )
        return self.gauges.status()

    @contextmanager
    def listening(self, heard: Callable[[str, Place | None], None]) -> Iterator[None]:
        """Call `heard(fingerprint, place)` for each statement inside the block."""
        self._listeners.append(heard)
        try:
            yield
        finally:
            self._listeners.remove(heard)

    def clear(self) -> None:
        """Forget all times and plans."""
        self._entries.clear()
        self._by_text.clear()
        self.operations.clear()
        self.since = time.time()

    async def aclose(self) -> None:
        """Wait for a plan that is being fetched, or give it up; before the engine is disposed of."""
        if self.explainer is not None:
            await self.explainer.aclose()

    # -- what the measured dialect reports -----------------------------------------------------------------------------

    def observe(
        self, statement: str, parameters: Any, seconds: float, *, failed: bool, engine: Engine | None = None
    ) -> None:
        """Take in one execution, called where the driver was; a slow one may be explained on its engine."""
        entry = self._by_text.get(statement)
        if entry is None:
            entry = self._enter(statement)
        self._observed = entry.seen = self._observed + 1
        place, route = calling_place(), current_route()
        # not the code itself, whose hash reads all of it
        key = (0, 0, route) if place is None else (id(place.code), place.instruction, route)
        site = entry.sites.get(key)
        if site is None:
            site = entry.sites[key] = _AtSite(place=place, route=route)
        site.add(seconds, failed)
        entry.operation.add(seconds)
        for listener in self._listeners:
            listener(entry.text, place)
        if seconds >= self.slow_query:
            log.warning(
                "slow query: %.3f s%s%s: %s",
                seconds,
                f" at {place}" if place else "",
                f" ({route})" if route else "",
                entry.text[:_LOGGED],
            )
            if self.explainer is not None and engine is not None and entry.reads:
                self.explainer.submit(engine, entry.text, statement, parameters, partial(setattr, entry, "plan"))

    def _enter(self, statement: str) -> _Entry:
        text = fingerprint(statement)
        entry = self._entries.get(text)
        if entry is None:
            if len(self._entries) >= _KEPT:
                self._let_go()
            histogram = self.operations.setdefault(operation(text), Histogram())
            entry = self._entries[text] = _Entry(text, histogram, is_read(statement))
        if len(self._by_text) >= _KEPT:
            self._by_text.clear()  # lists of changing length make ever new texts
        self._by_text[statement] = entry
        return entry

    def _let_go(self) -> None:
        for entry in sorted(self._entries.values(), key=attrgetter("seen"))[:_GO]:
            del self._entries[entry.text]
        self._by_text.clear()


def _query(entry: _Entry) -> Query:
    sites = [
        Site(str(site.place) if site.place else None, site.route, site.count, site.total, site.max)
        for site in entry.sites.values()
    ]
    sites.sort(key=lambda site: site.total, reverse=True)
    everywhere = entry.sites.values()
    return Query(
        fingerprint=entry.text,
        count=sum(site.count for site in everywhere),
        failed=sum(site.failed for site in everywhere),
        total=sum(site.total for site in everywhere),
        max=max((site.max for site in everywhere), default=0.0),
        sites=tuple(sites),
        plan=entry.plan,
    )
