"""Columns that an annotation brings along: `Mapped[intpk]`, where `intpk = Annotated[int, mapped_column(...)]`."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import parsed

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.source.reading.names import Names

DEPTH = 4


def columns_of(annotation: ast.expr | None, scope: Scope, names: Names, depth: int = 0) -> list[tuple[ast.Call, Scope]]:
    """Return the `mapped_column()` calls that an annotation may bring: several where a condition chooses one."""
    node = parsed(annotation)
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return columns_of(left, scope, names, depth) or columns_of(right, scope, names, depth)
        case ast.Subscript(value=base, slice=inner):
            meaning = names.resolve(base, scope)
            leaf = meaning.leaf if isinstance(meaning, External) else ""
            if leaf == "Annotated" and isinstance(inner, ast.Tuple):
                own = [call for extra in inner.elts[1:] for call in _calls(extra, scope, names)]
                return own or columns_of(inner.elts[0], scope, names, depth)
            return columns_of(inner, scope, names, depth) if leaf in {"Mapped", "Optional"} else []
        case ast.Name() | ast.Attribute() if depth < DEPTH:
            meaning = names.resolve(node, scope)
            value = meaning.value if isinstance(meaning, Assigned) else None
            return columns_of(value, meaning.scope, names, depth + 1) if isinstance(meaning, Assigned) and value else []
        case _:
            return []


def _calls(node: ast.expr, scope: Scope, names: Names) -> list[tuple[ast.Call, Scope]]:
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            return _calls(body, scope, names) + _calls(orelse, scope, names)
        case ast.Call(func=func):
            meaning = names.resolve(func, scope)
            return [(node, scope)] if isinstance(meaning, External) and meaning.leaf == "mapped_column" else []
        case _:
            return []
