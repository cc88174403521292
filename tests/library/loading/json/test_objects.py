"""`db.fetch()` against the objects that Pydantic makes of the ORM's instances."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from sqlalchemy import Float, LargeBinary, Numeric, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.library.loading.json.models import Order
from tests.library.loading.json.test_read import Aliased, LineOut, OrderOut, PaidOut

from verdigris import Database, load


class Base(DeclarativeBase):
    pass


class Sample(Base):
    __tablename__ = "samples"

    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal] = mapped_column(Numeric(20, 4))
    weight: Mapped[float] = mapped_column(Float)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime]
    took: Mapped[timedelta]
    note: Mapped[str | None]


class SampleOut(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64")

    price: Decimal
    weight: float | None
    raw: bytes
    at: datetime
    took: timedelta
    note: str | None


class Untyped(BaseModel):
    price: Any
    at: Any


class Either(BaseModel):
    at: datetime | str
    price: str | Decimal


async def by_loading(db, statement, schema):
    async with db.session() as session:
        option = load(statement.column_descriptions[0]["entity"], schema.__args__[0])
        rows = (await session.scalars(statement.options(option))).all()
        return TypeAdapter(schema).validate_python(rows, from_attributes=True)


class Nested(BaseModel):
    lines: list[LineOut]


@pytest.mark.parametrize("model", [OrderOut, PaidOut, Aliased], ids=lambda model: model.__name__)
async def test_objects_are_those_that_pydantic_makes_of_instances(db, model):
    statement = select(Order).order_by(Order.id)

    found = await db.fetch(statement, list[model])

    assert found == await by_loading(db, statement, list[model])


async def test_objects_of_plain_models_come_from_one_text(db, caplog):
    await db.fetch(select(Order), list[Nested])
    await db.fetch(select(Order), list[PaidOut])

    assert caplog.text == ""


async def test_what_a_model_refuses_as_json_is_made_of_instances(db, caplog):
    class Whole(BaseModel):
        id: int
        note: Annotated[str | None, AfterValidator(lambda note: None if note is None else note + "!")]

        @model_validator(mode="after")
        def small(self):
            if self.id > 2:
                raise ValueError("too many")
            return self

    statement = select(Order).order_by(Order.id)

    found = await db.fetch(statement.limit(2), list[Whole])
    with pytest.raises(ValidationError, match=r"too many.*input_type=Order") as raised:
        await db.fetch(statement.limit(4), list[Whole])

    assert [one.note for one in found] == ["note 1!", "note 2!"]
    assert [error["loc"] for error in raised.value.errors()] == [(2,), (3,)]
    assert "refuses as JSON" in caplog.text


@pytest.mark.parametrize("model", [SampleOut, Untyped, Either], ids=lambda model: model.__name__)
async def test_values_keep_their_types(database_url, model):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    moment = datetime(2024, 2, 29, 1, 2, 3, 4, UTC).replace(tzinfo=None)
    same = {"price": Decimal("1.5000"), "raw": b"abc", "at": moment, "took": timedelta(days=-1, microseconds=1)}
    async with database.session.begin() as session:
        session.add(Sample(id=1, weight=float("inf"), note="1.5", **same))
        session.add(Sample(id=2, weight=0.1, note=None, **same))

    statement = select(Sample).order_by(Sample.id)
    found, expected = await database.fetch(statement, list[model]), await by_loading(database, statement, list[model])
    await database.dispose()

    assert found == expected
    assert [[type(value) for value in vars(one).values()] for one in found] == [
        [type(value) for value in vars(one).values()] for one in expected
    ]


class Counted(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    remark: str | None = Field(None, alias="note")
    _made: int = PrivateAttr(0)

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self._made = 1


class Book(BaseModel):
    items: list[Counted]
    total: int

    def __init__(self, **data: Any) -> None:
        super().__init__(**{**data, "total": 0})


async def test_an_init_that_pydantic_does_not_call_for_rows_is_not_called(db):
    statement = select(Order).order_by(Order.id)
    wanted = await by_loading(db, statement, list[Counted])

    read = db.json_read(statement, list[Counted])
    found = await db.fetch(statement, list[Counted])

    assert read.fallback is None
    assert (await read()).body == TypeAdapter(list[Counted]).dump_json(wanted, by_alias=True)
    assert [(each.id, each.remark, each._made) for each in found] == [(each.id, each.remark, 0) for each in wanted]
    assert any(each.remark for each in found)


async def test_the_init_of_a_page_is_called(db):
    page = await db.json(select(Order).order_by(Order.id).limit(2), Book)

    assert json.loads(page.body)["total"] == 0
