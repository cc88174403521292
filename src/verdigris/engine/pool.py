"""The pool: SQLAlchemy's own, which also knows who holds its connections and where they live."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import asyncpg
from sqlalchemy import exc as sa_exc
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import base as pool_base
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty

from verdigris._background import in_background
from verdigris.engine.beside import Beside, lives
from verdigris.engine.driver import ours
from verdigris.engine.handoff import HandOffQueue
from verdigris.engine.homes import AtTheEnd, Home, abandon
from verdigris.engine.state import Leavings, Tracked
from verdigris.engine.waiting import Queue, exhausted, shutting_down
from verdigris.errors.classify import met_database

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from verdigris.errors import PoolExhaustedError
    from verdigris.performance.pool import Gauges

_RECYCLE_JITTER = 0.2  # a connection lives between 80 and 100 % of pool_recycle


class _Held(NamedTuple):
    """A checkout; a tuple, as one is made in each."""

    since: float
    task: weakref.ref[asyncio.Task[Any]] | None
    task_id: int
    home: object


#: A connection that was checked out without a proxy: of which pool, its record, and asyncpg's own connection in it.
Taken: TypeAlias = "tuple[Pool, ConnectionPoolEntry, Any]"
_held = tuple.__new__  # a third of what the class itself takes, in each checkout


class _Record(_ConnectionRecord):
    """The place of a connection in the pool, which replaces it after a lifetime of its own.

    Its start stays as it is: what has started before a failover is dropped after it, and nothing that came later.
    """

    lifetime: float = math.inf

    def get_connection(self) -> Any:
        """Return the connection, or a new one where it has become too old or is invalidated."""
        if self.dbapi_connection is not None and time.time() - self.starttime > self.lifetime:
            self._soft_invalidate_time = time.time()
        return super().get_connection()


@dataclass(slots=True)
class _Extras:
    held: dict[ConnectionPoolEntry, _Held] = field(default_factory=dict)
    holding: dict[int, int] = field(default_factory=dict)  # ids of tasks, and how many connections each holds
    queue: Queue = field(default_factory=Queue)
    clears: bool = True  # what users leave in their session
    told: Leavings = field(default_factory=Leavings)
    home: Home | None = None
    beside: Beside = field(default_factory=Beside)
    at_the_end: AtTheEnd | None = None
    disposed: bool = False  # of the pool that lives here: the others go on
    workers: int = 1
    abandoned: list[object] = field(default_factory=list)
    closing: bool = False  # the application shuts down: nothing is handed out any more

    def free(self, held: _Held) -> None:
        """Count one connection less for the task that held it."""
        left = self.holding.get(held.task_id, 0) - 1
        if left > 0:
            self.holding[held.task_id] = left
        else:
            self.holding.pop(held.task_id, None)


class Pool(AsyncAdaptedQueuePool):
    """A queue pool that names its holders when exhausted, and starts afresh after a fork or in another event loop.

    Where event loops run side by side, in threads, the engine's pool has another one like it for each.
    """

    _queue_class = HandOffQueue  # type: ignore[assignment]  # of records
    gauges: Gauges | None = None  # who counts checkouts
    _extras: _Extras | None = None  # not from __init__: a team's own pool becomes one of these by its class alone

    @property
    def extras(self) -> _Extras:
        """What this pool keeps beyond SQLAlchemy's."""
        if self._extras is None:
            self._extras = _Extras()
        return self._extras

    @property
    def limit(self) -> int:
        """How many connections may be open at once; -1 where there is no limit."""
        return self.size() + self._max_overflow if self._max_overflow >= 0 else -1

    def connect(self) -> PoolProxiedConnection:
        extras = self._extras or self.extras
        if extras.home is None or not extras.home.lasts():
            here = self.here()
            if here is not self:
                return here.connect()
        if extras.closing and not in_background():
            raise shutting_down()
        task = _current_task()
        if id(task) in extras.holding and any(held.task and held.task() is task for held in extras.held.values()):
            extras.queue.tell_nested(cast("asyncio.Task[Any]", task), self.limit)
        if -1 < self._max_overflow <= self._overflow and self._pool.empty():
            connection = self._connect_in_turn(extras, task)
        else:
            connection = super().connect()
        record = connection._connection_record  # noqa: SLF001 - no public way to it
        self._hold(extras, record, driver_of(record), task)
        return connection

    def _connect_in_turn(self, extras: _Extras, task: asyncio.Task[Any] | None) -> PoolProxiedConnection:
        holders = (held.task() if held.task else None for held in extras.held.values())
        with extras.queue.waits(task, holders, self.limit):
            try:
                return super().connect()
            except sa_exc.TimeoutError as error:
                raise self._exhausted(extras) from error

    def hands_out_at_once(self) -> bool:
        """Tell whether `connect()` would neither connect, nor wait, nor ping, nor call listeners: it needs no greenlet.

        True is certain as long as nothing is awaited between this question and `connect()`.
        """
        extras = self.extras
        queue: Any = self._pool
        if extras.home is None or not extras.home.lasts():
            beside = extras.beside.found()
            return beside is not None and beside.hands_out_at_once()
        if self.dispatch.checkout:
            return False
        if not isinstance(queue, HandOffQueue) or queue.empty():
            return False
        return self._ready(queue.next()) is not None

    def _ready(self, record: Any) -> Any:
        """Return the driver's connection if handing it out would neither replace it nor ask it; else None."""
        driver: Any = driver_of(record)
        if (
            driver is not None
            and not driver.is_closed()
            and time.monotonic() - driver.released < driver.settings.ping_after
            and not record._is_hard_or_soft_invalidated()  # noqa: SLF001 - as SQLAlchemy asks before it hands out
            and time.time() - record.starttime <= record.lifetime
        ):
            return driver
        return None

    def take(self) -> Taken | None:
        """Check out a connection without the proxy of a checkout, if that can be done at once; `give` takes it back.

        For who holds it through one statement and gives it back on every path. None where anybody watches the pool, and
        for a task that holds another connection, which is told so by `connect()`.
        """
        extras, queue = self._extras, self._pool
        if extras is None or type(queue) is not HandOffQueue:
            return None
        home = extras.home
        if home is None or not home.lasts():
            beside = extras.beside.found()
            return None if beside is None else beside.take()
        if not queue.items or extras.closing or self._watched():
            return None
        record: Any = queue.items[-1 if queue.use_lifo else 0]
        driver, task = self._ready(record), asyncio.current_task()
        if driver is None or id(task) in extras.holding:
            return None
        queue.get_nowait()
        self._hold(extras, record, driver, task)
        if self.gauges is not None:
            self.gauges.at_once()
        return self, record, driver

    async def take_in_turn(self) -> Taken | None:
        """Wait for a connection as `connect()` does where all are in use, without a greenlet; None for what needs one.

        Raises PoolExhaustedError after the pool's timeout.
        """
        extras, queue = self.extras, self._pool
        task = asyncio.current_task()
        if extras.home is None or not extras.home.lasts():
            beside = extras.beside.found()
            return None if beside is None else await beside.take_in_turn()
        if (
            extras.closing
            or not isinstance(queue, HandOffQueue)
            or not -1 < self._max_overflow <= self._overflow
            or queue.items
            or id(task) in extras.holding
            or self._watched()
        ):
            return None
        began = self.gauges.asked() if self.gauges is not None else 0.0
        got = False
        try:
            record: ConnectionPoolEntry
            if extras.queue.limit is None and not extras.queue.gathering:  # one who holds nothing blocks nobody
                record = await queue.turn(self._timeout)
            else:
                holders = (held.task() if held.task else None for held in extras.held.values())
                with extras.queue.waits(task, holders, self.limit):
                    record = await queue.turn(self._timeout)
            got = True
        except asyncio.CancelledError as cancelled:
            met_database(cancelled)
            raise
        except (TimeoutError, sa_exc.TimeoutError) as error:  # the second: the line is full, or nobody in it is served
            if self.gauges is not None:
                self.gauges.timeouts += 1
            if isinstance(error, TimeoutError):
                raise self._exhausted(extras) from error
            raise
        finally:
            if self.gauges is not None:
                self.gauges.answered(began, got=got)
        driver = self._ready(record)
        if driver is None:
            queue.put_back(record)  # not to the next in line: this one's turn has come, and `connect()` takes it
            return None
        self._hold(extras, record, driver, task)
        return self, record, driver

    def _hold(self, extras: _Extras, record: ConnectionPoolEntry, driver: Any, task: asyncio.Task[Any] | None) -> None:
        if driver is not None:
            driver.released = 0.0
            if driver.left:  # by listeners that set it up: not a user's leavings
                driver.left, driver.furnished = None, True
        me = id(task) if task else 0
        extras.held[record] = _held(_Held, (time.monotonic(), weakref.ref(task) if task else None, me, extras.home))
        extras.holding[me] = extras.holding.get(me, 0) + 1

    def give(self, record: ConnectionPoolEntry, driver: Any) -> bool:
        """Take back what `take` gave, if nobody has to wait for that; else False: its proxy's `close()` shall do it."""
        if not self.returns_at_once(driver):
            return False
        if self._is_ours(record):
            driver.released = time.monotonic()
            self._pool.put_nowait(record)  # there is room
        return True

    def proxied(self, record: ConnectionPoolEntry) -> PoolProxiedConnection:
        """Return the usual proxy of what `take` gave, which then belongs to it."""
        proxy = _ConnectionFairy(self, cast("Any", record).dbapi_connection, cast("Any", record), echo=False)
        proxy._counter = 1  # noqa: SLF001 - as its own checkout does
        _watch(cast("Any", record), proxy)
        return proxy

    def returns_at_once(self, driver: object) -> bool:
        """Tell whether taking this connection back after its transaction waits for nothing: it needs no greenlet."""
        dispatch, queue = self.dispatch, self._pool
        if getattr(driver, "left", None) or 0 < queue.maxsize <= queue.qsize():
            return False
        return not _hears(dispatch.reset, dispatch.checkin)

    def _watched(self) -> bool:
        dispatch = self.dispatch
        return _hears(dispatch.checkout, dispatch.checkin, dispatch.reset)

    def holder_of(self, driver: object) -> asyncio.Task[Any] | None:
        """Return the task that has checked a driver's connection out, if it is known and still there."""
        for record, held in self.extras.held.items():
            if record.driver_connection is driver:
                return held.task() if held.task else None
        return None

    def resize(self, size: int, max_overflow: int) -> None:
        """Change the limits; only before the first connection, so that no count is in flight."""
        self._pool = self._queue_class(size, use_lifo=self._pool.use_lifo)
        self._overflow, self._max_overflow = 0 - size, max_overflow

    def here(self) -> Pool:
        """Return the pool of the running event loop: this one, unless it lives on in another."""
        extras = self._extras or self.extras
        home = extras.home
        return self if home is not None and home.lasts() else extras.beside.here(self)

    def all_loops(self) -> list[Pool]:
        """Return the engine's pools of all event loops that have not ended."""
        return list(self.extras.beside.living(self))

    def dispose(self) -> None:
        """Close what is idle in this event loop, whose next pool is a new one; those of others go on."""
        here = self._disposed()
        if here is not None:
            super(Pool, here).dispose()

    def terminate(self) -> None:
        """Drop the idle connections of this event loop without a word to the server: for one that does not answer."""
        here = self._disposed()
        with contextlib.suppress(Empty):
            while here is not None:
                driver = here._pool.get(False).driver_connection  # noqa: SLF001 - our own
                if driver is not None:
                    driver.terminate()

    def _disposed(self) -> Pool | None:
        """Take this event loop's pool, if it has one, out of use."""
        extras = self.extras
        extras.disposed = True
        extras.beside.leave_ended()
        here = extras.beside.found() or (None if lives(self) else self)
        if here is not None:
            extras.beside.drop(here)
            if here.extras.at_the_end is not None:
                here.extras.at_the_end.forget()
        return here

    async def end(self) -> None:
        """Close what is idle because the event loop ends; a connection that comes back later is closed by the next."""
        idle: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                record: Any = self._pool.get_nowait()
                if record.dbapi_connection is not None:
                    idle.append(record.driver_connection)
                    record.dbapi_connection = None
                self._dec_overflow()
        await asyncio.gather(*(driver.close() for driver in idle), return_exceptions=True)

    def recreate(self) -> Pool:
        old = self.extras
        if old.disposed and self in old.beside.pools.values():
            old.disposed = False  # this one goes on, in another loop
            return self
        fresh = self.another()
        if not old.disposed:  # without a word to any loop: nothing of them is known any more
            fresh.extras.beside = Beside(usable=old.beside.usable)
        return fresh

    def another(self) -> Pool:
        """Return a pool like this one, in no event loop yet."""
        fresh = super().recreate()
        assert isinstance(fresh, Pool)  # noqa: S101 - recreate() builds its own class
        old = self.extras
        fresh._extras = _Extras(  # noqa: SLF001 - our own
            workers=old.workers,
            queue=Queue(old.queue.limit, told=old.queue.told),
            clears=old.clears,
            told=old.told,
            beside=old.beside,
        )
        fresh.gauges = self.gauges
        return fresh

    def leave(self) -> None:
        """Leave the connections of a process or event loop that was ours: here they would corrupt or never answer."""
        extras = self.extras
        was, extras.home = extras.home, None
        if was is None:
            return
        old, size = self._pool, self.size()
        self.resize(size, self._max_overflow)
        with contextlib.suppress(Empty, RuntimeError):  # the queue of a closed loop may refuse
            while True:
                abandon(old.get(False), was, extras.abandoned)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        driver = ours(connection.driver_connection)
        if driver is None or driver.is_at_home():
            super()._close_connection(connection, terminate=terminate)
        else:  # the garbage collector runs in any task, of another loop too, where no close() could be awaited
            with contextlib.suppress(RuntimeError):  # its loop is closed
                driver.terminate()

    def _invalidate(self, connection: Any, exception: BaseException | None = None, **how: bool) -> None:  # type: ignore[override]  # SQLAlchemy's own affair
        """Replace all connections of this event loop; those of another's pool may be well, or tell so themselves."""
        super(Pool, self.here())._invalidate(connection, exception, **how)

    def _create_connection(self) -> ConnectionPoolEntry:
        return _Record(self)

    def _is_ours(self, record: ConnectionPoolEntry) -> bool:
        """Count a checkout out; False if it was made in another loop or before a fork: abandoned, and not ours."""
        extras = self._extras or self.extras
        held = extras.held.pop(record, None)
        if held is None:
            return True
        if extras.holding.get(held.task_id) == 1:
            del extras.holding[held.task_id]
        else:
            extras.free(held)
        if held.home is extras.home:
            return True
        abandon(record, cast("Home", held.home), extras.abandoned)
        return False

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        home = (self._extras or self.extras).home
        if home is not None and not home.lasts() and home.goes_on():  # the garbage collector runs in any thread
            cast("Any", home.loop).call_soon_threadsafe(self._do_return_conn, record)
            return
        if not self._is_ours(record):
            return
        driver = driver_of(record)
        try:
            if driver is not None:
                if driver.left:
                    self._clear(record, driver, driver.left)
                driver.released = time.monotonic()
        finally:
            super()._do_return_conn(record)

    def _clear(self, record: ConnectionPoolEntry, driver: Tracked, left: dict[str, int]) -> None:
        """Take away what the last user left in the session, in one round trip; nobody else pays for it."""
        clears, clearable = self.extras.clears, driver.clearable
        done = "the next user has it" if not clears else "it was cleared" if clearable else "it was closed"
        self.extras.told.tell(", ".join(left), driver.left_at, done)
        driver.left = None
        if not clears:
            return
        try:
            if clearable:
                await_only(driver.clear())
            else:  # listeners that set this one up set the next one up
                record.invalidate()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, sa_exc.MissingGreenlet) as error:
            driver.terminate()
            record.invalidate(error)
        except BaseException as cancelled:
            driver.terminate()
            record.invalidate(cancelled)
            raise

    def _exhausted(self, extras: _Extras) -> PoolExhaustedError:
        now, holders = time.monotonic(), sorted(extras.held.values(), key=lambda held: held.since)
        tasks = [(held.task() if held.task else None, now - held.since) for held in holders]
        return exhausted(tasks, self._timeout, self.checkedout(), (self.size(), self._max_overflow), extras.workers)


