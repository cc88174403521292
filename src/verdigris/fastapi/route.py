"""The route class: what a dependency cannot do for a request's transaction.

A dependency does not see the response, and it cannot run the handler again. `Route` ends the transaction inside the
route, so a returned 4xx or 5xx rolls back, and a transient fault can repeat the request, dependencies included.
"""

from __future__ import annotations

import functools
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi.routing import APIRoute

from verdigris._places import request_name
from verdigris.fastapi.escapes import refuse_escapes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from verdigris.concurrency import Attempts
    from verdigris.session import RequestUnit

    Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_Endpoint = TypeVar("_Endpoint", bound="Callable[..., Any]")
_MARK = "__verdigris_retrying__"
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often and for how long a request may be repeated, and how its session runs."""

    attempts: int
    deadline: float | None
    idempotent: bool
    isolation_level: str | None
    resolve: bool


def retrying(
    *,
    attempts: int = 4,
    deadline: float | None = None,
    idempotent: bool = False,
    isolation_level: str | None = None,
    resolve: bool = False,
) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint whose whole request may be repeated after a transient fault; it needs `route_class=Route`.

    Each attempt has fresh dependencies and a fresh session; the failed one is closed first. Effects outside the
    database happen again. The body is kept in memory so that it can be read again; uploaded files are rewound.
    """

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _MARK, Retrying(attempts, deadline, idempotent, isolation_level, resolve))
        return endpoint

    return mark


def retrying_of(endpoint: object) -> Retrying | None:
    """Return what `@retrying` said of an endpoint."""
    found = getattr(endpoint, _MARK, None)
    return found if isinstance(found, Retrying) else None


class Route(APIRoute):
    """A route that ends its transaction before it returns: `APIRouter(route_class=Route)`.

    A response with a status of 400 and above rolls back what the handler wrote (a handler that wants to keep it commits
    itself); a streaming body or background task that holds the request's session is refused before the 200 is sent.
    """

    def get_route_handler(self) -> Handler:
        handler, policy = super().get_route_handler(), retrying_of(self.endpoint)
        if policy is None:
            return functools.partial(_attempt, handler)
        return functools.partial(_repeat, handler, policy)


async def _attempt(handler: Handler, request: Request) -> Response:
    """Run the handler with exit stacks of its own, so that the transaction ends here and not around the route."""
    scope = request.scope
    units: list[RequestUnit] = []
    scope["verdigris.units"] = units
    outer = {name: scope[name] for name in ("fastapi_inner_astack", "fastapi_function_astack")}
    try:
        async with AsyncExitStack() as until_sent:
            async with AsyncExitStack() as until_answered:
                scope.update(fastapi_inner_astack=until_sent, fastapi_function_astack=until_answered)
                response = await handler(request)
                if response.status_code >= 400:
                    for unit in units:
                        unit.undo = True
                elif units:
                    refuse_escapes(response, [unit.session for unit in units], request_name(scope))
            await outer["fastapi_inner_astack"].enter_async_context(until_sent.pop_all())
    finally:
        scope.update(outer)
    return response


async def _repeat(handler: Handler, policy: Retrying, request: Request) -> Response:
    """Repeat the request while its fault is transient and its attempts last."""
    if policy.isolation_level is not None:
        request.scope["verdigris.isolation_level"] = policy.isolation_level
    request.scope["verdigris.resolve"] = policy.resolve
    form = request.headers.get("content-type", "").startswith(_FORMS)
    if not form:
        await request.body()  # kept by the request: whoever reads it again gets it again
    allowed: Attempts | None = None
    while True:
        try:
            return await _attempt(handler, request)
        except Exception as error:
            units: list[RequestUnit] = request.scope["verdigris.units"]
            if not units:
                raise
            allowed = allowed or units[0].database.attempts(
                policy.attempts, policy.deadline, idempotent=policy.idempotent
            )
            if not await allowed.again(error) or (form and not await _rewound(request)):
                raise


async def _rewound(request: Request) -> bool:
    """Set the files of a form back to their beginning; False if the endpoint has read the stream itself."""
    try:
        form = await request.form()
        for part in form.values():
            if not isinstance(part, str):
                await part.seek(0)
    except (RuntimeError, ValueError):  # consumed, or closed by the endpoint
        return False
    return True
