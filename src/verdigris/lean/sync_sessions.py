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
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase

from verdigris.engine.read_only import refuse, refuse_writes
from verdigris.errors import UnflushedError
from verdigris.lean.session_listeners import SessionListeners

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Engine
    from sqlalchemy.orm import ORMExecuteState


_SET_UP = SessionListeners("after_begin")


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
    """The synchronous half of a session of `db.read()`: it flushes nothing and sends queries only.

    It reads in transactions, where it did in autocommit, once somebody sets them up: what a listener that came after
    the session was opened says by `SET LOCAL` would end with that statement.
    """

    def __init__(self, bind: Any = None, *, begun: Mapping[Any, Engine] | None = None, **options: Any) -> None:
        super().__init__(bind, **options)
        self._begun = begun or {}

    def get_bind(self, *args: Any, **options: Any) -> Any:
        bind = super().get_bind(*args, **options)
        begun = self._begun.get(bind)
        if begun is None or not (_SET_UP.any(self) and any(map(_is_foreign, self.dispatch.after_begin))):
            return bind
        if self.bind is bind:
            self.bind = begun
        return begun

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


def _is_foreign(listener: Any) -> bool:
    return not listener.__module__.startswith("verdigris.")


def _only_queries(statement: Any) -> None:
    """Refuse what writes; not by `do_orm_execute`, which would have each statement prepared twice.

    What a query has in a WITH is seen when it is sent (`dialect.do_execute`).
    """
    if isinstance(statement, TextClause):
        refuse_writes(statement.text)
    elif isinstance(statement, UpdateBase | ExecutableDDLElement):
        raise refuse("run a statement that writes")
