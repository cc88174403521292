"""Connections of an engine that do what sessions do elsewhere: they are handed out, written through and committed."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place

_SENDS = {"execute", "scalar", "scalars", "exec_driver_sql"}
_CHANGES = {"insert", "update", "delete", "merge"}
_SQL = re.compile(r"\s*(insert|update|delete|merge)\b", re.IGNORECASE)


class Connections:
    """Asynchronous connections of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def is_one(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether an expression is a connection."""
        return is_connection(self.source.types.of(node, scope))

    @cached_property
    def writers(self) -> list[Place]:
        """Places that write through a connection."""
        calls = self.source.calls.named(*sorted(_SENDS))
        return sorted(call.place for call in calls if call.module.role is Role.APPLICATION and self._writes(call))

    @cached_property
    def committers(self) -> list[Place]:
        """Places outside of dependencies that commit a connection: `commit()`, and blocks of `begin()` that write."""
        owners = {each.function for each in self.source.session_dependencies if each.function is not None}
        found = []
        for call in self.source.calls.named("commit"):
            func = call.node.func
            if isinstance(func, ast.Attribute) and self.is_one(func.value, call.scope):
                found.append(call)
        found += self._blocks()
        return sorted(
            call.place for call in found if call.module.role is Role.APPLICATION and call.scope.function not in owners
        )

    def _blocks(self) -> Iterator[Call]:
        """Yield `engine.begin()` and `connection.begin()` around writes; one that makes tables stores nothing."""
        for call in self.source.calls.named("begin"):
            block = _block(call)
            func = call.node.func
            if block is None or not isinstance(func, ast.Attribute):
                continue
            owner = self.source.types.of(func.value, call.scope)
            engine = isinstance(owner, External) and owner.named("sqlalchemy", "AsyncEngine")
            if not (engine or is_connection(owner)):
                continue
            if any(isinstance(node, ast.Call) and self._changes(node) for node in inside(block.body)):
                yield call

    def _writes(self, call: Call) -> bool:
        func = call.node.func
        return isinstance(func, ast.Attribute) and self._changes(call.node) and self.is_one(func.value, call.scope)

    def _changes(self, call: ast.Call) -> bool:
        """Tell whether a call sends a statement that is written out there, and changes rows."""
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in _SENDS and call.args):
            return False
        for node in ast.walk(call.args[0]):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _CHANGES:
                    return True
                case ast.Constant(value=str() as text) if _SQL.match(text):
                    return True
                case _:
                    pass
        return False


def is_connection(found: object) -> bool:
    """Tell whether a type is SQLAlchemy's asynchronous connection."""
    return isinstance(found, External) and found.named("sqlalchemy", "AsyncConnection")


def _block(call: Call) -> ast.AsyncWith | None:
    around = call.module.parents.get(call.node)
    around = call.module.parents.get(around) if isinstance(around, ast.withitem) else None
    return around if isinstance(around, ast.AsyncWith) else None
