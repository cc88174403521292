"""Which columns where clauses rely on, and which conditions nobody can read."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

HEAD = """
from sqlalchemy import select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    place: Mapped[str]

"""


def filters(folder, text):
    return tree(folder, {"main.py": HEAD + text}).filters


@pytest.mark.parametrize(
    "body",
    [
        'found = [Order.state == state]\n    found.append(Order.place == "x")',
        'found = []\n    found += [Order.state == state]\n    found.extend([Order.place == "x"])',
        'found = [Order.state == state]\n    found = [*found, Order.place == "x"]',
    ],
)
def test_conditions_that_a_function_gathers_in_a_list_are_read(body, tmp_path):
    read = filters(tmp_path, f"def orders(state):\n    {body}\n    return select(Order).where(*found)\n")

    assert {column for _, column in read.filtered} == {"state", "place"}
    assert read.gaps == []


@pytest.mark.parametrize(
    ("body", "gap"),
    [
        ("return select(Order).where(*given)", "gathered elsewhere"),
        ("found = list(given)\n    return select(Order).where(*found)", "gathered elsewhere"),
        ("found = []\n    add(found)\n    return select(Order).where(*found)", "gathered elsewhere"),
        ("return select(Order).where(getattr(Order, given) == 1)", "at run time only"),
        ("return select(Order).where(getattr(Order, given).in_([1]))", "at run time only"),
        ('return text("select id from orders where state = :s")', "a text is not read"),
        ('return text(f"delete from orders where {given} = 1")', "a text is not read"),
    ],
)
def test_what_is_compared_unseen_is_a_gap(body, gap, tmp_path):
    read = filters(tmp_path, f"def orders(given):\n    {body}\n")

    assert [gap in each for each in read.gaps] == [True]


@pytest.mark.parametrize(
    "body",
    [
        "return select(Order).where(Order.state == given)",
        "return getattr(Order, given)",
        'return text("select count(*) from orders")',
        'return getattr(Order, "state") == given',
    ],
)
def test_what_is_written_down_leaves_no_gap(body, tmp_path):
    assert filters(tmp_path, f"def orders(given):\n    {body}\n").gaps == []
