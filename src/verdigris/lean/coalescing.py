"""Coalescing: reads of one statement that wait in the same moment go to the server together, where that pays.

While some are on their way, those that come meanwhile wait for them to land and then take off as one: one round trip,
one connection, one wakeup for all of them. Nobody waits for company that may not come: a read goes at once where few
are asked for, and where many are, the first goes with all that were asked for in the same turn of the event loop. A
statement whose time is mostly PostgreSQL's gains nothing from company and loses the server's other cores: each
statement's two times are compared, what a read takes alone and what it takes among others. One that takes longer than
some milliseconds never goes with others, and where one of a flight does, the next takes off without it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from verdigris._one_write import answer_together
from verdigris.engine.deadlines import Deadlines
from verdigris.errors import PoolExhaustedError, classify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verdigris.lean.lane import Lane

    _Reader = tuple[Sequence[Any], asyncio.Future[Any]]  # the arguments, and who waits for the value

#: Reads in one flight. All of them wake at once, and the garbage collector counts what each request then holds. As
#: Python has it, it goes through the whole heap about once a second, for 50 ms, with 64 requests of FastAPI's, and with
#: 24; as `install` has it, 32 and 64 do no harm, and no good.
MOST, MOST_OF_ROUTES = 20, 32
_LONGEST = 0.005  # seconds that a read takes alone, and that a flight is expected to take
_PATIENCE = 0.02  # seconds after which those who wait no longer wait for a flight
_REQUEST = 0.0001  # seconds that a read costs the application at least
_LONE = 2  # reads on their way alone, beside which the next waits
_CROWD = 2.0  # reads that go in the same moment, on average, from which on the first waits for the turn to end
_PAYS = 0.65  # of what a read takes alone: what takes longer in company is not worth a flight
_TRIED_AGAIN, _TRY = 2048, 64  # so many reads, of which so many fly in company although it did not pay
_ASKED = 256  # reads in company, of which one goes alone, to know what that takes
_KEPT = 500  # statements
_OF_ARGUMENTS = frozenset({"21", "22", "P0"})  # classes of SQLSTATE
_WINDOW = 256  # measurements, after which older ones are forgotten


@dataclass(slots=True)
class _Least:
    """The least of what was measured of late: what exceeds it was spent in a busy event loop, as all do alike."""

    value: float = inf
    before: float = inf
    now: float = inf
    count: int = 0

    def add(self, seconds: float) -> None:
        if seconds < self.now:
            self.now = seconds
            self.value = min(self.before, seconds)
        self.count += 1
        if self.count == _WINDOW:
            self.value = self.before = self.now
            self.now, self.count = inf, 0


@dataclass(slots=True)
class _Statement:
    """One statement: what of it is in the air, who waits, and what a read of it takes, in seconds."""

    text: str
    most: int  # reads in one flight
    lone: int = 0  # reads on their way, each for itself
    flights: set[Any] = field(default_factory=set)  # tasks, of several reads each: the next wait for these
    boarding: bool = False  # one takes off when this turn of the event loop ends
    crowd: float = 1.0  # how many went in the same moment, smoothed
    reads: int = 0
    alone: _Least = field(default_factory=_Least)
    shared: _Least = field(default_factory=_Least)
    waiting: list[_Reader] = field(default_factory=list)

    def goes_alone(self) -> bool:
        """Tell whether the next read goes at once and for itself."""
        self.reads += 1
        alone, shared = self.alone.value, self.shared.value
        if alone > _LONGEST or (self.lone < _LONE and not self.flights and self.crowd < _CROWD):
            return True
        if shared < _PAYS * alone:
            return self.reads % _ASKED == 0
        return shared < inf and self.reads % _TRIED_AGAIN >= _TRY

    def full(self) -> bool:
        """Tell whether as many are in the air as keep the server ahead of the application; nobody gains from more."""
        return len(self.flights) > self._each() / _REQUEST

    def aboard(self) -> list[_Reader]:
        """Take out of those who wait as many as make a flight of the length that is wanted."""
        most = min(self.most, max(2, int(_LONGEST / self._each())))
        found = [(arguments, future) for arguments, future in self.waiting[:most] if not future.done()]
        del self.waiting[:most]
        return found

    def _each(self) -> float:
        """Return what a read of a flight is expected to take; as much as one alone, while nothing is known."""
        return min(self.shared.value, self.alone.value)

    def failed(self) -> None:
        """Let the next ones go alone for some time: what is in the way of one shall not be in the way of all."""
        self.shared = _Least(self.alone.value)
        self.reads = _TRY

    def went(self, reads: int) -> None:
        """Learn from how many went in the same moment."""
        self.crowd += 0.1 * (reads - self.crowd)

    def landed(self, seconds: float, reads: int) -> None:
        """Learn from how long a flight took."""
        self.went(reads)
        (self.shared if reads > 1 else self.alone).add(seconds / reads)


class Together:
    """Sends the reads of a lane, in one event loop, together where they wait for each other anyway."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.loop = asyncio.get_running_loop()
        self._late = Deadlines(self.loop)  # of flights
        self._statements: dict[str, _Statement] = {}
        self._flights: set[asyncio.Task[None]] = set()

    async def fetchval(self, statement: str, arguments: Sequence[Any], most: int = MOST) -> Any:
        """Return the one value of a statement that gives at most one row; None if it gives none.

        A read whose arguments are wrong fails alone. A read that is cancelled leaves the others on their way.
        """
        group = self._group(statement, most)
        if not group.goes_alone():
            return await self._with_others(group, arguments)
        group.lone += 1
        try:
            rows = await self._lane.fetch(group.text, arguments, took=group.alone.add)
        finally:
            group.lone -= 1
        group.went(1)
        return rows[0][0]

    def _group(self, statement: str, most: int) -> _Statement:
        group = self._statements.get(statement)
        if group is None:
            if len(self._statements) >= _KEPT:
                self._statements = {}
            text = f"SELECT ({statement})"  # one row, whatever it finds
            group = self._statements[statement] = _Statement(text, most)
        return group

    async def _with_others(self, group: _Statement, arguments: Sequence[Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        group.waiting.append((arguments, future))
        if not group.boarding and not group.full():
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
        group.boarding = True
        flight = asyncio.get_running_loop().create_task(self._fly(group))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _fly(self, group: _Statement) -> None:
        group.boarding = False
        aboard, flight = group.aboard(), asyncio.current_task()
        if aboard:
            group.flights.add(flight)
        if group.waiting and not group.full():
            self._take_off(group)
        if not aboard:
            return
        began = perf_counter()
        late = self._late.call_later(_PATIENCE, self._next, group, flight)
        try:
            await self._flown(group, aboard)
            group.landed(perf_counter() - began, len(aboard))
        finally:
            late.cancel()
            self._next(group, flight)

    def _next(self, group: _Statement, flight: asyncio.Task[None] | None) -> None:
        """Let the next take off behind a flight that has landed, or is late."""
        group.flights.discard(flight)
        if group.waiting and not group.boarding and not group.full():
            self._take_off(group)

    async def _flown(self, group: _Statement, aboard: list[_Reader]) -> None:
        try:
            rows = await self._lane.fetch_each(group.text, [arguments for arguments, _ in aboard])
        except PoolExhaustedError as error:  # whoever waited longer would wait in vain, too
            for _, future in aboard:
                if not future.done():
                    future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - each is told its own
            if not _is_of_a_reader(error):
                group.failed()
            await self._each_alone(group, aboard)
        except BaseException:
            for _, future in aboard:
                future.cancel()
            raise
        else:
            answer_together([(future, row[0]) for (_, future), row in zip(aboard, rows, strict=True)])

    async def _each_alone(self, group: _Statement, aboard: list[_Reader]) -> None:
        """Run each for itself, at once: where all fail, a lock is in the way perhaps, and they wait for it together."""
        try:
            await asyncio.gather(*[self._alone(group, *reader) for reader in aboard if not reader[1].done()])
        finally:
            for _, future in aboard:
                future.cancel()  # if this task was

    async def _alone(self, group: _Statement, arguments: Sequence[Any], future: asyncio.Future[Any]) -> None:
        try:
            row = (await self._lane.fetch(group.text, arguments, timed=False))[0]
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(row[0])


def _is_of_a_reader(error: Exception) -> bool:
    """Tell whether a flight failed by the arguments of one aboard; not by what all of them met."""
    sqlstate = classify(error).sqlstate
    return sqlstate[:2] in _OF_ARGUMENTS if sqlstate else not isinstance(error, OSError)  # as timeouts are
