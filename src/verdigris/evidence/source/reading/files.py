"""The files of a code base: found, read, classified; what cannot be read is named, never skipped in silence."""

from __future__ import annotations

import ast
import re
import stat
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verdigris.evidence.tree import LOCKS, Role, Unread, found, role_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LARGEST = 4_000_000  # bytes; generated tables beyond that hold no code that anyone wrote
RELEVANT = re.compile(
    rb"sqlalchemy|alembic|checkedout|sqlmodel|fastapi|asyncpg|pydantic|verdigris|starlette|tenacity|stamina|[sS]ession"
    rb"|pytest|[rR]epositor|Router\("
)

_LOCKED = re.compile(  # as uv, Poetry, PDM and PEP 751 write it, and as Pipenv does
    rb"""^name = "(fastapi|advanced-alchemy|sqlalchemy)"\r?\nversion = "([^"\n]+)"|"""
    rb""""(fastapi|advanced-alchemy|sqlalchemy)": \{[^{}]*?"version": "==([^"\n]+)\"""",
    re.MULTILINE | re.IGNORECASE,
)


def lines_of(text: str) -> list[str]:
    """Split a text where Python's parser does: a form feed, or a separator of Unicode's, ends no line."""
    return re.split(r"\r\n|\r|\n", text)


@dataclass(slots=True)
class SourceFile:
    """A parsed Python file; `path` is relative to the checked directory, with forward slashes."""

    path: str
    text: str
    role: Role
    tree: ast.Module
    ascii: bool = field(init=False)
    _lines: list[str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Look once at what every place asks for."""
        self.ascii = self.text.isascii()

    @property
    def lines(self) -> list[str]:
        """The lines of the text, as the parser counts them."""
        if self._lines is None:
            self._lines = lines_of(self.text)
        return self._lines

    def column(self, line: int, offset: int) -> int:
        """Return the column of a byte of a line in UTF-8."""
        if not 0 < line <= len(self.lines):
            return offset
        return len(self.lines[line - 1].encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace"))


@dataclass(slots=True)
class Files:
    """Everything found under the checked directory."""

    root: Path
    python: list[SourceFile] = field(default_factory=list)
    irrelevant: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    locked: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # a lock file's versions of what matters here

    @property
    def count(self) -> int:
        """How many Python files were found, read or not."""
        return len(self.python) + len(self.irrelevant) + len(self.unread)


def read(root: Path, exclude: Iterable[str] = ()) -> Files:
    """Read every Python and settings file under `root`.

    Files without a word of the field in them are counted, not parsed; a module of constants that others import is
    parsed on demand (`parse`). Unreadable ones are listed with the reason.
    """
    files = Files(root)
    for path in found(root, tuple(exclude)):
        relative = path.relative_to(root).as_posix() if path != root else path.name
        if path.suffix == ".py":
            _read_python(files, path, relative)
        elif LOCKS.match(path.name):
            _read_lock(files, path, relative)
        else:
            _read_settings(files, path, relative)
    return files


def parse(files: Files, relative: str) -> SourceFile | None:
    """Parse a file that had been passed over as irrelevant, because another one imports it."""
    path = files.root / relative if files.root.is_dir() else files.root
    try:
        data = path.read_bytes()
        return SourceFile(relative, *_parsed(data, relative))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _read_python(files: Files, path: Path, relative: str) -> None:
    role = role_of(relative)
    data = _content(path)
    if isinstance(data, str):
        files.unread.append(Unread(relative, data, role))
        return
    if role is not Role.TEST and not RELEVANT.search(data):
        files.irrelevant.append(relative)
        return
    try:
        text, role, tree = _parsed(data, relative)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        files.unread.append(Unread(relative, _why(error, data), role))
        return
    files.python.append(SourceFile(relative, text, role, tree))


def _parsed(data: bytes, relative: str) -> tuple[str, Role, ast.Module]:
    if b"\0" in data:
        message = "it contains a NUL byte"
        raise ValueError(message)
    text = data.decode("utf-8-sig") if not _declares_encoding(data) else _decoded(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return text, role_of(relative, text), ast.parse(text)


def _declares_encoding(data: bytes) -> bool:
    return any(b"coding" in line for line in data.split(b"\n", 2)[:2])


def _decoded(data: bytes) -> str:
    found = re.search(rb"coding[:=]\s*([-\w.]+)", b"\n".join(data.split(b"\n", 2)[:2]))
    try:
        return data.decode(found[1].decode("ascii") if found else "utf-8-sig")
    except LookupError as error:
        message = f"its declared encoding is not known: {error}"
        raise ValueError(message) from error


def _why(error: BaseException, data: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()} (byte {error.start})"
    if isinstance(error, SyntaxError):
        if b"{{" in data and b"}}" in data and re.search(rb"\{%|\{\{\s*\w+", data):
            return f"it is a template, or broken at line {error.lineno}: {error.msg}"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"it is broken at line {error.lineno} or newer than Python {version}'s grammar: {error.msg}"
    if isinstance(error, (RecursionError, MemoryError)):
        return "it is nested too deeply to be parsed"
    return str(error)


def _read_settings(files: Files, path: Path, relative: str) -> None:
    data = _content(path)
    if isinstance(data, str):
        files.unread.append(Unread(relative, data))
    else:
        files.settings[relative] = data.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _read_lock(files: Files, path: Path, relative: str) -> None:
    """Take out of a lock file the versions that judgements depend on; one that cannot be read says nothing."""
    data = _content(path)
    if isinstance(data, str):
        return
    versions: dict[str, list[str]] = {}
    for toml, toml_version, pipenv, pipenv_version in _LOCKED.findall(data):
        versions.setdefault((toml or pipenv).decode().lower(), []).append((toml_version or pipenv_version).decode())
    if versions:
        files.locked[relative] = versions


def _content(path: Path) -> bytes | str:
    """Return what is in a file, or why it was not read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            return "it is no regular file"
        if status.st_size > LARGEST:
            return f"it has {status.st_size:,} bytes; the limit is {LARGEST:,}"
        return path.read_bytes()
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"


__all__ = ["Files", "Role", "SourceFile", "Unread", "found", "parse", "read", "role_of"]
