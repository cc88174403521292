"""What a name would mean where an edit would write it, by the imports of its module alone."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.modules import Binding, Scope


class Importable(NamedTuple):
    """How something is written in a place, and what has to be imported for it, as `module:name`."""

    name: str
    imports: tuple[str, ...] = ()


def importable(scope: Scope, module: str, name: str) -> Importable | None:
    """Return how to write a name of a module in a scope; None where that name means something else there."""
    found = scope.lookup(name)
    if found is not None:
        where, bindings = found
        if all(_at_head(each, where) and each.origin == (module, name) for each in bindings):
            return Importable(name)
    seen = list(_imported(scope))
    for alias, origin in seen:
        if origin == (module, name):
            return Importable(alias)
    free = not any(name in inner.bindings for inner in scope.module.scope.walk())
    if free and any(origin[0] == module and origin[1] is not None for _, origin in seen):
        return Importable(name, (f"{module}:{name}",))
    for alias, origin in seen:
        if origin in {(module, None), _split(module)}:
            return Importable(f"{alias}.{name}")
    return Importable(name, (f"{module}:{name}",)) if free else None


def _imported(scope: Scope) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield the names that the module imports and that mean in a scope what they mean there, with their origins."""
    outer = scope.module.scope
    for alias, bindings in outer.bindings.items():
        seen = scope.lookup(alias)
        origins = {each.origin for each in bindings if _at_head(each, outer)}
        if len(origins) == 1 and len(bindings) == 1 and seen is not None and seen[0] is outer:
            yield from ((alias, origin) for origin in origins if origin is not None)


def _split(module: str) -> tuple[str, str | None]:
    """Return a module as `from package import module` names it."""
    package, _, leaf = module.rpartition(".")
    return package, leaf


def _at_head(binding: Binding, where: Scope) -> bool:
    """Tell whether a name is imported by a statement of the module itself: under no condition, for no type checker."""
    return isinstance(where.node, ast.Module) and binding.kind == "import" and binding.node in where.node.body


def is_external(node: ast.expr, scope: Scope, package: str) -> bool:
    """Tell whether a dotted name begins with what is imported from a package."""
    while isinstance(node, ast.Attribute):
        node = node.value
    found = scope.lookup(node.id) if isinstance(node, ast.Name) else None
    return found is not None and all(
        each.origin is not None and each.origin[0].partition(".")[0] == package for each in found[1]
    )
