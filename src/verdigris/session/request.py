"""The session of a request: committed when its handler is done, before the answer leaves."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from verdigris.errors import ConfigurationError
from verdigris.session.resolve import commit_or_resolve

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    from verdigris.database import Database
    from verdigris.session import AsyncSession

_NAMED = "method", "route", "fastapi"  # what a request is named by


def until_answered(scope: MutableMapping[str, Any]) -> AsyncExitStack:
    """Return what FastAPI leaves when a request's handler is done and before its answer is sent.

    FastAPI enters the generators of `scope="function"` into it. A generator costs 40 µs a request, used or not, so the
    request's session is none: it puts its end here itself.
    """
    stack = scope.get("fastapi_function_astack")
    if not isinstance(stack, AsyncExitStack):
        raise ConfigurationError(
            "request_session() was called by something that is not a route of FastAPI 0.121 or newer.",
            why="Nobody would commit and close its session before the answer is sent.",
            do=["Open one for this work:   async with db.session() as session: ..."],
            page="fastapi/commit-or-rollback",
        )
    return stack


class RequestUnit:
    """The transaction of one request: committed at the end, rolled back on any exception, closed on every path.

    The route class may ask it to `undo` its work although nothing was raised.
    """

    __slots__ = ("database", "resolve", "session", "undo")

    def __init__(self, database: Database, scope: MutableMapping[str, Any]) -> None:
        database._budget.unit_began()  # noqa: SLF001 - a request is one of the Database's units
        self.database = database
        named = {key: scope[key] for key in _NAMED if key in scope}  # not the scope itself, which holds this unit
        level = scope.get("verdigris.isolation_level")
        self.session = database._open_session(level, info={"verdigris.scope": named})  # noqa: SLF001 - as above
        self.resolve = bool(scope.get("verdigris.resolve"))
        self.undo = False
        scope.setdefault("verdigris.units", []).append(self)

    async def __aenter__(self) -> AsyncSession:
        return self.session

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.session._unused:  # noqa: SLF001 - one of ours
            guard = self.session._guard  # noqa: SLF001 - as above
            guard.closed = guard.dies
            return
        async with self.session:  # closing rolls back what was not committed, and runs to its end when cancelled
            if type_ is None and not self.undo:
                await commit_or_resolve(self.session, self.database._resolver() if self.resolve else None)  # noqa: SLF001 - as above
