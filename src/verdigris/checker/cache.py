"""Judgements of an unchanged tree, remembered: a second check of the same files parses nothing.

The key is the content of every file that a check reads, with the tool's own code, Python's version and the settings
that judging depends on; what a team decided (baseline, accepted, suppressed) is applied afterwards, each time anew.
Entries are JSON, so that reading one runs nothing, and one that is not the user's own is not read. A cache that cannot
be written is done without.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from verdigris import __version__
from verdigris.checker.suppressions import Suppression
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Doubt, Edit, Finding, How, Kind, Proof, Severity
from verdigris.evidence.tree import Role, Unread, found
from verdigris.evidence.values import Place
from verdigris.report.report import BoxReport

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT = 64  # entries, of all projects together


@dataclass(frozen=True, slots=True)
class Judged:
    """What a check found out before the team's decisions are applied: the part that is remembered."""

    understood: str
    recorded: str
    files: int
    unread: tuple[Unread, ...]
    boxes: tuple[BoxReport, ...]
    suppressions: tuple[Suppression, ...]
    notices: tuple[str, ...] = ()  # about the recordings


def key(root: Path, exclude: tuple[str, ...], *settings: object, also: Iterable[Path] = ()) -> str | None:
    """Return what identifies a check's input, or None where it cannot be read."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(repr((__version__, sys.version_info[:3], str(root), exclude, settings, _own_code())).encode())
    try:
        for path in (*found(root, exclude), *also):
            data = path.read_bytes() if path.is_file() else b""
            digest.update(f"\0{path}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
            digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()


def _own_code() -> tuple[tuple[str, int, int], ...]:
    """Return a mark of the checker's own files: an edited checker trusts nothing that the old one said."""
    package = Path(__file__).parents[1]
    marks = []
    for folder in ("checker", "checklist", "evidence", "report"):
        for path in sorted((package / folder).rglob("*.py")):
            status = path.stat()
            marks.append((str(path.relative_to(package)), status.st_size, status.st_mtime_ns))
    return tuple(marks)


def load(name: str) -> Judged | None:
    """Return what was remembered under a key; None if there is nothing, or nothing that can be trusted."""
    folder = _folder()
    if folder is None:
        return None
    try:
        descriptor = os.open(folder / f"{name}.json", os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, encoding="utf-8") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            return _judged(json.load(file))
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def store(name: str, judged: Judged) -> None:
    """Remember judgements under a key; where that cannot be done, do nothing."""
    folder = _folder()
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".new-", delete=False) as file:
            beside = Path(file.name)
            try:
                json.dump(_plain(judged), file, separators=(",", ":"))
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        beside.replace(folder / f"{name}.json")
        entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in entries[KEPT:]:
            old.unlink(missing_ok=True)


def _folder() -> Path | None:
    """Return the user's own cache directory; None for a user who has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "verdigris"
    try:
        return Path("~/.cache/verdigris").expanduser()
    except RuntimeError:
        return None


def _plain(judged: Judged) -> dict[str, Any]:
    return {
        "understood": judged.understood,
        "recorded": judged.recorded,
        "files": judged.files,
        "unread": [[file.path, file.reason, file.role] for file in judged.unread],
        "boxes": [
            {
                "told": [box.name, box.number, box.holds, box.fails, box.consequence],
                "verdict": box.verdict,
                "proofs": [[item.subject, item.reason, item.kind, _at(item.place)] for item in box.proofs],
                "findings": [_finding(item) for item in box.findings],
                "doubts": [[item.subject, item.reason, item.settle, _at(item.place)] for item in box.doubts],
            }
            for box in judged.boxes
        ],
        "suppressions": [
            [_at(item.place), item.names, item.reason, item.first, item.last, item.at] for item in judged.suppressions
        ],
        "notices": judged.notices,
    }


def _finding(item: Finding) -> list[Any]:
    related = [[_at(place), text] for place, text in item.related]
    told = [item.subject, item.variant, item.message, item.kind, _at(item.place), item.fix, item.consequence]
    edits = [[_at(edit.place), edit.name, edit.value, edit.safe, edit.how, edit.imports] for edit in item.edits]
    return [*told, item.severity, related, edits]


def _at(place: Place | None) -> list[Any] | None:
    return None if place is None else [place.path, place.line, place.end_line, place.column, place.end_column]


def _judged(plain: Any) -> Judged:
    return Judged(
        plain["understood"],
        plain["recorded"],
        plain["files"],
        tuple(Unread(path, reason, Role(role)) for path, reason, role in plain["unread"]),
        tuple(_box(box) for box in plain["boxes"]),
        tuple(
            Suppression(Place(*at), tuple(names), reason, first, last, line)
            for at, names, reason, first, last, line in plain["suppressions"]
        ),
        tuple(plain["notices"]),
    )


def _box(plain: Any) -> BoxReport:
    name, number, holds, fails, consequence = plain["told"]
    return BoxReport(
        name,
        number,
        holds,
        fails,
        consequence,
        Verdict(plain["verdict"]),
        tuple(Proof(subject, reason, Kind(kind), _place(at)) for subject, reason, kind, at in plain["proofs"]),
        tuple(_found(item) for item in plain["findings"]),
        tuple(Doubt(subject, reason, settle, _place(at)) for subject, reason, settle, at in plain["doubts"]),
    )


def _found(item: list[Any]) -> Finding:
    subject, variant, message, kind, at, fix, consequence, severity, related, edits = item
    return Finding(
        subject,
        variant,
        message,
        Kind(kind),
        _place(at),
        fix,
        consequence,
        Severity(severity),
        tuple((Place(*where), text) for where, text in related),
        tuple(
            Edit(Place(*where), name, value, safe, How(how), tuple(imports))
            for where, name, value, safe, how, imports in edits
        ),
    )


def _place(at: list[Any] | None) -> Place | None:
    return None if at is None else Place(*at)
