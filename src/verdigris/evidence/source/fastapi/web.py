"""FastAPI as the source shows it: what depends on what, and which functions answer which routes."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.fastapi.providers import called
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External, Meaning
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.values import Known, Missing, Place, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.types import Type

METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "websocket", "api_route", "websocket_route"}
_PACKAGES = {"fastapi", "starlette"}
DEPTH = 6


@dataclass(frozen=True, slots=True)
class Depends:
    """One use of `Depends(provider, scope=…)`."""

    call: Call
    provider: Meaning | None
    scope: Value  # "function", "request", or Missing

    @property
    def place(self) -> Place:
        """Where it is written."""
        return self.call.place

    @property
    def given(self) -> str:
        """The dependency as it is written there."""
        node = self.call.node.args[0] if self.call.node.args else keyword(self.call.node, "dependency")
        return "..." if node is None else ast.unparse(node)


@dataclass(frozen=True, slots=True)
class Route(Subject):
    """A function that answers requests; `key` is what recordings call it: `GET /orders/{id}`.

    `decorator` makes a route of it, or a call of `add_api_route()`, which stands in `scope`.
    """

    key: str
    place: Place
    function: Scope
    decorator: ast.Call
    scope: Scope
    method: str
    path: Value

    def option(self, name: str) -> ast.expr | None:
        """Return an argument of the decorator."""
        return next((keyword.value for keyword in self.decorator.keywords if keyword.arg == name), None)

    @property
    def response_model(self) -> ast.expr | None:
        """The expression that names what is serialised: `response_model=`, else the return annotation."""
        given = self.option("response_model")
        if given is not None:
            return None if isinstance(given, ast.Constant) and given.value is None else given
        node = self.function.node
        return node.returns if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


class Web:
    """Routes and dependencies of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def depends(self) -> list[Depends]:
        """Every `Depends` in the tree."""
        found = []
        for call, _ in self.source.calls.outside({"fastapi"}, "Depends", "Security"):
            given = call.node.args[0] if call.node.args else keyword(call.node, "dependency")
            provider = None if given is None else called(self.source, given, call.scope)
            scope = keyword(call.node, "scope")
            worth = Missing() if scope is None else self.source.evaluator.value(Argument(scope, call.scope))
            found.append(Depends(call, provider, worth))
        return found

    @cached_property
    def _by_call(self) -> dict[int, Depends]:
        return {id(use.call.node): use for use in self.depends}

    def injected(self, function: Scope) -> Iterator[tuple[ast.arg, Depends]]:
        """Yield the parameters of a function that FastAPI fills, and with what."""
        around = function.parent or function.module.scope
        for parameter in function.parameters:
            given = (function.default(parameter.arg), parameter.annotation)
            use = next((use for node in given for use in self._uses(node, around)), None)
            if use is not None:
                yield parameter, use

    def around(self, route: Route) -> Iterator[Depends]:
        """Yield what a route depends on besides its parameters: by its decorator, and by the routers around it."""
        yield from self._uses(route.option("dependencies"), route.scope)
        router = route.decorator.func.value if isinstance(route.decorator.func, ast.Attribute) else None
        if router is not None:
            yield from self._of_router(router, route.scope)

    def _of_router(self, router: ast.expr, scope: Scope, depth: int = 0) -> Iterator[Depends]:
        meaning = self.source.names.resolve(router, scope)
        if not isinstance(meaning, Assigned) or depth > DEPTH:
            return
        if isinstance(meaning.value, ast.Call):
            yield from self._uses(keyword(meaning.value, "dependencies"), meaning.scope)
        for call in self._mounts.get(meaning, ()):
            yield from self._uses(keyword(call.node, "dependencies"), call.scope)
            if isinstance(call.node.func, ast.Attribute):
                yield from self._of_router(call.node.func.value, call.scope, depth + 1)

    def _uses(self, node: ast.expr | None, scope: Scope, depth: int = 0) -> Iterator[Depends]:
        """Yield each `Depends` in a default, an annotation or a list, through the names that stand for them."""
        for inner in () if node is None else ast.walk(node):
            if id(inner) in self._by_call:
                yield self._by_call[id(inner)]
            elif isinstance(inner, (ast.Name, ast.Attribute)) and depth < DEPTH:
                meaning = self.source.names.resolve(inner, scope)
                if isinstance(meaning, Assigned) and isinstance(meaning.value, (ast.Subscript, ast.List, ast.Call)):
                    yield from self._uses(meaning.value, meaning.scope, depth + 1)

    @cached_property
    def routes(self) -> list[Route]:
        """Every handler that an application module decorates, or adds to a router by name."""
        decorated = [route for scope in self.source.functions for route in self._routes(scope)]
        added = (self._added(call) for call in self.source.calls.named("add_api_route", "add_api_websocket_route"))
        return decorated + [route for route in added if route is not None]

    def _routes(self, function: Scope) -> Iterator[Route]:
        for decorator in function.decorators:
            if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)):
                continue
            method = decorator.func.attr
            around = function.parent or function.module.scope
            if method not in METHODS or not self._is_router(decorator, around):
                continue
            yield self._route(function, decorator, method.upper(), around)

    def _added(self, call: Call) -> Route | None:
        """Return the route of `router.add_api_route("/orders", read, methods=["GET"])`."""
        node = call.node
        given = node.args[1] if len(node.args) > 1 else keyword(node, "endpoint")
        function = None if given is None else self.source.types.reach(given, call.scope)
        if call.module.role is not Role.APPLICATION or not self._is_router(node, call.scope):
            return None
        if not (isinstance(function, Scope) and function.is_function):
            return None
        methods = keyword(node, "methods")
        worth = Missing() if methods is None else self.source.evaluator.value(Argument(methods, call.scope))
        method = str(worth.value[0]) if isinstance(worth, Known) and isinstance(worth.value, (list, tuple)) else "GET"
        method = "WEBSOCKET" if leaf_of(node.func) == "add_api_websocket_route" else method
        return self._route(function, node, method.upper(), call.scope)

    def _route(self, function: Scope, made: ast.Call, method: str, scope: Scope) -> Route:
        path = made.args[0] if made.args else keyword(made, "path")
        own = Missing() if path is None else self.source.evaluator.value(Argument(path, scope))
        router = made.func.value if isinstance(made.func, ast.Attribute) else made.func
        full = self._full(own, router, scope)
        label = f"{method} {full.value}" if isinstance(full, Known) else function.key
        return Route(label, function.place, function, made, scope, method, full)

    def _is_router(self, decorator: ast.Call, scope: Scope) -> bool:
        if not isinstance(decorator.func, ast.Attribute):
            return False
        found = self.source.types.of(decorator.func.value, scope)
        if found is not None:
            return self._router_type(found)
        first = decorator.args[0] if decorator.args else None
        literal = isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.startswith(("/", ""))
        return literal and "fastapi" in {
            b.origin[0].partition(".")[0] for bs in scope.module.scope.bindings.values() for b in bs if b.origin
        }

    def _router_type(self, found: Type) -> bool:
        bases = self.source.names.lineage(found) if isinstance(found, Scope) else [found]
        return any(
            isinstance(base, External) and (base.package in _PACKAGES or base.leaf.endswith("Router")) for base in bases
        )

    def _full(self, own: Value, router: ast.expr, scope: Scope, depth: int = 0) -> Value:
        """Prepend the prefixes of the router and of the `include_router` calls that mount it (the first one found)."""
        if not isinstance(own, Known) or depth > DEPTH:
            return own
        meaning = self.source.names.resolve(router, scope)
        if not isinstance(meaning, Assigned):
            return own
        made = meaning.value
        prefix = self._prefix(made, meaning.scope) if isinstance(made, ast.Call) else ""
        path = f"{prefix}{own.value}"
        for call in self._mounts.get(meaning, ()):
            outer = self._prefix(call.node, call.scope)
            if isinstance(call.node.func, ast.Attribute):
                return self._full(Known(f"{outer}{path}"), call.node.func.value, call.scope, depth + 1)
        return Known(path)

    @cached_property
    def _mounts(self) -> dict[Assigned, list[Call]]:
        """The `include_router` calls by the router that they mount, each resolved once."""
        found: dict[Assigned, list[Call]] = {}
        for call in self.source.calls.named("include_router"):
            target = call.node.args[0] if call.node.args else keyword(call.node, "router")
            meaning = None if target is None else self.source.names.resolve(target, call.scope)
            if isinstance(meaning, Assigned):
                found.setdefault(meaning, []).append(call)
        return found

    def _prefix(self, call: ast.Call, scope: Scope) -> str:
        given = keyword(call, "prefix")
        worth = Missing() if given is None else self.source.evaluator.value(Argument(given, scope))
        return str(worth.value) if isinstance(worth, Known) else ""
