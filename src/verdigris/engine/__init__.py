"""The engine: one `Database` per database, with everything the first section of the checklist asks for.

`Database` is imported when it is first used: it is built on sessions, and they on modules of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdigris.engine.database import Database

__all__ = ["Database"]


def __getattr__(name: str) -> object:
    if name != "Database":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from verdigris.engine.database import Database

    return Database
