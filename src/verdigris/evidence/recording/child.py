"""The recorder inside a process that `verdigris record` began: started by sitecustomize, saved on every way out.

A process saves when it ends, when SIGTERM or SIGHUP would end it, when it becomes another program, and every second or
so in between: what a SIGKILL takes is at most that. There is no thread of ours before there is something to save.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import wraps
from pathlib import Path
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any

import verdigris
from verdigris.evidence.recording.patches import Arrivals
from verdigris.evidence.recording.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

DIRECTORY = "VERDIGRIS_RECORDING"
ROOT = "VERDIGRIS_RECORDING_ROOT"
IDLE, IMPORTED = ".idle", ".imported"  # what a process leaves that has nothing to record
_PLUGIN = "verdigris.evidence.recording.suites"
_EVERY = 1.0  # seconds
_SHARE = 50  # at most this part of the time goes into saving
_ENDING = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")  # what ends a program by default, and is sent to end one
_PATIENCE = 5.0  # seconds for a save that goes on elsewhere


class Keeper:
    """Saves one process's recording under a name of its own."""

    def __init__(self, recorder: Recorder, directory: Path) -> None:
        self.end: Callable[[int], None] = signal.raise_signal
        self.recorder = recorder
        self.directory = directory
        self._saved: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._saving = False  # in the main thread, which is the one that handles signals
        self._signal: int | None = None
        self._forking = threading.RLock()
        self._ending = threading.Event()
        self._watcher: threading.Thread | None = None
        self.path = self._name()

    def save(self, *, final: bool = True) -> None:
        """Save what was seen so far; never raises. Unless it is the last time, only if there is anything new."""
        if threading.current_thread() is not threading.main_thread():
            self._save(final=final)
            return
        self._saving = True
        try:
            self._save(final=final)
        finally:
            self._saving = False
            if self._signal is not None:
                self.end(self._signal)

    def end_by(self, number: int) -> None:
        """Save and end by a signal; one that comes within a save, as a pool's to workers that end, waits for it."""
        if self._saving:
            self._signal = number
            return
        self.save()
        self.end(number)

    def _save(self, *, final: bool) -> None:
        recorder = self.recorder
        states = list(recorder.engines.states.values())
        seen = (sum(state.created + state.connects + state.statements for state in states), self._requests())
        is_idle = not states and not seen[1] and not recorder.troubles and recorder.tests is None
        if is_idle and final:
            self._tell_idle()
        if is_idle or (seen == self._saved and not final) or not self.directory.is_dir():
            return  # where the directory is gone the recording is over, and this process outlived it
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            recorder.artefact().save(self.path)
            self._saved = seen
        except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
            recorder.trouble("saving", error)
        finally:
            self._lock.release()

    def _tell_idle(self) -> None:
        """Leave word that a Python ran here that did nothing to record, and whether it imported SQLAlchemy."""
        with suppress(OSError):  # the directory may be gone
            self.path.with_suffix(IMPORTED if "sqlalchemy" in sys.modules else IDLE).touch()

    def wait(self) -> None:
        """Save now and then, from a thread of its own, as soon as there is something to save.

        Until then there is no thread: Python warns of a fork beside threads, and in 3.13 counts those after it.
        """
        self.recorder.begins = self._begin

    def _begin(self) -> None:
        with self._forking:
            if self.recorder.begins is None:
                return  # another thread was first
            self.recorder.begins = None
            self._ending = threading.Event()
            self._watcher = threading.Thread(
                target=self._watch, args=(self._ending,), name="verdigris-recording", daemon=True
            )
            with suppress(RuntimeError):  # the interpreter ends: the last save is to come
                self._watcher.start()

    def follow_forks(self) -> None:
        """Let no thread of ours run while the process forks, and save the child's recording beside its parent's.

        The child has none of its parent's threads, but all the locks that they held, those of modules being imported
        too: it would wait for them for ever.
        """
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._rest, after_in_parent=self._go_on, after_in_child=self._forked)

    def _rest(self) -> None:
        self._forking.acquire()
        self._ending.set()
        if self._watcher is not None and self._watcher.is_alive():
            self._watcher.join(_PATIENCE)

    def _go_on(self) -> None:
        self.wait()
        self._forking.release()

    def _forked(self) -> None:
        """Start anew: what the parent saw is the parent's."""
        self.path = self._name()
        self._lock = threading.Lock()
        self._forking = threading.RLock()
        self.recorder.forget()
        self._saved = (0, 0)
        self.wait()

    def _name(self) -> Path:
        return self.directory / f"{os.getpid()}-{token_hex(4)}.json"

    def _requests(self) -> int:
        return sum(total.count for total in list(self.recorder.ledger.routes.values()))

    def _watch(self, ending: threading.Event) -> None:
        pause = _EVERY
        while not ending.wait(pause):
            start = perf_counter()
            self.save(final=False)
            pause = max(_EVERY, _SHARE * (perf_counter() - start))


