"""Values as far as annotations tell them: their kind is known, of what is loaded of them nothing is."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.shapes import Shape
from verdigris.evidence.source.flow.values import (
    Entity,
    Instance,
    Klass,
    Many,
    Opaque,
    Outside,
    Plain,
    Record,
    Row,
    Statement,
    Value,
    either,
)
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import parsed

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.machine import Machine

DEPTH = 10
_COLLECTIONS = {
    "list", "List", "Sequence", "Iterable", "set", "Set", "tuple", "Collection", "ScalarResult", "AsyncScalarResult",
    "AsyncIterator", "Iterator", "AsyncIterable", "AsyncGenerator", "Generator", "frozenset",
}  # fmt: skip
_WRAPPERS = {"Optional", "Annotated", "Awaitable", "Coroutine", "Union", "Final", "ClassVar", "FromDishka"}
_BUILTIN_TYPES = {
    "int", "str", "float", "bool", "bytes", "dict", "list", "set", "tuple", "object", "None", "complex", "bytearray",
}  # fmt: skip


class Annotations:
    """Reads annotations for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source

    def returned(self, scope: Scope, reason: str, bound: Value | None = None) -> Value:
        """Return what a function says it returns, of which nobody knows what is loaded."""
        returns = getattr(scope.node, "returns", None)
        if _leaf(returns) == "Self" and isinstance(bound, (Klass, Instance)):
            return self.instance(bound.scope, reason)
        return Opaque(reason) if returns is None else self.value(returns, scope.parent or scope.module.scope, reason)

    def value(self, node: ast.expr | None, scope: Scope, reason: str, *, silent: bool = False, depth: int = 0) -> Value:
        """Return a value of an annotated type; entities in it are open."""
        node = parsed(node)
        if node is None or depth > DEPTH:
            return Plain() if node is None else Opaque(reason, silent)
        match node:
            case ast.Constant(value=None):
                return Plain()
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return either([self.value(arm, scope, reason, silent=silent, depth=depth + 1) for arm in (left, right)])
            case ast.Subscript(value=base, slice=inner):
                return self._subscript(node, base, inner, scope, reason, silent=silent, depth=depth)
            case ast.Name() | ast.Attribute():
                found = self.source.names.resolve(node, scope)
                if isinstance(found, Scope) and found.is_class:
                    return self.instance(found, reason, silent=silent)
                if isinstance(found, Assigned) and found.value is not None:
                    return self.value(found.value, found.scope, reason, silent=silent, depth=depth + 1)
                if isinstance(found, External):
                    return Outside(found.dotted, made=True)
                return (
                    Plain()
                    if found is None and isinstance(node, ast.Name) and node.id in _BUILTIN_TYPES
                    else Opaque(reason, silent)
                )
            case _:
                return Opaque(reason, silent)

    def _subscript(
        self,
        node: ast.Subscript,
        base: ast.expr,
        inner: ast.expr,
        scope: Scope,
        reason: str,
        *,
        silent: bool,
        depth: int,
    ) -> Value:
        found = self.source.names.resolve(base, scope)
        leaf = found.leaf if isinstance(found, External) else getattr(base, "id", getattr(base, "attr", ""))
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]

        def each(item: ast.expr) -> Value:
            return self.value(item, scope, reason, silent=silent, depth=depth + 1)

        if leaf == "Union":
            return either([each(item) for item in items])
        if leaf in _WRAPPERS:
            return each(items[-1] if leaf == "Coroutine" else items[0])
        if leaf in {"tuple", "Tuple"} and not (len(items) == 2 and isinstance(items[1], ast.Constant)):
            return Row(tuple(each(item) for item in items))
        if leaf in _COLLECTIONS:
            return Many(each(items[0]))
        if leaf in {"dict", "Dict", "Mapping", "defaultdict", "MutableMapping"}:
            return Record((), each(items[-1]))
        if leaf == "Select" and isinstance(found, External):
            return self._selecting(items[0], scope, reason, silent=silent)
        if leaf in {"type", "Type"}:
            named = self.source.names.resolve(items[0], scope)
            return Klass(named) if isinstance(named, Scope) and named.is_class else Opaque(reason)
        if isinstance(found, Scope) and found.is_class:
            return self.instance(found, reason, silent=silent)
        return Outside(found.dotted, made=True) if isinstance(found, External) else Opaque(reason, silent)

    def _selecting(self, node: ast.expr, scope: Scope, reason: str, *, silent: bool) -> Value:
        """`Select[tuple[Order]]`: a statement of which nobody here knows the options."""
        inner = node.slice if isinstance(node, ast.Subscript) else node
        columns: list[Value] = []
        shapes: list[Shape | None] = []
        for item in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
            found = self.source.names.resolve(item, scope)
            model = self.source.models.of(found) if isinstance(found, Scope) else None
            columns.append(Klass(model.scope) if model is not None else Opaque(reason, silent))
            shapes.append(None if model is None else Shape(model.key, opened=reason, silent=silent))
        return Statement(tuple(columns), tuple(shapes))

    # -- objects nobody here made -----------------------------------------------------------------

    def typed(self, made: Scope | External | None, reason: str) -> Value:
        if isinstance(made, Scope):
            return self.instance(made, reason)
        return Outside(made.dotted, made=True) if isinstance(made, External) else Opaque(reason)

    def instance(self, scope: Scope, reason: str, *, silent: bool = False) -> Value:
        model = self.source.models.of(scope)
        return self.open(model.key, reason, silent=silent) if model is not None else Instance(scope)

    def open(self, model: str, reason: str, *, silent: bool = False) -> Entity:
        """Return an object of which nobody here knows what is loaded."""
        number = self.machine.cell()
        self.machine.heap.cells[number] = Shape(model, opened=reason, silent=silent)
        return Entity(number, (), model)


def _leaf(node: ast.expr | None) -> str:
    named = parsed(node) or node
    return named.id if isinstance(named, ast.Name) else named.attr if isinstance(named, ast.Attribute) else ""
