"""An interpreter of functions over abstract values: statements, branches, loops, calls."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.annotations import Annotations
from verdigris.evidence.source.flow.assignments import Assignments, any_of
from verdigris.evidence.source.flow.attributes import Attributes
from verdigris.evidence.source.flow.expressions import Expressions
from verdigris.evidence.source.flow.frames import Frame
from verdigris.evidence.source.flow.globals import Globals
from verdigris.evidence.source.flow.heap import Heap
from verdigris.evidence.source.flow.injection import Injection
from verdigris.evidence.source.flow.library import Library
from verdigris.evidence.source.flow.trail import DEPTH, Trail
from verdigris.evidence.source.flow.values import (
    Func,
    Many,
    Opaque,
    Plain,
    Value,
    either,
    element,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.flow.reads import Reads
    from verdigris.evidence.source.reading.modules import Scope

STEPS = 30_000  # expressions of one root
_GUARD_ERRORS = {"MissingGreenlet", "DetachedInstanceError", "InvalidRequestError", "StatementError", "SQLAlchemyError"}


class TooLargeError(Exception):
    """A root needs more steps than a check may take."""


class Machine:
    """Runs one root function; what it reads of objects goes to `reads`."""

    def __init__(self, source: Source, reads: Reads) -> None:
        """Begin with nothing loaded."""
        self.source = source
        self.reads = reads
        self.trail = Trail()
        self.heap = Heap(source.relations, self.trail, hooked=reads.hooked)
        self.annotations = Annotations(self)
        self.globals = Globals(self)
        self.expressions = Expressions(self)
        self.attributes = Attributes(self)
        self.assignments = Assignments(self)
        self.injection = Injection(self)
        self.library = Library(self)
        self.stack: list[Scope] = []
        self.steps = 0
        self.greenlet = 0  # inside run_sync: lazy loads work
        self.visited: set[Scope] = set()
        self.flushes = 0
        self.last = 0  # the number of the newest object

    def cell(self) -> int:
        """Return the number of a new object."""
        self.last += 1
        return self.last

    def count(self, steps: int = 1) -> None:
        """Take a step; give up when there were too many."""
        self.steps += steps
        if self.steps > STEPS:
            raise TooLargeError

    # -- calls ------------------------------------------------------------------------------------

    def root(self, function: Func) -> Value:
        """Run a function that FastAPI, or nobody in the tree, calls."""
        return self.call(function, [], {})

    def call(
        self, function: Func, arguments: list[Value], keywords: dict[str, Value], *, opened: bool = False
    ) -> Value:
        """Run a function of the tree and return what it returns (a generator: what it yields)."""
        scope = function.scope
        self.trail.enter(scope, len(self.stack))
        if len(self.stack) >= DEPTH or self.stack.count(scope) > 1:
            self.trail.beyond += 1
            return self.annotations.returned(scope, f"{scope.name}() calls itself", function.bound)
        names = self._bound(function, arguments, keywords, opened=opened)
        memory = self.reads.memory
        key = memory.key(scope, names, function.closure, greenlet=self.greenlet > 0)
        if key is None:
            if function.closure is not None or self.reads.collecting:
                return self._run(function, names)
            return self.reads.summaries.call(self, scope, names, lambda: self._run(function, names))
        if key not in memory.outcomes:
            if self.stack and not memory.matters(scope):
                return self.annotations.returned(scope, f"{scope.name}() neither queries nor reads", function.bound)
            before, flushes = self.heap.copy(), self.flushes
            value = self._run(function, names)
            memory.keep(key, value, before, self.heap, flushed=self.flushes > flushes)
            self.trail.beyond += 1  # recalled, it takes fewer steps and makes fewer objects
            return value
        outcome = memory.outcomes[key]
        value, self.last = memory.recall(outcome, self.heap, self.last)
        if outcome.flushed:
            self.flush()
        return value

    def flush(self) -> None:
        """Note a flush: what was pending has rows now."""
        self.flushes += 1
        self.heap.persist()

    def _run(self, function: Func, names: dict[str, Value]) -> Value:
        scope = function.scope
        frame = Frame(scope, names, outer=function.closure)
        frame.guarded = int(self.reads.memory.guarded(scope))
        self.stack.append(scope)
        self.visited.add(scope)
        try:
            if isinstance(scope.node, ast.Lambda):
                return self.expressions.value(scope.node.body, frame)
            falls = self.block(scope.node.body, frame)
        finally:
            self.stack.pop()
        if frame.exits:
            self.heap = frame.exits[0].join(frame.exits[1:] + ([self.heap] if falls else []))
        return self._returned(frame, scope, function.bound)

    def _returned(self, frame: Frame, scope: Scope, bound: Value | None) -> Value:
        if frame.yields:
            return Many(either(frame.yields))
        if scope.name == "__init__" and "self" in frame.names:
            return frame.names["self"]
        found = either(frame.returns) if frame.returns else Plain()
        if isinstance(found, Opaque) or (not frame.returns and _is_stub(scope)):
            return self.annotations.returned(scope, f"what {scope.name}() gives is not settled", bound)
        return found

    def _bound(
        self, function: Func, arguments: list[Value], keywords: dict[str, Value], *, opened: bool
    ) -> dict[str, Value]:
        """Match arguments to parameters; what is left out has its default, or what FastAPI injects."""
        scope = function.scope
        spec = scope.node.args  # type: ignore[union-attr]  # functions only
        positional = [arg.arg for arg in [*spec.posonlyargs, *spec.args]]
        given = list(arguments)
        names: dict[str, Value] = {}
        if function.bound is not None and positional:
            given.insert(0, function.bound)
        names.update(zip(positional, given, strict=False))
        if spec.vararg is not None:
            rest = given[len(positional) :]
            names[spec.vararg.arg] = Many(either(rest), tuple(rest)) if rest else Many(Plain(), ())
        known = {arg.arg for arg in scope.parameters}
        extra = {name: value for name, value in keywords.items() if name not in known}
        names.update({name: value for name, value in keywords.items() if name in known})
        if spec.kwarg is not None:
            names[spec.kwarg.arg] = self.expressions.record(extra, opened=opened)
        for parameter in scope.parameters:
            if parameter.arg not in names:
                names[parameter.arg] = self.injection.parameter(scope, parameter, passed=not opened)
        return names

    # -- statements -------------------------------------------------------------------------------

    def block(self, statements: list[ast.stmt], frame: Frame) -> bool:
        """Run statements; tell whether control can reach their end."""
        return all(self.step(statement, frame) for statement in statements)

    def step(self, node: ast.stmt, frame: Frame) -> bool:
        """Run one statement."""
        value = self.expressions.value
        match node:
            case ast.Expr(value=inner):
                value(inner, frame)
            case ast.Assign(targets=targets, value=inner):
                made = value(inner, frame)
                for target in targets:
                    self.assignments.to(target, made, frame)
            case ast.AnnAssign(target=target, value=inner) if inner is not None:
                self.assignments.to(target, self._declared(value(inner, frame), node, frame), frame)
            case ast.AugAssign(target=target, value=inner):
                self.assignments.augmented(target, value(inner, frame), frame)
            case ast.Return(value=inner):
                frame.returns.append(value(inner, frame) if inner is not None else Plain())
                frame.exits.append(self.heap.copy())
                return False
            case ast.If(test=test, body=body, orelse=orelse):
                return self._if(test, body, orelse, frame)
            case ast.For(target=target, iter=iterable) | ast.AsyncFor(target=target, iter=iterable):
                self._loop(node, element(value(iterable, frame)), target, frame)
            case ast.While(test=test):
                value(test, frame)
                self._loop(node, None, None, frame)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    entered = self.expressions.entered(item.context_expr, frame)
                    if item.optional_vars is not None:
                        self.assignments.to(item.optional_vars, entered, frame)
                return self.block(body, frame)
            case ast.Try():
                return self._try(node, frame)
            case ast.Match(subject=subject, cases=cases):
                return self._match(value(subject, frame), cases, frame)
            case ast.Raise(exc=exc):
                if exc is not None:
                    value(exc, frame)
                return False
            case ast.Continue() | ast.Break():
                frame.jumps.append((dict(frame.names), self.heap.copy()))
                return False
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                frame.names[name] = Func(frame.scope.module.scope_of[node], None, frame.closure)
            case ast.Assert(test=test):
                value(test, frame)
            case _:
                pass
        return True

    def _declared(self, made: Value, node: ast.AnnAssign, frame: Frame) -> Value:
        """`x: Order = unknown()`: the annotation says more than the value."""
        if not isinstance(made, Opaque):
            return made
        said = self.annotations.value(node.annotation, frame.scope, made.reason)
        return made if isinstance(said, Plain) else said

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], frame: Frame) -> bool:
        decided = self.expressions.truth(self.expressions.value(test, frame), test, frame)
        if decided is not None:
            return self.block(body if decided else orelse, frame)
        return self._ways([lambda: self.block(body, frame), lambda: self.block(orelse, frame)], frame)

    def _ways(self, ways: list[Callable[[], bool]], frame: Frame) -> bool:
        """Run alternatives from the same state and join those that reach their end."""
        names, heap = dict(frame.names), self.heap
        ends: list[tuple[dict[str, Value], Heap]] = []
        frame.conditions += 1
        for way in ways:
            frame.names, self.heap = dict(names), heap.copy()
            if way():
                ends.append((frame.names, self.heap))
        frame.conditions -= 1
        if not ends:
            return False
        self._resume(ends, frame)
        return True

    def _resume(self, states: list[tuple[dict[str, Value], Heap]], frame: Frame) -> None:
        frame.names = _joined([names for names, _ in states])
        self.heap = states[0][1].join([heap for _, heap in states[1:]]) if len(states) > 1 else states[0][1]

    def _loop(
        self, node: ast.For | ast.AsyncFor | ast.While, each: Value | None, target: ast.expr | None, frame: Frame
    ) -> None:
        """Run a loop's body once, then join with not having run it."""
        before = (dict(frame.names), self.heap.copy())
        jumps, frame.jumps = frame.jumps, []
        if each is not None and target is not None:
            self.assignments.to(target, each, frame)
        states = [before]
        frame.conditions += 1
        if self.block(node.body, frame):
            states.append((frame.names, self.heap))
        frame.conditions -= 1
        self._resume([*states[1:], *frame.jumps, before], frame)
        frame.jumps = jumps
        self.block(node.orelse, frame)

    def _try(self, node: ast.Try, frame: Frame) -> bool:
        before = (dict(frame.names), self.heap.copy())
        guards = any(_names_of(handler.type) & _GUARD_ERRORS for handler in node.handlers)
        frame.guarded += guards
        falls = self.block(node.body, frame) and self.block(node.orelse, frame)
        frame.guarded -= guards
        after = (frame.names, self.heap)
        ends = [after] if falls else []
        for handler in node.handlers:
            self._resume([(dict(names), heap.copy()) for names, heap in (before, after)], frame)
            frame.conditions += 1
            if handler.name:
                frame.names[handler.name] = Plain()
            if self.block(handler.body, frame):
                ends.append((frame.names, self.heap))
            frame.conditions -= 1
        if ends:
            self._resume(ends, frame)
        reached = self.block(node.finalbody, frame)
        return bool(ends) and reached

    def _match(self, subject: Value, cases: list[ast.match_case], frame: Frame) -> bool:
        def way(case: ast.match_case) -> Callable[[], bool]:
            def run() -> bool:
                for inner in ast.walk(case.pattern):
                    if isinstance(inner, (ast.MatchAs, ast.MatchStar)) and inner.name:
                        frame.names[inner.name] = (
                            subject if inner is case.pattern or len(cases) == 1 else any_of(subject)
                        )
                if case.guard is not None:
                    self.expressions.value(case.guard, frame)
                return self.block(case.body, frame)

            return run

        total = any(
            isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
            for case in cases
        )
        return self._ways([way(case) for case in cases] + ([] if total else [lambda: True]), frame)


def _joined(ways: list[dict[str, Value]]) -> dict[str, Value]:
    """Join the variables of several ways; most are the same in all, for they stand from before the ways parted."""
    if len(ways) == 1:
        return ways[0]
    joined = dict(ways[0])
    changed: dict[str, None] = {}
    for names in ways[1:]:
        for name, value in names.items():
            if name not in joined:
                joined[name] = value
                changed[name] = None
            elif joined[name] is not value:
                changed[name] = None
    for name in changed:
        joined[name] = either([names[name] for names in ways if name in names])
    return joined


def _names_of(node: ast.expr | None) -> set[str]:
    if node is None:
        return set()
    return {getattr(inner, "attr", getattr(inner, "id", "")) for inner in ast.walk(node)}


def _is_stub(scope: Scope) -> bool:
    """Tell whether a function has no body of its own: a protocol's, an abstract one."""
    body = [] if isinstance(scope.node, (ast.Lambda, ast.Module)) else scope.node.body
    return all(
        isinstance(node, (ast.Pass, ast.Raise)) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body
    )
