"""Streams and generator endpoints (SSE, JSON lines): closed when their answer was sent or cut, sessions included.

FastAPI and Starlette leave a generator to the garbage collector when its client hangs up: until that comes by, the
session that was opened inside keeps its connection and its transaction.
"""

from __future__ import annotations

import functools
import inspect
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from verdigris._annotations import annotations_of
from verdigris._places import request_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from fastapi.dependencies.models import Dependant
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("verdigris")
_OPENED: ContextVar[list[AsyncGenerator[Any, Any]] | None] = ContextVar("verdigris_generators", default=None)
_TELLS = "__verdigris_tells__"
NEVER_STREAMS = "__verdigris_never_streams__"  # set on an endpoint whose answers are known to be of one piece


class GeneratorsClosed:
    """ASGI middleware: closes the generators that a request's endpoint made, behind its answer."""

    def __init__(self, app: ASGIApp, dependants: Callable[[], Iterable[Dependant]]) -> None:
        self.app = app
        self.dependants = dependants
        self.any: bool | None = None  # known at the first request: routes are added until then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.any is None and scope["type"] != "lifespan":
            self.any = _follow(self.dependants())
        if not self.any:
            await self.app(scope, receive, send)
            return
        opened: list[AsyncGenerator[Any, Any]] = []
        token = _OPENED.set(opened)
        try:
            await self.app(scope, receive, send)
        finally:
            _OPENED.reset(token)
            for generator in opened:
                await _close(generator, scope)


def _follow(dependants: Iterable[Dependant]) -> bool:
    """Let the endpoints that may stream tell what they make; False if there are none."""
    found = False
    for dependant in dependants:
        call = dependant.call
        if call is not None and _may_stream(call):
            found = True
            if not hasattr(call, _TELLS):
                dependant.call = _told(call)
    return found


def _may_stream(endpoint: Callable[..., Any]) -> bool:
    """Tell whether an endpoint is a generator, or may return a response of its own making."""
    if hasattr(endpoint, NEVER_STREAMS):
        return False
    plain = inspect.unwrap(endpoint)
    if inspect.isasyncgenfunction(plain):
        return True
    returned = annotations_of(plain).get("return", Response)
    return isinstance(returned, str) or not isinstance(returned, type) or issubclass(returned, Response)


def _told(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(inspect.unwrap(endpoint)):

        @functools.wraps(endpoint)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return _noted(await endpoint(*args, **kwargs))
    else:

        @functools.wraps(endpoint)
        def call(*args: Any, **kwargs: Any) -> Any:
            return _noted(endpoint(*args, **kwargs))

    setattr(call, _TELLS, True)
    return call


def _noted(made: Any) -> Any:
    """Keep the generator that an endpoint made, itself or as the body of a response, for the end of the request."""
    generator: Any = made.body_iterator if isinstance(made, StreamingResponse) else made
    opened = _OPENED.get()
    if opened is not None and hasattr(generator, "aclose"):
        opened.append(generator)
    return made


async def _close(generator: AsyncGenerator[Any, Any], scope: Scope) -> None:
    try:
        await generator.aclose()
    except Exception:  # the answer has gone; its generator must not take the others along
        log.exception("the generator of %s failed while it was closed behind its answer", request_name(scope))
