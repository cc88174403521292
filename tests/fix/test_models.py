"""What `verdigris fix --unsafe` writes into mapped classes, and that tables and mappers stay what they were."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verdigris.cli import main

HEAD = """\
from sqlalchemy import ARRAY, JSON, TIMESTAMP, Boolean, Column, Date, Enum, ForeignKey, Index, Integer, Numeric, String
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, relationship

engine = create_async_engine("postgresql+asyncpg://localhost/shop", pool_size=5, pool_pre_ping=True, pool_recycle=9)


class Base(DeclarativeBase):
    pass

"""
OLD = """
class Customer(Base):
    __tablename__ = "customer"
    id = Column(UUID(as_uuid=True), primary_key=True)  # the key
    name = Column(
        String(50),  # as on the door
        nullable=False,
    )
    born = Column(Date)
    seen = Column(TIMESTAMP(timezone=True), nullable=True)
    credit = Column("limit_of", Numeric(10, 2))
    tags = Column(ARRAY(String))
    more = Column(JSON, nullable=False)
    state = Column(Enum("new", "old", name="state"), index=True)
    active = Column(Boolean, default=True)
    __table_args__ = (Index("by_name", name, active.desc()),)
    __mapper_args__ = {"polymorphic_on": state}


class Order(Base):
    __tablename__ = "order"
    id = Column(Integer, primary_key=True)
    customer_id = Column(UUID(as_uuid=True), ForeignKey("customer.id"), nullable=False)
    customer = relationship(Customer, foreign_keys=[customer_id], backref="orders")
"""
PRINTED = """
from models import Base
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import configure_mappers
from sqlalchemy.schema import CreateIndex, CreateTable
configure_mappers()
for table in Base.metadata.sorted_tables:
    print(CreateTable(table).compile(dialect=postgresql.dialect()))
    for index in sorted(table.indexes, key=lambda index: index.name):
        print(CreateIndex(index).compile(dialect=postgresql.dialect()))
for mapper in sorted(Base.registry.mappers, key=str):
    print(mapper, [(each.key, each.lazy) for each in mapper.relationships])
"""


def fixed(tmp_path, monkeypatch, body, *options, head=HEAD):
    (tmp_path / "models.py").write_text(head + body, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["fix", ".", "--no-cache", "--unsafe", *options]) == 0
    return (tmp_path / "models.py").read_text("utf-8")


def ddl(folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRINTED], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_columns_of_the_old_style_become_mapped_columns_of_the_same_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "models.py").write_text(HEAD + OLD, "utf-8")
    before = ddl(tmp_path)

    text = fixed(tmp_path, monkeypatch, OLD, "--select", "4.1,4.2")

    assert ddl(tmp_path) == before
    assert "import DeclarativeBase, relationship, Mapped, mapped_column\n" in text
    assert "    id: Mapped[uuid.UUID] = " not in text
    for line in (
        "    name: Mapped[str] = mapped_column(\n        String(50),  # as on the door\n        nullable=False,\n    )",
        "    born: Mapped[date | None] = mapped_column(Date)",
        "    seen: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True), nullable=True)",
        '    credit: Mapped[Decimal | None] = mapped_column("limit_of", Numeric(10, 2))',
        "    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String))",
        "    more: Mapped[Any] = mapped_column(JSON, nullable=False)",
        '    state: Mapped[str | None] = mapped_column(Enum("new", "old", name="state"), index=True)',
    ):
        assert line in text
    assert main(["check", ".", "--no-cache", "--select", "4.2"]) == 0
    assert "Column → mapped_column × 11" in capsys.readouterr().out


def test_a_type_whose_name_is_taken_is_written_through_its_module_or_left_to_people(tmp_path, monkeypatch):
    text = fixed(tmp_path, monkeypatch, OLD, "--select", "4.1", head="import uuid\n" + HEAD)

    assert "    id: Mapped[uuid.UUID] = Column(UUID(as_uuid=True), primary_key=True)  # the key" in text


@pytest.mark.parametrize(
    "line",
    [
        "kept: Mapped[str] = Column(String)",  # its table has it nullable, mapped_column() would not
        "date = Column(Date)",  # in this class `date` is the column
        "kept = Column(Own)",
        "kept = Column(UUID(as_uuid=False))",
        "kept = Column(Numeric(asdecimal=False))",
        "kept = Column(Integer, **more)",
        "kept = also = Column(Integer)",
        "kept = column()",
        "kept = Column(Integer); copied = kept.copy()",
    ],
)
def test_what_would_be_another_column_or_an_unknown_type_is_left_to_people(line, tmp_path, monkeypatch):
    head = HEAD.replace("DeclarativeBase,", "DeclarativeBase, Mapped, mapped_column,").replace("\n\n", DEFINED, 1)
    key = "id: Mapped[int] = mapped_column(primary_key=True)"
    body = f"\nclass Kept(Base):\n    __tablename__ = 'kept'\n    {key}\n    {line}\n"

    text = fixed(tmp_path, monkeypatch, body, "--select", "4.1,4.2", head=head)

    assert text.replace("mapped_column(", "Column(").count(line) == 1


DEFINED = """
from sqlalchemy.types import TypeDecorator

