"""Response models that cannot be filled: each against what its route's code loads, looked at once, at start.

Endpoints are read, not run: every `load(Order, OrderOut)` in an endpoint and in the functions of its package that it
calls is planned, and where a `return` gives what a query with such an option found, the response model is compared.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm.util import AliasedClass

from verdigris.errors import ConfigurationError
from verdigris.loading import load, plan
from verdigris.loading.code import closed_over, function_of, names_of, reached
from verdigris.loading.naming import type_name
from verdigris.loading.schema import models

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator

    from verdigris.loading import Plan

_RESULTS = frozenset({"all", "first", "one", "one_or_none", "unique"})


@dataclass(frozen=True, slots=True)
class _Pair:
    """One `load(entity, schema)` as it stands in the code."""

    entity: type
    schema: Any

    def __str__(self) -> str:
        return f"load({self.entity.__name__}, {type_name(self.schema)})"


def problems(endpoint: Callable[..., Any], response_model: Any) -> Iterator[str]:
    """Yield what is wrong with the answers of an endpoint; nothing where its code can't be read."""
    function = function_of(endpoint)
    if function is None:
        return
    for each in reached(function):
        for pair in _pairs(each) if _mentions_load(each) else ():
            try:
                plan(pair.entity, pair.schema)
            except ConfigurationError as error:
                yield f"{pair}: {_first_line(error)}"
    if response_model is None or not _mentions_load(function) or not models(response_model):
        return
    for pair in _returned(function):
        try:
            loaded, needed = plan(pair.entity, pair.schema), plan(pair.entity, response_model)
        except ConfigurationError as error:
            yield f"it returns {pair.entity.__name__}: {_first_line(error)}"
            continue
        name = models(response_model)[0].__name__
        for missing in _missing(loaded, needed):
            yield f"{name} reads {missing}, which {pair} does not load. Write load({pair.entity.__name__}, {name})."


def _missing(loaded: Plan, needed: Plan) -> Iterator[str]:
    """Yield the relationships that one plan has and another lacks."""
    have = {(step.owner, step.name): step.plan for step in loaded.steps}
    for step in needed.steps:
        if (step.owner, step.name) not in have:
            yield f"{step.owner.__name__}.{step.name}"
            continue
        inner = have[step.owner, step.name]
        if inner is not None and step.plan is not None:
            yield from _missing(inner, step.plan)


def _returned(function: types.FunctionType) -> Iterator[_Pair]:
    """Yield the pairs of queries whose result a function returns as it is."""
    tree = _tree(function)
    if tree is None:
        return
    assigned: dict[str, list[ast.expr]] = {}
    own = list(_own_nodes(tree))
    for node in own:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, []).append(node.value)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
            assigned.setdefault(node.target.id, []).extend([node.value] * 2 if node.value else [])  # not followed
    for node in own:
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        value = node.value
        if isinstance(value, ast.Name) and len(assigned.get(value.id, ())) == 1:
            value = assigned[value.id][0]
        options = _options(value)
        pair = _pair(function, options[0]) if len(options) == 1 else None
        if pair is not None:
            yield pair


def _options(value: ast.expr) -> list[ast.expr]:
    """Return the options of the query in `(await session.scalars(select(...).options(...))).all()`, or nothing."""
    while True:
        match value:
            case ast.Await(inner) | ast.Call(ast.Name("list"), [inner], []):
                value = inner
            case ast.Call(ast.Attribute(inner, name), _, _) if name in _RESULTS:
                value = inner
            case ast.Call(ast.Attribute(_, "get" | "get_one"), _, keywords):
                given = [each.value for each in keywords if each.arg == "options"]
                return given[0].elts if len(given) == 1 and isinstance(given[0], ast.List | ast.Tuple) else []
            case ast.Call(ast.Attribute(_, "scalar" | "scalars"), [statement, *_], _):
                return _options_of(statement)
            case _:
                return []


def _options_of(statement: ast.expr) -> list[ast.expr]:
    """Return the options of a statement written in one piece, from `select(` on."""
    found: list[ast.expr] = []
    while True:
        match statement:
            case ast.Call(ast.Name("select"), _, _):
                return found
            case ast.Call(ast.Attribute(inner, name), arguments, _):
                found += arguments if name == "options" else []
                statement = inner
            case _:
                return []


def _mentions_load(function: types.FunctionType) -> bool:
    """Whether the code can call `load` at all; most cannot, and is not parsed."""
    mentioned = set(names_of(function.__code__))
    return "load" in mentioned or any(function.__globals__.get(name) is load for name in mentioned)


def _pairs(function: types.FunctionType) -> Iterator[_Pair]:
    tree = _tree(function)
    for node in ast.walk(tree) if tree is not None else ():
        if (pair := _pair(function, node)) is not None:
            yield pair


def _pair(function: types.FunctionType, node: ast.AST) -> _Pair | None:
    """Return the pair of a call of `load`, where both names are the module's own or the closure's."""
    if not isinstance(node, ast.Call) or len(node.args) < 2 or _value(function, node.func) is not load:
        return None
    entity, schema = (_value(function, argument) for argument in node.args[:2])
    if isinstance(entity, AliasedClass) or not isinstance(entity, type) or not models(schema):
        return None
    return _Pair(entity, schema)


def _value(function: types.FunctionType, node: ast.expr) -> Any:
    """Return what a name, a dotted name or a generic type is at run time; None where that can't be told."""
    simple = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.BinOp, ast.BitOr, ast.Tuple, ast.Load)
    if not all(isinstance(each, simple) for each in ast.walk(node)):
        return None
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    if names & set(function.__code__.co_varnames):
        return None
    try:
        code = compile(ast.Expression(node), function.__code__.co_filename, "eval")
        return eval(code, {**function.__globals__, **closed_over(function)})  # noqa: S307 - names of the application itself
    except (NameError, AttributeError, TypeError):
        return None


def _tree(function: types.FunctionType) -> ast.AST | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):  # a lambda in the middle of a line, a function of no file
        return None
    return tree.body[0] if isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef) else None


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _first_line(error: ConfigurationError) -> str:
    return str(error).split("\n", 1)[0]
