"""Routes whose writes nobody commits, in a project where others commit theirs."""

from __future__ import annotations

import ast
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.source.transactions.transactions import writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Route
    from verdigris.evidence.values import Place

_STORES = {"add", "add_all", "bulk_insert_mappings", "bulk_save_objects", "delete", "merge"}
_SENDS = {"execute", "scalar", "scalars"}
#: Whatever is called like this may end a transaction; a rollback says that the writes are not meant to stay.
_ENDS = {"begin", "commit", "rollback", "transaction", "transactional"}
_LEAVES = {"__aexit__", "__exit__"}
_STEPS = 6


@dataclass(frozen=True, slots=True)
class LostWrite(Subject):
    """A route that writes through a session on a way on which nothing can commit; `place` is the write."""

    key: str
    place: Place
    route: Route


class Uncommitted:
    """Lost writes of one tree.

    That a route writes is followed call by call. That nothing commits is asked of all that it may reach: where a call
    is not settled, of every function and class of the tree that bears its name.
    """

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._led: dict[int, tuple[bool, list[Scope]]] = {}

    @cached_property
    def every(self) -> list[LostWrite]:
        """Every route whose writes are lost; none where something that runs around all routes may commit."""
        transactions = self.source.transactions
        if not transactions.committers or self._around_all:
            return []
        found = []
        for route in self.source.web.routes:
            place = self._write(route.function)
            if place is not None and not self._may_end(route.function):
                found.append(LostWrite(route.key, place, route))
        return found

    @cached_property
    def _around_all(self) -> bool:
        """Tell whether a dependency, a middleware or a listener may commit, or an engine commits each statement."""
        if any(self._may_end(function) for function in self.source.containers.provided):
            return True
        for use in self.source.web.depends:
            named = isinstance(use.provider, External) and use.provider.package == "verdigris"
            if named or (isinstance(use.provider, Scope) and self._may_end(use.provider)):
                return True
        for function in self.source.functions:
            leaves = {leaf_within(decorator) for decorator in function.decorators}
            middleware = function.name in {"dispatch", "__call__"} and function.enclosing_class is not None
            if (middleware or leaves & {"middleware", "listens_for"}) and self._may_end(function):
                return True
        return any("AUTOCOMMIT" in text for text in self._texts())

    def _texts(self) -> Iterator[str]:
        for scope in self.source.scopes:
            for node in scope.nodes():
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value

    def _write(self, handler: Scope) -> Place | None:
        """Return the first write through a session on the ways that lead from a handler."""
        queue, seen = deque([(handler, 0)]), {id(handler)}
        while queue:
            function, steps = queue.popleft()
            for node in function.calls:
                if self._is_write(node, function):
                    return function.module.place(node)
                called = self.source.types.callee(node, function)
                follows = isinstance(called, Scope) and called.is_function and called.module.role is Role.APPLICATION
                if isinstance(called, Scope) and follows and id(called) not in seen and steps < _STEPS:
                    seen.add(id(called))
                    queue.append((called, steps + 1))
        return None

    def _is_write(self, node: ast.Call, scope: Scope) -> bool:
        if not isinstance(node.func, ast.Attribute):
            return False
        method = node.func.attr
        stores = method in _STORES or (method in _SENDS and bool(node.args) and writes(node))
        return stores and self.source.types.session(node.func.value, scope) is not None

    def _may_end(self, handler: Scope) -> bool:
        """Tell whether anything that a function may reach may end the transaction."""
        queue, seen = [handler], {id(handler)}
        while queue:
            ends, next_ = self._leads_to(queue.pop())
            if ends:
                return True
            for scope in next_:
                if id(scope) not in seen:
                    seen.add(id(scope))
                    queue.append(scope)
        return False

    def _leads_to(self, scope: Scope) -> tuple[bool, list[Scope]]:
        """Tell whether a scope ends a transaction itself, and what it may run: by name where that is not settled."""
        if id(scope) not in self._led:
            ends, next_ = False, list(scope.scopes)
            for node in scope.nodes():
                if isinstance(node, (ast.AsyncWith, ast.With)):
                    next_ += [leaving for name in _LEAVES for leaving in self._by_name[name]]
                elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                    ends = ends or leaf_within(node) in _ENDS
                    next_ += self._meant(node, scope)
            self._led[id(scope)] = ends or any(leaf_within(each) in _ENDS for each in scope.decorators), next_
        return self._led[id(scope)]

    def _meant(self, node: ast.Name | ast.Attribute, scope: Scope) -> list[Scope]:
        """Return what a name may run in the tree: called, handed over, or read as a property."""
        named = self._by_name.get(leaf_within(node), [])
        if not named:
            return []
        call = scope.module.parents.get(node)
        if isinstance(call, ast.Call) and call.func is node:
            if isinstance(node, ast.Attribute) and self.source.types.session(node.value, scope) is not None:
                return []
            found = self.source.types.callee(call, scope)
        else:
            found = self.source.names.resolve(node, scope)
        if isinstance(found, Scope):
            return [found, *(inner for inner in found.scopes if found.is_class)]
        return [] if isinstance(found, External) else named

    @cached_property
    def _by_name(self) -> defaultdict[str, list[Scope]]:
        found: defaultdict[str, list[Scope]] = defaultdict(list)
        for scope in self.source.scopes:
            if scope.is_function or scope.is_class:
                found[scope.name].append(scope)
        return found
