"""What a parameter is when nobody passed it: what FastAPI injects, its default, or the caller's business."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.frames import Call, Frame
from verdigris.evidence.source.flow.values import Func, Instance, Klass, Many, Opaque, Outside, Plain, Value
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import parsed

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.machine import Machine

_MARKERS = {"Depends", "Security", "FromDishka", "Inject"}


class Injection:
    """Fills parameters for one machine; a dependency is called once a root, as FastAPI does for a request."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source
        self._given: dict[int, Value] = {}

    def parameter(self, scope: Scope, parameter: ast.arg, *, passed: bool) -> Value:
        """Return what a parameter is when nothing was passed: injected, its default, or the caller's business."""
        around = scope.parent or scope.module.scope
        injected = self._injected(scope, parameter, around)
        if injected is not None:
            return injected
        default = scope.default(parameter.arg)
        if default is not None and passed:
            return self.machine.expressions.value(default, Frame(around, {}))
        if parameter.arg in {"self", "cls"} and scope.enclosing_class is not None:
            owner = scope.enclosing_class
            if parameter.arg == "cls":
                return Klass(owner)
            return self.machine.annotations.instance(owner, "it is the caller's", silent=True)
        if parameter.annotation is None:
            return Opaque(f"`{parameter.arg}` is a parameter", silent=True)
        return self.machine.annotations.value(
            parameter.annotation, around, f"`{parameter.arg}` is a parameter of {scope.name}()", silent=True
        )

    # -- dependencies -----------------------------------------------------------------------------

    def _injected(self, scope: Scope, parameter: ast.arg, around: Scope) -> Value | None:
        """Return what `Depends` gives a parameter, or None if nothing is injected."""
        marker = self._marker(scope.default(parameter.arg), around) or self._annotated_marker(
            parameter.annotation, around, 0
        )
        if marker is None:
            return None
        call, where = marker
        given = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "dependency"), None)
        provider = (
            self.source.types.reach(given, where) if given is not None else self._class_of(parameter.annotation, around)
        )
        if provider is None or not isinstance(provider, Scope):
            if isinstance(provider, External):
                reason = "what a dependency from outside gives"
                made = self.machine.annotations.value(parameter.annotation, around, reason)
                return made if not isinstance(made, Plain) else Outside(provider.dotted, made=True)
            return self.machine.annotations.value(
                parameter.annotation, around, f"what `{parameter.arg}` is given is not settled"
            )
        self.machine.trail.beyond += 1
        if id(provider) not in self._given:
            self._given[id(provider)] = Opaque(f"{provider.name}() depends on itself")
            self._given[id(provider)] = self._provided(provider, parameter, around)
        return self._given[id(provider)]

    def _provided(self, provider: Scope, parameter: ast.arg, around: Scope) -> Value:
        node = ast.Call(ast.Name(provider.name, ast.Load()), [], [])
        call = Call(node, [], {}, Frame(around, {}), awaited=True)
        if provider.is_class:
            return self.machine.library.make(provider, call)
        made = self.machine.call(Func(provider, self._owner(provider)), [], {})
        if isinstance(made, Many) and any(isinstance(inner, ast.Yield) for inner in provider.nodes()):
            made = made.element
        if isinstance(made, (Opaque, Plain)):
            said = self.machine.annotations.value(
                parameter.annotation, around, f"what {provider.name}() gives is not settled"
            )
            return made if isinstance(said, (Plain, Opaque)) else said
        return made

    def _owner(self, provider: Scope) -> Value | None:
        return Instance(provider.enclosing_class) if provider.enclosing_class is not None else None

    def _class_of(self, annotation: ast.expr | None, around: Scope) -> Scope | None:
        found = self.source.types.annotation(annotation, around) if annotation is not None else None
        return found if isinstance(found, Scope) else None

    def _marker(self, node: ast.expr | None, scope: Scope) -> tuple[ast.Call, Scope] | None:
        if isinstance(node, ast.Call):
            found = self.source.names.resolve(node.func, scope)
            if isinstance(found, External) and found.leaf in _MARKERS:
                return node, scope
        return None

    def _annotated_marker(self, node: ast.expr | None, scope: Scope, depth: int) -> tuple[ast.Call, Scope] | None:
        node = parsed(node)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            found = self.source.names.resolve(node.value, scope)
            if isinstance(found, External) and found.leaf == "Annotated":
                markers = (self._marker(item, scope) for item in node.slice.elts[1:])
                return next((marker for marker in markers if marker is not None), None) or self._annotated_marker(
                    node.slice.elts[0], scope, depth + 1
                )
        if isinstance(node, (ast.Name, ast.Attribute)) and depth < 4:
            meaning = self.source.names.resolve(node, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                return self._annotated_marker(meaning.value, meaning.scope, depth + 1)
        return None
