"""Requests: Starlette's and FastAPI's public `__call__` is wrapped; routes are named by the public route tables."""

from __future__ import annotations

import asyncio
import contextlib
import re
from asyncio import _get_running_loop
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary

from verdigris.evidence.recording.units import Checkout, RequestState, Unit, task_is_done

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from types import ModuleType

    from verdigris.evidence.recording.recorder import Recorder

_UNMATCHED = "(unmatched)"
_SUSPECTS = 100


class RequestWatch:
    """Records requests and websocket connections."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.offered: dict[str, None] = {}
        self._tables: WeakKeyDictionary[Any, dict[int, list[tuple[str, Any]]]] = WeakKeyDictionary()
        self.suspects: list[tuple[RequestState, Checkout]] = []

    def attach(self, applications: ModuleType) -> None:
        """Start recording; the argument is `starlette.applications`."""
        self.recorder.patches.method(applications.Starlette, "__call__", self._call)

    def _call(self, original: Any) -> Any:
        async def __call__(app: Any, scope: Any, receive: Any, send: Any) -> None:  # noqa: N807 - what it stands in for
            try:
                request = self._request(app, scope)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("a request's start", error)
                request = None
            if request is None:
                await original(app, scope, receive, send)
                return
            await self._recorded(original, request, receive, send)

        return __call__

    def _request(self, app: Any, scope: Any) -> RequestState | None:
        if scope["type"] not in {"http", "websocket"}:
            return None
        unit = self.recorder.units.current.get()
        if unit is not None and unit.request is not None and not unit.request.ended:
            return None  # a mounted application: the outer one's request
        return RequestState(scope.get("method", "WEBSOCKET"), scope, app)

    async def _recorded(self, original: Any, request: RequestState, receive: Any, send: Any) -> None:
        recorder = self.recorder
        loop = _get_running_loop()
        task = asyncio.current_task(loop) if loop is not None else None
        unit = Unit(id(task) if task is not None else get_ident(), task, request, None)
        unit.listed = True
        request.units.append(unit)
        token = recorder.units.current.set(unit)
        recorder.active_requests += 1
        if recorder.begins is not None:
            recorder.begins()
        try:
            await original(request.app, request.scope, self._receiving(request, receive), self._sending(request, send))
        except BaseException as error:
            request.escaped = error
            raise
        finally:
            recorder.active_requests -= 1
            with contextlib.suppress(ValueError):  # left in another context than it was entered
                recorder.units.current.reset(token)
            try:
                self._ended(request)
            except Exception as error:  # noqa: BLE001 - as above
                recorder.trouble("a request's end", error)

    def _receiving(self, request: RequestState, receive: Any) -> Any:
        async def recording_receive() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect" and not request.complete:
                request.disconnected = True
            return message

        return recording_receive

    def _sending(self, request: RequestState, send: Any) -> Any:
        async def recording_send(message: MutableMapping[str, Any]) -> None:
            kind = message["type"]
            try:
                if kind == "http.response.start":
                    request.status = message["status"]
                    self._answered(request)
                elif kind == "http.response.body":
                    request.complete = not message.get("more_body", False)
                elif kind == "websocket.accept":
                    request.status = 101
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a response", error)
            await send(message)

        return recording_send

    def _answered(self, request: RequestState) -> None:
        request.answered = True
        if not request.checkouts:
            return
        lineage = self.recorder.units.unit().lineage()
        for checkout in list(request.checkouts.values()):
            unit = checkout.unit
            ours = id(unit) in lineage or (unit.threaded and id(unit.inherited) in lineage)
            if not checkout.begun or not ours:
                continue
            if checkout.wrote:
                checkout.answered = True
                request.answered_early.append(checkout.spot)
            else:
                request.answered_reading += 1

    def _ended(self, request: RequestState) -> None:
        request.ended = perf_counter_ns()
        if len(self.suspects) > _SUSPECTS:
            self.suspects = [(owner, checkout) for owner, checkout in self.suspects if id(checkout) in owner.checkouts]
        for checkout in request.checkouts.values():
            if checkout.unit is request.units[0] or task_is_done(checkout.unit):
                self.suspects.append((request, checkout))  # a shielded close may still return it in a moment
        self.name(request)
        self._unnoticed(request)
        self.recorder.ledger.request(request)
        if request.escaped is not None and isinstance(request.escaped, Exception):
            self.recorder.escaped(request)

    def left(self, checkout: Checkout) -> bool:
        """Tell whether a request ended without this connection; what a task of its own still holds is no leak."""
        return any(other is checkout for _, other in self.suspects)

    def _unnoticed(self, request: RequestState) -> None:
        """Find a raise_on_sql in an exception's text when the wrapped method did not see it."""
        if request.escaped is None or any(unit.raised for unit in request.units):
            return
        for attribute, lazy in re.findall(r"'(\w+\.\w+)' is not available due to lazy='(\w+)'", str(request.escaped)):
            request.units[0].raised[attribute, lazy, None, None, "handler"] = 1

    # Routes

    def name(self, request: RequestState) -> None:
        """Find out which route a request is of, which it knows itself only once it was routed."""
        app, scope = request.app, request.scope
        endpoint = scope.get("endpoint")
        if endpoint is None:
            request.label = f"{request.method} {_UNMATCHED}"
            return
        path = str(scope.get("path", ""))
        entries = self._table(app).get(id(endpoint)) or self._table(app, anew=True).get(id(endpoint), [])
        template, route = next(
            ((template, route) for template, route in entries if len(entries) == 1 or _matches(template, path)),
            ("", None),
        )
        if not template:
            template = _from_parameters(path, scope.get("path_params", {}))
        model = getattr(route, "response_model", None)
        request.label = f"{request.method} {template}"
        request.endpoint = {
            "site": self.recorder.places.definition(endpoint),
            "response_model": None if model is None else _model_name(model),
        }

    def _table(self, app: Any, *, anew: bool = False) -> dict[int, list[tuple[str, Any]]]:
        table = self._tables.get(app)
        if table is None or anew:
            table = self._tables[app] = {}
            for template, methods, endpoint, route in _routes(getattr(app, "routes", ()), ""):
                table.setdefault(id(endpoint), []).append((template, route))
                if _is_the_frameworks(endpoint):
                    continue
                for method in sorted(methods):
                    self.offered[f"{method} {template}"] = None
        return table


