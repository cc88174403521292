"""Finds the route of a `ReadRouter` before the application's router does, where both would find the same.

Behind the application's own middleware a request passes through six layers of FastAPI and Starlette, and through the
comparison with each route, until its route is asked. For a compiled read none of them does anything; they cost as much
as the read. So the innermost middleware looks into a table of the reads first. Whatever is not certain goes the
ordinary way: other methods, paths that a route before it may take, kinds of routes and routers that are not known here.
A read that fails goes it too, and its route raises the failure there, so that exception handlers see it as ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Mount, Route, Router, WebSocketRoute

from verdigris._whole_answers import send_json
from verdigris.fastapi.reads import MET, ReadRoute
from verdigris.fastapi.route import as_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from verdigris.fastapi.reads import Fast

    _Match = Callable[[str], re.Match[str] | None]
    _Segments = tuple[str | None, ...]  # of a path; None stands for any text in one

_OF_ONE_SEGMENT = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)
_REST = "{…}"  # stands for the rest of a path, whatever its length
_MATCHING = (Route.matches, APIRoute.matches, Mount.matches)  # by their `path_regex`, and by nothing else
_OF_A_ROUTER = ("__call__", "app", "handle", "matches")


@dataclass(frozen=True, slots=True)
class _Read:
    """A compiled read as an application serves it: under the prefixes of the routers that include it."""

    segments: _Segments
    match: _Match
    before: tuple[_Match, ...]  # of the routes that come first, and may take one of its paths
    convertors: Mapping[str, Any]
    route: ReadRoute
    fast: Fast
    noted: dict[str, Any]  # what FastAPI's router notes in the scope of a request
    place: tuple[Router, int]  # where the route was found

    def is_there(self) -> bool:
        """Tell whether the route is this one still, and not one that equals it and has other dependencies."""
        router, index = self.place
        return router.routes[index] is self.route


class ReadsFirst:
    """ASGI middleware, an application's innermost: answers the compiled reads, and lets `otherwise` see the rest."""

    def __init__(self, app: ASGIApp, of: FastAPI, otherwise: Callable[[ASGIApp, FastAPI], ASGIApp]) -> None:
        self.app = otherwise(app, of)
        self._innermost = type(app) is ExceptionMiddleware  # else one that was appended later stands inside of it
        self._of = of
        self._known: list[tuple[Router, list[Any]]] = []  # the application's routers, with the routes they had
        self._reads: dict[str | None, list[_Read]] = {}  # by the first segment of their paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._innermost and scope["type"] == "http" and scope["method"] == "GET":
            read = self._find(scope)
            if read is not None:
                body = await _body(read, scope)
                if body is not None:
                    await send_json(receive, send, body, read.route.status_code or 200)
                    return
        await self.app(scope, receive, send)

    def _find(self, scope: Scope) -> _Read | None:
        """Return the read that a request is for, with what a router notes about it in the scope."""
        if not self._up_to_date():
            self._look()
        if not self._reads or "path_params" in scope or "fastapi" in scope:  # a part of another application
            return None
        path = scope["path"]
        if scope.get("root_path"):
            path = _below(scope["root_path"], path)
        for read in self._reads.get(_first(path)) or self._reads[None]:
            matched = read.match(path)
            if matched is not None:
                for earlier in read.before:
                    if earlier(path):
                        return None
                if not read.is_there():
                    self._known = []
                    return None
                values: dict[str, Any] = matched.groupdict()
                try:
                    for name, convertor in read.convertors.items():
                        values[name] = convertor.convert(values[name])
                except Exception:  # noqa: BLE001 - a router will meet it where handlers of exceptions are
                    return None
                scope.update(read.noted, path_params=values)
                return read
        return None

    def _up_to_date(self) -> bool:
        if not self._known or self._known[0][0] is not self._of.router:
            return False
        return all(router.routes == known for router, known in self._known)  # of hundreds: a comparison of pointers

    def _look(self) -> None:
        """Make the table of reads anew."""
        router = self._of.router
        routers = list(_routers(router))
        self._known = [(each, list(each.routes)) for each in routers]
        reads: list[_Read] = []
        if router.middleware_stack == router.app and all(map(_is_plain, routers)):
            reads = list(_reads(router, _places(routers)))
        firsts = {None, *(read.segments[1] for read in reads)} if reads else ()
        self._reads = {first: [read for read in reads if read.segments[1] in {first, None}] for first in firsts}


