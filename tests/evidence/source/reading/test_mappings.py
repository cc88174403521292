"""Dictionaries that are built before they are spread into a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

BUILT = """
from sqlalchemy.ext.asyncio import create_async_engine
from app.sizes import budget

def build(url: str):
    options = {{"pool_pre_ping": True}}
    {sizes}
    return create_async_engine(url, **options)
"""


@pytest.mark.parametrize(
    "sizes",
    [
        'options["pool_size"], options["max_overflow"] = budget()',
        'options["pool_size"], options["max_overflow"] = 5, 10',
    ],
)
def test_sizes_that_are_unpacked_into_options_are_set(tmp_path: Path, sizes: str) -> None:
    (tmp_path / "app.py").write_text(BUILT.format(sizes=sizes), "utf-8")
    _, box = boxes()["engine/pool-size"]

    findings = box.conclude(Evidence(Source.read(tmp_path))).findings

    assert "default" not in [finding.variant for finding in findings]
