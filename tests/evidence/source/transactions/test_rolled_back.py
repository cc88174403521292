"""Reads of expired attributes in except clauses."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.evidence.source.transactions.rolled_back import rolled_back_reads

APP = """
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]

    def label(self) -> str: ...

async def pay(session: AsyncSession, order: Order) -> None:
    try:
        await session.commit()
    except Exception:
        {}
"""


@pytest.mark.parametrize(
    ("handler", "read"),
    [
        ("await session.rollback(); print(order.number)", ["order.number"]),
        ("print(order.number); await session.rollback()", []),
        ("await session.rollback(); await session.refresh(order); print(order.number)", []),
        ("await session.rollback(); print(order.label)", []),
        ("order = Order(number='1'); await session.rollback(); print(order.number)", []),
    ],
)
def test_what_a_rollback_has_expired_is_read_behind_it_in_its_clause(tmp_path, handler, read):
    source = tree(tmp_path, {"app.py": APP.format(handler)})

    assert [each.attribute for each in rolled_back_reads(source)] == read
