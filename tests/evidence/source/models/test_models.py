"""Mapped classes: what counts as one, what its relationships and indexes are, and what the library's base promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from verdigris.evidence.source import Source
from verdigris.evidence.source.models.mapped import Model
from verdigris.evidence.values import Known, Missing

CHILD = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship
{head}

class Line({base}):
    __tablename__ = "line"
    {body}
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    order: Mapped["Order"] = relationship()
"""


def models(folder: Path, text: str) -> dict[str, Model]:
    (folder / "app.py").write_text(text, "utf-8")
    return {model.name: model for model in Source.read(folder).models.every}


OWN_BASE = "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): ..."


def line(folder: Path, *, head: str, base: str, body: str = "") -> Model:
    return models(folder, CHILD.format(head=head, base=base, body=body))["Line"]


@pytest.mark.parametrize("base", ["Base", "Guarded, DeclarativeBase"])
def test_the_librarys_base_makes_an_unnamed_relationship_raise(base: str, tmp_path: Path) -> None:
    imports = ("sqlalchemy.orm import DeclarativeBase", "verdigris import Base", "verdigris.models import Guarded")
    head = "\n".join(f"from {each}" for each in imports)

    relationship = line(tmp_path, head=head, base=base).relationship("order")

    assert relationship is not None
    assert isinstance(relationship.lazy, Known)
    assert relationship.lazy.value == "raise_on_sql"
    assert relationship.written_lazy == Missing()


@pytest.mark.parametrize(
    ("written", "value"), [("'select'", "raise_on_sql"), ("True", True), ("'selectin'", "selectin")]
)
def test_the_librarys_base_changes_sqlalchemys_default_written_out_too(
    written: str, value: object, tmp_path: Path
) -> None:
    text = CHILD.format(head="from verdigris import Base", base="Base", body="")

    relationship = models(tmp_path, text.replace("relationship()", f"relationship(lazy={written})"))[
        "Line"
    ].relationship("order")

    assert relationship is not None
    assert isinstance(relationship.lazy, Known)
    assert relationship.lazy.value == value


def test_the_opt_out_of_a_class_withdraws_the_promise(tmp_path: Path) -> None:
    found = line(tmp_path, head="from verdigris import Base", base="Base", body='__unnamed_lazy__ = "off"')

    relationship = found.relationship("order")

    assert relationship is not None
    assert relationship.lazy == Missing()


@pytest.mark.parametrize(
    ("head", "promised"),
    [
        ("class Base(DeclarativeBase): ...\nguard(Base)", True),
        ("@guard\nclass Base(DeclarativeBase): ...", True),
        ("class Base(DeclarativeBase): ...\nguard(Base, unnamed_lazy='raise', index_foreign_keys=False)", True),
        ("class Base(DeclarativeBase): ...\nguard(Base, unnamed_lazy='log')", False),
        ("class Base(DeclarativeBase): ...\nguard(Base, **settings)", False),
        ("class Other(DeclarativeBase): ...\nguard(Other)\nclass Base(DeclarativeBase): ...", False),
    ],
)
def test_a_guarded_base_of_the_trees_own_promises_what_it_was_asked_for(
    tmp_path: Path, head: str, promised: bool
) -> None:
    imports = "from sqlalchemy.orm import DeclarativeBase\nfrom verdigris.models import guard\n"

    relationship = line(tmp_path, head=imports + head, base="Base").relationship("order")

    assert relationship is not None
    assert isinstance(relationship.lazy, Known) is promised


def test_a_ladder_that_is_written_at_its_top_keeps_the_promise(tmp_path: Path) -> None:
    found = line(tmp_path, head="from verdigris import Base", base="Base", body='__unnamed_lazy__ = "raise"')

    relationship = found.relationship("order")

    assert relationship is not None
    assert isinstance(relationship.lazy, Known)


def test_a_table_that_asks_for_no_indexes_keeps_its_strategies(tmp_path: Path) -> None:
    body = '__table_args__ = {"info": {"index_foreign_keys": False}}'

    relationship = line(tmp_path, head="from verdigris import Base", base="Base", body=body).relationship("order")

    assert relationship is not None
    assert isinstance(relationship.lazy, Known)


def test_code_that_sets_strategies_is_found(tmp_path: Path) -> None:
    listener = """
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapper

class Base(DeclarativeBase): ...

@event.listens_for(Mapper, "mapper_constructed")
def strict(mapper, klass):
    for each in mapper._init_properties.values():
        each.lazy = "raise"
"""
    (tmp_path / "app.py").write_text(listener, "utf-8")

    place = Source.read(tmp_path).models.strategies_set

    assert place is not None
    assert place.line == 10


def test_a_table_that_asks_for_no_indexes_has_no_promise_of_them(tmp_path: Path) -> None:
    body = '__table_args__ = {"info": {"index_foreign_keys": False}}'

    assert line(tmp_path, head="from verdigris import Base", base="Base", body=body).base is None
    assert line(tmp_path, head="from verdigris import Base", base="Base").base == "verdigris.Base"


def test_a_base_of_another_package_promises_nothing(tmp_path: Path) -> None:
    found = line(tmp_path, head=OWN_BASE, base="Base")

    assert found.base is None


def test_mixins_declared_attr_and_tables_of_their_own_are_read(tmp_path: Path) -> None:
    found = models(
        tmp_path,
        """
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

class Base(DeclarativeBase): ...

class Owned:
    @declared_attr
    def owner_id(cls) -> Mapped[int]:
        return mapped_column(ForeignKey("users.id"), index=True)

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)

class Note(Owned, Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    replies: Mapped[list["Note"]] = relationship(lazy="selectin", backref="parent")
    __table_args__ = (Index("ix", "text", "id"),)
""",
    )

    note = found["Note"]

    assert sorted(found) == ["Note", "User"]
    assert [column.name for column in note.columns] == ["id", "text", "owner_id"]
    assert {index.columns for index in note.indexes} == {("owner_id",), ("id",), ("text", "id")}
    assert {each.key: each.uselist for each in note.relationships}["Note.replies"] == Known(value=True)
    assert "Note.parent" in {each.key for each in note.relationships}


def test_a_base_of_advanced_alchemy_names_its_tables_itself(tmp_path: Path) -> None:
    found = models(
        tmp_path,
        "from advanced_alchemy.base import UUIDAuditBase, UUIDPrimaryKey\n"
        "from sqlalchemy.orm import Mapped\n"
        "class Kept(UUIDAuditBase):\n    __abstract__ = True\n    name: Mapped[str]\n"
        "class Author(Kept):\n    born: Mapped[int]\n"
        "class Keyed(UUIDPrimaryKey):\n    name: Mapped[str]\n",
    )

    assert list(found) == ["Author"]
    assert {column.name for column in found["Author"].columns} == {"name", "born"}
