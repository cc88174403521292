"""Where sessions begin: the blocks of a function that open one of their own."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Scope


class Openings:
    """Openings of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def any_in(self, function: Scope) -> bool:
        """Tell whether a function opens a session of its own."""
        return next(self.of(function), None) is not None

    def of(self, function: Scope) -> Iterator[ast.AsyncWith]:
        """Yield the blocks of a function that open a session of their own."""
        for node in function.nodes():
            if isinstance(node, ast.AsyncWith) and any(self.makes(item.context_expr, function) for item in node.items):
                yield node

    def makes(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether entering this makes a new session, as opposed to beginning a transaction on one."""
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute) and self.source.types.session(node.func.value, scope) is not None:
            return False
        found = self.source.types.entered(node, scope)
        return found is not None and self.source.types.session_type(found) == "async"
