"""The recorder's running totals: what ended scopes add up to, by route and by spot."""

from __future__ import annotations

from collections import Counter, defaultdict
from threading import RLock
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.units import Cell, Failure, Lazy, Origin, RequestState, Text, Unit

_CHUNKS = 500


class Use:
    """What a spot did with a text."""

    __slots__ = ("batch_max", "batches", "count", "errors", "longest", "routes", "rows", "rows_max", "total")

    def __init__(self) -> None:
        self.count = self.total = self.longest = self.rows = self.rows_max = self.errors = 0
        self.batches = self.batch_max = 0
        self.routes: Counter[str] = Counter()

    def add(self, cell: Cell, route: str | None) -> None:
        self.count += cell.count
        self.total += cell.total
        self.longest = max(self.longest, cell.longest)
        self.rows += cell.rows
        self.rows_max = max(self.rows_max, cell.rows_max)
        self.errors += cell.errors
        self.batches += cell.batches
        self.batch_max = max(self.batch_max, cell.batch_max)
        if route is not None:
            self.routes[route] += cell.count


class Peak:
    """Counts over scopes, with the worst scope's route."""

    __slots__ = ("max", "other", "route", "scopes", "total")

    def __init__(self) -> None:
        self.max = self.other = self.scopes = self.total = 0
        self.route: str | None = None

    def add(self, value: int, other: int, route: str | None) -> None:
        self.scopes += 1
        self.total += value
        if value > self.max or self.route is None:
            self.route = route
        self.max = max(self.max, value)
        self.other = max(self.other, other)


class LazyTotal:
    """Lazy loads of one attribute from one spot, over scopes."""

    __slots__ = ("count", "max", "parents", "route", "uselist", "would_raise")

    def __init__(self) -> None:
        self.count = self.max = self.parents = self.would_raise = 0
        self.route: str | None = None
        self.uselist: bool | None = None

    def add(self, lazy: Lazy, route: str | None) -> None:
        self.count += lazy.count
        self.would_raise += lazy.would_raise
        if lazy.count >= self.max:
            self.max, self.route = lazy.count, route
            self.parents = sum(origin.objects for origin in lazy.origins)
        self.uselist = lazy.uselist


class RouteTotal:
    """Requests of one route."""

    __slots__ = (
        "connection_ns", "count", "disconnected", "early", "early_spots", "left", "lost", "max_ns", "reading", "scope",
        "statement_ns", "statements", "statements_max", "statuses", "total_ns", "transactions", "writing",
    )  # fmt: skip

    def __init__(self) -> None:
        self.count = self.statements = self.statements_max = self.total_ns = self.max_ns = self.disconnected = 0
        self.reading = self.lost = self.transactions = self.writing = self.connection_ns = self.statement_ns = (
            self.early
        ) = 0
        self.statuses: Counter[str] = Counter()
        self.early_spots: Counter[Spot | None] = Counter()
        self.left: Counter[Spot | None] = Counter()
        self.scope: dict[str, Any] = {}

    def add(self, request: RequestState, count: int) -> None:
        elapsed = (request.ended or perf_counter_ns()) - request.start
        self.count += 1
        self.statements += count
        self.statements_max = max(self.statements_max, count)
        self.total_ns += elapsed
        self.max_ns = max(self.max_ns, elapsed)
        self.statuses[str(request.status) if request.status is not None else "none"] += 1
        self.disconnected += request.disconnected
        self.early += bool(request.answered_early)
        self.early_spots.update(request.answered_early)
        self.left.update(request.left)
        self.reading += bool(request.answered_reading)
        self.lost += request.lost
        self.transactions += request.transactions
        self.writing += request.writing
        self.connection_ns += request.connection_ns
        self.statement_ns += request.statement_ns


