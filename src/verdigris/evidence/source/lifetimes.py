"""How a request's session begins, and who uses it after the request: dependencies and what leaves them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.arguments import is_generator, short
from verdigris.evidence.source.calls import Call
from verdigris.evidence.source.files import Role
from verdigris.evidence.source.modules import Binding, Scope
from verdigris.evidence.source.names import Assigned, External
from verdigris.evidence.source.web import SessionDependency
from verdigris.evidence.values import Place

if TYPE_CHECKING:
    from verdigris.evidence.source import Source

DEPTH = 4
_STREAMS = {"StreamingResponse", "EventSourceResponse", "ServerSentEvent"}
_CLOSING = {"close", "aclose", "remove"}
_STACKS = {"enter_async_context", "enter_context"}


@dataclass(frozen=True, slots=True)
class Opening:
    """How a dependency comes by its session.

    `how` is: with, finally, stack, given (another dependency's, or a middleware's), iterated, next, open (nothing
    closes it on an error), or unknown.
    """

    how: str
    place: Place
    told: str


@dataclass(frozen=True, slots=True)
class Escape(Subject):
    """A request's session that is used when the request is over; `into` is background, stream, endpoint, next or loop."""

    key: str
    place: Place
    into: str
    session: str
    opened: Place | None = None


class Lifetimes:
    """Beginnings and ends of the sessions of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    # How a dependency opens its session

    def opening(self, dependency: SessionDependency) -> Opening:
        """Tell how a dependency that is a function of the tree opens what it gives."""
        function = dependency.function
        if function is None:
            return Opening("unknown", dependency.place, "it comes from outside")
        given = [node.value for node in function.nodes() if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None]
        found = [self._opened(node, function) for node in given]
        order = ("iterated", "next", "open", "unknown", "finally", "stack", "with", "given")
        return min(found, key=lambda each: order.index(each.how), default=Opening("unknown", function.place, "it gives nothing"))

    def _opened(self, node: ast.expr, function: Scope, depth: int = 0) -> Opening:
        place = function.module.place(node)
        if isinstance(node, ast.Await):
            node = node.value
        if isinstance(node, ast.Call) and _leaf(node.func) in {"anext", "__anext__", "next"}:
            return Opening("next", place, short(node))
        if isinstance(node, ast.Name):
            found = function.lookup(node.id)
            if found is None or depth > DEPTH:
                return Opening("unknown", place, f"`{node.id}` is not settled by the source")
            scope, bindings = found
            real = [binding for binding in bindings if binding.kind != "annotation"]
            if scope is not function:
                return Opening("given", place, f"`{node.id}` is not made here")
            ways = [self._bound(binding, node.id, function, depth) for binding in real]
            order = ("iterated", "next", "open", "unknown", "finally", "stack", "with", "given")
            return min(ways, key=lambda each: order.index(each.how))
        if isinstance(node, ast.Call):
            return self._made(node, function, depth)
        if isinstance(node, ast.Attribute):
            how = "unknown" if isinstance(node.value, ast.Attribute) and node.value.attr == "state" else "given"
            return Opening(how, place, f"`{short(node)}` was opened elsewhere")
        return Opening("unknown", place, f"`{short(node)}` is not settled by the source")

    def _bound(self, binding: Binding, name: str, function: Scope, depth: int) -> Opening:
        place = function.module.place(binding.node)
        value = binding.value
        if binding.kind == "parameter":
            return Opening("given", place, f"`{name}` comes from another dependency")
        if binding.kind == "with":
            inside = self._entered(value, function, depth) if isinstance(value, ast.Call) else None
            told = short(value) if value is not None else name
            return inside or Opening("with", function.module.place(value or binding.node), told)
        if binding.kind == "for" and value is not None:
            return Opening("iterated", place, short(value))
        if binding.kind != "value" or value is None:
            return Opening("unknown", place, f"`{name}` is not settled by the source")
        value = value.value if isinstance(value, ast.Await) else value
        if isinstance(value, ast.Call):
            if _leaf(value.func) in _STACKS:
                return Opening("stack", place, short(value))
            if _leaf(value.func) in {"anext", "__anext__", "next"}:
                return Opening("next", place, short(value))
            if self._makes_session(value, function):
                closed = self._closed_after(name, function)
                return closed or Opening("open", place, f"`{name}` is not closed when the request fails")
            return self._made(value, function, depth)
        return self._opened(value, function, depth + 1)

    def _entered(self, node: ast.Call, function: Scope, depth: int) -> Opening | None:
        """Return how a context manager of the tree leaves its session open; None if it does not."""
        entered = self.source.types.callee(node, function)
        if not (isinstance(entered, Scope) and entered.is_function and is_generator(entered)) or depth > DEPTH:
            return None
        given = [each.value for each in entered.nodes() if isinstance(each, ast.Yield) and each.value is not None]
        found = (self._opened(value, entered, depth + 1) for value in given)
        return next((opened for opened in found if opened.how in {"iterated", "next", "open"}), None)

    def _makes_session(self, node: ast.Call, function: Scope) -> bool:
        made = self.source.types.of(node, function)
        if made is None or self.source.types.session_type(made) is None:
            return False
        callee = self.source.types.callee(node, function)
        return not (isinstance(callee, Scope) and callee.is_function)

    def _made(self, node: ast.Call, function: Scope, depth: int) -> Opening:
        """Follow what a call gives: a session made on the spot, or a holder that was handed a session."""
        if self._makes_session(node, function):
            return Opening("open", function.module.place(node), f"`{short(node)}` is closed by nobody")
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            if self.source.types.session(argument, function) is not None and depth < DEPTH:
                return self._opened(argument, function, depth + 1)
        return Opening("unknown", function.module.place(node), f"what `{short(node)}` gives is not settled by the source")

    def _closed_after(self, name: str, function: Scope) -> Opening | None:
        """Return what closes a session on every way out: a finally, or an `async with` on the name."""
        doubt = None
        for node in function.nodes():
            if isinstance(node, (ast.AsyncWith, ast.With)):
                for item in node.items:
                    if _mentions(item.context_expr, name):
                        return Opening("finally", function.module.place(item.context_expr), short(item.context_expr))
            for inner in _calls(node.finalbody) if isinstance(node, ast.Try) else ():
                closes = self._closes(inner, name, function)
                if closes and self._surely(inner, name, node, function):
                    return Opening("finally", function.module.place(inner), f"{short(inner)} in a finally")
                if closes is not False:
                    told = f"whether `{short(inner)}` always closes `{name}`"
                    doubt = Opening("unknown", function.module.place(inner), told)
        return doubt

    def _closes(self, call: ast.Call, name: str, function: Scope) -> bool | None:
        """Tell whether a call closes a session; None if it is given the session, and what it does is not known."""
        if isinstance(call.func, ast.Attribute) and call.func.attr in _CLOSING and _mentions(call.func.value, name):
            return True
        if not any(_mentions(given, name) for given in (*call.args, *(keyword.value for keyword in call.keywords))):
            return False
        called = self.source.types.callee(call, function)
        if isinstance(called, Scope) and called.is_function:
            return any(isinstance(node, ast.Attribute) and node.attr in _CLOSING for node in called.nodes())
        return True if "close" in _leaf(call.func) else None if called is not None else False

    def _surely(self, call: ast.Call, name: str, attempt: ast.AST, function: Scope) -> bool:
        """Tell whether a closing call is awaited, and depends on no other condition than the session itself."""
        awaited = False
        for around in function.module.ancestors(call):
            if around is attempt:
                break
            awaited = awaited or isinstance(around, ast.Await)
            if isinstance(around, ast.If) and not _mentions(around.test, name):
                return False
        node = ast.copy_location(ast.Name(name, ast.Load()), call)
        return awaited or self.source.types.session(node, function) != "async"

    # What it returns instead of yielding

    def returned(self, dependency: SessionDependency) -> Place | None:
        """Return where a dependency returns a session that it opened itself."""
        function = dependency.function
        if function is None or is_generator(function) or dependency.of != "session":
            return None
        for node in function.nodes():
            if isinstance(node, ast.Return) and node.value is not None:
                value = node.value.value if isinstance(node.value, ast.Await) else node.value
                if self._opened(node.value, function).how in {"with", "open", "finally", "stack", "iterated", "next"} or (
                    isinstance(value, ast.Call) and self.source.types.session(value, function) is not None and self._makes_session(value, function)
                ):
                    return function.module.place(node)
        return None

    # What outlives the request

    @cached_property
    def escapes(self) -> list[Escape]:
        """Every session of a request that is used after its answer, and every session that is taken out of a generator."""
        found = [*self._tasks(), *self._streams(), *self._endpoints(), *self._taken()]
        return sorted(found, key=lambda escape: escape.place)

    def _tasks(self) -> Iterator[Escape]:
        for call in self.source.calls.named("add_task", "BackgroundTask"):
            if call.module.role is not Role.APPLICATION or not self._is_background(call):
                continue
            given = [*call.node.args, *(keyword.value for keyword in call.node.keywords)]
            name = next((name for node in given if (name := self._carried(node, call.scope)) is not None), None)
            if name is not None:
                yield Escape(f"{call.scope.key}:background", call.place, "background", name)

    def _is_background(self, call: Call) -> bool:
        if _leaf(call.node.func) == "BackgroundTask":
            meaning = self.source.names.resolve(call.node.func, call.scope)
            return isinstance(meaning, External) and meaning.package in {"fastapi", "starlette"}
        if not isinstance(call.node.func, ast.Attribute):
            return False
        owner = self.source.types.of(call.node.func.value, call.scope)
        return isinstance(owner, External) and owner.leaf == "BackgroundTasks"

    def _carried(self, node: ast.expr, scope: Scope) -> str | None:
        """Name the session that an argument is, was built from, or closes over."""
        node = node.value if isinstance(node, ast.Starred) else node
        if self.source.types.session(node, scope) == "async":
            return short(node)
        if isinstance(node, ast.Call):
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            leaf = _leaf(node.func)
            if leaf == "partial" or leaf[:1].isupper():
                return next((name for each in given if (name := self._carried(each, scope)) is not None), None)
        if isinstance(node, ast.Lambda):
            inner = scope.module.scope_of.get(node)
            return None if inner is None else self.closed_over(inner)
        if isinstance(node, (ast.Name, ast.Attribute)):
            target = self.source.names.resolve(node, scope)
            if isinstance(target, Scope) and target.is_function:
                return self.closed_over(target)
        return None

    def closed_over(self, function: Scope) -> str | None:
        """Name a session of the surrounding function that a nested one uses."""
        if function.parent is None or not function.parent.is_function:
            return None
        for node in function.nodes():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found = function.lookup(node.id)
                if found is not None and found[0] is not function and found[0].is_function:
                    if self.source.types.session(node, function) == "async":
                        return node.id
        return None

    def _streams(self) -> Iterator[Escape]:
        """Yield the streaming responses whose body is a generator that holds the session of its function."""
        for call, _ in self.source.calls.outside({"fastapi", "starlette", "sse_starlette"}, *sorted(_STREAMS)):
            function = call.scope.function
            if call.module.role is not Role.APPLICATION or function is None:
                continue
            body = call.node.args[0] if call.node.args else next((kw.value for kw in call.node.keywords if kw.arg == "content"), None)
            name = None if body is None else self._streamed(body, call.scope)
            if name is not None:
                yield Escape(f"{call.scope.key}:stream", call.place, "stream", name)

    def _streamed(self, body: ast.expr, scope: Scope, depth: int = 0) -> str | None:
        if depth > DEPTH:
            return None
        if isinstance(body, ast.Name):
            meaning = self.source.names.resolve(body, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                return self._streamed(meaning.value, meaning.scope, depth + 1)
            return None
        if not isinstance(body, ast.Call):
            return None
        function = self.source.types.callee(body, scope)
        if not (isinstance(function, Scope) and function.is_function):
            return None
        if is_generator(function):
            given = (*body.args, *(keyword.value for keyword in body.keywords))
            direct = next((short(each) for each in given if self.source.types.session(each, scope) == "async"), None)
            return direct or self.closed_over(function) or self._on_self(body, function, scope)
        return None

    def _on_self(self, call: ast.Call, function: Scope, scope: Scope) -> str | None:
        """A generator method that works with `self.session`, of an object that was made with the request's session."""
        if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
            return None
        owner = scope.lookup(call.func.value.id)
        made = [] if owner is None else [binding.value for binding in owner[1] if isinstance(binding.value, ast.Call)]
        if not any(self._carried(each, scope) for each in made):
            return None
        for node in function.nodes():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                if self.source.types.session(node, function) == "async":
                    return f"{call.func.value.id}.{node.attr}"
        return None

    def _endpoints(self) -> Iterator[Escape]:
        """Yield the routes that are generators themselves and use an injected session."""
        for route in self.source.web.routes:
            if not is_generator(route.function):
                continue
            for parameter in route.function.parameters:
                node = ast.copy_location(ast.Name(parameter.arg, ast.Load()), parameter)
                if self.source.types.session(node, route.function) == "async":
                    yield Escape(f"{route.function.key}:endpoint", route.place, "endpoint", parameter.arg)

    def _taken(self) -> Iterator[Escape]:
        """Yield the sessions taken out of a generator function that nobody closes: `await anext(get_db())`, a loop left early."""
        for call in self.source.calls.named("anext", "__anext__"):
            inner = call.node.args[0] if call.node.args else getattr(call.node.func, "value", None)
            if call.module.role is Role.APPLICATION and inner is not None and not isinstance(call.scope.node, ast.Lambda):
                made = self._generator(inner, call.scope)
                if made is not None and not self._finished(inner, call):
                    yield Escape(f"{call.scope.key}:next", call.place, "next", f"{made.name}()", made.place)
        for function in self.source.functions:
            for node in function.nodes():
                if isinstance(node, ast.AsyncFor) and _leaves(node) and not is_generator(function):
                    made = self._generator(node.iter, function)
                    if made is not None:
                        yield Escape(f"{function.key}:loop", function.module.place(node.iter), "loop", f"{made.name}()", made.place)

    def _generator(self, node: ast.expr, scope: Scope) -> Scope | None:
        """Return the generator function of the tree that a call runs, if it gives a session."""
        if isinstance(node, ast.Name):
            meaning = self.source.names.resolve(node, scope)
            node = meaning.value if isinstance(meaning, Assigned) and meaning.value is not None else node
        if not isinstance(node, ast.Call):
            return None
        function = self.source.types.callee(node, scope)
        if not (isinstance(function, Scope) and function.is_function and is_generator(function)):
            return None
        produced = self.source.types.produced(function)
        return function if produced is not None and self.source.types.session_type(produced) == "async" else None

    def _finished(self, inner: ast.expr, call: Call) -> bool:
        """Tell whether the function closes the generator, or takes the next item of it again."""
        if not isinstance(inner, ast.Name) or call.scope.function is None:
            return False
        uses = [node for node in ast.walk(call.scope.function.node) if isinstance(node, ast.Name) and node.id == inner.id and isinstance(node.ctx, ast.Load)]
        return len(uses) > 1


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))


def _calls(statements: list[ast.stmt]) -> Iterator[ast.Call]:
    return (each for statement in statements for each in ast.walk(statement) if isinstance(each, ast.Call))


def _leaves(loop: ast.AsyncFor) -> bool:
    """Tell whether a loop ends before its iterator does: by return or break at its own level."""
    stack: list[ast.AST] = list(loop.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Return, ast.Break)):
            return True
        if not isinstance(node, (ast.For, ast.AsyncFor, ast.While, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))
    return False


def _leaf(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


