"""Attributes that are not on every object what they are on the class: overridden in subclasses, computed by hybrids."""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from pydantic import ValidationError, create_model
from sqlalchemy import CHAR, DateTime, ForeignKey, String, TypeDecorator, func, select, text
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import Comparator, hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship, remote
from tests.library.loading.json.comparing import of_the_orm

from verdigris import Database

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


class Base(DeclarativeBase):
    pass


class Staff(Base):
    __tablename__ = "overridden_staff"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "staff"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    days: Mapped[int]
    title: Mapped[str] = mapped_column(default="staff")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("overridden_staff.id"))
    owner: Mapped[Staff | None] = relationship(remote_side="Staff.id", foreign_keys=owner_id)
    tasks: Mapped[list[Task]] = relationship(order_by="Task.id")
    task_names: AssociationProxy[list[str]] = association_proxy("tasks", "name")

    @hybrid_property
    def hours(self) -> int:
        return self.days * 8

    @hybrid_property
    def weeks(self) -> int:
        return self.days + 1


class Chief(Staff):
    __tablename__ = "overridden_chiefs"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "chief"}

    id: Mapped[int] = mapped_column(ForeignKey("overridden_staff.id"), primary_key=True)
    deputy_id: Mapped[int | None] = mapped_column("owner_id")
    deputy: Mapped[Staff | None] = relationship(
        primaryjoin=lambda: foreign(Chief.deputy_id) == remote(Staff.id), viewonly=True
    )

    @hybrid_property
    def hours(self) -> int:
        return self.days * 10

    @property
    def tasks(self) -> list[Task]:
        return []

    task_names: ClassVar[list[str]] = []


class Temp(Staff):
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "temp"}

    @hybrid_property
    def title(self) -> str:
        return "temp"


class Task(Base):
    __tablename__ = "overridden_tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    staff_id: Mapped[int] = mapped_column(ForeignKey("overridden_staff.id"))
    name: Mapped[str]


class State(enum.Enum):
    NEW = "new"


class Lower(Comparator[str]):
    def __clause_element__(self) -> ColumnElement[str]:
        return func.lower(self.expression)


class Word(TypeDecorator[str]):
    impl = String
    cache_ok = True


class Moment(TypeDecorator[dt.datetime]):
    impl = DateTime(timezone=True)
    cache_ok = True


class Item(Base):
    __tablename__ = "overridden_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[int | None]
    two: Mapped[int | None]
    name: Mapped[str]
    code: Mapped[str] = mapped_column(CHAR(4))
    state: Mapped[State]
    day: Mapped[dt.date]
    at: Mapped[dt.datetime] = mapped_column(DateTime(timezone=True))
    span: Mapped[dt.timedelta]
    word: Mapped[str] = mapped_column(Word)
    seen: Mapped[dt.datetime] = mapped_column(Moment)

    @hybrid_property
    def folded(self) -> str:
        return self.name

    @folded.inplace.comparator
    @classmethod
    def _folded(cls) -> Lower:
        return Lower(cls.name)


for _name, _read in {
    "total": lambda self: self.one + self.two,
    "again": lambda self: self.total,
    "same": lambda self: self.one == self.two,
    "more": lambda self: self.one > 1,
    "first": lambda self: self.one,
    "early": lambda self: self.name < "a",
    "is_z": lambda self: self.name == "Z",
    "label": lambda self: self.code + self.name,
    "is_new": lambda self: self.state == "NEW",
    "due": lambda self: self.at + self.span,
    "next": lambda self: self.day + self.span,
    "is_early": lambda self: self.word < "a",
    "later": lambda self: self.seen + self.span,
}.items():
    setattr(Item, _name, hybrid_property(_read))


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        name = (await connection.execute(text("SELECT current_database()"))).scalar()
        await connection.execute(text(f"ALTER DATABASE {name} SET timezone = 'Europe/Berlin'"))
    async with database.session.begin() as session:
        session.add_all([Staff(id=1, days=1), Temp(id=3, days=3)])
        await session.flush()
        session.add(Chief(id=2, days=2, owner_id=1, deputy_id=3))
        await session.flush()
        session.add_all([Task(id=n, staff_id=n, name=f"task {n}") for n in (1, 2, 3)])
        rest = {
            "code": "x",
            "state": State.NEW,
            "day": dt.date(2024, 1, 1),
            "at": dt.datetime(2024, 3, 30, 12, tzinfo=dt.UTC),
            "span": dt.timedelta(1),
            "seen": dt.datetime(2024, 3, 30, 12, tzinfo=dt.UTC),
            "word": "Z",
        }
        session.add_all(
            [
                Item(id=1, one=None, two=None, name="Z", **rest),
                Item(id=2, one=1, two=2, name="b", **rest),
                Item(id=3, one=2, two=None, name="é", **rest),
            ]
        )
    await database.engine.dispose()
    yield database
    await database.dispose()


async def of_the_json_read(db, statement, schema):
    try:
        return (await db.json(statement, schema)).body
    except ValidationError:
        return ValidationError


Ref = create_model("Ref", __config__={"from_attributes": True}, id=(int, ...))
OVERRIDDEN = {"hours": int, "title": str, "tasks": list[Ref], "task_names": list[str]}
COMPUTED = {
    "total": int | None,
    "again": int | None,
    "same": bool | None,
    "more": bool | None,
    "first": int | None,
    "early": bool,
    "is_z": bool,
    "label": str,
    "is_new": bool,
    "due": dt.datetime,
    "next": Any,
    "is_early": bool,
    "later": dt.datetime,
    "folded": str,
}


@pytest.mark.parametrize("name", OVERRIDDEN)
async def test_an_attribute_that_a_subclass_overrides_is_read_in_python(db, name):
    schema = list[create_model("Out", __config__={"from_attributes": True}, id=(int, ...), **{name: OVERRIDDEN[name]})]
    statement = select(Staff).order_by(Staff.id)

    assert await of_the_json_read(db, statement, schema) == await of_the_orm(db, statement, schema)
    assert f".{name} is another than Staff.{name}" in (db.json_read(statement, schema).fallback or "")


async def test_what_subclasses_inherit_is_written_by_the_server(db):
    schema = list[create_model("Out", id=(int, ...), days=(int, ...), weeks=(int, ...), owner=(Ref | None, ...))]

    assert db.json_read(select(Staff), schema).fallback is None


@pytest.mark.parametrize("limit", [None, 40])
async def test_columns_of_one_name_in_two_tables_of_a_class_stay_apart(db, limit):
    """Each leads to another row, and has to be among the columns of the sub-select."""
    out = create_model("Out", __config__={"from_attributes": True}, owner=(Ref | None, ...), deputy=(Ref | None, ...))

    body = (await db.json(select(Chief).order_by(Chief.id).limit(limit), list[out])).body

    assert body == b'[{"owner":{"id":1},"deputy":{"id":3}}]'


@pytest.mark.parametrize("name", COMPUTED)
async def test_a_hybrid_is_what_its_python_code_makes_of_an_object(db, name):
    schema = list[create_model("Out", __config__={"from_attributes": True}, **{name: COMPUTED[name]})]
    statement = select(Item).order_by(Item.id)

    try:
        wanted = await of_the_orm(db, statement, schema)
    except TypeError:
        wanted = ValidationError

    assert await of_the_json_read(db, statement, schema) == wanted
