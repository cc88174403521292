"""Reads of expired attributes, and changes that a refresh drops: one function's statements followed path by path.

Commit expires every object of its session unless the factory says `expire_on_commit=False`; rollback does it always.
What is followed are local names that hold mapped objects of a session: loaded by it, added to it, or injected beside
it. A name that may be expired on some path and is read on that path is a finding; whatever cannot be told is silent.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.nodes import inside, leaf_of
from verdigris.evidence.source.session.ends import Ends
from verdigris.evidence.source.session.loads import Loads, receiver
from verdigris.evidence.source.session.paths import Paths, Stale, State
from verdigris.evidence.values import Known, Missing

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place

_ENDS = {"commit", "rollback"}
_OF_SESSIONS = _ENDS | {"refresh", "add", "flush"}


@dataclass(frozen=True, slots=True)
class StaleRead(Subject):
    """An attribute that is read after its object expired, or a change that is refreshed away.

    `variant` is read-after-commit, read-after-rollback or dropped-change; `cause` is what did it.
    """

    key: str
    place: Place
    variant: str
    name: str
    attribute: str
    told: str
    cause: Place


class Expiry:
    """Expired reads and dropped changes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self.loads = Loads(source)
        self.ends = Ends(source, self.loads)

    @property
    def _names(self) -> frozenset[str]:
        """The calls that can expire or drop anything, given the options that the sessions have."""
        made = [each for each in self.source.factories if each.mode == "async"]
        expire = [each.option("expire_on_commit") for each in made]
        flush = [each.option("autoflush") for each in made]
        names = {"rollback"}
        if not all(isinstance(value, Known) and not value.value for value in expire):
            names |= {"commit", "begin", *self.ends.committing}
        if not all(isinstance(value, Missing) or (isinstance(value, Known) and value.value) for value in flush):
            names |= {"refresh", "execution_options"}
        return frozenset(names)

    @cached_property
    def found(self) -> list[StaleRead]:
        """Every one of application code."""
        names = self._names
        if not self.source.models.every:
            return []
        found: list[StaleRead] = []
        for function in self.source.functions:
            if function.is_async and any(leaf_of(call.func) in names for call in function.calls):
                found += _Walk(self, function).run()
        return found


