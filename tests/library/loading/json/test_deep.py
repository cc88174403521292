"""Models that are nested very deeply: SQLAlchemy's compiler calls itself for each level, as often as Python lets it."""

import pytest
from pydantic import ConfigDict, create_model
from sqlalchemy import ForeignKey, bindparam, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from tests.library.loading.json.test_read import by_loading

from verdigris import Database


class Base(DeclarativeBase):
    pass


class Branch(Base):
    __tablename__ = "branches"
    id: Mapped[int] = mapped_column(primary_key=True)
    of_id: Mapped[int | None] = mapped_column(ForeignKey("branches.id"))
    twigs: Mapped[list["Branch"]] = relationship(order_by="Branch.id")


def nested(levels):
    options = ConfigDict(from_attributes=True)
    model = create_model("Branch1", __config__=options, id=(int, ...))
    for level in range(2, levels + 1):
        model = create_model(f"Branch{level}", __config__=options, id=(int, ...), twigs=(list[model], ...))
    return model


TOP = select(Branch).where(Branch.of_id.is_(None)).order_by(Branch.id)


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session.begin() as session:
        session.add_all(Branch(id=number, of_id=number - 1 or None) for number in range(1, 60))
    yield database
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await database.dispose()


@pytest.mark.parametrize("levels", [12, 50])
async def test_deep_models_are_written_and_still_deeper_ones_loaded(db, levels, caplog):
    model = nested(levels)

    body = await db.json(TOP, list[model])

    assert body.body == await by_loading(db, TOP, list[model])
    assert (db.json_read(TOP, list[model]).fallback is None) == (levels == 12)
    assert ("because of its depth" in caplog.text) == (levels == 50)


async def test_a_text_that_cannot_be_made_so_far_down_the_stack_is_the_one_that_was_made_at_first(db, database_url):
    fresh = Database(database_url)
    read = fresh.json_read(TOP.limit(bindparam("limit")), list[nested(12)])
    compiled, given = read._found.compiled, read._given
    first = compiled.bound
    async with fresh.engine.connect():
        pass  # now the server's version is known, for which texts are made anew
    await fresh.dispose()

    def down(levels):
        return down(levels - 1) if levels else compiled.text(given, {"limit": 3})

    assert deepest(down) is first


def deepest(call):
    for levels in range(990, 0, -10):
        try:
            return call(levels)
        except RecursionError:
            continue
    return None
