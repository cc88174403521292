"""Methods of an async session that are called and not awaited: they do nothing."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.files import Role

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

_AWAITABLE = {
    "commit",
    "rollback",
    "flush",
    "execute",
    "scalar",
    "scalars",
    "refresh",
    "delete",
    "merge",
    "close",
    "get",
}


@dataclass(frozen=True, slots=True)
class Unawaited(Subject):
    """An async session's method that is called and not awaited."""

    key: str
    place: Place
    method: str
    session: str


def unawaited(source: Source) -> list[Unawaited]:
    """Return every such call of application code, in the order of their places."""
    found = []
    for call in source.calls.named(*sorted(_AWAITABLE)):
        func, scope = call.node.func, call.scope
        if call.module.role is not Role.APPLICATION or isinstance(scope.node, ast.Lambda):
            continue
        if not isinstance(func, ast.Attribute) or not isinstance(call.module.parents.get(call.node), ast.Expr):
            continue
        if scope.is_async and source.types.session(func.value, scope) == "async":
            found.append(Unawaited(f"{scope.key}:{func.attr}", call.place, func.attr, ast.unparse(func.value)))
    return sorted(found, key=lambda each: each.place)
