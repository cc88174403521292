"""What is assigned to attributes: of an object by its own class, and of the state that an application keeps."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.modules import Scope


def self_assignments(owner: Scope, name: str) -> list[tuple[ast.expr | None, ast.expr | None, Scope]]:
    """Return value, annotation and method of each `self.name = …` (or `cls.name = …`) in a class."""
    if owner.own is None:
        owner.own = {}
        for method in owner.scopes:
            for node in method.nodes() if method.is_function else ():
                if isinstance(node, ast.Assign):
                    for target in node.targets:
                        _note_own(owner.own, target, (node.value, None, method))
                elif isinstance(node, ast.AnnAssign):
                    _note_own(owner.own, node.target, (node.value, node.annotation, method))
    return owner.own.get(name, [])


def _note_own(
    own: dict[str, list[tuple[ast.expr | None, ast.expr | None, Scope]]],
    target: ast.expr,
    assigned: tuple[ast.expr | None, ast.expr | None, Scope],
) -> None:
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in {"self", "cls"}:
        own.setdefault(target.attr, []).append(assigned)


def is_application(node: ast.expr) -> bool:
    """Tell `app`, `request.app`, `self.app`: whose state outlives a request, as `request.state` does not."""
    return leaf_of(node).lower().endswith(("app", "application"))


def kept_in_states(scope: Scope) -> Iterator[tuple[str, ast.expr]]:
    """Yield name and value of each `app.state.name = …` in a scope."""
    for node in scope.nodes():
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if value is not None else []  # type: ignore[attr-defined]  # an annotated assignment's
        for target in targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute) and value is not None:
                owner = target.value
                if owner.attr == "state" and is_application(owner.value):
                    yield target.attr, value
