"""What the bodies of streaming responses work with: a session that somebody else opened, while the client reads."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import is_generator, keyword, short
from verdigris.evidence.source.reading.calls import Call
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source

DEPTH = 4
STREAMS = {"StreamingResponse", "EventSourceResponse", "ServerSentEvent"}
_PACKAGES = {"fastapi", "starlette", "sse_starlette"}


class Bodies:
    """Streaming responses of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def every(self) -> Iterator[tuple[str, Call]]:
        """Yield each session that the body of a streaming response works with, and the call that lends it."""
        for response in self.responses():
            body = response.node.args[0] if response.node.args else keyword(response.node, "content")
            if body is not None and response.module.role is Role.APPLICATION and response.scope.function is not None:
                yield from self._held(body, response, response.scope)

    def responses(self) -> Iterator[Call]:
        """Yield the makings of streaming responses, those that a class derived from one makes of itself included."""
        for call, _ in self.source.calls.outside(_PACKAGES, *sorted(STREAMS)):
            yield call
        for derived in self.source.classes:
            if not any(_is_stream(base) for base in self.source.names.lineage(derived)):
                continue
            making = derived.member("__init__")
            if making is None:
                yield from self.source.calls.to(derived)
            for node in making.calls if making is not None else ():
                if isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
                    yield Call(node, making)  # type: ignore[arg-type]  # it has calls

    def _held(self, body: ast.expr, at: Call, scope: Scope, depth: int = 0) -> Iterator[tuple[str, Call]]:
        """Yield what a body works with; `at` is the call to be blamed, which a caller that hands it in takes over."""
        body = body.value if isinstance(body, ast.Await) else body
        if depth > DEPTH:
            return
        if isinstance(body, ast.Name):
            meaning = self.source.names.resolve(body, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                yield from self._held(meaning.value, at, meaning.scope, depth + 1)
            for given, caller in self._handed_in(meaning):
                yield from self._held(given, caller, caller.scope, depth + 1)
        if not isinstance(body, ast.Call):
            return
        function = self.source.types.callee(body, scope)
        if not (isinstance(function, Scope) and function.is_function):
            return
        if not is_generator(function):
            for node in function.nodes():
                if isinstance(node, ast.Return) and node.value is not None:
                    for name, caller in self._held(node.value, at, function, depth + 1):
                        yield _seen_from(body.func, name), caller
            return
        yield from self._generated(body, function, at, scope, depth)

    def _generated(
        self, call: ast.Call, function: Scope, at: Call, scope: Scope, depth: int
    ) -> Iterator[tuple[str, Call]]:
        own = self._own(call, function, scope)
        if own is not None:
            yield own, at
            return
        for each in (*call.args, *(given.value for given in call.keywords)):
            yield from self._lent(each, scope)
            yield from self._held(each, at, scope, depth + 1)  # a generator around another

    def _own(self, call: ast.Call, function: Scope, scope: Scope) -> str | None:
        """Name the session that a generator is given, closes over, or works with as a method of what was lent one."""
        for each in (*call.args, *(given.value for given in call.keywords)):
            if self.source.types.session(each, scope) == "async":
                return short(each)
        return self.source.escaping.closed_over(function) or (
            None if _closes(function) else self.source.holders.method(call.func, scope)
        )

    def _lent(self, given: ast.expr, scope: Scope) -> Iterator[tuple[str, Call]]:
        """Yield a session that comes in by a parameter without a type, with the call that hands it in."""
        if not isinstance(given, ast.Name) or self.source.types.of(given, scope) is not None:
            return
        for value, caller in self._handed_in(self.source.names.resolve(given, scope)):
            if self.source.types.session(value, caller.scope) == "async":
                yield short(value), caller

    def _handed_in(self, meaning: object) -> Iterator[tuple[ast.expr, Call]]:
        """Yield what calls give for a parameter of a function."""
        if not (isinstance(meaning, Assigned) and meaning.scope.is_function):
            return
        if [each.kind for each in meaning.bindings] != ["parameter"]:
            return
        for call in self.source.calls.to(meaning.scope):
            frame = self.source.evaluator.frame(call.node, call.scope, meaning.scope)
            if meaning.name in frame.arguments and call.module.role is Role.APPLICATION:
                yield frame.arguments[meaning.name].node, call


def _seen_from(method: ast.expr, name: str) -> str:
    """Name a session of an object as the caller of its method sees it."""
    own, _, rest = name.partition(".")
    return f"{ast.unparse(method.value)}.{rest}" if own == "self" and isinstance(method, ast.Attribute) else name


def _is_stream(meaning: object) -> bool:
    return isinstance(meaning, External) and meaning.package in _PACKAGES and meaning.leaf in STREAMS


def _closes(function: Scope) -> bool:
    """Tell whether a method ends the session of its object itself: whoever lent it handed it over."""
    return any(isinstance(node, ast.Attribute) and node.attr in {"close", "aclose"} for node in function.nodes())
