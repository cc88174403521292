"""Where a session comes from: the factory behind a variable, parameter or dependency, and that factory's options."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.values import Known, Missing, Value, agree

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.factories import Factory

DEPTH = 4


@dataclass(frozen=True, slots=True)
class Flags:
    """What is known of a session: whether commit expires its objects, and whether queries flush first."""

    expires: bool | None = None
    autoflush: bool | None = None


class Origins:
    """The factories that the sessions of one tree come from."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def _makers(self) -> dict[int, Factory]:
        """Factories and hand-made sessions by the call that makes them."""
        return {id(made.call.node): made for made in self.source.factories}

    @cached_property
    def everywhere(self) -> Flags:
        """What all factories of the application agree on; for a session that comes from outside the function."""
        return self._flags([made for made in self.source.factories if made.mode == "async" and made.form != "override"])

    def _flags(self, makers: list[Factory]) -> Flags:
        if not makers:
            return Flags()
        expires = agree([_default(made.option("expire_on_commit")) for made in makers])
        autoflush = agree([_flushes(made) for made in makers])
        return Flags(_truth(expires), _truth(autoflush))

    def by(self, node: ast.expr, scope: Scope) -> Flags | None:
        """Return the flags of the session that an expression opens; None if it opens none that is known."""
        makers = self.makers(node, scope)
        return self._flags(makers) if makers else None

    def makers(self, node: ast.expr, scope: Scope, depth: int = 0) -> list[Factory]:
        """Return the factories that an expression may open a session from."""
        if depth > DEPTH:
            return []
        if isinstance(node, ast.Await):
            return self.makers(node.value, scope, depth)
        if isinstance(node, ast.Call):
            if id(node) in self._makers:
                return [self._makers[id(node)]]
            target = self.source.types.callee(node, scope)
            if isinstance(target, Scope) and target.is_function:
                return self.inside(target, depth + 1)
            owner = node.func
            if isinstance(owner, ast.Attribute) and owner.attr in {"begin", "session", "read", "request_session"}:
                owner = owner.value
            return self._made(owner, scope) or (self._made(node.func, scope) if owner is not node.func else [])
        return self._made(node, scope)

    def _made(self, node: ast.expr, scope: Scope) -> list[Factory]:
        """Follow a name to the call that made what it holds."""
        if isinstance(node, ast.Attribute) and node.attr in {"session", "request_session"}:
            found = self._made(node.value, scope)
            if found:
                return found
        meaning = self.source.names.resolve(node, scope)
        values: list[ast.expr | None] = []
        if isinstance(meaning, Assigned):
            values = [binding.value for binding in meaning.bindings]
        elif isinstance(node, ast.Attribute):
            owner = self.source.types.of(node.value, scope)
            member = self.source.names.class_attribute(owner, node.attr) if isinstance(owner, Scope) else None
            values = [binding.value for binding in member.bindings] if isinstance(member, Assigned) else []
            if isinstance(owner, Scope) and not values:
                from verdigris.evidence.source.reading.attributes import self_assignments

                values = [value for value, _, _ in self_assignments(owner, node.attr)]
        return [self._makers[id(value)] for value in values if id(value) in self._makers]

    def inside(self, function: Scope, depth: int = 0) -> list[Factory]:
        """Return the factories whose sessions a function gives: those it opens, or those of its own dependencies."""
        if depth > DEPTH or not isinstance(function.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return []
        produced = self.source.types.produced(function)
        if produced is None or self.source.types.session_type(produced) is None:
            return []
        found: list[Factory] = []
        for call in function.calls:
            found += [made for made in self.makers(call, function, depth + 1) if made not in found]
        for parameter in function.parameters:
            provider = self.provider(parameter, function)
            if isinstance(provider, Scope):
                found += [made for made in self.inside(provider, depth + 1) if made not in found]
        return found

    def provider(self, parameter: ast.arg, function: Scope) -> Scope | External | None:
        """Return what FastAPI calls for a parameter: the function in its `Depends`."""
        around = function.parent or function.module.scope
        nodes: list[tuple[ast.expr, Scope]] = []
        default = function.default(parameter.arg)
        if default is not None:
            nodes.append((default, around))
        if parameter.annotation is not None:
            nodes += self._unaliased(parameter.annotation, around)
        for node, scope in nodes:
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and call.args:
                    named = self.source.names.resolve(call.func, scope)
                    if isinstance(named, External) and named.named("fastapi", "Depends", "Security"):
                        target = self.source.types.reach(call.args[0], scope)
                        return target if isinstance(target, (Scope, External)) else None
        return None

    def _unaliased(self, node: ast.expr, scope: Scope, depth: int = 0) -> list[tuple[ast.expr, Scope]]:
        """Follow `SessionDep` to `Annotated[AsyncSession, Depends(…)]`."""
        found = [(node, scope)]
        if isinstance(node, (ast.Name, ast.Attribute)) and depth < DEPTH:
            meaning = self.source.names.resolve(node, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                found += self._unaliased(meaning.value, meaning.scope, depth + 1)
        return found

    def of_parameter(self, parameter: ast.arg, function: Scope) -> Flags:
        """Return the flags of a session that is passed in."""
        provider = self.provider(parameter, function)
        if isinstance(provider, Scope):
            makers = self.inside(provider)
            if makers:
                return self._flags(makers)
        return self.everywhere


def _flushes(made: Factory) -> Value:
    """What is off and made safe drops nothing either."""
    safe = guaranteed(made.maker.dotted, "unflushed") is not None
    return Known(value=True) if safe else _default(made.option("autoflush"))


def _default(value: Value) -> Value:
    """Both options are on unless something else is said."""
    return (
        Known(value=True)
        if isinstance(value, Missing)
        else value
        if not isinstance(value, Known)
        else Known(bool(value.value))
    )


def _truth(value: Value) -> bool | None:
    return bool(value.value) if isinstance(value, Known) else None
