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
from verdigris.fastapi.collector import patient
from verdigris.fastapi.dispatch import ReadsFirst
from verdigris.fastapi.reads import ReadRouter
from verdigris.fastapi.route import Route, retrying
from verdigris.fastapi.streams import GeneratorsClosed
from verdigris.performance import REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from verdigris.engine import Database

__all__ = ["ReadRouter", "Route", "install", "retrying"]


def install(
    app: FastAPI,
    db: Database,
    *,
    errors: bool = True,
    checks: bool = True,
    metrics: bool = True,
    fields: Mapping[str, str] | None = None,
    collect_after: int | None = 50_000,
) -> None:
    """Join a database to an application; call it after the app is made, once for each database.

    The application's own lifespan runs inside the database's. With `checks`, what cannot work is named at start-up,
    with the edit to make, and the application does not start. With `errors`, database errors become problem+json
    answers (RFC 9457) unless the application has a handler of its own for the class; `fields` maps names of constraints
    to names of input fields where the column's name is not the field's. With `metrics`, each query's time in
    `db.queries` is kept with the route that asked.

    While the application runs, Python's garbage collector runs for each `collect_after` new objects instead of each
    2,000 (700 before Python 3.13), unless it is off or the application has set it itself: a service with pages of
    objects spends a fifth of its time in it, and stands still for it. The setting is the whole process's, and as it was
    behind the last application. Garbage in cycles waits for as many objects. None leaves the collector alone.
    """
    installed: list[Database] = getattr(app.state, "verdigris", [])
    if any(known is db for known in installed):
        return
    app.state.verdigris = [*installed, db]
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: Any) -> AsyncGenerator[Any]:
        if checks:
            _checks.check(app, db)
        async with db.lifespan(running), inner(running) as state:
            with patient(collect_after):
                yield state

    app.router.lifespan_context = lifespan
    if not installed:
        app.user_middleware.append(Middleware(ReadsFirst, of=app))  # at the end: inside of all others
    app.add_middleware(GeneratorsClosed, dependants=functools.partial(_checks.dependants, app))
    if metrics:
        app.add_middleware(_RequestOfQueries)
    if errors:
        _problems.answer_with_problems(app, fields or {})


class _RequestOfQueries:
    """Let measured queries know which request they answer; plain ASGI, one context variable, nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = REQUEST.set(scope)
        try:
            await self.app(scope, receive, send)
        finally:
            REQUEST.reset(token)
