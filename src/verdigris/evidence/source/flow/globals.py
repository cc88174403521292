"""What names mean outside of any call: classes, functions, modules, variables of modules and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.frames import Frame
from verdigris.evidence.source.flow.values import Func, Klass, Opaque, Outside, Value
from verdigris.evidence.source.reading.modules import Module, Scope
from verdigris.evidence.source.reading.names import Assigned, External

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.machine import Machine


class Globals:
    """Remembers what variables of one tree are worth, for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source
        self._variables: dict[str, Value] = {}
        self._made: set[str] = set()  # those that hold objects
        self._known: dict[Scope | External, Value] = {}

    def meaning(self, found: object, name: str) -> Value:
        """Return the value of what a name resolves to outside of any call."""
        match found:
            case Scope() | External():
                if found not in self._known:
                    self._known[found] = _fixed(found)
                return self._known[found]
            case Module():
                return Outside(f"module:{found.path}")
            case Assigned():
                return self.variable(found)
            case _:
                return Outside(f"builtins.{name}")

    def variable(self, found: Assigned) -> Value:
        """Return what a module or a class assigns to a name, evaluated once."""
        if found.scope.is_function:
            return Opaque(f"`{found.name}` is a variable of another function")
        if found.key not in self._variables:
            self._variables[found.key] = Opaque(f"`{found.name}` is defined in a circle")
            self._variables[found.key] = self._evaluated(found)
        if found.key in self._made:
            self.machine.trail.beyond += 1
        return self._variables[found.key]

    def _evaluated(self, found: Assigned) -> Value:
        trail, last = self.machine.trail, self.machine.last
        before = self.machine.steps - trail.once
        value = self._assigned(found)
        trail.once = self.machine.steps - before
        if self.machine.last > last:
            self._made.add(found.key)
        return value

    def _assigned(self, found: Assigned) -> Value:
        typed = self.machine.annotations.typed
        if found.value is None:
            return typed(self.source.types.variable(found), f"`{found.name}` is not assigned as one value")
        value = self.machine.expressions.value(found.value, Frame(found.scope, {}))
        if isinstance(value, Opaque):
            return typed(self.source.types.variable(found), f"`{found.name}` is not settled")
        return value


def _fixed(found: Scope | External) -> Value:
    if isinstance(found, External):
        return Outside(found.dotted)
    return Klass(found) if found.is_class else Func(found)
