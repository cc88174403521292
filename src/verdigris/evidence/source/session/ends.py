"""Which calls end a session's transaction: functions of the tree that commit the session they are given."""

from __future__ import annotations

import ast
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import Argument, Frame
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.session.loads import Holding, Loads
    from verdigris.evidence.source.session.origins import Flags

DEPTH = 3


class Ends:
    """Commits that happen inside the functions of one tree."""

    def __init__(self, source: Source, loads: Loads) -> None:
        """Read them from an index."""
        self.source = source
        self.loads = loads

    @cached_property
    def committing(self) -> frozenset[str]:
        """The names of functions that end a transaction, and of those that call them."""
        names = {
            call.scope.function.name
            for call in self.source.calls.named("commit", "rollback")
            if call.scope.function is not None and isinstance(call.node.func, ast.Attribute)
        }
        for _ in range(DEPTH - 1):
            callers = {
                call.scope.function.name for call in self.source.calls.named(*names) if call.scope.function is not None
            }
            names |= callers
        return frozenset(names - {"<lambda>"})

    def of(
        self, call: ast.Call, scope: Scope, sessions: Mapping[str, Flags], held: Mapping[str, Holding]
    ) -> Iterator[str]:
        """Yield the sessions whose transaction a call of a function of the tree commits."""
        func = call.func
        leaf = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
        if leaf not in self.committing:
            return
        target = self.loads.target(call, scope, held)
        if target is None:
            return
        frame = self.source.evaluator.frame(call, scope, target)
        carriers = {
            name: given.node.id
            for name, given in frame.arguments.items()
            if isinstance(given.node, ast.Name) and given.node.id in sessions
        }
        carriers |= self._of_instance(func, target, scope, sessions)
        for session in sorted(set(carriers.values())):
            names = {name for name, passed in carriers.items() if passed == session}
            if self._commits(target, names, frame):
                yield session

    def _of_instance(
        self, func: ast.expr, target: Scope, scope: Scope, sessions: Mapping[str, Flags]
    ) -> dict[str, str]:
        """Name `self.session` of an object that was made with a session: `Service(session).delete(x)`."""
        owner = target.enclosing_class
        if not isinstance(func, ast.Attribute) or owner is None:
            return {}
        made: ast.expr | None = func.value
        if isinstance(made, ast.Name):
            meaning = self.source.names.resolve(made, scope)
            made = meaning.value if isinstance(meaning, Assigned) else None
        if not isinstance(made, ast.Call):
            return {}
        init = self.source.names.class_attribute(owner, "__init__")
        if not isinstance(init, Scope):
            return {}
        given = self.source.evaluator.frame(made, scope, init).arguments
        passed = {
            name: each.node.id
            for name, each in given.items()
            if isinstance(each.node, ast.Name) and each.node.id in sessions
        }
        found: dict[str, str] = {}
        for node in init.nodes():
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in passed:
                for each in node.targets:
                    found[ast.unparse(each)] = passed[node.value.id]
        return found

    def _commits(self, function: Scope, carriers: set[str], frame: Frame, depth: int = 0) -> bool:
        """Tell whether a function commits one of these sessions on every way that its arguments leave open."""
        if depth > DEPTH:
            return False
        for call in function.calls:
            if not isinstance(call.func, ast.Attribute | ast.Name):
                continue
            leaf = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
            commits = (
                leaf == "commit" and isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in carriers
            )
            if not commits and (leaf == "commit" or leaf not in self.committing):
                continue
            if self._is_off(call, function, frame):  # asked last, for it judges every condition around the call
                continue
            if commits:
                return True
            target = self.source.types.callee(call, function)
            if not (isinstance(target, Scope) and target.is_function) or target is function:
                continue
            inner = self.source.evaluator.frame(call, function, target, frame)
            names = {name for name, given in inner.arguments.items() if ast.unparse(given.node) in carriers}
            own = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "self"
            names |= {name for name in carriers if own and name.startswith("self.")}
            if names and self._commits(target, names, inner, depth + 1):
                return True
        return False

    def _is_off(self, call: ast.Call, function: Scope, frame: Frame) -> bool:
        """Tell whether a commit stands under a condition that the arguments do not meet, or that nothing settles."""
        inner: ast.AST = call
        for ancestor in function.module.ancestors(call):
            if self._left_before(inner, ancestor, function, frame):
                return True
            if ancestor is function.node:
                return False
            if isinstance(ancestor, ast.If):
                truth = self.source.evaluator.truth(Argument(ancestor.test, function, frame))
                taken = truth if inner in ancestor.body else None if truth is None else not truth
                if taken is not True:
                    return True
            if isinstance(ancestor, ast.ExceptHandler):
                return True
            inner = ancestor
        return False

    def _left_before(self, inner: ast.AST, ancestor: ast.AST, function: Scope, frame: Frame) -> bool:
        """Tell whether the function may have returned before this statement of a block is reached."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(ancestor, name, None)
            if not isinstance(block, list) or inner not in block:
                continue
            for earlier in block[: block.index(inner)]:
                if not (isinstance(earlier, ast.If) and isinstance(earlier.body[-1], ast.Return)):
                    continue
                if self.source.evaluator.truth(Argument(earlier.test, function, frame)) is not False:
                    return True
        return False

    def refreshes(self, call: ast.Call, scope: Scope, held: Mapping[str, Holding]) -> set[str]:
        """Return the names whose objects a call of a function of the tree refreshes: its arguments and its receiver."""
        target = self.loads.target(call, scope, held)
        if target is None:
            return set()
        frame = self.source.evaluator.frame(call, scope, target)
        given = {name: each.node.id for name, each in frame.arguments.items() if isinstance(each.node, ast.Name)}
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            given["self"] = call.func.value.id
        return {name for parameter, name in given.items() if name in held and self._refreshed(target, parameter)}

    def _refreshed(self, function: Scope, name: str, depth: int = 0) -> bool:
        if depth > DEPTH:
            return True
        for call in function.calls:
            func = call.func
            passed = [arg.id for arg in call.args if isinstance(arg, ast.Name)]
            if isinstance(func, ast.Attribute) and func.attr == "refresh" and name in passed:
                return True
            own = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == name
            if not own and name not in passed:
                continue
            target = self.source.types.callee(call, function)
            if isinstance(target, Scope) and target.is_function and target is not function:
                frame = self.source.evaluator.frame(call, function, target)
                inner = {
                    each
                    for each, given in frame.arguments.items()
                    if isinstance(given.node, ast.Name) and given.node.id == name
                }
                if any(self._refreshed(target, each, depth + 1) for each in (inner | {"self"} if own else inner)):
                    return True
        return False
