"""Synchronous database work on the event loop: directly in an `async def`, or through a plain call from one."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.concurrency.reach import Frequency
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place

DEPTH = 4
_IO = (
    "execute",
    "scalar",
    "scalars",
    "query",
    "commit",
    "flush",
    "refresh",
    "exec",
    "merge",
    "connection",
    "connect",
    "begin",
    "get",
)
_ENGINE = {"connect", "begin", "execute", "raw_connection"}
_SESSION = set(_IO) - {"connect", "begin"}


@dataclass(frozen=True, slots=True)
class BlockingUse(Subject):
    """An async function that waits for a synchronous driver, and so stops every other task of its loop.

    `variant` is sync-in-async, or sync-session for a synchronous Session on an asynchronous engine.
    """

    key: str
    place: Place
    variant: str
    told: str
    uses: tuple[Place, ...] = ()


def blocking_uses(source: Source) -> list[BlockingUse]:
    """Find them: one for each async function."""
    found: dict[Scope, list[tuple[Place, str]]] = {}
    plain: dict[Scope, str] = {}
    for call, what in _sinks(source):
        function = call.scope.function
        if function is None or function.module.role is not Role.APPLICATION:
            continue
        if function.is_async:
            found.setdefault(function, []).append((call.place, what))
        elif not isinstance(function.node, ast.Lambda):
            plain.setdefault(function, what)
    _spread(source, plain, found)
    uses = [_use(source, function, sites) for function, sites in found.items()]
    return [*(use for use in uses if use is not None), *_mixed(source)]


def _sinks(source: Source) -> Iterator[tuple[Call, str]]:
    for call in source.calls.named(*_IO):
        func = call.node.func
        if not isinstance(func, ast.Attribute) or call.module.role is not Role.APPLICATION:
            continue
        if (func.attr == "get" and len(call.node.args) < 2) or _awaited(call):
            continue
        found = source.types.of(func.value, call.scope)
        if found is None:
            continue
        if func.attr in _SESSION and source.types.session_type(found) == "sync":
            yield call, f"`{ast.unparse(func)}()` on a synchronous Session"
        elif func.attr in _ENGINE and isinstance(found, External) and found.named("sqlalchemy", "Engine", "Connection"):
            yield call, f"`{ast.unparse(func)}()` on a synchronous {found.leaf}"


def _awaited(call: Call) -> bool:
    """Tell whether a call is awaited: what it is called on is asynchronous, whatever its annotation says."""
    parent = call.module.parents.get(call.node)
    around = call.module.parents.get(parent) if isinstance(parent, ast.withitem) else parent
    return isinstance(around, (ast.Await, ast.AsyncWith))


def _spread(source: Source, plain: dict[Scope, str], found: dict[Scope, list[tuple[Place, str]]]) -> None:
    """Follow the callers of synchronous functions; one that is handed to a thread or to run_sync is not called here."""
    wave, seen = list(plain), set(plain)
    for _ in range(DEPTH):
        callers: list[Scope] = []
        for function in wave:
            for call in source.calls.to(function):
                caller = call.scope.function
                if caller is None or caller.module.role is not Role.APPLICATION or _within_run_sync(call):
                    continue
                if caller.is_async:
                    found.setdefault(caller, []).append(
                        (call.place, f"`{function.name}()`, which is synchronous database work,")
                    )
                elif caller not in seen and not isinstance(caller.node, ast.Lambda):
                    seen.add(caller)
                    callers.append(caller)
        wave = callers


def _within_run_sync(call: Call) -> bool:
    """A generator function that is entered later, and a context manager, are judged where they are entered."""
    return isinstance(call.scope.node, ast.Lambda)


def _use(source: Source, function: Scope, sites: list[tuple[Place, str]]) -> BlockingUse | None:
    if source.reaches.function(function).frequency in {Frequency.ONCE, Frequency.TASK}:
        return None  # at start-up, in a command or in a worker's own loop nobody else waits
    place, what = min(sites)
    return BlockingUse(
        key=function.key,
        place=place,
        variant="sync-in-async",
        told=f"{what} runs on the event loop in `async def {function.name}()`",
        uses=tuple(sorted({site for site, _ in sites})),
    )


def _mixed(source: Source) -> Iterator[BlockingUse]:
    """Yield `Session(async_engine)`: a synchronous Session cannot use an AsyncEngine's driver at all."""
    for call, _ in source.calls.outside({"sqlalchemy", "sqlmodel"}, "Session", "sessionmaker"):
        given = [*call.node.args[:1], *(kw.value for kw in call.node.keywords if kw.arg == "bind")]
        bound = source.types.of(given[0], call.scope) if given else None
        if call.module.role is not Role.APPLICATION or not isinstance(bound, External) or bound.leaf != "AsyncEngine":
            continue
        if source.types.of(call.node, call.scope) != External("sqlalchemy.ext.asyncio.async_sessionmaker"):
            yield BlockingUse(
                key=call.scope.key,
                place=call.place,
                variant="sync-session",
                told=f"`{ast.unparse(call.node)}` puts a synchronous Session on an AsyncEngine",
                uses=(call.place,),
            )
