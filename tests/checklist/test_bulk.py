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

TAKEN = """
from collections.abc import Iterator
from sqlalchemy.orm import Session

def get_db() -> Iterator[Session]: ...

def copy_images(images: list[object]) -> None:
    with next(get_db()) as db:
        for image in images: db.merge(image)
"""
DECIDES = """
from sqlalchemy.ext.asyncio import AsyncSession

async def keep(session: AsyncSession, row: object) -> None:
    session.add(row)
    {}
    await session.flush()

async def store(session: AsyncSession, rows: list[object]) -> None:
    for row in rows:
        await keep(session, row)
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


@pytest.mark.parametrize("sender", ["AsyncSession", "AsyncConnection"])
def test_statements_for_one_row_each_are_advised_one_for_all(tmp_path, sender):
    text = APP.replace("AsyncSession", sender).format("await session.execute(insert(orders).values(id=row))")
    (tmp_path / "app.py").write_text(f"from sqlalchemy import insert\n{text}", "utf-8")

    (finding,) = boxes()["bulk/add-all"][1].conclude(Evidence(Source.read(tmp_path), None, None)).findings

    assert finding.fix.startswith("await session.execute(insert(Model), rows)")


def test_a_session_that_next_takes_out_of_its_generator_is_one(tmp_path):
    (tmp_path / "app.py").write_text(TAKEN, "utf-8")

    (finding,) = boxes()["bulk/add-all"][1].conclude(Evidence(Source.read(tmp_path), None, None)).findings

    assert finding.place.line == 9


@pytest.mark.parametrize("decides", ["if row is None: return", "if row is not None: await session.commit()"])
def test_a_call_that_decides_whether_it_sends_is_no_row_a_round(tmp_path, decides):
    (tmp_path / "app.py").write_text(DECIDES.format(decides), "utf-8")

    assert not boxes()["bulk/add-all"][1].conclude(Evidence(Source.read(tmp_path), None, None)).findings


@pytest.mark.parametrize(
    ("merged", "rows"), [("made = [row]; await session.merge(made)", 1), ("await session.merge(order)", 0)]
)
def test_the_same_object_merged_in_each_round_is_no_row_of_it(tmp_path, merged, rows):
    (tmp_path / "app.py").write_text(APP.format(f"order = await session.get(Order, 1); {merged}"), "utf-8")

    assert len(boxes()["bulk/add-all"][1].conclude(Evidence(Source.read(tmp_path), None, None)).findings) == rows
