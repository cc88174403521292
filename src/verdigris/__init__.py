"""The async SQLAlchemy, FastAPI and PostgreSQL checklist: kept by a library, proved by a checker.

The names below are imported when they are first used, so that the checker runs where SQLAlchemy is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdigris import bulk, errors
    from verdigris.concurrency import Retry
    from verdigris.database import Database
    from verdigris.loading import explain_plan, load
    from verdigris.models import Base
    from verdigris.session import AsyncSession, after_commit

__version__ = "0.1.0"
__all__ = [
    "AsyncSession",
    "Base",
    "Database",
    "Retry",
    "__version__",
    "after_commit",
    "bulk",
    "errors",
    "explain_plan",
    "load",
]

_MODULE_OF = {
    "AsyncSession": "session",
    "Base": "models",
    "Database": "database",
    "Retry": "concurrency",
    "after_commit": "session",
    "explain_plan": "loading",
    "load": "loading",
}
_MODULES = frozenset({"bulk", "errors"})


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
