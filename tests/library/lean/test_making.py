"""An instance made of a row without loading is in every respect the one that loading makes."""

import gc
import pickle
import weakref
from enum import Enum

import pytest
from sqlalchemy import ForeignKey, Select, String, TypeDecorator, event, false, func, insert, inspect, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession as PlainSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    Mapped,
    aliased,
    column_property,
    composite,
    load_only,
    mapped_column,
    reconstructor,
    relationship,
    synonym,
)

from verdigris import Base, Database
from verdigris.lean.making import Maker


class Metal(Enum):
    GOLD = "gold"
    TIN = "tin"


class Backwards(TypeDecorator):
    impl = String
    cache_ok = True
    read = []  # noqa: RUF012 - of all

    def process_bind_param(self, value, dialect):
        return value[::-1]

    def process_result_value(self, value, dialect):
        self.read.append(value)
        return value[::-1]


class Mint(Base):
    __tablename__ = "mints"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Coin(Base):
    __tablename__ = "coins"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(Backwards)
    metal: Mapped[Metal]
    weight: Mapped[int] = mapped_column("weight_in_grams")
    marks: Mapped[dict] = mapped_column(JSONB)
    history: Mapped[str | None] = mapped_column(deferred=True)
    version: Mapped[int] = mapped_column()
    mint_id: Mapped[int | None] = mapped_column(ForeignKey("mints.id"))
    mint: Mapped[Mint | None] = relationship()
    heavy = synonym("weight")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


Coin.double = column_property(Coin.weight * 2)


class Token(Base):
    __tablename__ = "coin_tokens"
    number: Mapped[str] = mapped_column(Backwards, primary_key=True)


class Drawer(Base):
    __tablename__ = "coin_drawers"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012


class Seat(Base):
    __tablename__ = "coin_seats"
    row: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    taken: Mapped[bool]


class Point(Base):
    __tablename__ = "coin_points"
    id: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[int]
    y: Mapped[int]
    at: Mapped[tuple[int, int]] = composite(lambda x, y: (x, y), "x", "y")


class Purse(Base):
    __tablename__ = "purses"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    content: Mapped[dict] = mapped_column(MutableDict.as_mutable(JSONB))


class Bag(Base):
    __tablename__ = "coin_bags"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "bag"}  # noqa: RUF012


class Sack(Bag):
    __mapper_args__ = {"polymorphic_identity": "sack"}  # noqa: RUF012


class Woken(Base):
    __tablename__ = "woken"
    id: Mapped[int] = mapped_column(primary_key=True)

    @reconstructor
    def wake(self):
        self.awake = True


