"""Database errors as answers: problem+json (RFC 9457) that says what happened and never SQL, values or a password."""

from __future__ import annotations

import inspect
import json
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
from fastapi.exceptions import ResponseValidationError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.websockets import WebSocket, WebSocketState

from verdigris._places import request_name
from verdigris.concurrency import tried
from verdigris.errors import UNCLASSIFIED, Fault, VerdigrisError, classify
from verdigris.errors.classify import says_not_loaded
from verdigris.errors.sqlstates import CONNECTION_LOST, NOT_LOADED, OUTCOME_UNKNOWN, TOO_SLOW
from verdigris.fastapi.columns import ConstraintColumns
from verdigris.fastapi.joined import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fastapi import FastAPI
    from starlette.requests import HTTPConnection
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from verdigris.fastapi.joined import Joined
    from verdigris.session.request import RequestUnit

log = logging.getLogger("verdigris")
_WRAPPING = frozenset(("advanced_alchemy",))  # packages whose every error of the database is one of their own
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))  # by HTTP's definition
_TRY_AGAIN_LATER, _INTERNAL_ERROR = 1013, 1011  # close codes of a websocket
_HANDLED = (
    SQLAlchemyError,
    VerdigrisError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_LOAD_IT = """\
  Loading it now needs a query inside attribute access, which async SQLAlchemy cannot await.
  Load it where the object is fetched:   select(Order).options(load(Order, OrderOut))   or selectinload(Order.lines)
  or leave it out of the response model.
  verdigris explain loading/all-loaded"""
# What Python makes of errors in a task group and of what a timeout cancelled, and Pydantic of an attribute that raises:
# the database's, or others'.
_OF_PYDANTIC = (ResponseValidationError, ValidationError)
_PERHAPS_OURS: tuple[type[Exception], ...] = (ExceptionGroup, TimeoutError, *_OF_PYDANTIC)


def answer_with_problems(app: FastAPI, known: Joined) -> None:
    """Add the exception handlers; a handler that the application has for the same class stays."""
    columns, fields = ConstraintColumns(), known.fields

    async def answer(connection: HTTPConnection, error: Exception) -> Response | None:
        return await _answer(connection, error, _as_asked(connection, classify(error)))

    async def _answer(connection: HTTPConnection, error: Exception, fault: Fault) -> Response | None:
        _tell(connection, fault, error)
        if isinstance(connection, WebSocket):
            await _close(connection, fault)
            return None
        if not fault.columns and fault.constraint and fault.constraint not in fields and fault.status < 500:
            fault = replace(fault, columns=await columns.of(fault, known.databases))
        return problem(fault, fields, explanation=_explained(fault, error) if app.debug else None)

    async def answer_if_ours(connection: HTTPConnection, error: Exception) -> Any:
        fault = classify(error)
        if fault is UNCLASSIFIED and isinstance(error, TimeoutError) and _cut(connection):
            fault = TOO_SLOW
        if fault is UNCLASSIFIED and isinstance(error, _OF_PYDANTIC) and any(map(_read_unloaded, error.errors())):
            fault = NOT_LOADED
        if fault is not UNCLASSIFIED:
            return await _answer(connection, error, _as_asked(connection, fault))
        others = (handlers.get(kind) for kind in type(error).__mro__[1:])
        other = next((each for each in others if each not in {None, answer_if_ours}), None)
        if other is None:
            raise error
        answered = other(connection, error)
        return await answered if inspect.isawaitable(answered) else answered

    known.answer, known.handler = _answer, answer
    handlers: dict[Any, Any] = app.exception_handlers
    for kind in _HANDLED:
        handlers.setdefault(kind, answer)
    for perhaps in _PERHAPS_OURS:
        handlers.setdefault(perhaps, answer_if_ours)


def answer_in_mounted(app: FastAPI, known: Joined) -> None:
    """Give the applications that are mounted when this one starts the same answers.

    Each makes a 500 of what it does not know, and raises it again: a handler of the application around it comes too
    late. One that a database was joined to, or that has a handler for everything, has its own answers.
    """
    for mounted in _mounted(app.routes, set()):
        handlers: dict[Any, Any] = mounted.exception_handlers
        if mounted.middleware_stack is None and not {Exception, 500} & handlers.keys():
            for kind in _HANDLED:
                handlers.setdefault(kind, known.handler)
            if not any(each.kwargs.get("of") is app for each in mounted.user_middleware):
                mounted.user_middleware.append(Middleware(Wrapped, of=app))  # at the end: inside of its own


def _mounted(routes: Iterable[BaseRoute], seen: set[int]) -> Iterator[Starlette]:
    """Yield the applications that are mounted, below each other too, except what a database was joined to."""
    for route in routes:
        if not isinstance(route, Mount) or id(route) in seen:
            continue
        seen.add(id(route))
        mounted = getattr(route, "_base_app", route.app)  # inside of middleware that the mount has
        if isinstance(mounted, Starlette):
            if joined(mounted) is not None:
                continue
            yield mounted
        yield from _mounted(route.routes, seen)


class Wrapped:
    """ASGI: answers what nobody handles, where it was raised from an error of the database (`raise ... from error`).

    An outage is one, whoever wraps it. What was wrong with a value may be a mistake of who sent it there: only of what
    packages wrap as a matter of course that is told to the client.
    """

    def __init__(self, app: ASGIApp, of: FastAPI) -> None:
        self.app, self._of = app, of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = joined(self._of)
        answer = known.answer if known is not None else None
        if scope["type"] != "http" or answer is None:
            await self.app(scope, receive, send)
            return
        begun = False

        async def sends(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sends)
        except Exception as error:
            request = Request(scope)
            fault = _as_asked(request, classify(error))
            if begun or not self._is_told(error, fault):
                raise
            response: Any = await answer(request, error, fault)  # None for a websocket only
            await response(scope, receive, send)

    def _is_told(self, error: Exception, fault: Fault) -> bool:
        if {Exception, 500} & self._of.exception_handlers.keys():
            return False
        return fault.status in {503, 504} or (
            fault.status < 500 and type(error).__module__.partition(".")[0] in _WRAPPING
        )


def _as_asked(connection: HTTPConnection, fault: Fault) -> Fault:
    """Return what a fault is to this request: what only reads may be sent again, whatever became of its COMMIT."""
    if fault.name == OUTCOME_UNKNOWN.name and connection.scope.get("method") in _SAFE:
        return CONNECTION_LOST.at(fault.sqlstate)
    return fault


def _read_unloaded(found: Any) -> bool:
    """Tell whether this is what Pydantic met when it read an attribute that had not been loaded."""
    return found.get("type") == "get_attribute_error" and says_not_loaded(str(found.get("ctx", {}).get("error")))


def _cut(connection: HTTPConnection) -> bool:
    """Tell whether a cancellation ended a statement of the request's session: `anyio.fail_after()` keeps no trace."""
    units: Iterable[RequestUnit] = connection.scope.get("verdigris.units", ())
    return any(unit.session._guard.cut for unit in units)  # noqa: SLF001 - one of ours


def problem(fault: Fault, fields: Mapping[str, str] | None = None, *, explanation: str | None = None) -> Response:
    """Return the answer to a fault. The explanation is for developers: it is given in debug mode only."""
    body: dict[str, Any] = {
        "type": f"urn:verdigris:problem:{fault.name}",
        "title": fault.title,
        "status": fault.status,
    }
    named = (fields or {}).get(fault.constraint or "")
    at = [named] if named else list(fault.columns)
    if at and fault.status < 500:
        body["fields"] = at
    if explanation is not None:
        body["detail"] = explanation
    headers = {}
    if fault.retry_after is not None:  # spread, so that the clients do not come back in one moment
        headers["Retry-After"] = str(fault.retry_after + random.randint(0, fault.retry_after))
    return Response(json.dumps(body), fault.status, headers, "application/problem+json")


def _explained(fault: Fault, error: Exception) -> str:
    hint = _LOAD_IT if fault.name == NOT_LOADED.name else None
    return "\n".join(filter(None, (str(error), tried(error), hint)))


def _tell(connection: HTTPConnection, fault: Fault, error: Exception) -> None:
    name = request_name(connection.scope)
    if fault.status == 500:
        hint = f"\n{_LOAD_IT}" if fault.name == NOT_LOADED.name else ""
        log.error("%s failed: %s%s", name, fault.name, hint, exc_info=error)
    elif fault.status > 500:
        own = isinstance(error, VerdigrisError) and classify(error).name == fault.name
        what, attempts = error if own else fault.name, tried(error)
        log.warning("%s answered %d: %s%s", name, fault.status, what, f"; {attempts}" if attempts else "")


async def _close(websocket: WebSocket, fault: Fault) -> None:
    if WebSocketState.DISCONNECTED in {websocket.client_state, websocket.application_state}:
        return
    await websocket.close(_TRY_AGAIN_LATER if fault.retry_after else _INTERNAL_ERROR, fault.title)
