"""Lean reads: a session's plain select() without SQLAlchemy's engine in between, where nobody can tell the difference.

Everything that could make a difference takes SQLAlchemy's own path: parameters and execution options, pending changes
that would be flushed first, listeners that hear of statements or change them, a session bound by mapper, statements
that are not one select() of mapped classes. A recording is such a listener: it sees SQLAlchemy's own path.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import sqlalchemy
from sqlalchemy import bindparam, inspect, select
from sqlalchemy.engine import Engine
from sqlalchemy.engine.util import TransactionalContext
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.util import greenlet_spawn

from verdigris.engine.pool import Pool
from verdigris.lean.closing import CLOSE_STATE, is_changed
from verdigris.lean.engine_listeners import (
    EngineListeners,
    change_nothing,
    connection_is_heard,
    every_connection_is_heard,
)
from verdigris.lean.following import Fetched
from verdigris.lean.lane import raise_as_session
from verdigris.lean.plans import Plans
from verdigris.lean.session_listeners import OF_BEGIN, OF_READS
from verdigris.lean.shapes import is_select
from verdigris.lean.sync_sessions import ReadSession
from verdigris.lean.transaction import begun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record
    from sqlalchemy.engine import Connection, Result

    from verdigris.lean.lane import Lane
    from verdigris.lean.plans import Plan

_UNKNOWN = object()
NOT_RUN: Any = object()  # nothing was done: SQLAlchemy shall run it
_IDENTS = frozenset({int, str, UUID})
_KINDS = frozenset({Session, ReadSession})
_BINDS = 50  # that are known at a time: an application may make a copy of its engine for each request


@dataclass(slots=True)
class _ByKey:
    """How rows of one class are found by key: the column, and once it was learnt the statement and its plan."""

    column: Any
    kind: type | None = None  # of the key that it was learnt with
    statement: Any = None
    plan: Any = None


class _Value(NamedTuple):
    """Stands for a statement's bound value."""

    value: Any


