"""The report as one JSON object; docs/report.schema.json describes it, `schema_version` counts its breaking changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verdigris.evidence.judgement import Doubt, Finding, Proof
    from verdigris.evidence.values import Place
    from verdigris.report.report import BoxReport, Report
    from verdigris.report.style import Style

SCHEMA_VERSION = 1


def render(report: Report, _style: Style) -> str:
    """Return the object as indented text, in ASCII: every terminal and every reader takes it."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> dict[str, Any]:
    """Return the report as values that JSON knows."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdigris": report.version,
        "root": report.root,
        "understood": report.understood,
        "evidence": [kind.value for kind in report.kinds],
        "files": report.files,
        "seconds": round(report.seconds, 3),
        "counts": {verdict.value: number for verdict, number in report.counts.items()},
        "boxes": [_box(box) for box in report.boxes],
        "findings": [_finding(box, finding) for box in report.boxes for finding in box.findings],
        "doubts": [_doubt(box, doubt) for box in report.boxes for doubt in box.doubts],
        "unread": [{"path": file.path, "reason": file.reason, "role": file.role.value} for file in report.unread],
        "suppressed": [
            {**_finding(box, finding), "reason": reason} for box in report.boxes for finding, reason in box.suppressed
        ],
        "known": [_finding(box, finding) for box in report.boxes for finding in box.known],
        "ignored": [{"number": number, "name": name, "reason": reason} for number, name, reason in report.ignored],
        "notices": list(report.notices),
    }


def _box(box: BoxReport) -> dict[str, Any]:
    return {
        "name": box.name,
        "number": box.number,
        "verdict": box.verdict.value,
        "title": box.title,
        "evidence": [kind.value for kind in box.evidence],
        "excused": box.excused,
        "proofs": [_proof(proof) for proof in box.proofs],
    }


def _proof(proof: Proof) -> dict[str, Any]:
    return {"subject": proof.subject, "reason": proof.reason, "evidence": proof.kind.value, **_place(proof.place)}


def _finding(box: BoxReport, finding: Finding) -> dict[str, Any]:
    return {
        "box": box.name,
        "number": box.number,
        "rule": box.rule(finding),
        "severity": finding.severity.value,
        **_place(finding.place),
        "message": finding.message,
        "consequence": box.consequence_of(finding),
        "fix": finding.fix,
        "subject": finding.subject,
        "evidence": finding.kind.value,
        "related": [{**_place(place), "message": text} for place, text in finding.related],
    }


def _doubt(box: BoxReport, doubt: Doubt) -> dict[str, Any]:
    return {
        "box": box.name,
        "number": box.number,
        "subject": doubt.subject,
        "reason": doubt.reason,
        "settle": doubt.settle,
        **_place(doubt.place),
    }


def _place(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {"path": None, "line": None, "end_line": None, "column": None, "end_column": None}
    return {
        "path": place.path,
        "line": place.line,
        "end_line": max(place.end_line, place.line),
        "column": place.column + 1,
        "end_column": place.end_column + 1 if place.end_column else None,
    }