OTHER = aliased(Coin)
MADE = {
    "by a converted value": select(Coin).where(Coin.number == "a1"),
    "aliased": select(OTHER).where(OTHER.number == "a1"),
    "columns in another order": select(Coin).from_statement(
        select(Coin.version, Coin.weight, Coin.id, Coin.number, Coin.metal, Coin.marks, Coin.mint_id).where(
            Coin.number == "a1"
        )
    ),
    "a key of two columns": select(Seat).where(Seat.row == 1, Seat.place == 2),
    "joined for a condition": select(Coin).join(Coin.mint).where(Mint.id == 1),
    "one column": select(Mint).where(Mint.id == 1),
}
COLUMNS = {
    "one": select(Coin.weight).order_by(Coin.weight),
    "several": select(Coin.version, Coin.number).order_by(Coin.weight),
    "of two classes": select(Coin.weight, Mint.name).outerjoin(Coin.mint).order_by(Coin.weight),
    "converted": select(Coin.number, Coin.metal).order_by(Coin.weight),
    "labelled": select(Coin.weight.label("grams")).order_by(Coin.weight),
    "aliased": select(OTHER.weight, Coin.weight).join(OTHER, OTHER.number == Coin.number).order_by(Coin.weight),
    "twice": select(Coin.weight, Coin.weight).order_by(Coin.weight),
    "not hashable": select(Coin.marks, Coin.weight).order_by(Coin.weight),
    "an expression": select(Coin.weight + 1, Coin.weight).order_by(Coin.weight),
    "a count": select(func.count(Coin.number)),
    "grouped": select(Coin.version, func.max(Coin.weight)).group_by(Coin.version),
    "none": select(Coin.weight).where(Coin.number == "zz"),
    "a property": select(Coin.double, Coin.heavy).order_by(Coin.weight),
}
LOADED = {
    "options": select(Coin).where(Coin.number == "a1").options(load_only(Coin.weight)),
    "a composite attribute": select(Point).where(Point.id == 1),
    "mutable values": select(Purse).where(Purse.id == 1),
    "a converted key": select(Token).where(Token.number == "t1"),
    "subclasses to come": select(Drawer).where(Drawer.id == 1),
    "inheritance": select(Bag).where(Bag.id == 1),
    "a subclass": select(Sack).where(Sack.id == 1),
    "a reconstructor": select(Woken).where(Woken.id == 1),
    "two entities": select(Coin, Mint).join(Coin.mint),
}
TABLES = [each.__table__ for each in (Mint, Coin, Token, Drawer, Seat, Point, Purse, Bag, Woken)]


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=TABLES)
    async with database.session.begin() as session:
        session.add_all([
            Mint(id=1, name="Ulm"),
            Coin(id=1, number="a1", metal=Metal.TIN, weight=7, marks={"a": [1]}, history="long", mint_id=1),
            Coin(id=2, number="b2", metal=Metal.GOLD, weight=9, marks={}),
            Seat(row=1, place=2, taken=True),
            Point(id=1, x=3, y=4),
            Purse(id=1, kind="small", content={"a": 1}),
            Sack(id=1),
            Token(number="t1"),
            Woken(id=1),
        ])  # fmt: skip
        await session.execute(insert(Drawer.__table__), {"id": 1, "kind": "small"})
    yield database
    await database.dispose()


@pytest.fixture
def made(monkeypatch):
    """The classes of the instances that were made without loading."""
    found, original = [], Maker.make

    def spy(self, session, record):
        instance = original(self, session, record)
        found.append(type(instance))
        return instance

    monkeypatch.setattr(Maker, "make", spy)
    return found


def seen(instance):
    """Everything that an instance and its state hold, but for what is of one load or session."""
    state = inspect(instance)
    held = {
        name: getattr(state, name)
        for name in (
            "key",
            "identity_token",
            "load_options",
            "load_path",
            "expired",
            "expired_attributes",
            "modified",
            "committed_state",
            "callables",
            "unloaded",
            "persistent",
        )
    }
    assert state.runid is not None
    attributes = {name: value for name, value in vars(instance).items() if name != "_sa_instance_state"}
    stored = {name: value for name, value in state.__getstate__().items() if name not in {"instance", "manager"}}
    return held, attributes, stored


@pytest.mark.parametrize("name", MADE)
async def test_it_is_the_one_that_loading_makes(db, made, name):
    statement = MADE[name]
    async with PlainSession(db.engine) as plain:
        expected = seen(await plain.scalar(statement))
    for opened in (db.read, db.session):
        for _ in range(3):
            made.clear()
            async with opened() as session:
                instance = await session.scalar(statement)
                assert seen(instance) == expected
                assert instance in session
                assert inspect(instance).async_session is session
                assert await session.scalar(statement) is instance
                await session.refresh(instance)
            assert inspect(instance).detached
        assert made or "another order" in name


