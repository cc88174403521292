"""What cannot work, found when the application starts and named with the edit to make."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Mount

from verdigris._places import is_application, shown
from verdigris.errors import ConfigurationError
from verdigris.fastapi import response_models
from verdigris.fastapi.reads import ReadRoute
from verdigris.fastapi.route import Route, as_served, is_generator, retrying_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.dependencies.models import Dependant

    from verdigris.database import Database

log = logging.getLogger("verdigris")
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One route as the application serves it: included routers add prefix and dependencies."""

    name: str
    route: Any
    dependant: Dependant
    response_class: Any

    @property
    def is_websocket(self) -> bool:
        return getattr(self.route, "methods", None) is None

    @property
    def call(self) -> Callable[..., Any]:
        assert self.dependant.call is not None  # noqa: S101 - an endpoint is a function
        return self.dependant.call


@dataclass(frozen=True, slots=True)
class _Use:
    """One place in a route's dependencies that asks for the session, and the calls on the way to it."""

    dependant: Dependant
    chain: tuple[Dependant, ...]

    @property
    def scope(self) -> str:
        return self.dependant.scope or "request"

    def asked_by_a_package(self, endpoint: _Endpoint) -> bool:
        """Tell whether an installed package wrote the `Depends`, as a generator of CRUD routes does."""
        code = getattr(inspect.unwrap((self.chain[-1].call if self.chain else None) or endpoint.call), "__code__", None)
        return code is not None and not is_application(code.co_filename)


def check(app: FastAPI, db: Database) -> None:
    """Raise ConfigurationError with all that cannot work; log what works and could be better."""
    endpoints = list(_endpoints(app))
    for endpoint in endpoints:
        if isinstance(endpoint.route, ReadRoute):
            endpoint.route.prepare(endpoint.dependant, endpoint.response_class)
    _refuse_uses(endpoints, db)
    _refuse_answers(endpoints)
    _advise([endpoint for endpoint in endpoints if any(_uses(endpoint.dependant, db))])


def _refuse_uses(endpoints: list[_Endpoint], db: Database) -> None:
    problems = [line for endpoint in endpoints for line in _problems(endpoint, db)]
    if problems:
        raise ConfigurationError(
            f"{len(problems)} of this application's uses of the request's session cannot work:",
            do=problems,
            page="fastapi/commit-or-rollback",
        )


def _refuse_answers(endpoints: list[_Endpoint]) -> None:
    unloadable = [
        f"{_where(endpoint)}: {problem}"
        for endpoint in endpoints
        for problem in response_models.problems(endpoint.call, getattr(endpoint.route, "response_model", None))
    ]
    if unloadable:
        raise ConfigurationError(
            f"{len(unloadable)} of this application's answers cannot be made from what is loaded for them:",
            do=unloadable,
            page="loading/all-loaded",
        )


def _advise(endpoints: list[_Endpoint]) -> None:
    """Log which of the routes that use the request's session lack the route class, or hold a transaction for long."""
    lacking = [
        endpoint.name
        for endpoint in endpoints
        if not isinstance(endpoint.route, Route) and _WRITES & set(getattr(endpoint.route, "methods", None) or ())
    ]
    if lacking:
        log.info(
            "a returned 4xx or 5xx keeps what was written in %s: APIRouter(route_class=Route) undoes it",
            ", ".join(lacking),
        )
    long = [endpoint.name for endpoint in endpoints if endpoint.is_websocket]
    if long:
        log.info(
            "one transaction for as long as the client stays: %s; a db.transaction() for each message holds none",
            ", ".join(long),
        )


def dependants(app: FastAPI) -> Iterator[Dependant]:
    """Give what FastAPI calls for the routes that do not close streams themselves, as the route class does."""
    for endpoint in _endpoints(app):
        if not endpoint.is_websocket and (not isinstance(endpoint.route, Route) or is_generator(endpoint.call)):
            yield endpoint.dependant


def _problems(endpoint: _Endpoint, db: Database) -> Iterator[str]:
    uses = list(_uses(endpoint.dependant, db))
    if retrying_of(endpoint.call) and not isinstance(endpoint.route, Route):
        if endpoint.is_websocket:
            yield f"{_where(endpoint)}: a websocket cannot be repeated. Write db.transaction() for each message."
        else:
            yield f"{_where(endpoint)}: @retrying needs the route class. Write APIRouter(route_class=Route)."
    if not uses:
        return
    if is_generator(endpoint.call) and any(not use.chain for use in uses):
        yield (
            f"{_where(endpoint)}: a generator's body runs after the request's session closed. Take no session there;"
            " write `async with db.session() as session:` inside."
        )
    elif not _is_async(endpoint.call) and any(not use.chain for use in uses):
        yield f"{_where(endpoint)}: a session cannot be awaited in a thread. Write async def."
    late = [use for use in uses if use.scope != "function"]
    if not late:
        return
    two = " and would be a second session beside the function-scoped one" if len(late) < len(uses) else ""
    edit = 'Write Depends(db.request_session, scope="function").'
    if late[0].asked_by_a_package(endpoint):
        edit = (
            "A package asks, and commits itself: give it a dependency of your own, `async def get_session():` with"
            " `async with db.session() as session: yield session`."
        )
    yield f"{_where(endpoint)}: the session is asked for without the scope that it ends with{two}. {edit}"
    generators = {link.call.__name__ for use in late for link in use.chain if link.call and is_generator(link.call)}
    for name in sorted(generators):
        yield (
            f'{_where(endpoint)}: {name}() uses that session and ends after it. Write Depends({name}, scope="function")'
            " too."
        )


def _endpoints(app: FastAPI, prefix: str = "") -> Iterator[_Endpoint]:
    for route, found in as_served(app.routes):
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            yield from _endpoints(route.app, prefix + route.path)
        dependant = getattr(found, "dependant", None)
        if dependant is None or dependant.call is None:
            continue
        methods = ",".join(sorted(getattr(route, "methods", None) or ["WEBSOCKET"]))
        yield _Endpoint(f"{methods} {prefix}{found.path}", route, dependant, getattr(found, "response_class", None))


def _uses(dependant: Dependant, db: Database, chain: tuple[Dependant, ...] = ()) -> Iterator[_Use]:
    for inner in dependant.dependencies:
        if inner.call == db.request_session:
            yield _Use(inner, chain)
        else:
            yield from _uses(inner, db, (*chain, inner))


def _is_async(call: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(call)) or is_generator(call)


def _where(endpoint: _Endpoint) -> str:
    code = getattr(inspect.unwrap(endpoint.call), "__code__", None)
    place = f" ({shown(code.co_filename)}:{code.co_firstlineno})" if code is not None else ""
    return f"{endpoint.name}{place}"
