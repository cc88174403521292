"""Code to paste: what stands there with a keyword or a key set, everything else as it was written."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def call_with(call: ast.Call, changed: Mapping[str, str], spread: Collection[str] = ()) -> str:
    """Return a call with keywords set: in their places those that it has, at the end those that it has not.

    `spread` names what its `**options` may give too, where a keyword of the same name would be a TypeError: such a
    one is set among the options.
    """
    written = {each.arg for each in call.keywords}
    among = {key: text for key, text in changed.items() if key in spread and key not in written}
    arguments = [ast.unparse(each) for each in call.args]
    for each in call.keywords:
        if each.arg is not None:
            arguments.append(f"{each.arg}={changed.get(each.arg) or ast.unparse(each.value)}")
        elif among:
            arguments.append(f"**{dictionary_with(each.value, among)}")
            among = {}
        else:
            arguments.append(f"**{ast.unparse(each.value)}")
    arguments += [f"{key}={text}" for key, text in changed.items() if key not in written and key not in spread]
    arguments += [f"{key}={text}" for key, text in among.items()]  # there are no `**options` after all
    return f"{ast.unparse(call.func)}({', '.join(arguments)})"


def dictionary_with(given: ast.expr | None, changed: Mapping[str, str]) -> str:
    """Return a dictionary with keys set; of one that is not written out here, what it holds and the keys."""
    quoted = {repr(key): text for key, text in changed.items()}
    items: dict[str, str] = {}
    match given:
        case None:
            pass
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                name = f"**{ast.unparse(value)}" if key is None else ast.unparse(key)
                items[name] = "" if key is None else ast.unparse(value)
        case ast.Call(func=ast.Name("dict"), args=[], keywords=keywords):
            for each in keywords:
                name = f"**{ast.unparse(each.value)}" if each.arg is None else repr(each.arg)
                items[name] = "" if each.arg is None else ast.unparse(each.value)
        case _:
            bare = isinstance(given, (ast.Name, ast.Attribute, ast.Call, ast.Subscript))
            items[f"**{ast.unparse(given) if bare else f'({ast.unparse(given)})'}"] = ""
    items |= quoted
    return "{" + ", ".join(f"{key}: {text}" if text else key for key, text in items.items()) + "}"


def assigned(statement: ast.AST | None, name: str, value: str) -> str:
    """Return an assignment with another value, its annotation kept; one of `name` where there is no statement."""
    match statement:
        case ast.AnnAssign(target=target, annotation=annotation):
            return f"{ast.unparse(target)}: {ast.unparse(annotation)} = {value}"
        case ast.Assign(targets=targets):
            return f"{' = '.join(map(ast.unparse, targets))} = {value}"
        case ast.Return():  # of a declared_attr
            return f"return {value}"
        case _:
            return f"{name} = {value}"
