"""What assignments do: names bound, tuples unpacked, relationships set, which loads them."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.shapes import Link, Shape
from verdigris.evidence.source.flow.values import (
    Entity,
    Instance,
    Many,
    Opaque,
    Plain,
    Row,
    Value,
    alternatives,
    either,
    element,
    entities,
)

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Frame
    from verdigris.evidence.source.flow.machine import Machine


class Assignments:
    """Assigns for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine

    def to(self, target: ast.expr, value: Value, frame: Frame) -> None:
        """Bind names, unpack, set attributes."""
        match target:
            case ast.Name(id=name):
                frame.names[name] = value
            case ast.Starred(value=inner):
                self.to(inner, Many(any_of(value)), frame)
            case ast.Tuple(elts=elts) | ast.List(elts=elts):
                self._unpack(elts, value, frame)
            case ast.Attribute(value=base, attr=name):
                owner = self.machine.expressions.value(base, frame)
                self._set_attribute(owner, name, value, target, frame)
            case ast.Subscript(value=base, slice=key):
                self.machine.expressions.value(key, frame)
                self.machine.expressions.store(base, key, value, frame)
            case _:
                pass

    def _unpack(self, targets: list[ast.expr], value: Value, frame: Frame) -> None:
        held = value.values if isinstance(value, Row) else value.held if isinstance(value, Many) else None
        starred = any(isinstance(target, ast.Starred) for target in targets)
        if held is not None and not starred and len(held) == len(targets):
            for target, part in zip(targets, held, strict=True):
                self.to(target, part, frame)
        elif isinstance(value, Row) and starred:
            self._unpack_starred(targets, value.values, frame)
        elif len(alternatives(value)) > 1 and all(
            isinstance(arm, Row) and len(arm.values) == len(targets) for arm in alternatives(value)
        ):
            rows = [arm.values for arm in alternatives(value) if isinstance(arm, Row)]
            for target, parts in zip(targets, zip(*rows, strict=True), strict=True):
                self.to(target, either(list(parts)), frame)
        else:
            for target in targets:
                self.to(target, element(value) if not isinstance(value, Opaque) else value, frame)

    def _unpack_starred(self, targets: list[ast.expr], values: tuple[Value, ...], frame: Frame) -> None:
        where = next(index for index, target in enumerate(targets) if isinstance(target, ast.Starred))
        after = len(targets) - where - 1
        for target, value in zip(targets[:where], values, strict=False):
            self.to(target, value, frame)
        middle = values[where : len(values) - after]
        inner = targets[where]
        if isinstance(inner, ast.Starred):
            self.to(inner.value, Row(tuple(middle)), frame)
        for target, value in zip(targets[where + 1 :], values[len(values) - after :], strict=False):
            self.to(target, value, frame)

    def _set_attribute(self, owner: Value, name: str, value: Value, target: ast.Attribute, frame: Frame) -> None:
        for arm in alternatives(owner):
            if isinstance(arm, Entity):
                self.set_relation(arm, name, value, target, frame)
            elif isinstance(arm, Instance) and isinstance(target.value, ast.Name):
                fields = tuple((key, old) for key, old in arm.fields if key != name)
                frame.names[target.value.id] = Instance(arm.scope, (*fields, (name, value)))

    def set_relation(self, entity: Entity, name: str, value: Value, node: ast.AST, frame: Frame) -> None:
        """Assign to a relationship: it is loaded now, and so is the way back."""
        relation = self.machine.source.relations.of(entity.model, name)
        if relation is None:
            _, shape = self.machine.heap.locate(entity)
            if shape.made or name in shape.unset:
                given, unset = shape.given | {name}, shape.unset - {name}
                self.machine.heap.set(entity, replace(shape, given=given, unset=unset))
            return
        alias = value if entities(value) else None
        unknown = Shape(relation.target or "?", opened="what was assigned is not followed")
        self.machine.heap.mark(entity, name, Link("loaded", shape=unknown, alias=alias))
        if relation.inverse is not None:
            for other in entities(value):
                back = self.machine.source.relations.of(other.model, relation.inverse)
                if back is not None and back.target == relation.owner:
                    self.machine.heap.mark(
                        other, relation.inverse, Link("loaded", alias=entity if back.loader == "joinedload" else None)
                    )

    def augmented(self, target: ast.expr, value: Value, frame: Frame) -> None:
        """Bind a name to what it was or to what was added."""
        old = (
            self.machine.expressions.value(_loading(target), frame)
            if isinstance(target, (ast.Name, ast.Attribute))
            else Plain()
        )
        if isinstance(target, ast.Name):
            frame.names[target.id] = either([old, value])


def _loading(target: ast.Name | ast.Attribute) -> ast.expr:
    made: ast.expr = (
        ast.Name(target.id, ast.Load())
        if isinstance(target, ast.Name)
        else ast.Attribute(target.value, target.attr, ast.Load())
    )
    return ast.copy_location(made, target)


def any_of(value: Value) -> Value:
    """Return what any part of a value may be."""
    if isinstance(value, Row):
        return either(list(value.values)) if value.values else Plain()
    return value if isinstance(value, (Opaque, Entity)) else element(value)
