"""Whether something that a function makes outlives it: kept, returned or yielded, or used and forgotten."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.modules import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.names import Assigned

DEPTH = 3


def forgotten(source: Source, call: Call) -> bool:
    """Tell whether what a call makes is used by its own function only, and before that function first yields."""
    function = call.scope.function
    statement = _statement(call)
    if function is None or function is not call.scope or not isinstance(statement, ast.Assign):
        return False
    target = statement.targets[0]
    made = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    if len(statement.targets) != 1 or not isinstance(target, ast.Name) or made is not call.node:
        return False
    return target.id not in function.outer and not outlives(source, function, target.id)


def outlives(source: Source, function: Scope, name: str, depth: int = 0) -> bool:
    """Tell whether the value of a local name may still be used when its function has ended, or has yielded."""
    if depth > DEPTH or any(_uses(inner, name) for inner in function.scopes):
        return True
    first_yield = min(
        (node.lineno for node in function.nodes() if isinstance(node, (ast.Yield, ast.YieldFrom))), default=None
    )
    for node in function.nodes():
        if not (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)):
            continue
        if first_yield is not None and node.lineno >= first_yield and not _is_disposal(function, node):
            return True
        if _leaves(source, function, node, depth):
            return True
    return False


def _leaves(source: Source, function: Scope, node: ast.expr, depth: int) -> bool:
    """Follow one use: an attribute or a call on it stays here, an argument goes where the called function puts it."""
    module = function.module
    parent = module.parents[node]
    if isinstance(parent, ast.keyword):
        parent = module.parents[parent]
    if isinstance(parent, ast.Attribute):
        return False
    if isinstance(parent, (ast.Assert, ast.Compare, ast.If, ast.withitem)):
        return False
    if isinstance(parent, ast.Call):
        if parent.func is node:
            return False
        target = source.types.callee(parent, function)
        if isinstance(target, Scope) and target.is_function:
            frame = source.evaluator.frame(parent, function, target)
            taken = [name for name, given in frame.arguments.items() if given.node is node]
            return not taken or outlives(source, target, taken[0], depth + 1)
        return _result_outlives(source, function, parent, depth)
    return True


def _result_outlives(source: Source, function: Scope, call: ast.Call, depth: int) -> bool:
    """What a class from outside makes of it, a factory or a session, lives as long as the name it gets."""
    module = function.module
    parent = module.parents[call]
    while isinstance(parent, (ast.Await, ast.Attribute, ast.withitem, ast.With, ast.AsyncWith)):
        if isinstance(parent, (ast.Attribute, ast.With, ast.AsyncWith)):
            return False
        parent = module.parents[parent]
    if isinstance(parent, ast.Assign) and len(parent.targets) == 1 and isinstance(parent.targets[0], ast.Name):
        return outlives(source, function, parent.targets[0].id, depth + 1)
    return not (isinstance(parent, ast.Expr) or (isinstance(parent, ast.Call) and parent.func is call))


def _is_disposal(function: Scope, node: ast.expr) -> bool:
    parent = function.module.parents[node]
    return isinstance(parent, ast.Attribute) and parent.attr == "dispose"


def _uses(scope: Scope, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(scope.node))


def _statement(call: Call) -> ast.stmt | None:
    return next((node for node in call.module.ancestors(call.node) if isinstance(node, ast.stmt)), None)


def alternatives(meaning: Assigned, at: ast.Call) -> list[ast.expr]:
    """Return the expressions of which a name holds one at a call: its only value, or those of the branches of an `if`.

    None are returned where one of several assignments replaces another, or where the call is inside of a branch itself.
    """
    real = [binding for binding in meaning.bindings if binding.kind != "annotation"]
    values = [each.value for each in real if each.kind == "value" and not each.unpacked and each.where is None]
    found = [value for value in values if value is not None]
    if len(found) != len(real) or (len(found) > 1 and not _one_in_each_branch(found, meaning.scope, at)):
        return []
    return [each for value in found for each in _either(value)]


def _one_in_each_branch(values: list[ast.expr], scope: Scope, at: ast.Call) -> bool:
    known = {id(value) for value in values}
    for node in scope.nodes():
        if not isinstance(node, ast.If) or node.lineno <= at.lineno <= (node.end_lineno or 0):
            continue
        held = [
            sum(isinstance(each, (ast.Assign, ast.AnnAssign)) and id(each.value) in known for each in body)
            for body in _bodies(node)
        ]
        if max(held) == 1 and sum(held) == len(values):
            return True
    return False


def _bodies(node: ast.If) -> Iterator[list[ast.stmt]]:
    """Yield the statements under `if`, each `elif` and `else`."""
    yield node.body
    match node.orelse:
        case [ast.If() as other]:
            yield from _bodies(other)
        case last:
            yield last


def _either(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.IfExp):
        yield from _either(value.body)
        yield from _either(value.orelse)
    else:
        yield value