def _hears(*listeners: Any) -> bool:
    """Tell whether there are listeners: asked in each read, of the lists themselves, which is a third of `bool()`."""
    for each in listeners:  # noqa: SIM110 - any() would make a generator
        if each.parent_listeners or each.listeners:
            return True
    return False


def _watch(record: Any, proxy: Any) -> None:
    """Let a record know its proxy, as SQLAlchemy's own checkout does: one that is dropped unclosed is cleaned up."""
    kept: dict[Any, Any] | None = vars(pool_base).get("_strong_ref_connection_records")
    if kept is None:  # SQLAlchemy 2.1: the proxy sees to that itself
        record.fairy_ref = weakref.ref(proxy, lambda _: None)
        return
    pool, finalize = proxy._pool, cast("Any", pool_base)._finalize_fairy  # noqa: SLF001 - what 2.0 calls
    record.fairy_ref = ref = weakref.ref(
        proxy, lambda gone: finalize(None, record, pool, gone, False, transaction_was_reset=False)
    )
    kept[ref] = record


def driver_of(record: Any) -> Any:
    """Return a record's connection of the driver, if it is of our class."""
    adapter = record.dbapi_connection
    return None if adapter is None else ours(adapter.driver_connection)


def adopt(pool: AsyncAdaptedQueuePool) -> Pool:
    """Return a pool like the one given, of our class; both must be unused."""
    fresh = pool.recreate()
    fresh.__class__, fresh._pre_ping = Pool, True  # noqa: SLF001 - no public way to turn it on
    assert isinstance(fresh, Pool)  # noqa: S101 - just made so
    fresh.resize(fresh.size(), fresh._max_overflow)  # noqa: SLF001 - as above; with a queue of ours
    return fresh


def jitter(record: Any, recycle: float) -> None:
    """Give a new connection a lifetime of its own, so that a fleet's connections do not expire together."""
    if recycle >= 0:
        record.lifetime = recycle * random.uniform(1 - _RECYCLE_JITTER, 1)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
