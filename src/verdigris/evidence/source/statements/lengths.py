"""How long a list may be: bounded by what it is made of, of any length, or not settled by the source."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Binding

DEPTH = 6  # names, calls and callers followed
_WRAPPERS = {"list", "tuple", "set", "frozenset", "sorted", "reversed", "enumerate", "iter", "product", "dict", "chain"}
_VIEWS = {"items", "keys", "values", "copy", "union"}
_ROWS = {"all", "fetchall", "scalars", "mappings", "unique", "tuples", "partitions"}
_READERS = {"DictReader", "reader", "load", "loads", "readlines", "open", "safe_load"}
_PUTS = {"append", "extend", "add", "update"}


class Lengths:
    """Lengths of lists in one tree: True is bounded, False any length, None not settled."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def bounded(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool | None:
        """Tell whether an expression can only be a list whose length is bounded."""
        if depth > DEPTH:
            return None
        match node:
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                spread = [element.value for element in elements if isinstance(element, ast.Starred)]
                return self._all(spread, scope, depth)
            case ast.Constant() | ast.Subscript(slice=ast.Slice()):
                return True
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._all([part.iter for part in node.generators], scope, depth)
            case ast.IfExp(body=first, orelse=second) | ast.BinOp(left=first, op=ast.Add(), right=second):
                return self._all([first, second], scope, depth)
            case ast.BoolOp(values=values):
                return self._all(values, scope, depth)
            case ast.BinOp(left=inner) | ast.Await(value=inner):
                return self.bounded(inner, scope, depth + 1)
            case ast.Call():
                return self._call(node, scope, depth)
            case ast.Name() | ast.Attribute():
                return self._named(node, scope, depth)
            case _:
                return None

    def _all(self, nodes: Iterable[ast.expr], scope: Scope, depth: int) -> bool | None:
        return _together(self.bounded(node, scope, depth + 1) for node in nodes)

    def _call(self, node: ast.Call, scope: Scope, depth: int) -> bool | None:
        leaf = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if leaf in {"range", "islice", "zip"}:
            return True if leaf == "islice" else None
        if leaf in _WRAPPERS:
            if leaf in {"set", "frozenset"} and any(self._enumerated(given, scope) for given in node.args):
                return True
            return self._all(node.args, scope, depth)
        if isinstance(node.func, ast.Attribute):
            if leaf in _VIEWS and not node.args:
                return self.bounded(node.func.value, scope, depth + 1)
            if leaf in _ROWS:
                return self._rows(node.func.value, scope, depth)
        meaning = self.source.names.resolve(node.func, scope)
        read = isinstance(meaning, External) and meaning.leaf in _READERS
        return False if read else None

    def _rows(self, node: ast.expr, scope: Scope, depth: int) -> bool | None:
        """A query's rows are of any length, unless its statement or function speaks of a limit."""
        function = scope.function or scope
        limited = any(
            isinstance(inner, ast.Attribute) and inner.attr in {"limit", "fetch"} for inner in function.nodes()
        )
        while isinstance(node, (ast.Await, ast.Call, ast.Attribute, ast.Name)):
            if isinstance(node, ast.Name):
                found = scope.lookup(node.id)
                value = found[1][0].value if found is not None and len(found[1]) == 1 else None
                if value is None or depth > DEPTH:
                    return None
                node, depth = value, depth + 1
                continue
            if isinstance(node, ast.Attribute) and self.source.types.sends(node.value, scope):
                return None if limited else False
            node = node.func if isinstance(node, ast.Call) else node.value
        return None

    def _named(self, node: ast.Name | ast.Attribute, scope: Scope, depth: int) -> bool | None:
        meaning = self.source.names.resolve(node, scope)
        if isinstance(meaning, Scope):
            return True if self._is_enum(meaning) else None
        if not isinstance(meaning, Assigned):
            return None
        kinds = {binding.kind for binding in meaning.bindings} - {"annotation"}
        if kinds == {"parameter"}:
            return self._parameter(meaning, depth)
        if kinds != {"value"}:
            return None
        bindings = _before(node, [binding for binding in meaning.bindings if binding.kind == "value"], scope)
        values = [binding.value for binding in bindings if binding.value is not None and not binding.unpacked]
        if len(values) != len(bindings):
            return None
        told = self._all(values, meaning.scope, depth)
        return _together([told, *self._put_in(meaning, depth)])

    def _put_in(self, name: Assigned, depth: int) -> Iterable[bool | None]:
        """Follow `rows.append(row)` to the loops around it."""
        for node in name.scope.nodes():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PUTS):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == name.name):
                continue
            if node.func.attr in {"extend", "update"}:
                yield self._all(node.args, name.scope, depth)
            for loop in name.scope.module.ancestors(node):
                if loop is name.scope.node:
                    break
                if isinstance(loop, ast.For):
                    yield self.bounded(loop.iter, name.scope, depth + 1)
                elif isinstance(loop, (ast.AsyncFor, ast.While)):
                    yield None

    def _parameter(self, name: Assigned, depth: int) -> bool | None:
        """A parameter is as long as its callers make it; one that nobody calls may be of any length."""
        function = name.scope
        annotations = [binding.annotation for binding in name.bindings if binding.annotation is not None]
        written = [*annotations, *filter(None, [function.default(name.name)])]
        if any("max_length" in ast.unparse(node) for node in written):
            return True
        callers = [call for call in self.source.calls.to(function) if call.module.role is Role.APPLICATION]
        if not callers:
            named = any(call.module.role is Role.APPLICATION for call in self.source.calls.named(function.name))
            return None if named else False
        told: list[bool | None] = []
        for call in callers:
            frame = self.source.evaluator.frame(call.node, call.scope, function)
            given = frame.arguments.get(name.name)
            told.append(None if given is None else self.bounded(given.node, given.scope, depth + 1))
        return _together(told)

    def _enumerated(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether a list's elements are members of an enumeration: a set of them is no longer than that."""
        meaning = self.source.names.resolve(node, scope) if isinstance(node, (ast.Name, ast.Attribute)) else None
        if not isinstance(meaning, Assigned):
            return False
        for binding in meaning.bindings:
            for inner in ast.walk(binding.annotation) if binding.annotation is not None else ():
                named = self.source.names.resolve(inner, meaning.scope) if isinstance(inner, ast.Name) else None
                if isinstance(named, Scope) and self._is_enum(named):
                    return True
        return False

    def _is_enum(self, owner: Scope) -> bool:
        return owner.is_class and any(
            isinstance(base, External) and base.package == "enum" for base in self.source.names.lineage(owner)
        )


def _before(node: ast.AST, bindings: list[Binding], scope: Scope) -> list[Binding]:
    """Leave only the last assignment above a use, if it stands in a block around the use."""
    around = set(map(id, scope.module.ancestors(node)))
    above = [
        binding
        for binding in bindings
        if getattr(binding.node, "lineno", 0) < getattr(node, "lineno", 0)
        and id(scope.module.parents.get(binding.node)) in around
        and id(binding.node) not in around
    ]
    last = max(above, key=lambda binding: getattr(binding.node, "lineno", 0), default=None)
    return bindings if last is None else [last]


def _together(told: Iterable[bool | None]) -> bool | None:
    """One part of any length makes the whole so; one that is not settled leaves it open."""
    parts = list(told)
    if False in parts:
        return False
    return None if None in parts else True
