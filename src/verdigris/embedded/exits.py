"""Stopping what still runs when the process ends: at exit, and on signals that would end it without a word."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_stops: list[Callable[[], None]] = []


def stop_at_exit(stop: Callable[[], None]) -> None:
    """Have `stop` called at exit, also when the process is told to end by SIGTERM or SIGHUP."""
    if not _stops:
        atexit.register(_stop_all)
    _stops.append(stop)


def stopped(stop: Callable[[], None]) -> None:
    """Forget a `stop` that was called; the last one gives the signals back."""
    if stop in _stops:
        _stops.remove(stop)
    if not _stops:
        atexit.unregister(_stop_all)
        release_signals()


def watch_signals() -> None:
    """Take the signals nobody else handles; only the main thread can, elsewhere this does nothing.

    A program that handles them itself (uvicorn, asyncio) ends in its own way, through the context manager or atexit.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _stop_and_die)


def release_signals() -> None:
    """Give back the signals that are still ours."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _stop_and_die:
                signal.signal(number, signal.SIG_DFL)


def _stop_all() -> None:
    for stop in reversed(_stops.copy()):
        stop()


def _stop_and_die(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's own signature
    _stop_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