class Ledger:
    """Totals of ended scopes."""

    def __init__(self) -> None:
        self.lock = RLock()  # the collector may return a connection, or a signal save, in the thread that holds it
        self.uses: defaultdict[tuple[Text, Spot | None], Use] = defaultdict(Use)
        self.repeats: defaultdict[tuple[Text, Spot | None, str], Peak] = defaultdict(Peak)
        self.lazies: defaultdict[tuple[str, str, Spot | None, Spot | None, str], LazyTotal] = defaultdict(LazyTotal)
        self.raised: Counter[tuple[tuple[str, str, Spot | None, Spot | None, str], str | None]] = Counter()
        self.inserts: dict[tuple[str, Spot | None], dict[str, Any]] = {}
        self.copies: dict[tuple[str, Spot | None], dict[str, Any]] = {}
        self.cartesian: defaultdict[tuple[Text, Spot | None], list[Any]] = defaultdict(lambda: [0, 0, 0, None])
        self.failures: dict[tuple[Any, ...], list[int]] = {}
        self.routes: defaultdict[str, RouteTotal] = defaultdict(RouteTotal)

    def request(self, request: RequestState) -> None:
        """Fold a request with all its units."""
        with self.lock:
            count = request.folded + sum(cell.count for unit in request.units for cell in unit.cells.values())
            total = self.routes[request.label]
            total.add(request, count)
            total.scope.update(request.endpoint)
            for unit in request.units:
                self._unit(unit, request.label, request.status, "request")
                unit.clear()
            request.units.clear()

    def part(self, unit: Unit, request: RequestState) -> None:
        """Fold what one session of a request did that goes on."""
        with self.lock:
            request.folded += sum(cell.count for cell in unit.cells.values())
            self._unit(unit, request.label, request.status, "request")
            unit.clear()

    def unit(self, unit: Unit, route: str | None = None) -> None:
        """Fold a unit outside requests."""
        with self.lock:
            self._unit(unit, route, None, "test" if unit.of_test else "task")
            unit.clear()

    def peek(self, unit: Unit) -> None:
        """Add a unit that goes on, as far as it got, and leave it as it is."""
        with self.lock:
            self._unit(unit, None, None, "test" if unit.of_test else "task")

    def leak(self, route: str, spot: Spot | None) -> None:
        """Count a connection that outlived its request."""
        with self.lock:
            self.routes[route].left[spot] += 1

    def failure(self, failure: Failure, route: str | None, status: int | None) -> None:
        """Count an error with what the client was answered."""
        key = (failure.error, failure.sqlstate, status, failure.spot, route)
        counts = self.failures.setdefault(key, [0, 0, 0])
        counts[0] += 1
        counts[1] += failure.swallowed
        counts[2] += failure.repeated

    def _unit(self, unit: Unit, route: str | None, status: int | None, scope: str) -> None:
        for (_, spot), cell in list(unit.cells.items()):
            self.uses[cell.text, spot].add(cell, route)
            if cell.different + cell.same > 1:
                self.repeats[cell.text, spot, scope].add(cell.different, cell.same, route)
        for lazy_key, lazy in list(unit.lazies.items()):
            self.lazies[lazy_key].add(lazy, route)
        for raised_key, count in list(unit.raised.items()):
            self.raised[raised_key, route] += count
        for failure in list(unit.failures):
            self.failure(failure, route, status)
        for origin in list(unit.origins):
            self._cartesian(origin, route)
        self._rows(unit, route)

    def _cartesian(self, origin: Origin, route: str | None) -> None:
        if origin.text is None or origin.rows < 100 or origin.rows < 3 * origin.objects or not origin.objects:
            return
        found = self.cartesian[origin.text, origin.spot]
        if origin.rows > found[0]:
            found[0], found[1], found[3] = origin.rows, origin.objects, route
        found[2] += 1

    def _rows(self, unit: Unit, route: str | None) -> None:
        for key, cell in list(unit.inserts.items()):
            total = self.inserts.setdefault(
                key, {"statements": 0, "rows": 0, "rows_max": 0, "single": 0, "ns": 0, "route": None}
            )
            total["statements"] += cell.statements
            total["rows"] += cell.rows
            total["rows_max"] = max(total["rows_max"], cell.rows_max)
            total["ns"] += cell.nanoseconds
            if cell.single >= total["single"]:
                total["single"], total["route"] = cell.single, route
        for key, chunks in list(unit.copies.items()):
            total = self.copies.setdefault(key, {"calls": 0, "rows": 0, "ns": 0, "chunks": [], "route": route})
            total["calls"] += len(chunks)
            total["rows"] += sum(rows for rows, _ in chunks)
            total["ns"] += sum(elapsed for _, elapsed in chunks)
            total["chunks"] = [*total["chunks"], *chunks][-_CHUNKS:]
