"""Every promise of the library that a box relies on is proved by a test, and withdrawn by its opt-out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.guarantees import GUARANTEES, Guarantee
from verdigris.evidence.source import Source

ROOT = Path(__file__).parents[2]
KEYWORD = re.compile(r"^(\w+)=([\w.\"-]+)$")
KEYWORDS = [each for each in GUARANTEES if each.symbol == "verdigris.Database" and KEYWORD.match(each.opt_out)]


@cache
def named_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda each: f"{each.symbol}-{each.option}")
def test_a_guarantee_names_a_test_that_exists(guarantee: Guarantee) -> None:
    path, _, name = guarantee.proved_by.partition("::")

    assert name in named_in(path)


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda each: f"{each.symbol}-{each.option}")
def test_a_guarantee_is_about_boxes_that_exist(guarantee: Guarantee) -> None:
    assert set(guarantee.boxes) <= set(boxes())


@pytest.mark.parametrize("guarantee", KEYWORDS, ids=lambda each: each.opt_out)
def test_an_opt_out_withdraws_its_guarantee(guarantee: Guarantee, tmp_path: Path) -> None:
    written = guarantee.opt_out.replace("SECONDS", "60.0").replace("=N", "=500")
    (tmp_path / "app.py").write_text(
        f'from verdigris import Database\n\ndb = Database("postgresql://localhost/shop", {written})\n'
    )
    evidence = Evidence(Source.read(tmp_path))

    for name in guarantee.boxes:
        proofs = boxes()[name][1].conclude(evidence).proofs
        assert guarantee.reason not in {proof.reason for proof in proofs}


def test_a_local_module_of_the_librarys_name_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "verdigris.py").write_text("class Database:\n    def __init__(self, url): ...\n")
    (tmp_path / "app.py").write_text("from verdigris import Database\n\ndb = Database('postgresql://localhost/shop')\n")

    source = Source.read(tmp_path)

    assert list(source.engines) == []


@pytest.mark.parametrize(
    ("url", "option", "told"),
    [
        ("postgresql://app@pgbouncer:6432/shop", "", True),
        ("postgresql://app@pgbouncer:6432/shop", ", pgbouncer=False", False),
        ("postgresql://app@db/shop", "", False),
    ],
)
def test_what_the_library_does_behind_a_pooler_is_part_of_the_proof(
    url: str, option: str, told: bool, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(f'from verdigris import Database\n\ndb = Database("{url}"{option})\n')

    (proof,) = boxes()["engine/async-driver"][1].conclude(Evidence(Source.read(tmp_path))).proofs

    assert ("keeps no statement prepared" in proof.reason) is told
