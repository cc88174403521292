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
    if place is None:
        return clean(report.root)
    path = os.path.normpath(os.path.join(report.root, place.path)) if report.root != "." else place.path  # noqa: PTH118
    return f"{clean(path)}:{place.line}"


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
    verbs = {
        Verdict.HOLDS: ("hold", "holds"),
        Verdict.FAILS: ("fail", "fails"),
        Verdict.UNPROVEN: ("unproven", "unproven"),
        Verdict.NOT_APPLICABLE: ("not applicable", "not applicable"),
    }
    verdicts = ", ".join(f"{counts[each]} {verbs[each][counts[each] == 1]}" for each in Verdict)
    parts = [f"{verdicts} of {len(report.boxes)} box{'es' * (len(report.boxes) != 1)}"]
    accepted = sum(1 for box in report.boxes if box.accepted is not None and box.excused is not None)
    counted = (
        (len(report.excused) - accepted, "excused"),
        (accepted, "accepted"),
        (sum(len(box.suppressed) for box in report.boxes), "suppressed"),
        (sum(len(box.known) for box in report.boxes), "known in the baseline"),
        (len(report.ignored), "ignored"),
        (len(report.unread), "unread"),
    )
    parts += [f"{number} {word}" for number, word in counted if number]
    return " · ".join([*parts, f"{report.seconds:.2f} s"])
