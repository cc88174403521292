"""Conditions that tell SQLite from a server: what is written for a file alone says nothing of the pool of a server."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.names import Assigned

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.source.reading.names import Names

DEPTH = 3


def branch(names: Names, test: ast.expr, scope: Scope, depth: int = 0) -> bool | None:
    """Tell which branch of a condition is SQLite's only: that of its truth, the other one (False), or none."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            found = branch(names, inner, scope, depth)
            return None if found is None else not found
        case ast.BoolOp(op=op, values=values):
            wanted = isinstance(op, ast.And)
            return wanted if any(branch(names, value, scope, depth) is wanted for value in values) else None
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]):
            named = _named(left) or (isinstance(right, (ast.Tuple, ast.List, ast.Set)) and all(map(_named, right.elts)))
            return isinstance(op, ast.In) if named else None
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]):
            return isinstance(op, ast.Eq) if _named(left) or _named(right) else None
        case ast.Call(func=ast.Attribute(attr="startswith"), args=[prefix]):
            return True if _named(prefix) else None
        case ast.Name(id=name) | ast.Attribute(attr=name) if "sqlite" in name.lower():
            return True
        case ast.Name() if depth < DEPTH:
            meaning = names.resolve(test, scope)
            if not isinstance(meaning, Assigned) or meaning.value is None:
                return None
            return branch(names, meaning.value, meaning.scope, depth + 1)
        case _:
            return None


def _named(node: ast.expr) -> bool:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return "sqlite" in text or text == ":memory:"  # which no other database knows


def is_within(names: Names, node: ast.AST, scope: Scope) -> bool:
    """Tell whether a node stands in a branch that is SQLite's only."""
    inner = node
    for ancestor in scope.module.ancestors(node):
        if isinstance(ancestor, (ast.If, ast.IfExp)) and inner is not ancestor.test:
            body = ancestor.body if isinstance(ancestor.body, list) else [ancestor.body]
            if branch(names, ancestor.test, scope) is (inner in body):
                return True
        inner = ancestor
    return False
