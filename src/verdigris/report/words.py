"""Sentences that several renderers say alike."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from verdigris.checklist.pages import SECTIONS
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Kind
from verdigris.report.style import clean

if TYPE_CHECKING:
    from verdigris.evidence.values import Place
    from verdigris.report.report import BoxReport, Report
    from verdigris.report.style import Style

SIGNS = {
    Verdict.HOLDS: ("✓", "green"),
    Verdict.FAILS: ("✗", "red"),
    Verdict.UNPROVEN: ("?", "yellow"),
    Verdict.NOT_APPLICABLE: ("–", "dim"),
}
SECTION_TITLES = {name: name.capitalize() for name in SECTIONS} | {"fastapi": "FastAPI"}


def shown(report: Report, place: Place | None) -> str:
    """Return `path:line` as the reader can open it from where the command was run."""
    return clean(report.root) if place is None else f"{shown_path(report, place.path)}:{place.line}"


def shown_path(report: Report, path: str) -> str:
    """Return a path as the reader can open it from where the command was run."""
    if report.root == "." or report.root.endswith(".py"):
        return clean(path if report.root == "." else report.root)
    return clean(os.path.normpath(os.path.join(report.root, path)))  # noqa: PTH118 - pathlib knows no normpath


def address(report: Report, path: str) -> str:
    """Return a path for a service that shows a repository: from where the command was run, else from the root."""
    root = "" if report.root == "." or report.root.endswith(".py") else report.root
    joined = os.path.normpath(os.path.join(root, path)).replace(os.sep, "/")  # noqa: PTH118 - as above
    if report.root.endswith(".py"):
        joined = os.path.normpath(report.root).replace(os.sep, "/")
    return path if joined.startswith(("/", "../")) else joined


def sign(box: BoxReport, style: Style) -> str:
    """Return the one-character sign of a box."""
    text, colour = ("~", "cyan") if box.excused is not None else SIGNS[box.verdict]
    return style.paint(text, colour)


def heading(report: Report) -> str:
    """Say which version looked at what, on which evidence."""
    given = [kind.value for kind in report.kinds]
    if report.recorded and Kind.RECORDING in report.kinds:
        given[report.kinds.index(Kind.RECORDING)] = f"recording ({report.recorded})"
    missing = [kind.value for kind in Kind if kind not in report.kinds]
    tail = f"; not given: {', '.join(missing)}" if missing else ""
    files = f"{report.files:,} file{'s' * (report.files != 1)}"
    return f"verdigris {report.version} · {files} · evidence: {', '.join(given)}{tail}"


def summary(report: Report) -> str:
    """Count everything, in one line that always comes last."""
    counts = report.counts
    words = {Verdict.HOLDS: "hold", Verdict.FAILS: "fail"}
    verdicts = [f"{counts[each]} {words.get(each, each.value)}{_s(each, counts[each])}" for each in Verdict]
    verdicts += [f"{len(report.excused)} excused"] if report.excused else []
    parts = [f"{', '.join(verdicts)} of {_many(len(report.boxes), 'box', 'boxes')}"]
    suppressed = sum(len(box.suppressed) for box in report.boxes)
    known = sum(len(box.known) for box in report.boxes)
    counted = (
        (suppressed, f"{_many(suppressed, 'finding', 'findings')} suppressed"),
        (known, f"{_many(known, 'finding', 'findings')} known in the baseline"),
        (len(report.ignored), f"{_many(len(report.ignored), 'box', 'boxes')} ignored"),
        (len(report.unread), f"{_many(len(report.unread), 'file', 'files')} unread"),
    )
    return " · ".join([*parts, *(text for number, text in counted if number), f"{report.seconds:.2f} s"])


def _s(verdict: Verdict, number: int) -> str:
    return "s" if number == 1 and verdict in {Verdict.HOLDS, Verdict.FAILS} else ""


def _many(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
