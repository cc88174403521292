"""Passwords in URLs, made unreadable: code that is quoted in a report may carry one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdigris.evidence.judgement import Doubt, Finding, Proof
    from verdigris.report.report import BoxReport

_PASSWORD = re.compile(r"""(?P<before>\b[A-Za-z][\w+.-]*://[^\s:/@'"]*:)(?P<password>[^\s@'"/{}$%<>]+)(?=@)""")
_IN_QUERY = re.compile(
    r"""(?P<before>[?&](?:ssl)?(?:password|passwd|pwd|token|secret)=)(?P<password>[^\s&#'"/{}$%<>]+)""", re.IGNORECASE
)


def masked(text: str) -> str:
    """Replace the passwords of URLs by as many stars: columns stay where they are; placeholders stay readable."""
    if "://" not in text:
        return text
    for pattern in (_PASSWORD, _IN_QUERY):
        text = pattern.sub(lambda found: found["before"] + "*" * len(found["password"]), text)
    return text


def masked_box(box: BoxReport) -> BoxReport:
    """Return what is known of a box without the passwords that its texts quote."""
    return replace(
        box,
        proofs=tuple(map(_proof, box.proofs)),
        findings=tuple(map(_finding, box.findings)),
        doubts=tuple(map(_doubt, box.doubts)),
    )


def _proof(proof: Proof) -> Proof:
    return replace(proof, reason=masked(proof.reason)) if "://" in proof.reason else proof


def _finding(finding: Finding) -> Finding:
    if "://" not in finding.message + (finding.fix or ""):
        return finding
    return replace(finding, message=masked(finding.message), fix=None if finding.fix is None else masked(finding.fix))


def _doubt(doubt: Doubt) -> Doubt:
    return replace(doubt, reason=masked(doubt.reason)) if "://" in doubt.reason else doubt
