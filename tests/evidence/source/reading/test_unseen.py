"""What is made where no call shows it leaves a gap: nothing holds in silence."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.engine import PrePing
from verdigris.checklist.models import LazyRaise, MappedColumn
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence

ENGINE = """
import importlib
from functools import partial
import sqlalchemy.ext.asyncio as sa
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop", pool_pre_ping=True)
factory = async_sessionmaker(engine)
"""
MODELS = """
from functools import partial
from sqlalchemy import Column, ForeignKey, Integer, Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship(lazy="raise")

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
"""


def verdict(box, folder, text):
    return box().conclude(Evidence(tree(folder, {"main.py": text}))).verdict


@pytest.mark.parametrize(
    "line",
    [
        "make = partial(create_async_engine, pool_size=3)\nother = make(URL)",
        "others = list(map(create_async_engine, URLS))",
        'MAKERS = {"async": create_async_engine}\nother = MAKERS["async"](URL)',
        "make = create_async_engine if URL else create_engine\nother = make(URL)",
        "def build(url, make=create_async_engine):\n    return make(url)",
        'other = getattr(sa, "create_async_engine")(URL)',
        'other = importlib.import_module("sqlalchemy.ext.asyncio").create_async_engine(URL)',
        "from company.database import connect\nother = connect(URL)\nsecond = async_sessionmaker(other)",
    ],
)
def test_an_engine_that_no_call_shows_leaves_the_engines_unproven(line, tmp_path):
    assert verdict(PrePing, tmp_path, ENGINE + line) is Verdict.UNPROVEN


@pytest.mark.parametrize(
    "line",
    [
        "make = create_async_engine\nother = make(URL, pool_pre_ping=True)",
        '__all__ = ["create_async_engine"]',
        "def build() -> create_async_engine: ...",
        "second = async_sessionmaker(bind=engine)",
    ],
)
def test_a_maker_that_is_only_named_leaves_no_gap(line, tmp_path):
    assert verdict(PrePing, tmp_path, ENGINE + line) is Verdict.HOLDS


@pytest.mark.parametrize(
    "line",
    [
        "class Stamped:\n    created = Column(Integer)",
        "Order.total = Column(Integer)",
        'setattr(Order, "total", Column(Integer))',
        'Item = type("Item", (Base,), {"id": Column(Integer)})',
    ],
)
def test_a_column_outside_of_the_classes_that_were_read_leaves_a_gap(line, tmp_path):
    assert verdict(MappedColumn, tmp_path, MODELS + line) is Verdict.UNPROVEN


def test_a_column_of_a_table_leaves_none(tmp_path):
    table = 'tags = Table("tags", Base.metadata, Column("id", Integer, primary_key=True))'

    assert verdict(MappedColumn, tmp_path, MODELS + table) is Verdict.HOLDS


@pytest.mark.parametrize(
    "line",
    [
        "Line.order = relationship(Order)",
        'Line.__mapper__.add_property("order", relationship(Order))',
        "related = partial(relationship, lazy='select')",
    ],
)
def test_a_relationship_added_from_outside_leaves_a_gap(line, tmp_path):
    assert verdict(LazyRaise, tmp_path, MODELS + line) is Verdict.UNPROVEN
