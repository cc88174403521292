"""The report as workflow commands: GitHub shows each finding beside its line, ten errors and ten notices of a step.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Severity
from verdigris.report.style import clean
from verdigris.report.words import address, shown_path, summary

if TYPE_CHECKING:
    from verdigris.evidence.judgement import Finding
    from verdigris.report.report import BoxReport, Report
    from verdigris.report.style import Style

_COMMANDS = {Severity.ERROR: "error", Severity.ADVICE: "notice"}


def render(report: Report, style: Style) -> str:
    """Return a command for each finding that counts, errors first, one for each unread file, and the summary."""
    lines = [_command(report, box, finding) for box, finding in report.findings if box.accepted is None]
    lines += [
        f"::warning file={_property(address(report, file.path))}::"
        f"{_data(f'{shown_path(report, file.path)} was not read: {file.reason}')}"
        for file in report.unread
    ]
    return style.finish("\n".join([*lines, clean(summary(report))]) + "\n")


def _command(report: Report, box: BoxReport, finding: Finding) -> str:
    place = finding.place
    given = {"title": f"{box.number} {box.rule(finding)}"}
    if place is not None:
        given = {"file": address(report, place.path), "line": str(place.line)} | given
        if place.end_line <= place.line and place.end_column > place.column:  # columns are for one line only
            given |= {"col": str(place.column + 1), "endColumn": str(place.end_column + 1)}
        else:
            given |= {"endLine": str(max(place.end_line, place.line))}
    text = f"{finding.message}\n{box.consequence_of(finding)}"
    told = f"{text}\n{finding.fix}" if finding.fix else text
    properties = ",".join(f"{name}={_property(value)}" for name, value in given.items())
    return f"::{_COMMANDS[finding.severity]} {properties}::{_data(told)}"


def _data(text: str) -> str:
    """Write a message so that nothing in it ends the command, or begins another."""
    return "%0A".join(clean(line).replace("%", "%25") for line in text.splitlines())


def _property(text: str) -> str:
    return clean(text).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
