"""What is made where no call shows it: makers that are passed on, makers by name, columns of no class."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Module, Scope
    from verdigris.evidence.values import Place

ENGINES = ("create_async_engine", "async_engine_from_config", "create_engine", "engine_from_config")
FACTORIES = ("async_sessionmaker", "sessionmaker")
_PACKAGES = {"sqlalchemy", "sqlmodel"}


def passed_on(source: Source, *makers: str) -> Iterator[str]:
    """Yield a gap for each place that hands a maker to something else, which may then call it unseen."""
    for module in source.names.modules:
        if module.role is not Role.APPLICATION or not any(maker in module.file.text for maker in makers):
            continue
        for scope in module.scope.walk():
            meant: dict[str, bool] = {}  # a name may occur, and be bound, very often
            for node in _values(scope):
                name = _named(node)
                if not name:
                    continue
                if name not in meant:
                    meant[name] = name in makers or _alias(name, scope, makers)
                if not meant[name] or not _is_passed(node, module):
                    continue
                if isinstance(node, ast.Constant) or _is_maker(source, node, scope, makers):
                    yield f"{module.place(node)}: {name} is passed on, and what is made with it is not seen"


def _values(scope: Scope) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, with the defaults of the functions that it defines."""
    for node in scope.nodes():
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from node.args.defaults
            yield from (default for default in node.args.kw_defaults if default is not None)


def _named(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
            return name
        case ast.Constant(value=str(text)):
            return text
    return ""


def _alias(name: str, scope: Scope, makers: tuple[str, ...]) -> bool:
    found = scope.lookup(name)
    return found is not None and any(each.origin is not None and each.origin[1] in makers for each in found[1])


def _is_passed(node: ast.AST, module: Module) -> bool:
    """Tell whether a name is handed over: not called, annotated with, or given another name that is followed."""
    around = module.parents.get(node)
    if isinstance(node, ast.Constant):
        getter = around.func if isinstance(around, ast.Call) else None
        of_state = isinstance(around, ast.Call) and ast.unparse(around.args[0]).endswith("state")  # holds what was made
        return isinstance(getter, ast.Name) and getter.id == "getattr" and not of_state
    if isinstance(around, ast.Tuple) and isinstance(module.parents.get(around), ast.Subscript):
        return False  # Annotated[async_sessionmaker, Depends(...)]
    if isinstance(around, ast.Call):
        return around.func is not node
    return isinstance(around, (ast.keyword, ast.Dict, ast.List, ast.Tuple, ast.IfExp, ast.BoolOp, ast.arguments))


def _is_maker(source: Source, node: ast.AST, scope: Scope, makers: tuple[str, ...]) -> bool:
    if not isinstance(node, (ast.Name, ast.Attribute)):
        return False
    meaning = source.names.resolve(node, scope)
    return isinstance(meaning, External) and meaning.package in _PACKAGES and meaning.leaf in makers


def unresolved(source: Source, *makers: str) -> Iterator[str]:
    """Yield a gap for each call of a maker by its full name on something that the source does not settle."""
    for call in source.calls.named(*makers):
        func = call.node.func
        named = call.module.role is Role.APPLICATION and isinstance(func, ast.Attribute) and func.attr in makers
        if named and source.types.callee(call.node, call.scope) is None:
            yield f"{call.place}: what `{ast.unparse(func)}` makes is not settled by the source"


def stray(source: Source, maker: str, seen: set[Place]) -> Iterator[str]:
    """Yield a gap for each column or relationship that no mapped class which was read declares itself."""
    lines = {(place.path, line) for place in seen for line in range(place.line, max(place.end_line, place.line) + 1)}
    for call, _ in source.calls.outside(_PACKAGES, maker):
        if call.module.role is not Role.APPLICATION or (call.place.path, call.place.line) in lines:
            continue
        if not _accounted(call, source):
            yield f"{call.place}: this {maker}() is no attribute of a mapped class that was read"


def _accounted(call: Call, source: Source) -> bool:
    """Tell whether a column belongs to a table, or is what a function gives to a class that calls it."""
    for around in call.module.ancestors(call.node):
        if isinstance(around, ast.Return):
            return True
        if isinstance(around, ast.Call):
            meaning = source.names.resolve(around.func, call.scope)
            if not (isinstance(meaning, External) and meaning.leaf in {"add_property", "setattr", "type"}):
                return meaning is not None
        if isinstance(around, ast.stmt):
            return False
    return False
