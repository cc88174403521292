"""Edits carried out in files: each is written whole or not at all, and one that is not as it was checked is left."""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
import tokenize
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from verdigris.evidence.tree import found
from verdigris.fix.text import Unwritable, edited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from verdigris.evidence.judgement import Edit

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Changed:
    """What becomes of one file: its bytes before and after, or why it is left alone."""

    path: str
    edits: tuple[Edit, ...]
    before: bytes = b""
    after: bytes = b""
    encoding: str = "utf-8"
    left: str | None = None

    def diff(self, shown: str) -> bytes:
        """Return a unified diff under a name, as `git apply` and `patch` take it: bytes of the file's own encoding.

        They know one end of a line only, and take a name to its first blank where no tab ends it.
        """
        before, after = (_LINE.findall(data.decode("latin-1")) for data in (self.before, self.after))
        name = os.fsencode(f"{shown}\t" if " " in shown else shown).decode("latin-1")
        lines = difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")
        ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
        return "".join(ended).encode("latin-1")

    def shown_diff(self, shown: str) -> str:
        """Return the diff to read: in letters, whatever the encoding of the file."""
        return self.diff(shown).decode(self.encoding, "replace")


def snapshot(root: Path, exclude: tuple[str, ...]) -> dict[Path, tuple[int, int]]:
    """Return how all files look before they are checked; what looks otherwise afterwards is not edited."""
    looks = {}
    for path in found(root, exclude):
        with suppress(OSError):
            looks[path] = _look(path)
    return looks


def _look(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def changes(root: Path, edits: Iterable[Edit], looks: Mapping[Path, tuple[int, int]]) -> Iterator[Changed]:
    """Yield what edits make of their files, in the order of the paths; nothing is written.

    A file with several names, by links, is edited under the first.
    """
    grouped: dict[str, dict[Edit, None]] = defaultdict(dict)
    for edit in edits:
        grouped[edit.place.path][edit] = None
    seen: set[str] = set()
    for name in sorted(grouped, key=lambda name: ((root / name).is_symlink(), name)):
        path = root / name if root.is_dir() else root
        wanted = tuple(grouped[name])
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            yield _changed(root, path, name, wanted, looks.get(path))
        except Unwritable as error:
            yield Changed(name, wanted, left=str(error))
        except OSError as error:
            yield Changed(name, wanted, left=f"it cannot be read: {error.strerror or error}")


def _changed(root: Path, path: Path, name: str, edits: tuple[Edit, ...], look: tuple[int, int] | None) -> Changed:
    data = path.read_bytes()
    real = path.resolve()
    within = root.resolve() if root.is_dir() else root.resolve().parent
    if not real.is_relative_to(within):
        raise Unwritable(f"it is a link that leads out of the project, to {real}")
    if look != _look(path):
        raise Unwritable("it changed while it was checked: fix again")
    if not real.stat().st_mode & stat.S_IWUSR or not os.access(real, os.W_OK):
        raise Unwritable("it is read-only")
    bare = data.removeprefix(_BOM)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(bare).readline)
        text = bare.decode(encoding)
        after = data[: len(data) - len(bare)] + edited(text, edits).encode(encoding)
    except (SyntaxError, UnicodeError) as error:
        raise Unwritable("its encoding is not settled") from error
    return Changed(name, edits, data, after, encoding)


def write(root: Path, change: Changed) -> str | None:
    """Write one file, whole or not at all; return why it was left alone, if it was."""
    path = (root / change.path if root.is_dir() else root).resolve()
    try:
        if path.read_bytes() != change.before:
            return "it changed meanwhile: fix again"
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            try:
                file.write(change.after)
                file.flush()
                os.fsync(file.fileno())  # a name is not to lead to a file that only memory has
                _keep_owner(path, beside)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        try:
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"it cannot be written: {error.strerror or error}"
    return None


def _keep_owner(path: Path, beside: Path) -> None:
    status = path.stat()
    beside.chmod(stat.S_IMODE(status.st_mode))
    if hasattr(os, "chown"):  # which Windows has not
        with suppress(PermissionError):
            os.chown(beside, status.st_uid, status.st_gid)
