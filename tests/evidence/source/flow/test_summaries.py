"""Calls that are given objects: run once for what is loaded of these, and the same to every caller as if run again."""

from __future__ import annotations

import re
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from verdigris.evidence.source import Source
from verdigris.evidence.source.flow.machine import Machine
from verdigris.evidence.source.flow.summaries import Summaries

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
from fastapi import APIRouter
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

router = APIRouter()

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"))
    shop: Mapped["Shop"] = relationship()
    lines: Mapped[list["Line"]] = relationship()
    notes: Mapped[list["Note"]] = relationship()

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

class Shop(Base):
    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)

def count(order: Order):
    return len(order.lines)

async def complete(db: AsyncSession, order: Order):
    await db.refresh(order, ["lines"])
    return order

def again(order: Order, depth: int):
    return count(order) if depth else again(order, depth - 1)

def relate(order: Order, shop: Shop):
    order.shop = shop
    return order

async def save(db: AsyncSession, order: Order):
    order.name = "x"
    await db.flush()

async def noted(db: AsyncSession, order: Order):
    notes = await db.execute(select(Note))
    return [order, notes.scalars().all()]

async def loaded(db: AsyncSession):
    return (await db.execute(select(Order).options(selectinload(Order.lines)))).scalars().one()

async def bare(db: AsyncSession):
    return (await db.execute(select(Order))).scalars().one()
"""
CALLERS = """
async def one(db: AsyncSession):
    order = await loaded(db)
    return count(order)

async def two(db: AsyncSession):
    order = await loaded(db)
    return count(order) + again(order, 3)

async def three(db: AsyncSession):
    order = await loaded(db)
    await complete(db, order)
    return [line.id for line in order.lines], order.notes

async def four(db: AsyncSession):
    order = await bare(db)
    order = await complete(db, order)
    return [line.id for line in order.lines], order.notes

async def five(db: AsyncSession):
    order = await bare(db)
    order = await complete(db, order)
    return [line.id for line in order.lines], order.shop.id

async def six(db: AsyncSession):
    shop = (await db.execute(select(Shop))).scalars().one()
    order = relate(await bare(db), shop)
    return order.shop.id, order.notes

async def seven(db: AsyncSession):
    shop = (await db.execute(select(Shop))).scalars().one()
    order = relate(await bare(db), shop)
    return order.shop.id, count(order)

async def eight(db: AsyncSession):
    order, other = await bare(db), Order(shop_id=1)
    await save(db, order)
    return order.id, other.notes

async def nine(db: AsyncSession):
    order, other = await bare(db), Order(shop_id=1)
    db.add(other)
    await save(db, order)
    return order.id, other.notes

async def ten(db: AsyncSession):
    order, notes = await noted(db, await bare(db))
    return order.lines, [note.id for note in notes]

async def eleven(db: AsyncSession):
    order, notes = await noted(db, await bare(db))
    return order.notes, [note.id for note in notes]
"""


def read(folder: Path, text: str) -> Source:
    """Return the index of one module, of which these functions are routes."""
    routes = re.sub(r"(?m)^async def (\w+)", r'@router.get("/\1")\nasync def \1', dedent(text))
    (folder / "app.py").write_text(HEAD + routes, "utf-8")
    return Source.read(folder)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function's own code was run."""
    counted: Counter[str] = Counter()
    run = Machine._run

    def counting(machine, function, names):
        counted[function.scope.name] += 1
        return run(machine, function, names)

    monkeypatch.setattr(Machine, "_run", counting)
    return counted


def test_a_function_is_run_once_for_objects_of_the_same_query(tmp_path, runs):
    source = read(
        tmp_path,
        """
        async def first(db: AsyncSession):
            return count(await loaded(db))

        async def second(db: AsyncSession):
            return count(await loaded(db))

        async def third(db: AsyncSession):
            order = await loaded(db)
            return count(order), count(order)
        """,
    )

    found = source.flow.reads.found

    assert runs["count"] == 1
    assert {key.rpartition(" ")[2]: str(read.state) for key, read in found.items()} == {"Order.lines": "loaded"}


def test_a_function_is_run_again_for_objects_of_which_less_is_loaded(tmp_path, runs):
    source = read(
        tmp_path,
        """
        async def first(db: AsyncSession):
            return count(await loaded(db))

        async def second(db: AsyncSession):
            return count(await bare(db))
        """,
    )

    found = source.flow.reads.found

    assert runs["count"] == 2
    assert {key.rpartition(" ")[2]: str(read.state) for key, read in found.items()} == {"Order.lines": "missing"}


def test_summaries_change_nothing_of_what_is_found(tmp_path, monkeypatch):
    summed = read(tmp_path, CALLERS).flow.reads
    monkeypatch.setattr(Summaries, "call", lambda _self, _machine, _scope, _names, run: run())

    run_again = read(tmp_path, CALLERS).flow.reads

    assert {key: (read.state, read.reason, read.place) for key, read in summed.found.items()} == {
        key: (read.state, read.reason, read.place) for key, read in run_again.found.items()
    }
    assert summed.unfollowed == run_again.unfollowed
    assert summed.strays == run_again.strays
    assert len(summed.found) > 6
