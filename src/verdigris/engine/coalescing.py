"""Coalescing: reads of one statement that wait in the same moment go to the server together, where that pays.

While some are on their way, those that come meanwhile wait for them to land and then take off as one: one round trip,
one connection, one wakeup for all of them. Nobody waits for company that may not come: a read goes at once where few
are asked for, and where many are, the first goes with all that were asked for in the same turn of the event loop. A
statement whose time is mostly PostgreSQL's gains nothing from company and loses the server's other cores: each
statement's two times are compared, what a read takes alone and what it takes among others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verdigris.engine.lane import Lane

_MOST = 64  # reads in one flight
_LONE = 2  # reads on their way alone, beside which the next waits
_CROWD = 2.0  # reads that go in the same moment, on average, from which on the first waits for the turn to end
#: Of what a read takes alone: what takes longer than that in company is not worth a flight. At half of it, flights one
#: after the other answer no fewer reads than the application could ask for one by one.
_PAYS = 0.5
_TRIED_AGAIN, _TRY = 2048, 64  # so many reads, of which so many fly in company although it did not pay
_KEPT = 500  # statements


@dataclass(slots=True)
class _Statement:
    """One statement: what of it is in the air, who waits, and what a read of it takes, in seconds, smoothed."""

    text: str
    lone: int = 0  # reads on their way, each for itself
    flying: bool = False  # others together, or about to
    crowd: float = 1.0  # how many went in the same moment, smoothed
    reads: int = 0
    alone: float = 0.0
    shared: float = 0.0
    waiting: list[tuple[Sequence[Any], asyncio.Future[Any]]] = field(default_factory=list)

    def goes_alone(self) -> bool:
        """Tell whether the next read goes at once and for itself."""
        self.reads += 1
        if self.lone < _LONE and not self.flying and self.crowd < _CROWD:
            return True
        pays = self.shared < _PAYS * self.alone or not self.shared
        return not pays and self.reads % _TRIED_AGAIN >= _TRY

    def landed(self, seconds: float, reads: int, *, beside: int = 0) -> None:
        """Learn from how long a flight took, or a read `beside` which so many others were on their way."""
        self.crowd += 0.1 * (reads - self.crowd)
        if reads > 1:
            self.shared += 0.2 * (seconds / reads - self.shared) if self.shared else seconds / reads
        elif beside < _LONE:  # beside many others it took as long as they did
            self.alone += 0.2 * (seconds - self.alone) if self.alone else seconds


class Together:
    """Sends the reads of a lane together where they wait for each other anyway."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._loop: asyncio.AbstractEventLoop | None = None
        self._statements: dict[str, _Statement] = {}
        self._flights: set[asyncio.Task[None]] = set()

    async def fetchval(self, statement: str, arguments: Sequence[Any]) -> Any:
        """Return the one value of a statement that gives at most one row; None if it gives none.

        A read whose arguments are wrong fails alone. A read that is cancelled leaves the others on their way.
        """
        group = self._group(statement)
        if not group.goes_alone():
            return await self._with_others(group, arguments)
        group.lone += 1
        began = perf_counter()
        try:
            return (await self._lane.fetch(group.text, arguments))[0][0]
        finally:
            group.lone -= 1
            group.landed(perf_counter() - began, 1, beside=group.lone)

    def _group(self, statement: str) -> _Statement:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was in the air in another loop never lands
            self._loop = loop
            self._statements = {}
        group = self._statements.get(statement)
        if group is None:
            if len(self._statements) >= _KEPT:
                self._statements = {}
            group = self._statements[statement] = _Statement(f"SELECT ({statement})")  # one row, whatever it finds
        return group

    async def _with_others(self, group: _Statement, arguments: Sequence[Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        group.waiting.append((arguments, future))
        if not group.flying:
            self._take_off(group)
        began, failure = perf_counter(), None
        try:
            return await future
        except BaseException as error:
            failure = error
            raise
        finally:  # here, where the place and the request are those of who asked
            self._lane.executed(group.text, arguments, perf_counter() - began, 1, failure)

    def _take_off(self, group: _Statement) -> None:
        """Let those who wait go as one flight, with those who come before this turn of the event loop ends."""
        group.flying = True
        flight = asyncio.get_running_loop().create_task(self._fly(group))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _fly(self, group: _Statement) -> None:
        aboard = [(arguments, future) for arguments, future in group.waiting[:_MOST] if not future.done()]
        del group.waiting[:_MOST]
        began = perf_counter()
        try:
            if aboard:
                await self._flown(group, aboard)
                group.landed(perf_counter() - began, len(aboard))
        finally:
            group.flying = False
            if group.waiting:
                self._take_off(group)

    async def _flown(self, group: _Statement, aboard: list[tuple[Sequence[Any], asyncio.Future[Any]]]) -> None:
        try:
            rows = await self._lane.fetch_each(group.text, [arguments for arguments, _ in aboard])
        except Exception:  # noqa: BLE001 - each is told its own
            await self._one_by_one(group, aboard)
        except BaseException:
            for _, future in aboard:
                future.cancel()
            raise
        else:
            for (_, future), row in zip(aboard, rows, strict=True):
                if not future.done():
                    future.set_result(row[0])

    async def _one_by_one(self, group: _Statement, aboard: list[tuple[Sequence[Any], asyncio.Future[Any]]]) -> None:
        """Run each for itself: the one whose arguments the server refuses is the one that fails."""
        for arguments, future in aboard:
            if future.done():
                continue
            try:
                row = (await self._lane.fetch(group.text, arguments, timed=False))[0]
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(row[0])
