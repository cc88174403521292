"""What is running now: units of work (a task or thread, within a request or not), requests, checkouts.

These are the recorder's live values. They are folded into the ledger when their scope ends.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import _get_running_loop  # in asyncio's __all__: a loop or None, without raising
from contextvars import ContextVar
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording import statements
from verdigris.evidence.recording.facts import engine_facts
from verdigris.evidence.recording.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.recording.places import Spot

_MANY = 1000  # units outside requests, from which on those of ended tasks are looked for
_REMEMBERED = 1000  # distinct parameters of one statement in one scope; beyond, each counts as different


class Text:
    """One SQL text as it was sent, and what is known of it at first sight."""

    __slots__ = ("engine", "kind", "paged", "seldom", "sql", "table", "writes")

    def __init__(self, sql: str, engine: EngineState | None) -> None:
        self.sql = sql
        self.engine = engine
        self.kind = statements.kind(sql)
        self.writes = statements.writes(self.kind)
        self.table = statements.inserted_table(sql) if self.kind == "INSERT" else ""
        self.seldom = self.writes or self.kind == "EXPLAIN"
        self.paged = " OFFSET " in sql.upper()


class Cell:
    """Executions of one text at one spot within one unit; the counts are kept by the driver call's override."""

    __slots__ = (
        "batch_max", "batches", "compares", "count", "different", "errors", "first", "longest", "rows", "rows_max",
        "same", "seen", "text", "total",
    )  # fmt: skip

    def __init__(self, text: Text) -> None:
        self.text = text
        self.count = self.total = self.longest = self.rows = self.rows_max = self.errors = 0
        self.batches = self.batch_max = self.same = 0
        self.different = 0
        self.first: Any = None
        self.seen: set[int] | None = None
        self.compares = text.kind == "SELECT" and not text.paged

    def compare(self, parameters: Any) -> None:
        """Count another execution as a new question or as one that was asked before."""
        if self.different == 0:
            self.first, self.different = parameters, 1
            return
        if self.seen is None:
            self.seen = {_hash(self.first)}
            self.first = None
        value = _hash(parameters)
        if value in self.seen:
            self.same += 1
        else:
            self.different += 1
            if len(self.seen) < _REMEMBERED:
                self.seen.add(value)


def _hash(parameters: Any) -> int:
    try:
        return hash(parameters)
    except TypeError:
        return hash(repr(parameters))


class Origin:
    """A query of the application: objects that it loads remember it, so that a lazy load can name it."""

    __slots__ = ("objects", "rows", "spot", "text")

    within = False  # whether it is a loader's part of another query
    loads = False  # whether it is no question of the application's own

    def __init__(self, spot: Spot | None) -> None:
        self.spot = spot
        self.objects = 0
        self.rows = 0
        self.text: Text | None = None

    def fetched(self, text: Text, rows: int, unit: Unit) -> None:
        """Note that the query's own statement returned many rows."""
        if self.text is None and not self.within:
            self.text, self.rows = text, rows
            unit.origins.append(self)


class LoaderOrigin(Origin):
    """A loader's part of a query of the application, such as selectinload's."""

    __slots__ = ()
    within = loads = True


class LazyOrigin(Origin):
    """A query that an attribute's touch or a refresh sent."""

    __slots__ = ()
    loads = True


class Lazy:
    """Loads of one attribute from one spot within one scope."""

    __slots__ = ("count", "origins", "uselist", "would_raise")

    def __init__(self) -> None:
        self.count = 0
        self.would_raise = 0
        self.uselist: bool | None = None
        self.origins: set[Origin] = set()


class InsertCell:
    """INSERTs into one table from one spot within one unit."""

    __slots__ = ("nanoseconds", "rows", "rows_max", "single", "statements")

    def __init__(self) -> None:
        self.statements = self.rows = self.rows_max = self.single = self.nanoseconds = 0


class Failure:
    """A database error within a unit."""

    __slots__ = ("error", "repeated", "spot", "sqlstate", "swallowed")

    def __init__(self, error: str, sqlstate: str | None, spot: Spot | None) -> None:
        self.error = error
        self.sqlstate = sqlstate
        self.spot = spot
        self.swallowed = 0
        self.repeated = 0


