"""One server for all workers of a run: the first that needs it starts it, and stops it when the others are done."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from verdigris.testing.databases import Databases, refuse_unless_test

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_rooms: dict[str, Path] = {}


@contextmanager
def server_for(url: str, room: Path) -> Iterator[Databases]:
    """Give the tests' server; `room` is a directory that the workers of this run have in common."""
    if url:
        parsed = refuse_unless_test(url)
        with _run_of(room) as run:
            databases = Databases(parsed, f"{(parsed.database or 'app')[:20]}_test_{run}")
            _rooms[databases.prefix] = room
            with _users(room / "verdigris-users.lock") as users:
                yield databases
                if users.is_last():
                    databases.drop_all()
        return
    with _users(room / "verdigris-users.lock") as users, _started(room, users) as address:
        databases = Databases(make_url(address))
        _rooms[databases.prefix] = room
        yield databases


@contextmanager
def locked(databases: Databases) -> Iterator[None]:
    """Hold back the other workers of this run."""
    with _lock(_rooms[databases.prefix] / "verdigris.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def _started(room: Path, users: Users) -> Iterator[str]:
    from verdigris.embedded import server

    note = room / "verdigris-server.json"
    with contextlib.ExitStack() as stack:
        with _lock(room / "verdigris.lock", fcntl.LOCK_EX):
            known = json.loads(note.read_text()) if note.exists() else {}
            alive = bool(known) and _is_alive(known["starter"])
            if not alive:
                running = stack.enter_context(server(durable=False, settings={"max_connections": 200}))
                known = {"url": running.url, "starter": os.getpid()}
                note.write_text(json.dumps(known))
        yield known["url"]
        if not alive:
            users.wait_for_others()
            note.unlink(missing_ok=True)


class Users:
    """A shared lock that each worker holds while it uses the server; the kernel drops that of a worker that dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_last(self) -> bool:
        """Whether no other worker uses the server any more."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait_for_others(self) -> None:
        """Return when no other worker uses the server."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)


@contextmanager
def _users(path: Path) -> Iterator[Users]:
    with _lock(path, fcntl.LOCK_SH) as descriptor:
        yield Users(descriptor)


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _run_of(room: Path) -> Iterator[str]:
    """Give a name for this run, so that two runs on one server do not share their databases."""
    note = room / "verdigris-run.txt"
    with _lock(room / "verdigris.lock", fcntl.LOCK_EX):
        if not note.exists():
            note.write_text(uuid.uuid4().hex[:8])
    yield note.read_text()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