def _routes(routes: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, set[str], Any, Any]]:
    if depth > 10:
        return
    for route in _flat(routes):
        path = f"{prefix}{getattr(route, 'path', None) or ''}"
        inner = getattr(route, "routes", None)
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None:
            methods = getattr(route, "methods", None)
            is_socket = methods is None and "WebSocket" in type(getattr(route, "route", route)).__name__
            yield path, {"WEBSOCKET"} if is_socket else set(methods or {"GET"}) - _implied(route), endpoint, route
        elif inner:
            yield from _routes(inner, path, depth + 1)


def _model_name(model: Any) -> str:
    """Return `list[OrderOut]` as it is written, without modules."""
    if get_args(model) or not hasattr(model, "__name__"):
        return re.sub(r"\b\w+\.", "", str(model))
    return str(model.__name__)


def _is_the_frameworks(endpoint: Any) -> bool:
    """Tell whether an endpoint is FastAPI's own, such as /docs and /openapi.json."""
    return str(getattr(endpoint, "__module__", "")).partition(".")[0] in {"fastapi", "starlette"}


def _flat(routes: Any) -> Iterator[Any]:
    """Return the routes with the prefixes of their routers; FastAPI since 0.13x keeps included routers apart."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:
        yield from routes
        return
    yield from iter_route_contexts(routes)


def _implied(route: Any) -> set[str]:
    methods = getattr(route, "methods", None) or set()
    return {"HEAD"} if "GET" in methods and "HEAD" in methods else set()


def _matches(template: str, path: str) -> bool:
    from starlette.routing import compile_path

    with contextlib.suppress(Exception):
        return compile_path(template)[0].match(path) is not None
    return False


def _from_parameters(path: str, parameters: Any) -> str:
    parts = path.split("/")
    for name, value in parameters.items():
        parts = [f"{{{name}}}" if part == str(value) else part for part in parts]
    return "/".join(parts)
