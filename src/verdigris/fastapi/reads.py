"""Routes that answer with what a select() reads: compiled once, answered below FastAPI's dependency solving.

    reads = ReadRouter(db, prefix="/orders")

    @reads.get("/{id}", response_model=OrderOut)
    def read(id: int):
        return select(Order).where(Order.id == id)

    app.include_router(reads)

The endpoint is a plain function that builds a statement and nothing else. It is called once with symbols in the place
of its parameters; what it returns is compiled into the one statement in which PostgreSQL writes the answer. From then
on a request validates its parameters, with FastAPI's own validators, runs that statement on `db.lane` and sends the
bytes.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import APIRouter
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute
from starlette.responses import Response

from verdigris._annotations import annotations_of
from verdigris._places import Place
from verdigris._whole_answers import send_json
from verdigris.errors import ConfigurationError, VerdigrisError
from verdigris.fastapi.parameters import Parameters, is_symbolic
from verdigris.fastapi.responses import OWN_CLASS, own_class, rewritten, writes_json
from verdigris.fastapi.streams import NEVER_STREAMS
from verdigris.fastapi.symbols import LookedAtError, says_more_than_its_parameters, traced
from verdigris.lean.coalescing import MOST_OF_ROUTES
from verdigris.loading.json.api import present
from verdigris.performance.sites import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from fastapi.dependencies.models import Dependant
    from starlette.types import Receive, Scope, Send

    from verdigris.database import Database
    from verdigris.loading.json.api import JSONRead

log = logging.getLogger("verdigris")

_SHAPES = 32  # statements of one endpoint; more are answered in the ordinary way
_LOOKED_AT = 512  # requests, of which one is compared with what the endpoint builds from its values
_REFUSED = b"\x01"  # what the statement prints for a value that SQL does not write as Pydantic does
#: In the scope of a request whose read was tried before it came to the route: the error that it met, or None.
MET = "verdigris.met"
_BUILT_BY = "__verdigris_built_by__"
_SOLVED = "verdigris_response"  # the parameter of an endpoint by which it gets what dependencies say of its answer
_UNSUPPORTED = ("response_model_include", "response_model_exclude", "response_model_exclude_defaults")


class ReadRouter(APIRouter):
    """An `APIRouter` whose endpoints return a select(); everything else of a router and its routes stays FastAPI's.

    Prefixes, tags, `include_router`, middleware, exception handlers, validation errors and OpenAPI are those of an
    endpoint that answers with the response model. With dependencies, a body, headers or cookies, and where the
    statement's shape depends on a value, a route is answered in the ordinary way, which gives the same answer and
    solves the dependencies; the log says once why. Reads run outside of any transaction and see what is committed.

    Reads that wait in the same moment are sent together, where that pays; `together=False` sends each alone.
    `etag=True` gives answers an ETag, and 304 to who has them. Raises ConfigurationError for an endpoint that cannot be
    answered so.
    """

    def __init__(self, database: Database, *, etag: bool = False, together: bool = True, **options: Any) -> None:
        kind = type("ReadRoute", (ReadRoute,), {"database": database, "etag": etag, "together": together})
        super().__init__(route_class=kind, **options)


class ReadRoute(APIRoute):
    """The routes of a `ReadRouter`."""

    database: Database
    etag: bool
    together: bool

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        endpoint = vars(endpoint).get(_BUILT_BY, endpoint)  # older FastAPI copies a route to include it
        _refuse(path, endpoint, options)
        self.built_by = endpoint
        self._fast: dict[int, tuple[Dependant, Fast | None]] = {}
        self._ordinary: set[str] = set()
        code = getattr(inspect.unwrap(endpoint), "__code__", None)
        self._place = Place(code, 0) if code is not None else None
        super().__init__(path, self._in_the_ordinary_way(endpoint), **options)

    def _in_the_ordinary_way(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        async def answer(**values: Any) -> Response:
            solved = values.pop(added) if added else values[given[0]]
            own, status = OWN_CLASS.get(), solved.status_code or self.status_code
            etag = self.etag and own is None
            response = await self.database.json(endpoint(**values), self.response_model, etag=etag, **self.dumping)
            if own is not None:
                response = rewritten(response, own, status, etag=self.etag)
            response.status_code = status or response.status_code
            response.raw_headers.extend(solved.raw_headers)
            return response

        signature = inspect.signature(endpoint, eval_str=True)
        given = [name for name, each in signature.parameters.items() if _is_response(each.annotation)]
        added = "" if given else _SOLVED
        setattr(answer, NEVER_STREAMS, True)
        setattr(answer, _BUILT_BY, endpoint)
        vars(answer)["__signature__"] = _with_response(signature) if added else _answering(signature)
        return answer

    @property
    def dumping(self) -> dict[str, Any]:
        """Pydantic's options, as FastAPI calls them."""
        return {
            "by_alias": self.response_model_by_alias,
            "exclude_none": self.response_model_exclude_none,
            "exclude_unset": self.response_model_exclude_unset,
        }

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if MET in scope:  # it was tried already
            failure = scope.pop(MET)
            if failure is not None:
                raise failure
        elif scope["method"] == "GET":
            served = self._served(scope)
            fast = self.fast(served.dependant, served.response_class)
            body = None if fast is None else await self.read(fast, scope)
            if body is not None:
                await send_json(receive, send, body, self.status_code or 200)
                return
        token = OWN_CLASS.set(own_class(self._served(scope).response_class))
        try:
            await super().handle(scope, receive, send)
        finally:
            OWN_CLASS.reset(token)

    def _served(self, scope: Scope) -> Any:
        """Return what a request is served by: the route, or what became of it where its router was included."""
        context = scope.get("fastapi", {}).get("effective_route_context")
        return self if getattr(context, "dependant", None) is None else context

    async def read(self, fast: Fast, scope: Scope) -> bytes | None:
        """Return the body of a request's answer; None, with nothing sent, where FastAPI shall answer."""
        token = PLACE.set(self._place)
        try:
            return await fast.body(scope)
        finally:
            PLACE.reset(token)

    def fast(self, dependant: Dependant, response_class: Any) -> Fast | None:
        """Return how requests of a route are answered below FastAPI; None for the ordinary way."""
        known = self._fast.get(id(dependant))
        if known is None:
            own = own_class(response_class)
            reason = f"{own.__name__} writes its answers" if own is not None else self._needs_fastapi(dependant)
            if reason is not None:
                self.say(reason)
            known = self._fast[id(dependant)] = (dependant, Fast(self, dependant) if reason is None else None)
        return known[1]

    def _needs_fastapi(self, dependant: Dependant) -> str | None:
        if self.etag:
            return "it answers with an ETag"
        if dependant.dependencies:
            names = [getattr(inner.call, "__name__", str(inner.call)) for inner in dependant.dependencies]
            return f"it depends on {', '.join(names)}"
        if dependant.body_params or dependant.header_params or dependant.cookie_params:
            return "it takes a body, headers or cookies"
        asked = ("request", "http_connection", "response", "background_tasks", "security_scopes")
        found = [name for name in asked if getattr(dependant, f"{name}_param_name", None) not in {None, _SOLVED}]
        return f"it asks for the {found[0]}" if found else says_more_than_its_parameters(self.built_by)

    def say(self, reason: str) -> None:
        """Log, once, why a route is answered in the ordinary way."""
        if reason not in self._ordinary:
            self._ordinary.add(reason)
            log.info("GET %s is answered in the ordinary way: %s", self.path, reason)

    def prepare(self, dependant: Dependant, response_class: Any) -> None:
        """Compile what needs no request.

        Raises ConfigurationError where no row could ever become the model, and for a class of responses that writes no
        JSON, as an application's default may be.
        """
        _refuse_no_json(self.path, response_class)
        fast = self.fast(dependant, response_class)
        if fast is not None:
            fast.prepare()


