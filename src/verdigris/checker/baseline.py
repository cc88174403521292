"""The baseline: findings of old code that are known, so that only new ones fail.

A finding is recognised by its rule, its subject's key and its ordinal among those – never by its line, so that edits
above it change nothing. An entry remembers which evidence found it: a check without that evidence calls it neither
stale nor gone.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from verdigris.checker.usage import UsageError
from verdigris.evidence.judgement import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from verdigris.report.report import BoxReport, Report

FORMAT = "verdigris baseline"
SCHEMA_VERSION = 1
NAME = "verdigris-baseline.json"
_PAGE = "verdigris explain docs/configuration.md"


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One known finding; `evidence` and `message` are there for the reader and are no part of its identity."""

    rule: str
    subject: str
    ordinal: int
    evidence: str = Kind.SOURCE.value
    message: str = ""

    @property
    def identity(self) -> tuple[str, str, int]:
        """What a finding is recognised by."""
        return self.rule, self.subject, self.ordinal

    @property
    def box(self) -> str:
        """The box whose rule it is."""
        return self.rule.rpartition("/")[0]


def entries(box: BoxReport, findings: Iterable[Finding]) -> Iterator[tuple[Entry, Finding]]:
    """Yield each finding of a box with the entry that would make it known."""
    seen: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        rule = box.rule(finding)
        seen[rule, finding.subject] += 1
        yield Entry(rule, finding.subject, seen[rule, finding.subject], finding.kind.value, finding.message), finding


def apply(boxes: tuple[BoxReport, ...], known: Collection[Entry]) -> tuple[BoxReport, ...]:
    """Move the findings that the baseline knows out of those that count."""
    identities = {entry.identity for entry in known}
    return tuple(_apply(box, identities) for box in boxes)


def _apply(box: BoxReport, identities: set[tuple[str, str, int]]) -> BoxReport:
    pairs = list(entries(box, box.findings))
    known = tuple(finding for entry, finding in pairs if entry.identity in identities)
    if not known:
        return box
    counting = tuple(finding for entry, finding in pairs if entry.identity not in identities)
    return replace(box, findings=counting, known=known)


def gone(report: Report, known: Collection[Entry]) -> list[Entry]:
    """Return the entries that this report had the evidence to find again, and did not."""
    kinds = {kind.value for kind in report.kinds}
    judged = {box.name for box in report.boxes if box.crash is None}
    found = {entry.identity for box in report.boxes for entry, _ in entries(box, _all(box))}
    return [entry for entry in known if entry.evidence in kinds and entry.box in judged and entry.identity not in found]


def of(report: Report) -> list[Entry]:
    """Return an entry for every finding of a report, known ones included; suppressed ones have their comment."""
    return sorted(entry for box in report.boxes for entry, _ in entries(box, _all(box)))


def _all(box: BoxReport) -> list[Finding]:
    from verdigris.report.report import order

    return sorted((*box.findings, *box.known), key=lambda finding: order(finding.place))


def read(path: Path) -> tuple[Entry, ...]:
    """Read a baseline; raise UsageError if it is not there or not one."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        why = "Without it every known finding would fail the run again."
        raise UsageError(
            f"There is no baseline {path}.",
            why=why,
            do=(f"verdigris baseline write --baseline {shlex.quote(str(path))}",),
        ) from error
    except OSError as error:
        raise UsageError(f"The baseline {path} cannot be read.", why=f"{error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"It is no JSON: {error}.") from error
    return _entries(document, path)


def _entries(document: Any, path: Path) -> tuple[Entry, ...]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f'A baseline is a JSON object with "format": "{FORMAT}".')
    if document.get("schema_version") != SCHEMA_VERSION:
        raise _damaged(path, f"Its schema_version is not {SCHEMA_VERSION}; another verdigris wrote it.")
    found = []
    listed = document.get("findings")
    for number, item in enumerate(listed if isinstance(listed, list) else [None], 1):
        match item:
            case {"rule": str(rule), "subject": str(subject), "ordinal": int(ordinal)}:
                found.append(
                    Entry(rule, subject, ordinal, str(item.get("evidence", "source")), str(item.get("message", "")))
                )
            case _:
                raise _damaged(path, f"Its finding {number} has no rule, subject and ordinal.")
    return tuple(found)


def _damaged(path: Path, why: str) -> UsageError:
    """`baseline write` refuses such a file too: it may be another file of somebody's, or known findings to merge."""
    file = shlex.quote(str(path))
    return UsageError(
        f"{path} is not a baseline.",
        why=why,
        do=(
            f"Take it out of version control again:   git checkout -- {file}",
            f"or start afresh:   rm {file} && verdigris baseline write --baseline {file}",
        ),
        page=_PAGE,
    )


def write(path: Path, known: Iterable[Entry]) -> None:
    """Write a baseline, one finding a line: a change to it reads well in a diff."""
    lines = [
        json.dumps(
            {
                "rule": entry.rule,
                "subject": entry.subject,
                "ordinal": entry.ordinal,
                "evidence": entry.evidence,
                "message": entry.message,
            },
            ensure_ascii=True,
        )
        for entry in sorted(known)
    ]
    body = ",\n    ".join(lines)
    text = f'{{\n  "format": "{FORMAT}",\n  "schema_version": {SCHEMA_VERSION},\n  "findings": [\n    {body}\n  ]\n}}\n'
    text = text.replace("[\n    \n  ]", "[]")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"The baseline could not be written to {path}.", why=f"{error.strerror or error}.") from error
