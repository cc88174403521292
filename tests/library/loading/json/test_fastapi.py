"""Section 5: the same route by `db.json()` and by FastAPI's own way gives the same bytes, type and length."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from inspect import signature
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.routing import serialize_response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from verdigris import Database, load
from verdigris.fastapi import install


class Colour(enum.Enum):
    RED = "red"
    BLUE = "it's blue"


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    weight: Mapped[float | None]
    made: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))
    took: Mapped[dt.timedelta]
    key: Mapped[uuid.UUID]
    raw: Mapped[bytes]
    colour: Mapped[Colour]
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text))
    parts: Mapped[list[Part]] = relationship(order_by="Part.id")


class Part(Base):
    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[int] = mapped_column(sa.ForeignKey("things.id"))
    since: Mapped[dt.date]


class PartOut(BaseModel):
    id: int
    since: dt.date = Field(serialization_alias="in use since")


class ThingOut(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", ser_json_timedelta="float")

    id: int
    name: Annotated[str, Field(max_length=20)]
    price: Decimal
    weight: float | None
    made: dt.datetime
    took: dt.timedelta
    anything: Any = Field(validation_alias="took")
    key: uuid.UUID
    raw: bytes
    colour: Colour
    tags: list[str]
    parts: list[PartOut]


#: FastAPI that does not let Pydantic write the JSON has no answer for it.
UNUSUAL = float("nan") if "dump_json" in signature(serialize_response).parameters else 0.25


def things():
    """Return two rows, one hard to print."""
    made = dt.datetime(2024, 7, 1, 12, 30, 0, 500_000, tzinfo=dt.UTC)
    took = dt.timedelta(days=400, seconds=1.5)
    plain = {"made": made, "took": took, "key": uuid.UUID(int=7), "tags": ["a", 'b"c']}
    return [
        Thing(id=1, name="Ünî\x01", price=Decimal("10.50"), weight=1.0, raw=b"\xff\xfe?", colour=Colour.BLUE, **plain,
              parts=[Part(id=n, since=dt.date(2024, 1, n)) for n in (1, 2)]),
        Thing(id=2, name="</script>", price=Decimal("100000.00"), weight=UNUSUAL, raw=b"", colour=Colour.RED,
              **plain),
    ]  # fmt: skip


@pytest.fixture
async def client(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session.begin() as session:
        session.add_all(things())
    app = FastAPI()
    install(app, database)
    every = select(Thing).order_by(Thing.id)

    def routes(path: str, statement: Any, type_: Any, **options: Any) -> None:
        async def by_postgresql():
            asked = {name.removeprefix("response_model_"): value for name, value in options.items()}
            return await database.json(statement, type_, **asked)

        async def by_fastapi():
            async with database.session() as session:
                rows = await session.scalars(statement.options(load(Thing, ThingOut)))
                return rows.all() if type_ is not ThingOut else rows.first()

        app.get(f"/json{path}", response_model=type_, **options)(by_postgresql)
        app.get(f"/fastapi{path}", response_model=type_, **options)(by_fastapi)

    routes("/things", every, list[ThingOut])
    routes("/none", every.where(Thing.id < 0), list[ThingOut])
    routes("/one", every.limit(1), ThingOut)
    routes("/sparse", every, list[ThingOut], response_model_exclude_none=True)
    routes("/by-name", every, list[ThingOut], response_model_by_alias=False)
    routes("/unset", every, list[ThingOut], response_model_exclude_unset=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    await database.dispose()


@pytest.mark.parametrize("path", ["/things", "/none", "/one", "/sparse", "/by-name", "/unset"])
async def test_a_route_answers_as_fastapi_answers(client, path, caplog):
    ours, theirs = await client.get(f"/json{path}"), await client.get(f"/fastapi{path}")

    assert ours.content == theirs.content
    assert ours.status_code == theirs.status_code == 200
    assert dict(ours.headers) == dict(theirs.headers)
    assert not [record for record in caplog.records if "is read by load()" in record.message]


async def test_both_ways_describe_the_same_response(client):
    paths = (await client.get("/openapi.json")).json()["paths"]

    for path in ("/things", "/one", "/sparse"):
        ours, theirs = (paths[f"/{way}{path}"]["get"]["responses"]["200"]["content"] for way in ("json", "fastapi"))
        schema, expected = (each["application/json"]["schema"] for each in (ours, theirs))
        schema.pop("title", None), expected.pop("title", None)
        assert schema == expected