class Fast:
    """Answers the requests of one route, where nothing of FastAPI's is needed but its validators."""

    def __init__(self, route: ReadRoute, dependant: Dependant) -> None:
        self._route = route
        self._parameters = Parameters(dependant)
        fields = self._parameters.fields
        self._symbolic = {field.name for field in fields if is_symbolic(field.field_info.annotation)}
        self._names = [field.name for field in fields]
        self._reads: dict[Hashable, JSONRead[Any] | None] = {}
        self._requests = 0

    async def body(self, scope: Scope) -> bytes | None:
        """Return the answer's body; None, with nothing sent, where FastAPI shall answer: with errors, for instance."""
        values = self._parameters.of(scope)
        if values is None:
            return None
        compiled = self._read(values)
        if compiled is None or compiled.listened:
            return None
        text, arguments = compiled.call(values)
        lane = self._route.database.lane
        body: bytes | None
        if self._route.together:
            body = await lane.fetchval_together(text, arguments, most=MOST_OF_ROUTES)
        else:
            rows = await lane.fetch(text, arguments)
            body = rows[0][0] if rows else None
        if body is None:
            present(compiled.found, None)  # raises NotFoundError where one is asked for
            return b"null"
        return None if _REFUSED in body else body

    def prepare(self) -> None:
        """Compile the statement for parameters that are all given, if none of them is one that code asks for."""
        if self._symbolic.issuperset(self._names):
            self._compiled(self._symbolic, {})

    def _read(self, values: Mapping[str, Any]) -> JSONRead[Any] | None:
        symbolic = self._symbolic
        key = tuple([values[name] is None if name in symbolic else _told_apart(values[name]) for name in self._names])
        self._requests += 1
        try:
            read = self._reads[key]
        except TypeError:  # a list
            named = ", ".join(name for name in self._names if name not in symbolic and not _is_hashable(values[name]))
            self._route.say(f"each value of {named} would be a statement of its own to remember: a list, or an object")
            return None
        except KeyError:
            read = self._made(key, values)
        if read is not None and not self._requests % _LOOKED_AT and not self._agrees(read, values):
            read = self._reads[key] = None
        return read

    def _made(self, key: Hashable, values: Mapping[str, Any]) -> JSONRead[Any] | None:
        if len(self._reads) >= _SHAPES:
            self._route.say(f"its parameters make more than {_SHAPES} statements")
            return None
        symbols = {name for name in self._symbolic if values[name] is not None}
        read = self._compiled(symbols, {name: value for name, value in values.items() if name not in symbols})
        if read is not None and not self._agrees(read, values):
            read = None
        self._reads[key] = read
        return read

    def _compiled(self, symbols: set[str], values: Mapping[str, Any]) -> JSONRead[Any] | None:
        route = self._route
        try:
            statement = traced(route.built_by, symbols, values)
            read = route.database.json_read(statement, route.response_model, **route.dumping)
        except VerdigrisError:
            raise  # no row could ever become the model
        except LookedAtError as error:
            route.say(str(error))
            return None
        except Exception as error:  # noqa: BLE001 - code that takes no symbols: with values it may work
            route.say(f"its statement cannot be built without values: {type(error).__name__}: {error}")
            return None
        if read.fallback is not None:
            route.say(read.fallback)
            return None
        return read

    def _agrees(self, read: JSONRead[Any], values: Mapping[str, Any]) -> bool:
        """Tell whether the endpoint, called with these values, builds what was compiled without them."""
        route = self._route
        built = route.database.json_read(route.built_by(**values), route.response_model, **route.dumping)
        if built.fallback is None and built.call({}) == read.call(values):
            return True
        route.say("its statement depends on values in a way that cannot be seen without them")
        return False