async def _body(read: _Read, scope: Scope) -> bytes | None:
    """Return the answer's body; None, with a note for the route in the scope, where the ordinary way goes on."""
    met: Exception | None = None
    try:
        body = await read.route.read(read.fast, scope)
    except Exception as error:  # noqa: BLE001 - raised by the route
        body, met = None, error
    if body is None:
        for name in ("path_params", *read.noted):
            del scope[name]
        scope[MET] = met
    return body


def _places(routers: Iterable[Router]) -> dict[int, tuple[Router, int]]:
    """Return where each compiled read is found, by the route's identity."""
    return {
        id(route): (router, index)
        for router in routers
        for index, route in enumerate(router.routes)
        if isinstance(route, ReadRoute)
    }


def _reads(router: Router, places: Mapping[int, tuple[Router, int]]) -> Iterator[_Read]:
    """Give an application's compiled reads in the order of its routes."""
    before: list[tuple[_Segments, _Match]] = []
    for route, found in as_served(router.routes):
        if isinstance(route, WebSocketRoute) or "GET" not in (getattr(found, "methods", None) or ("GET",)):
            continue
        if type(route).matches not in _MATCHING:
            return  # what comes behind it may be its own
        segments, match = _segments(found), found.path_regex.match
        if isinstance(route, ReadRoute) and type(route).handle is ReadRoute.handle and len(segments) > 1:
            fast = route.fast(found.dependant, found.response_class)
            place = places.get(id(route))  # None of one that FastAPI remembers, and its router has no more
            if fast is not None and place is not None and _REST not in segments:
                rivals = tuple(other for theirs, other in before if not _apart(theirs, segments))
                noted = _noted(router, found, route)
                yield _Read(segments, match, rivals, _convertors(found), route, fast, noted, place)
        before.append((segments, match))


def _noted(router: Router, found: Any, route: ReadRoute) -> dict[str, Any]:
    noted = {"router": router, "route": route, "endpoint": found.endpoint}
    context = getattr(found, "_route_context", None)
    return noted if context is None else {**noted, "fastapi": {"effective_route_context": context}}


def _convertors(found: Any) -> dict[str, Any]:
    """Return what makes values of texts, without what leaves them as they are."""
    return {name: each for name, each in found.param_convertors.items() if type(each) is not StringConvertor}


def _segments(found: Any) -> _Segments:
    segments: list[str | None] = []
    for text in found.path_format.split("/"):
        kinds = [type(found.param_convertors[name]) for name in re.findall(r"{(\w+)}", text)]
        if not all(kind in _OF_ONE_SEGMENT for kind in kinds):
            return (*segments, _REST)
        segments.append(None if kinds else text)
    return tuple(segments)


def _apart(one: _Segments, other: _Segments) -> bool:
    """Tell whether no path belongs to both."""
    for mine, theirs in zip(one, other, strict=False):
        if _REST in {mine, theirs}:
            return False
        if mine is not None and theirs is not None and mine != theirs:
            return True
    return len(one) != len(other)


def _first(path: str) -> str | None:
    parts = path.split("/", 2)
    return parts[1] if len(parts) > 1 else None


def _below(root: str, path: str) -> str:
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path


def _routers(router: Router) -> Iterator[Router]:
    yield router
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routers(inner)


def _is_plain(router: Router) -> bool:
    """Tell whether a router does what FastAPI's does."""
    return all(getattr(type(router), name, None) is getattr(APIRouter, name, None) for name in _OF_A_ROUTER)
