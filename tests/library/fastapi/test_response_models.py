"""Section 5 meets 3: at start, each route's response model is compared with what its code loads."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

from verdigris import Database, load
from verdigris.errors import ConfigurationError
from verdigris.fastapi import install
from verdigris.fastapi.checks import check


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True)


class Boat(Base):
    __tablename__ = "boat"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship()
    sails: Mapped[list[Sail]] = relationship(back_populates="boat")


class Sail(Base):
    __tablename__ = "sail"

    id: Mapped[int] = mapped_column(primary_key=True)
    boat_id: Mapped[int] = mapped_column(ForeignKey("boat.id"))
    boat: Mapped[Boat] = relationship(back_populates="sails")


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class BoatRow(Out):
    pass


class BoatOut(Out):
    owner: Out
    sails: list[Out]


class Wrong(Out):
    keel: Out


class Page(BaseModel):
    boats: list[BoatOut]


db = Database("postgresql://nobody@localhost/nothing")
Session = Annotated[AsyncSession, Depends(db.request_session, scope="function")]


def refused(endpoint: Any, response_model: Any) -> str | None:
    """What the start of an application with this one route says."""
    app = FastAPI()
    install(app, db)
    app.get("/boats/{id_}", response_model=response_model)(endpoint)
    try:
        check(app, db)
    except ConfigurationError as error:
        return str(error)
    return None


def all_boats() -> Any:
    return select(Boat).options(load(Boat, Wrong))


def test_an_impossible_pair_in_an_endpoint_is_refused_with_route_and_names():
    async def read(id_: int, session: Session) -> Any:
        return await session.scalar(select(Boat).where(Boat.id == id_).options(load(Boat, Wrong)))

    said = refused(read, Wrong)

    assert said is not None
    assert "GET /boats/{id_}" in said
    assert "load(Boat, Wrong): No Boat can become a Wrong: Wrong.keel reads Boat.keel, which does not exist." in said


def test_an_impossible_pair_in_a_function_that_the_endpoint_calls_is_refused():
    async def read(id_: int, session: Session) -> Any:
        return (await session.scalars(all_boats())).all()

    assert "load(Boat, Wrong): No Boat can become a Wrong" in (refused(read, None) or "")


@pytest.mark.parametrize("response_model", [BoatOut, BoatOut | None])
def test_a_response_model_that_reads_more_than_is_loaded_is_refused(response_model):
    async def read(id_: int, session: Session) -> Any:
        return await session.scalar(select(Boat).where(Boat.id == id_).options(load(Boat, BoatRow)))

    said = refused(read, response_model) or ""

    assert "BoatOut reads Boat.owner, which load(Boat, BoatRow) does not load. Write load(Boat, BoatOut)." in said
    assert "BoatOut reads Boat.sails, which load(Boat, BoatRow) does not load." in said


def test_a_result_that_is_named_first_is_followed():
    async def read(id_: int, session: Session) -> Any:
        boats = (await session.scalars(select(Boat).options(load(Boat, BoatRow)))).unique().all()
        return boats  # noqa: RET504 - what the test is about

    async def got(id_: int, session: Session) -> Any:
        return await session.get(Boat, id_, options=[load(Boat, BoatRow)])

    assert "BoatOut reads Boat.owner" in (refused(read, list[BoatOut]) or "")
    assert "BoatOut reads Boat.owner" in (refused(got, BoatOut) or "")


def test_what_fits_starts():
    async def read(id_: int, session: Session) -> Any:
        return await session.scalar(select(Boat).where(Boat.id == id_).options(load(Boat, BoatOut)))

    async def less(id_: int, session: Session) -> Any:
        return await session.scalar(select(Boat).where(Boat.id == id_).options(load(Boat, BoatOut)))

    assert refused(read, BoatOut) is None
    assert refused(less, BoatRow) is None


def test_what_is_not_returned_as_it_is_is_left_alone():
    async def wrapped(id_: int, session: Session) -> Any:
        return {"boats": (await session.scalars(select(Boat).options(load(Boat, BoatOut)))).all()}

    async def changed(id_: int, session: Session) -> Any:
        boat = await session.scalar(select(Boat).options(load(Boat, BoatRow)))
        boat = await session.scalar(select(Boat).where(Boat.id == boat.id).options(load(Boat, BoatOut)))
        return boat  # noqa: RET504 - as above

    async def beside(id_: int, session: Session) -> Any:
        options = (load(Boat, BoatRow), joinedload(Boat.owner), selectinload(Boat.sails))
        if id_:
            return await session.get(Boat, id_, options=[load(Boat, BoatRow), *options])
        return await session.scalar(select(Boat).options(*options, load(Boat, BoatRow)))

    async def chosen(id_: int, session: Session) -> Any:
        schema = BoatRow if id_ else BoatOut
        return await session.scalar(select(Boat).options(load(Boat, schema)))

    assert refused(wrapped, Page) is None
    assert refused(changed, BoatOut) is None
    assert refused(beside, BoatOut) is None
    assert refused(chosen, BoatOut) is None
