"""`verdigris record -- CMD`: run a command with the recorder in every Python process that it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import TYPE_CHECKING

from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording.artefact import RecorderError, Recording
from verdigris.evidence.recording.child import IDLE, IMPORTED
from verdigris.evidence.recording.codec import ArtefactError
from verdigris.evidence.recording.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

_INJECTED = Path(__file__).with_name("injected")
TOO_OLD = ".python"  # what a process leaves whose Python is too old; its version follows
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")


def run(argv: Sequence[str], *, output: Path, root: Path) -> int:
    """Run a command, write what its processes did to `output` and return its exit code.

    A command that a signal ended returns 128 + the signal's number, as shells do. The recording is written whatever
    the end: an exit code, Ctrl-C, SIGTERM or a crash. One line on what was recorded goes to standard error.

    Raise EvidenceError when the command can't be started or the recording can't be written.
    """
    if not argv:
        raise EvidenceError(
            "There is no command to record.",
            why="The recorder runs inside the processes of a command.",
            do=("verdigris record -- pytest", "verdigris record -- uvicorn app.main:app"),
        )
    if not root.is_dir():
        raise EvidenceError(f"{root} is no directory.", why="The application's files are those under --root.")
    _check_writable(output)
    directory = Path(mkdtemp(prefix="verdigris-recording-"))
    started, clock = datetime.now(UTC), perf_counter()
    try:
        code = _run(argv, _environment(directory, root))
        recording = replace(
            collect(directory),
            command=tuple(argv),
            exit_code=code,
            root=root.resolve().name,
            started=started.isoformat(timespec="seconds"),
            seconds=perf_counter() - clock,
        )
        recording.save(output)
        told = summary(recording) if recording.processes else nothing(directory)
        old = too_old(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stderr.write(f"{told} {output}\n{old}")
    return code


def collect(directory: Path) -> Recording:
    """Merge what the processes saved; one that cannot be read is named among the recorder's errors."""
    parts, errors = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            parts.append(Recording.load(path))
        except ArtefactError as error:
            errors.append(RecorderError("a process's recording", error.why))
    merged = merge(parts)
    return replace(merged, recorder_errors=(*merged.recorder_errors, *errors))


def nothing(directory: Path) -> str:
    """Say why a recording holds nothing, ending as `summary` does: by what processes left that had nothing to save."""
    why = "no process of the command imported SQLAlchemy in a Python that reads PYTHONPATH"
    if any(directory.glob(f"*{TOO_OLD}*")):
        why = "no process of the command ran a Python that the recorder runs in"
    if any(directory.glob(f"*{IMPORTED}")):
        why = "the command imported SQLAlchemy, but made no engine and answered no request"
    elif any(directory.glob(f"*{IDLE}")):
        why = "no process of the command imported SQLAlchemy"
    return f"Nothing was recorded: {why}. The empty recording is"


def too_old(directory: Path) -> str:
    """Say which processes ran on a Python that cannot run the recorder; nothing where there were none."""
    counts = Counter(path.name.partition(TOO_OLD)[2] for path in directory.glob(f"*{TOO_OLD}*"))
    return "".join(
        f"  Not recorded: {count} process{'es' * (count != 1)} of Python {version}; the recorder "
        "needs 3.11 at least: run the command in an environment of one.\n"
        for version, count in sorted(counts.items())
    )


def summary(recording: Recording) -> str:
    """Say in one line what a recording holds, ending where its file's name can follow."""
    tests = f"{recording.tests.run} tests, " if recording.tests is not None else ""
    exercised = {request.route for request in recording.requests if "(unmatched)" not in request.route}
    routes = f"{len(exercised & set(recording.routes))} of {len(recording.routes)} routes, " if recording.routes else ""
    processes = "1 process" if recording.processes == 1 else f"{recording.processes} processes"
    count = sum(statement.count for statement in recording.statements)
    return f"Recorded {processes}: {tests}{routes}{count} statements in"


def _check_writable(output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(
            f"The recording could not be written to {output}.",
            why=f"{type(error).__name__}: {error.strerror}",
            do=("Name another file with --output.",),
        ) from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        why = "It is a directory." if output.is_dir() else f"{output.parent} cannot be written to."
        raise ArtefactError(
            f"The recording could not be written to {output}.", why=why, do=("Name another file with --output.",)
        )


def _environment(directory: Path, root: Path) -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_INJECTED), *([before] if before else [])]),
        "VERDIGRIS_RECORDING": str(directory),
        "VERDIGRIS_RECORDING_ROOT": str(root.resolve()),
    }


def _run(argv: Sequence[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(list(argv), env=environment)
    except OSError as error:
        raise EvidenceError(
            f"{argv[0]} could not be started.",
            why=f"{error.strerror or error}.",
            do=("Name the command as a shell would find it:   verdigris record -- python -m uvicorn app.main:app",),
        ) from error
    with _forwarding(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass signals on to the command; a terminal's Ctrl-C reaches it anyway, and twice would mean "at once" to some."""

    def forward(number: int, _frame: FrameType | None) -> None:
        if number in {signal.SIGINT, getattr(signal, "SIGQUIT", None)} and _terminal_tells_all():
            return
        if process.poll() is None:
            process.send_signal(number)

    before = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminal_tells_all() -> bool:
    for descriptor in (0, 1, 2):
        try:
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                return True
        except OSError:  # no terminal
            continue
    return False