class _Walk(Paths):
    """The statements of one function."""

    def __init__(self, expiry: Expiry, function: Scope) -> None:
        self.source = expiry.source
        self.loads = expiry.loads
        self.ends = expiry.ends
        self.function = function
        self.module = function.module
        self.found: dict[str, StaleRead] = {}
        self.route = any(route.function is function for route in expiry.source.web.routes)

    def run(self) -> list[StaleRead]:
        state = State()
        for parameter in self.function.parameters:
            if self.loads.is_session_parameter(parameter, self.function):
                state.sessions[parameter.arg] = self.source.origins.of_parameter(parameter, self.function)
        for parameter in self.function.parameters:
            holding = self.loads.injected(parameter, self.function, state.sessions)
            if holding is not None:
                state.held[parameter.arg] = holding
        node = self.function.node
        if isinstance(node, ast.AsyncFunctionDef):
            self.block(node.body, state)
        return list(self.found.values())

    def entered(self, item: ast.withitem, state: State) -> tuple[str, ast.expr] | None:
        context, name = item.context_expr, item.optional_vars
        session = receiver(context, "begin")
        if session is not None and session in state.sessions:
            return session, context
        flags = self.source.origins.by(context, self.function)
        if flags is not None and isinstance(name, ast.Name):
            self._forget(name.id, state)
            state.sessions[name.id] = flags
            return (name.id, context) if session is not None else None
        if name is not None:
            self.bind(name, None, state)
        return None

    def left(self, session: str, context: ast.expr, state: State) -> None:
        self._end(session, "commit", self.module.place(context), state)

    def augmented(self, target: ast.Attribute, state: State) -> None:
        self._read(ast.copy_location(ast.Attribute(target.value, target.attr, ast.Load()), target), state)
        self._changed(target, state)

    def evaluate(self, node: ast.expr, state: State) -> None:
        """Read what an expression reads, then let happen what its calls do."""
        self._read(node, state)
        for call in _calls(node):
            self._call(call, state)
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.bind(inner.target, inner.value, state)

    def _read(self, node: ast.expr, state: State) -> None:
        aliases: dict[str, str] = {}
        for inner in inside([node]):
            if (
                isinstance(inner, ast.comprehension)
                and isinstance(inner.target, ast.Name)
                and isinstance(inner.iter, ast.Name)
            ):
                aliases[inner.target.id] = inner.iter.id
        for inner in inside([node]):
            if not (
                isinstance(inner, ast.Attribute)
                and isinstance(inner.ctx, ast.Load)
                and isinstance(inner.value, ast.Name)
            ):
                continue
            name = aliases.get(inner.value.id, inner.value.id)
            why = state.stale.get(name)
            if why is None or inner.attr in why.fresh or self._is_guarded(inner, state):
                continue
            held = state.held[name]
            if inner.value.id not in aliases and held.many:
                continue
            if self.loads.is_mapped(held.model, inner.attr):
                self._report(f"read-after-{why.how}", name, inner, why, state)

    def _is_guarded(self, node: ast.Attribute, state: State) -> bool:
        """`x.id if x else None` and calls that are no reads: methods of the class."""
        parent = self.module.parents.get(node)
        return isinstance(parent, ast.Call) and parent.func is node

    def _report(self, variant: str, name: str, node: ast.expr, why: Stale, state: State) -> None:
        attribute = node.attr if isinstance(node, ast.Attribute) else ""
        what = f"`{ast.unparse(node)}`" if attribute else f"`{name}`"
        told = f"{what} is read after the {why.how} at line {why.place.line} expired `{name}`"
        if not attribute:
            told = (
                f"{what} is returned after the {why.how} at line {why.place.line} expired it, and the response reads it"
            )
        key = f"{self.function.key}:{name}"
        self.found.setdefault(key, StaleRead(key, self.module.place(node), variant, name, attribute, told, why.place))
        state.stale.pop(name, None)  # one read per cause: the first one raises

    def returned(self, value: ast.expr, state: State) -> None:
        """A route that returns an expired object leaves its reading to the response model."""
        if self.route and isinstance(value, ast.Name) and value.id in state.stale and not state.stale[value.id].fresh:
            why = state.stale[value.id]
            self._report(f"read-after-{why.how}", value.id, value, why, state)

    def _call(self, call: ast.Call, state: State) -> None:
        leaf = leaf_of(call.func)
        session = receiver(call, leaf)
        if session is not None and leaf in _OF_SESSIONS and self._is_session(call, session, state):
            state.sessions.setdefault(session, self.source.origins.everywhere)
        if session is None or session not in state.sessions:
            self._handed_over(call, state)
            for passed in self.ends.of(call, self.function, state.sessions, state.held):
                again = self.ends.refreshes(call, self.function, state.held)
                self._end(passed, "commit", self.module.place(call), state)
                for name in again:
                    state.stale.pop(name, None)
            self._queried(call, state)
            return
        self._on_session(session, leaf, call, state)

    def _is_session(self, call: ast.Call, session: str, state: State) -> bool:
        func = call.func
        return session in state.sessions or (
            isinstance(func, ast.Attribute) and self.source.types.session(func.value, self.function) == "async"
        )

    def _on_session(self, session: str, leaf: str, call: ast.Call, state: State) -> None:
        given = [arg.id for arg in call.args if isinstance(arg, ast.Name)]
        if leaf in _ENDS:
            self._end(session, leaf, self.module.place(call), state)
        elif leaf == "refresh" and given:
            self._refresh(session, given[0], call, state)
        elif leaf == "flush":
            state.changed = {
                name: place for name, place in state.changed.items() if state.held[name].session != session
            }
        elif leaf in {"add", "merge"} and given and given[0] in state.held:
            state.held[given[0]] = replace(state.held[given[0]], session=session)
        elif leaf == "delete" and given:
            self._forget(given[0], state)
        elif leaf in {"expunge", "expunge_all"}:
            for name in [
                name for name, held in state.held.items() if held.session == session and (not given or name in given)
            ]:
                self._forget(name, state)
        else:
            if "populate_existing" in ast.unparse(call):
                self._populated(session, call, state)
            self._queried(call, state)

    def _handed_over(self, call: ast.Call, state: State) -> None:
        """Whoever gets an expired object and its session may load it again."""
        given = _given(call)
        if given & state.sessions.keys():
            for name in given & state.stale.keys():
                state.stale.pop(name)

    def _queried(self, call: ast.Call, state: State) -> None:
        """A query that selects a model again may have filled the expired objects in."""
        if not state.stale:
            return
        held = self.loads.holding(call, self.function, state.sessions, state.held)
        model = held.model if held is not None else self.loads.selected(call, self.function)
        if model is None and _given(call) & state.sessions.keys() and isinstance(call.func, ast.Attribute):
            model = self.loads.model(call.func.value, self.function)  # Model.one_by_id(session, id)
        if model is not None:
            again = {model.name, *self.loads.collected(model)}
            state.stale = {name: why for name, why in state.stale.items() if state.held[name].model.name not in again}

    def _refresh(self, session: str, name: str, call: ast.Call, state: State) -> None:
        named = {each.value for arg in call.args[1:2] for each in ast.walk(arg) if isinstance(each, ast.Constant)}
        own = name in state.changed and state.held[name].session == session  # under another name, who flushed is open
        if own and not named and state.sessions[session].autoflush is False:
            self._dropped(name, "refresh", call, state)
        state.changed.pop(name, None)
        if named and name in state.stale:
            state.stale[name] = replace(
                state.stale[name], fresh=state.stale[name].fresh | {str(each) for each in named}
            )
        else:
            state.stale.pop(name, None)

    def _populated(self, session: str, call: ast.Call, state: State) -> None:
        if state.sessions[session].autoflush is False:
            model = self.loads.selected(call, self.function)
            for name in [
                name
                for name in state.changed
                if state.held[name].session == session and state.held[name].model is model
            ]:
                self._dropped(name, "populate_existing", call, state)

    def _dropped(self, name: str, what: str, call: ast.Call, state: State) -> None:
        key = f"{self.function.key}:{name}"
        told = f"`{name}` was changed at line {state.changed[name].line} and not flushed; {what} drops the change"
        self.found.setdefault(
            key, StaleRead(key, self.module.place(call), "dropped-change", name, "", told, state.changed[name])
        )
        state.changed.pop(name)

    def _end(self, session: str, how: str, place: Place, state: State) -> None:
        """Commit or roll back: expire what the session holds."""
        state.changed = {name: where for name, where in state.changed.items() if state.held[name].session != session}
        if how == "commit" and state.sessions[session].expires is not True:
            for name, held in state.held.items():
                if held.session == session:
                    state.held[name] = replace(held, persistent=True)
            return
        guard = state.guards[-1] if state.guards else None
        for name, held in list(state.held.items()):
            if held.session != session or (how == "rollback" and not held.persistent):
                continue
            state.held[name] = replace(held, persistent=True)
            state.stale.setdefault(name, Stale(how, place, guard))

    def bind(self, target: ast.expr, value: ast.expr | None, state: State) -> None:
        if isinstance(target, ast.Name):
            holding = None if value is None else self.loads.holding(value, self.function, state.sessions, state.held)
            why = state.stale.get(value.id) if isinstance(value, ast.Name) else None
            flags = None if value is None or holding is not None else self.source.origins.by(value, self.function)
            self._forget(target.id, state)
            if holding is not None:
                state.held[target.id] = holding
                if why is not None:
                    state.stale[target.id] = why
            elif flags is not None and isinstance(value, (ast.Call, ast.Await)):
                state.sessions[target.id] = flags
        elif isinstance(target, ast.Attribute):
            self._changed(target, state)
        else:
            for inner in ast.walk(target):
                if isinstance(inner, ast.Name):
                    self._forget(inner.id, state)

    def bind_element(self, target: ast.expr, iterable: ast.expr, state: State) -> None:
        """Let a loop's name hold an element, expired if the collection's elements are."""
        if not isinstance(target, ast.Name):
            self.bind(target, None, state)
            return
        base = iterable.value if isinstance(iterable, ast.Subscript) else iterable
        name = base.id if isinstance(base, ast.Name) else None
        held = state.held.get(name or "")
        if held is None:
            held = self.loads.holding(iterable, self.function, state.sessions, state.held)
        self._forget(target.id, state)
        if held is not None and held.many:
            state.held[target.id] = replace(held, many=False)
            if name in state.stale:
                state.stale[target.id] = state.stale[name]

    def _changed(self, target: ast.Attribute, state: State) -> None:
        if isinstance(target.value, ast.Name) and target.value.id in state.held:
            name = target.value.id
            if self.loads.is_mapped(state.held[name].model, target.attr):
                state.changed[name] = self.module.place(target)
            if name in state.stale:
                state.stale[name] = replace(state.stale[name], fresh=state.stale[name].fresh | {target.attr})

    def _forget(self, name: str, state: State) -> None:
        state.held.pop(name, None)
        state.stale.pop(name, None)
        state.changed.pop(name, None)
        state.sessions.pop(name, None)


def _calls(node: ast.AST) -> list[ast.Call]:
    """The calls of an expression, innermost first, as they are made."""
    return [inner for inner in reversed(list(inside([node]))) if isinstance(inner, ast.Call)]


def _given(call: ast.Call) -> set[str]:
    return {arg.id for arg in [*call.args, *(kw.value for kw in call.keywords)] if isinstance(arg, ast.Name)}
