"""The Report: one value with everything a check found out; renderers turn it into text and decide nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Conclusion, Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Doubt, Finding, Kind, Proof, Severity
from verdigris.evidence.source.files import Unread


@dataclass(frozen=True, slots=True)
class BoxReport:
    """One box's verdict and what led to it.

    `accepted` is the team's reason for living with a failing or unproven box (`[tool.verdigris.accept]`).
    `suppressed` are findings with a comment on their line, `known` are findings of the baseline; neither counts.
    """

    name: str
    number: str
    holds: str
    fails: str
    consequence: str
    verdict: Verdict
    proofs: tuple[Proof, ...] = ()
    findings: tuple[Finding, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    suppressed: tuple[tuple[Finding, str], ...] = ()
    known: tuple[Finding, ...] = ()
    accepted: str | None = None

    @property
    def title(self) -> str:
        """What the box says, in the words of its verdict."""
        return self.fails if self.verdict is Verdict.FAILS else self.holds

    @property
    def section(self) -> str:
        """The first half of the name."""
        return self.name.partition("/")[0]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the box fail."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def evidence(self) -> tuple[Kind, ...]:
        """The kinds of evidence that spoke."""
        return tuple(sorted({item.kind for item in (*self.proofs, *self.findings)}))


@dataclass(frozen=True, slots=True)
class Report:
    """What one check found out about one project."""

    version: str
    root: str
    understood: str
    kinds: tuple[Kind, ...]
    boxes: tuple[BoxReport, ...]
    unread: tuple[Unread, ...] = ()
    files: int = 0
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    lines: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def counts(self) -> Counter[Verdict]:
        """How many boxes have which verdict."""
        return Counter(box.verdict for box in self.boxes)

    @property
    def failing(self) -> tuple[BoxReport, ...]:
        """The boxes that fail and were not accepted."""
        return tuple(box for box in self.boxes if box.verdict is Verdict.FAILS and box.accepted is None)

    def frame(self, finding: Finding) -> list[tuple[int, str]]:
        """Return the numbered source lines that a finding marks, at most three."""
        if finding.place is None or finding.place.path not in self.lines:
            return []
        text = self.lines[finding.place.path]
        last = min(max(finding.place.end_line, finding.place.line), finding.place.line + 2, len(text))
        return [(number, text[number - 1]) for number in range(finding.place.line, last + 1)]


def judge(evidence: Evidence, selected: frozenset[str] | None = None) -> tuple[BoxReport, ...]:
    """Judge every selected box on the evidence."""
    reports = []
    for name, (number, box) in boxes().items():
        if selected is not None and name not in selected:
            continue
        conclusion: Conclusion = box.conclude(evidence)
        reports.append(
            BoxReport(
                name,
                number,
                box.holds,
                box.fails,
                box.consequence,
                conclusion.verdict,
                conclusion.proofs,
                conclusion.findings,
                conclusion.doubts,
            )
        )
    return tuple(reports)