class LeanReads:
    """Runs the plain reads of one database's sessions."""

    def __init__(self, engine: Engine, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane
        self._plans = Plans(engine)
        self._keys: dict[Any, Any] = {}  # of each class that was asked for by key: its column, if it is that simple
        self._binds: dict[Engine, EngineListeners] = {}
        self._begins = True

    @cached_property
    def unguarded(self) -> LeanReads:
        """The same for sessions that several tasks may use at once: SQLAlchemy begins their transactions."""
        same = copy(self)
        same._begins = False
        return same

    async def run(self, session: Session, statement: Any, *, alone: bool) -> Result[Any] | None:
        """Run a statement and return its result; None, with nothing done, if SQLAlchemy shall run it.

        With `alone`, the session is one that reads in autocommit: its statements run on any connection.
        """
        found = self._plan(session, statement)
        rows = await self._rows(session, *found, alone=alone) if found is not None else None
        if found is None or rows is None:
            return None
        return await self._loaded(session, statement, found[0], rows, alone=alone)

    async def scalar(self, session: Session, statement: Any, *, alone: bool) -> Any:
        """Run a statement as `run` does, and return the first column of the first row; else `NOT_RUN`."""
        found = self._plan(session, statement)
        return NOT_RUN if found is None else await self._first(session, statement, *found, alone=alone)

    async def get(self, session: Session, entity: Any, ident: Any, *, alone: bool) -> Any:
        """Return the row of a key, as `get()` does; `NOT_RUN` where there is more to it than one row by one column."""
        known = self._keys.get(entity, _UNKNOWN)
        if known is _UNKNOWN:
            mapper = inspect(entity, raiseerr=False)
            column = _key_of(mapper) if isinstance(mapper, Mapper) else None
            known = self._keys[entity] = None if column is None else _ByKey(column)
        if known is None or type(ident) not in _IDENTS or (entity, (ident,), None) in session.identity_map:
            return NOT_RUN
        if not self._undisturbed(session):
            return NOT_RUN
        if known.statement is None or type(ident) is not known.kind:
            value = bindparam(None, ident, known.column.type, unique=True)  # of the column's type, not of the value's
            statement = select(entity).where(known.column == value)
            return await self._get(session, statement, known, type(ident), alone=alone)
        return await self._first(session, known.statement, known.plan, (_Value(ident),), alone=alone)

    async def _get(self, session: Session, statement: Any, known: _ByKey, kind: type, *, alone: bool) -> Any:
        """Let SQLAlchemy run the statement until there is a plan for it, which is kept with it."""
        found = self._plan(session, statement)
        if found is None:
            return await greenlet_spawn(session.scalar, statement)  # to its end: what it loads may send more statements
        if len(found[1]) == 1:
            known.statement, known.plan, known.kind = statement, found[0], kind
        return await self._first(session, statement, *found, alone=alone)

    def _plan(self, session: Session, statement: Any) -> tuple[Plan, Sequence[Any]] | None:
        if not is_select(type(statement)) or statement._execution_options or not self._undisturbed(session):
            return None
        return self._plans.find(statement, session)

    async def _first(self, session: Session, statement: Any, plan: Plan, binds: Sequence[Any], *, alone: bool) -> Any:
        rows = await self._rows(session, plan, binds, alone=alone)
        if rows is None:
            return NOT_RUN
        if plan.single and plan.loads_at_once:
            return plan.first(session, statement, rows)
        return (await self._loaded(session, statement, plan, rows, alone=alone)).scalar()

    async def _loaded(
        self, session: Session, statement: Any, plan: Plan, rows: list[Record], *, alone: bool
    ) -> Result[Any]:
        """Send what loaders would send, then make objects of all rows at once."""
        fetched: list[Fetched] = []
        todo = [(one, rows) for one in plan.following]
        for one, parents in todo:
            each = Fetched(one, set(), [])
            for keys in one.batches(parents):
                found = await self._sent(session, one.text, [keys], alone=alone, again=plan.repeatable)
                if found is None:  # somebody else's business since then: loaders send it themselves
                    return await plan.load(session, statement, rows, fetched)
                each.keys.update(keys)
                each.rows += found
            fetched.append(each)
            todo += [(inner, each.rows) for inner in one.following]
        return await plan.load(session, statement, rows, fetched)

    async def _rows(self, session: Session, plan: Plan, binds: Sequence[Any], *, alone: bool) -> list[Record] | None:
        try:
            arguments = plan.arguments(binds)
        except Exception:  # noqa: BLE001 - SQLAlchemy shall raise it, in its own words
            return None
        if (alone and session._transaction is None) and (
            plan.locks
            or session._trans_context_manager is not None
            or _heard(session)
            or self._listening(session.bind).to_opening()
        ):
            return None  # it takes a transaction
        return await self._sent(session, plan.text, arguments, alone=alone, again=plan.repeatable)

    async def _sent(
        self, session: Session, text: str, arguments: Sequence[Any], *, alone: bool, again: bool
    ) -> list[Record] | None:
        """Return the rows of a text; None, with nothing sent, where its connection is not like others."""
        if alone and session._transaction is None:
            return await self._lane.fetch(text, arguments, again=again)
        if session._trans_context_manager is not None:  # refuses what comes after the end of a block's transaction
            TransactionalContext._trans_ctx_check(session)
        held = await begun(session, self._listening(session.bind)) if self._begins else None
        if held is not None:
            return await held.fetch(self._lane, text, arguments)
        connection = await self._connection(session)
        if not change_nothing(connection._execution_options) or connection_is_heard(connection):
            return None
        return await self._fetch(connection, text, arguments)

    def _undisturbed(self, session: Any) -> bool:
        """Tell whether nothing but the statement itself has a say in how it is run."""
        bind = session.bind
        return (
            type(session) in _KINDS
            and session._close_state is not CLOSE_STATE.CLOSED
            and isinstance(bind, Engine)
            and not _settings(session)
            and not OF_READS.any(session)
            and not is_changed(session)
            and (listening := self._listening(bind)).plain
            and not listening.to_statements()
            and not every_connection_is_heard()
            and not bind.dialect.dispatch.do_execute
            and not bind._should_log_info()  # `echo`
        )

    def _listening(self, bind: Any) -> EngineListeners:
        known = self._binds.get(bind)
        if known is None or known.options is not bind._execution_options:
            if len(self._binds) >= _BINDS:
                self._binds.clear()
            known = self._binds[bind] = EngineListeners(bind, self._engine)
        return known

    async def _connection(self, session: Any) -> Connection:
        """Return the connection of the session's transaction, begun as SQLAlchemy begins it."""
        bind, transaction = session.bind, session._transaction
        there = transaction is not None and bind in transaction._connections
        savepoint = transaction is not None and transaction._parent is not None  # which is sent to a new connection
        pool = self._engine.pool
        waits = savepoint or _heard(session) or self._listening(bind).to_opening()
        if there or (isinstance(pool, Pool) and not waits and pool.hands_out_at_once()):
            connection: Connection = session._connection_for_bind(bind)
            return connection
        return await greenlet_spawn(session._connection_for_bind, bind)

    async def _fetch(self, connection: Connection, text: str, arguments: Sequence[Any]) -> list[Record]:
        for begun_there in (connection._transaction, connection._nested_transaction):
            if begun_there is not None and not begun_there.is_active:
                connection._invalid_transaction()  # raises, as it does before each of SQLAlchemy's statements
        adapter: Any = connection.connection.dbapi_connection
        try:
            async with adapter._execute_mutex:
                if not _begun(adapter):
                    await adapter._start_transaction()
                return await self._lane.run(adapter._connection, statement=text, arguments=arguments)
        except Exception as error:  # noqa: BLE001 - raised again, as the session would raise it
            return await greenlet_spawn(raise_as_session, connection, text, arguments, error)
        except BaseException as cancelled:
            connection.invalidate(cancelled)  # outside of a greenlet: dropped, and stopped on the server
            raise


# -- what a session says of itself -------------------------------------------------------------------------------------


def _settings(session: Any) -> Any:
    """Return a session's own binds and execution options, where it has any."""
    return session.binds or session.execution_options


def _settings_2_0(session: Any) -> Any:
    return session._Session__binds


if sqlalchemy.__version__.startswith("2.0"):
    _settings = _settings_2_0


def _key_of(mapper: Mapper[Any]) -> Any:
    """Return the attribute of a class's key of one column; None where there is inheritance, or more than that to do."""
    alone = mapper.inherits is None and mapper.polymorphic_on is None and not mapper.always_refresh
    if not alone or len(mapper.primary_key) != 1:
        return None
    return getattr(mapper.class_, mapper.get_property_by_column(mapper.primary_key[0]).key)


def _begun(adapter: Any) -> bool:
    started = getattr(adapter, "_started", None)  # SQLAlchemy 2.0
    return adapter._transaction is not None if started is None else bool(started)


def _heard(session: Any) -> bool:
    """Tell whether somebody hears of the transactions that a session begins."""
    return OF_BEGIN.any(session)
