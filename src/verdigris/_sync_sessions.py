"""The synchronous halves of two kinds of session: one whose flushes are all written out, and one that only reads.

`Database(autoflush=False)`: nothing is flushed unasked, and nothing pending is missed or dropped in silence.
SQLAlchemy with autoflush off lets a query miss what is pending, `get()` miss a new object and `refresh()` drop changes.
Here each is an error while something is pending in a table that the statement reads. What is checked: the tables of ORM
and Core statements, the words of textual ones, the object that is refreshed. What is not: functions of the server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause, event, inspect
from sqlalchemy.event import attr as event_attr
from sqlalchemy.orm import Session
from sqlalchemy.orm import session as orm_session
from sqlalchemy.orm.session import _SessionCloseState
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase

from verdigris._read_only import refuse, refuse_writes
from verdigris.errors import UnflushedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import ORMExecuteState


class ExplicitFlushSession(Session):
    """The synchronous half of a session whose flushes are all written out."""

    _flushes = False

    def flush(self, objects: Any = None) -> None:
        self._flushes = True
        try:
            super().flush(objects)
        finally:
            self._flushes = False

    def refresh(self, instance: object, *args: Any, **options: Any) -> None:
        if self.is_modified(instance):
            raise _unflushed(f"refresh() would drop the pending changes of {_name(instance)}.")
        super().refresh(instance, *args, **options)

    def pending(self) -> list[object]:
        """Return the objects that the next flush would write."""
        if self._flushes:
            return []
        changed = (instance for instance in self.dirty if self.is_modified(instance))
        return [*self.new, *changed, *self.deleted]


@event.listens_for(ExplicitFlushSession, "do_orm_execute")
def _nothing_is_missed(state: ORMExecuteState) -> None:
    session = state.session
    if state.is_column_load or not isinstance(session, ExplicitFlushSession):
        return
    pending = session.pending()
    if not pending:
        return
    missed = _of_tables(pending, state.statement)
    if missed:
        raise _unflushed(f"a statement reads what is pending: {', '.join(sorted({_name(one) for one in missed}))}.")


def _of_tables(pending: Iterable[object], statement: Any) -> list[object]:
    if isinstance(statement, TextClause):
        words = set(re.findall(r"\w+", statement.text.lower()))
    else:
        words = {getattr(part, "name", "") for part in visitors.iterate(statement) if part.__visit_name__ == "table"}
    return [one for one in pending if any(getattr(table, "name", "") in words for table in inspect(one).mapper.tables)]


def _name(instance: object) -> str:
    return type(instance).__name__


def _unflushed(what: str) -> UnflushedError:
    return UnflushedError(
        what,
        why="Autoflush is off, so the database does not have those changes yet.",
        do=["Send them first:   await session.flush()"],
        page="session/autoflush",
    )


class ReadSession(Session):
    """The synchronous half of a session of `db.read()`: it flushes nothing and sends queries only."""

    def flush(self, objects: Any = None) -> None:
        if self.new or self.dirty or self.deleted:
            raise refuse("flush changes")

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        _only_queries(statement)
        return super().execute(statement, *args, **options)

    def scalar(self, statement: Any, *args: Any, **options: Any) -> Any:
        _only_queries(statement)
        return super().scalar(statement, *args, **options)

    def scalars(self, statement: Any, *args: Any, **options: Any) -> Any:
        _only_queries(statement)
        return super().scalars(statement, *args, **options)


def _only_queries(statement: Any) -> None:
    """Refuse what writes; not by `do_orm_execute`, which would have each statement prepared twice.

    What a query has in a WITH is seen when it is sent (`dialect.do_execute`).
    """
    if isinstance(statement, TextClause):
        refuse_writes(statement.text)
    elif isinstance(statement, UpdateBase | ExecutableDDLElement):
        raise refuse("run a statement that writes")


_PLAIN = frozenset({Session, ReadSession})
_HOME = vars(orm_session)
_NOBODY: Any = vars(event_attr)["_EmptyListener"]  # but those who hear of the whole class

#: On a listener that only lazy loads concern, which are never lean.
OF_LAZY_LOADS = "__verdigris_of_lazy_loads__"


class Ears:
    """Who hears of what a session does: the lists of a class's listeners, as SQLAlchemy keeps and changes them.

    A session's own dispatcher is made when it is first asked for, which costs more than everything that is asked of it
    here; it is left alone until somebody listens to that one session.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._lists: dict[type, tuple[Any, ...]] = {}

    def hear(self, session: Any) -> bool:
        """Tell whether anybody listens."""
        own = session.__dict__.get("dispatch")
        if own is not None:  # somebody has asked for this session's own, as each transaction does
            for name in self._names:
                listeners = getattr(own, name)
                if type(listeners) is not _NOBODY and listeners and _mind(listeners):
                    return True
        kind = type(session)
        lists = self._lists.get(kind)
        if lists is None:
            of_class = object.__new__(kind).dispatch  # of any session: it passes on to the lists of the class
            found = [getattr(of_class, name) for name in self._names]
            lists = self._lists[kind] = tuple(getattr(each, "parent_listeners", each) for each in found)
        for listeners in lists:  # noqa: SIM110 - any() would make a generator, twice a read
            if listeners and _mind(listeners):
                return True
        return False


def _mind(listeners: Iterable[Any]) -> bool:
    """Tell whether one of some listeners is there for more than lazy loads."""
    return not all(hasattr(each, OF_LAZY_LOADS) for each in listeners)


OF_COMMIT = Ears("before_commit", "after_commit", "after_transaction_create", "after_transaction_end")
OF_BEGIN = Ears("after_transaction_create")
OF_CLOSE = Ears("persistent_to_detached", "pending_to_transient", "after_transaction_end")


def nothing_to_commit(session: Any) -> bool:
    """Tell whether `commit()` would do nothing that anybody can see: no transaction, no changes, no listeners.

    SQLAlchemy would begin a transaction of its own and commit it, in a greenlet, without a word to the server.
    """
    return (
        session._transaction is None
        and session._trans_context_manager is None  # in a block whose transaction has ended, nothing can be begun
        and session._close_state is not _SessionCloseState.CLOSED
        and not (session._new or session._deleted or session.identity_map._modified)
        and not (session.expire_on_commit and session.identity_map)
        and not OF_COMMIT.hear(session)
    )


def closes_at_once(session: Any) -> bool:
    """Tell whether `close()` waits for nothing: there is no transaction, and nobody hears of detached instances."""
    return session._transaction is None and not OF_CLOSE.hear(session)


def close_at_once(session: Any) -> None:
    """Do what `close()` does where it `closes_at_once`: instances are let go, and nobody is asked who hears of each.

    Whoever watches sessions by a `close()` of his own in the place of SQLAlchemy's, as recordings do, sees it called.
    """
    own = type(session) in _PLAIN and _is_its_own(Session.close) and _is_its_own(Session.expunge_all)
    if not own or session._new or session._deleted:
        session.close()
        return
    if session._close_state is _SessionCloseState.ACTIVE:
        session._close_state = _SessionCloseState.CLOSED
    held = session.identity_map
    states = held.all_states()
    held._kill()
    session.identity_map = type(held)()
    for state in states:
        state.session_id = state._strong_obj = None


def _is_its_own(method: Any) -> bool:
    return getattr(method, "__globals__", None) is _HOME
