"""Units of work on a database: each in a transaction and on a session of its own, repeated or side by side."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from verdigris.concurrency import Attempts, Budget, Retry, as_unit, checked_attempts, checked_unit, run_unit
from verdigris.database.levels import known_level
from verdigris.session import AsyncSession
from verdigris.session.resolve import Resolver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
    from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemySession
    from sqlalchemy.ext.asyncio.session import _AsyncSessionContextManager

    from verdigris.database.gathering import SideBySide
    from verdigris.database.replicas import Replicas
    from verdigris.database.settings import Settings

    Unit = Callable[["S_of"], Awaitable["T"]]  # of a session of that class

#: The class of a database's sessions: ours, unless another is said. Python has defaults from 3.13 on.
if TYPE_CHECKING:
    import typing_extensions

    S_co = typing_extensions.TypeVar("S_co", bound=AsyncSession, default=AsyncSession, covariant=True)
    S = typing_extensions.TypeVar("S", bound=AsyncSession, default=AsyncSession)
else:
    S_co = TypeVar("S_co", bound=AsyncSession, covariant=True)
    S = TypeVar("S", bound=AsyncSession)

if TYPE_CHECKING:

    class SessionFactory(async_sessionmaker[SQLAlchemySession], Generic[S_co]):
        """What `db.session` is to type checkers: a factory such as a team's code is annotated with, of our sessions.

        `async_sessionmaker` is invariant: one of our class would not be one of SQLAlchemy's.
        """

        class_: type[S_co]

        def __call__(self, **local_kw: Any) -> S_co: ...

        def begin(self) -> _AsyncSessionContextManager[S_co]: ...  # type: ignore[override]  # invariant as well


T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
S_of = TypeVar("S_of")
P = ParamSpec("P")


class Units(Generic[S_co]):
    """The part of `Database` that opens sessions for units of work and runs them."""

    engine: AsyncEngine
    session: SessionFactory[S_co]
    replicas: Replicas
    _budget: Budget
    retry: Retry
    _levels: dict[str, AsyncEngine]
    _side_by_side: SideBySide
    _settings: Settings

    async def transaction(
        self,
        fn: Callable[[S_co], Awaitable[T]],
        *,
        isolation_level: str | None = None,
        attempts: int | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        resolve: bool = False,
    ) -> T:
        """Run `fn(session)` in a transaction of its own, commit, and return its result.

        A serialization failure, a deadlock or a connection lost before COMMIT was sent runs `fn` again, whole, with a
        fresh session: effects outside the database happen again too. `attempts` counts the first run; left out, it is
        what the Database's `Retry` says (10). Waits are jittered, within `deadline` seconds (10 by default) and a
        budget that all units share; the error that is raised has a note of the attempts. When no answer came to COMMIT,
        OutcomeUnknownError is raised and the unit is repeated only if it is declared `idempotent`. With `resolve` (one
        more round trip) the server is asked what became of it, for `resolve_timeout` seconds: stored is a success,
        rolled back is repeated, and what nobody can tell, such as after a failover, stays unknown.

        Raises ConfigurationError for an isolation level that there is not, for no attempt at all, and for work that is
        no asynchronous function of a session.
        """
        checked_unit(fn)
        level = known_level(isolation_level)
        self._budget.unit_began()
        return await run_unit(
            lambda: self._open_session(level),
            fn,
            self._attempts(checked_attempts(attempts), deadline, idempotent=idempotent),
            self._resolver() if resolve else None,
        )

    def _resolver(self) -> Resolver:
        """Return what finds out what became of this database's transactions."""
        return Resolver(self.engine, self._settings.resolve_timeout)

    def _attempts(
        self, attempts: int | None, deadline: float | None, *, idempotent: bool, since: float = 0.0
    ) -> Attempts:
        """Return the attempts that one unit of work may make, of which the first began so many seconds ago."""
        return Attempts.of(
            self.retry, self._budget, attempts=attempts, deadline=deadline, idempotent=idempotent, since=since
        )

    @overload
    def transactional(
        self, fn: Callable[Concatenate[S_co, P], Awaitable[T]], /
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def transactional(
        self,
        /,
        *,
        isolation_level: str | None = None,
        attempts: int | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        resolve: bool = False,
    ) -> Callable[[Callable[Concatenate[S_co, P], Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]: ...

    def transactional(
        self,
        fn: Any = None,
        /,
        *,
        isolation_level: str | None = None,
        attempts: int | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        resolve: bool = False,
    ) -> Any:
        """Make `async def f(session, ...)` a function without the session, which runs as `transaction()` does.

        Written `@db.transactional`, or `@db.transactional(...)` with the options of `transaction()`. What the function
        is given is given to each attempt; each has a session of its own, so that none is handed in.
        """
        run = functools.partial(
            self.transaction,
            isolation_level=known_level(isolation_level),
            attempts=checked_attempts(attempts),
            deadline=deadline,
            idempotent=idempotent,
            resolve=resolve,
        )
        wrap = functools.partial(as_unit, run)
        return wrap if fn is None else wrap(fn)

    @overload
    async def gather(self, one: Unit[S_co, T], two: Unit[S_co, T2], /) -> tuple[T, T2]: ...

    @overload
    async def gather(self, one: Unit[S_co, T], two: Unit[S_co, T2], three: Unit[S_co, T3], /) -> tuple[T, T2, T3]: ...

    @overload
    async def gather(
        self, one: Unit[S_co, T], two: Unit[S_co, T2], three: Unit[S_co, T3], four: Unit[S_co, T4], /
    ) -> tuple[T, T2, T3, T4]: ...

    @overload
    async def gather(self, *units: Unit[S_co, T]) -> tuple[T, ...]: ...

    async def gather(self, *units: Unit[S_co, Any]) -> tuple[Any, ...]:
        """Run units side by side, each in a transaction and on a session of its own, and return their results in order.

        Never more at once than half the pool holds, over all callers: the other half is for those who hold a session
        already. On a NullPool, which holds nothing, five at once; one after the other where there is one connection
        for all. The first failure cancels the others and is raised, an unknown outcome before it; so is
        PoolExhaustedError, at once, where units could only wait for connections whose holders wait for such units.
        """
        for unit in units:
            checked_unit(unit)
        results = await self._side_by_side.run([functools.partial(self.transaction, unit) for unit in units])
        if self.replicas:
            self.replicas.wrote()  # what the units committed, the caller has
        return tuple(results)

    def _open_session(self, isolation_level: str | None = None, **options: Any) -> S_co:
        """Return a session, at an isolation level of its own if one is named; costs no round trip."""
        if isolation_level is not None:
            if isolation_level not in self._levels:
                self._levels[isolation_level] = self.engine.execution_options(isolation_level=isolation_level)
            options["bind"] = self._levels[isolation_level]
        configured = self.session.kw
        if "info" in configured:
            return self.session(**options)  # which joins the two
        return self.session.class_(**{**configured, **options})
