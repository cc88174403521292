"""Methods of what holds values: results of statements, collections, mappings."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.values import (
    Const,
    Many,
    Opaque,
    Plain,
    Record,
    Result,
    Row,
    Value,
    either,
    element,
)

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Call


def result_method(result: Result, name: str, call: Call) -> Value:
    """Return what a method of a statement's result gives."""
    whole = result.columns
    match name:
        case "scalars":
            index = call.get(0)
            if isinstance(index, Const) and isinstance(index.value, int) and index.value < len(whole):
                return Result((whole[index.value],), scalars=True)
            return Result(whole[:1], scalars=True)
        case "scalar" | "scalar_one" | "scalar_one_or_none":
            return whole[0] if whole else Plain()
        case "all" | "fetchall" | "fetchmany" | "partitions":
            return Many(Many(element(result))) if name == "partitions" else Many(element(result))
        case "first" | "one" | "one_or_none" | "fetchone" | "__anext__" | "__next__":
            return element(result)
        case "mappings":
            return Opaque("rows as mappings are not followed")
        case "unique" | "tuples" | "yield_per" | "freeze" | "columns" | "execution_options":
            return result
        case _:
            return Plain()


def collection_method(owner: Many | Row, name: str, call: Call) -> Value:
    """Return what a method of a list, a set, a tuple or an iterator gives; those that add to it do so."""
    inner = element(owner)
    match name:
        case "append" | "add" | "insert" | "extend" | "update" | "appendleft":
            _grow(call, name)
            return Plain()
        case "all" | "copy" | "unique" | "scalars" | "union" | "difference" | "intersection" | "_tuple" | "tuple":
            return owner
        case (
            "pop"
            | "first"
            | "one"
            | "one_or_none"
            | "popleft"
            | "__anext__"
            | "__next__"
            | "scalar_one_or_none"
            | "get"
        ):
            return inner
        case _:
            return Plain()


def _grow(call: Call, name: str) -> None:
    """`rows.append(x)`: the list that a name holds has one more element."""
    node = call.node.func
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and call.arguments):
        return
    names = call.frame.names
    old = names.get(node.value.id)
    added = element(call.arguments[-1]) if name in {"extend", "update"} else call.arguments[-1]
    if isinstance(old, Many):
        names[node.value.id] = Many(either([old.element, added]))


def mapping_method(owner: Record, name: str, call: Call) -> Value:
    """Return what a method of a mapping gives; those that add to it do so."""
    every = either([*(value for _, value in owner.items), owner.rest])
    match name:
        case "get" | "pop" | "setdefault":
            key = call.get(0)
            if isinstance(key, Const):
                found = dict(owner.items).get(str(key.value), owner.rest)
                default = call.get(1)
                return either([found, default]) if default is not None else found
            return every
        case "values":
            return Many(every)
        case "items":
            return Many(Row((Plain(), every)))
        case "copy":
            return owner
        case "update":
            _updated(owner, call)
            return Plain()
        case _:
            return Plain()


def _updated(owner: Record, call: Call) -> None:
    node = call.node.func
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        more = [arg for arg in call.arguments if isinstance(arg, Record)]
        items = {**dict(owner.items), **{key: value for arg in more for key, value in arg.items}, **call.keywords}
        rest = either(
            [
                owner.rest,
                *(arg.rest for arg in more),
                *(arg for arg in call.arguments if not isinstance(arg, Record)),
            ]
        )
        call.frame.names[node.value.id] = Record(tuple(items.items()), rest)
