"""A table's own class (`table=True` of SQLModel) as the response model: what FastAPI answers with, byte for byte."""

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import (
    AfterValidator,
    ConfigDict,
    TypeAdapter,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import defer, load_only, reconstructor, registry, selectinload
from sqlmodel import Field, Relationship, SQLModel, select
from tests.library.loading.json.columns import JSON_VALUES
from tests.library.loading.json.comparing import examples

from verdigris import Database, load
from verdigris.fastapi import ReadRouter, install
from verdigris.loading import explain_plan, plan

DRAWN = examples(JSON_VALUES, 150)


class Rank(enum.Enum):
    low = "L"
    high = 'h "1"'


class Own(SQLModel, registry=registry()):
    """The base of this module's tables: their metadata is their own."""


def refused(value: Any) -> Any:
    raise AssertionError("a validator of a field ran for an object that was loaded")


class HeroBase(Own):
    name: str = Field(index=True, min_length=50)  # which nobody asks of an object that was loaded
    nick: Annotated[str | None, AfterValidator(refused)] = None

    @field_validator("name", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return refused(value)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return refused(value)


class Crew(Own, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    heroes: list["Hero"] = Relationship(back_populates="crew", sa_relationship_kwargs={"order_by": "Hero.id"})
    boats: list["Boat"] = Relationship(back_populates="crew", sa_relationship_kwargs={"order_by": "Boat.id"})


class Boat(Own, table=True):
    id: int | None = Field(default=None, primary_key=True)
    crew_id: int | None = Field(default=None, foreign_key="crew.id")
    crew: Crew | None = Relationship(back_populates="boats")


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    secret: str = Field(default="hush", exclude=True)
    called: str = Field(alias="knownAs")
    rank: Rank = Rank.low
    listed: Rank | None = Field(default=None, sa_type=sa.Enum(Rank, native_enum=False))
    price: Decimal = Field(max_digits=10, decimal_places=2)
    share: Decimal = Field(sa_type=sa.Numeric)
    weight: float | None = None
    born: dt.date
    at: dt.datetime
    local: dt.datetime = Field(sa_type=sa.DateTime)
    span: dt.timedelta = dt.timedelta()
    key: UUID = Field(default_factory=uuid4)
    raw: bytes = b""
    tags: list[str] = Field(sa_type=pg.ARRAY(sa.Text))
    notes: str = Field(sa_column=sa.Column("noted", sa.Text))  # may be NULL, whatever the field says
    bulk: str = Field(default="b", sa_column=sa.Column(sa.Text, nullable=False))
    crew_id: int | None = Field(default=None, foreign_key="crew.id")
    crew: Crew | None = Relationship(back_populates="heroes")


class CrewOut(SQLModel):
    title: str
    heroes: list[Hero]


class HeroOut(SQLModel):
    crew: Crew | None
    name: str


class Heroes(SQLModel):
    items: list[Hero]
    total: int


class Row(SQLModel):
    Hero: Hero
    Crew: Crew | None


def heroes():
    zone = dt.timezone(dt.timedelta(hours=2))
    given: dict[str, Any] = {"price": Decimal("1.5"), "share": Decimal("1E+3"), "born": dt.date(2001, 1, 1)}
    given |= {"at": dt.datetime(2020, 1, 1, tzinfo=zone), "local": dt.datetime(2020, 1, 1, 1, 2, 3, 4)}  # noqa: DTZ001
    given |= {"called": "c", "knownAs": "c", "notes": "n", "tags": ["a", 'b"']}
    return [
        Hero(id=1, name="Deadpond", nick="\x01 😀", **given),
        Hero(id=2, name="Rusty-Man", **given, rank=Rank.high, listed=Rank.high, weight=1.5, raw=b"raw"),
        Hero(id=3, name="Tarantula", **{**given, "notes": None}, weight=1e7, span=dt.timedelta(days=40, seconds=1)),
    ]


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Own.metadata.create_all)
        name = (await connection.execute(sa.text("SELECT current_database()"))).scalar()
        await connection.execute(sa.text(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'"))
    await database.engine.dispose()
    async with database.session.begin() as session:
        first, second, third = heroes()
        session.add(Crew(id=1, title="Preventers", heroes=[first, second]))
        session.add(third)
        session.add(Crew(id=2, title="Empty", boats=[Boat(id=1)]))
    yield database
    await database.dispose()


PAIRS = {
    "list": (select(Hero).order_by(Hero.id), list[Hero]),
    "one": (select(Hero).where(Hero.id == 1), Hero),
    "perhaps": (select(Hero).where(Hero.id == 3), Hero | None),
    "none": (select(Hero).where(Hero.id == 9), Hero | None),
    "with a relationship": (select(Crew).order_by(Crew.id), list[Crew]),
    "a collection of them": (select(Crew).order_by(Crew.id), list[CrewOut]),
    "beside": (select(Hero).order_by(Hero.id), list[HeroOut]),
    "rows": (select(Hero, Crew).outerjoin(Crew).order_by(Hero.id), list[Row]),
    "many": (select(Crew).order_by(Crew.id).limit(40), list[CrewOut]),
}


async def of_fastapi(db: Any, statement: Any, type_: Any, **options: Any) -> bytes:
    """Return what FastAPI answers with for the objects of a statement, in an ordinary route."""
    app, entity = FastAPI(), statement.column_descriptions[0]["entity"]
    named = {f"response_model_{name}": value for name, value in options.items()}

    @app.get("/", response_model=type_, **named)
    async def read() -> Any:
        async with db.session() as session:
            if len(statement.column_descriptions) > 1:
                return (await session.execute(statement)).all()
            rows = (await session.scalars(statement.options(load(entity, type_)))).all()
            return rows if getattr(type_, "__origin__", None) is list else next(iter(rows), None)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return (await client.get("/")).content


@pytest.mark.parametrize("options", [{}, {"by_alias": False}, {"exclude_none": True}], ids=str)
async def test_the_server_writes_what_fastapi_answers_with(db, options):
    for pair, (statement, type_) in PAIRS.items():
        read = db.json_read(statement, type_, **options)

        assert read.fallback is None, pair
        assert (await read()).body == await of_fastapi(db, statement, type_, **options), pair


async def test_a_page_holds_them_too(db):
    statement = select(Hero).order_by(Hero.id).limit(2)

    body = (await db.json(statement, Heroes)).body

    assert body == b'{"items":' + await of_fastapi(db, statement, list[Hero]) + b',"total":3}'
    assert db.json_read(statement, Heroes).fallback is None


async def test_routes_of_a_read_router_answer_alike(db):
    app, reads = FastAPI(), ReadRouter(db)
    install(app, db)
    for number, (statement, type_) in enumerate(PAIRS.values()):
        reads.get(f"/{number}", response_model=type_)(_returning(statement))
    app.include_router(reads)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for number, (pair, (statement, type_)) in enumerate(PAIRS.items()):
            assert (await client.get(f"/{number}")).content == await of_fastapi(db, statement, type_), pair


async def test_what_the_server_does_not_write_is_answered_alike(db, caplog):
    """NULL behind a field that is a float, bytes that are no text: a value alone sends one answer the other way."""
    async with db.session.begin() as session:
        await session.execute(sa.update(Hero).where(Hero.id == 2).values(born=sa.text("date '5000-01-01'")))
        await session.execute(sa.update(Hero).where(Hero.id == 1).values(raw="é".encode()))
    statement = select(Hero).order_by(Hero.id)

    body = (await db.json(statement, list[Hero])).body

    assert body == await of_fastapi(db, statement, list[Hero])
    assert "for a value" in caplog.text


async def test_moments_that_an_older_sqlmodel_stored_without_a_zone_are_in_utc(db, admin):
    await admin("ALTER TABLE hero ALTER at TYPE timestamp USING at AT TIME ZONE 'UTC'")
    statement = select(Hero).where(Hero.id == 1)

    assert db.json_read(statement, Hero).fallback is None
    assert (await db.json(statement, Hero)).body == await of_fastapi(db, statement, Hero)


def _returning(statement):
    def read():
        return statement

    return read


class Other(SQLModel, registry=registry()):
    """The base of tables whose objects say something that only Python knows."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = "n"


class Serialized(Other, table=True):
    @field_serializer("name")
    def _written(self, value: str) -> str:
        return value.upper()


class Dumped(Other, table=True):
    @model_serializer
    def _all(self) -> str:
        return self.name


class Computed(Other, table=True):
    @computed_field
    def upper(self) -> str:
        return self.name.upper()


class Validated(Other, table=True):
    @model_validator(mode="after")
    def _changed(self) -> Any:
        vars(self)["name"] = "changed"
        return self


class Rebuilt(Other, table=True):
    @reconstructor
    def _loaded(self) -> None:
        vars(self)["name"] = "rebuilt"


class Unlike(Other, table=True):
    number: float = Field(default=1, sa_type=sa.Integer)


class Numbers(Other, table=True):
    numbers: list[float] = Field(default=[1, 2], sa_type=sa.JSON)


class Keyed(Other, table=True):
    by_key: dict[UUID, int] = Field(default={}, sa_type=pg.JSONB)


class Kept(Other, table=True):
    kind: str = "kept"
    __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind", "polymorphic_identity": "kept"}


class Again(Other, table=True):
    model_config = ConfigDict(revalidate_instances="always")


REASONS = {
    Serialized: "Serialized.name has a serializer of its own",
    Dumped: "Dumped has a serializer of its own",
    Computed: "Computed.upper is computed in Python",
    Validated: "it is validated by Validated._changed()",
    Rebuilt: "Rebuilt has a reconstructor, or listeners of 'load' or 'refresh'",
    Unlike: "its column gives another kind of value, which is written without being validated",
    Numbers: "what float JSON holds is validated in Python",
    Keyed: "keys that are not plain text are made in Python",
    Kept: "Kept is one of several mapped classes, by which its objects are filled",
    Again: "the objects of Again are validated (revalidate_instances='always')",
}


async def test_what_only_python_knows_of_an_object_is_read_by_load(database_url):
    db = Database(database_url)
    async with db.engine.begin() as connection:
        await connection.run_sync(Other.metadata.create_all)
    async with db.session.begin() as session:
        session.add_all([table(id=1) for table in REASONS])
    for table, reason in REASONS.items():
        read = db.json_read(select(table), list[table])

        assert (read.fallback or "").endswith(reason), table
        assert (await read()).body == await of_fastapi(db, select(table), list[table]), table
    await db.dispose()


class Documents(SQLModel, registry=registry()):
    """The base of a table of its own."""


class Document(Documents, table=True):
    id: int | None = Field(default=None, primary_key=True)
    numbers: list[int] = Field(sa_type=pg.JSONB)
    counts: dict[str, int] = Field(sa_type=pg.JSONB)
    by_number: dict[int, list[int | None]] = Field(sa_type=sa.JSON)
    deep: list[dict[str, list[int]]] | None = Field(sa_type=pg.JSONB)
    names: list[str] = Field(sa_type=sa.JSON)
    flags: dict[str, bool] = Field(sa_type=pg.JSONB)
    mixed: dict[str, Any] = Field(sa_type=sa.JSON)


DOCUMENT = TypeAdapter(Document)


@pytest.fixture
async def documents(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Documents.metadata.create_all)
    yield database
    await database.dispose()


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_json_of_any_kind_is_written_as_what_it_is_whatever_the_field_says(documents):
    """Nobody has validated it: Pydantic makes another value of an int under a float, and of True under an int only."""
    values = [True, [True], [[True]], {"a": True}, {"1": 1}, {"a": [1.0]}, [1, "1", None], 1e22, "", None, *DRAWN]
    columns = list(Document.model_fields)[1:]
    async with documents.session.begin() as session:
        session.add_all(Document(id=n, **dict.fromkeys(columns, value)) for n, value in enumerate(values))
    read = documents.json_read(select(Document).where(Document.id == sa.bindparam("id")), Document)
    assert read.fallback is None

    for number, value in enumerate(values):
        async with documents.session() as session:
            loaded = await session.get(Document, number)
        body = (await read(id=number)).body

        assert json.loads(body) == json.loads(DOCUMENT.dump_json(loaded, warnings=False)), value
        assert repr(json.loads(body)["numbers"]) == repr(
            json.loads(DOCUMENT.dump_json(loaded, warnings=False))["numbers"]
        )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_json_that_fits_its_field_is_written_by_the_server(documents, caplog):
    caplog.set_level("INFO", "verdigris")
    fits: dict[str, Any] = {"numbers": [1, 10**30], "counts": {"a": -1}, "by_number": {"1": [1, None]}, "deep": None}
    fits |= {"names": ["a", 'b"\\'], "flags": {"a": True}, "mixed": {"a": [True, 1.5]}}
    async with documents.session.begin() as session:
        session.add(Document(id=1, **fits))
        session.add(Document(id=2, **{**fits, "deep": [{"a": [1]}, {}]}))

    body = (await documents.json(select(Document).order_by(Document.id), list[Document])).body

    assert json.loads(body) == [{"id": 1, **fits}, {"id": 2, **fits, "deep": [{"a": [1]}, {}]}]
    assert "for a value" not in caplog.text
    await documents.transaction(lambda session: session.execute(sa.update(Document).values(numbers=[True])))
    assert b"[1]" in (await documents.json(select(Document), list[Document])).body
    assert "for a value" in caplog.text


DEFERRING = {
    "load_only": (select(Hero).options(load_only(Hero.id, Hero.rank)).order_by(Hero.id), list[Hero]),
    "defer": (select(Hero).options(defer(Hero.bulk)).where(Hero.id == 1), Hero),
    "nested": (select(Crew).options(selectinload(Crew.heroes).load_only(Hero.id)).order_by(Crew.id), list[CrewOut]),
}


@pytest.mark.parametrize("pair", DEFERRING)
async def test_what_a_statement_leaves_out_of_its_objects_is_not_answered(db, pair):
    statement, type_ = DEFERRING[pair]
    read = db.json_read(statement, type_)

    body = (await read()).body

    assert "leaves columns out" in (read.fallback or "")
    assert b'"bulk"' not in body
    assert body == await of_fastapi(db, statement, type_)


async def test_nothing_of_an_object_that_was_loaded_counts_as_set(db):
    read = db.json_read(select(Hero), list[Hero], exclude_unset=True)

    assert "no field of a Hero that was loaded counts as set" in (read.fallback or "")
    assert (await read()).body == await of_fastapi(db, select(Hero), list[Hero], exclude_unset=True)


async def test_objects_of_a_table_are_those_of_the_orm(db):
    statement = select(Hero).where(Hero.id == 1)

    (found,) = await db.fetch(statement, list[Hero])

    assert sa.inspect(found).detached
    assert (found.name, found.called, found.rank) == ("Deadpond", "c", Rank.low)


async def test_a_read_in_a_session_sees_what_the_session_wrote(db):
    async with db.session() as session:
        session.add(Crew(id=7, title="new"))
        body = (await db.json(select(Crew).where(Crew.id == 7), Crew, session=session)).body

    assert b'"title":"new"' in body


def test_a_plan_reads_the_attributes_of_a_table_by_their_names():
    """A field's alias is nothing to an object that is taken as it is."""
    assert "Hero -> Hero" in str(plan(Hero, Hero))
    assert "knownAs: Hero.called" in explain_plan(Hero, Hero)
