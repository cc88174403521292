"""Syntax nodes, walked: what every other module does most often, so it is done by tables."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFINITIONS: frozenset[type[ast.AST]] = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda})
_WORDLESS = frozenset(  # fields without a node that has a place: contexts and operators are one object each, shared
    [
        "ctx",
        "op",
        "ops",
        "id",
        "attr",
        "arg",
        "kind",
        "type_comment",
        "level",
        "module",
        "asname",
        "conversion",
        "simple",
        "rest",
    ]
)
_NAMED_BY_TEXT = (ast.Constant, ast.Global, ast.Nonlocal)


def _kinds(base: type[ast.AST]) -> Iterator[type[ast.AST]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


#: Where each kind of node holds others: half of all nodes are names and constants, which hold none.
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: () if issubclass(kind, _NAMED_BY_TEXT) else tuple(name for name in kind._fields if name not in _WORDLESS)
    for kind in _kinds(ast.AST)
}


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes directly inside a node, in source order; contexts and operators are left out."""
    found: list[ast.AST] = []
    for name in _FIELDS[node.__class__]:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [child for child in value if isinstance(child, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def leaf_of(node: ast.AST | None, *through: type[ast.Call | ast.Subscript]) -> str:
    """Return the last name of a dotted expression, `through` calls or subscripts of it; "" if there is none."""
    while isinstance(node, through):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def leaf_within(node: ast.AST | None) -> str:
    """Return the last name of a dotted expression, or of what it calls or subscribes; "" if there is none."""
    return leaf_of(node, ast.Call, ast.Subscript)


def inside(nodes: Sequence[ast.AST], closed: frozenset[type[ast.AST]] = DEFINITIONS) -> Iterator[ast.AST]:
    """Yield nodes and what is inside them, in source order; those of a `closed` kind are yielded, but not entered."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        yield node
        if node.__class__ not in closed:
            stack += reversed(children(node))


def parsed(node: ast.expr | None) -> ast.expr | None:
    """Read an expression that is written as a string, as annotations are; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            return None
    return node
