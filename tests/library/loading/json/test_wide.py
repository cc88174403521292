"""Classes with very many columns: as many as PostgreSQL lets a table have (1,600) and a statement return (1,664)."""

import pytest
from pydantic import ConfigDict, create_model
from sqlalchemy import ForeignKey, Integer, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship
from tests.library.loading.json.test_read import by_loading, written

from verdigris import Database, load

WIDEST = 1600  # of a table
WRITTEN = 390  # what of a statement's 400 parts is left to columns


class Base(DeclarativeBase):
    pass


def wide(name, columns, **more):
    """Return a class with an id, so many columns in all, and what else is given."""
    made = {f"c{n}": mapped_column(Integer, default=n) for n in range(columns - 1 - ("other_id" in more))}
    return type(
        name,
        (Base,),
        {"__tablename__": name.lower(), "id": mapped_column(primary_key=True, type_=Integer), **made, **more},
    )


Widest = wide("Widest", WIDEST)
Wide = wide("Wide", WRITTEN)
Other = wide("Other", 1000)
Joined = wide("Joined", 1000, other_id=mapped_column(ForeignKey("other.id"), nullable=False), other=relationship(Other))


def schema(entity, **more):
    fields = dict.fromkeys((column.key for column in entity.__table__.columns), (int, ...))
    return create_model(f"{entity.__name__}Out", __config__=ConfigDict(from_attributes=True), **fields, **more)


WideOut = schema(Wide)
WidestOut = schema(Widest)
JoinedOut = schema(Joined, other=(schema(Other), ...))


@pytest.fixture
async def wide_db(database_url):
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for entity, row in (
            (Wide, {"id": 1}),
            (Widest, {"id": 1}),
            (Other, {"id": 1}),
            (Joined, {"id": 1, "other_id": 1}),
        ):
            await connection.execute(entity.__table__.insert(), row)
    await engine.dispose()
    database = Database(database_url)
    yield database
    await database.dispose()


@pytest.mark.parametrize(("entity", "model"), [(Widest, WidestOut), (Joined, JoinedOut)], ids=["widest", "joined"])
async def test_the_widest_rows_are_loaded_and_it_is_said_why_they_are_not_written(wide_db, entity, model):
    statement = select(entity).order_by(entity.id)
    read = wide_db.json_read(statement, list[model])

    assert "more than 400 parts" in read.fallback
    assert (await wide_db.json(statement, list[model])).body == await by_loading(wide_db, statement, list[model])
    assert [row.id for row in await wide_db.fetch(statement, list[model])] == [1]
    async with wide_db.session() as session:
        found = await session.scalar(statement.options(load(entity, model)))
        assert found.c7 == 7


async def test_as_many_columns_as_are_written_are_equal(wide_db):
    statement = select(Wide)

    assert await written(wide_db, statement, list[WideOut]) == await by_loading(wide_db, statement, list[WideOut])
