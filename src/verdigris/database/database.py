"""`Database`: one engine, one session factory, and what a service needs around them."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Never, cast

from sqlalchemy.pool import AsyncAdaptedQueuePool
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI resolves the annotation at run time

from verdigris.concurrency import NO_RETRY, Budget, Retry
from verdigris.database import lifecycle
from verdigris.database.build import build, lacking, take_over
from verdigris.database.gathering import SideBySide
from verdigris.database.options import not_adopted
from verdigris.database.reading import Reading
from verdigris.database.replicas import Replicas
from verdigris.database.sessions import factory
from verdigris.database.settings import USUAL, Settings
from verdigris.database.units import S, S_co, Units
from verdigris.database.url import address
from verdigris.engine.pool import Pool
from verdigris.engine.secrecy import without_frames
from verdigris.errors import ConfigurationError
from verdigris.lean.lane import Lane
from verdigris.loading.json.api import JSONReads
from verdigris.performance import instrument
from verdigris.performance.timing import measure
from verdigris.session import AsyncSession
from verdigris.session.request import RequestUnit, until_answered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from verdigris.database.units import SessionFactory
    from verdigris.performance import PoolStatus, Queries

log = logging.getLogger("verdigris")


class Database(Units[S_co], JSONReads):
    """One PostgreSQL database: its engine, its session factory, and the guards that hold the checklist's boxes.

    The URL may be given as people write it (`postgres://`, `sslmode=`); without one, `VERDIGRIS_DATABASE_URL` and then
    `DATABASE_URL` are read. Nothing is connected until the first use. Make one per database, at module level or in the
    lifespan. All times are seconds.

    The pool is sized when the application starts (`lifespan`): from the number of workers (`WEB_CONCURRENCY`, else 1)
    and the server's own limit; until then, and without a lifespan, it is 5 + 5. Other keywords go to
    `create_async_engine`.

    `replicas` are URLs that `read()` may use, `max_lag` how old they may be. `max_waiting` is how many callers may wait
    for a connection; the next is refused at once. With `reset=False` what a checkout leaves in its connection's session
    (SET, advisory locks, temporary tables) is not cleared for the next. `pgbouncer` says whether a pooler
    in transaction mode stands before the server; unsaid, it is found out.

    `explain_slow=True` has slow reads explained, which does not run them; `"analyze"` allows EXPLAIN ANALYZE, which
    runs each once more, in a read-only transaction that is rolled back and limited in time. Writes are never analysed.

    `shortcuts=False` takes SQLAlchemy's and asyncpg's own way wherever there is a shorter one that rests on what they
    keep to themselves: to rule it out when something is odd, or to be on a release of theirs that nobody has tried yet.
    Results and guards are the same, reads and transactions slower. The one write of an answer (uvicorn's) is not meant.

    What it is made of is SQLAlchemy's: `engine`, and the factory `session`. A session of `async with db.session() as
    session` commits when it is told to, one of `db.session.begin()` at the end of the block. `queries` has the times of
    statements, `lane` reads that are text already.

    `session_class` is a class derived from `verdigris.AsyncSession`, of which every session is then, those of `read()`
    and of requests too.

    Raises ConfigurationError for a URL that names another database, another driver or an unknown option, and for an
    option that neither this class nor `create_async_engine` has.
    """

    def __init__(
        self,
        url: str | URL | None = None,
        *,
        replicas: Sequence[str | URL] = (),
        max_lag: float = USUAL.max_lag,
        workers: int | None = USUAL.workers,
        pool_size: int | None = USUAL.pool_size,
        max_overflow: int | None = USUAL.max_overflow,
        pool_timeout: float = USUAL.pool_timeout,
        pool_recycle: int = USUAL.pool_recycle,
        pool_pre_ping: bool = USUAL.pool_pre_ping,
        max_waiting: int | None = USUAL.max_waiting,
        reset: bool = USUAL.reset,
        pgbouncer: bool | None = USUAL.pgbouncer,
        connect_timeout: float | None = USUAL.connect_timeout,
        command_timeout: float | None = USUAL.command_timeout,
        statement_timeout: float | None = USUAL.statement_timeout,
        transaction_timeout: float | None = USUAL.transaction_timeout,
        idle_in_transaction_timeout: float | None = USUAL.idle_in_transaction_timeout,
        commit_timeout: float = USUAL.commit_timeout,
        close_timeout: float = USUAL.close_timeout,
        drain_timeout: float = USUAL.drain_timeout,
        dispose_timeout: float = USUAL.dispose_timeout,
        resolve_timeout: float = USUAL.resolve_timeout,
        isolation_level: str | None = USUAL.isolation_level,
        expire_on_commit: bool = USUAL.expire_on_commit,
        autoflush: bool = USUAL.autoflush,
        close_resets_only: bool = USUAL.close_resets_only,
        guard_tasks: bool = USUAL.guard_tasks,
        guard_commit: bool = USUAL.guard_commit,
        retry: Retry | bool = USUAL.retry,
        slow_query: float = USUAL.slow_query,
        explain_slow: bool | Literal["analyze"] = USUAL.explain_slow,
        time_queries: bool = USUAL.time_queries,
        pool_metrics: bool = USUAL.pool_metrics,
        shortcuts: bool = USUAL.shortcuts,
        session_class: type[S_co] = AsyncSession,  # type: ignore[assignment]  # which it is unless it is said
        **engine_options: Any,
    ) -> None:
        try:
            settings = Settings(
                max_lag=max_lag,
                workers=workers,
                pool_size=pool_size,
                max_overflow=max_overflow,
                pool_timeout=pool_timeout,
                pool_recycle=pool_recycle,
                pool_pre_ping=pool_pre_ping,
                max_waiting=max_waiting,
                reset=reset,
                pgbouncer=pgbouncer,
                connect_timeout=connect_timeout,
                command_timeout=command_timeout,
                statement_timeout=statement_timeout,
                transaction_timeout=transaction_timeout,
                idle_in_transaction_timeout=idle_in_transaction_timeout,
                commit_timeout=commit_timeout,
                close_timeout=close_timeout,
                drain_timeout=drain_timeout,
                dispose_timeout=dispose_timeout,
                resolve_timeout=resolve_timeout,
                isolation_level=isolation_level,
                expire_on_commit=expire_on_commit,
                autoflush=autoflush,
                close_resets_only=close_resets_only,
                guard_tasks=guard_tasks,
                guard_commit=guard_commit,
                retry=retry,
                slow_query=slow_query,
                explain_slow=explain_slow,
                time_queries=time_queries,
                pool_metrics=pool_metrics,
                shortcuts=shortcuts,
                session_class=session_class,
                options=engine_options,
            )
            engine = build(address(url), settings)
            reading = replace(settings, isolation_level=None)  # a standby refuses SERIALIZABLE; reads say theirs
            others = [build(address(each), reading) for each in replicas]
        except ConfigurationError as error:
            url, replicas = None, ()  # this frame is part of what a tracker of errors keeps
            raise without_frames(error) from None
        self._chosen = (pool_size, max_overflow)
        self._adopted = False
        self._attach(engine, settings, Replicas(engine, others, max_lag))

    @classmethod
    def from_engine(
        cls,
        engine: AsyncEngine,
        *,
        hide_parameters: bool = USUAL.hide_parameters,
        workers: int | None = USUAL.workers,
        max_waiting: int | None = USUAL.max_waiting,
        reset: bool = USUAL.reset,
        pgbouncer: bool | None = USUAL.pgbouncer,
        connect_timeout: float | None = USUAL.connect_timeout,
        command_timeout: float | None = USUAL.command_timeout,
        statement_timeout: float | None = USUAL.statement_timeout,
        transaction_timeout: float | None = USUAL.transaction_timeout,
        idle_in_transaction_timeout: float | None = USUAL.idle_in_transaction_timeout,
        commit_timeout: float = USUAL.commit_timeout,
        close_timeout: float = USUAL.close_timeout,
        drain_timeout: float = USUAL.drain_timeout,
        dispose_timeout: float = USUAL.dispose_timeout,
        resolve_timeout: float = USUAL.resolve_timeout,
        expire_on_commit: bool = USUAL.expire_on_commit,
        autoflush: bool = USUAL.autoflush,
        close_resets_only: bool = USUAL.close_resets_only,
        guard_tasks: bool = USUAL.guard_tasks,
        guard_commit: bool = USUAL.guard_commit,
        retry: Retry | bool = USUAL.retry,
        slow_query: float = USUAL.slow_query,
        explain_slow: bool | Literal["analyze"] = USUAL.explain_slow,
        time_queries: bool = USUAL.time_queries,
        pool_metrics: bool = USUAL.pool_metrics,
        shortcuts: bool = USUAL.shortcuts,
        session_class: type[S] = AsyncSession,  # type: ignore[assignment]  # as above
        **unknown: Never,
    ) -> Database[S]:
        """Return a Database on an engine that exists already, with everything added that can be added to it.

        Added: the COMMIT guard, bounded waits, the server's own limits, the cheap ping (and pre-ping itself), the pool
        that names its holders, values hidden in errors, and the session factory. Kept: the engine's URL, its connect
        arguments where they say otherwise, its pool's size, timeout and recycle, TLS as it is; the start names what of
        these is weaker than in a Database of our own making. Call it before the engine is first used: connections that
        are open already would lack the guards. Raises ConfigurationError for one that is in use or of another driver;
        so does the first connection where the engine has an `async_creator`, which goes past every guard. The options
        are those of `Database(...)` but for what the engine has been told itself; another raises ConfigurationError.
        """
        if unknown:
            raise not_adopted(unknown)
        settings = Settings(
            hide_parameters=hide_parameters,
            workers=workers,
            max_waiting=max_waiting,
            reset=reset,
            pgbouncer=pgbouncer,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            statement_timeout=statement_timeout,
            transaction_timeout=transaction_timeout,
            idle_in_transaction_timeout=idle_in_transaction_timeout,
            commit_timeout=commit_timeout,
            close_timeout=close_timeout,
            drain_timeout=drain_timeout,
            dispose_timeout=dispose_timeout,
            resolve_timeout=resolve_timeout,
            expire_on_commit=expire_on_commit,
            autoflush=autoflush,
            close_resets_only=close_resets_only,
            guard_tasks=guard_tasks,
            guard_commit=guard_commit,
            retry=retry,
            slow_query=slow_query,
            explain_slow=explain_slow,
            time_queries=time_queries,
            pool_metrics=pool_metrics,
            shortcuts=shortcuts,
            session_class=session_class,
        )
        take_over(engine, settings)
        self: Any = cls.__new__(cls)
        pool = engine.sync_engine.pool
        self._chosen = (pool.size(), pool._max_overflow) if isinstance(pool, AsyncAdaptedQueuePool) else (None, None)  # noqa: SLF001
        self._adopted = True
        self._attach(engine, settings, Replicas(engine, (), settings.max_lag))
        made: Database[S] = self
        return made

    def _attach(self, engine: AsyncEngine, settings: Settings, replicas: Replicas) -> None:
        self._settings = settings
        self.engine = engine
        self.url = engine.url
        self.workers = _workers() if settings.workers is None else settings.workers
        self.replicas = replicas
        retry = settings.retry
        self.retry = retry if isinstance(retry, Retry) else Retry() if retry else NO_RETRY
        self._budget = Budget(self.retry)
        self.lane = Lane(engine, self._budget, shortcuts=settings.shortcuts)
        self.session = cast("SessionFactory[S_co]", factory(engine, settings, self.lane))
        self._levels: dict[str, AsyncEngine] = {}
        self._reading = Reading(engine, self.session, self.replicas, self._budget)
        self._side_by_side = SideBySide(engine.sync_engine)
        self.queries: Queries = instrument(
            engine,
            slow_query=settings.slow_query,
            explain_slow=settings.explain_slow,
            time_queries=settings.time_queries,
            pool_metrics=settings.pool_metrics,
        )
        for each in self._engines():
            if isinstance(pool := each.sync_engine.pool, Pool):
                pool.extras.workers = self.workers
            if settings.time_queries and each is not engine:
                measure(each.sync_engine, self.queries)

    def __repr__(self) -> str:
        return f"Database({self.url!r})"  # SQLAlchemy masks the password

    async def request_session(self, connection: HTTPConnection) -> S_co:
        """Give a request its session: `Depends(db.request_session, scope="function")`.

        The transaction is committed after the handler and before the response leaves, so that a failed commit is the
        answer. Any exception rolls back, an HTTPException too. The session closes on every path, for good. Raises
        ConfigurationError outside of FastAPI's routes, where nobody would end it.
        """
        unit = RequestUnit(self, connection.scope)
        until_answered(connection.scope).push_async_exit(unit)
        session: Any = unit.session
        return cast("S_co", session)

    def read(self, *, snapshot: bool = False, after: str | None = None, max_lag: float | None = None) -> S_co:
        """Open a session that only reads: `async with db.read() as session`, one round trip a statement.

        It sends no BEGIN and no ROLLBACK. Each statement sees what was committed before it, on any connection; with
        `snapshot=True` all see one moment (a read-only REPEATABLE READ transaction, which the server itself enforces).
        Writes raise ReadOnlyError, by flush and by statement, also within a WITH; so does `stream()` without a
        snapshot. A function with effects is not seen.

        With `replicas` it runs on one that lacks no commit older than `max_lag` seconds, none of this request or task,
        and none before `after` (from `position()`); else on the primary, which `max_lag=0` asks for.
        Raises ConfigurationError for an `after` that is no position.
        """
        return self._reading.open(snapshot=snapshot, after=after, max_lag=max_lag)

    async def position(self) -> str:
        """Return where the primary's log ends now: `db.read(after=position)` sees all that was committed until here.

        For a client that writes with one request and reads with another, which may reach another worker: send it along
        with the answer, as a cookie or header. Costs a round trip to the primary; raises DatabaseUnavailableError where
        the server is a standby.
        """
        return await self.replicas.position()

    def pool_status(self) -> PoolStatus:
        """Return the pool's figures of this moment; raises RuntimeError with `pool_metrics=False`."""
        return self.queries.pool_status()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Size the pool at the start and dispose of it at the end: `FastAPI(lifespan=db.lifespan)`, or by `install`.

        A server that is down does not keep the application from starting; one that refuses the login does.
        """
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def start(self) -> None:
        """Ask the servers for their limits, size the pools by them and log a line for each that explains it."""
        for engine in self._engines():
            await lifecycle.size_pool(engine, self.workers, self._chosen)
        for weaker in lacking(self.engine) if self._adopted else ():
            log.warning("the engine that was taken over: %s", weaker)

    async def stop(self) -> None:
        """Hand out no connection any more, wait `drain_timeout` seconds for the work in progress, then dispose.

        What still works then is named in the log and cancelled, once: it rolls back. Who asks for a connection
        meanwhile gets ShuttingDownError, a 503.
        """
        await lifecycle.drain(self._engines(), self._settings.drain_timeout)
        await self.dispose()

    async def dispose(self) -> None:
        """Close the pools' connections; after `dispose_timeout` seconds whatever does not answer is dropped.

        Hooks of `after_commit` that still run are waited for within the same time. The Database may be used again.
        """
        await lifecycle.dispose(
            self._engines(), self._settings.dispose_timeout, self.queries.aclose, self.replicas.aclose
        )

    def _engines(self) -> list[AsyncEngine]:
        return [self.engine, *self.replicas.engines]


def _workers() -> int:
    given = os.environ.get("WEB_CONCURRENCY") or "1"
    if not given.isdecimal() or given == "0":
        raise ConfigurationError(
            f"WEB_CONCURRENCY={given} is not a number of workers.",
            do=["Set it to how many processes serve the application, or write Database(workers=...)."],
            page="engine/pool-size",
        )
    return int(given)