def _is_response(annotation: Any) -> bool:
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return isinstance(plain, type) and issubclass(plain, Response)


def _answering(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(return_annotation=inspect.Signature.empty)


def _with_response(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature by which FastAPI gives the response on which dependencies put headers, cookies, a status."""
    asked = inspect.Parameter(_SOLVED, inspect.Parameter.KEYWORD_ONLY, annotation=Response)
    return _answering(signature).replace(parameters=[*signature.parameters.values(), asked])


def _told_apart(value: object) -> Hashable:
    """Return what no value shares of which code could build another statement: True, 1 and 1.0 are equal."""
    return type(value), value, repr(value)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _refuse(path: str, endpoint: Callable[..., Any], options: Mapping[str, Any]) -> None:
    model = options.get("response_model")
    if model is None or isinstance(model, DefaultPlaceholder):
        raise _no_model(path, endpoint)
    if (
        inspect.iscoroutinefunction(endpoint)
        or inspect.isgeneratorfunction(endpoint)
        or inspect.isasyncgenfunction(endpoint)
    ):
        raise _cannot(
            path, f"{endpoint.__name__}() is no plain function", "It builds a statement and waits for nothing."
        )
    unsupported = [name for name in _UNSUPPORTED if options.get(name)]
    if unsupported:
        raise _cannot(path, f"it has {unsupported[0]}", "What is not answered needs a response model of its own.")
    _refuse_no_json(path, options.get("response_class"))
    if set(options.get("methods") or ["GET"]) != {"GET"}:
        raise _cannot(path, "it answers more than GET", "The statement is a select().")


def _refuse_no_json(path: str, response_class: Any) -> None:
    if not writes_json(response_class):
        what = f"its response_class, {response_class.__name__}, is no JSONResponse"
        raise _cannot(path, what, "What PostgreSQL writes is JSON.")


def _no_model(path: str, endpoint: Callable[..., Any]) -> ConfigurationError:
    """Return the error for a route that names its response model nowhere, or where FastAPI would look for it.

    A return annotation is not taken for it: the function returns a select(), and a type checker would say so.
    """
    said = annotations_of(endpoint).get("return")
    said = getattr(said, "__forward_arg__", said)
    if said is None or said in (Any, "Any"):
        return _cannot(path, "it has no response_model", "What is read is what the response model says.")
    name = said if isinstance(said, str) else getattr(said, "__name__", "") if isinstance(said, type) else str(said)
    return ConfigurationError(
        f"the ReadRouter cannot answer {path}: it has no response_model; its function says that it returns {name}.",
        why="The function returns a select(); what is read of it is what the response model says.",
        do=[
            f'@reads.get("{path}", response_model={name})',
            f"def {getattr(endpoint, '__name__', 'read')}(...): return select(...)",
        ],
        page="loading/all-loaded",
    )


def _cannot(path: str, what: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the ReadRouter cannot answer {path}: {what}.",
        why=why,
        do=[
            '@reads.get("/orders/{id}", response_model=OrderOut)',
            "def read(id: int): return select(Order).where(Order.id == id)",
        ],
        page="loading/all-loaded",
    )
