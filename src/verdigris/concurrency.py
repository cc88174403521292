"""Units of work: retried as a whole where that is safe, and run side by side on sessions of their own."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from verdigris.errors import (
    OUTCOME_UNKNOWN,
    UNAVAILABLE,
    UNCLASSIFIED,
    ConfigurationError,
    Fault,
    RetryLevel,
    classify,
)
from verdigris.session.resolve import commit_or_resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from verdigris.session import AsyncSession
    from verdigris.session.resolve import Resolver

log = logging.getLogger("verdigris")
T = TypeVar("T")
S = TypeVar("S", bound="AsyncSession")
_SILENCE = 60.0  # seconds between two lines that say the same
_TRIED = "__verdigris_tried__"


@dataclass(frozen=True, slots=True)
class Retry:
    """How units of work are repeated; seconds. The waits are `uniform(0, min(cap, base * 2**n))` (full jitter).

    `attempts` counts the first one too: 10 are 9 repetitions. `conflict_budget` is how many repetitions after conflicts
    (40001, 40P01) all units of a Database have at once, and every fifth unit adds one; `budget` is the same for
    whatever may come of a server that fails, and every tenth unit adds one. None is no limit.

    Raises ConfigurationError for fewer attempts than one, and for what is below zero.
    """

    attempts: int = 10
    base: float = 0.03
    cap: float = 1.0
    deadline: float = 10.0
    budget: int | None = 20
    conflict_budget: int | None = 200
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        checked_attempts(self.attempts)
        for name in ("base", "cap", "deadline", "budget", "conflict_budget"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigurationError(
                    f"Retry({name}={value}) is below zero.",
                    do=[f"Write Retry({name}=0) or more, and Database(retry=False) to have nothing repeated."],
                    page="docs/transactions.md",
                )

    def wait(self, attempt: int) -> float:
        """Return how long to wait after the attempt of this number (from 1)."""
        return random.uniform(0, min(self.cap, self.base * 2**attempt))


def checked_attempts(attempts: int | None) -> int | None:
    """Return a number of attempts; raises ConfigurationError for one below the first."""
    if attempts is not None and attempts < 1:
        raise ConfigurationError(
            f"attempts={attempts} leaves no attempt at all.",
            why="The first one counts: 1 is once, and no repetition.",
            do=["Write attempts=1 for what must not be repeated."],
            page="docs/transactions.md",
        )
    return attempts


NO_RETRY = Retry(attempts=1)


@dataclass(slots=True)
class Allowance:
    """How many repetitions all units of a database have after one kind of fault, counted in shares of units."""

    setting: str  # of Retry
    after: str  # what they come after, in words
    share: int  # units that pay for one repetition
    ordinal: str
    most: float = math.inf  # in shares
    left: float = math.inf
    _refused: int = 0
    _told: float = -math.inf

    def reset(self, repetitions: int | None) -> None:
        """Start over, with so many repetitions; None is no limit."""
        self.most = self.left = math.inf if repetitions is None else repetitions * self.share

    def spend(self) -> bool:
        """Take one repetition, if there is one."""
        if self.left < self.share:
            return False
        self.left -= self.share
        return True

    def refused(self, now: float) -> str:
        """Return why a unit is not repeated any more, which the log says once in a while."""
        self._refused += 1
        if now - self._told >= _SILENCE:
            log.warning(
                "the budget for repetitions after %s is spent; units that it has stopped since this was said last: %d;"
                " it is Retry(%s=%d), and every %s unit adds one",
                self.after,
                self._refused,
                self.setting,
                self.most / self.share,
                self.ordinal,
            )
            self._refused, self._told = 0, now
        return f"what all units have for repetitions after {self.after} is spent, Retry({self.setting}=...)"


class Budget:
    """What all callers of one database may spend on repeating, apart from each other's attempts and deadlines.

    A server that fails is not hammered: of what may come of that, a tenth of the units is repeated, and a burst. A
    conflict proves that the server works. It costs what the unit costs, on a connection that others wait for; so it
    has a budget too, of its own and larger.
    """

    __slots__ = ("conflicts", "faults")

    def __init__(self, settings: Retry | None = None) -> None:
        self.faults = Allowance("budget", "faults", 10, "tenth")
        self.conflicts = Allowance("conflict_budget", "conflicts", 5, "fifth")
        self.reset(settings or Retry())

    def reset(self, settings: Retry) -> None:
        """Start over, with what these settings say."""
        self.faults.reset(settings.budget)
        self.conflicts.reset(settings.conflict_budget)

    def unit_began(self) -> None:
        """Count a unit of work, which pays its share."""
        faults, conflicts = self.faults, self.conflicts
        if faults.left < faults.most:
            faults.left += 1
        if conflicts.left < conflicts.most:
            conflicts.left += 1


@dataclass(slots=True)
class Attempts:
    """The attempts of one unit of work: asked after each failure whether, and when, there is another."""

    settings: Retry
    budget: Budget
    attempts: int
    deadline: float
    idempotent: bool = False
    made: int = 0
    first: float = 0.0
    began: float = 0.0  # the attempt under way
    longest: float = 0.0  # that any attempt took
    _faults: dict[str, int] = field(default_factory=dict)
    _unknown: Exception | None = None  # the error of an attempt that may be stored, whatever the later ones say

    @classmethod
    def of(
        cls,
        settings: Retry,
        budget: Budget,
        *,
        attempts: int | None,
        deadline: float | None,
        idempotent: bool,
        since: float = 0.0,  # seconds that the first one has taken already
    ) -> Attempts:
        limit = settings.deadline if deadline is None else deadline
        most = settings.attempts if attempts is None else attempts
        began = settings.clock() - since
        return cls(settings, budget, most, began + limit, idempotent, first=began, began=began)

    async def again(self, error: Exception, obstacle: str | None = None) -> bool:
        """Wait and return True if the unit may be run once more after this error; False if the error is the answer.

        It is not run where there is an obstacle, which the log then names. Raises the OutcomeUnknownError of an earlier
        attempt, where the database's later error would read as if nothing could be stored.
        """
        fault = classify(error)
        self.made += 1
        end = self._end(fault, obstacle)
        if end is None:
            end = await self._waited(fault)
        if end is None:
            if fault.name == OUTCOME_UNKNOWN.name:
                self._unknown = self._unknown or error
            return True
        if end and (self.attempts > 1 or obstacle):
            self._note(error, end)
        if self._unknown is not None and fault.name not in {OUTCOME_UNKNOWN.name, UNCLASSIFIED.name}:
            raise self._unknown from error
        return False

    def _end(self, fault: Fault, obstacle: str | None) -> str | None:
        """Return why there is no other attempt after this fault, if that is so; empty where nobody would expect one."""
        unknown = fault.name == OUTCOME_UNKNOWN.name
        if not (self.idempotent if unknown else fault.retry is not RetryLevel.NEVER):
            return ""
        seen = self._faults[fault.name] = self._faults.get(fault.name, 0) + 1
        if fault.retry is RetryLevel.CONNECT:
            if self.attempts == 1:
                return ""  # else nothing ran: until the deadline
        elif self.made >= self.attempts:
            return f"no more than {self.attempts} may be made"
        elif not unknown and fault.repeats is not None and seen > fault.repeats:
            return f"{fault.name} is repeated {fault.repeats}x at most"
        if obstacle is not None:
            log.warning("not repeated after %s (%s): %s", fault.name, fault.sqlstate, obstacle)
        return obstacle

    async def _waited(self, fault: Fault) -> str | None:
        """Wait for the next attempt; return why there is none."""
        wait, now = self.settings.wait(self.made), self.settings.clock()
        self.longest = max(self.longest, now - self.began)
        if now + wait + self.longest > self.deadline:
            return f"another would end after the deadline of {self.deadline - self.first:.3g} s"
        # Who waits for a server that is away gives it nothing to do but to refuse what a pool may connect at once.
        allowance = self.budget.conflicts if fault.repeats is None else self.budget.faults
        if fault.name != UNAVAILABLE.name and not allowance.spend():
            return allowance.refused(now)
        log.info("unit of work runs again after %s (%s), attempt %d", fault.name, fault.sqlstate, self.made + 1)
        await self.settings.sleep(wait)
        self.began = self.settings.clock()
        return None

    def _note(self, error: Exception, end: str) -> None:
        attempts = "1 attempt" if self.made == 1 else f"{self.made} attempts"
        told = f"not repeated after {attempts} in {self.settings.clock() - self.first:.2f} s: {end}"
        error.add_note(told)
        setattr(error, _TRIED, told)


def tried(error: BaseException) -> str | None:
    """Return what is known of the attempts behind an error: how many, and why no other was made."""
    told = getattr(error, _TRIED, None)
    return told if isinstance(told, str) else None


async def run_unit(
    open_session: Callable[[], S],
    work: Callable[[S], Awaitable[T]],
    attempts: Attempts,
    resolver: Resolver | None = None,
) -> T:
    """Run work in a transaction of its own, from a fresh session each time, until it is stored or the error stands."""
    while True:
        try:
            async with open_session() as session:
                result = await _begun(work, session)
                await commit_or_resolve(session, resolver)
                return result
        except Exception as error:
            if not await attempts.again(error):
                raise


def checked_unit(work: Any) -> None:
    """Raise ConfigurationError for what is no function of a session, such as a coroutine that was made of one."""
    if callable(work):
        return
    name = getattr(work, "__name__", type(work).__name__)
    if inspect.iscoroutine(work):
        work.close()  # nobody will await it
    raise ConfigurationError(
        f"a unit of work is {f'{name}(), which is called already' if inspect.iscoroutine(work) else repr(work)}.",
        why="It gets a session of its own, a fresh one each time it runs: it is the function that is asked for.",
        do=[f"await db.transaction({name})", f"await db.transaction(lambda session: {name}(session, ...))"],
        page="docs/transactions.md",
    )


def _begun(work: Callable[[S], Awaitable[T]], session: S) -> Awaitable[T]:
    given: Any = work(session)
    if inspect.isawaitable(given):
        return given
    name = getattr(work, "__name__", type(work).__name__)
    raise ConfigurationError(
        f"the unit of work {name}() returned no awaitable.",
        why="Work on an async session is awaited; what it did here is rolled back.",
        do=[f"async def {'work' if name == '<lambda>' else name}(session): ..."],
        page="docs/transactions.md",
    )


def as_unit(run: Callable[..., Awaitable[Any]], fn: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Return `fn` without its first parameter, which each run supplies: a fresh session.

    Raises ConfigurationError for a method, whose first parameter is its object.
    """
    code = getattr(fn, "__code__", None)
    first = code.co_varnames[0] if code is not None and code.co_argcount else ""
    if first in {"self", "cls"}:
        name = fn.__name__
        raise ConfigurationError(
            f"{fn.__qualname__}() is a method: its first parameter, `{first}`, would be the session.",
            why="What is made a unit gets its session there, and is called without.",
            do=[f"await db.transaction(lambda session: {first}.{name}(session, ...))   # in a method without it"],
            page="docs/transactions.md",
        )

    @functools.wraps(fn)
    async def unit(*args: Any, **kwargs: Any) -> Any:
        return await run(lambda session: fn(session, *args, **kwargs))

    del unit.__wrapped__  # set by wraps; the signature is another one here
    return unit


async def gather(
    units: Sequence[Callable[[], Awaitable[Any]]], slots: asyncio.Semaphore, ended: Callable[[], None] | None = None
) -> list[Any]:
    """Run units side by side, as many at once as there are slots; a failure cancels the others and is raised."""

    async def bounded(unit: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with slots:
                return await unit()
        finally:
            if ended is not None:
                ended()

    failures: BaseExceptionGroup[BaseException] | None = None
    tasks: list[asyncio.Task[Any]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bounded(unit)) for unit in units]
    except BaseExceptionGroup as raised:
        failures = raised
    if failures is not None:  # outside the except block, so that the error keeps its own cause
        unknown = (each for each in failures.exceptions if classify(each).name == OUTCOME_UNKNOWN.name)
        raise next(unknown, failures.exceptions[0])  # what may be stored is not hidden behind what is not
    return [task.result() for task in tasks]
