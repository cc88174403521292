"""The report as one line a finding: `path:line: box/variant message`, for editors, greps and pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.report.style import Style, clean
from verdigris.report.words import shown, shown_path, summary

if TYPE_CHECKING:
    from verdigris.report.report import Report


def render(report: Report, style: Style) -> str:
    """Return one line for each finding, then one for each unread file, then the summary."""
    lines = [
        f"{shown(report, finding.place)}: {style.paint(box.rule(finding), 'bold')} "
        f"{'advice: ' if finding in box.advice else ''}{clean(finding.message)}"
        for box, finding in report.findings
    ]
    lines += [f"{shown_path(report, file.path)}: unread: {clean(file.reason)}" for file in report.unread]
    return style.finish("\n".join([*lines, summary(report)]) + "\n")
