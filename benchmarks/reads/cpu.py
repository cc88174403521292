"""CPU seconds that processes have used, from Linux's /proc, in nanosecond resolution."""

from __future__ import annotations

import contextlib
from pathlib import Path

PROC = Path("/proc")


def of_process(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    nanoseconds = 0
    for task in (PROC / str(pid) / "task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that just ended
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def of_children(pid: int) -> dict[int, float]:
    """Return the CPU seconds of a process and of each process that it started."""
    found = {pid: of_process(pid)}
    for line in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            found[int(line)] = of_process(int(line))
    return found


def used(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the CPU seconds between two looks; a process that ended in between is not counted."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
