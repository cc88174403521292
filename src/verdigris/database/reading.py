"""`db.read()`: sessions that only read, on a replica where one is fresh enough, else on the primary."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Self

from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.util import greenlet_spawn

from verdigris.database.replicas import Replica, Replicas, position_of
from verdigris.database.sessions import joined, over
from verdigris.database.units import S_co
from verdigris.engine.pool import Pool
from verdigris.engine.read_only import READS
from verdigris.errors import RetryLevel, classify
from verdigris.errors.classify import FAILURES
from verdigris.lean import methods
from verdigris.lean.engine_listeners import EngineListeners
from verdigris.lean.lane import Lane
from verdigris.lean.reads import LeanReads
from verdigris.lean.session_listeners import SessionListeners
from verdigris.lean.sync_sessions import ReadSession
from verdigris.loading.json.listeners import who_sets_up
from verdigris.session import AsyncSession
from verdigris.session.guard import guarded

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.orm import Session

    from verdigris.concurrency import Budget
    from verdigris.database.units import SessionFactory

log = logging.getLogger("verdigris")
_ALONE, _SNAPSHOT = "AUTOCOMMIT", "REPEATABLE READ"
_OF_BEGIN = SessionListeners("after_begin")


@dataclass(slots=True)
class Reading(Generic[S_co]):
    """Opens the sessions of one database that only read."""

    primary: AsyncEngine
    session: SessionFactory[S_co]
    replicas: Replicas
    budget: Budget
    _binds: dict[tuple[int, str | None], AsyncEngine] = field(default_factory=dict)
    _begun: dict[Any, Engine] = field(default_factory=dict)  # by engines in autocommit: the same, in transactions
    _probes: dict[type[Session], Session] = field(default_factory=dict)
    _heard: dict[int, EngineListeners] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _lean: dict[AsyncEngine, LeanReads] = field(default_factory=dict)
    _kinds: dict[type, Any] = field(default_factory=dict)

    def open(self, *, snapshot: bool, after: str | None, max_lag: float | None) -> S_co:
        """Return a session on the replica or the primary that the read is for."""
        kind = self.session.class_
        inner = over(ReadSession, kind.sync_session_class)
        level = _SNAPSHOT if snapshot else None if self._is_set_up(inner, self.primary) else _ALONE
        primary = self._bind(self.primary, level)
        position = position_of(after) if after else 0  # refused also where no replica asks for it, as in development
        replica = self.replicas.choose(position, max_lag) if len(self.replicas) else None
        options = {**self.session.kw, "bind": primary, "sync_session_class": inner, "alone": level == _ALONE}
        options["begun"] = self._begun
        if replica is None:
            return kind(**options)  # the factory's own call goes through them one by one
        if level == _ALONE and self._is_set_up(inner, replica.engine):
            level, options["alone"] = None, False
        options["bind"], lean = self._bind(replica.engine, level), options.get("lean")
        if lean is not None:
            known = self._lean.get(replica.engine)
            options["lean"] = known or self._lean.setdefault(replica.engine, self._lean_reads(replica.engine))
        made: Any = self._on_replica(kind)(**options)
        made._replica, made._instead = replica, (primary, lean)  # noqa: SLF001 - ours, and no __init__ of theirs knows it
        opened: S_co = made
        return opened

    def _on_replica(self, kind: Any) -> Any:
        """Return the class of the sessions on a replica where others are of this class: it has the first word."""
        found = self._kinds.get(kind)
        if found is None:
            own = not issubclass(_OnReplica, kind)
            found = self._kinds[kind] = joined(kind.__name__, kind, _OnReplica) if own else _OnReplica
        return found

    def _is_set_up(self, kind: type[Session], engine: AsyncEngine) -> bool:
        """Tell whether somebody sets transactions up: what `SET LOCAL` says of a tenant holds in one only."""
        bind = engine.sync_engine
        heard = self._heard.get(id(bind)) or self._heard.setdefault(id(bind), EngineListeners(bind, bind))
        probe = self._probes.get(kind) or self._probes.setdefault(kind, object.__new__(kind))
        if not (_OF_BEGIN.any(probe) or heard.to_opening()):
            return False
        who = who_sets_up(probe, bind)
        if who is None:
            return False
        if who not in self._told:
            self._told.add(who)
            log.info("db.read() reads in a transaction, not each statement by itself, because of %s", who)
        return True

    def _bind(self, engine: AsyncEngine, level: str | None) -> AsyncEngine:
        bind = self._binds.get((id(engine), level))
        if bind is None:
            options: dict[str, Any] = {"postgresql_readonly": True}
            if level is not None:
                options["isolation_level"] = level
            if level == _ALONE:  # a read-only transaction is the server's own affair
                options[READS] = True
            bind = self._binds[id(engine), level] = engine.execution_options(**options)
            if level == _ALONE:
                self._begun[bind.sync_engine] = self._bind(engine, None).sync_engine
        return bind

    def _lean_reads(self, engine: AsyncEngine) -> LeanReads:
        return LeanReads(engine.sync_engine, Lane(engine, self.budget, shortcuts=True))


def _or_on_primary(method: Any) -> Any:
    """Run a read once more on the primary where the replica failed it: it ran alone, and a standby changes nothing."""

    @functools.wraps(method)
    async def call(self: _OnReplica, *args: Any, **options: Any) -> Any:
        try:
            return await method(self, *args, **options)
        except FAILURES as error:
            if self._turned or not self._alone or classify(error).retry is RetryLevel.NEVER:
                raise
            log.info("a read runs again on the primary: its replica failed it (%s)", classify(error).name)
        await self._turn()
        return await method(self, *args, **options)

    return call


class _OnReplica(AsyncSession):
    """A session on a replica, which turns to the primary where the replica can't be reached or fails a read.

    One that has turned stays there. A snapshot is one transaction, which cannot go on elsewhere.
    """

    _replica: Replica
    _instead: tuple[AsyncEngine, LeanReads | None]  # the primary
    _turned = False

    async def __aenter__(self) -> Self:
        pool = self._replica.engine.sync_engine.pool
        if isinstance(pool, Pool) and pool.hands_out_at_once():  # an open one is at hand: known without asking
            return self
        try:
            async with self._replica.engine.connect():
                pass
        except FAILURES:
            await self._turn()
        return self

    if not TYPE_CHECKING:  # as in the class above
        execute = guarded(_or_on_primary(methods.execute))
        scalar = guarded(_or_on_primary(methods.scalar))
        get = guarded(_or_on_primary(methods.get))
    get_one = guarded(_or_on_primary(_AsyncSession.get_one))
    stream = guarded(_or_on_primary(_AsyncSession.stream))

    async def _turn(self) -> None:
        """Read from the primary from now on; what was read stays loaded."""
        self._turned = True
        self._replica.down()
        transaction = self.sync_session.get_transaction()
        if transaction is not None:  # not rolled back, which would expire what it has loaded
            await greenlet_spawn(transaction.close, invalidate=True)
        self.sync_session.bind = self._instead[0].sync_engine
        self.bind, lean = self._instead
        self._lean = lean if lean is None or self._guard.enabled else lean.unguarded
