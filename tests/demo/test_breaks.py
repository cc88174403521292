"""The shop holds every box; broken in one place, it fails the one box that is about that place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.checklist.pages import catalogue
from tests.demo.breaks import BREAKS, Break
from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Conclusion, Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

SHOP = Path(__file__).parents[2] / "examples" / "shop"


def judged(shop: Path) -> dict[str, Conclusion]:
    evidence = Evidence(Source.read(shop), database=catalogue({}), workers=1)
    return {name: box.conclude(evidence) for name, (_, box) in boxes().items()}


@pytest.fixture(scope="module")
def untouched() -> dict[str, Conclusion]:
    return judged(SHOP)


def test_the_untouched_shop_fails_no_box(untouched: dict[str, Conclusion]) -> None:
    fails = {name: conclusion.findings for name, conclusion in untouched.items() if conclusion.verdict is Verdict.FAILS}

    assert fails == {}


def test_every_box_has_a_break() -> None:
    assert sorted(each.box for each in BREAKS) == sorted(boxes())


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.box)
def test_one_broken_place_fails_the_one_box_that_is_about_it(broken: Break, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(SHOP, shop, ignore=shutil.ignore_patterns("__pycache__"))
    broken.apply(shop)

    fails = {
        name: conclusion.findings for name, conclusion in judged(shop).items() if conclusion.verdict is Verdict.FAILS
    }

    assert list(fails) == [broken.box, *broken.also], fails
