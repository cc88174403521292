"""Sessions that outlive a task, registries of sessions, and sessions inside sessions."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Module
    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class GlobalSession(Subject):
    """A session that lives as long as the program, or that a container gives to all who ask (`shared`)."""

    key: str
    place: Place
    name: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class HeldSession(Subject):
    """A session, opened at `first`, that is held while something else goes on: another session, or sleep."""

    key: str
    place: Place
    first: Place
    over: str


@dataclass(frozen=True, slots=True)
class ScopedSession(Subject):
    """A scoped registry: `per_task` if its scope is unique to the task, `removed` if something calls remove()."""

    key: str
    place: Place
    maker: str
    of_async: bool
    per_task: bool
    removed: bool


def scoped_sessions(source: Source) -> Iterator[ScopedSession]:
    """Yield the registries of application code."""
    removes = any(call.module.role is Role.APPLICATION for call in source.calls.named("remove") if not call.node.args)
    for call, maker in source.calls.outside({"sqlalchemy"}, "scoped_session", "async_scoped_session"):
        if call.module.role is not Role.APPLICATION:
            continue
        factory = call.node.args[0] if call.node.args else None
        made = source.types.of(factory, call.scope) if factory is not None else None
        of_async = maker.leaf == "async_scoped_session" or (
            isinstance(made, External) and made.leaf.startswith("async")
        )
        scope = next((kw.value for kw in call.node.keywords if kw.arg == "scopefunc"), None)
        scope = scope or (call.node.args[1] if len(call.node.args) > 1 else None)
        per_task = scope is not None and not (isinstance(scope, ast.Constant) and scope.value is None)
        key = f"{call.scope.key}:{maker.leaf}"
        yield ScopedSession(key, call.place, maker.leaf, of_async, per_task, removes)


def global_sessions(source: Source) -> Iterator[GlobalSession]:
    """Yield the sessions that live as long as the program: at module level, on a class, in what lives as long."""
    for name, place in (*_assigned(source), *source.holders.kept()):
        yield GlobalSession(f"{place.path}:{name}", place, name)
    for name, place in source.containers.shared_sessions():
        yield GlobalSession(f"{place.path}:{name}", place, name, shared=True)


def _assigned(source: Source) -> Iterator[tuple[str, Place]]:
    for scope in source.scopes:
        if scope.parent is not None and not scope.is_class:
            continue
        for name, bindings in scope.bindings.items():
            for binding in bindings:
                if binding.kind == "value" and isinstance(binding.value, ast.Call):
                    made = source.types.of(binding.value, scope)
                    scoped = isinstance(made, External) and made.leaf == "async_scoped_session"
                    if made is not None and not scoped and source.types.session_type(made) == "async":
                        yield name, scope.module.place(binding.node)


def held_sessions(source: Source) -> Iterator[HeldSession]:
    """Yield the sessions that are held over the opening of another one, or over sleep."""
    for place, first in _nested(source):
        yield HeldSession(f"{place.path}:nested", place, first, "session")
    for place, first in _asleep(source):
        yield HeldSession(f"{place.path}:asleep", place, first, "sleep")


def _nested(source: Source) -> Iterator[tuple[Place, Place]]:
    """Yield the places that open a second session while a first one is held, as (second, first)."""
    for function in source.functions:
        for outer in source.openings.of(function):
            for node in ast.walk(outer):
                if (
                    node is outer
                    or not isinstance(node, ast.AsyncWith)
                    or function.module.enclosing(node) is not function
                ):
                    continue
                if any(source.openings.makes(item.context_expr, function) for item in node.items):
                    yield function.module.place(node), function.module.place(outer)


def _asleep(source: Source) -> Iterator[tuple[Place, Place]]:
    """Yield the places that sleep while they hold a session, as (sleep, session)."""
    for call, _ in source.calls.outside({"asyncio", "anyio"}, "sleep"):
        function = call.scope.function
        if call.module.role is not Role.APPLICATION or function is None:
            continue
        around = set(call.module.ancestors(call.node))
        for block in source.openings.of(function):
            if block in around and not _zero(call.node) and not _given_back(block, call.node, call.module):
                yield call.place, call.module.place(block)


def _zero(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _given_back(block: ast.AsyncWith, sleep: ast.Call, module: Module) -> bool:
    """Tell whether a session's last transaction is over when the sleep begins: it then holds no connection."""
    names = {item.optional_vars.id for item in block.items if isinstance(item.optional_vars, ast.Name)}
    way = _branches(sleep, block, module)
    begun = [
        node
        for node in ast.walk(block)
        if isinstance(node, ast.AsyncWith) and node is not block and _ends(node.items[0].context_expr, names, {"begin"})
    ]
    last: tuple[int, bool] = (0, False)
    for node in ast.walk(block):
        ends = _ends(node, names, {"commit", "rollback", "close"})
        line = getattr(node, "lineno", 0)
        if line > sleep.lineno or not (ends or (isinstance(node, ast.Name) and node.id in names)):
            continue
        own = _branches(node, block, module)
        if any(way.get(fork, branch) != branch for fork, branch in own.items()):
            continue  # on another branch than the sleep
        inside = next((outer for outer in begun if outer.lineno <= line <= (outer.end_lineno or line)), None)
        if inside is not None and (inside.end_lineno or line) < sleep.lineno:
            last = max(last, (inside.end_lineno or line, True))
        elif not ends or own.items() <= way.items():  # what ends only on some branch may not have ended
            last = max(last, (line, ends))
    return last[1]


def _branches(node: ast.AST, block: ast.AsyncWith, module: Module) -> dict[ast.AST, str]:
    """Name the branches on which a node lies inside a block: a part of an `if`, a loop, a handler."""
    found: dict[ast.AST, str] = {}
    inner = node
    for outer in module.ancestors(node):
        if outer is block:
            break
        if isinstance(outer, ast.If):
            found[outer] = "else" if inner in outer.orelse else "then"
        elif isinstance(outer, (ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)):
            found[outer] = "in"
        inner = outer
    return found


def _ends(node: ast.AST, names: set[str], methods: set[str]) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in methods
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in names
    )
