"""The isolation levels that there are: a name that is none of them is refused before a connection is taken for it."""

from __future__ import annotations

import difflib
from typing import Final

from verdigris.errors import ConfigurationError

#: As the dialect names them: https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#postgresql-isolation-level
LEVELS: Final = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED", "AUTOCOMMIT")


def known_level(given: str | None) -> str | None:
    """Return an isolation level as SQLAlchemy names it; None stays None. Raises ConfigurationError for no level."""
    if given is None:
        return None
    level = str(given).replace("_", " ").upper()  # as SQLAlchemy reads it
    if level in LEVELS:
        return level
    near = difflib.get_close_matches(level, LEVELS, 1) or ["SERIALIZABLE"]
    raise ConfigurationError(
        f"isolation_level={given!r} is no isolation level.",
        why=f"The levels are {', '.join(LEVELS)}.",
        do=[f'Write isolation_level="{near[0]}", or leave it out for the one that the Database has.'],
        page="docs/transactions.md",
    )
