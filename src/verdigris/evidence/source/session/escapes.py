"""Who uses a request's session after the request: background tasks, streams, generators that nobody closes."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.arguments import is_generator, short
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import DEFINITIONS, inside, leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class Escape(Subject):
    """A request's session used when the request is over; `into` is background, stream, endpoint, next, loop or kept."""

    key: str
    place: Place
    into: str
    session: str
    opened: Place | None = None


class Escapes:
    """Escapes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def every(self) -> list[Escape]:
        """Every session of a request that is used after its answer, or taken out of a generator."""
        found = [*self._tasks(), *self._streams(), *self._endpoints(), *self._taken()]
        return sorted(found, key=lambda escape: escape.place)

    def _tasks(self) -> Iterator[Escape]:
        for call in self.source.calls.named("add_task", "BackgroundTask"):
            if call.module.role is not Role.APPLICATION or not self._is_background(call):
                continue
            given = [*call.node.args, *(keyword.value for keyword in call.node.keywords)]
            name = next((name for node in given if (name := self._carried(node, call.scope)) is not None), None)
            name = name or self._worked_with(given, call.scope)
            if name is not None:
                yield Escape(f"{call.scope.key}:background", call.place, "background", name)

    def _is_background(self, call: Call) -> bool:
        if leaf_of(call.node.func) == "BackgroundTask":
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
            leaf = leaf_of(node.func)
            if leaf == "partial" or leaf[:1].isupper():
                return next((name for each in given if (name := self._carried(each, scope)) is not None), None)
        if isinstance(node, ast.Lambda):
            inner = scope.module.scope_of.get(node)
            return None if inner is None else self.closed_over(inner)
        if isinstance(node, (ast.Name, ast.Attribute)):
            target = self.source.names.resolve(node, scope)
            if isinstance(target, Scope) and target.is_function:
                return self.closed_over(target)
        return self.source.holders.method(node, scope)

    def _worked_with(self, given: list[ast.expr], scope: Scope) -> str | None:
        """Name the session of an object that a task is given and calls a method of that works with it."""
        function = self.source.types.reach(given[0], scope) if given else None
        if not (isinstance(function, Scope) and function.is_function):
            return None
        for parameter, node in zip(function.parameters, given[1:], strict=False):
            owner = self.source.types.of(node, scope)
            lent = self.source.holders.lent(node, scope) if isinstance(owner, Scope) else None
            for inner in function.nodes() if lent is not None else ():
                if not (isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == parameter.arg):
                    continue
                method = self.source.names.class_attribute(owner, inner.attr) if isinstance(owner, Scope) else None
                if isinstance(method, Scope) and method.is_function and self.source.holders.uses(method):
                    return lent
        return None

    def closed_over(self, function: Scope) -> str | None:
        """Name a session of the surrounding function that a nested one uses, or what wraps it: `@within(session)`."""
        if function.parent is None or not function.parent.is_function:
            return None
        for decorator in function.decorators:
            for given in decorator.args if isinstance(decorator, ast.Call) else ():
                if self.source.types.session(given, function.parent) == "async":
                    return short(given)
        for node in function.nodes():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found = function.lookup(node.id)
                outside = found is not None and found[0] is not function and found[0].is_function
                if outside and self.source.types.session(node, function) == "async":
                    return node.id
        return None

    def _streams(self) -> Iterator[Escape]:
        """Yield the streaming responses whose body works with a session that its function was given, or opened."""
        for name, call in self.source.bodies.every():
            yield Escape(f"{call.scope.key}:stream", call.place, "stream", name)

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
        """Yield the sessions taken out of a generator that nobody closes: `anext(get_db())`, a loop left early."""
        for call in self.source.calls.named("anext", "__anext__"):
            inner = call.node.args[0] if call.node.args else getattr(call.node.func, "value", None)
            if (
                call.module.role is Role.APPLICATION
                and inner is not None
                and not isinstance(call.scope.node, ast.Lambda)
            ):
                made = self._generator(inner, call.scope)
                if made is not None and not self._finished(inner, call):
                    yield Escape(f"{call.scope.key}:next", call.place, "next", f"{made.name}()", made.place)
        for function in self.source.functions:
            for node in function.nodes():
                if isinstance(node, ast.AsyncFor) and _leaves(node) and not is_generator(function):
                    made = self._generator(node.iter, function)
                    if made is not None:
                        yield Escape(
                            f"{function.key}:loop",
                            function.module.place(node.iter),
                            "loop",
                            f"{made.name}()",
                            made.place,
                        )

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
        uses = [
            node
            for node in ast.walk(call.scope.function.node)
            if isinstance(node, ast.Name) and node.id == inner.id and isinstance(node.ctx, ast.Load)
        ]
        return len(uses) > 1


def _leaves(loop: ast.AsyncFor) -> bool:
    """Tell whether a loop ends before its iterator does: by return or break at its own level."""
    other = DEFINITIONS | {ast.For, ast.AsyncFor, ast.While}
    return any(isinstance(node, (ast.Return, ast.Break)) for node in inside(loop.body, other))