class Unit:
    """The work of one task or thread: inside a request, or on its own as long as its sessions are open."""

    __slots__ = (
        "__weakref__", "cells", "copies", "failures", "holding", "inherited", "inserts", "lazies", "listed",
        "of_test", "origins", "owner", "parent", "raised", "request", "sessions", "threaded", "unfinished",
    )  # fmt: skip

    def __init__(self, owner: int, task: Any, request: RequestState | None, before: Unit | None) -> None:
        self.owner = owner
        self.of_test = False  # whether it is the running test's own, which calls the application as often as it likes
        self.threaded = task is None
        self.request = request
        # Kept only within a request: a chain of tasks that spawn tasks must not keep each other alive.
        self.inherited = before if before is not None and request is not None and before.request is request else None
        self.parent = before.unfinished if before is not None else None
        self.unfinished: weakref.ref[asyncio.Task[Any]] | None = weakref.ref(task) if task is not None else None
        self.sessions = 0  # open ones
        self.holding = 0  # checkouts
        self.listed = request is not None
        self.clear()

    def clear(self) -> None:
        """Start a new scope."""
        self.cells: dict[tuple[str, Spot | None], Cell] = {}  # by SQL text and spot
        self.lazies: dict[tuple[str, str, Spot | None, Spot | None, str], Lazy] = {}
        self.raised: dict[tuple[str, str, Spot | None, Spot | None, str], int] = {}
        self.inserts: dict[tuple[str, Spot | None], InsertCell] = {}
        self.copies: dict[tuple[str, Spot | None], list[tuple[int, int]]] = {}
        self.failures: list[Failure] = []
        self.origins: list[Origin] = []

    @property
    def is_empty(self) -> bool:
        """Tell whether there is anything to fold."""
        return not (self.cells or self.lazies or self.raised or self.failures or self.copies)

    def lineage(self) -> set[int]:
        """Return the identities of this unit and of those it descends from in its request."""
        found: set[int] = set()
        unit: Unit | None = self
        while unit is not None and id(unit) not in found:
            found.add(id(unit))
            unit = unit.inherited
        return found


class EngineState:
    """One engine, or several alike from one site, with its pool's figures."""

    __slots__ = (
        "__weakref__",
        "connects",
        "created",
        "created_in_requests",
        "crossings",
        "disposed",
        "engines",
        "facts",
        "held",
        "high_water",
        "holder",
        "holder_ns",
        "in_use",
        "invalidated",
        "is_async",
        "key",
        "longest_connect",
        "muted",
        "on_loop",
        "pings",
        "pools",
        "requests_max",
        "spot",
        "statement_ns",
        "statements",
        "timeouts",
        "waits",
    )  # fmt: skip

    def __init__(self, key: tuple[Any, ...], facts: dict[str, Any], spot: Spot | None) -> None:
        self.key = key
        self.facts = facts
        self.is_async = bool(facts["is_async"])
        self.spot = spot
        self.muted: set[tuple[int, int]] = set()  # threads and greenlets in which the dialect asks for itself
        self.engines: list[weakref.ref[Any]] = []
        self.pools: weakref.WeakSet[Any] = weakref.WeakSet()
        self.clear()

    def owns(self, pool: Any) -> bool:
        """Tell whether a pool is, or was, an engine's; a slow query's plan is fetched past it."""
        if pool not in self.pools:
            self.pools.update(engine.pool for ref in self.engines if (engine := ref()) is not None)
        return pool in self.pools

    def last_facts(self) -> dict[str, Any]:
        """Return the settings of its last engine that lives, as they are by now: a pool may be sized at the start."""
        alive = [engine for ref in self.engines if (engine := ref()) is not None]
        return engine_facts(alive[-1]) if alive else self.facts

    def clear(self) -> None:
        """Start counting anew."""
        self.created = self.created_in_requests = self.disposed = 0
        self.crossings: dict[Spot | None, int] = {}
        self.on_loop: dict[Spot | None, int] = {}
        self.waits, self.held = Histogram(), Histogram()
        self.in_use = self.high_water = self.timeouts = self.connects = self.longest_connect = self.pings = 0
        self.invalidated = self.statements = self.statement_ns = self.requests_max = self.holder_ns = 0
        self.holder: Spot | None = None


