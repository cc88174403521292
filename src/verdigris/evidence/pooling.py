"""The arithmetic of pools: what each engine may open, times the workers, against what the server gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.engine.engines import DATABASE
from verdigris.evidence.source.reading.arguments import Argument, keyword
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.values import Known, Missing, Place

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.ran import RanEngine
    from verdigris.evidence.source.engine.engines import Engine

SIZE, OVERFLOW, OUR_OVERFLOW = 5, 10, 5  # the defaults of SQLAlchemy's pool and of the library's
TIMEOUT = 30.0  # seconds: SQLAlchemy's default
PATIENCE = 10.0  # seconds that a client or proxy commonly waits for an answer


@dataclass(frozen=True, slots=True)
class PoolTimeout(Subject):
    """A pool that lets a request wait for a connection longer than its client waits for the request."""

    key: str
    place: Place
    engine: Engine | RanEngine
    told: str

    @classmethod
    def of(cls, engine: Engine | RanEngine) -> PoolTimeout:
        """Return the subject that an engine's pool_timeout is."""
        return cls(f"{engine.key}.pool_timeout", engine.place, engine, f"{cls.seconds(engine):g} s")

    @classmethod
    def long(cls, engine: Engine | RanEngine) -> bool:
        """Tell whether it is known to be longer than a client's patience."""
        return engine.given("pool_size") is True and cls.seconds(engine) > PATIENCE

    @staticmethod
    def seconds(engine: Engine | RanEngine) -> float:
        """Return how long a request waits, as far as that is known."""
        match engine.option("pool_timeout"):
            case Missing():
                return TIMEOUT
            case Known(value=int() | float() as value):
                return float(value)
            case _:
                return 0.0


@dataclass(frozen=True, slots=True)
class Bound:
    """What one engine may open in one process, and what the server has; `told` says how that is known."""

    told: str
    size: int | None = None
    overflow: int = 0
    workers: int = 1
    free: int = 0
    together: int = 0
    endless: str | None = None

    @property
    def each(self) -> int | None:
        """The most that one process opens."""
        return None if self.size is None else self.size + self.overflow

    @property
    def total(self) -> int:
        """The most that all processes open."""
        return self.workers * (self.each or 0)

    @property
    def share(self) -> int:
        """The size that would fit, with an overflow of two."""
        return max(1, self.free // self.workers - 2)

    @property
    def sum(self) -> str:
        """The arithmetic in words."""
        workers = f"{self.workers} worker{'s' * (self.workers != 1)}"
        pool = f"({self.size} + {self.overflow} overflow)"
        return f"{workers} x {pool} = {self.total} of the {self.free} connections that the server leaves"


def bounds(engine: Engine | RanEngine, evidence: Evidence) -> Bound:
    """Return the bound of an engine, with that of all engines of the application beside it."""
    free = evidence.database.connections_available if evidence.database is not None else 0
    workers, how = _workers(evidence)
    own = _one(engine, evidence, workers, free)
    others = [_one(other, evidence, workers, free) for other in evidence.source.pooled_engines]
    together = workers * sum(other.each or 0 for other in others)
    return Bound(f"{own.told}, {how}", own.size, own.overflow, workers, free, together, own.endless)


def _one(engine: Engine | RanEngine, evidence: Evidence, workers: int, free: int) -> Bound:
    for seen in evidence.ran(engine):
        if seen.pool_size is not None:
            return _limited(engine, seen.pool_size, seen.max_overflow or 0, "as it ran")
    promise = guaranteed(engine.maker.dotted, "pool_size")
    if promise is not None and engine.given("pool_size") is False:
        if not _starts(evidence):
            return Bound(
                f"nothing starts `{engine.short}`, which then sizes its pool: install(app, db), or lifespan=db.lifespan"
            )
        return Bound(promise.reason, max(1, min(20, free // (2 * workers))))
    size, overflow = engine.option("pool_size"), engine.option("max_overflow")
    if not (isinstance(size, Known) and isinstance(size.value, int)):
        return Bound(getattr(size, "reason", "pool_size is no number"))
    told = f"pool_size={size.value}{f' ({size.by})' if size.by else ''}"
    if isinstance(overflow, Missing):
        default = OUR_OVERFLOW if engine.maker == DATABASE else OVERFLOW
        return _limited(engine, size.value, default, f"{told}, max_overflow={default} by default")
    if not (isinstance(overflow, Known) and isinstance(overflow.value, int)):
        return Bound(getattr(overflow, "reason", "max_overflow is no number"))
    return _limited(engine, size.value, overflow.value, f"{told}, max_overflow={overflow.value}")


def _limited(engine: Engine | RanEngine, size: int, overflow: int, told: str) -> Bound:
    if size == 0:
        return Bound(
            told, endless=f"pool_size=0 on `{engine.short}` is no limit at all (NullPool is what keeps no connections)"
        )
    if overflow < 0:
        return Bound(told, endless=f"max_overflow={overflow} on `{engine.short}` is no limit at all")
    return Bound(told, size, overflow)


def _workers(evidence: Evidence) -> tuple[int, str]:
    if evidence.workers is not None:
        return evidence.workers, f"{evidence.workers} worker{'s' * (evidence.workers != 1)} told"
    source = evidence.source
    for call in source.calls.named("run"):
        meaning = source.names.resolve(call.node.func, call.scope)
        given = keyword(call.node, "workers")
        if given is not None and isinstance(meaning, External) and meaning.package == "uvicorn":
            worth = source.evaluator.value(Argument(given, call.scope))
            if isinstance(worth, Known) and isinstance(worth.value, int):
                return worth.value, f"workers={worth.value} at {call.place}"
    return 1, "1 worker assumed"


def _starts(evidence: Evidence) -> bool:
    """Tell whether anything asks the server for its limits, by which the library sizes its pool."""
    source = evidence.source
    if any(True for _ in source.calls.outside({"verdigris"}, "install")):
        return True
    for call in source.calls.every():
        for given in call.node.keywords:
            if given.arg == "lifespan" and engine_type(source.types.reach(given.value, call.scope)):
                return True
    return any(engine_type(source.calls.reaches(call)) for call in source.calls.named("lifespan", "start"))


def engine_type(meaning: object) -> bool:
    """Tell whether this is a method of `verdigris.Database`."""
    return isinstance(meaning, External) and meaning.dotted.startswith("verdigris.Database.")
