"""Section 5 where a page's examples do not reach: what a run settles, what is said once."""

from __future__ import annotations

import pytest

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.recording.artefact import Recording, Repeat, Statement, StatementUse
from verdigris.evidence.source import Source

MODELS = """from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload
class Base(DeclarativeBase): ...
class Folder(Base):
    __tablename__ = "folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"))
    notes: Mapped[list["Note"]] = relationship(lazy="raise_on_sql")
class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folder.id"))
    folder: Mapped[Folder] = relationship(lazy="raise_on_sql")
    author: Mapped[Folder] = relationship(lazy="raise_on_sql")
"""
LOOP = """async def first(session: AsyncSession, ids: list[int]):
    for id in ids:
        found = await session.scalar(select(Folder).where(Folder.id == id))
        if found is not None:
            return found
"""
SENT = f"app.py:{MODELS.count(chr(10)) + 3}"


def conclude(box, folder, text, recording=None):
    (folder / "app.py").write_text(MODELS + text, "utf-8")
    return boxes()[f"loading/{box}"][1].conclude(Evidence(Source.read(folder), recording))


def ran(different):
    use = StatementUse(site=SENT, count=12)
    repeats = (Repeat("f", site=SENT, different=different, scopes=1),) if different else ()
    return Recording(statements=(Statement("f", "SELECT", uses=(use,), count=12),), repeats=repeats)


@pytest.mark.parametrize(
    ("recording", "verdict"),
    [
        (None, Verdict.UNPROVEN),
        (Recording(), Verdict.UNPROVEN),
        (ran(0), Verdict.HOLDS),
        (ran(1), Verdict.HOLDS),  # the same question again is no query a row
        (ran(3), Verdict.UNPROVEN),
        (ran(8), Verdict.FAILS),
    ],
)
def test_a_run_settles_a_loop_that_the_source_leaves_open(tmp_path, recording, verdict):
    assert conclude("no-n-plus-one", tmp_path, LOOP, recording).verdict is verdict


@pytest.mark.parametrize("path", ["tests/conftest.py", "app/alembic/versions/first.py"])
def test_what_a_line_of_the_tests_or_of_a_migration_repeats_is_no_query_a_row_of_the_application(tmp_path, path):
    recording = Recording(repeats=(Repeat("f", site=f"{path}:3", different=8, scopes=1),))

    assert conclude("no-n-plus-one", tmp_path, "", recording).findings == ()


def test_paths_that_branch_later_name_their_common_step_once(tmp_path):
    once = """
    joinedload(Folder.notes).joinedload(Note.folder), joinedload(Folder.notes).joinedload(Note.author)
"""
    found = conclude("selectin-collections", tmp_path, f"LOADED = select(Folder).options({once})\n")

    assert len(found.findings) == 1


def test_the_same_option_in_two_statements_is_two(tmp_path):
    each = "select(Folder).options(joinedload(Folder.notes))\n"
    found = conclude("selectin-collections", tmp_path, f"FIRST = {each}SECOND = {each}")

    assert len(found.findings) == 2


@pytest.mark.parametrize(("lazy", "told"), [("noload", "No error says so"), ("raise_on_sql", None)])
def test_what_reads_as_empty_is_not_said_to_raise(tmp_path, lazy, told):
    read = "async def names(session: AsyncSession):\n    folder = await session.scalar(select(Folder))\n"
    mapped = MODELS.replace('"Note"]] = relationship(lazy="raise_on_sql")', f'"Note"]] = relationship(lazy="{lazy}")')
    (tmp_path / "app.py").write_text(f"{mapped}{read}    return [note.id for note in folder.notes]\n", "utf-8")

    (finding,) = boxes()["loading/all-loaded"][1].conclude(Evidence(Source.read(tmp_path), None)).findings

    assert (finding.consequence or "").startswith(told or "")
    assert (finding.consequence is None) is (told is None)


def test_a_collection_that_is_mapped_joined_is_advised_what_leaves_its_readers_as_they_are(tmp_path):
    more = """class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list[Note]] = relationship(lazy="joined")
"""

    (found,) = conclude("selectin-collections", tmp_path, more).findings

    assert found.variant == "mapped-joined"
    assert found.fix.startswith('lazy="selectin"')