@pytest.mark.parametrize("name", MADE)
async def test_its_result_is_the_one_that_loading_gives(db, made, name):
    """Every way out of a result; of one row, and of none."""

    def rows(result):
        return [(row._fields, tuple(map(seen, row)), row._mapping.keys()) for row in result.all()]

    ways = {
        "rows": rows,
        "keys": lambda result: result.keys(),
        "scalars": lambda result: [seen(one) for one in result.scalars().all()],
        "unique": lambda result: [seen(one) for one in result.unique().scalars()],
        "one": lambda result: [seen(one) for one in [result.scalar_one_or_none()] if one is not None],
        "first": lambda result: result.first() is None,
        "partitions": lambda result: [len(rows) for rows in result.partitions(5)],
        "yield_per": lambda result: [len(rows) for rows in result.yield_per(1).partitions()],
        "columns": lambda result: [len(row) for row in result.columns(0)],
        "mappings": lambda result: [list(row) for row in result.mappings()],
        "frozen": lambda result: len(result.freeze()().all()),
        "fetchmany": lambda result: (len(result.fetchmany(1)), len(result.fetchmany(1)), result.closed),
        "closed": lambda result: (result.close(), result.closed),
        "length": lambda result: (result._attributes, result._source_supports_scalars, type(result)),
    }
    none = MADE[name].where(false()) if isinstance(MADE[name], Select) else MADE[name]
    for statement in (MADE[name], none):
        for way, look in ways.items():
            async with PlainSession(db.engine) as plain:
                expected = look(await plain.execute(statement))
            for opened in (db.read, db.session):
                async with opened() as session:
                    assert (way, look(await session.execute(statement))) == (way, expected)
    assert made or "another order" in name


def told(look, result):
    """What one way out of a result gives, or the class and text of its error."""
    try:
        return look(result)
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


@pytest.mark.parametrize("name", COLUMNS)
async def test_rows_of_columns_are_those_that_loading_gives(db, name):
    statement = COLUMNS[name]
    columns = list(statement.selected_columns)
    ways = {
        "rows": lambda result: [(row._fields, tuple(row), dict(row._mapping)) for row in result],
        "keys": lambda result: list(result.keys()),
        "by column": lambda result: [[row._mapping[column] for column in columns] for row in result],
        "scalars": lambda result: result.scalars().all(),
        "second column": lambda result: result.scalars(1).all(),
        "unique": lambda result: result.unique().all(),
        "first": lambda result: result.first(),
        "one": lambda result: result.one(),
        "partitions": lambda result: [[tuple(row) for row in rows] for rows in result.partitions(1)],
        "mappings": lambda result: [dict(row) for row in result.mappings()],
        "frozen": lambda result: result.freeze()().all(),
        "columns": lambda result: [tuple(row) for row in result.columns(0)],
        "types": lambda result: ([type(row) for row in result], type(result), result._attributes),
    }
    for way, look in ways.items():
        async with PlainSession(db.engine) as plain:
            expected = told(look, await plain.execute(statement))
            first = await plain.scalar(statement)
        for opened in (db.read, db.session):
            async with opened() as session:
                assert (way, told(look, await session.execute(statement))) == (way, expected)
                assert await session.scalar(statement) == first


async def test_an_expression_of_a_statement_is_found_in_its_own_rows(db):
    for _ in range(4):
        total = func.sum(Coin.weight)
        async with db.read() as session:
            row = (await session.execute(select(total, Coin.version).group_by(Coin.version))).one()
        assert row._mapping[total] == 16


@pytest.mark.parametrize("name", LOADED)
async def test_where_there_is_more_to_it_loading_makes_it(db, made, name):
    for _ in range(4):
        async with db.read() as session:
            assert await session.scalar(LOADED[name]) is not None
            session.expunge_all()
            assert len((await session.execute(LOADED[name])).all()) > 0

    assert made == []


async def warm(db, statement):
    for _ in range(3):
        async with db.read() as session:
            await session.scalar(statement)


