"""Loader options that `verdigris fix --unsafe` replaces by the one that fits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verdigris.cli import main

MODELS = """\
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", lazy="raise")


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customer.id"), index=True)
    customer: Mapped[Customer | None] = relationship(back_populates="orders", lazy="raise")
    lines: Mapped[list["Line"]] = relationship(lazy="raise")


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"), index=True)
"""
HEAD = "from sqlalchemy import orm, select\nfrom sqlalchemy.orm import {}\nfrom models import *\n\n\n"
HEAD = HEAD.replace("*", "AsyncSession, Customer, Line, Order")


def fixed(tmp_path, monkeypatch, head, expression):
    (tmp_path / "models.py").write_text(MODELS, "utf-8")
    body = f"async def read(session: AsyncSession):\n    return (await session.scalars({expression})).unique().all()\n"
    (tmp_path / "queries.py").write_text(HEAD.format(head) + body, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["fix", ".", "--no-cache", "--unsafe", "--select", "5.1,5.2"]) == 0
    return (tmp_path / "queries.py").read_text("utf-8").partition("scalars(")[2].partition(")).unique()")[0]


@pytest.mark.parametrize(
    ("head", "before", "after"),
    [
        ("joinedload", "joinedload(Order.lines)", "selectinload(Order.lines)"),
        ("immediateload", "immediateload(Order.lines)", "selectinload(Order.lines)"),
        ("selectinload", "selectinload(Order.customer)", "joinedload(Order.customer)"),
        ("selectinload as s", "s(Order.customer)", "joinedload(Order.customer)"),
        ("Load", "orm.joinedload(Order.lines)", "orm.selectinload(Order.lines)"),
        (
            "selectinload",
            "selectinload(Order.customer).selectinload(Customer.orders), selectinload(Order.lines)",
            "joinedload(Order.customer).selectinload(Customer.orders), selectinload(Order.lines)",
        ),
        (
            "selectinload",
            "selectinload(Order.customer).selectinload(Customer.orders), selectinload(Order.customer).raiseload('*')",
            "joinedload(Order.customer).selectinload(Customer.orders), joinedload(Order.customer).raiseload('*')",
        ),
        (
            "joinedload",
            "joinedload(Order.customer, innerjoin=True)",
            "joinedload(Order.customer, innerjoin=False)",
        ),
    ],
)
def test_the_strategy_that_fits_is_written_and_the_boxes_hold(head, before, after, tmp_path, monkeypatch):
    found = fixed(tmp_path, monkeypatch, head, f"select(Order).options({before})")

    assert found == f"select(Order).options({after})"
    assert main(["check", ".", "--no-cache", "--strict", "--select", "5.1,5.2"]) == 0
    code = f"import queries; print(eval({found!r}, vars(queries)).compile())"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("head", "expression"),
    [
        ("selectinload", "select(Order).options(selectinload(Order.customer)).with_for_update()"),
        ("selectinload", "select(Order).group_by(Order.id).options(selectinload(Order.customer))"),
        ("selectinload", "select(Order).options(selectinload(Order.customer, recursion_depth=2))"),
        ("contains_eager", "select(Order).join(Order.lines).options(contains_eager(Order.lines)).limit(3)"),
        ("joinedload", "select(Order).options(joinedload(Order.lines, innerjoin=True))"),
    ],
)
def test_what_means_more_than_loading_is_left_to_people(head, expression, tmp_path, monkeypatch):
    found = fixed(tmp_path, monkeypatch, head, expression)

    assert found == expression
