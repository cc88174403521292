"""Who waits for a connection of a pool: how many may, and who would wait for ever."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verdigris._places import place_in, request_in
from verdigris.errors import PoolExhaustedError, ShuttingDownError
from verdigris.performance.sites import calling_place, current_route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Task = asyncio.Task[Any]

log = logging.getLogger("verdigris")
_PLACES = 100  # nested checkouts that are told, at most
_PAGE = "concurrency/pool-for-load"


@dataclass(slots=True)
class Queue:
    """The tasks that stand in line for a pool's connections, and those that wait for such a task."""

    limit: int | None = None  # how many may wait; None: all, until pool_timeout
    length: int = 0
    waiting: dict[Task, int] = field(default_factory=dict)
    gathering: dict[Task, int] = field(default_factory=dict)  # and how many of its units have not ended
    told: set[object] = field(default_factory=set)

    @contextmanager
    def waits(self, task: Task | None, holders: Iterable[Task | None], size: int) -> Iterator[None]:
        """Stand in line, unless the line is full or nobody in it could ever be served."""
        if self.limit is not None and self.length >= self.limit:
            raise _full(self.length, size)
        if task is not None:
            self.waiting[task] = self.waiting.get(task, 0) + 1
        self.length += 1
        try:
            self._refuse_deadlock(list(holders), size)
            yield
        finally:
            self.length -= 1
            if task is not None:
                self._leave(self.waiting, task)

    @contextmanager
    def gathers(self, units: int) -> Iterator[Task | None]:
        """Note that this task waits for units that need connections of their own."""
        task = asyncio.current_task()
        if task is not None:
            self.gathering[task] = self.gathering.get(task, 0) + units
        try:
            yield task
        finally:
            if task is not None:
                self.gathering.pop(task, None)

    def ended(self, task: Task | None) -> None:
        """Note that one of the units that a task waits for has ended: it will go on when the last has."""
        if task in self.gathering:
            self._leave(self.gathering, task)

    def tell_nested(self, task: Task, size: int) -> None:
        """Warn, once a place, of a task that holds a connection and asks for another."""
        if len(self.told) >= _PLACES:
            return
        place = calling_place()
        if place in self.told:
            return
        self.told.add(place)
        log.warning(
            "%s%s holds a connection and asks for another: %d of them at once, and each waits for the others' first"
            " one. Use one session for both, or end the first before the second begins",
            current_route() or f"task {task.get_name()!r}",
            f" at {place}" if place else "",
            size,
        )

    def _refuse_deadlock(self, holders: list[Task | None], size: int) -> None:
        """Raise if every connection is held by a task that waits here itself: none would ever come free."""
        if len(holders) < size or not all(task in self.waiting or task in self.gathering for task in holders):
            return
        named = ", ".join(described(task) for task in holders[:3] if task is not None)
        raise PoolExhaustedError(
            f"no connection can come free: all {size} are held by tasks that wait for another one ({named}).",
            why="Each holds one and asks for a second, or for units that need one: they wait for each other.",
            do=[
                "Use one session for both, or end the first before the second begins:   await session.commit()",
                "Call db.gather(...) before a session is opened, not inside of its block.",
            ],
            page=_PAGE,
        )

    @staticmethod
    def _leave(line: dict[Task, int], task: Task) -> None:
        line[task] -= 1
        if not line[task]:
            del line[task]


def described(task: Task | None, since: str = "") -> str:
    """Name a task by the request that it answers, and the application's line where it stands."""
    if task is None:
        return f"a task that has ended{since}"
    place = place_in(task)
    where = f" ({place})" if place else ""
    return f"{request_in(task) or task.get_name()}{since}{where}"


def exhausted(  # what is known of a pool, as it is told
    held: Sequence[tuple[Task | None, float]], seconds: float, out: int, limits: tuple[int, int], workers: int
) -> PoolExhaustedError:
    """Return the error for a wait that was in vain: who holds the connections, the longest first, and for how long."""
    me, (size, overflow) = asyncio.current_task(), limits
    limit = size + overflow
    longest = ", ".join(described(task, f" {since:.1f} s") for task, since in held[:3])
    mine = sum(task is me for task, _ in held if task is not None)
    own = [f"This task holds {mine} of them itself: use one session, or close the first."] if mine else []
    return PoolExhaustedError(
        f"no connection came free in {seconds:.1f} s; {out} of {limit} are checked out "
        f"({size} pool + {overflow} overflow).",
        why=f"Longest holders: {longest or 'unknown'}.",
        do=[
            *own,
            (
                f"Shorten those transactions, or raise pool_size: {workers} workers x {limit} = "
                f"{workers * limit} connections of the server are yours."
            ),
        ],
        page=_PAGE,
    )


def shutting_down() -> ShuttingDownError:
    """Return the error for whoever asks for a connection while the application ends."""
    return ShuttingDownError(
        "no connection to the database: this application is shutting down.",
        why="What is under way may finish; nothing new begins. Nothing was run.",
        page="errors/connection-errors",
    )


def _full(length: int, size: int) -> PoolExhaustedError:
    return PoolExhaustedError(
        f"{length} callers wait for a connection already, and more may not: max_waiting={length}.",
        why=f"All {size} connections are in use; whoever came last would be answered after its client gave up.",
        do=["Send it again later, or shorten the transactions that hold the connections."],
        page=_PAGE,
    )
