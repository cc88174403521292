"""The tree that is checked: which of its files are read, and what each is for. Nothing is opened here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED = frozenset(
    {
        ".git",
        ".hg",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".venv",
        "__pycache__",
        "__pypackages__",
        "build",
        "dist",
        "node_modules",
        "site-packages",
        "venv",
    }
)
SETTINGS = re.compile(
    r"^(pyproject\.toml|\.?pytest\.(toml|ini)|tox\.ini|setup\.cfg|(.+\.)?[Mm]akefile|alembic\.ini|pgbouncer\.ini|\.env([.\-].*)?|.+\.env|.*requirements.*\.txt|(docker-)?compose.*\.ya?ml)$"
)
LOCKS = re.compile(r"^(uv\.lock|poetry\.lock|pdm\.lock|Pipfile\.lock|pylock(\..+)?\.toml)$")

_FIXTURE = re.compile(r"^@(pytest|pytest_asyncio)\.fixture\b", re.MULTILINE)  # only tests take what it makes


class Role(StrEnum):
    """What a file is for; boxes judge application code, and tests where the box is about tests."""

    APPLICATION = "application"
    TEST = "test"
    MIGRATION = "migration"
    SCRIPT = "script"
    EXAMPLE = "example"


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be read, and why."""

    path: str
    reason: str
    role: Role = Role.APPLICATION


def found(root: Path, exclude: tuple[str, ...]) -> Iterator[Path]:
    """Yield the Python, settings and lock files that a check reads, in a stable order."""
    if root.is_file():
        yield root
        return
    for directory, names, files in os.walk(root):
        inside = PurePosixPath(Path(directory).relative_to(root).as_posix())
        names[:] = sorted(
            name
            for name in names
            if name not in SKIPPED
            and not name.endswith(".egg-info")
            and not _excluded(inside / name, exclude)
            and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - never raises
        )
        for name in sorted(files):
            wanted = (
                name.endswith(".py")
                or SETTINGS.match(name)
                or LOCKS.match(name)
                or (inside.name, name[-4:]) == ("requirements", ".txt")
            )
            if wanted and not _excluded(inside / name, exclude):
                yield Path(directory) / name


def matching_nothing(root: Path, patterns: tuple[str, ...]) -> list[str]:
    """Return the patterns that leave nothing out of a directory; what is left out anyway counts as something."""
    left = list(patterns)
    for directory, names, files in os.walk(root) if patterns else ():
        inside = PurePosixPath(Path(directory).relative_to(root).as_posix())
        left = [each for each in left if not any(_excluded(inside / name, (each,)) for name in (*names, *files))]
        if not left:
            break
        names[:] = [name for name in names if name not in SKIPPED]
    return left


def _excluded(path: PurePosixPath, patterns: tuple[str, ...]) -> bool:
    return any(path.match(pattern) or str(path) == pattern.rstrip("/") for pattern in patterns)


def role_of(relative: str, text: str = "") -> Role:
    """Tell what a file is for from its path; an `env.py` of Alembic and a plugin of pytest by what they say."""
    path = PurePosixPath(relative)
    folders = {part.lower() for part in path.parts[:-1]}
    name = path.name
    named_test = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    plugin = any(folder.startswith("pytest") for folder in folders) or _FIXTURE.search(text)
    if folders & {"tests", "test", "testing"} or named_test or plugin:
        return Role.TEST
    if folders & {"alembic", "versions", "migrations"} or (name == "env.py" and "alembic" in text):
        return Role.MIGRATION
    outer = {part.lower() for part in path.parts[:2]} & folders  # deeper inside, `tools` is a name like any other
    if outer & {"tools", "bin", "bench"} or folders & {"scripts", "script", "seeds", "seeders", "benchmarks"}:
        return Role.SCRIPT
    if folders & {"examples", "example", "docs_src", "docs", "samples", "cookbook", "notebooks"}:
        return Role.EXAMPLE
    return Role.APPLICATION
