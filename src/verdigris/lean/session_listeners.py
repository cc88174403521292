"""Who listens to what a session does: asked before each thing that is done without SQLAlchemy's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.event import attr as event_attr

from verdigris.lean.theirs import theirs

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOBODY = theirs(event_attr, "_EmptyListener")  # but those who hear of the whole class

#: On a listener that only lazy loads concern, which are never lean.
OF_LAZY_LOADS = "__verdigris_of_lazy_loads__"


class SessionListeners:
    """Those who listen to events of a session, by the events' names: the lists that SQLAlchemy keeps and changes.

    A session's own dispatcher is made when it is first asked for, which costs more than everything that is asked of it
    here; it is left alone until somebody listens to that one session.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._lists: dict[type, tuple[Any, ...]] = {}

    def any(self, session: Any) -> bool:
        """Tell whether anybody listens."""
        own = session.__dict__.get("dispatch")
        if own is not None:  # somebody has asked for this session's own, as each transaction does
            for name in self._names:
                listeners = getattr(own, name)
                if type(listeners) is not _NOBODY and listeners and _matter(listeners):
                    return True
        kind = type(session)
        lists = self._lists.get(kind)
        if lists is None:
            of_class = object.__new__(kind).dispatch  # of any session: it passes on to the lists of the class
            found = [getattr(of_class, name) for name in self._names]
            lists = self._lists[kind] = tuple(getattr(each, "parent_listeners", each) for each in found)
        for listeners in lists:  # noqa: SIM110 - any() would make a generator, twice a read
            if listeners and _matter(listeners):
                return True
        return False


def _matter(listeners: Iterable[Any]) -> bool:
    """Tell whether one of some listeners is there for more than lazy loads."""
    return not all(hasattr(each, OF_LAZY_LOADS) for each in listeners)


OF_BEGIN = SessionListeners("after_begin", "after_transaction_create")
OF_TRANSACTION = SessionListeners("after_transaction_create")
OF_COMMIT = SessionListeners("before_commit", "after_commit", "after_transaction_create", "after_transaction_end")
OF_CLOSE = SessionListeners("persistent_to_detached", "pending_to_transient", "after_transaction_end")
OF_READS = SessionListeners("do_orm_execute", "loaded_as_persistent")
