"""Sessions and tasks: where code runs several coroutines at once, and which session each of them carries."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.calls import Call
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

JOINERS = {"gather", "wait", "as_completed"}
SPAWNERS = {"create_task", "ensure_future", "start_soon", "run_coroutine_threadsafe"}

_NAMES = {"session", "db", "db_session", "async_session"}
_REPEATING = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEPTH = 4  # calls followed inside an arm


@dataclass(frozen=True, slots=True)
class Arm:
    """One coroutine of a fan-out: the session it carries, if any, and whether there are many of the same."""

    place: Place
    session: str | None
    many: bool
    opens: bool = False  # it opens a session of its own
    unsettled: str | None = None  # an argument that is called a session and whose type nothing settles


@dataclass(frozen=True, slots=True)
class FanOut(Subject):
    """Code that runs coroutines at the same time; `by` is gather, wait, TaskGroup or create_task."""

    key: str
    place: Place
    by: str
    arms: tuple[Arm, ...]
    bounded: bool
    awaited: bool

    @property
    def unsettled(self) -> str | None:
        """An argument that may be a session for all that the source says."""
        return next((arm.unsettled for arm in self.arms if arm.unsettled is not None), None)

    @property
    def shared(self) -> str | None:
        """The session that two arms, or one arm many times over, carry."""
        counts: Counter[str] = Counter()
        for arm in self.arms:
            if arm.session is not None:
                counts[arm.session] += 2 if arm.many else 1
        return next((session for session, count in counts.items() if count > 1), None)

    @property
    def carried(self) -> str | None:
        """The session that any arm carries."""
        return next((arm.session for arm in self.arms if arm.session is not None), None)


class Tasks:
    """Fan-outs of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def fan_outs(self) -> list[FanOut]:
        """Every place of application code that runs coroutines at once."""
        found = [*self._joined(), *self._grouped(), *self._spawned()]
        return sorted(found, key=lambda fan_out: fan_out.place)

    def _calls(self, names: set[str]) -> Iterator[Call]:
        for call in self.source.calls.named(*sorted(names)):
            if call.module.role is Role.APPLICATION and self._from_asyncio(call):
                yield call

    def _from_asyncio(self, call: Call) -> bool:
        meaning = self.source.types.callee(call.node, call.scope)
        if isinstance(meaning, External):
            return meaning.package in {"asyncio", "anyio"}
        leaf = call.node.func.attr if isinstance(call.node.func, ast.Attribute) else ""
        return meaning is None and leaf in {"create_task", "start_soon"}

    def _joined(self) -> Iterator[FanOut]:
        for call in self._calls(JOINERS):
            arms = [arm for node in call.node.args for arm in self._arms(node, call)]
            yield self._fan_out(call, "gather", arms)

    def _grouped(self) -> Iterator[FanOut]:
        """Collect the tasks of each `async with TaskGroup()` block."""
        for call in self._calls({"TaskGroup", "create_task_group"}):
            item = call.module.parents.get(call.node)
            block = call.module.parents.get(item) if isinstance(item, ast.withitem) else None
            if not isinstance(block, ast.AsyncWith):
                continue
            arms = []
            for node in ast.walk(block):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in {"create_task", "start_soon"}
                ):
                    inner = Call(node, call.module.enclosing(node))
                    arms += self._spawn_arms(inner, many=self._in_loop(inner, block))
            yield self._fan_out(call, "TaskGroup", arms)

    def _spawned(self) -> Iterator[FanOut]:
        for call in self._calls(SPAWNERS):
            if self._inside_group(call) or self._closes(call):
                continue
            many = self._in_loop(call, None) and not _waited_at_once(call)
            yield self._fan_out(call, "create_task", self._spawn_arms(call, many=many))

    def _closes(self, call: Call) -> bool:
        """Tell a session's own close() in a task that is waited for: SQLAlchemy's `__aexit__` is shielded like that."""
        match call.node.args:
            case [ast.Call(func=ast.Attribute(value=owner, attr="close"), args=[], keywords=[])]:
                if self.source.types.session(owner, call.scope) != "async":
                    return False
            case _:
                return False
        stored = call.module.parents.get(call.node)
        match stored:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                kept: str | None = name
            case _:
                kept = None
        for node in call.scope.nodes():
            if isinstance(node, ast.Await):
                waited = node.value
                if isinstance(waited, ast.Call) and waited is not call.node and waited.args:
                    waited = waited.args[0]  # shield(task), wait_for(task, 5)
                if waited is call.node or (isinstance(waited, ast.Name) and waited.id == kept):
                    return True
        return False

    def _inside_group(self, call: Call) -> bool:
        func = call.node.func
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            found = call.scope.lookup(func.value.id)
            return found is not None and any(
                binding.kind == "with"
                and isinstance(binding.value, ast.Call)
                and "Group" in ast.unparse(binding.value.func).replace("_g", "G")
                for binding in found[1]
            )
        return False

    def _fan_out(self, call: Call, by: str, arms: list[Arm]) -> FanOut:
        function = call.scope.function or call.scope
        names = {node.id for node in ast.walk(function.node) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(function.node) if isinstance(node, ast.Attribute)}
        bounded = any("sem" in name.lower() or "limit" in name.lower() for name in names | attributes)
        awaited = isinstance(call.module.parents.get(call.node), ast.Await)
        return FanOut(f"{function.key}:{by}", call.place, by, tuple(arms), bounded, awaited)

    def _in_loop(self, call: Call, limit: ast.AST | None) -> bool:
        for ancestor in call.module.ancestors(call.node):
            if ancestor is limit or isinstance(ancestor, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return False
            if isinstance(ancestor, _REPEATING):
                return True
        return False

    def _arms(self, node: ast.expr, call: Call) -> Iterator[Arm]:
        """Yield the coroutines that one argument of gather stands for."""
        if isinstance(node, ast.Starred):
            node = node.value
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            source = self._rewrapped(node, call.scope)
            if source is not None:
                yield from self._collected(source, call)
            else:
                yield self._arm(node.elt, call.scope, many=True, bound=_targets(node))
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            for element in node.elts:
                yield from self._arms(element, call)
        elif isinstance(node, ast.Name):
            yield from self._collected(node.id, call)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "map" and node.args:
            made = ast.copy_location(ast.Call(func=node.args[0], args=node.args[1:], keywords=[]), node)
            yield self._arm(made, call.scope, many=True)
        else:
            yield self._arm(node, call.scope, many=False)

    def _rewrapped(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope) -> str | None:
        """`[limited(task) for task in tasks]` is the list `tasks` again, each coroutine inside another."""
        first = node.generators[0]
        if not (isinstance(first.iter, ast.Name) and isinstance(first.target, ast.Name)):
            return None
        element = node.elt
        while isinstance(element, ast.Call) and len(element.args) == 1:
            outer = self.source.types.callee(element, scope)
            known = isinstance(outer, External) and outer.leaf in {"create_task", "ensure_future", "shield"}
            if not known and not (isinstance(outer, Scope) and outer.is_function and self._passes_through(outer)):
                return None
            element = element.args[0]
        return first.iter.id if isinstance(element, ast.Name) and element.id == first.target.id else None

    def _put(self, node: ast.expr, inner: Call, *, many: bool) -> Iterator[Arm]:
        """Yield what one `tasks.append(node)` puts into a list, through a variable too."""
        found = inner.scope.lookup(node.id) if isinstance(node, ast.Name) else None
        if found is None:
            yield self._arm(node, inner.scope, many=many)
            return
        scope, bindings = found
        for binding in bindings:
            if isinstance(binding.value, ast.Call) and binding.kind == "value":
                yield self._arm(binding.value, scope, many=many)

    def _collected(self, name: str, call: Call) -> Iterator[Arm]:
        """Follow a list of coroutines to what was put into it."""
        found = call.scope.lookup(name)
        if found is None:
            return
        scope, bindings = found
        for binding in bindings:
            if isinstance(binding.value, (ast.ListComp, ast.List, ast.GeneratorExp, ast.SetComp)):
                yield from self._arms(binding.value, call)
            elif isinstance(binding.value, ast.Call) and binding.kind == "value":
                yield self._arm(binding.value, scope, many=False)
        for node in scope.nodes():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"append", "add"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == name
                and node.args
            ):
                inner = Call(node, call.module.enclosing(node))
                yield from self._put(node.args[0], inner, many=self._in_loop(inner, None))

    def _spawn_arms(self, call: Call, *, many: bool) -> list[Arm]:
        if not call.node.args:
            return []
        first = call.node.args[0]
        if isinstance(call.node.func, ast.Attribute) and call.node.func.attr == "start_soon":
            made = ast.Call(func=first, args=call.node.args[1:], keywords=[])
            ast.copy_location(made, call.node)
            return [self._arm(made, call.scope, many=many)]
        return [self._arm(first, call.scope, many=many)]

    def _arm(self, node: ast.expr, scope: Scope, *, many: bool, bound: frozenset[str] = frozenset()) -> Arm:
        place = scope.module.place(node)
        while (
            isinstance(node, ast.Call)
            and len(node.args) == 1
            and isinstance(node.args[0], ast.Call)
            and not node.keywords
        ):
            outer = self.source.types.callee(node, scope)
            wrapper = isinstance(outer, External) and outer.leaf in {
                "create_task",
                "ensure_future",
                "wait_for",
                "shield",
            }
            if not wrapper and not (isinstance(outer, Scope) and outer.is_function and self._passes_through(outer)):
                break
            node = node.args[0]
        session = self._carried(node, scope, bound)
        unsettled = None if session is not None else self._unsettled(node, scope)
        return Arm(place, session, many, self._opens(node, scope), unsettled)

    def _unsettled(self, node: ast.expr, scope: Scope) -> str | None:
        """Name an argument that reads like a database session but has no type: nobody can tell what it is."""
        if not isinstance(node, ast.Call):
            return None
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            leaf = argument.attr if isinstance(argument, ast.Attribute) else getattr(argument, "id", "")
            if leaf in _NAMES and self.source.types.of(argument, scope) is None:
                return ast.unparse(argument)
        return None

    def _passes_through(self, function: Scope) -> bool:
        """`async def limited(coro): async with semaphore: return await coro`."""
        first = function.parameters[0].arg if function.parameters else ""
        return any(
            isinstance(node, ast.Await) and isinstance(node.value, ast.Name) and node.value.id == first
            for node in function.nodes()
        )

    def _carried(self, node: ast.expr, scope: Scope, bound: frozenset[str]) -> str | None:
        """Name the session that a coroutine works on, if it does not open one itself."""
        if not isinstance(node, ast.Call):
            return None
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        for argument in given:
            if self._serves_one(argument, scope) and not (_names(argument) & bound):
                return self._identity(argument, scope)
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if self._serves_one(owner, scope) and not (_names(owner) & bound):
                return self._identity(owner, scope)
        function = self.source.types.callee(node, scope)
        if isinstance(function, Scope) and function.is_function:
            return self._used_inside(function, node, scope, 0)
        return None

    def _serves_one(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether an expression is what one task at a time may use: a session, or a connection."""
        found = self.source.types.of(node, scope)
        if isinstance(found, External) and found.named("sqlalchemy", "AsyncConnection"):
            return True
        return found is not None and self.source.types.session_type(found) == "async"

    def _used_inside(self, function: Scope, call: ast.Call, scope: Scope, depth: int) -> str | None:
        """A nested function that closes over a session, or a method that uses the one on `self`, carries it."""
        if depth > DEPTH or self.source.openings.any_in(function):
            return None
        for node in function.nodes():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found = function.lookup(node.id)
                closed = found is not None and found[0] is not function and found[0].is_function
                if closed and self._serves_one(node, function):
                    return node.id
            own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            if own and isinstance(node, ast.Attribute) and self._serves_one(node, function):
                owner = call.func.value if isinstance(call.func, ast.Attribute) else None
                lent = None if owner is None else self.source.holders.lent(owner, scope)
                return lent or f"{'self' if owner is None else ast.unparse(owner)}.{node.attr}"
        through = function.enclosing_class is not None and isinstance(call.func, ast.Attribute)
        return self.source.holders.method(call.func, scope) if through else None

    def _identity(self, node: ast.expr, scope: Scope) -> str:
        meaning = self.source.names.resolve(node, scope)
        return meaning.name if isinstance(meaning, Assigned) else ast.unparse(node)

    def _opens(self, node: ast.expr, scope: Scope) -> bool:
        if not isinstance(node, ast.Call):
            return False
        function = self.source.types.callee(node, scope)
        return isinstance(function, Scope) and function.is_function and self.source.openings.any_in(function)


def _targets(node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> frozenset[str]:
    return frozenset(name for generator in node.generators for name in _names(generator.target))


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _waited_at_once(call: Call) -> bool:
    """Tell whether the statement after a task's own waits for it: a loop then has one of them at a time."""
    statement = next((each for each in call.module.ancestors(call.node) if isinstance(each, ast.stmt)), None)
    match statement:
        case ast.Expr(value=ast.Await(value=ast.Call() as waited)):
            return waited is call.node
        case ast.Assign(targets=[target], value=value) if value is call.node:
            kept = ast.unparse(target)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=held, attr="append"), args=[value])) if (
            value is call.node
        ):
            kept = f"{ast.unparse(held)}[-1]"
        case _:
            return False
    block = getattr(call.module.parents.get(statement), "body", [])
    after = block[block.index(statement) + 1 :] if statement in block else []
    return bool(after) and isinstance(after[0], ast.Expr) and ast.unparse(after[0]) == f"await {kept}"
