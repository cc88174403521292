"""SQLModel's models, its `select()` and `session.exec()` on the sessions of a Database."""

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Select
from sqlalchemy import select as sqlalchemy_select
from sqlalchemy.ext.compiler import compiles
from sqlmodel import Field, Relationship, SQLModel, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession as TheirSession

from verdigris import Database, explain_plan, load
from verdigris.errors import ReadOnlyError, SessionClosedError
from verdigris.fastapi import ReadRouter, install
from verdigris.lean.reads import LeanReads
from verdigris.lean.shapes import is_select


class TeamBase(SQLModel):
    name: str = Field(index=True)


class Team(TeamBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    heroes: list["Hero"] = Relationship(back_populates="team", sa_relationship_kwargs={"order_by": "Hero.id"})


class HeroBase(SQLModel):
    name: str
    age: int | None = None


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id", index=True)
    team: Team | None = Relationship(back_populates="heroes")


class HeroPublic(HeroBase):
    id: int


class TeamWithHeroes(TeamBase):
    id: int
    heroes: list[HeroPublic]


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    tables = [Team.__table__, Hero.__table__]
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=tables)
    async with database.session.begin() as session:
        session.add(Team(name="Preventers", heroes=[Hero(name="Deadpond", age=30), Hero(name="Spider")]))
        session.add(Team(name="Empty"))
    yield database
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.drop_all, tables=tables)
    await database.dispose()


STATEMENTS = {
    "entity": select(Team).order_by(Team.id),
    "column": select(Hero.name).order_by(Hero.id),
    "two entities": select(Hero, Team).join(Team).order_by(Hero.id),
    "count": select(func.count()).select_from(Hero),
    "SQLAlchemy's own": sqlalchemy_select(Hero.name).order_by(Hero.id),
    "filtered": select(Hero.name).where(Hero.age == 30),
}


@pytest.mark.parametrize("kind", STATEMENTS)
async def test_exec_gives_what_sqlmodels_session_gives(db, kind):
    async with db.session() as session, db.read() as reading, TheirSession(db.engine) as theirs:
        ours, read, wanted = [await each.exec(STATEMENTS[kind]) for each in (session, reading, theirs)]

        assert type(read) is type(ours) is type(wanted)
        assert read.all() == ours.all() == wanted.all()


async def test_exec_of_updates_options_and_parameters(db):
    async with db.session.begin() as session:
        changed = await session.exec(update(Hero).values(age=31).where(Hero.name == "Spider"))
        assert changed.rowcount == 1
        found = await session.exec(select(Hero.age), execution_options={"stream_results": False})
        assert sorted(found.all()) == [30, 31]


async def test_exec_is_guarded_as_execute_is(db):
    async with db.read() as reading:
        with pytest.raises(ReadOnlyError):
            await reading.exec(update(Hero).values(age=1))
    async with db.session() as session:
        pass
    with pytest.raises(SessionClosedError):
        await session.exec(select(Hero))


async def test_statements_of_sqlmodel_are_read_as_those_of_sqlalchemy_are(db, monkeypatch):
    sent, fetch = [], LeanReads._sent

    async def counted(self, session, text, *more, **options):
        sent.append(text)
        return await fetch(self, session, text, *more, **options)

    monkeypatch.setattr(LeanReads, "_sent", counted)
    for _ in range(2):
        async with db.read() as session:
            assert (await session.exec(select(Hero).where(Hero.name == "Spider"))).one().name == "Spider"

    assert len(sent) == 1  # the first was run by SQLAlchemy, and taught the plan


class Narrow(Select):
    inherit_cache = True


class Unsaid(Select):
    pass


class Compiled(Select):
    inherit_cache = True


@compiles(Compiled)
def _(element, compiler, **options):
    return compiler.visit_select(element, **options)


@pytest.mark.parametrize(
    ("kind", "known"), [(Select, True), (type(select(Hero)), True), (Narrow, True), (Unsaid, False), (Compiled, False)]
)
def test_a_class_that_may_compile_to_something_else_is_sqlalchemys_affair(kind, known):
    assert is_select(kind) is known


async def test_response_models_are_plans(db):
    statement = select(Team).order_by(Team.id)
    async with db.session() as session:
        teams = (await session.exec(statement.options(load(Team, TeamWithHeroes)))).all()
        wanted = [TeamWithHeroes.model_validate(team).model_dump() for team in teams]

    read = db.json_read(statement, list[TeamWithHeroes])

    assert read.fallback is None
    assert [each.model_dump() for each in await db.fetch(statement, list[TeamWithHeroes])] == wanted
    assert "heroes" in str(explain_plan(Team, TeamWithHeroes))


async def test_endpoints_of_a_service_with_sqlmodel(db):
    app = FastAPI()
    install(app, db)
    reads = ReadRouter(db)

    @reads.get("/teams", response_model=list[TeamWithHeroes])
    def teams():
        return select(Team).order_by(Team.id)

    @reads.get("/heroes/{id}", response_model=Hero | None)  # a table's own class
    def hero(id: int):  # noqa: A002 - as in a path
        return select(Hero).where(Hero.id == id)

    @app.post("/heroes", response_model=HeroPublic)
    async def create(hero: HeroBase, session: Annotated[TheirSession, Depends(db.request_session, scope="function")]):
        stored = Hero.model_validate(hero)
        session.add(stored)
        await session.flush()
        assert (await session.exec(select(Hero).where(Hero.name == hero.name))).one() is stored
        return stored

    app.include_router(reads)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        created = (await client.post("/heroes", json={"name": "Rusty", "age": 48})).json()
        read = (await client.get(f"/heroes/{created['id']}")).json()
        listed = (await client.get("/teams")).json()

    assert created == {"name": "Rusty", "age": 48, "id": created["id"]}
    assert read == {**created, "team_id": None}
    assert [len(team["heroes"]) for team in listed] == [2, 0]
