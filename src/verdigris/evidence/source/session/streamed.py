"""Sessions that stay open while a client reads a stream: a request's dependencies end after its response."""

from __future__ import annotations

import ast
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.session.escapes import Escape
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Depends, Route
    from verdigris.evidence.source.reading.calls import Call

_QUERIES = {"execute", "scalar", "scalars", "get", "get_one", "exec", "refresh", "flush", "merge", "stream"}
_ENDS = {"commit", "rollback", "close", "aclose", "reset", "invalidate"}  # each gives the connection back
_COMPLETE = {"BytesIO", "StringIO", "iter"}
DEPTH = 2  # functions between a route and the stream that it answers with
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.match_case, ast.ExceptHandler, ast.IfExp)


class Streamed:
    """Streaming routes of one tree, and the sessions that wait for their readers."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._sessions = {
            id(each.function)
            for each in source.dependencies.every
            if each.function is not None and each.of in {"session", "connection"} and each.yields
        }

    def every(self) -> Iterator[Escape]:
        """Yield each function that queries through a request's session which outlives a stream, once."""
        found: dict[Scope, Escape] = {}
        for call in self.source.bodies.responses() if self._sessions else ():
            for route, way in self._answered(call) if not self._is_made(call) else ():
                for function, name in self._takers(route):
                    own = function is route.function
                    if function not in found and (
                        self._keeps(function, name, way) if own else self._queries(function, name)
                    ):
                        found[function] = Escape(f"{function.key}:kept", function.place, "kept", name, call.place)
        yield from found.values()

    @cached_property
    def _routes(self) -> dict[Scope, Route]:
        return {route.function: route for route in self.source.web.routes}

    def _answered(self, stream: Call, *inner: Call) -> Iterator[tuple[Route, tuple[Call, ...]]]:
        """Yield the routes that answer with a stream, each with the calls from its own down to the making of it."""
        function, way = stream.scope.function, (stream, *inner)
        if function in self._routes:
            yield self._routes[function], way
        elif function is not None and len(way) <= DEPTH:
            for call in self.source.calls.to(function):
                if _is_returned(call):
                    yield from self._answered(call, *way)

    def _is_made(self, call: Call) -> bool:
        """Tell whether a stream's body was complete before the response began: it is sent as any other response is."""
        body = call.node.args[0] if call.node.args else keyword(call.node, "content")
        made = None if body is None else self.source.types.of(body, call.scope)
        if isinstance(made, External) and made.leaf in _COMPLETE:
            return True
        meaning = self.source.names.resolve(body, call.scope) if isinstance(body, ast.Name) else None
        body = meaning.value if isinstance(meaning, Assigned) else body
        leaf = getattr(body.func, "attr", getattr(body.func, "id", "")) if isinstance(body, ast.Call) else ""
        return leaf in _COMPLETE or isinstance(body, (ast.List, ast.Tuple))

    def _takers(self, route: Route) -> list[tuple[Scope, str]]:
        """Return the functions that a request of a route runs with its session; none if one of them ends it."""
        web = self.source.web
        taken: list[tuple[Scope, str]] = []
        waiting = [route.function, *(provider for each in web.around(route) if (provider := _function(each)))]
        seen: set[Scope] = set()
        while waiting:
            function = waiting.pop(0)
            if function in seen:
                continue
            seen.add(function)
            for parameter, use in web.injected(function):
                provider = _function(use)
                if provider is None:
                    continue
                if id(provider) in self._sessions and use.scope != Known("function"):
                    taken.append((function, parameter.arg))
                waiting.append(provider)
        return [] if any(self._ends(function, name) for function, name in taken) else taken

    def _ends(self, function: Scope, name: str) -> bool:
        """Tell whether a function ends the transaction, or hands the session to one whose name says that it may."""
        for node in function.calls:
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if isinstance(owner, ast.Name) and owner.id == name and node.func.attr in _ENDS:  # type: ignore[attr-defined]  # an owner is an attribute's
                return True
            leaf = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if leaf in self.source.expiry.ends.committing and _given(node, name):
                return True
        return False

    def _keeps(self, function: Scope, name: str, way: tuple[Call, ...]) -> bool:
        """Tell whether a function, or one that it asks for its answer, has queried when the stream begins."""
        inner = self._parameter(name, way[0]) if len(way) > 1 else None
        return (inner is not None and self._keeps(*inner, way[1:])) or self._queries(function, name, way[0])

    def _parameter(self, name: str, call: Call) -> tuple[Scope, str] | None:
        """Return the function that a call runs, and the parameter by which it gets the session."""
        function = self.source.types.callee(call.node, call.scope)
        if not (isinstance(function, Scope) and function.is_function):
            return None
        given = self.source.evaluator.frame(call.node, call.scope, function).arguments
        named = (each for each, value in given.items() if isinstance(value.node, ast.Name) and value.node.id == name)
        parameter = next(named, None)
        return None if parameter is None else (function, parameter)

    def _queries(self, function: Scope, name: str, stream: Call | None = None) -> bool:
        """Tell whether a function queries through the session, before a stream where it makes one."""
        for node in function.nodes():
            if not (isinstance(node, ast.Await) and isinstance(node.value, ast.Call)):
                continue
            if not (self._asks(node.value, name) or _given(node.value, name)):
                continue
            if stream is None or _before(node, stream):
                return True
        return False

    def _asks(self, call: ast.Call, name: str) -> bool:
        func = call.func
        return (
            isinstance(func, ast.Attribute)
            and func.attr in _QUERIES
            and isinstance(func.value, ast.Name)
            and func.value.id == name
        )


def _function(use: Depends) -> Scope | None:
    return use.provider if isinstance(use.provider, Scope) and use.provider.is_function else None


def _given(call: ast.Call, name: str) -> bool:
    """Tell whether a call is given the session itself."""
    return any(
        isinstance(each, ast.Name) and each.id == name
        for each in (*call.args, *(keyword.value for keyword in call.keywords))
    )


def _is_returned(call: Call) -> bool:
    around = call.module.parents.get(call.node)
    around = call.module.parents.get(around) if isinstance(around, ast.Await) else around
    return isinstance(around, ast.Return)


def _before(node: ast.expr, stream: Call) -> bool:
    """Tell whether a statement has run whenever a stream begins: earlier, and on no branch that it is not on."""
    return node.lineno < stream.node.lineno and _branches(node, stream) <= _branches(stream.node, stream)


def _branches(node: ast.AST, stream: Call) -> set[tuple[int, str]]:
    """Return the branches that a node of the stream's module is on: the statement, and which of its blocks."""
    found: set[tuple[int, str]] = set()
    for around in stream.module.ancestors(node):
        if isinstance(around, _BRANCHES):
            found |= {(id(around), name) for name, block in ast.iter_fields(around) if _holds(block, node)}
        node = around
    return found


def _holds(block: object, node: ast.AST) -> bool:
    return block is node or (isinstance(block, list) and any(each is node for each in block))
