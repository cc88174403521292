"""Columns that an annotation brings along."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.evidence.values import Known, Missing, Unknown

APP = """
from typing import Annotated, Optional
from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

whole = Annotated[int, mapped_column(BigInteger, primary_key=True)]
either = Annotated[int, mapped_column(index=True, sort_order=1) if SETTING else mapped_column(index=True)]
one = Annotated[int, mapped_column(index=True) if SETTING else mapped_column()]
plain = Annotated[int, "a number"]
customer = Annotated[int, mapped_column(ForeignKey("customers.id"), index=True)]

class Order(Base):
    __tablename__ = "orders"
    number: {annotation}
"""


def number(folder, annotation):
    (order,) = tree(folder, {"app.py": APP.format(annotation=annotation)}).models.every
    return order.column("number"), [index.columns for index in order.indexes]


@pytest.mark.parametrize(
    "annotation",
    [
        "Mapped[either]",
        "Mapped[Optional[either]]",
        "Mapped[either | None] = mapped_column(default=None)",
        "Mapped['either']",
    ],
)
def test_an_index_that_each_way_of_an_annotation_brings_is_one(tmp_path, annotation):
    column, indexes = number(tmp_path, annotation)

    assert column.option("index") == Known(value=True)
    assert indexes == [("number",)]


def test_a_primary_key_and_a_foreign_key_come_along_too(tmp_path):
    assert number(tmp_path / "whole", "Mapped[whole] = mapped_column(init=False)")[1] == [("number",)]
    assert number(tmp_path / "customer", "Mapped[customer]")[0].foreign_key == Known("customers.id")


def test_an_index_on_a_condition_is_not_settled(tmp_path):
    column, indexes = number(tmp_path, "Mapped[one]")

    assert isinstance(column.option("index"), Unknown)
    assert indexes == []


def test_what_the_attribute_says_goes_before_what_its_annotation_says(tmp_path):
    assert number(tmp_path / "own", "Mapped[either] = mapped_column(index=False)")[1] == []
    assert number(tmp_path / "plain", "Mapped[plain]")[0].option("index") == Missing()