def start() -> None:
    """Record this process; what to record and where to save it is in the environment."""
    directory = Path(os.environ[DIRECTORY])
    if not directory.is_dir():
        return  # the recording is over; this process outlived it
    _accept_being_early()
    recorder = Recorder(os.environ.get(ROOT, "."))
    recorder.start()
    keeper = Keeper(recorder, directory)
    atexit.register(keeper.save)
    _save_on_signals(keeper)
    Arrivals({"multiprocessing.synchronize": _notice_signals}).start()
    keeper.follow_forks()
    for name in ("_exit", "execv", "execve"):  # every other exec of os calls one of the two
        setattr(os, name, _saving_before(getattr(os, name), keeper))
    plugins = os.environ.get("PYTEST_PLUGINS", "")
    if _PLUGIN not in plugins:
        os.environ["PYTEST_PLUGINS"] = f"{plugins},{_PLUGIN}" if plugins else _PLUGIN
    keeper.wait()


def _accept_being_early() -> None:
    """Tell pytest that this package may be imported before it: its warning would be an error in a strict project."""
    verdigris.__doc__ = f"{verdigris.__doc__ or ''}\nPYTEST_DONT_REWRITE"


def _save_on_signals(keeper: Keeper) -> None:
    """Save before a signal that would end the process does so; one that the program handles is its own affair.

    A program that asks, or sets the default itself as the workers of servers do, finds the signals as they were.
    """
    numbers = {getattr(signal, name) for name in _ENDING if hasattr(signal, name)}
    assign, ask = signal.signal, signal.getsignal

    def handle(received: int, _frame: FrameType | None) -> None:
        keeper.end_by(received)

    def end(received: int) -> None:
        assign(received, signal.SIG_DFL)
        os.kill(os.getpid(), received)

    def assigning(signalnum: Any, handler: Any) -> Any:
        ours = handler == signal.SIG_DFL and signalnum in numbers
        before = assign(signalnum, handle if ours else handler)
        return signal.SIG_DFL if before is handle else before

    def asking(signalnum: Any) -> Any:
        handler = ask(signalnum)
        return signal.SIG_DFL if handler is handle else handler

    keeper.end = end
    signal.signal, signal.getsignal = wraps(assign)(assigning), wraps(ask)(asking)
    for number in numbers:
        if ask(number) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
            assign(number, handle)


def _notice_signals(synchronize: ModuleType) -> None:
    """Let waits for multiprocessing's locks end now and then, and go on.

    A Pool ends its workers by SIGTERM while they wait for such a lock. A handler of Python's runs between two
    instructions: where the signal comes just before the wait begins, or to another thread, it would never run.
    """

    def __enter__(lock: Any) -> bool:  # noqa: N807 - what it stands in for
        while not lock._semlock.acquire(True, _EVERY):  # noqa: SLF001 - as the original, by position
            continue
        return True

    synchronize.SemLock.__enter__ = __enter__


def _saving_before(leave: Callable[..., Any], keeper: Keeper) -> Callable[..., Any]:
    """Save before this process is gone without atexit: multiprocessing's forked children leave by `os._exit`."""

    @wraps(leave)
    def leaving(*args: Any, **kwargs: Any) -> Any:
        keeper.save(final=False)
        return leave(*args, **kwargs)

    return leaving
