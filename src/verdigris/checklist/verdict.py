"""The algebra of verdicts: from judgements of subjects to the verdict of a box.

A box fails if any subject fails. It is unproven if any subject is in doubt or if subjects may have escaped notice.
It holds only if every subject of a complete population was proved, and is not applicable only if that population is
known to be empty. Advice changes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from verdigris.evidence.judgement import Doubt, Finding, Judgement, Proof, Severity


class Verdict(StrEnum):
    """What is known of a box."""

    HOLDS = "holds"
    FAILS = "fails"
    UNPROVEN = "unproven"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict of one box with everything that led to it."""

    verdict: Verdict
    proofs: tuple[Proof, ...]
    findings: tuple[Finding, ...]
    doubts: tuple[Doubt, ...]


def conclude(judgements: tuple[Judgement, ...], gaps: tuple[str, ...]) -> Conclusion:
    """Derive a verdict from all judgements of a box and from the reasons why some subjects may be missing."""
    proofs = tuple(item for item in judgements if isinstance(item, Proof))
    findings = tuple(item for item in judgements if isinstance(item, Finding))
    doubts = tuple(item for item in judgements if isinstance(item, Doubt))
    doubts += tuple(Doubt("", gap, "make this readable, or record a run") for gap in gaps)
    if any(finding.severity is Severity.ERROR for finding in findings):
        verdict = Verdict.FAILS
    elif doubts:
        verdict = Verdict.UNPROVEN
    elif judgements:
        verdict = Verdict.HOLDS
    else:
        verdict = Verdict.NOT_APPLICABLE
    return Conclusion(verdict, proofs, findings, doubts)
