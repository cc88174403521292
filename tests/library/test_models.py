"""Section 4, and the foreign keys of 10.1: what the declarative base does with what a class leaves out."""

import datetime as dt
import logging
from typing import ClassVar

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    func,
    text,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncAttrs, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    backref,
    configure_mappers,
    declared_attr,
    mapped_column,
    relationship,
)

from verdigris import models
from verdigris.errors import ConfigurationError


@pytest.fixture
def base():
    """A base of this test's own: the guards are the same, the tables are not shared."""

    class Base(models.Guarded, DeclarativeBase):
        pass

    return Base


def lazy(attribute):
    return attribute.property.lazy


def indexed(table):
    return sorted(tuple(column.name for column in index.columns) for index in table.indexes)


# -- relationships -----------------------------------------------------------------------------------------------------


def test_a_relationship_that_names_no_lazy_raises_on_sql(base):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(back_populates="parent")

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        parent: Mapped[Parent] = relationship(back_populates="children")

    assert lazy(Parent.children) == "raise_on_sql"
    assert lazy(Child.parent) == "raise_on_sql"


@pytest.mark.parametrize("named", [True, "selectin", "joined", "write_only", "raise", "immediate"])
def test_a_relationship_that_names_its_lazy_keeps_it(base, named):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(lazy=named)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    assert lazy(Parent.children) == named


@pytest.mark.parametrize(("given", "expected"), [("parent", "raise_on_sql"), (backref("parent", lazy=True), True)])
def test_a_backref_raises_on_sql_unless_it_names_its_lazy(base, given, expected):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(backref=given)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    configure_mappers()

    assert lazy(Child.parent) == expected


def test_a_relationship_of_a_mixin_raises_on_sql(base):
    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Owned:
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))

        @declared_attr
        @classmethod
        def owner(cls) -> Mapped[Owner]:
            return relationship()

    class Thing(Owned, base):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert lazy(Thing.owner) == "raise_on_sql"
    assert indexed(Thing.__table__) == [("owner_id",)]


def test_a_relationship_added_after_the_mappers_were_configured_has_to_name_its_lazy(base):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    configure_mappers()
    Parent.named = relationship(Child, lazy="selectin", viewonly=True)

    with pytest.raises(ConfigurationError, match=r"Parent\.children was added after the mappers were configured"):
        Parent.children = relationship(Child)


def test_the_ladder_leaves_lazy_loading_to_a_class_or_a_base_that_asks_for_it(base):
    class Old(base):
        __abstract__ = True
        __unnamed_lazy__ = "off"

    class Parent(Old):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship()

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        parent: Mapped[Parent] = relationship(viewonly=True)

    assert lazy(Parent.children) == "select"
    assert lazy(Child.parent) == "raise_on_sql"


async def test_an_unnamed_relationship_raises_when_it_would_need_sql_and_answers_when_it_does_not(base, database_url):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(back_populates="parent")

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        parent: Mapped[Parent] = relationship(back_populates="children")

    async with sessions(database_url, base) as maker:
        async with maker.begin() as session:
            session.add(Parent(id=1, children=[Child(id=1)]))
        async with maker() as session:
            child = await session.get_one(Child, 1)
            with pytest.raises(InvalidRequestError, match=r"Child\.parent.*raise_on_sql"):
                child.parent  # noqa: B018 - the read is what is tested
            parent = await session.get_one(Parent, 1)

            assert child.parent is parent


async def test_the_rung_log_loads_and_logs(base, database_url, caplog):
    class Parent(AsyncAttrs, base):
        __tablename__ = "parent"
        __unnamed_lazy__ = "log"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship()

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    async with sessions(database_url, base) as maker, maker.begin() as session:
        session.add(Parent(id=1))
        await session.flush()
        session.expire_all()
        parent = await session.get_one(Parent, 1)
        with caplog.at_level(logging.WARNING, logger="verdigris.models"):
            assert await parent.awaitable_attrs.children == []

    assert "Parent.children was loaded lazily" in caplog.text


# -- foreign keys ------------------------------------------------------------------------------------------------------