async def test_an_object_that_is_there_already_stays_loadings(db, made):
    statement = select(Mint).where(Mint.id == 1)
    await warm(db, statement)

    async with db.session() as session:
        mint = await session.scalar(statement)
        mint.name = "changed"
        with session.no_autoflush:
            assert await session.scalar(statement) is mint
        assert mint.name == "changed"
        session.expire(mint)
        assert await session.scalar(statement) is mint
        assert vars(mint)["name"] == "Ulm"


async def test_a_row_without_a_key_is_no_object(db, made):
    statement = select(Mint).select_from(Coin).outerjoin(Coin.mint).where(Coin.number == "b2")
    await warm(db, statement)

    async with db.read() as session:
        assert await session.scalar(statement) is None
        assert list(session.sync_session.identity_map) == []
    assert type(None) not in made


async def test_of_several_rows_each_is_loaded(db, made):
    statement = select(Coin).order_by(Coin.weight)
    await warm(db, statement)

    async with db.read() as session:
        kept = await session.get(Coin, 2)
        session.sync_session.expire(kept)
        assert (await session.scalar(statement)).weight == 7
        assert vars(kept)["weight"] == 9


async def test_values_of_an_object_that_is_there_are_converted_once(db, made):
    statement = select(Coin).where(Coin.number == "a1")
    await warm(db, statement)
    Backwards.read.clear()
    async with db.read() as session:
        first = await session.scalar(statement)
        assert await session.scalar(statement) is first

    assert Backwards.read == ["1a", "1a"]


class Odd(int):
    """A key that compares itself with its like only, as value objects do."""

    def __eq__(self, other):
        return self.real == other.real

    def __hash__(self):
        return hash(self.real)


async def test_a_key_is_not_compared_with_what_is_no_key(db, made):
    statement = select(Mint).where(Mint.id == 1)
    await warm(db, statement)
    plan = next(plan for plan in db.session.kw["lean"]._plans._plans.values() if plan is not None)

    async with db.session() as session:
        assert plan.maker.make(session.sync_session, {0: Odd(7), 1: "Ulm"}).id == 7


@pytest.mark.parametrize("of", ["class", "session"])
async def test_a_listener_that_comes_later_is_heard(db, made, of):
    statement = select(Mint).where(Mint.id == 1)
    await warm(db, statement)
    heard = []

    def listener(*args):
        heard.append(args)

    async with db.read() as session:
        if of == "class":
            event.listen(Mint, "load", listener)
        else:
            event.listen(session.sync_session, "loaded_as_persistent", listener)
        try:
            await session.scalar(statement)
        finally:
            if of == "class":
                event.remove(Mint, "load", listener)

    assert len(heard) == 1


async def test_what_was_left_out_is_loaded_when_it_is_asked_for(db, made):
    statement = select(Coin).where(Coin.number == "a1")
    await warm(db, statement)

    async with db.session() as session:
        coin = await session.scalar(statement)
        assert await session.run_sync(lambda _: coin.history) == "long"
        await session.refresh(coin, ["mint"])
        assert coin.mint.name == "Ulm"
        coin.weight = 8
        await session.commit()
        assert coin.version == 2
    async with db.read() as session:
        assert (await session.scalar(statement)).weight == 8
    assert Coin in made


@pytest.mark.parametrize("statement", [MADE["one column"], COLUMNS["several"]], ids=["object", "columns"])
async def test_no_session_is_kept(db, statement):
    opened = []
    for _ in range(3):
        async with db.session() as session:
            (await session.execute(statement)).unique().all()
            opened.append(weakref.ref(session.sync_session))
        del session
    gc.collect()

    assert [kept() for kept in opened] == [None] * 3


async def test_it_can_be_pickled_and_merged(db, made):
    statement = select(Coin).where(Coin.number == "a1")
    await warm(db, statement)

    async with db.read() as session:
        sent = pickle.dumps(await session.scalar(statement))
    async with db.session() as session:
        merged = await session.merge(pickle.loads(sent), load=False)
        assert await session.run_sync(lambda _: (merged.metal, merged.history)) == (Metal.TIN, "long")
