"""Sessions that outlive a task, registries of sessions, and sessions inside sessions."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.files import Role
from verdigris.evidence.source.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place


@dataclass(frozen=True, slots=True)
class GlobalSession(Subject):
    """A session that lives as long as the program."""

    key: str
    place: Place
    name: str


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
    """Yield the sessions at module or class level."""
    for name, place in source.tasks.global_sessions:
        yield GlobalSession(f"{place.path}:{name}", place, name)


def held_sessions(source: Source) -> Iterator[HeldSession]:
    """Yield the sessions that are held over the opening of another one, or over sleep."""
    for place, first in source.tasks.nested:
        yield HeldSession(f"{place.path}:nested", place, first, "session")
    for place, first in source.tasks.asleep:
        yield HeldSession(f"{place.path}:asleep", place, first, "sleep")
