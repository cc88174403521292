"""Which relationships loader options name, and whether joining one drops rows."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.loading import JoinedSingle
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence

APP = """
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

class Base(DeclarativeBase): ...

class Mixin:
    @classmethod
    def shared(cls):
        return select(cls).options(joinedload(cls.customer))

class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)

class Order(Mixin, Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(lazy="raise")

    @classmethod
    def found(cls):
        return select(cls).options(joinedload(cls.customer))
"""


def test_a_classmethod_of_a_mapped_class_names_its_own_relationships(tmp_path):
    options = tree(tmp_path, {"app.py": APP}).statements.options

    assert [option.relation and option.relation.key for option in options] == [None, "Order.customer"]


HEAD = """
from sqlalchemy import ForeignKey, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

class Base(DeclarativeBase): ...

class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer | None] = relationship(lazy="raise")

async def read(session: AsyncSession, id: int):
"""
INNER = "joinedload(Order.customer, innerjoin=True)"


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("select(Order).options(INNER)", Verdict.FAILS),
        ("select(Order).options(INNER).where(Order.customer_id == id)", Verdict.HOLDS),
        ("select(Order).where(Order.customer_id.in_([id])).options(INNER)", Verdict.HOLDS),
        ("select(Order).where(Order.customer_id.is_not(None)).options(INNER)", Verdict.HOLDS),
        ("select(Order).join(Order.customer).options(INNER)", Verdict.HOLDS),
        ("select(Order).join(Order.customer, isouter=True).options(INNER)", Verdict.FAILS),
        ("select(Order).options(INNER).where(Order.customer_id == None)", Verdict.FAILS),
        ("select(Order).options(INNER).where(or_(Order.customer_id == id, Order.id == id))", Verdict.FAILS),
        ("select(Order).options(INNER).where((Order.customer_id == id) | (Order.id == id))", Verdict.FAILS),
        ("select(Order).options(INNER)\n    found = found.where(Order.customer_id == id)", Verdict.UNPROVEN),
    ],
)
def test_an_inner_join_drops_no_row_that_a_condition_has_left_out(tmp_path, body, verdict):
    text = f"{HEAD}    found = {body.replace('INNER', INNER)}\n    return await session.scalars(found)\n"

    assert JoinedSingle().conclude(Evidence(tree(tmp_path, {"app.py": text}))).verdict == verdict
