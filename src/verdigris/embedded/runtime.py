"""The runtime directory: one entry per running server, locked by its owner, swept when the owner is gone.

An entry is a directory that its owner holds under flock(2) for as long as it lives. The kernel drops the lock however
the owner ends, `kill -9` included, so an entry that can be locked is a stale one: no process id is ever trusted alone.
(systemd-tmpfiles leaves a locked directory alone too, see tmpfiles.d(5).)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.embedded.account import Account

# A socket's path must fit in sockaddr_un: 104 bytes on macOS, 108 on Linux, of which our part takes about 55.
_LONGEST_PLACE = 45


@dataclass(frozen=True, slots=True)
class Entry:
    """One server's place in the runtime directory; its locks are held while `handles` are open."""

    path: Path
    handles: list[int]

    def describe(self, data: Path, *, temporary: bool) -> None:
        """Write down what a later start needs to clean up after this one."""
        text = json.dumps({"owner": os.getpid(), "data": str(data), "temporary": temporary})
        (self.path / "server.json").write_text(text)

    def hold(self, data: Path) -> bool:
        """Lock a kept data directory for as long as this entry lives; False if another entry has it."""
        handle = _try_lock(data)
        if handle is not None:
            self.handles.append(handle)
        return handle is not None

    def remove(self) -> None:
        """Delete the entry and all in it, then let go of its locks."""
        shutil.rmtree(self.path, ignore_errors=True)
        while self.handles:
            with contextlib.suppress(OSError):
                os.close(self.handles.pop())


def runtime_directory(account: Account) -> Path:
    """Return our runtime directory, made if it is not there, in a place that the server's account can enter.

    Only its owner can write to it. Raises EmbeddedError where somebody else got hold of the name first.
    """
    places = [Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve(), Path("/var/tmp")]  # noqa: S108 - checked below
    fitting = [each for each in places if len(str(each)) <= _LONGEST_PLACE and account.reaches(each / "room")]
    room = (fitting or places)[0] / f"verdigris-{os.geteuid()}"
    # root's is entered, never listed or written, by the unprivileged account the server runs under
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        with contextlib.suppress(FileExistsError):
            room.mkdir(mode=mode)
        status = room.lstat()
    except OSError as error:
        raise unwritable(room, error) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise EmbeddedError(
            f"{room} belongs to somebody else.",
            why="A private server keeps its socket and its data there, so the directory must be ours.",
            do=(
                f"Move it away, if you know it:   rm -r {room}",
                "or use another place:   export TMPDIR=/a/directory/of/yours",
            ),
        )
    room.chmod(mode)
    return room


def new_entry(account: Account) -> Entry:
    """Clean up after servers whose owner is gone, and open an entry for one more."""
    room = runtime_directory(account)
    with _locked(room):
        for path in sorted(room.glob("server-*")):
            _sweep(path)
        try:
            path = Path(tempfile.mkdtemp(prefix="server-", dir=room))
            handle = _try_lock(path)
        except OSError as error:
            raise unwritable(room, error) from error
    if handle is None:
        raise EmbeddedError(f"{path} is locked by somebody else.", why="It was made by this process a moment ago.")
    if os.geteuid() == 0:
        path.chmod(0o711)
    return Entry(path, [handle])


def unwritable(path: Path, error: OSError) -> EmbeddedError:
    """Return the error for a place that can't be written, named after the system's own reason."""
    reason = error.strerror or str(error)
    if isinstance(error, shutil.Error):  # a copied tree's: a list of (from, to, reason), one for each file
        reason = str(error.args[0][0][2])
    return EmbeddedError(
        f"{path} cannot be written: {reason}.",
        why="A private server keeps its data and its socket there.",
        do=("Make room or grant access there", "or use another place:   server(data=...), TMPDIR=..."),
    )


def postmaster(data: Path) -> int | None:
    """Return the process id of the server that runs on `data` now."""
    try:
        process = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return process if _works_in(process, data) else None


def drop_dead_lock(data: Path) -> None:
    """Remove the lock file of a server that is gone for good.

    PostgreSQL believes any process that has the number in it: one it was given to since, or a zombie that nobody reaps
    (a container's first process often does not). It is gone when no process at all works in the data directory, which
    Linux can tell; elsewhere PostgreSQL decides. The caller holds the directory.
    """
    if not (data / "postmaster.pid").exists() or not Path("/proc/self/cwd").exists():
        return
    if not any(each.name.isdecimal() and _works_in(int(each.name), data) for each in Path("/proc").iterdir()):
        (data / "postmaster.pid").unlink(missing_ok=True)


def shut_down(process: int, data: Path, *, keep: bool, patience: float = 60.0) -> None:
    """Stop a server that is no child of ours: cleanly where its data is kept, at once where nobody will read it."""
    for number, seconds in ((signal.SIGINT, patience), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))[
        0 if keep else 1 :
    ]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _works_in(process, data):
                return
            time.sleep(0.01)


def _sweep(path: Path) -> None:
    """Remove one entry, and stop its server, if nobody holds its lock any more."""
    handle = _try_lock(path)
    if handle is None:
        return
    try:
        told = json.loads((path / "server.json").read_text())
        data, keep = Path(told["data"]), not told["temporary"]
    except (OSError, ValueError, KeyError):
        data, keep = path / "data", False
    process = postmaster(data)
    if process is not None:
        shut_down(process, data, keep=keep)
    Entry(path, [handle]).remove()


def _works_in(process: int, data: Path) -> bool:
    """Say whether `process` is a server on `data`: PostgreSQL makes its data directory its working directory."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # another account's: the number was given out again
    if Path("/proc/self/cwd").exists():
        try:
            return Path(f"/proc/{process}/cwd").readlink() == data.resolve()
        except OSError:
            return False
    command = subprocess.run(["ps", "-o", "command=", "-p", str(process)], capture_output=True, text=True, check=False)  # noqa: S607 - wherever the system keeps it
    return str(data) in command.stdout


def _try_lock(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def _locked(room: Path) -> Iterator[None]:
    """Hold the room's own lock: entries are made and swept by one process at a time."""
    handle = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
