"""An application's own Database replaced for the length of a test, wherever the application keeps it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.database import Database

D = TypeVar("D", bound="Database")

#: What a session factory of the application says about sessions, and a substitute says too.
COPIED = ("expire_on_commit", "autoflush", "close_resets_only", "guard_tasks")


@contextmanager
def standing_in(substitute: D, database: Database) -> Iterator[D]:
    """Let the application's own Database be `substitute` inside the block, session factory and dependency too.

    Its class of sessions, its settings for them and for retries stay. What was made from `database.engine` itself is
    not redirected. `substitute` is a test's sandbox or its `verdigris_database`.
    """
    factory, kind, state = database.session, type(database), database.__dict__
    kept_class, kept = factory.class_, factory.kw
    inside = getattr(substitute, "inside", _as_it_is)
    own = {name: kept[name] for name in COPIED if name in kept}
    substitute.session.class_ = kept_class
    substitute.session.configure(**own, sync_session_class=inside(kept.get("sync_session_class", Session)))
    substitute.retry = database.retry
    substitute._budget.reset(database.retry)  # noqa: SLF001 - a Database's own
    factory.class_, factory.kw = substitute.session.class_, substitute.session.kw
    database.__class__ = type(substitute)
    database.__dict__ = substitute.__dict__
    try:
        yield substitute
    finally:
        database.__class__ = kind
        database.__dict__ = state
        factory.class_, factory.kw = kept_class, kept


def _as_it_is(kind: type[Session]) -> type[Session]:
    return kind
