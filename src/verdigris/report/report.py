"""The Report: one value with everything a check found out; renderers turn it into text and decide nothing."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.checklist.verdict import Conclusion, Verdict
from verdigris.evidence.judgement import Doubt, Edit, Finding, Kind, Proof, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verdigris.evidence import Evidence
    from verdigris.evidence.source.reading.files import Unread
    from verdigris.evidence.values import Place

FRAME = 3  # lines of a finding that a code frame shows


@dataclass(frozen=True, slots=True)
class BoxReport:
    """One box's verdict and what led to it.

    The verdict is what the evidence says, whatever the team decided about it. `suppressed` are findings with a comment
    on their line, `known` are findings of the baseline, `accepted` is the reason in `[tool.verdigris.accept]`: none of
    them counts against the run, all of them are shown. `crash` says how the box itself broke, if it did.
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
    crash: str | None = None

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
    def advice(self) -> tuple[Finding, ...]:
        """The findings that change no verdict."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ADVICE)

    @property
    def excused(self) -> str | None:
        """Why a box that fails or is unproven does not count against the run; None if it counts."""
        if self.verdict not in {Verdict.FAILS, Verdict.UNPROVEN}:
            return None
        if self.accepted is not None:
            return f"accepted: {self.accepted}"
        if self.verdict is Verdict.UNPROVEN or self.errors:
            return None
        parts = [f"suppressed: {reason}" for _, reason in self.suppressed[:1]]
        parts += [f"{len(self.known)} known in the baseline"] if self.known else []
        return "; ".join(parts) or None

    @property
    def evidence(self) -> tuple[Kind, ...]:
        """The kinds of evidence that spoke."""
        told = {proof.kind for proof in self.proofs} | {finding.kind for finding in (*self.findings, *self.known)}
        return tuple(kind for kind in Kind if kind in told | {finding.kind for finding, _ in self.suppressed})

    def consequence_of(self, finding: Finding) -> str:
        """What happens if nothing is done: the finding's own words, else the box's."""
        return finding.consequence or self.consequence

    def rule(self, finding: Finding) -> str:
        """The finding's rule: the box and the way of failing."""
        return f"{self.name}/{finding.variant}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one check found out about one project.

    `root` is the checked path as the user wrote it; places are relative to it. `ignored` are the boxes that were not
    judged, with the reason; `notices` are sentences about the run itself: unused suppressions, stale baseline entries.
    """

    version: str
    root: str
    understood: str
    kinds: tuple[Kind, ...]
    boxes: tuple[BoxReport, ...]
    unread: tuple[Unread, ...] = ()
    files: int = 0
    seconds: float = 0.0
    recorded: str = ""
    ignored: tuple[tuple[str, str, str], ...] = ()  # number, name, reason
    notices: tuple[str, ...] = ()
    lines: Mapping[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def counts(self) -> Counter[Verdict]:
        """How many boxes have which verdict; those that are excused are left out."""
        return Counter(box.verdict for box in self.boxes if box.excused is None)

    @property
    def excused(self) -> tuple[BoxReport, ...]:
        """The boxes that fail or are unproven, and for which there is a reason to live with it."""
        return tuple(box for box in self.boxes if box.excused is not None)

    @property
    def failing(self) -> tuple[BoxReport, ...]:
        """The boxes that fail and are not excused."""
        return tuple(box for box in self.boxes if box.verdict is Verdict.FAILS and box.excused is None)

    @property
    def unproven(self) -> tuple[BoxReport, ...]:
        """The boxes that are unproven and not accepted."""
        return tuple(box for box in self.boxes if box.verdict is Verdict.UNPROVEN and box.excused is None)

    @property
    def crashed(self) -> tuple[BoxReport, ...]:
        """The boxes whose own code broke."""
        return tuple(box for box in self.boxes if box.crash is not None)

    @property
    def findings(self) -> tuple[tuple[BoxReport, Finding], ...]:
        """Every finding that counts, errors before advice, in the checklist's order."""
        errors = [(box, finding) for box in self.boxes for finding in box.errors]
        return (*errors, *((box, finding) for box in self.boxes for finding in box.advice))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What of the findings a tool can write; a box that was accepted stays as it was decided."""
        counting = (finding for box, finding in self.findings if box.accepted is None)
        return tuple(dict.fromkeys(edit for finding in counting for edit in finding.edits))

    def frame(self, finding: Finding) -> list[tuple[int, str]]:
        """Return the numbered source lines that a finding marks, at most three."""
        if finding.place is None or finding.place.path not in self.lines:
            return []
        text = self.lines[finding.place.path]
        last = min(max(finding.place.end_line, finding.place.line), finding.place.line + FRAME - 1, len(text))
        return [(number, text[number - 1]) for number in range(max(finding.place.line, 1), last + 1)]

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 0 if nothing fails, 1 if a box fails, 2 if a box broke; strictly, doubts and advice count too."""
        if self.crashed:
            return 2
        if self.failing:
            return 1
        return int(strict and bool(self.unproven or self.findings))


def judge(evidence: Evidence, selected: Iterable[str] | None = None) -> tuple[BoxReport, ...]:
    """Judge every selected box on the evidence; a box that breaks is unproven and says so."""
    from verdigris.checklist.registry import boxes

    wanted = None if selected is None else frozenset(selected)
    reports = []
    for name, (number, box) in boxes().items():
        if wanted is not None and name not in wanted:
            continue
        crash = None
        try:
            conclusion = box.conclude(evidence)
        except Exception as error:  # noqa: BLE001 - one broken box must not take the other forty with it
            crash = _told(error)
            doubt = Doubt("", f"this box broke: {crash}", "report it: it is a bug of verdigris, not of your code")
            conclusion = Conclusion(Verdict.UNPROVEN, (), (), (doubt,))
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
                crash=crash,
            )
        )
    return tuple(reports)


def _told(error: Exception) -> str:
    """Say what broke and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"


def order(place: Place | None) -> tuple[str, int, int]:
    """Order places by file and line; what has none comes first."""
    return ("", 0, 0) if place is None else (place.path, place.line, place.column)
