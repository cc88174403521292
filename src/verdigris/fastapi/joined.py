"""What `install` has joined to an application: kept in the application's own state, once for all of its databases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi import FastAPI
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

    from verdigris.database import Database
    from verdigris.errors import Fault

    Handler = Callable[[HTTPConnection, Exception], Awaitable[Response | None]]
    Answer = Callable[[HTTPConnection, Exception, Fault], Awaitable[Response | None]]


@dataclass(slots=True)
class Joined:
    """The databases of one application, each with the options of its `install`, and how their errors are answered."""

    databases: list[Database] = field(default_factory=list)
    options: list[Mapping[str, Any]] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)  # names of constraints, with those of input fields
    handler: Handler | None = None  # of the exceptions that are the database's
    answer: Answer | None = None  # what that comes to, for an error whose fault is known

    def has(self, db: Database, options: Mapping[str, Any]) -> bool:
        """Tell whether a database is joined already; raises ConfigurationError where that was with other options."""
        before = next((each for other, each in zip(self.databases, self.options, strict=True) if other is db), None)
        if before is None:
            return False
        other = [name for name, value in options.items() if value != before[name]]
        if other:
            first, now = before[other[0]], options[other[0]]
            raise ConfigurationError(
                f"install(app, db) is called again for the same database, with another {' and another '.join(other)}.",
                why=f"The first call's {other[0]}={first!r} is in force; {now!r} would be dropped.",
                do=[f"Call it once, with all options:   install(app, db, {other[0]}={now!r})"],
                page="docs/errors.md",
            )
        return True

    def add(self, db: Database, options: Mapping[str, Any]) -> None:
        """Note a database, and the options that it is joined with."""
        self.databases.append(db)
        self.options.append(options)
        self.fields.update(options["fields"])


def joined(app: Any) -> Joined | None:
    """Return what was joined to an application, if anything was."""
    found: Joined | None = getattr(app.state, "verdigris", None)
    return found


def joining(app: FastAPI) -> Joined:
    """Return the same, made if there is none."""
    found = joined(app)
    if found is None:
        found = app.state.verdigris = Joined()
    return found
