"""How often a line runs: once per process, once per request, in a worker's task, or nobody can tell."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import CACHES, is_generator, keyword
from verdigris.evidence.source.reading.calls import assigned_to
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call

DEPTH = 8
_TASKS = {"actor", "periodic_task", "shared_task", "task"}
_COMMANDS = {"callback", "command", "group"}
_MISSED = {"AttributeError", "KeyError", "LookupError"}
_ONCE = {"Resource", "Singleton", "ThreadSafeSingleton"}


class Frequency(StrEnum):
    """How often."""

    ONCE = "once"
    REQUEST = "request"
    TASK = "task"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reach:
    """How often a line runs, and why: `why` goes on after "it is made in f(), "."""

    frequency: Frequency
    why: str
    place: Place | None = None


class Reaches:
    """Frequencies of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._known: dict[int, Reach] = {}

    def of(self, call: Call) -> Reach:
        """Tell how often a call that makes something is run; one behind `if it is None` runs once."""
        function = call.scope.function
        if function is None:
            return Reach(Frequency.ONCE, "at import", call.place)
        if self._guarded(call, function):
            owner = function.enclosing_class
            if (assigned_to(call) or "").startswith("self.") and owner is not None:
                return self.function(owner)
            return Reach(Frequency.ONCE, "only when it is not there yet", call.place)
        found = self.function(function)
        if found.frequency is Frequency.UNKNOWN and self._provides(call, function):
            return Reach(Frequency.REQUEST, "which gives a session to each caller", call.place)
        return found

    def _provides(self, call: Call, function: Scope) -> bool:
        """Tell whether a function makes something only to hand out a session of it, and leaves it behind."""
        if any(isinstance(node, ast.Attribute) and node.attr == "dispose" for node in function.nodes()):
            return False  # for a script, which runs it once: nothing of the application calls it
        produced = self.source.types.produced(function)
        if produced is None or self.source.types.session_type(produced) is None:
            return False
        parent = call.module.parents.get(call.node)
        return is_generator(function) or (isinstance(parent, ast.Call) and parent.func is call.node)

    def _guarded(self, call: Call, function: Scope) -> bool:
        """Tell whether a call runs only when what it makes is not there yet."""
        names = _names(assigned_to(call))
        around = {id(node) for node in call.module.ancestors(call.node)}
        for node in function.nodes():
            if isinstance(node, ast.ExceptHandler) and id(node) in around and _catches_a_miss(node):
                return True
            if not isinstance(node, ast.If) or node.lineno > call.node.lineno:
                continue
            if id(node) in around or isinstance(node.body[-1], ast.Return):
                tested = _tested(node.test)
                if any(name in names or self._kept(name, function) for name in tested):
                    return True
        return False

    def _kept(self, name: str, function: Scope) -> bool:
        """Tell whether a name lives longer than a call of the function."""
        return name.startswith(("self.", "cls.")) or ("." not in name and name not in function.bindings)

    def function(self, function: Scope, depth: int = 0) -> Reach:
        """Tell how often a function (or the construction of a class) is run."""
        if id(function) in self._known:
            return self._known[id(function)]
        if depth > DEPTH:
            return Reach(Frequency.UNKNOWN, "through more calls than are followed")
        self._known[id(function)] = Reach(Frequency.UNKNOWN, "it calls itself")
        found = self._declared(function) or self._called(function, depth)
        self._known[id(function)] = found
        return found

    def _declared(self, function: Scope) -> Reach | None:
        """Read what decorators and FastAPI say of a function."""
        place = function.place
        route = self._routes.get(id(function.node))
        for decorator in function.decorators:
            leaf = leaf_of(decorator, ast.Call)
            if leaf in CACHES:
                return Reach(Frequency.ONCE, f"its result is kept by @{leaf}", place)
            if (
                leaf == "on_event"
                or leaf in _COMMANDS
                or (leaf == "asynccontextmanager" and self._is_lifespan(function))
            ):
                return Reach(Frequency.ONCE, "when the program starts", place)
            if leaf == "provide" and isinstance(decorator, ast.Call):
                given = keyword(decorator, "scope")
                once = isinstance(given, ast.Attribute) and given.attr in {"APP", "RUNTIME"}
                when = "by a container, for the whole program" if once else "by a container, for each scope"
                return Reach(Frequency.ONCE if once else Frequency.REQUEST, when, place)
            if leaf in _TASKS:
                return Reach(Frequency.TASK, "in a worker's task", place)
            if leaf in {"middleware", "exception_handler"}:
                return Reach(Frequency.REQUEST, "for each request", place)
        if route is not None:
            return Reach(Frequency.REQUEST, f"which answers {route}", place)
        if id(function.node) in self._dependencies:
            return Reach(Frequency.REQUEST, "a dependency", self._dependencies[id(function.node)])
        owner = function.enclosing_class if function.name == "dispatch" else None
        if owner is not None and self.source.names.derives(owner, "starlette", "BaseHTTPMiddleware"):
            return Reach(Frequency.REQUEST, "for each request", place)
        if function.name == "main" and function.parent is function.module.scope:
            return Reach(Frequency.ONCE, "when the program starts", place)
        return None

    def _is_lifespan(self, function: Scope) -> bool:
        """Tell whether a context manager is given an application: that is what a lifespan is."""
        around = function.parent or function.module.scope
        for parameter in function.parameters:
            found = None if parameter.annotation is None else self.source.types.annotation(parameter.annotation, around)
            if isinstance(found, External) and found.leaf in {"FastAPI", "Starlette"}:
                return True
        return function.name == "lifespan"

    def _called(self, function: Scope, depth: int) -> Reach:
        found = [reach for reach in self._references(function) if reach.frequency is not Frequency.UNKNOWN]
        for call in self.source.calls.to(function):
            if call.module.role in {Role.TEST, Role.EXAMPLE}:
                continue
            caller = call.scope.function
            if caller is None:
                found.append(Reach(Frequency.ONCE, "at import", call.place))
            elif caller is not function:
                reach = self.of(call) if self._guarded(call, caller) else self.function(caller, depth + 1)
                via = f"called by {caller.name}(), {reach.why}" if reach.frequency is Frequency.REQUEST else reach.why
                found.append(Reach(reach.frequency, via, call.place))
        for frequency in (Frequency.REQUEST, Frequency.UNKNOWN, Frequency.TASK, Frequency.ONCE):
            for reach in found:
                if reach.frequency is frequency:
                    return reach
        owner = function.enclosing_class
        if function.name == "__init__" and owner is not None and not found:
            return Reach(Frequency.UNKNOWN, f"where {owner.name} is made is not settled", function.place)
        return Reach(Frequency.UNKNOWN, "who calls it is not settled", function.place)

    def _references(self, function: Scope) -> list[Reach]:
        """Read where a function is handed over: to a container's Singleton, as a lifespan, as a start-up handler."""
        found = []
        for call, node, name in self._passed.get(function.name, ()):
            if self.source.types.reach(node, call.scope) is not function:
                continue
            leaf = leaf_of(call.node, ast.Call)
            if name == "lifespan" or leaf in _ONCE or (leaf == "add_event_handler"):
                found.append(Reach(Frequency.ONCE, "when the program starts", call.place))
        return found

    @cached_property
    def _routes(self) -> dict[int, str]:
        return {
            id(route.function.node): route.key if isinstance(route.path, Known) else "a route"
            for route in self.source.web.routes
        }

    @cached_property
    def _dependencies(self) -> dict[int, Place]:
        found: dict[int, Place] = {}
        for use in self.source.web.depends:
            if isinstance(use.provider, Scope) and use.call.module.role is not Role.TEST:
                found.setdefault(id(use.provider.node), use.place)
        return found

    @cached_property
    def _passed(self) -> dict[str, list[tuple[Call, ast.expr, str | None]]]:
        """Functions that are handed over as arguments, by name."""
        found: dict[str, list[tuple[Call, ast.expr, str | None]]] = defaultdict(list)
        for call in self.source.calls.every():
            given = [(arg, None) for arg in call.node.args] + [(kw.value, kw.arg) for kw in call.node.keywords]
            for node, name in given:
                if isinstance(node, (ast.Name, ast.Attribute)):
                    found[node.id if isinstance(node, ast.Name) else node.attr].append((call, node, name))
        return found


def _names(target: str | None) -> set[str]:
    """The names by which a condition may speak of a target: `self._engines[key]` is also `self._engines`."""
    parts = [part.strip(" ()") for part in (target or "").split(",")]
    return {name for part in parts if part for name in (part, part.partition("[")[0])}


def _catches_a_miss(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and bool(_MISSED & set(re.findall(r"\w+", ast.unparse(handler.type))))


def _tested(test: ast.expr) -> list[str]:
    """Return what a condition finds missing: `x is None`, `not x`, `key not in x`, `not hasattr(x, …)`, or present."""
    match test:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return [ast.unparse(left)]
        case ast.Compare(ops=[ast.NotIn() | ast.In()], comparators=[kept]):
            return [ast.unparse(kept)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _tested(operand)
        case ast.Call(func=ast.Name(id="hasattr"), args=[owner, ast.Constant(value=str(name))]):
            return [f"{ast.unparse(owner)}.{name}"]
        case ast.BoolOp(values=values):
            return [name for value in values for name in _tested(value)]
        case ast.Name() | ast.Attribute():
            return [ast.unparse(test)]
        case _:
            return []
