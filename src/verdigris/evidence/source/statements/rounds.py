"""The rounds of a loop, read off its syntax: what each does, and whether a query in one is a query a row."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.reading.nodes import DEFINITIONS, inside, leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.modules import Scope

Loop: TypeAlias = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_STATEMENTS = (ast.For, ast.AsyncFor, ast.While)
_ELSEWHERE = DEFINITIONS | {ast.While}  # what runs at another time, or in rounds of its own


def header(loop: Loop) -> tuple[ast.expr, ast.expr]:
    """Return what a loop binds in each round, and what it goes over."""
    if isinstance(loop, ast.While):
        return counted(loop) or (loop.test, loop.test)
    if isinstance(loop, _STATEMENTS):
        return loop.target, loop.iter
    return loop.generators[0].target, loop.generators[0].iter


def counted(loop: ast.While) -> tuple[ast.expr, ast.expr] | None:
    """Return the index of `while i < len(rows): ...; i += 1` and what it counts through; no other `while` has one."""
    match loop.test:
        case ast.Compare(left=ast.Name() as index, ops=[ast.Lt() | ast.NotEq()], comparators=[ast.Call() as length]):
            pass
        case ast.Compare(left=ast.Call() as length, ops=[ast.Gt() | ast.NotEq()], comparators=[ast.Name() as index]):
            pass
        case _:
            return None
    if leaf_of(length.func) != "len" or len(length.args) != 1:
        return None
    for node in inside(loop.body, _ELSEWHERE):
        match node:
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=ast.Constant(value=1)) if name == index.id:
                return index, length.args[0]
            case _:
                pass
    return None


def rounds(loop: Loop) -> Iterator[ast.AST]:
    """Yield what a loop does in each round; what it goes over is evaluated once."""
    if isinstance(loop, _STATEMENTS):
        return inside(loop.body, _ELSEWHERE)
    first = loop.generators[0]
    results = [loop.key, loop.value] if isinstance(loop, ast.DictComp) else [loop.elt]
    return inside([*reversed(loop.generators[1:]), *reversed(first.ifs), *reversed(results)], _ELSEWHERE)


def names(node: ast.AST) -> Iterator[str]:
    """Yield the names that stand in a node."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id


def depends(sent: ast.Call | ast.Attribute, loop: Loop) -> bool:
    """Tell whether a query asks something else in each round: it mentions what the loop goes over."""
    target, _ = header(loop)
    moving = set(names(target))
    if not isinstance(loop, _STATEMENTS):
        moving |= {name for generator in loop.generators for name in names(generator.target)}
    for _ in range(2):  # what is assigned further up in the round, then what is assigned from that
        for node in rounds(loop):
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.For, ast.AugAssign)):
                value = node.iter if isinstance(node, ast.For) else node.value
                if value is not None and value is not sent and moving & set(names(value)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    moving |= {name for each in targets for name in names(each)}
    return bool(moving & set(names(sent)))


def is_in_one_round(sent: ast.AST, loop: Loop, function: Scope) -> bool:
    """Tell whether a query runs in one round at most: `for key, value in given.items(): if key == "owner": ...`.

    What the loop binds is compared with a constant, and occurs once: it is all that the loop binds, or a key.
    """
    target, over = header(loop)
    only = target.id if isinstance(target, ast.Name) else None
    if isinstance(target, ast.Tuple) and isinstance(over, ast.Call) and leaf_of(over.func) == "items":
        only = target.elts[0].id if isinstance(target.elts[0], ast.Name) else None
    inner = sent
    for ancestor in function.module.ancestors(sent):
        if ancestor is loop:
            return False
        if isinstance(ancestor, ast.If) and inner in ancestor.body and only in set(_fixed(ancestor.test)):
            return True
        inner = ancestor
    return False


def _fixed(test: ast.expr) -> Iterator[str]:
    """Yield the names that a condition holds at one constant."""
    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            for value in values:
                yield from _fixed(value)
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()], comparators=[ast.Constant()]):
            yield name
        case _:
            return


def is_chained(loop: Loop, sent: ast.AST) -> bool:
    """Tell whether a query asks with what an earlier round's query found: a walk along a path, level by level."""
    if not isinstance(loop, _STATEMENTS):
        return False
    assigned = list(assignments(loop))
    asking, found = set(names(sent)), _found(sent, assigned)
    here = getattr(sent, "lineno", 0)
    for _ in range(2):  # a statement that is built in two steps
        asking |= {each for name, value in assigned if name in asking and value.lineno < here for each in names(value)}
    kept = {name for name, value in assigned if name in found and value.lineno > here}
    fresh = {name for name, value in assigned if value.lineno < here and not set(names(value)) & kept}
    return bool(asking & kept - fresh - set(names(header(loop)[0])))


def assignments(loop: Loop) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that each round assigns, with their values."""
    for node in rounds(loop):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def _found(sent: ast.AST, assigned: list[tuple[str, ast.expr]]) -> set[str]:
    """Return the names that what a query gives goes into, directly or through others."""
    found: set[str] = set()
    for _ in range(3):
        for name, value in assigned:
            if any(inner is sent for inner in ast.walk(value)) or found & set(names(value)):
                found.add(name)
    return found


def ends(loop: Loop, sent: ast.AST) -> bool:
    """Tell whether the loop is left by what was found: a search, a retry."""
    if not isinstance(loop, _STATEMENTS):
        return False
    inside = {
        id(node)
        for inner in rounds(loop)
        if isinstance(inner, (ast.For, ast.AsyncFor, ast.While))
        for node in ast.walk(inner)
    }
    return any(
        (isinstance(node, ast.Break) and id(node) not in inside) or isinstance(node, ast.Return)
        for node in rounds(loop)
        if getattr(node, "lineno", 0) >= getattr(sent, "lineno", 0)
    )


def is_grouped(loop: Loop) -> bool:
    """Tell whether each round asks for all of a group: `for kind, ids in groups.items(): ... .in_(ids)`."""
    moving = set(names(header(loop)[0]))
    for node in rounds(loop):
        match node:
            case ast.Call(func=ast.Attribute(attr="in_"), args=[group]):
                if _members(group) in moving:
                    return True
            case ast.Starred(value=ast.Call() as group):  # `*row` may be one row; what keys() gives is not
                if _members(group) in moving:
                    return True
            case _:
                pass
    return False


def _members(node: ast.expr) -> str | None:
    """Name the group whose members an expression lists: `ids`, `list(ids)`, `ids.keys()`."""
    match node:
        case ast.Call(func=ast.Name(id="list" | "set" | "tuple" | "sorted"), args=[inner]):
            return _members(inner)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="keys"), args=[]) | ast.Name(id=name):
            return name
        case _:
            return None
