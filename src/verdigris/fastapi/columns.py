"""The columns behind a constraint, where the server's error names none: a CHECK, an index on an expression."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sqlalchemy import text

from verdigris.errors.classify import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verdigris.database import Database
    from verdigris.errors import Fault

log = logging.getLogger("verdigris")
_SECONDS = 1.0  # the answer does not wait longer for this nicety

# What a constraint or an index depends on: pg_depend knows the columns inside expressions too.
_COLUMNS = text("""
    SELECT DISTINCT attname
    FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE refobjsubid > 0 AND refobjid IN (SELECT oid FROM pg_class WHERE relname = :table)
      AND (classid = 'pg_constraint'::regclass
               AND objid IN (SELECT oid FROM pg_constraint WHERE conname = :name AND conrelid = refobjid)
           OR classid = 'pg_class'::regclass
               AND objid IN (SELECT indexrelid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                             WHERE relname = :name AND indrelid = refobjid))
    ORDER BY attname
""")


class ConstraintColumns:
    """Asks the catalogue once for each constraint that was broken, and remembers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str | None], tuple[str, ...]] = {}

    async def of(self, fault: Fault, databases: Iterable[Database]) -> tuple[str, ...]:
        """Return the columns of the constraint that a fault names; none if nobody can tell in a second."""
        key = fault.table, fault.constraint
        if key not in self._known:
            for db in databases:
                try:
                    async with asyncio.timeout(_SECONDS), db.read() as session:
                        found = await session.scalars(_COLUMNS, {"table": fault.table, "name": fault.constraint})
                        self._known[key] = tuple(found)
                except FAILURES:
                    log.info("the columns of constraint %s are not known", fault.constraint)
                if self._known.get(key):
                    break
        return self._known.get(key, ())
