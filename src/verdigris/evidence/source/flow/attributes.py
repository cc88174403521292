"""Attributes: reads of relationships among them, properties, methods, proxies, variables of classes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.heap import State
from verdigris.evidence.source.flow.values import (
    Attr,
    Awaitables,
    Const,
    Either,
    Entity,
    Func,
    Instance,
    Klass,
    Many,
    Method,
    Opaque,
    Outside,
    Plain,
    Row,
    Value,
    alternatives,
    either,
    element,
)
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Frame
    from verdigris.evidence.source.flow.machine import Machine
    from verdigris.evidence.source.models.relations import Relation

_PROPERTIES = {"property", "hybrid_property", "cached_property", "computed_field"}
_MAPPING_METHODS = {"items", "keys", "values", "get", "pop", "copy", "count", "index"}


class Attributes:
    """Reads attributes of values for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source

    def read(self, node: ast.Attribute, frame: Frame) -> Value:
        if (
            isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "super"
            and not node.value.args
        ):
            return self._inherited(node, frame)
        base = self.machine.expressions.value(node.value, frame)
        if not isinstance(base, Either):
            return self.of(base, node.attr, node, frame)
        mixed = self._is_mixed(base, node.attr)
        frame.guarded += mixed
        try:
            return either([self.of(arm, node.attr, node, frame) for arm in base.values])
        finally:
            frame.guarded -= mixed

    def _is_mixed(self, base: Either, name: str) -> bool:
        """Tell whether some of the objects this may be have a relationship loaded: a condition may tell them apart."""
        states = set()
        for arm in base.values:
            relation = self.source.relations.of(arm.model, name) if isinstance(arm, Entity) else None
            if isinstance(arm, Entity) and relation is not None:
                states.add(self.machine.heap.read(arm, relation, whole=True).state in {State.MISSING, State.EMPTY})
        return len(states) > 1

    def _inherited(self, node: ast.Attribute, frame: Frame) -> Value:
        """`super().name`: the next class after this one in the lineage of the object at hand."""
        first = frame.scope.parameters[0].arg if frame.scope.parameters else "self"
        owner = frame.names.get(first)
        here = frame.scope.enclosing_class
        own = owner.scope if isinstance(owner, (Instance, Klass)) else here
        if own is None or here is None:
            return Opaque(f"`super().{node.attr}` is not settled")
        lineage = list(self.source.names.lineage(own))
        after = lineage[lineage.index(here) + 1 :] if here in lineage else list(self.source.names.lineage(here))[1:]
        for base in after:
            method = base.member(node.attr) if isinstance(base, Scope) else None
            if method is not None:
                return self._method(method, owner or Opaque(), {_leaf(decorator) for decorator in method.decorators})
        return Opaque(f"`super().{node.attr}` comes from outside the source")

    def of(self, owner: Value, name: str, node: ast.expr, frame: Frame) -> Value:
        """Return an attribute of one value."""
        match owner:
            case Entity():
                return self._of_entity(owner, name, node, frame)
            case Klass(scope=scope):
                return self._of_class(scope, name)
            case Instance():
                return self._of_instance(owner, name, node, frame)
            case Outside(dotted=dotted, made=made):
                return Method(owner, name) if made else self._outside(dotted, name)
            case Row(values=values):
                named = [
                    value
                    for value in values
                    if isinstance(value, Entity) and value.model.rpartition(".")[2].rpartition(":")[2] == name
                ]
                return named[0] if named else Method(owner, name)
            case Opaque():
                if not owner.silent:
                    self._stray(name, node, frame)
                return Method(owner, name)
            case Plain() | Const():
                return Method(owner, name)
            case _:
                return Method(owner, name)

    def _outside(self, dotted: str, name: str) -> Value:
        if dotted.startswith("module:"):
            module = self.source.names.by_path.get(dotted.removeprefix("module:"))
            found = self.source.names.attribute(module, name) if module is not None else None
            return (
                self.machine.globals.meaning(found, name)
                if found is not None
                else Opaque(f"`{name}` is not in {dotted}")
            )
        return Outside(f"{dotted}.{name}")

    def _stray(self, name: str, node: ast.expr, frame: Frame) -> None:
        """Note a read of something named like a relationship, of an object that the source does not settle."""
        if name not in self.source.relations.names or name in _MAPPING_METHODS or not isinstance(node, ast.Attribute):
            return
        if self.source.types.of(node.value, frame.scope) is None:
            self.machine.reads.stray(name, frame.scope.module.place(node), frame.scope)

    def _of_entity(self, entity: Entity, name: str, node: ast.expr, frame: Frame) -> Value:
        relation = self.source.relations.of(entity.model, name)
        if relation is not None:
            return self._relation(entity, relation, node, frame)
        if name == "awaitable_attrs":
            return Awaitables(entity)
        model = self.source.relations.models.get(entity.model)
        member = self.source.names.class_attribute(model.scope, name) if model is not None else None
        if isinstance(member, Scope) and member.is_function:
            return self._member(member, entity)
        if isinstance(member, Assigned) and isinstance(member.value, ast.Call):
            return self._proxy(entity, member.value, node, frame)
        return Method(entity, name) if model is None or member is None else Plain()

    def _member(self, member: Scope, owner: Value) -> Value:
        leaves = {_leaf(decorator) for decorator in member.decorators}
        if leaves & _PROPERTIES:
            return self.machine.call(Func(member, owner), [], {})
        return self._method(member, owner, leaves)

    def _method(self, member: Scope, owner: Value, leaves: set[str]) -> Value:
        if "staticmethod" in leaves:
            return Func(member)
        if "classmethod" in leaves:
            return Func(member, owner if isinstance(owner, Klass) else self._class_of(owner))
        return Func(member, None if isinstance(owner, Klass) else owner)

    def _class_of(self, owner: Value) -> Value:
        if isinstance(owner, Instance):
            return Klass(owner.scope)
        model = self.source.relations.models.get(owner.model) if isinstance(owner, Entity) else None
        return Klass(model.scope) if model is not None else Opaque()

    def _proxy(self, entity: Entity, call: ast.Call, node: ast.expr, frame: Frame) -> Value:
        """`association_proxy("links", "tag")` reads both."""
        texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if _leaf(call.func) != "association_proxy" or len(texts) != 2:
            return Plain()
        through = self.of(entity, texts[0], node, frame)
        inner = element(through) if isinstance(through, Many) else through
        found = either([self.of(arm, texts[1], node, frame) for arm in alternatives(inner)])
        return Many(found) if isinstance(through, Many) else found

    def _relation(self, entity: Entity, relation: Relation, node: ast.expr, frame: Frame) -> Value:
        """Read a relationship."""
        whole = not isinstance(frame.scope.module.parents.get(node), ast.Attribute)
        self.machine.reads.read(self.machine, entity, relation, frame, node, whole=whole)
        return self.machine.heap.target(entity, relation)

    def _of_class(self, scope: Scope, name: str) -> Value:
        model = self.source.models.of(scope)
        if model is not None and (
            self.source.relations.of(model.key, name) is not None or model.column(name) is not None
        ):
            return Attr(model.key, name)
        member = self.source.names.class_attribute(scope, name)
        if isinstance(member, Scope) and member.is_function:
            return self._method(member, Klass(scope), {_leaf(decorator) for decorator in member.decorators})
        if isinstance(member, Scope):
            return Klass(member)
        if isinstance(member, Assigned):
            return self.machine.globals.variable(member) if model is None else Plain()
        return Method(Klass(scope), name)

    def _of_instance(self, owner: Instance, name: str, node: ast.expr, frame: Frame) -> Value:
        held = owner.get(name)
        if held is not None and not isinstance(held, Opaque):
            return held
        member = self.source.names.class_attribute(owner.scope, name)
        if isinstance(member, Scope) and member.is_function:
            return self._member(member, owner)
        if isinstance(member, Scope):
            return Klass(member)
        if isinstance(member, Assigned) and member.value is not None:
            found = self.machine.globals.variable(member)
            if not isinstance(found, Opaque):
                return found
        made = self.source.types.attribute(owner.scope, name)
        if made is not None:
            return self.machine.annotations.typed(made, f"`{owner.scope.name}.{name}` is not followed")
        if self.source.schemas.is_schema(owner.scope):
            return Plain()
        return Method(owner, name)


def _leaf(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return _leaf(func)
        case _:
            return ""
