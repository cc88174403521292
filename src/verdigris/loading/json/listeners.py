"""What listeners of a session make of a statement: tenants and soft deletion are often added by `do_orm_execute`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData

from verdigris._sync_sessions import ExplicitFlushSession
from verdigris.loading.json.schema import InPython

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import ORMExecuteState, Session


def has_listeners(session: Session) -> bool:
    """Whether anybody but this library listens to the statements of such a session, and may change them."""
    return _are_foreign(session.dispatch.do_orm_execute)


def has_a_say(session: Session, engine: Engine) -> bool:
    """Whether the application sets something at the start of transactions, or rewrites what the engine sends.

    `SET LOCAL` of a tenant, for row security, is such a thing. Listeners that only watch what is sent have no say.
    """
    sent = (*engine.dispatch.before_execute, *engine.dispatch.before_cursor_execute)
    return (
        _are_foreign(session.dispatch.after_begin)
        or _are_foreign(engine.dispatch.begin)
        or _are_foreign(fn for fn in sent if fn.__module__ != "sqlalchemy.engine.events")  # one without retval=True
    )


def _are_foreign(listeners: Iterable[Any]) -> bool:
    return any(not fn.__module__.startswith("verdigris.") for fn in listeners)


def minds_pending(session: Session) -> bool:
    """Whether a statement would miss what is pending in the session, and that is an error there."""
    return isinstance(session, ExplicitFlushSession) and bool(session.pending())


async def as_listeners_make_it(session: AsyncSession, statement: Any) -> Any:
    """Return the statement as the session's listeners leave it; nothing is sent.

    Raises InPython where a listener answers the statement itself, from a cache.
    """
    made: list[Any] = []

    def last(state: ORMExecuteState) -> IteratorResult[Any]:
        made.append(state.statement)
        return IteratorResult(SimpleResultMetaData([]), iter(()))

    event.listen(session.sync_session, "do_orm_execute", last)
    try:
        await session.execute(statement)
    finally:
        event.remove(session.sync_session, "do_orm_execute", last)
    if not made:
        raise InPython("a do_orm_execute listener answers statements itself")
    return made[0]
