"""The route class: what a dependency cannot do for a request's transaction.

A dependency does not see the response, and it cannot run the handler again. `Route` ends the transaction inside the
route, so a returned 4xx or 5xx rolls back, and a transient fault can repeat the request, dependencies included.
"""

from __future__ import annotations

import functools
import inspect
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastapi import routing
from fastapi.routing import APIRoute
from starlette.responses import StreamingResponse

from verdigris._places import request_name
from verdigris.concurrency import checked_attempts
from verdigris.database import Database
from verdigris.database.levels import known_level
from verdigris.errors import ConfigurationError
from verdigris.fastapi.bodies import keep, rewind
from verdigris.fastapi.escapes import escape, refuse_escapes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from verdigris.session.request import RequestUnit

    Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_Endpoint = TypeVar("_Endpoint", bound="Callable[..., Any]")
_MARK = "__verdigris_retrying__"
_MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often and for how long a request may be repeated, and how its session runs."""

    attempts: int | None
    deadline: float | None
    idempotent: bool
    isolation_level: str | None
    resolve: bool
    max_body: int


@overload
def retrying(endpoint: _Endpoint, /) -> _Endpoint: ...


@overload
def retrying(
    *,
    attempts: int | None = None,
    deadline: float | None = None,
    idempotent: bool = False,
    isolation_level: str | None = None,
    resolve: bool = False,
    max_body: int = _MAX_BODY,
) -> Callable[[_Endpoint], _Endpoint]: ...


def retrying(
    endpoint: Any = None,
    /,
    *,
    attempts: int | None = None,
    deadline: float | None = None,
    idempotent: bool = False,
    isolation_level: str | None = None,
    resolve: bool = False,
    max_body: int = _MAX_BODY,
) -> Any:
    """Mark an endpoint whose whole request may be repeated after a transient fault; it needs `route_class=Route`.

    Each attempt has fresh dependencies and a fresh session; the failed one is closed first. Effects outside the
    database happen again, unless they wait in `after_commit()`. A body of up to `max_body` bytes is kept in
    memory so that it can be read again; forms are, with their uploaded files rewound. A request whose body can't be
    read again is not repeated, and the log says why. The other options are those of `db.transaction()`. Written
    `@retrying`, or `@retrying(...)` with options.

    Generator endpoints and websockets cannot be repeated: their first byte is gone. ConfigurationError says so.
    """
    level = known_level(isolation_level)
    policy = Retrying(checked_attempts(attempts), deadline, idempotent, level, resolve, max_body)

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _MARK, policy)
        return endpoint

    return mark if endpoint is None else mark(endpoint)


def retrying_of(endpoint: object) -> Retrying | None:
    """Return what `@retrying` said of an endpoint."""
    found = getattr(endpoint, _MARK, None)
    return found if isinstance(found, Retrying) else None


class Route(APIRoute):
    """A route that ends its transaction before it returns: `APIRouter(route_class=Route)`.

    A response with a status of 400 and above rolls back what the handler wrote (a handler that wants to keep it commits
    itself); a generator, streaming body or background task that holds the request's session is refused before the 200
    is sent. A streaming body is closed when its client hangs up.
    """

    def get_route_handler(self) -> Handler:
        handler, policy = super().get_route_handler(), retrying_of(self.endpoint)
        if is_generator(self.endpoint):
            if policy is not None:
                raise _not_repeatable(self.endpoint)
            if any(_is_request_session(each.call) for each in self.dependant.dependencies):
                return _refuse
        if policy is None:
            return functools.partial(_attempt, handler)
        return functools.partial(_repeat, handler, policy)


def as_served(routes: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Give routes in their order, each as it was made and as it is served: below the prefixes of included routers."""
    contexts = getattr(routing, "iter_route_contexts", None)  # FastAPI that includes routers lazily
    for served in contexts(routes) if contexts is not None else routes:
        yield getattr(served, "original_route", served), served


def is_generator(endpoint: Callable[..., Any]) -> bool:
    """Tell whether an endpoint is a generator: what it yields is sent after the route has returned."""
    plain = inspect.unwrap(endpoint)
    plain = plain if inspect.isroutine(plain) else getattr(plain, "__call__", plain)  # noqa: B004 - an instance
    return inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)


def _is_request_session(call: object) -> bool:
    return getattr(call, "__func__", None) is Database.request_session


def _not_repeatable(endpoint: Callable[..., Any]) -> ConfigurationError:
    return ConfigurationError(
        f"@retrying on {getattr(endpoint, '__name__', endpoint)}, which is a generator: it cannot be repeated.",
        why="When it fails, the status and what it had yielded have gone to the client.",
        do=["Take @retrying off, and repeat units of work inside:   await db.transaction(work)"],
        page="errors/retry-transient",
    )


async def _refuse(request: Request) -> Response:
    raise escape(f"the generator of {request_name(request.scope)} takes the request's session, which closes", "it")


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
            if isinstance(response, StreamingResponse) and hasattr(response.body_iterator, "aclose"):
                until_sent.push_async_callback(response.body_iterator.aclose)
            await outer["fastapi_inner_astack"].enter_async_context(until_sent.pop_all())
    finally:
        scope.update(outer)
    return response


async def _repeat(handler: Handler, policy: Retrying, request: Request) -> Response:
    """Repeat the request while its fault is transient and its attempts last."""
    if policy.isolation_level is not None:
        request.scope["verdigris.isolation_level"] = policy.isolation_level
    request.scope["verdigris.resolve"] = policy.resolve
    used_up = await keep(request, policy.max_body)
    allowed, began = None, time.monotonic()
    while True:
        try:
            return await _attempt(handler, request)
        except Exception as error:
            units: list[RequestUnit] = request.scope["verdigris.units"]
            if not units:
                raise
            allowed = allowed or units[0].database._attempts(  # noqa: SLF001 - a request is one of the Database's units
                policy.attempts,
                policy.deadline,
                idempotent=policy.idempotent,
                since=time.monotonic() - began,
            )
            if not await allowed.again(error, used_up or await rewind(request)):
                raise
