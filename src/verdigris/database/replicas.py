"""Read replicas: how far each is known to have followed, and which one a read may go to.

While somebody reads, a follower per replica asks the primary for the end of its log and the replica for how much of it
is replayed. When the replica has reached what the primary said at a moment, all that was committed before that moment
is there: the moment is the replica's horizon. A read then costs no question. It may go to a replica whose horizon is
young enough, and later than the last commit of the task or request that reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.util import greenlet_spawn

from verdigris.engine.homes import OfLoop
from verdigris.engine.pool import Pool
from verdigris.errors import PositionError, StandbyError
from verdigris.errors.classify import FAILURES
from verdigris.performance.sites import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger("verdigris")

_WRITTEN = "SELECT pg_current_wal_insert_lsn()::text"
_WRITTEN_HERE = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END"
_REPLAYED = "SELECT pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()"
_REST = 30.0  # seconds without a read after which the followers rest
_SAMPLES = 64
_MARK = "verdigris.wrote"


@dataclass(eq=False, slots=True)
class Replica:
    """One replica: its engine, and how far it is known to have followed, in moments of `time.monotonic()`."""

    engine: AsyncEngine
    replayed: int = 0  # the position in the log up to which everything is here
    horizon: float = -math.inf  # everything that was committed before this moment is here
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    @property
    def lag(self) -> float:
        """At most how many seconds of commits are missing here; infinite where nothing is known."""
        return time.monotonic() - self.horizon

    def down(self) -> None:
        """Forget what is known: no read goes here until the follower has reached it again."""
        self.replayed, self.horizon = 0, -math.inf
        self.samples.clear()

    def reached(self, position: int, samples: Sequence[tuple[float, int]]) -> None:
        """Take note of how far the replica has replayed the log whose end the samples say for several moments."""
        self.replayed = position
        self.horizon = max([self.horizon, *(moment for moment, end in samples if end <= position)])

    def has_room(self) -> bool:
        """Whether a connection would be had at once."""
        pool = self.engine.sync_engine.pool
        return not isinstance(pool, Pool) or pool.limit < 0 or pool.here().checkedout() < pool.limit


@dataclass(eq=False, slots=True)
class _Followed:
    """What one event loop knows of the replicas, and its tasks that follow them; what another one knows is its own."""

    replicas: list[Replica]
    followers: list[asyncio.Task[None]] = field(default_factory=list)
    asked: float = -math.inf


class Replicas:
    """The replicas of a database, followed while they are read from; empty for a database without any."""

    def __init__(self, primary: AsyncEngine, engines: Sequence[AsyncEngine], max_lag: float) -> None:
        self.max_lag = max_lag
        self._engines = list(engines)
        self._primary = primary
        self._interval = min(0.5, max(0.01, max_lag / 5))
        self._of_loops: OfLoop[_Followed] = OfLoop(self._unfollowed)
        self._wrote: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
        if engines:
            _after_commit(primary, self.wrote)
        for number, engine in enumerate(engines):
            event.listen(engine.sync_engine, "handle_error", self._downs(number))

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._of_loops.here().replicas if self._engines else ())

    def __len__(self) -> int:
        return len(self._engines)

    @property
    def engines(self) -> Sequence[AsyncEngine]:
        """Each replica's own."""
        return self._engines

    def choose(self, after: int, max_lag: float | None) -> Replica | None:
        """Return the replica that a read may go to, the one with the fewest users; None if it is for the primary."""
        if not self._engines:
            return None
        followed = self._follow()
        youngest = time.monotonic() - (self.max_lag if max_lag is None else max_lag)
        needed = max(youngest, self._last_commit())
        fit = [
            replica
            for replica in followed.replicas
            if replica.horizon >= needed and replica.replayed >= after and replica.has_room()
        ]
        return min(fit, key=_users, default=None)

    def wrote(self, *tasks: asyncio.Task[Any] | None) -> None:
        """Take note that the request, or else these tasks, have committed: they read nothing older from now on."""
        scope = REQUEST.get()
        if scope is not None:
            scope[_MARK] = time.monotonic()  # type: ignore[index]  # a dict, as ASGI has it
            return
        for task in {asyncio.current_task(), *tasks} - {None}:
            self._wrote[task] = time.monotonic()  # type: ignore[index]  # mypy keeps the None

    async def position(self) -> str:
        """Return the end of the primary's log: what was committed before is in a replica that has come so far."""
        async with self._primary.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            written = await driver.fetchval(_WRITTEN_HERE)
        if written is None:
            raise StandbyError(
                "the database takes no writes now: it is a standby, whose log ends elsewhere.",
                why="A position says what was written before it, and only the server that takes writes knows.",
                do=['Name all hosts, and the one that takes writes is found:   "postgresql://app@one,two/shop"'],
                page="docs/topologies.md",
            )
        return str(written)

    async def aclose(self) -> None:
        """Stop following in this event loop; the replicas' engines are disposed of like the primary's."""
        followed = self._of_loops.here()
        followers, followed.followers = followed.followers, []
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        for replica in followed.replicas:
            replica.down()

    def _unfollowed(self) -> _Followed:
        return _Followed([Replica(engine) for engine in self._engines])

    def _last_commit(self) -> float:
        scope = REQUEST.get()
        if scope is not None:
            return float(scope.get(_MARK, -math.inf))
        task = asyncio.current_task()
        return self._wrote.get(task, -math.inf) if task is not None else -math.inf

    def _follow(self) -> _Followed:
        """Let the followers run in this process and event loop."""
        followed = self._of_loops.here()
        followed.asked = time.monotonic()
        if all(follower.done() for follower in followed.followers):
            followed.followers = [
                asyncio.create_task(self._keep_following(followed, replica)) for replica in followed.replicas
            ]
        return followed

    async def _keep_following(self, followed: _Followed, replica: Replica) -> None:
        line, primary, known = _Line(replica.engine), _Line(self._primary), True
        try:
            while time.monotonic() - followed.asked < _REST:
                known = self._told(replica, known, await self._look(replica, line, primary))
                await asyncio.sleep(self._interval)
        finally:
            replica.down()
            line.drop()
            primary.drop()

    def _downs(self, number: int) -> Callable[[ExceptionContext], None]:
        def on_error(context: ExceptionContext) -> None:
            if context.is_disconnect:
                self._of_loops.here().replicas[number].down()

        return on_error

    async def _look(self, replica: Replica, line: _Line, primary: _Line) -> bool:
        """Look once how far a replica has come; False if it, or the primary, does not say."""
        patience = max(1.0, self.max_lag)
        moment = time.monotonic()  # before the question: whatever is committed by now is within the answer
        try:
            replica.samples.append((moment, position_of(await primary.ask(_WRITTEN, patience))))
            replayed = await line.ask(_REPLAYED, patience)
        except FAILURES:
            replica.down()
            return False
        if replayed is None:  # not a standby, or no longer: its log is another one
            replica.down()
            return False
        replica.reached(position_of(replayed), replica.samples)
        return True

    def _told(self, replica: Replica, was: bool, now: bool) -> bool:  # noqa: FBT001 - two states of one thing
        if was != now:
            name = replica.engine.url.render_as_string()
            log.log(
                logging.INFO if now else logging.WARNING, "replica %s %s", name, "is back" if now else "is not used"
            )
        return now


