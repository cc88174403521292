"""Who commits: the project's own convention for ending transactions."""

from __future__ import annotations

import ast
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.source.files import Role
from verdigris.evidence.source.modules import Scope
from verdigris.evidence.values import Place

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.web import SessionDependency

_WRITES = ("add", "add_all", "delete", "merge", "flush", "bulk_save_objects", "bulk_insert_mappings")


class Transactions:
    """Commits, rollbacks and writes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def on_sessions(self, *methods: str) -> list[tuple[Place, Scope]]:
        """Return where application code calls these methods of a SQLAlchemy session."""
        found = []
        for call in self.source.calls.named(*methods):
            if call.module.role is not Role.APPLICATION or not isinstance(call.node.func, ast.Attribute):
                continue
            if self.source.types.session(call.node.func.value, call.scope) is not None:
                found.append((call.place, call.scope))
        return found

    @cached_property
    def committers(self) -> list[Place]:
        """Places outside of session dependencies that commit: calls of commit() and blocks of begin()."""
        owners = {id(dependency.function) for dependency in self.source.session_dependencies}
        return sorted(place for place, scope in self.on_sessions("commit", "begin") if id(scope.function) not in owners)

    @cached_property
    def writers(self) -> list[Place]:
        """Places that write through a session."""
        return sorted(place for place, _ in self.on_sessions(*_WRITES))

    def commit_of(self, dependency: SessionDependency) -> Place | None:
        """Return where a dependency commits after its yield, or None if it does not commit."""
        if dependency.function is None:
            promise = guaranteed("verdigris.Database.request_session", "commit")
            return dependency.place if promise is not None else None
        after = dependency.yields[0].lineno if dependency.yields else 0
        for node in dependency.function.nodes():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit" and node.lineno >= after:
                return dependency.function.module.place(node)
            if isinstance(node, (ast.AsyncWith, ast.With)) and any(isinstance(inner, ast.Yield) for inner in ast.walk(node)):
                for item in node.items:
                    if self._begins(item.context_expr):
                        return dependency.function.module.place(item.context_expr)
        return None

    def _begins(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "begin"

    def swallows(self, dependency: SessionDependency) -> Place | None:
        """Return the except clause around a dependency's yield that ends without raising."""
        if dependency.function is None:
            return None
        for node in dependency.function.nodes():
            if not isinstance(node, ast.Try) or not any(isinstance(n, ast.Yield) for s in node.body for n in ast.walk(s)):
                continue
            for handler in node.handlers:
                if not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler)):
                    return dependency.function.module.place(handler)
        return None



