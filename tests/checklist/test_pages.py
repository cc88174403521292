"""Every example on every page says what the box says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checklist.pages import HEADINGS, Example, pages
from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict

PAGES = {page.box: page for page in pages()}
EXAMPLES = [example for page in PAGES.values() for example in page.examples]
VERDICTS = {
    "fails": Verdict.FAILS,
    "holds": Verdict.HOLDS,
    "unproven": Verdict.UNPROVEN,
    "not-applicable": Verdict.NOT_APPLICABLE,
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_an_example_has_the_verdict_it_is_marked_with(example: Example, tmp_path: Path) -> None:
    _, box = boxes()[example.box]
    evidence = example.evidence(tmp_path)

    conclusion = box.conclude(evidence)

    told = "\n".join(map(str, (*conclusion.findings, *conclusion.doubts, *conclusion.proofs)))
    assert conclusion.verdict == VERDICTS[example.mark], f"line {example.line} of the page:\n{told}"
    if example.variant is not None:
        assert example.variant in {finding.variant for finding in conclusion.findings}, told


@pytest.mark.parametrize("name", list(boxes()))
def test_every_box_has_a_page_with_the_five_headings_and_both_kinds_of_examples(name: str) -> None:
    page = PAGES[name]

    missing = [heading for heading in HEADINGS if f"**{heading}**" not in page.text]

    assert missing == []
    assert {"fails", "holds"} <= {example.mark for example in page.examples}


def test_every_page_belongs_to_a_box() -> None:
    assert set(PAGES) == set(boxes())
