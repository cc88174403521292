"""Objects that hold a session: repositories, services and units of work, by the classes that the tree defines."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import CACHES
from verdigris.evidence.source.reading.attributes import self_assignments
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned
from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Binding
    from verdigris.evidence.values import Place

DEPTH = 3


class Holders:
    """Holders of sessions of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._known: dict[tuple[Scope, int], str | None] = {}  # by how deep it was asked: else who asks first decides

    def attribute(self, owner: Scope, depth: int = 0) -> str | None:
        """Return the attribute by which instances of a class hold an async session: `session`, `uow.session`."""
        asked = owner, depth
        if asked not in self._known:
            self._known[asked] = self._attribute(owner, depth)
        return self._known[asked]

    def _attribute(self, owner: Scope, depth: int) -> str | None:
        names: dict[str, None] = {}
        for base in self.source.names.lineage(owner):
            if isinstance(base, Scope):
                self_assignments(base, "")
                names.update(dict.fromkeys(base.own or {}))
                names.update(dict.fromkeys(name for name, found in base.bindings.items() if _is_field(found)))
        held = {name: found for name in names if (found := self.source.types.attribute(owner, name)) is not None}
        for name, found in held.items():
            if self.source.types.session_type(found) == "async":
                return name
        for name, found in held.items():
            inner = self.attribute(found, depth + 1) if isinstance(found, Scope) and depth < DEPTH else None
            if inner is not None:
                return f"{name}.{inner}"
        return None

    def lent(self, node: ast.expr, scope: Scope, depth: int = 0) -> str | None:
        """Name the session that an expression is, or that the object it gives was lent; None if it opens its own."""
        if depth > DEPTH or isinstance(node, ast.Starred):
            return None
        if isinstance(node, ast.Call):
            return self._handed_in(node, scope, depth)
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return None
        meaning = self.source.names.resolve(node, scope)
        made = [b.value for b in meaning.bindings if b.kind == "value"] if isinstance(meaning, Assigned) else []
        if isinstance(meaning, Assigned) and meaning.scope.is_function and made:
            named = (self.lent(value, meaning.scope, depth + 1) for value in made if isinstance(value, ast.Call))
            found = next((name for name in named if name is not None), None)
            if found is not None:
                return found
        if self.source.types.session(node, scope) == "async":
            return meaning.name if isinstance(meaning, Assigned) else ast.unparse(node)
        if made:
            return None  # whatever it was made with, no session was seen to go in
        owner = self.source.types.of(node, scope)
        held = self.attribute(owner) if isinstance(owner, Scope) else None
        if held is None or (isinstance(owner, Scope) and self._makes_its_own(owner, held)):
            return None
        return f"{ast.unparse(node)}.{held}"

    def _makes_its_own(self, owner: Scope, held: str) -> bool:
        return any(
            isinstance(value, ast.Call)
            for base in self.source.names.lineage(owner)
            if isinstance(base, Scope)
            for value, _, _ in self_assignments(base, held)
        )

    def _handed_in(self, call: ast.Call, scope: Scope, depth: int) -> str | None:
        """Name the session that goes into the making of a holder."""
        made = self.source.types.callee(call, scope)
        if not (isinstance(made, Scope) and made.is_class and self.attribute(made) is not None):
            return None
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        return next((name for each in given if (name := self.lent(each, scope, depth + 1)) is not None), None)

    def method(self, node: ast.expr, scope: Scope) -> str | None:
        """Name the session that a bound method works with: `repo.save`, of an object that was lent one."""
        if not isinstance(node, ast.Attribute):
            return None
        function = self.source.types.reach(node, scope)
        if not (isinstance(function, Scope) and function.is_function and function.enclosing_class is not None):
            return None
        return self.lent(node.value, scope) if self.uses(function) else None

    def uses(self, function: Scope, depth: int = 0) -> bool:
        """Tell whether a method works with the session that its object holds, itself or through other methods of it."""
        if depth > DEPTH or self.source.openings.any_in(function):
            return False
        for node in function.nodes():
            if not (isinstance(node, ast.Attribute) and _is_own(node.value)):
                continue
            if self.source.types.session(node, function) == "async":
                return True
            called = self.source.types.reach(node, function)
            other = isinstance(called, Scope) and called.is_function and called is not function
            if isinstance(called, Scope) and other and self.uses(called, depth + 1):
                return True
            owner = self.source.types.of(node, function)
            if isinstance(owner, Scope) and self.attribute(owner) is not None:
                return True
        return False

    def kept(self) -> Iterator[tuple[str, Place]]:
        """Yield the sessions that live as long as the program in something else: an object, the state, a cache."""
        for scope in self.source.scopes:
            if scope.parent is None:
                yield from self._in_objects(scope)
            for node in scope.nodes():
                if not isinstance(node, ast.Assign):
                    continue
                for target in node.targets:
                    if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute)):
                        continue  # asked first: what a value is costs more than where it goes
                    stated = ast.unparse(target.value).endswith("app.state")
                    if stated and self.source.types.session(node.value, scope) == "async":
                        yield ast.unparse(target), scope.module.place(node)
        for function in self.source.functions:
            cached = any(leaf_of(decorator, ast.Call) in CACHES for decorator in function.decorators)
            produced = self.source.types.produced(function) if cached and not function.is_async else None
            if produced is not None and self.source.types.session_type(produced) == "async":
                yield f"{function.name}()", function.place

    def _in_objects(self, module: Scope) -> Iterator[tuple[str, Place]]:
        if module.module.role is not Role.APPLICATION:
            return
        for name, bindings in module.bindings.items():
            for binding in bindings:
                if binding.kind != "value" or not isinstance(binding.value, ast.Call):
                    continue
                made = self.source.types.callee(binding.value, module)
                held = self.attribute(made) if isinstance(made, Scope) and made.is_class else None
                given = [*binding.value.args, *(keyword.value for keyword in binding.value.keywords)]
                if held is not None and any(self.source.types.session(each, module) == "async" for each in given):
                    yield f"{name}.{held}", module.module.place(binding.node)


def _is_field(bindings: list[Binding]) -> bool:
    return any(binding.annotation is not None for binding in bindings)


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}
