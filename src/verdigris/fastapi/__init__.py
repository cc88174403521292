"""FastAPI: the request's transaction, honest answers, and checks at start-up.

`install(app, db)` joins a database to an application; `Depends(db.request_session, scope="function")` gives a handler
its session; `APIRouter(route_class=Route)` adds rollback of returned errors, and retries where `@retrying` asks.
"""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware

from verdigris.fastapi import checks as _checks
from verdigris.fastapi import problems as _problems
from verdigris.fastapi.collector import checked_objects, patient
from verdigris.fastapi.dispatch import ReadsFirst
from verdigris.fastapi.joined import joining
from verdigris.fastapi.reads import ReadRouter
from verdigris.fastapi.route import Route, retrying
from verdigris.fastapi.streams import GeneratorsClosed
from verdigris.performance.sites import REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from verdigris.database import Database

__all__ = ["ReadRouter", "Route", "install", "retrying"]


def install(
    app: FastAPI,
    db: Database,
    *,
    errors: bool = True,
    checks: bool = True,
    fields: Mapping[str, str] | None = None,
    collect_after: int | None = 50_000,
) -> None:
    """Join a database to an application; call it after the app is made, once for each database.

    The application's own lifespan runs inside the database's. With `checks`, what cannot work is named at start-up,
    with the edit to make, and the application does not start. With `errors`, database errors become problem+json
    answers (RFC 9457) unless the application has a handler of its own for the class; `fields` maps names of constraints
    to names of input fields where the column's name is not the field's. Each query's time in `db.queries` is kept with
    the route that asked, and a replica serves a request nothing older than what it has written itself.

    While the application runs, Python's garbage collector runs for each `collect_after` new objects instead of each
    2,000 (700 before Python 3.13), unless it is off or the application has set it itself: a service with pages of
    objects spends a fifth of its time in it, and stands still for it. The setting is the whole process's, and as it was
    behind the last application. Garbage in cycles waits for as many objects. None leaves the collector alone.

    Raises ConfigurationError where a database is joined a second time with other options, and for a `collect_after`
    below 1.
    """
    checked_objects(collect_after)
    options = {"errors": errors, "checks": checks, "fields": dict(fields or {}), "collect_after": collect_after}
    known = joining(app)
    if known.has(db, options):
        return
    is_first = not known.databases
    known.add(db, options)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: Any) -> AsyncGenerator[Any]:
        if checks:
            _checks.check(app, db)
        if errors:
            _problems.answer_in_mounted(app, known)
        async with db.lifespan(running), inner(running) as state:
            with patient(collect_after):
                yield state

    app.router.lifespan_context = lifespan
    if is_first:
        innermost = Middleware(ReadsFirst, of=app, otherwise=_problems.Wrapped)
        app.user_middleware.append(innermost)  # at the end: inside of all others
        app.add_middleware(GeneratorsClosed, dependants=functools.partial(_checks.dependants, app))
        app.add_middleware(_InRequest)
    if errors and known.handler is None:  # one for all databases
        _problems.answer_with_problems(app, known)


class _InRequest:
    """Let a query and a commit know which request they are of: for its route's times and for what it has written."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = REQUEST.set(scope)
        try:
            await self.app(scope, receive, send)
        finally:
            REQUEST.reset(token)
