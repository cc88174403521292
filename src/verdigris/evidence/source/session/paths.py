"""The paths through a function, statement by statement: forked at branches, joined behind them, loops run twice."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.nodes import children

if TYPE_CHECKING:
    from verdigris.evidence.source.session.loads import Holding
    from verdigris.evidence.source.session.origins import Flags
    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class Stale:
    """Why an object is expired, since when, under which condition, and which attributes were set or loaded since."""

    how: str
    place: Place
    guard: str | None = None
    fresh: frozenset[str] = frozenset()


@dataclass(slots=True)
class State:
    """What is known at one point of a function."""

    held: dict[str, Holding] = field(default_factory=dict)
    sessions: dict[str, Flags] = field(default_factory=dict)
    stale: dict[str, Stale] = field(default_factory=dict)
    changed: dict[str, Place] = field(default_factory=dict)
    guards: tuple[str, ...] = ()

    def copy(self) -> State:
        return State(dict(self.held), dict(self.sessions), dict(self.stale), dict(self.changed), self.guards)

    def joined(self, other: State | None) -> State:
        if other is None:
            return self
        held = {name: what for name, what in (other.held | self.held).items() if what.same(other.held.get(name, what))}
        stale = {name: why for name, why in (other.stale | self.stale).items() if name in held}
        changed = {name: place for name, place in self.changed.items() if name in other.changed}
        return State(held, other.sessions | self.sessions, stale, changed, self.guards)


class Paths(ABC):
    """Walks the statements of a function; a subclass says what expressions, names and blocks do to the state.

    Each step returns the state behind a statement, or None if nothing comes behind it.
    """

    @abstractmethod
    def evaluate(self, node: ast.expr, state: State) -> None:
        """Let happen what an expression does."""

    @abstractmethod
    def bind(self, target: ast.expr, value: ast.expr | None, state: State) -> None:
        """Give a name its new value."""

    @abstractmethod
    def bind_element(self, target: ast.expr, iterable: ast.expr, state: State) -> None:
        """Give a loop's name an element."""

    @abstractmethod
    def returned(self, value: ast.expr, state: State) -> None:
        """Let a value leave the function."""

    @abstractmethod
    def entered(self, item: ast.withitem, state: State) -> tuple[str, ast.expr] | None:
        """Enter a context; return the session that leaving it commits."""

    @abstractmethod
    def left(self, session: str, context: ast.expr, state: State) -> None:
        """Leave a context that commits a session."""

    @abstractmethod
    def augmented(self, target: ast.Attribute, state: State) -> None:
        """Read and change an attribute."""

    def block(self, statements: list[ast.stmt], state: State) -> State | None:
        """Walk statements in their order."""
        for statement in statements:
            following = self.statement(statement, state)
            if following is None:
                return None
            state = following
        return state

    def statement(self, statement: ast.stmt, state: State) -> State | None:  # noqa: C901, PLR0911, PLR0912 - one case a statement
        """Walk one statement."""
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return state
            case ast.Return(value=value):
                if value is not None:
                    self.evaluate(value, state)
                    self.returned(value, state)
                return None
            case ast.Raise():
                for part in (statement.exc, statement.cause):
                    if part is not None:
                        self.evaluate(part, state)
                return None
            case ast.Break() | ast.Continue():
                return None
            case ast.Assign(targets=targets, value=value):
                self.evaluate(value, state)
                for target in targets:
                    self.bind(target, value, state)
                return state
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.evaluate(value, state)
                self.bind(target, value, state)
                return state
            case ast.AugAssign(target=target, value=value):
                self.evaluate(value, state)
                if isinstance(target, ast.Attribute):
                    self.augmented(target, state)
                return state
            case ast.If(test=test, body=body, orelse=orelse):
                return self._branch(test, body, orelse, state)
            case (
                ast.For(target=target, iter=iterable, body=body, orelse=orelse)
                | ast.AsyncFor(target=target, iter=iterable, body=body, orelse=orelse)
            ):
                self.evaluate(iterable, state)
                return self._loop(target, iterable, body, orelse, state)
            case ast.While(test=test, body=body, orelse=orelse):
                self.evaluate(test, state)
                return self._loop(None, None, body, orelse, state)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                return self._with(items, body, state)
            case ast.Try() | ast.TryStar():
                return self._try(statement, state)
            case ast.Match(subject=subject, cases=cases):
                self.evaluate(subject, state)
                ends = [self.block(case.body, state.copy()) for case in cases]
                return _joined([*ends, state])
            case _:
                for child in children(statement):
                    if isinstance(child, ast.expr):
                        self.evaluate(child, state)
                return state

    def _branch(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], state: State) -> State | None:
        """Fork; what expired under a condition is not expired where the same condition is not met."""
        self.evaluate(test, state)
        condition = ast.unparse(test)
        taken, other = state.copy(), state.copy()
        taken.guards = (*state.guards, condition)
        other.stale = {name: why for name, why in other.stale.items() if why.guard != condition}
        ends = [self.block(body, taken), self.block(orelse, other)]
        joined = _joined(ends)
        if joined is not None:
            joined.guards = state.guards
        return joined

    def _loop(
        self,
        target: ast.expr | None,
        iterable: ast.expr | None,
        body: list[ast.stmt],
        orelse: list[ast.stmt],
        state: State,
    ) -> State | None:
        """Run a body twice: what the first round expired, the second one reads."""
        current = state.copy()
        for _ in range(2):
            if target is not None and iterable is not None:
                self.bind_element(target, iterable, current)
            after = self.block(body, current.copy())
            current = current.joined(after)
        return self.block(orelse, current) if orelse else current

    def _with(self, items: list[ast.withitem], body: list[ast.stmt], state: State) -> State | None:
        committed = []
        for item in items:
            self.evaluate(item.context_expr, state)
            committed.append(self.entered(item, state))
        after = self.block(body, state)
        if after is not None:
            for each in committed:
                if each is not None:
                    self.left(*each, after)
        return after

    def _try(self, statement: ast.Try | ast.TryStar, state: State) -> State | None:
        start = state.copy()
        body = self.block(statement.body, state)
        if body is not None:
            body = self.block(statement.orelse, body)
        ends = [body, *(self.block(handler.body, start.copy()) for handler in statement.handlers)]
        joined = _joined(ends)
        if statement.finalbody:
            after = self.block(statement.finalbody, joined or start)
            return None if joined is None else after
        return joined


def _joined(states: list[State | None]) -> State | None:
    kept = [state for state in states if state is not None]
    if not kept:
        return None
    first, *others = kept
    for other in others:
        first = first.joined(other)
    return first
