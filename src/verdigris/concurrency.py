"""Units of work: retried as a whole where that is safe, and run side by side on sessions of their own."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from verdigris._resolve import commit_or_resolve
from verdigris.errors import OUTCOME_UNKNOWN, UNAVAILABLE, UNCLASSIFIED, Fault, RetryLevel, classify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from verdigris._resolve import Resolver
    from verdigris.session import AsyncSession

log = logging.getLogger("verdigris")
T = TypeVar("T")
_BURST = 20
_SHARE = 10  # units pay for one repetition: more would feed the overload that causes them
_FULL = _BURST * _SHARE


@dataclass(frozen=True, slots=True)
class Retry:
    """How units of work are repeated; seconds. The waits are `uniform(0, min(cap, base * 2**n))` (full jitter)."""

    attempts: int = 4
    base: float = 0.03
    cap: float = 1.0
    deadline: float = 10.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    def wait(self, attempt: int) -> float:
        """Return how long to wait after the attempt of this number (from 1)."""
        return random.uniform(0, min(self.cap, self.base * 2**attempt))


NO_RETRY = Retry(attempts=1)


@dataclass(slots=True)
class Budget:
    """What all callers of one database may spend on repeating: a tenth of the units, and a burst of twenty."""

    left: int = _FULL

    def unit_began(self) -> None:
        """Count a unit of work, which pays its share."""
        if self.left < _FULL:
            self.left += 1

    def spend(self) -> bool:
        """Take one repetition out of the budget, if there is one."""
        if self.left < _SHARE:
            return False
        self.left -= _SHARE
        return True


@dataclass(slots=True)
class Attempts:
    """The attempts of one unit of work: asked after each failure whether, and when, there is another."""

    settings: Retry
    budget: Budget
    attempts: int
    deadline: float
    idempotent: bool = False
    made: int = 0
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
        most = settings.attempts if attempts is None else min(attempts, settings.attempts)
        began = settings.clock() - since
        return cls(settings, budget, most, began + limit, idempotent, began=began)

    async def again(self, error: Exception, obstacle: str | None = None) -> bool:
        """Wait and return True if the unit may be run once more after this error; False if the error is the answer.

        It is not run where there is an obstacle, which the log then names. Raises the OutcomeUnknownError of an earlier
        attempt, where the database's later error would read as if nothing could be stored.
        """
        fault = classify(error)
        if await self._again(fault, obstacle):
            if fault.name == OUTCOME_UNKNOWN.name:
                self._unknown = self._unknown or error
            return True
        if self._unknown is not None and fault.name not in {OUTCOME_UNKNOWN.name, UNCLASSIFIED.name}:
            raise self._unknown from error
        return False

    async def _again(self, fault: Fault, obstacle: str | None) -> bool:
        self.made += 1
        if not self._may_repeat(fault):
            return False
        if obstacle is not None:
            log.warning("not repeated after %s (%s): %s", fault.name, fault.sqlstate, obstacle)
            return False
        wait, now = self.settings.wait(self.made), self.settings.clock()
        self.longest = max(self.longest, now - self.began)
        if now + wait + self.longest > self.deadline:
            return False  # an attempt that would end after the deadline is not begun
        # Who waits for a server that is away gives it nothing to do but to refuse what a pool may connect at once.
        if fault.name != UNAVAILABLE.name and not self.budget.spend():
            return False
        log.info("unit of work runs again after %s (%s), attempt %d", fault.name, fault.sqlstate, self.made + 1)
        await self.settings.sleep(wait)
        self.began = self.settings.clock()
        return True

    def _may_repeat(self, fault: Fault) -> bool:
        if fault.name == OUTCOME_UNKNOWN.name:
            return self.idempotent and self.made < self.attempts
        if fault.retry is RetryLevel.NEVER:
            return False
        seen = self._faults[fault.name] = self._faults.get(fault.name, 0) + 1
        if fault.retry is RetryLevel.CONNECT and self.attempts > 1:
            return True  # nothing ran: until the deadline
        return seen <= fault.repeats and self.made < self.attempts


async def run_unit(
    open_session: Callable[[], AsyncSession],
    work: Callable[[AsyncSession], Awaitable[T]],
    attempts: Attempts,
    resolver: Resolver | None = None,
) -> T:
    """Run work in a transaction of its own, from a fresh session each time, until it is stored or the error stands."""
    while True:
        try:
            async with open_session() as session:
                result = await work(session)
                await commit_or_resolve(session, resolver)
                return result
        except Exception as error:
            if not await attempts.again(error):
                raise


def as_unit(run: Callable[..., Awaitable[Any]], fn: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Return `fn` without its first parameter, which each run supplies: a fresh session."""

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
