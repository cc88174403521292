"""The JSON read of rows that are no entities: columns, aggregates, several mapped classes, single values."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    column_property,
    mapped_column,
    selectinload,
    with_loader_criteria,
)
from tests.library.loading.json.models import Customer, Line, Order, Profile
from tests.library.loading.json.test_read import CustomerOut, LineOut, Page

from verdigris import Database
from verdigris.errors import ConfigurationError, NotFoundError
from verdigris.fastapi import ReadRouter
from verdigris.loading import explain_plan


class StatusOut(BaseModel):
    status: str
    orders: int = Field(serialization_alias="Orders")
    lines: int | None
    first: str | None = None


class ProfileOut(BaseModel):
    bio: str


class Counted(BaseModel):
    order: OrderOut = Field(validation_alias="Order")
    count: int


class OrderOut(BaseModel):
    id: int
    customer: CustomerOut
    lines: list[LineOut]


class WithProfile(BaseModel):
    buyer: CustomerOut
    profile: ProfileOut | None = Field(validation_alias="Profile")


class CustomerRef(BaseModel):
    customer_id: int


class Paged(BaseModel):
    status: str
    orders: int


async def by_sqlalchemy(db, statement, schema, **options):
    """What FastAPI makes of the rows themselves."""
    adapter = TypeAdapter(Annotated[schema, Field()])
    async with db.session() as session:
        rows = (await session.execute(statement)).all()
        value = adapter.validate_python(rows, from_attributes=True)
        return adapter.dump_json(value, by_alias=True, **options)


async def written(db, statement, schema, **options):
    read = db.json_read(statement, schema, **options)
    assert read.fallback is None
    return (await read()).body


BY_STATUS = (
    select(Order.status, func.count().label("orders"), func.sum(Line.quantity).label("lines"))
    .outerjoin(Order.lines)
    .group_by(Order.status)
    .order_by("status")
)
buyer = aliased(Customer, name="buyer")
STATEMENTS = {
    "aggregates": (BY_STATUS, StatusOut),
    "of a table": (select(Order.__table__.c.status, sa.literal(1).label("orders")).order_by(Order.id), Paged),
    "a column named as a method of rows": (
        select(Order, func.count(Line.id).label("count")).outerjoin(Order.lines).group_by(Order).order_by(Order.id),
        Counted,
    ),
    "a class that may be missing": (select(buyer, Profile).outerjoin(buyer.profile).order_by(buyer.id), WithProfile),
    "distinct": (select(Order.status, sa.literal(0).label("orders")).distinct().order_by(Order.status), Paged),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_rows_are_written_as_pydantic_writes_them(db, name):
    statement, model = STATEMENTS[name]
    options = [selectinload(Order.customer), selectinload(Order.lines)] if model is Counted else []

    body = await written(db, statement, list[model])

    assert body == await by_sqlalchemy(db, statement.options(*options), list[model])
    assert len(TypeAdapter(list[Any]).validate_json(body)) > 1


async def test_options_criteria_limits_and_values_hold_for_rows(db):
    statement = BY_STATUS.where(Order.id > bindparam("after")).limit(1)
    only_paid = with_loader_criteria(Order, Order.paid.is_(True))

    read = db.json_read(statement.options(only_paid), list[StatusOut], exclude_none=True)

    assert read.fallback is None
    for after, rows in ((0, 1), (100, 0)):
        wanted = statement.params(after=after).options(only_paid)
        body = (await read(after=after)).body
        assert body == await by_sqlalchemy(db, wanted, list[StatusOut], exclude_none=True)
        assert body.count(b'"status":') == rows
    assert body != (await db.json(statement.params(after=0), list[StatusOut], exclude_none=True)).body


async def test_a_page_of_rows_knows_its_total(db):
    body = (await db.json(BY_STATUS.limit(1).offset(1), Page[Paged])).body

    assert body == b'{"items":[{"status":"it\'s","orders":17}],"total":3,"limit":1,"offset":1}'


async def test_a_single_value_is_the_answer(db):
    count = select(func.count()).select_from(Order)
    latest = select(func.max(Order.id)).where(Order.id < bindparam("limit"))
    names = select(Order.status).distinct().order_by(Order.status)

    assert (await db.json(count, int)).body == b"30"
    assert await db.fetch(count, int) == 30
    assert (await db.json(names, list[str])).body == b'["closed","it\'s","open"]'
    assert (
        await db.json(select(Order.note).where(Order.id.in_([3, 4])).order_by(Order.id), list[str | None])
    ).body == (b'["note 3",null]')
    read = db.json_read(latest, int | None)
    assert [(await read(limit=limit)).body for limit in (4, 0)] == [b"3", b"null"]
    with pytest.raises(ValidationError):
        await db.json(latest.params(limit=0), int)
    with pytest.raises(NotFoundError):
        await db.json(select(Order.id).where(Order.id < 0), int)


async def test_rows_become_objects_and_streams(db):
    found = await db.fetch(BY_STATUS, list[StatusOut])
    streamed = b"".join([part async for part in db.json_stream(BY_STATUS, list[StatusOut]).body_iterator])

    async with db.session() as session:
        rows = (await session.execute(BY_STATUS)).all()
    assert found == TypeAdapter(list[StatusOut]).validate_python(rows, from_attributes=True)
    assert [one.status for one in found] == ["closed", "it's", "open"]
    assert streamed == await written(db, BY_STATUS, list[StatusOut])


async def test_rows_in_a_session_see_what_it_wrote(db):
    async with db.session() as session:
        session.add(Customer(id=95, name="new"))

        count = await db.fetch(select(func.count()).select_from(Customer), int, session=session)

    assert count == 5


async def test_rows_that_sql_cannot_write_are_read_by_sqlalchemy(db, caplog):
    class Pair(BaseModel):
        order: OrderOut = Field(validation_alias="Order")
        label: str

    class Mean(BaseModel):
        mean: float

    pairs = select(Order, Line.sku.label("label")).join(Order.lines).where(Order.id == 3).order_by(Line.id)
    mean = await db.json(select(func.avg(Line.price).label("mean")), Mean)
    tuples = await db.fetch(select(Order.id, Order.status).order_by(Order.id).limit(2), list[tuple[int, str]])

    assert mean.body == b'{"mean":15.355555555555556}'
    assert tuples == [(1, "closed"), (2, "it's")]
    assert "no SQL is known for a column of type" in caplog.text
    assert [(pair.order.id, pair.label) for pair in await db.fetch(pairs, list[Pair])] == [
        (3, f"SKU-{number}") for number in range(3)
    ]


def test_the_plan_of_rows_says_what_will_run():
    assert explain_plan(BY_STATUS, Paged) == (
        "rows of status, orders, lines -> Paged: PostgreSQL writes the answer, in one statement -> Paged\n"
        "  status: the row.status\n"
        "  orders: the row.orders"
    )
    assert explain_plan(select(Order), CustomerRef) == explain_plan(Order, CustomerRef)


async def test_a_field_that_no_column_has_is_refused_with_the_names_that_there_are(db):
    with pytest.raises(ConfigurationError) as raised:
        db.json_read(select(Order.status, func.count().label("n")).group_by(Order.status), list[StatusOut])

    assert str(raised.value).startswith(
        "No row of this select() can become a StatusOut: StatusOut.orders is none of status, n."
    )
    with pytest.raises(ConfigurationError, match="does not say what its rows hold"):
        db.json_read(select(text("1")), list[StatusOut])


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    whole: Mapped[Decimal] = mapped_column(sa.Numeric(10, 0))
    code: Mapped[str] = mapped_column(sa.String(3))


Item.share = column_property(Item.price / 100000000)
Item.product = column_property(Item.whole * 100)
Item.twice = column_property(Item.code + Item.code)


class ItemOut(BaseModel):
    share: Decimal
    product: Decimal
    twice: Annotated[str, Field(max_length=3)]


async def test_what_an_expression_is_typed_as_is_no_promise_of_its_size(database_url):
    """A product has more digits than its factors, two texts are longer than one, whatever the type is called."""
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session.begin() as session:
        session.add_all([Item(id=1, price=Decimal("1.50"), whole=Decimal(12300), code="a")])
        session.add_all([Item(id=2, price=Decimal(0), whole=Decimal(1), code="abc")])

    columns = select(Item.share.label("share"), Item.product.label("product"), Item.twice.label("twice"))
    first = await written(database, select(Item).where(Item.id == 1), list[ItemOut])
    second = await written(database, columns.where(Item.id == 1), list[ItemOut])
    wanted = await by_sqlalchemy(database, columns.where(Item.id == 1), list[ItemOut])
    for statement in (select(Item), columns):
        with pytest.raises(ValidationError, match="at most 3 characters"):
            await database.json(statement.order_by(Item.id), list[ItemOut])
    await database.dispose()

    assert first == second == wanted


async def test_a_read_router_answers_with_rows_of_columns_too(db):
    reads = ReadRouter(db)

    @reads.get("/statuses", response_model=list[StatusOut])
    def statuses(after: int = 0):
        return BY_STATUS.where(Order.id > after)

    @reads.get("/count", response_model=int)
    def count():
        return select(func.count()).select_from(Order)

    app = FastAPI()
    app.include_router(reads)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as browser:
        found = [await browser.get(path) for path in ("/statuses", "/statuses?after=100", "/count")]

    assert found[0].content == await by_sqlalchemy(db, BY_STATUS, list[StatusOut])
    assert [answer.content for answer in found[1:]] == [b"[]", b"30"]
