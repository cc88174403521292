"""What FastAPI calls for a `Depends`: a function or class, an object's `__call__`, what another function makes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External, Meaning

if TYPE_CHECKING:
    from verdigris.evidence.source import Source


def called(source: Source, node: ast.expr, scope: Scope) -> Meaning | None:
    """Tell what calling an expression runs; None if that is not settled."""
    found = source.types.reach(node, scope)
    if found is not None:
        return found
    meaning = source.names.resolve(node, scope)
    if isinstance(meaning, Assigned) and meaning.value is not None:  # admin = require_role("admin")
        node, scope = meaning.value, meaning.scope
    return (_made(source, node, scope) if isinstance(node, ast.Call) else None) or _of_object(source, node, scope)


def _made(source: Source, node: ast.Call, scope: Scope) -> Scope | None:
    """Return the function inside another that calling the outer one gives: `Depends(require_role("admin"))`."""
    maker = source.types.callee(node, scope)
    if not (isinstance(maker, Scope) and maker.is_function):
        return None
    given = {
        each.value.id for each in maker.nodes() if isinstance(each, ast.Return) and isinstance(each.value, ast.Name)
    }
    inner = maker.member(given.pop()) if len(given) == 1 else None
    return inner if inner is not None and inner.is_function else None


def _of_object(source: Source, node: ast.expr, scope: Scope) -> Meaning | None:
    """Return what is called of an object: a method of the tree, or one of FastAPI's own security schemes."""
    owner = source.types.of(node, scope)
    if isinstance(owner, Scope):
        method = source.names.class_attribute(owner, "__call__")
        return method if isinstance(method, Scope) else None
    return owner if isinstance(owner, External) and owner.package == "fastapi" else None
