"""The factory of a `Database`: SQLAlchemy's, for sessions of ours or of a class that a team has derived from them."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session

from verdigris.errors import ConfigurationError
from verdigris.lean.reads import LeanReads
from verdigris.lean.sync_sessions import ExplicitFlushSession
from verdigris.lean.theirs import MISSING
from verdigris.session import AsyncSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from verdigris.database.settings import Settings
    from verdigris.lean.lane import Lane

log = logging.getLogger("verdigris")
_PAGE = "docs/database.md"
_KINDS: dict[tuple[type[Session], type[Session]], type[Session]] = {}


def factory(engine: AsyncEngine, settings: Settings, lane: Lane) -> async_sessionmaker[Any]:
    """Return the factory of a database's sessions."""
    kind = settings.session_class
    inner = kind.sync_session_class
    short = settings.shortcuts and inner is Session  # what a synchronous half of one's own does is SQLAlchemy's affair
    if short and MISSING:
        short = False
        log.warning("sessions go SQLAlchemy's way, as with shortcuts=False: this release has no %s", ", ".join(MISSING))
    return async_sessionmaker(
        engine,
        class_=kind,
        expire_on_commit=settings.expire_on_commit,
        autoflush=settings.autoflush,
        close_resets_only=settings.close_resets_only,
        guard_tasks=settings.guard_tasks,
        lean=LeanReads(engine.sync_engine, lane) if short else None,
        sync_session_class=inner if settings.autoflush else over(ExplicitFlushSession, inner),
    )


def over(ours: type[Session], theirs: type[Session]) -> type[Session]:
    """Return the synchronous half of a session that is of a kind of ours and of a class of a team's own."""
    if theirs is Session:
        return ours
    if (ours, theirs) not in _KINDS:  # a class each, to which listeners may belong
        _KINDS[ours, theirs] = joined(f"{ours.__name__}Of{theirs.__name__}", ours, theirs)
    return _KINDS[ours, theirs]


class _Unannounced:
    """Keeps a class from its team's `__init_subclass__`, which may want keywords that only theirs say."""

    def __init_subclass__(cls, **_options: Any) -> None:
        """Do nothing, and ask nobody."""


def joined(name: str, *classes: type) -> Any:
    """Return a class that is all of some, the first before the others."""
    return type(name, (_Unannounced, *classes), {})


def _in_the_place_of(kind: Any) -> str:
    """Return what to add for a class of SQLModel's sessions, whose own methods would go past those of ours."""
    of_sqlmodel = any(each.__module__.startswith("sqlmodel.") for each in getattr(kind, "__mro__", ()))
    return "   # it has SQLModel's exec(), with the same results and types" if of_sqlmodel else ""


def checked(kind: Any) -> type[AsyncSession]:
    """Return a class of sessions; raises ConfigurationError for one that lacks what those of a Database do."""
    if not isinstance(kind, type) or not issubclass(kind, AsyncSession):
        name = kind.__name__ if isinstance(kind, type) else "MySession"
        said = f"{name}, which is not" if isinstance(kind, type) else f"{kind!r}, which is no class"
        raise ConfigurationError(
            f"session_class= is {said} derived from verdigris.AsyncSession.",
            why="One task at a time, closed for good, a COMMIT that is told as it was: that is what its methods do.",
            do=[f"from verdigris import AsyncSession{_in_the_place_of(kind)}", f"class {name}(AsyncSession): ..."],
            page=_PAGE,
        )
    takes = inspect.signature(kind.__init__).parameters.values()
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes):
        raise ConfigurationError(
            f"{kind.__name__}.__init__() takes no **options.",
            why="The factory gives each session its engine and its settings.",
            do=[
                "def __init__(self, *args: Any, audit: Audit | None = None, **options: Any) -> None:",
                "    super().__init__(*args, **options)",
            ],
            page=_PAGE,
        )
    inner: Any = kind.sync_session_class
    if not isinstance(inner, type) or not issubclass(inner, Session):
        raise ConfigurationError(
            f"{kind.__name__}.sync_session_class is {inner!r}, which is no class derived from sqlalchemy.orm.Session.",
            do=["class Routed(Session): ...", f"class {kind.__name__}(AsyncSession): sync_session_class = Routed"],
            page=_PAGE,
        )
    return kind
