"""The engine: one `Database` per database, with everything the first section of the checklist asks for."""

from __future__ import annotations

from verdigris.engine.database import Database

__all__ = ["Database"]
