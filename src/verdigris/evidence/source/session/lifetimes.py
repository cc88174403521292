"""How a request's session begins: what dependencies open, close and give."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import is_generator, short
from verdigris.evidence.source.reading.modules import Binding, Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.source.session.containers import DISHKA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.session.dependencies import SessionDependency
    from verdigris.evidence.values import Place

DEPTH = 4
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


class Lifetimes:
    """Beginnings of the sessions of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    # How a dependency opens its session

    def opening(self, dependency: SessionDependency) -> Opening:
        """Tell how a dependency that is a function of the tree opens what it gives."""
        function = dependency.function
        if function is None:
            return Opening("unknown", dependency.place, "it comes from outside")
        given = [
            node.value
            for node in function.nodes()
            if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None
        ]
        found = [self._opened(node, function) for node in given]
        order = ("iterated", "next", "open", "unknown", "finally", "stack", "with", "given")
        opened = min(
            found,
            key=lambda each: order.index(each.how),
            default=Opening("unknown", function.place, "it gives nothing"),
        )
        closed = self._closed_next(function) if opened.how == "open" else None
        if closed is not None and dependency.provided is not None and dependency.provided.by == DISHKA:
            return Opening("finally", closed, "closed next, and dishka goes on after an error")
        return opened

    def _opened(self, node: ast.expr, function: Scope, depth: int = 0) -> Opening:
        place = function.module.place(node)
        if isinstance(node, ast.Await):
            node = node.value
        if isinstance(node, ast.Call) and leaf_of(node.func) == "cast" and len(node.args) == 2:
            node = node.args[1]
        if isinstance(node, ast.Call) and leaf_of(node.func) in {"anext", "__anext__", "next"}:
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
            if leaf_of(value.func) in _STACKS:
                return Opening("stack", place, short(value))
            if leaf_of(value.func) in {"anext", "__anext__", "next"}:
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
        alone = isinstance(made, External) and made.named("sqlalchemy", "AsyncConnection")
        if made is None or (self.source.types.session_type(made) is None and not alone):
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
        return Opening(
            "unknown", function.module.place(node), f"what `{short(node)}` gives is not settled by the source"
        )

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

    def _closed_next(self, function: Scope) -> Place | None:
        """Return where a generator closes what it yields, next of all: enough for who goes on with it in any case."""
        for given, after in pairwise(getattr(function.node, "body", [])):
            match given, after:
                case (
                    ast.Expr(value=ast.Yield(value=ast.Name(id=name))),
                    ast.Expr(value=ast.Await(value=ast.Call(func=ast.Attribute(value=ast.Name(id=closed), attr=how)))),
                ) if name == closed and how in _CLOSING:
                    return function.module.place(after)
        return None

    def _closes(self, call: ast.Call, name: str, function: Scope) -> bool | None:
        """Tell whether a call closes a session; None if it is given the session, and what it does is not known."""
        if isinstance(call.func, ast.Attribute) and call.func.attr in _CLOSING and _mentions(call.func.value, name):
            return True
        if not any(_mentions(given, name) for given in (*call.args, *(keyword.value for keyword in call.keywords))):
            return False
        called = self.source.types.callee(call, function)
        if isinstance(called, Scope) and called.is_function:
            return any(isinstance(node, ast.Attribute) and node.attr in _CLOSING for node in called.nodes())
        return True if "close" in leaf_of(call.func) else None if called is not None else False

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
        if function is None or is_generator(function) or dependency.of not in {"session", "connection"}:
            return None
        for node in function.nodes():
            if isinstance(node, ast.Return) and node.value is not None:
                value = node.value.value if isinstance(node.value, ast.Await) else node.value
                if self._opened(node.value, function).how in {
                    "with",
                    "open",
                    "finally",
                    "stack",
                    "iterated",
                    "next",
                } or (
                    isinstance(value, ast.Call)
                    and self.source.types.sends(value, function)
                    and self._makes_session(value, function)
                ):
                    return function.module.place(node)
        return None


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))


def _calls(statements: list[ast.stmt]) -> Iterator[ast.Call]:
    return (each for statement in statements for each in ast.walk(statement) if isinstance(each, ast.Call))