class _Line:
    """A connection of its own beside the pool: a full pool must not look like a lag."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = engine.sync_engine.pool
        self._driver: Any = None

    async def ask(self, question: str, seconds: float) -> Any:
        """Return the answer, or raise within so many seconds; a connection that failed is made anew the next time."""
        try:
            async with asyncio.timeout(seconds):
                if self._driver is None or self._driver.is_closed():
                    made = await greenlet_spawn(self._pool._invoke_creator, None)  # noqa: SLF001 - connects, no more
                    self._driver = made.driver_connection
                return await self._driver.fetchval(question)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Close without a word."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.terminate()


def position_of(text: str) -> int:
    """Return a position in the log, `16/B374D848`, as a number; raises PositionError for anything else."""
    high, slash, low = str(text).partition("/")
    with contextlib.suppress(ValueError):
        if slash:
            return (int(high, 16) << 32) + int(low, 16)
    raise PositionError(
        f"{str(text)[:40]!r} is no position in the log of a database.",
        why="PostgreSQL writes one as 16/B374D848; what a client sends back may be anything.",
        do=["Pass on what `await db.position()` returned:   db.read(after=position)"],
        page="docs/topologies.md",
    )


def _users(replica: Replica) -> int:
    pool = replica.engine.sync_engine.pool
    return pool.here().checkedout() if isinstance(pool, Pool) else 0


def _after_commit(engine: AsyncEngine, wrote: Any) -> None:
    dialect: Any = engine.sync_engine.dialect
    stock = dialect.do_commit

    def do_commit(connection: Any) -> None:
        stock(connection)
        pool = engine.sync_engine.pool  # `sessionmaker.begin()` commits in a task of its own: the user's is the holder
        wrote(pool.here().holder_of(connection.driver_connection) if isinstance(pool, Pool) else None)

    dialect.do_commit = do_commit
