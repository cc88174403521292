"""What except clauses read of mapped objects whose attributes the clause's rollback has expired."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.excepts import own
from verdigris.evidence.source.reading.modules import Scope

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

_LOADS_AGAIN = {"refresh", "get", "merge", "scalar", "scalars", "execute"}


@dataclass(frozen=True, slots=True)
class RolledBackRead(Subject):
    """An attribute of a mapped object that is read after a rollback expired it."""

    key: str
    place: Place
    attribute: str
    rollback: Place


def rolled_back_reads(source: Source) -> list[RolledBackRead]:
    """Return the first such read of each except clause."""
    mapped = {id(model.scope) for model in source.models.every}
    handlers = (
        (function, node)
        for function in source.functions
        for node in function.nodes()
        if isinstance(node, ast.ExceptHandler)
    )
    reads = (_read(source, function, handler, mapped) for function, handler in handlers)
    return [read for read in reads if read is not None]


def _read(source: Source, function: Scope, handler: ast.ExceptHandler, mapped: set[int]) -> RolledBackRead | None:
    rolled: ast.Call | None = None
    for node in own(handler.body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "rollback" and source.types.session(node.func.value, function) == "async":
                rolled = rolled or node
            elif node.func.attr in _LOADS_AGAIN and rolled is not None:
                return None
        if rolled is None or not (
            isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name)
        ):
            continue
        owner = source.types.of(node.value, function)
        if not isinstance(owner, Scope) or id(owner) not in mapped or _is_new(source, function, node.value.id):
            continue
        if _is_column(source, owner, node.attr) and node.lineno >= rolled.lineno:
            text, module = ast.unparse(node), function.module
            return RolledBackRead(f"{function.key}:{text}", module.place(node), text, module.place(rolled))
    return None


def _is_new(source: Source, function: Scope, name: str) -> bool:
    """Tell whether an object was made or added in the function: a rollback sets such an object free."""
    found = function.lookup(name)
    made = found is not None and any(
        isinstance(binding.value, ast.Call) and _constructs(source, binding.value, function) for binding in found[1]
    )
    added = any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"add", "add_all"}
        and name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for node in function.nodes()
    )
    return made or added


def _constructs(source: Source, node: ast.Call, function: Scope) -> bool:
    meaning = source.names.resolve(node.func, function)
    return isinstance(meaning, Scope) and meaning.is_class


def _is_column(source: Source, owner: Scope, name: str) -> bool:
    for base in source.names.lineage(owner):
        if isinstance(base, Scope) and name in base.bindings and base.member(name) is None:
            return not name.startswith("__")
    return False
