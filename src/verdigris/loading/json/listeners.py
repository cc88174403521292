"""What listeners of a session make of a statement: tenants and soft deletion are often added by `do_orm_execute`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData

from verdigris.lean.engine_listeners import foreign
from verdigris.lean.sync_sessions import ExplicitFlushSession
from verdigris.loading.json.schema import InPython

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import ORMExecuteState, Session

#: The methods of a session that run statements, and where those are from that no application has written.
_OF_STATEMENTS = ("execute", "scalar", "scalars", "stream", "stream_scalars")
_NOBODYS = ("sqlalchemy.", "verdigris.", "sqlmodel.")
#: Where SQLAlchemy wraps a listener that was registered without retval=True.
_WITHOUT_RETVAL = "sqlalchemy.engine.events"


class Listening:
    """Whether anybody has a say in the reads of one database: asked at each, judged anew when listeners come and go."""

    def __init__(self, probe: Session) -> None:
        self._session = probe.dispatch
        self._probe = probe
        self._seen: tuple[object, ...] = ()
        self._any = False

    def to(self, engine: Engine) -> bool:
        """Tell whether the application hears of statements or transactions and may change what they read."""
        orm, core = self._session, engine.dispatch
        heard = (
            orm.do_orm_execute,
            orm.after_begin,
            core.engine_connect,
            core.begin,
            core.before_execute,
            core.before_cursor_execute,
        )
        for listeners in heard:
            if listeners.parent_listeners or listeners.listeners:  # the lists themselves: a third of bool()
                return self._judged(engine)
        return bool(translation(engine))

    def _judged(self, engine: Engine) -> bool:
        orm, core = self._session, engine.dispatch
        seen = (
            *orm.do_orm_execute,
            engine,
            *orm.after_begin,
            None,
            *core.engine_connect,
            None,
            *core.begin,
            None,
            *core.before_execute,
            None,
            *core.before_cursor_execute,
            engine.get_execution_options(),
        )
        if seen != self._seen:
            self._any = has_listeners(self._probe) or who_has_a_say(self._probe, engine) is not None
            self._seen = seen
        return self._any


def translation(executable: Any) -> Any:
    """Return the schemas that a statement, connection or engine reads in the place of others, if there are any."""
    return executable.get_execution_options().get("schema_translate_map")


def has_listeners(session: Session) -> bool:
    """Whether anybody but this library listens to the statements of such a session, and may change them."""
    return _foreign(session.dispatch.do_orm_execute) is not None


def who_has_a_say(session: Session, engine: Engine) -> str | None:
    """Name who or what sets connections or transactions up, or may rewrite what the engine sends; None for nobody.

    `SET LOCAL` of a tenant, for row security, is such a thing, and so is a `schema_translate_map`. Listeners that only
    watch what is sent have no say.
    """
    if translation(engine):
        return "the engine's schema_translate_map"
    who = who_sets_up(session, engine)
    if who is not None:
        return who
    for name in ("before_execute", "before_cursor_execute"):
        found = _foreign(fn for fn in getattr(engine.dispatch, name) if fn.__module__ != _WITHOUT_RETVAL)
        if found is not None:
            return f"{_named(found)}, which listens to {name!r} with retval=True"
    return None


def who_sets_up(session: Session, engine: Engine) -> str | None:
    """Name who sets transactions up in which such a session reads, or their connections; None for nobody."""
    core = engine.dispatch
    connects = [fn for fn in core.engine_connect if foreign([fn])]  # SQLAlchemy itself gives options to each connection
    for name, listeners in (
        ("after_begin", session.dispatch.after_begin),
        ("engine_connect", connects),
        ("begin", core.begin),
    ):
        found = _foreign(listeners)
        if found is not None:
            return f"{_named(found)}, which listens to {name!r}"
    return None


def _foreign(listeners: Iterable[Any]) -> Any:
    return next((fn for fn in listeners if not fn.__module__.startswith("verdigris.")), None)


def _named(fn: Any) -> str:
    return f"{fn.__module__}.{getattr(fn, '__qualname__', fn)}"


def rewriting(session: AsyncSession | type[AsyncSession]) -> str | None:
    """Name a method by which a team's own class of sessions may change what a statement reads; None if it has none."""
    return _rewriting(session if isinstance(session, type) else type(session))  # type: ignore[arg-type]  # is hashable


@functools.lru_cache(maxsize=64)
def _rewriting(kind: Any) -> str | None:
    for of, names in ((kind, _OF_STATEMENTS), (kind.sync_session_class, (*_OF_STATEMENTS, "get_bind"))):
        for name in names:
            method: Any = getattr(of, name, None)
            if not getattr(method, "__module__", "verdigris.").startswith(_NOBODYS):
                return f"{method.__qualname__}(), which may change what it reads"
    return None


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