more = {}


class Own(TypeDecorator):
    impl = Integer


def column():
    return Column(Integer)

"""


def test_an_annotation_would_make_a_field_of_a_dataclass(tmp_path, monkeypatch):
    head = HEAD.replace("import DeclarativeBase,", "import DeclarativeBase, MappedAsDataclass,").replace(
        "class Base(", "class Base(MappedAsDataclass, "
    )

    assert fixed(tmp_path, monkeypatch, OLD, "--select", "4.1,4.2", head=head) == head + OLD


NEW = """
class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    second: Mapped[fk]
    third: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=False)  # on purpose?
    indexed: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True)
"""


def test_foreign_keys_are_indexed_where_their_column_is_written(tmp_path, monkeypatch):
    head = HEAD.replace("relationship", "Mapped, mapped_column").replace(
        "\n\n\nclass", '\n\nfk = Annotated[int, mapped_column(ForeignKey("customer.id"))]\n\n\nclass'
    )
    head = "from typing import Annotated\n" + head

    text = fixed(tmp_path, monkeypatch, NEW, "--select", "10.1", head=head)

    assert '    first: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True)\n' in text
    assert "    second: Mapped[fk] = mapped_column(index=True)\n" in text
    assert '    third: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True)  # on purpose?\n' in text
    assert main(["check", ".", "--no-cache", "--select", "10.1"]) == 0
    assert ddl(tmp_path).count("CREATE INDEX") == 4


def test_a_sqlmodel_field_is_indexed_and_its_options_of_a_relationship_stay(tmp_path, monkeypatch):
    head = "from sqlalchemy import Column, ForeignKey\nfrom sqlalchemy.ext.asyncio import AsyncSession\n"
    head += "from sqlmodel import Field, Relationship, SQLModel\n"
    body = """
class Team(SQLModel, table=True):
    id: int = Field(primary_key=True)
    heroes: list["Hero"] = Relationship(
        back_populates="team",
        sa_relationship_kwargs={
            "lazy": "noload",  # never here
            "order_by": "Hero.id",
        },
    )


class Hero(SQLModel, table=True):
    id: int = Field(primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id")
    other_id: int = Field(sa_column=Column(ForeignKey("team.id")))
    team: Team = Relationship(back_populates="heroes", sa_relationship_kwargs=dict(innerjoin=True))
"""

    text = fixed(tmp_path, monkeypatch, body, "--select", "models,10.1", head=head)

    assert '            "lazy": "raise_on_sql",  # never here\n            "order_by": "Hero.id",\n' in text
    assert 'sa_relationship_kwargs=dict(innerjoin=True, lazy="raise_on_sql"))' in text
    assert 'Field(default=None, foreign_key="team.id", index=True)' in text
    assert 'Field(sa_column=Column(ForeignKey("team.id"), index=True))' in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('backref="orders"', 'backref=backref("orders", lazy="raise_on_sql")'),
        ('backref=backref("orders")', 'backref=backref("orders", lazy="raise_on_sql")'),
        ('backref=orm.backref("orders", lazy="dynamic")', 'backref=orm.backref("orders", lazy="raise_on_sql")'),
    ],
)
def test_a_backref_names_its_strategy_too(before, after, tmp_path, monkeypatch):
    head = HEAD.replace("import DeclarativeBase,", "import DeclarativeBase, Mapped, mapped_column, backref,").replace(
        "from sqlalchemy.orm", "from sqlalchemy import orm\nfrom sqlalchemy.orm"
    )
    body = NEW.partition("    second")[0] + f"    of: Mapped[Customer] = relationship(lazy='raise', {before})\n"

    text = fixed(tmp_path, monkeypatch, body, "--select", "models", head=head)

    assert text == (head + body).replace(before, after)
    assert main(["check", ".", "--no-cache", "--select", "models"]) == 0
    assert "('orders', 'raise_on_sql')" in ddl(tmp_path)