class Checkout:
    """A connection in use."""

    __slots__ = (
        "answered", "begun", "engine", "failure", "pending", "pooled", "raw", "request", "since", "spot", "unit",
        "wrote",
    )  # fmt: skip

    def __init__(self, engine: EngineState | None, unit: Unit, spot: Spot | None) -> None:
        self.engine = engine
        self.unit = unit
        self.request = unit.request
        self.spot = spot
        self.since = perf_counter_ns()
        self.begun = self.wrote = self.answered = False
        self.pooled = True  # whether it is one of those that the engine's own pool has to give
        self.failure: Failure | None = None
        self.pending: dict[str, int] | None = None
        self.raw: int = 0


class RequestState:
    """One request or websocket connection."""

    __slots__ = (
        "answered", "answered_early", "answered_reading", "app", "checkouts", "complete", "connection_ns",
        "disconnected", "ended", "endpoint", "escaped", "folded", "label", "left", "lost", "method", "scope", "start",
        "statement_ns", "status", "transactions", "units",
        "writing",
    )  # fmt: skip

    def __init__(self, method: str, scope: Any, app: Any) -> None:
        self.method = method
        self.scope = scope
        self.app = app
        self.endpoint: dict[str, Any] = {}
        self.folded = 0  # statements that were folded already
        self.start = perf_counter_ns()
        self.label = ""
        self.status: int | None = None
        self.ended = 0
        self.answered = self.complete = self.disconnected = False
        self.answered_early: list[Spot | None] = []
        self.answered_reading = self.lost = self.transactions = self.writing = self.connection_ns = (
            self.statement_ns
        ) = 0
        self.left: list[Spot | None] = []
        self.checkouts: dict[int, Checkout] = {}
        self.units: list[Unit] = []
        self.escaped: BaseException | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the answer is under way, on a websocket or in a stream: each session is then a scope of its own."""
        return self.answered or self.method == "WEBSOCKET"


class Units:
    """The unit of whoever asks, by context variable; one in another task or thread starts its own."""

    def __init__(self) -> None:
        self.current: ContextVar[Unit | None] = ContextVar("verdigris_recording_unit", default=None)
        self.alone: set[Unit] = set()  # those outside requests that have something to fold
        self.crowded: Callable[[], None] | None = None  # told when they have become twice as many
        self.of_test: Callable[[Any], bool] | None = None  # asked, where tests run, whether a task is a test's own
        self._many = _MANY

    def unit(self) -> Unit:
        """Return the unit of the running task or thread."""
        loop = _get_running_loop()
        task = asyncio.current_task(loop) if loop is not None else None
        owner = get_ident() if loop is None else id(task)
        unit = self.current.get()
        if unit is not None and unit.owner == owner and (unit.request is None or not unit.request.ended):
            return unit
        return self._start(owner, task, unit)

    def _start(self, owner: int, task: Any, before: Unit | None) -> Unit:
        request = before.request if before is not None else None
        if request is not None and request.ended:
            request = None
        unit = Unit(owner, task, request, before)
        if request is not None:
            request.units.append(unit)
        elif self.of_test is not None:
            unit.of_test = self.of_test(task)
        self.current.set(unit)
        return unit

    def list(self, unit: Unit) -> None:
        """Remember a unit outside requests until it is folded."""
        unit.listed = True
        self.alone.add(unit)
        if len(self.alone) > self._many and self.crowded is not None:
            self.crowded()
            self._many = max(_MANY, 2 * len(self.alone))


def task_is_done(unit: Unit) -> bool:
    """Tell whether the task of a unit has ended; a thread's never says."""
    task: asyncio.Task[Any] | None = unit.unfinished() if unit.unfinished is not None else None
    return task is None or task.done()
