"""Section 5: below a union of models Pydantic prints NaN and infinities as the models above say, or its own."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from verdigris import Database, load

MODES = ["null", "strings", "constants"]


class Base(DeclarativeBase):
    pass


class Station(Base):
    __tablename__ = "union_stations"
    id: Mapped[int] = mapped_column(primary_key=True)
    readings: Mapped[list[Reading]] = relationship(lazy="raise", order_by="Reading.id")


class Reading(Base):
    __tablename__ = "union_readings"
    id: Mapped[int] = mapped_column(primary_key=True)
    station_id: Mapped[int] = mapped_column(ForeignKey("union_stations.id"))
    kind: Mapped[str]
    value: Mapped[float]


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session.begin() as session:
        values = (1.5, float("inf"), float("-inf"), float("nan"))
        readings = [Reading(id=n, kind="ab"[n % 2], value=value) for n, value in enumerate([*values, *values[::-1]])]
        session.add(Station(id=1, readings=readings))
    yield database
    await database.dispose()


@pytest.mark.parametrize("above", MODES)
@pytest.mark.parametrize("inside", MODES)
async def test_what_is_no_number_is_printed_as_pydantic_prints_it(db, above, inside):
    class A(BaseModel):
        model_config = ConfigDict(from_attributes=True, ser_json_inf_nan=inside)
        kind: Literal["a"]
        value: float | None

    class B(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        kind: Literal["b"]
        value: float

    class StationOut(BaseModel):
        model_config = ConfigDict(from_attributes=True, ser_json_inf_nan=above)
        id: int
        readings: list[Annotated[A | B, Field(discriminator="kind")]]

    adapter = TypeAdapter(list[StationOut])
    async with db.session() as session:
        rows = list(await session.scalars(select(Station).options(load(Station, StationOut))))
        wanted = adapter.dump_json(adapter.validate_python(rows, from_attributes=True))

    assert db.json_read(select(Station), list[StationOut]).fallback is None
    assert (await db.json(select(Station), list[StationOut])).body == wanted
