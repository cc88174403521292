"""`db.read()`: sessions that only read, on a replica where one is fresh enough, else on the primary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import SQLAlchemyError

from verdigris._sync_sessions import ReadSession
from verdigris.engine.lane import Lane
from verdigris.engine.lean import LeanReads
from verdigris.engine.pool import Pool
from verdigris.engine.replicas import Replica, Replicas, position_of
from verdigris.session import AsyncSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    from verdigris.concurrency import Budget


@dataclass(slots=True)
class Reading:
    """Opens the sessions of one database that only read."""

    primary: AsyncEngine
    session: async_sessionmaker[AsyncSession]
    replicas: Replicas
    budget: Budget
    _binds: dict[tuple[int, bool], AsyncEngine] = field(default_factory=dict)
    _lean: dict[Replica, LeanReads] = field(default_factory=dict)

    def open(self, *, snapshot: bool, after: str | None, max_lag: float | None) -> AsyncSession:
        """Return a session on the replica or the primary that the read is for."""
        primary = self._bind(self.primary, snapshot=snapshot)
        replica = self.replicas.choose(position_of(after) if after else 0, max_lag) if len(self.replicas) else None
        if replica is None:
            return self.session(bind=primary, sync_session_class=ReadSession, alone=not snapshot)
        options = {**self.session.kw, "sync_session_class": ReadSession, "alone": not snapshot}
        options["bind"], lean = self._bind(replica.engine, snapshot=snapshot), options.get("lean")
        if lean is not None:
            options["lean"] = self._lean.get(replica) or self._lean.setdefault(replica, self._lean_reads(replica))
        return _OnReplica(replica, (primary, lean), **options)

    def _bind(self, engine: AsyncEngine, *, snapshot: bool) -> AsyncEngine:
        bind = self._binds.get((id(engine), snapshot))
        if bind is None:
            level = "REPEATABLE READ" if snapshot else "AUTOCOMMIT"
            bind = engine.execution_options(postgresql_readonly=True, isolation_level=level)
            self._binds[id(engine), snapshot] = bind
        return bind

    def _lean_reads(self, replica: Replica) -> LeanReads:
        return LeanReads(replica.engine.sync_engine, Lane(replica.engine, self.budget))


class _OnReplica(AsyncSession):
    """A session on a replica, which turns to the primary when its block begins and no connection is to be had."""

    def __init__(self, replica: Replica, instead: tuple[AsyncEngine, LeanReads | None], **options: Any) -> None:
        super().__init__(**options)
        self._replica = replica
        self._instead = instead

    async def __aenter__(self) -> Self:
        pool = self._replica.engine.sync_engine.pool
        if isinstance(pool, Pool) and pool.hands_out_at_once():  # an open one is at hand: known without asking
            return self
        try:
            async with self._replica.engine.connect():
                pass
        except (SQLAlchemyError, OSError):
            self._replica.down()
            self.sync_session.bind = self._instead[0].sync_engine
            self.bind, self.lean = self._instead
        return self
