"""Which line of the application did it: found in a microsecond or two, resolved to `path:line` when reported.

A frame listener of SQLAlchemy runs in a greenlet whose stack ends inside SQLAlchemy; the application's frames are on
the stacks of the greenlet's parents. While the program runs a place is only (code object, last instruction).
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from threading import get_ident
from typing import TYPE_CHECKING, Any

try:
    getcurrent: Callable[[], Any] = import_module("greenlet").getcurrent
except ImportError:  # SQLAlchemy's sync part works without it

    def getcurrent() -> Any:
        """Return no greenlet, which has no parent either."""
        return None


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import CodeType, FrameType

_FOREIGN, _APPLICATION, _END = 0, 1, 2
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep  # noqa: PTH120, PTH100 - pathlib costs every process ten milliseconds; as above
# Beyond these frames is whoever runs the event loop, the thread or the request, not who asked for the statement.
_ENDS = tuple(
    path.replace("/", os.sep)
    for path in (
        "/asyncio/events.py",
        "/asyncio/base_events.py",
        "/asyncio/runners.py",
        "/concurrent/futures/thread.py",
        "/fastapi/applications.py",
        "/fastapi/routing.py",
        "/fastapi/dependencies/utils.py",
        "/starlette/applications.py",
        "/starlette/background.py",
        "/starlette/middleware/base.py",
        "/starlette/middleware/errors.py",
        "/starlette/middleware/exceptions.py",
        "/starlette/responses.py",
        "/starlette/routing.py",
        "/starlette/websockets.py",
    )
)
_SUFFIXES = frozenset({".py", ".pyw", ""})  # a template's compiled code has its name, and lines of its own
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Spot:
    """One instruction of one code object; there is one Spot for it, so that it can be compared by identity."""

    __slots__ = ("code", "lasti")

    def __init__(self, code: CodeType, lasti: int) -> None:
        self.code = code
        self.lasti = lasti

    def line(self) -> int:
        """Return the line of the instruction."""
        for start, end, line in self.code.co_lines():
            if start <= self.lasti < end and line is not None:
                return line
        return self.code.co_firstlineno


def whose() -> tuple[int, int]:
    """Return the thread and greenlet that run, by their identities."""
    return get_ident(), id(getcurrent())


class Places:
    """The application's files and the spots in them that were seen."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._prefix = self.root.rstrip(os.sep) + os.sep
        self._files: dict[str, int] = {}
        self._spots: dict[tuple[int, int], Spot] = {}
        self._sites: dict[Spot, str] = {}
        self._environments = tuple(
            prefix.rstrip(os.sep) + os.sep
            for prefix in {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
            if (prefix + os.sep).startswith(self._prefix) and prefix != self.root
        )

    def here(self) -> Spot | None:
        """Return the innermost spot of the application on the stacks of this greenlet and its parents."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to one's caller
        files = self._files
        current = getcurrent()
        while True:
            while frame is not None:
                code = frame.f_code
                kind = files.get(code.co_filename)
                if kind is None:
                    kind = self._judge(code.co_filename)
                if kind:
                    return self.spot(code, frame.f_lasti) if kind == _APPLICATION else None
                frame = frame.f_back
            current = getattr(current, "parent", None)
            if current is None:
                return None
            frame = current.gr_frame

    def stack(self) -> Iterator[FrameType]:
        """Yield every frame on the stacks of this greenlet and its parents, innermost first."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as above
        current = getcurrent()
        while True:
            while frame is not None:
                yield frame
                frame = frame.f_back
            current = getattr(current, "parent", None)
            if current is None:
                return
            frame = current.gr_frame

    def caller(self, frame: FrameType | None) -> Spot | None:
        """Return the innermost spot of the application from a frame on, on this greenlet's stack only.

        It is `here` for coroutine functions: when one is called the application is a frame or two away, while from the
        greenlet in which its work is done every frame of the event loop would have to be made visible first.
        """
        files = self._files
        while frame is not None:
            code = frame.f_code
            kind = files.get(code.co_filename)
            if kind is None:
                kind = self._judge(code.co_filename)
            if kind:
                return self.spot(code, frame.f_lasti) if kind == _APPLICATION else None
            frame = frame.f_back
        return None

    def spot(self, code: CodeType, lasti: int) -> Spot:
        """Return the one Spot of an instruction."""
        key = (id(code), lasti)  # a code object's own hash is computed anew each time; the Spot keeps it alive
        spot = self._spots.get(key)
        if spot is None:
            spot = self._spots[key] = Spot(code, lasti)
        return spot

    def waiting(self, task: Any) -> Spot | None:
        """Return the innermost spot of the application where a suspended task waits."""
        found = None
        for frame in awaited(task) if task is not None else ():
            kind = self._files.get(frame.f_code.co_filename) or self._judge(frame.f_code.co_filename)
            if kind == _APPLICATION:
                found = self.spot(frame.f_code, frame.f_lasti)
            elif kind == _END:
                found = None
        return found

    def definition(self, function: Any) -> str | None:
        """Return `path:line` of a function's definition, its decorators included, when the application made it."""
        code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
        if code is None:
            code = getattr(getattr(function, "func", None), "__code__", None)
        if code is None:
            return None
        path = self.relative(code.co_filename)
        return f"{path}:{code.co_firstlineno}" if path else None

    def site(self, spot: Spot | None) -> str | None:
        """Return `path:line` of a spot."""
        if spot is None:
            return None
        site = self._sites.get(spot)
        if site is None:
            path = self.relative(spot.code.co_filename) or spot.code.co_filename
            site = self._sites[spot] = f"{path}:{spot.line()}"
        return site

    def relative(self, filename: str) -> str | None:
        """Return the path of an application file relative to the root; None for any other file."""
        if not self.is_application(filename):
            return None
        return os.path.realpath(filename)[len(self._prefix) :].replace(os.sep, "/")

    def is_application(self, filename: str) -> bool:
        """Tell whether a file belongs to the application: under the root, and no installer put it there."""
        kind = self._files.get(filename)
        return (self._judge(filename) if kind is None else kind) == _APPLICATION

    def _judge(self, filename: str) -> int:
        kind = self._files[filename] = self._kind(filename)
        return kind

    def _kind(self, filename: str) -> int:
        if filename.startswith("<") or os.path.splitext(filename)[1] not in _SUFFIXES:  # noqa: PTH122 - once per file
            return _FOREIGN
        if filename.endswith(_ENDS):
            return _END
        path = os.path.realpath(filename)
        if not path.startswith(self._prefix) or (path.startswith(_PACKAGE) and not self._prefix.startswith(_PACKAGE)):
            return _FOREIGN
        below = path[len(self._prefix) - 1 :]  # the root itself may be installed: the demo's shop in the wheel is
        if any(part in below for part in _INSTALLED) or path.startswith(self._environments):
            return _FOREIGN
        return _APPLICATION


def awaited(task: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended task, outermost first."""
    step = task.get_coro()
    for _ in range(200):
        frame = _attribute(step, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            return
        yield frame
        step = _inner(_attribute(step, "cr_await", "gi_yieldfrom", "ag_await"))


def _inner(step: Any) -> Any:
    """Look through what Python puts between an `await` and the generator it waits for."""
    if type(step).__name__ in {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}:
        return next((item for item in gc.get_referents(step) if _attribute(item, "cr_frame", "ag_frame")), None)
    return step


def _attribute(value: Any, *names: str) -> Any:
    for name in names:
        found = getattr(value, name, None)
        if found is not None:
            return found
    return None
