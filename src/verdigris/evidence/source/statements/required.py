"""Conditions of statements that no NULL meets: what an inner join would leave out, they have left out already."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.evidence.source.reading.calls import Call

_KEEPING = {"in_", "is_not", "isnot", "between", "like", "ilike"}
_ORDERING = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def required(option: Call, columns: Iterable[str], relation: str) -> bool | None:
    """Tell whether the statement of a loader option requires one of its columns to be set, or joins what they lead to.

    None where another statement of the function does: which one the option stands on is not followed.
    """
    parents = option.module.parents
    node: ast.AST = option.node
    while isinstance(parents.get(node), (ast.expr, ast.keyword)) and not isinstance(node, ast.Await):
        node = parents[node]
    wanted = set(columns)
    if _requires(ast.walk(node), wanted, relation, option):
        return True
    function = option.scope.function
    return None if function is not None and _requires(function.nodes(), wanted, relation, option) else False


def _requires(nodes: Iterable[ast.AST] | Iterator[ast.AST], columns: set[str], relation: str, option: Call) -> bool:
    return any(_is_condition(node, columns, relation) and not _is_one_of_several(node, option) for node in nodes)


def _is_condition(node: ast.AST, columns: set[str], relation: str) -> bool:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            sides = [left, right] if isinstance(op, _ORDERING) else []
            none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            return none is isinstance(op, ast.NotEq) and any(_names(side, columns) for side in sides)
        case ast.Call(func=ast.Attribute(value=column, attr=method)) if method in _KEEPING:
            return _names(column, columns)
        case ast.Call(func=ast.Attribute(attr="join"), args=[target, *_], keywords=keywords):
            return _names(target, {relation}) and not any(each.arg in {"isouter", "full"} for each in keywords)
        case _:
            return False


def _names(node: ast.expr, attributes: set[str]) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in attributes


def _is_one_of_several(node: ast.AST, option: Call) -> bool:
    """Tell whether a condition is one that another may stand in for, or the opposite of itself."""
    for around in option.module.ancestors(node):
        if isinstance(around, ast.stmt):
            return False
        if isinstance(around, ast.Call) and leaf_of(around.func) in {"or_", "not_", "case"}:
            return True
        if isinstance(around, (ast.UnaryOp, ast.IfExp)) or (
            isinstance(around, ast.BinOp) and isinstance(around.op, ast.BitOr)
        ):
            return True
    return False