def parent_of(base):
    class Parent(base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        code: Mapped[str] = mapped_column(unique=True)

    return Parent


def test_a_foreign_key_is_indexed(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    assert indexed(Child.__table__) == [("parent_id",)]
    assert [index.name for index in Child.__table__.indexes] == ["ix_child_parent_id"]


def test_a_foreign_key_that_something_leads_with_gets_no_second_index(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        __table_args__ = (Index("mine", "third_id", "id"),)
        id: Mapped[int] = mapped_column(ForeignKey("parent.id"), primary_key=True)
        other_id: Mapped[int] = mapped_column(ForeignKey("parent.id"), unique=True)
        third_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        fourth_id: Mapped[int] = mapped_column(ForeignKey("parent.id"), index=True)

    assert indexed(Child.__table__) == [("fourth_id",), ("third_id", "id")]


def test_an_index_that_serves_other_lookups_only_does_not_count(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        __table_args__ = (
            Index("second", "id", "parent_id"),
            Index("partial", "parent_id", postgresql_where=text("id > 5")),
            Index("gin", "parent_id", postgresql_using="gin"),
        )
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    assert "ix_child_parent_id" in {index.name for index in Child.__table__.indexes}


def test_an_index_written_after_the_class_replaces_ours(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    Index("mine", Child.parent_id, Child.id)

    assert [index.name for index in Child.__table__.indexes] == ["mine"]


def test_a_foreign_key_of_several_columns_gets_one_index(base):
    class Order(base):
        __tablename__ = "order"
        shop: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)

    class Line(base):
        __tablename__ = "line"
        __table_args__ = (ForeignKeyConstraint(["shop", "number"], ["order.shop", "order.number"]),)
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[int]
        number: Mapped[int]

    assert indexed(Line.__table__) == [("shop", "number")]


def test_both_sides_of_an_association_table_are_covered(base):
    parent_of(base)

    table = Table(
        "both",
        base.metadata,
        Column("left", ForeignKey("parent.id"), primary_key=True),
        Column("right", ForeignKey("parent.id"), primary_key=True),
    )

    assert indexed(table) == [("right",)]


def test_a_foreign_key_of_a_single_table_subclass_is_indexed(base):
    parent_of(base)

    class Person(base):
        __tablename__ = "person"
        __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "person"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]

    class Manager(Person):
        __mapper_args__: ClassVar = {"polymorphic_identity": "manager"}
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"))

    assert indexed(Person.__table__) == [("parent_id",)]
    assert Manager.__mapper__.eager_defaults is True


def test_a_column_and_a_table_can_ask_for_no_index(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"), index=False)

    class Archive(base):
        __tablename__ = "archive"
        __table_args__: ClassVar = {"info": {"index_foreign_keys": False}}
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))

    assert indexed(Child.__table__) == indexed(Archive.__table__) == []


# -- types, names, defaults --------------------------------------------------------------------------------------------


def test_a_datetime_has_a_zone_unless_the_column_says_otherwise(base):
    class Event(base):
        __tablename__ = "event"
        id: Mapped[int] = mapped_column(primary_key=True)
        at: Mapped[dt.datetime]
        until: Mapped[dt.datetime | None]
        local: Mapped[dt.datetime] = mapped_column(DateTime())

    columns = Event.__table__.c
    assert (columns.at.type.timezone, columns.until.type.timezone, columns.local.type.timezone) == (True, True, False)


def test_constraints_are_named(base):
    parent_of(base)

    class Child(base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        code: Mapped[str] = mapped_column(unique=True)

    assert {constraint.name for constraint in Child.__table__.constraints} == {
        "pk_child",
        "fk_child_parent_id_parent",
        "uq_child_code",
    }


async def test_a_value_that_the_server_sets_can_be_read_after_the_flush_that_set_it(base, database_url):
    class Note(base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        made: Mapped[dt.datetime] = mapped_column(server_default=func.now())
        changed: Mapped[dt.datetime | None] = mapped_column(onupdate=func.clock_timestamp())

    async with sessions(database_url, base) as maker, maker.begin() as session:
        note = Note(body="one")
        session.add(note)
        await session.flush()
        assert note.made.tzinfo is not None
        note.body = "two"
        await session.flush()

        assert note.changed > note.made


# -- annotations -------------------------------------------------------------------------------------------------------


def test_an_unannotated_column_is_refused_with_the_line_to_write(base):
    with pytest.raises(ConfigurationError) as raised:

        class Thing(base):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)
            name = Column(String, nullable=True)

    assert str(raised.value) == (
        "Thing.name is a Column() in a mapped class.\n"
        "  Without Mapped[...] neither a type checker nor SQLAlchemy knows its type and whether it can be None.\n"
        "  name: Mapped[str | None] = mapped_column(...)\n"
        "  verdigris explain models/mapped-column"
    )


def test_an_annotated_column_is_refused_because_it_stays_nullable(base):
    with pytest.raises(ConfigurationError, match="stays nullable"):

        class Thing(base):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = Column(String)


def test_an_unannotated_mapped_column_or_relationship_is_refused(base):
    with pytest.raises(ConfigurationError, match=r"Thing\.name is a mapped_column\(\) without an annotation"):

        class Thing(base):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)
            name = mapped_column(String)

    with pytest.raises(ConfigurationError, match=r"Other\.things is a relationship\(\) without an annotation"):

        class Other(base):
            __tablename__ = "other"
            id: Mapped[int] = mapped_column(primary_key=True)
            things = relationship("Thing")


def test_a_mixins_column_is_refused_under_the_mixins_name(base):
    class Stamped:
        made = Column(DateTime)

    with pytest.raises(ConfigurationError, match=r"^Stamped\.made is a Column\(\)"):

        class Thing(Stamped, base):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)


def test_what_is_annotated_anywhere_in_its_classes_is_accepted(base):
    class Stamped:
        made: Mapped[dt.datetime] = mapped_column(server_default=func.now())

        @declared_attr
        def kind(cls) -> Mapped[str]:  # noqa: N805 - SQLAlchemy calls it with the class
            return mapped_column(String(20))

    class Thing(Stamped, base):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    class Imperative(base):
        __table__ = Table("imperative", base.metadata, Column("id", Integer, primary_key=True))

    assert set(Thing.__table__.c.keys()) == {"id", "name", "made", "kind"}
    assert Imperative.id is not None


# -- a base of one's own -----------------------------------------------------------------------------------------------


def test_the_librarys_own_base_is_made_of_the_same_parts():
    assert models.Base.metadata.naming_convention["ix"] == models.NAMING_CONVENTION["ix"]
    assert models.Base.registry.type_annotation_map[dt.datetime].timezone is True
    assert issubclass(models.Base, models.Guarded)


def test_a_teams_own_metadata_and_types_are_kept():
    class Base(models.Guarded, DeclarativeBase):
        metadata = MetaData(schema="ours")
        type_annotation_map: ClassVar = {dt.datetime: DateTime()}

    assert Base.metadata.schema == "ours"
    assert Base.registry.type_annotation_map[dt.datetime].timezone is False


def test_a_teams_own_base_gets_the_same_guards():
    class Base(DeclarativeBase):
        pass

    models.guard(Base)

    class Parent(Base):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(Base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        parent: Mapped[Parent] = relationship()

    assert lazy(Child.parent) == "raise_on_sql"
    assert indexed(Child.__table__) == [("parent_id",)]
    with pytest.raises(ConfigurationError):

        class Thing(Base):
            __tablename__ = "thing"
            id = Column(Integer, primary_key=True)


def test_each_guard_can_be_left_out():
    class Base(DeclarativeBase):
        pass

    models.guard(Base, unnamed_lazy="off", index_foreign_keys=False, require_annotations=False, eager_defaults=False)

    class Parent(Base):
        __tablename__ = "parent"
        id = Column(Integer, primary_key=True)

    class Child(Base):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
        parent: Mapped[Parent] = relationship()

    assert lazy(Child.parent) == "select"
    assert indexed(Child.__table__) == []
    assert Child.__mapper__.eager_defaults == "auto"


def test_a_base_of_dataclasses_works():
    class Base(MappedAsDataclass, models.Guarded, DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "dataclass_parent"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        name: Mapped[str]
        children: Mapped[list["Child"]] = relationship(default_factory=list)

    class Child(Base):
        __tablename__ = "dataclass_child"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        parent_id: Mapped[int] = mapped_column(ForeignKey("dataclass_parent.id"), init=False)

    assert Parent(name="a").children == []
    assert lazy(Parent.children) == "raise_on_sql"
    assert indexed(Child.__table__) == [("parent_id",)]


class sessions:  # noqa: N801 - a context manager, used as a function
    """A session factory on a database with the base's tables."""

    def __init__(self, url, base):
        self.engine = create_async_engine(url)
        self.base = base

    async def __aenter__(self):
        async with self.engine.begin() as connection:
            await connection.run_sync(self.base.metadata.create_all)
        return async_sessionmaker(self.engine, expire_on_commit=False)

    async def __aexit__(self, *_):
        await self.engine.dispose()
