"""Where code is: a place is kept as (code, last instruction), which costs nothing, and named only when it is told."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping
    from types import CodeType, FrameType

_OURS = str(Path(__file__).parent)
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Place(NamedTuple):
    """A point in code, without the frame: a frame would keep every local alive."""

    code: CodeType
    instruction: int

    def __str__(self) -> str:
        lines = [line for start, end, line in self.code.co_lines() if start <= self.instruction < end and line]
        return f"{shown(self.code.co_filename)}:{lines[0] if lines else self.code.co_firstlineno}"


def caller(depth: int = 1) -> Place:
    """Return the place `depth` calls above the function that asks."""
    frame = sys._getframe(depth + 1)  # noqa: SLF001 - the one way to a frame without building a traceback
    return Place(frame.f_code, frame.f_lasti)


def shown(filename: str) -> str:
    """Return a path as a reader of the project would write it."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def is_application(filename: str) -> bool:
    """Tell whether a file is the application's: neither installed, nor the standard library's, nor ours."""
    return not filename.startswith((_OURS, *_INSTALLED, "<"))


def place_in(task: asyncio.Task[Any]) -> Place | None:
    """Return where in the application a suspended task stands, if its frames show it."""
    inner = None
    for frame in frames_of(task):
        if is_application(frame.f_code.co_filename):
            inner = Place(frame.f_code, frame.f_lasti)
    return inner


def request_in(task: asyncio.Task[Any]) -> str | None:
    """Return `GET /orders/{id}` when the task is answering a request."""
    for frame in frames_of(task):
        scope = frame.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") in {"http", "websocket"} and "route" in scope:
            return request_name(scope)
    return None


def request_name(scope: Mapping[str, Any]) -> str:
    """Name a request by method and path template, never by the path's values."""
    included = scope.get("fastapi", {}).get("effective_route_context")  # knows the prefix of an included router
    path = getattr(included, "path", None) or getattr(scope.get("route"), "path", None) or "an unknown route"
    return f"{scope.get('method', 'WEBSOCKET')} {path}"


def frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Give the frames of a suspended task from its outermost coroutine inwards."""
    step: Any = task.get_coro()
    for _ in range(200):
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None) or getattr(step, "ag_frame", None)
        if frame is None:
            return
        yield frame
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None) or getattr(step, "ag_await", None)
