"""What the checker makes of routes that answer by `db.json()`."""

from __future__ import annotations

import pytest

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.source import Source

MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship
from verdigris import Base

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship(lazy="raise_on_sql")

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
"""
MAIN = """
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import bindparam, select
from sqlalchemy.orm import contains_eager
from verdigris import Database
from app.models import Order

class LineOut(BaseModel):
    id: int

class OrderOut(BaseModel):
    id: int
    lines: list[LineOut]

db = Database()
app = FastAPI()
hot = db.json_read(select(Order).where(Order.id == bindparam("id")), OrderOut)

@app.get("/orders/{id}", response_model=RESPONSE)
async def read(id: int):
    BODY
"""


@pytest.fixture
def judged(tmp_path):
    def judge(body, response="OrderOut"):
        app = tmp_path / "app"
        app.mkdir()
        (app / "__init__.py").touch()
        (app / "models.py").write_text(MODELS)
        (app / "main.py").write_text(MAIN.replace("BODY", body).replace("RESPONSE", response))
        return boxes()["loading/all-loaded"][1].conclude(Evidence(Source.read(tmp_path)))

    return judge


def test_a_json_read_loads_what_its_model_names_by_guarantee(judged):
    verdict = judged("return await db.json(select(Order).where(Order.id == id), OrderOut)")

    assert verdict.doubts == ()
    assert guaranteed("verdigris.Database.json", "needed").reason in " ".join(proof.reason for proof in verdict.proofs)


@pytest.mark.parametrize(
    ("body", "response"),
    [
        ("return await db.json(select(Order), list[OrderOut])", "list[OrderOut]"),
        ("return db.json_stream(select(Order), list[OrderOut])", "list[OrderOut]"),
        ("return await db.fetch(select(Order).where(Order.id == id), OrderOut)", "OrderOut"),
        ("return await hot(id=id)", "OrderOut"),
        ("return await hot.fetch(id=id)", "OrderOut"),
    ],
)
def test_the_other_forms_leave_nothing_open(judged, body, response):
    verdict = judged(body, response)

    assert (verdict.findings, verdict.doubts) == ((), ())


def test_loader_options_of_its_own_withdraw_the_guarantee(judged):
    verdict = judged("return await db.json(select(Order).options(contains_eager(Order.lines)), list[OrderOut])")

    assert [doubt.subject for doubt in verdict.doubts] == ["GET /orders/{id} answer"]
