"""What listeners of a session make of a statement: tenants and soft deletion are often added by `do_orm_execute`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData

from verdigris._sync_sessions import ExplicitFlushSession
from verdigris.loading.json.schema import InPython

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import ORMExecuteState, Session


def has_listeners(session: Session) -> bool:
    """Whether anybody but this library listens to the statements of such a session."""
    listeners = session.dispatch.do_orm_execute
    return bool(listeners) and any(not fn.__module__.startswith("verdigris.") for fn in listeners)


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
