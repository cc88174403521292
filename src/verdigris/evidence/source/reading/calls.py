"""Calls of a tree: who calls what, and through which wrappers."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.names import External, Meaning, Names
from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.evaluate import Evaluator, Frame
    from verdigris.evidence.source.reading.modules import Module, Scope
    from verdigris.evidence.source.reading.types import Types
    from verdigris.evidence.values import Place

WRAPPERS = 3  # a wrapper of a wrapper of a wrapper is followed, no further
SITES = 40  # a factory called at more places than this is judged by itself


@dataclass(frozen=True, slots=True)
class Call:
    """A call with the scope it stands in."""

    node: ast.Call
    scope: Scope

    @property
    def module(self) -> Module:
        """The module it stands in."""
        return self.scope.module

    @property
    def place(self) -> Place:
        """Its span."""
        return self.scope.module.place(self.node)


class Calls:
    """An index of every call by the last name in it."""

    def __init__(self, names: Names, types: Types, evaluator: Evaluator) -> None:
        """Index the calls of all modules; what they reach is resolved when asked."""
        self.names = names
        self.types = types
        self.evaluator = evaluator
        self._by_leaf: dict[str, list[Call]] = defaultdict(list)
        self._aliases: dict[str, set[str]] = defaultdict(set)
        for module in names.modules:
            for scope in module.scope.walk():
                for node in scope.calls:
                    self._by_leaf[leaf_of(node.func, ast.Subscript)].append(Call(node, scope))
                for name, bindings in scope.bindings.items():
                    for binding in bindings:
                        if binding.origin is not None and binding.origin[1] not in {None, name}:
                            self._aliases[str(binding.origin[1])].add(name)
                        elif binding.kind == "value" and isinstance(binding.value, (ast.Name, ast.Attribute)):
                            self._aliases[leaf_of(binding.value, ast.Subscript)].add(name)

    def named(self, *leaves: str) -> Iterator[Call]:
        """Yield the calls whose last name is one of these or an alias of one."""
        seen: set[str] = set()
        for leaf in leaves:
            for name in (leaf, *sorted(self._aliases.get(leaf, ()))):
                if name not in seen:
                    seen.add(name)
                    yield from self._by_leaf.get(name, ())

    def every(self) -> Iterator[Call]:
        """Yield all calls of the tree."""
        for calls in self._by_leaf.values():
            yield from calls

    def with_keyword(self, *names: str) -> Iterator[Call]:
        """Yield the calls that give one of these keyword arguments."""
        return (call for call in self.every() if any(given.arg in names for given in call.node.keywords))

    def outside(self, packages: set[str], *leaves: str) -> Iterator[tuple[Call, External]]:
        """Yield the calls that reach one of these names of one of these packages."""
        for call in self.named(*leaves):
            meaning = self.names.resolve(call.node.func, call.scope)
            if isinstance(meaning, External) and meaning.package in packages and meaning.leaf in leaves:
                yield call, meaning

    def to(self, function: Scope) -> list[Call]:
        """Return the calls in the tree that reach a function or class."""
        name = function.name
        if name == "__init__" and function.enclosing_class is not None:
            return self.to(function.enclosing_class)
        return [call for call in self.named(name) if self.reaches(call) is function]

    def reaches(self, call: Call) -> Meaning | None:
        """Tell what a call reaches."""
        return self.types.callee(call.node, call.scope)

    def frames(self, function: Scope, depth: int = 0) -> list[Frame]:
        """Return one frame for each outermost call of a wrapper; none if nothing in the tree calls it."""
        found: list[Frame] = []
        if depth >= WRAPPERS:
            return found
        for call in self.to(function):
            around = call.scope.function
            outer: list[Frame | None] = [None]
            if around is not None and around is not function and self._passes(call, around):
                outer = [*self.frames(around, depth + 1)] or outer
            found += [self.evaluator.frame(call.node, call.scope, function, frame) for frame in outer]
        return found if len(found) <= SITES else []

    def _passes(self, call: Call, function: Scope) -> bool:
        return depends_on_parameters(call.node, function)


def depends_on_parameters(call: ast.Call, function: Scope) -> bool:
    """Tell whether a call's arguments use parameters of the function it stands in (other than `self`)."""
    arguments = getattr(function.node, "args", None)
    own = {parameter.arg for parameter in function.parameters} - {"self", "cls"}
    if isinstance(arguments, ast.arguments) and arguments.kwarg is not None:
        own.add(arguments.kwarg.arg)
    used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name) and node is not call.func}
    made_here = {name for name in used - own if any(each.kind == "value" for each in function.bindings.get(name, ()))}
    if made_here:  # a local dictionary or URL may be made of parameters
        used |= {node.id for node in function.nodes() if isinstance(node, ast.Name)}
    return bool(used & own)


def assigned_to(call: Call) -> str | None:
    """Return the name a call's result is assigned to in its own statement; in a dictionary, with its key there."""
    inner: ast.AST = call.node
    item = ""
    for ancestor in call.module.ancestors(call.node):
        if isinstance(ancestor, ast.Dict) and inner in ancestor.values:
            key = ancestor.keys[ancestor.values.index(inner)]
            item = f"[{ast.unparse(key)}]" if key is not None else ""
        inner = ancestor
        if isinstance(ancestor, (ast.With, ast.AsyncWith)):
            return _entered(ancestor, call.node)
        if isinstance(ancestor, ast.Assign) and len(ancestor.targets) == 1:
            return ast.unparse(ancestor.targets[0]) + item
        if isinstance(ancestor, ast.AnnAssign):
            return ast.unparse(ancestor.target) + item
        if isinstance(ancestor, ast.stmt):
            return None
    return None


def _entered(statement: ast.With | ast.AsyncWith, call: ast.Call) -> str | None:
    names = (item.optional_vars for item in statement.items if item.context_expr is call)
    return next((ast.unparse(name) for name in names if name is not None), None)
