"""Lean reads: a session's plain select() without SQLAlchemy's engine in between, where nobody can tell the difference.

Everything that could make a difference takes SQLAlchemy's own path: parameters and execution options, pending changes
that would be flushed first, listeners that hear of statements or change them, a session bound by mapper, statements
that are not one select() of mapped classes. A recording is such a listener: it sees SQLAlchemy's own path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy
from sqlalchemy import Select, inspect, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.session import _SessionCloseState
from sqlalchemy.util import greenlet_spawn

from verdigris._plans import Plans
from verdigris._sync_sessions import Ears, ReadSession
from verdigris.engine.lane import raise_as_session
from verdigris.engine.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record
    from sqlalchemy.engine import Connection, Result

    from verdigris.engine.lane import Lane

_UNKNOWN = object()
_IDENTS = frozenset({int, str, UUID})
_KINDS = frozenset({Session, ReadSession})
_OF_READS = Ears("do_orm_execute", "loaded_as_persistent")
_OF_BEGINNING = Ears("after_begin", "after_transaction_create")


class LeanReads:
    """Runs the plain reads of one database's sessions."""

    def __init__(self, engine: Engine, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane
        self._plans = Plans(engine)
        self._keys: dict[Any, Any] = {}  # of each class that was asked for by key: its column, if it is that simple

    async def run(self, session: Session, statement: Any, *, alone: bool) -> Result[Any] | None:
        """Run a statement and return its result; None, with nothing done, if SQLAlchemy shall run it.

        With `alone`, the session is one that reads in autocommit: its statements run on any connection.
        """
        if type(statement) is not Select or statement._execution_options or not self._undisturbed(session):
            return None
        found = self._plans.find(statement, session)
        if found is None:
            return None
        plan, binds = found
        try:
            arguments = plan.arguments(binds)
        except Exception:  # noqa: BLE001 - SQLAlchemy shall raise it, in its own words
            return None
        if alone and session._transaction is None:
            if plan.locks or _heard(session):
                return None
            rows = await self._lane.fetch(plan.text, arguments, again=plan.repeatable)
        else:
            connection = await self._connection(session)
            rows = await self._fetch(connection, plan.text, arguments)
        return await plan.load(session, statement, rows)

    def by_key(self, session: Session, entity: Any, ident: Any) -> Select[Any] | None:
        """Return the select() that `get()` comes to; None where there is more to it than one row by one column."""
        column = self._keys.get(entity, _UNKNOWN)
        if column is _UNKNOWN:
            mapper = inspect(entity, raiseerr=False)
            column = self._keys[entity] = _key_of(mapper) if isinstance(mapper, Mapper) else None
        if column is None or type(ident) not in _IDENTS or (entity, (ident,), None) in session.identity_map:
            return None
        if not self._undisturbed(session):
            return None
        return select(entity).where(column == ident)

    def _undisturbed(self, session: Any) -> bool:
        """Tell whether nothing but the statement itself has a say in how it is run."""
        bind = session.bind
        return (
            type(session) in _KINDS
            and session._close_state is not _SessionCloseState.CLOSED
            and isinstance(bind, Engine)
            and not _settings(session)
            and not _OF_READS.hear(session)
            and not (session._new or session._deleted or session.identity_map._modified)
            and (not bind._has_events or _unheard(bind))
            and not bind.dialect.dispatch.do_execute
        )

    async def _connection(self, session: Any) -> Connection:
        """Return the connection of the session's transaction, begun as SQLAlchemy begins it."""
        bind, transaction = session.bind, session._transaction
        there = transaction is not None and bind in transaction._connections
        pool = self._engine.pool
        if there or (isinstance(pool, Pool) and not _heard(session) and pool.hands_out_at_once()):
            connection: Connection = session._connection_for_bind(bind)
            return connection
        return await greenlet_spawn(session._connection_for_bind, bind)

    async def _fetch(self, connection: Connection, text: str, arguments: Sequence[Any]) -> list[Record]:
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
    return _OF_BEGINNING.hear(session)


def _unheard(engine: Any) -> bool:
    """Tell whether nobody hears of an engine's statements; an engine with an isolation level listens to itself."""
    dispatch = engine.dispatch
    return not (
        dispatch.before_execute
        or dispatch.after_execute
        or dispatch.before_cursor_execute
        or dispatch.after_cursor_execute
    )
