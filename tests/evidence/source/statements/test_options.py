"""Which relationships loader options name."""

from __future__ import annotations

from tests.evidence.trees import tree

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
