"""What a container of dependencies calls: dishka's providers, whose generators end with the scope of the request."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source

_WEB = ("dishka.integrations.fastapi", "dishka.integrations.starlette")


def provided(source: Source) -> Iterator[Scope]:
    """Yield the functions that dishka calls for requests: `@provide`, `provide(it)`, `provider.provide(it)`."""
    if not _answers_requests(source):
        return
    for function in source.functions:
        around = function.parent or function.module.scope
        for decorator in function.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if _is_provide(source.types.reach(named, around)):
                yield function
    for call in source.calls.named("provide"):
        given = call.node.args[0] if call.node.args else keyword(call.node, "source")
        target = source.types.reach(given, call.scope) if given is not None else None
        provides = call.module.role is Role.APPLICATION and _is_provide(source.calls.reaches(call))
        if provides and isinstance(target, Scope) and target.is_function:
            yield target


def _is_provide(meaning: object) -> bool:
    return isinstance(meaning, External) and meaning.named("dishka", "provide")


def _answers_requests(source: Source) -> bool:
    """Tell whether requests have scopes of the container, and not only messages of a bot or a queue."""
    origins = (
        each.origin[0] for scope in source.scopes for bound in scope.bindings.values() for each in bound if each.origin
    )
    return any(origin.startswith(_WEB) for origin in origins)
