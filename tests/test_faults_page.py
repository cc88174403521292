"""docs/faults.md promises an outcome for every fault and names its tests: they exist, and none is missing."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/faults.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.split("## The table")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| Fault")
]
BESIDES = {"test_rig", "test_ledger"}  # the tools, and the run that has a section of its own


@functools.cache
def functions(*places):
    """Return the tests in these places, by name."""
    found = {}
    for place in places:
        for path in (ROOT / "tests").glob(place):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                    found[node.name] = path
    return found


def named(row):
    return re.findall(r"`(test_\w+)`", row[3])


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_row_has_an_outcome_and_tests_that_exist(row):
    known = functions("library/**/*.py", "faults/*.py")

    assert len(row) == 4
    assert row[1] != "–" or row[2] != "–"
    assert named(row)
    assert [name for name in named(row) if name not in known] == []


def test_every_fault_test_proves_a_row():
    listed = {name for row in ROWS for name in named(row)}

    missing = {name for name, path in functions("faults/test_*.py").items() if path.stem not in BESIDES} - listed

    assert missing == set()


def test_the_page_has_the_whole_matrix():
    assert len(ROWS) >= 60
