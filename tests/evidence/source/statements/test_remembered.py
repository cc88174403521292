"""Queries in loops behind a mapping: which of them it spares, and which it only keeps from being asked twice."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.loading import NoNPlusOne
from verdigris.evidence import Evidence

HEAD = """
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)

class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    kind: Mapped[str]

async def work(session: AsyncSession, orders: list[Order], given: dict[int, Owner], fill: bool):
"""
EXCEPTIONAL = "it runs only for those that another way did not find"
FEW = "it asks once for each different `order.kind`, of which there may be few"


def asked(folder: Path, before: str, rounds: str) -> tuple[str | None, str | None]:
    """Tell why the query of a loop over orders may be none a row, and for each different what it is sent."""
    text = f"{HEAD}    {before}\n    for order in orders:\n{indent(rounds, ' ' * 8)}\n"
    (found,) = tree(folder, {"app.py": text}).row_queries
    return found.unsure, found.different


@pytest.mark.parametrize(
    ("rounds", "told"),
    [
        ("if order.owner_id not in known: known[order.owner_id] = await {ask}", (None, "order.owner_id")),
        ("if order.kind not in known: known[order.kind] = await {ask}", (FEW, "order.kind")),
        ("key = f'owner:{{order.owner_id}}'\nif key not in known: known[key] = await {ask}", (None, "key")),
        ("if order in known: known[order]\nelse: known[order] = await {ask}", (None, "order")),
        ("if order.owner_id in known: continue\nknown[order.owner_id] = await {ask}", (None, "order.owner_id")),
        ("row = known.get(order.id)\nif row is None: known[order.id] = await {ask}", (None, "order.id")),
        ("known[order.id] = known.get(order.id) or await {ask}", (None, "order.id")),
        ("row = known[order.id] if order.id in known else await {ask}\nknown[order.id] = row", (None, "order.id")),
        ("if order.kind in known: continue\nknown.add(order.kind)\nawait {ask}", (None, "order.kind")),
    ],
)
def test_a_mapping_that_begins_empty_spares_only_what_was_asked_for(tmp_path, rounds, told):
    rounds = rounds.format(ask="session.get(Owner, order.owner_id)")

    assert asked(tmp_path, "known = {}", rounds) == told


@pytest.mark.parametrize(
    ("before", "rounds", "told"),
    [
        ("known = given", "if order.owner_id in known: continue\nknown[order.owner_id] = await {ask}", EXCEPTIONAL),
        ("known = given", "known.get(order.owner_id) or await {ask}", EXCEPTIONAL),
        ("known = given", "row = known.get(order.id)\nif row: continue\nawait {ask}", EXCEPTIONAL),
        ("given = given or {{}}", "if order.id not in given: given[order.id] = await {ask}", EXCEPTIONAL),
        ("known = given", "if order.id in known: await {ask}", "it runs only where `order.id in known`"),
        ("known = given", "if order.id in known: continue\nawait {ask}", None),  # a filter, which keeps nothing
        ("known = given", "if order.kind in ('a', 'b'): await {ask}", None),
        ("known = given", "if order.kind not in KINDS: await {ask}", None),
    ],
)
def test_a_mapping_that_knows_something_before_may_spare_any_round(tmp_path, before, rounds, told):
    ask = "session.get(Owner, order.owner_id)"

    assert asked(tmp_path, before.format(ask=ask), rounds.format(ask=ask)) == (told, None)


def test_the_finding_says_for_each_different_what_it_asks(tmp_path):
    rounds = "        if order.owner_id not in known:\n"
    rounds += "            known[order.owner_id] = await session.get(Owner, order.owner_id)\n"
    text = f"{HEAD}    known = {{}}\n    for order in orders:\n{rounds}"

    (finding,) = NoNPlusOne().conclude(Evidence(tree(tmp_path, {"app.py": text}))).findings

    assert finding.message == "`session.get` asks the database once for each different `order.owner_id` of `orders`"
