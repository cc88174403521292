"""Section 6: what is advised to whom."""

from __future__ import annotations

import pytest

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

APP = """
from sqlalchemy.ext.asyncio import AsyncSession

async def store(session: AsyncSession, rows: list[object]) -> None:
    for row in rows:
        {}
"""


@pytest.mark.parametrize(
    ("each", "advised"),
    [
        ("await session.merge(row)", "on_conflict_do_update"),
        ("session.add(row); await session.flush()", "session.add_all(objects)"),
    ],
)
def test_rows_that_may_be_there_already_are_advised_an_upsert_and_new_ones_add_all(tmp_path, each, advised):
    (tmp_path / "app.py").write_text(APP.format(each), "utf-8")

    (finding,) = boxes()["bulk/add-all"][1].conclude(Evidence(Source.read(tmp_path), None, None)).findings

    assert advised in finding.fix
