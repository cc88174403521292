"""Relationships and classes that lead elsewhere than a foreign key: aliases, values of the moment, several for one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy import ForeignKey, Integer, and_, bindparam, func, select
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    column_property,
    contains_eager,
    foreign,
    mapped_column,
    relationship,
    with_loader_criteria,
    with_polymorphic,
)
from tests.library.loading.json.comparing import of_the_orm

from verdigris import Database, load

USER = ContextVar("user", default=1)


class Base(DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "relations_parents"

    id: Mapped[int] = mapped_column(primary_key=True)
    kids: Mapped[list[Kid]] = relationship(order_by="Kid.id")
    mine: Mapped[list[Kid]] = relationship(
        primaryjoin=lambda: and_(Kid.parent_id == Parent.id, Kid.owner == _user()), order_by="Kid.id", viewonly=True
    )
    eldest: Mapped[Kid | None] = relationship(
        primaryjoin=lambda: Parent.id == foreign(Kid.parent_id), order_by="Kid.id", uselist=False, viewonly=True
    )


LONG = "a_name_that_is_longer_than_an_identifier_of_postgresql_may_be_to_"


class Wide(Base):
    __tablename__ = "relations_wide"

    id: Mapped[int] = mapped_column(primary_key=True)


setattr(Wide, f"{LONG}one", mapped_column("one", Integer, default=1))
setattr(Wide, f"{LONG}two", mapped_column("two", Integer, default=2))


class Kid(Base):
    __tablename__ = "relations_kids"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "kid"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    parent_id: Mapped[int] = mapped_column(ForeignKey("relations_parents.id"))
    owner: Mapped[int]


class Pupil(Kid):
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "pupil"}

    school: Mapped[str | None]
    marks: Mapped[list[Mark]] = relationship(order_by="Mark.id")


class Mark(Base):
    __tablename__ = "relations_marks"

    id: Mapped[int] = mapped_column(primary_key=True)
    pupil_id: Mapped[int] = mapped_column(ForeignKey("relations_kids.id"))


class Work(ConcreteBase, Base):
    __tablename__ = "relations_works"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "work", "concrete": True}

    id: Mapped[int] = mapped_column(primary_key=True)


class Book(Work):
    __tablename__ = "relations_books"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "book", "concrete": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    isbn: Mapped[str]


def _user() -> Any:
    return bindparam("user", callable_=USER.get)


_place = func.row_number().over(partition_by=Kid.parent_id, order_by=Kid.id.desc()).label("place")
_placed = select(Kid, _place).subquery()
_Youngest = aliased(Kid, _placed)
Parent.youngest = relationship(
    _Youngest,
    primaryjoin=lambda: and_(foreign(_Youngest.parent_id) == Parent.id, _placed.c.place == 1),
    viewonly=True,
)
Parent.owned = column_property(
    select(func.count()).where(Kid.parent_id == Parent.id, Kid.owner == _user()).correlate_except(Kid).scalar_subquery()
)


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int


class MineOut(Out):
    mine: list[Out]
    owned: int


class EldestOut(Out):
    eldest: Out | None


class YoungestOut(Out):
    youngest: list[Out]


class KidsOut(Out):
    kids: list[Out]


class PupilOut(Out):
    school: str | None = "none"


class MarkedOut(Out):
    school: str | None = "none"
    marks: list[Out] = []


class BookOut(Out):
    isbn: str | None = None


PARENTS = select(Parent).order_by(Parent.id)


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session.begin() as session:
        session.add_all([Parent(id=1), Parent(id=2), Wide(id=1), Work(id=1), Book(id=2, isbn="0")])
        await session.flush()
        session.add_all([Kid(id=n, parent_id=1 + n % 2, owner=1 + n // 3) for n in range(1, 5)])
        session.add(Pupil(id=5, parent_id=2, owner=2, school="north", marks=[Mark(id=1)]))
    yield database
    await database.dispose()


@pytest.mark.parametrize("limit", [None, 40])
async def test_values_of_the_moment_in_the_mapping_are_those_of_each_read(db, limit):
    statement = PARENTS.limit(limit)
    read = db.json_read(statement, list[MineOut])
    bodies = []

    for user in (1, 2, 1):
        token = USER.set(user)
        wanted = await of_the_orm(db, statement, list[MineOut])
        bodies.append((await db.json(statement, list[MineOut])).body)
        assert bodies[-1] == (await read()).body == wanted
        USER.reset(token)

    assert bodies[0] != bodies[1]
    assert read.fallback is None


async def test_a_relationship_to_an_alias_is_read_by_load(db):
    body = (await db.json(PARENTS, list[YoungestOut])).body

    assert body == b'[{"id":1,"youngest":[{"id":4}]},{"id":2,"youngest":[{"id":5}]}]'
    assert "leads to an alias of Kid" in (db.json_read(PARENTS, list[YoungestOut]).fallback or "")


@pytest.mark.filterwarnings("ignore:Multiple rows returned:sqlalchemy.exc.SAWarning")
async def test_a_single_relationship_that_may_find_several_repeats_no_row(db):
    """Joined, each of them would be a row of its own, of which a limit counts each."""
    async with db.session() as session:
        found = (await session.scalars(PARENTS.limit(2).options(load(Parent, EldestOut)))).all()

    assert [(parent.id, parent.eldest.id) for parent in found] == [(1, 2), (2, 1)]
    assert await of_the_orm(db, PARENTS, list[EldestOut]) == (await db.json(PARENTS, list[EldestOut])).body


async def test_what_own_joins_fill_is_each_object_once(db):
    statement = PARENTS.join(Parent.kids).where(Kid.owner == 2).options(contains_eager(Parent.kids))
    wanted = await of_the_orm(db, statement, list[KidsOut])

    streamed = [part async for part in db.json_stream(statement, list[KidsOut]).body_iterator]

    assert wanted == b'[{"id":1,"kids":[{"id":4}]},{"id":2,"kids":[{"id":3},{"id":5}]}]'
    assert (await db.json(statement, list[KidsOut])).body == wanted
    assert b"".join(streamed) == wanted


@pytest.mark.parametrize("model", [PupilOut, MarkedOut])
async def test_an_alias_of_several_classes_brings_what_subclasses_have(db, model):
    kids = with_polymorphic(Kid, [Pupil])
    statement = select(kids).order_by(kids.id)
    wanted = await of_the_orm(db, statement, list[model])

    fetched = await db.fetch(statement, list[model])

    assert (await db.json(statement, list[model])).body == wanted
    assert b"[" + b",".join(each.model_dump_json().encode() for each in fetched) + b"]" == wanted


async def test_a_plain_alias_brings_the_columns_of_subclasses(db):
    kids = aliased(Kid)
    statement = select(kids).order_by(kids.id)

    assert (await db.json(statement, list[PupilOut])).body == await of_the_orm(db, statement, list[PupilOut])


async def test_concrete_classes_are_told_apart_by_load(db):
    statement = select(Work).order_by(Work.id)

    assert (await db.json(statement, list[BookOut])).body == b'[{"id":1,"isbn":null},{"id":2,"isbn":"0"}]'


@pytest.mark.parametrize("propagate", [True, False])
@pytest.mark.parametrize("aliases", [True, False])
async def test_criteria_hold_for_what_a_read_loads_as_for_eager_loaders(db, propagate, aliases):
    option = with_loader_criteria(Kid, Kid.owner == 2, propagate_to_loaders=propagate, include_aliases=aliases)
    async with db.session() as session:
        parents = (await session.scalars(PARENTS.options(option, load(Parent, KidsOut)))).all()
        kids = [[kid.id for kid in parent.kids] for parent in parents]

    found = await db.fetch(PARENTS.options(option), list[KidsOut])

    assert [[kid.id for kid in parent.kids] for parent in found] == kids == [[4], [3, 5]]


@pytest.mark.parametrize("limit", [None, 40])
async def test_names_that_postgresql_would_cut_to_the_same_stay_apart(db, limit):
    out = create_model("WideOut", **{f"{LONG}one": (int, ...), f"{LONG}two": (int, ...)})
    statement = select(Wide).limit(limit)

    async with db.session() as session:
        body = (await db.json(statement, list[out], session=session)).body

    assert body == f'[{{"{LONG}one":1,"{LONG}two":2}}]'.encode()
    assert db.json_read(statement, list[out]).fallback is None
