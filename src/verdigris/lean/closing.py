"""Sessions that have nothing to commit, or wait for nothing when they close: ended without a greenlet."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.orm import session as orm_session

from verdigris.lean.session_listeners import OF_CLOSE, OF_COMMIT
from verdigris.lean.sync_sessions import ReadSession
from verdigris.lean.theirs import theirs

CLOSE_STATE = theirs(orm_session, "_SessionCloseState")
_PLAIN = frozenset({Session, ReadSession})
_HOME = vars(orm_session)


def is_changed(session: Any) -> bool:
    """Tell whether a flush would have anything to look at."""
    return bool(session._new or session._deleted or session.identity_map._modified)


def nothing_to_commit(session: Any) -> bool:
    """Tell whether `commit()` would do nothing that anybody can see: no transaction, no changes, no listeners.

    SQLAlchemy would begin a transaction of its own and commit it, in a greenlet, without a word to the server.
    """
    return (
        session._transaction is None
        and session._trans_context_manager is None  # in a block whose transaction has ended, nothing can be begun
        and session._close_state is not CLOSE_STATE.CLOSED
        and not is_changed(session)
        and not (session.expire_on_commit and session.identity_map)
        and not OF_COMMIT.any(session)
    )


def closes_at_once(session: Any) -> bool:
    """Tell whether `close()` waits for nothing: there is no transaction, and nobody hears of detached instances."""
    return session._transaction is None and not OF_CLOSE.any(session)


def close_at_once(session: Any) -> None:
    """Do what `close()` does where it `closes_at_once`: instances are let go, and nobody is asked who hears of each.

    Whoever watches sessions by a `close()` of his own in the place of SQLAlchemy's, as recordings do, sees it called.
    """
    own = type(session) in _PLAIN and _is_its_own(Session.close) and _is_its_own(Session.expunge_all)
    if not own or session._new or session._deleted:
        session.close()
        return
    if session._close_state is CLOSE_STATE.ACTIVE:
        session._close_state = CLOSE_STATE.CLOSED
    held = session.identity_map
    states = held.all_states()
    held._kill()
    session.identity_map = type(held)()
    for state in states:
        state.session_id = state._strong_obj = None


def _is_its_own(method: Any) -> bool:
    return getattr(method, "__globals__", None) is _HOME
