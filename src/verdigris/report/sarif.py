"""The report as SARIF 2.1.0, in the part of it that GitHub's code scanning reads.

Only what counts is in it: a code scanning takes what is marked as suppressed for an alert like any other.
https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from verdigris.checklist.pages import page
from verdigris.evidence.judgement import Severity
from verdigris.report.words import address

if TYPE_CHECKING:
    from verdigris.evidence.judgement import Finding
    from verdigris.evidence.values import Place
    from verdigris.report.report import BoxReport, Report
    from verdigris.report.style import Style

MOST = 25_000  # results of a run that are taken; errors come first
_LEVELS = {Severity.ERROR: "error", Severity.ADVICE: "note"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report, _style: Style) -> str:
    """Return the log as indented text, in ASCII."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> dict[str, Any]:
    """Return the log as values that JSON knows."""
    counting = [pair for pair in report.findings if pair[0].accepted is None][:MOST]
    rules = list(dict.fromkeys(box.rule(finding) for box, finding in counting))
    first = {box.rule(finding): (box, finding) for box, finding in reversed(counting)}
    seen: Counter[tuple[str, str]] = Counter()
    results = []
    for box, finding in counting:
        same = (box.rule(finding), finding.subject)
        results.append(_result(report, box, finding, rules.index(same[0]), seen[same]))
        seen[same] += 1
    driver = {
        "name": "verdigris",
        "semanticVersion": report.version,
        "rules": [_rule(*first[rule]) for rule in rules],
    }
    unread = [
        {
            "level": "warning",
            "message": {"text": f"unread: {file.reason}"},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(report, file.path)}}}],
        }
        for file in report.unread
    ]
    done = {"executionSuccessful": not report.crashed, "toolExecutionNotifications": unread}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [done],
        "results": results,
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(box: BoxReport, finding: Finding) -> dict[str, Any]:
    text = box.consequence
    with suppress(LookupError):
        text = page(box.name).strip()
    return {
        "id": box.rule(finding),
        "name": box.rule(finding),
        "shortDescription": {"text": f"{box.number} {box.fails}"},
        "fullDescription": {"text": box.consequence_of(finding)},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {"tags": [box.section]},
    }


def _result(report: Report, box: BoxReport, finding: Finding, index: int, ordinal: int) -> dict[str, Any]:
    identity = repr((box.rule(finding), finding.subject, ordinal)).encode("utf-8", "surrogatepass")
    text = f"{finding.message}\n{box.consequence_of(finding)}"
    return {
        "ruleId": box.rule(finding),
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{text}\n\n{finding.fix}" if finding.fix else text},
        "locations": [{"physicalLocation": _location(report, finding.place)}],
        "relatedLocations": [
            {"id": number, "physicalLocation": _location(report, place), "message": {"text": told}}
            for number, (place, told) in enumerate(finding.related, 1)
        ],
        "partialFingerprints": {"verdigris/v1": hashlib.blake2b(identity, digest_size=16).hexdigest()},
    }


def _location(report: Report, place: Place | None) -> dict[str, Any]:
    if place is None:  # of the whole project: a result without a location is refused
        return {"artifactLocation": {"uri": _uri(report, "pyproject.toml")}, "region": {"startLine": 1}}
    region = {"startLine": place.line, "startColumn": place.column + 1}
    if place.end_column and (place.end_line > place.line or place.end_column > place.column):
        region |= {"endLine": max(place.end_line, place.line), "endColumn": place.end_column + 1}
    return {"artifactLocation": {"uri": _uri(report, place.path)}, "region": region}


def _uri(report: Report, path: str) -> str:
    return quote(address(report, path), safe="/", errors="surrogateescape")
