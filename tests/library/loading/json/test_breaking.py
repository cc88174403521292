"""Section 5: names, sizes and settings that are meant to break the statement of a JSON read."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, Field, create_model
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import mapped_column, registry, relationship
from tests.library.loading.json.comparing import adapter

from verdigris import Database, load

HOSTILE = (
    "\\' || (SELECT 1/0) || '",
    "'); DROP TABLE t; --",
    "$1",
    "%(x)s %s",
    ":x",
    "\\",
    '"',
    "\n",
    "é" * 60,
    "_0",
    "\u0000",
)


@pytest.fixture
async def mapping(database_url):
    """Map classes, make their tables, and give both ways to an answer."""
    made = registry()
    database = Database(database_url)

    async def both(entity: Any, model: Any) -> tuple[bytes, bytes]:
        statement = select(entity).order_by(entity.id)
        read = database.json_read(statement, list[model])
        assert read.fallback is None
        async with database.session() as session:
            rows = (await session.scalars(statement.options(load(entity, model)))).all()
            made = adapter(list[model])
            want = made.dump_json(made.validate_python(rows, from_attributes=True), by_alias=True)
        return (await read()).body, want

    async def create(*rows: Any) -> None:
        async with database.engine.begin() as connection:
            await connection.run_sync(made.metadata.create_all)
        async with database.session.begin() as session:
            session.add_all(rows)

    yield made, create, both, database
    await database.dispose()
    made.dispose()


def entity(made: registry, name: str, **columns: Any) -> Any:
    body = {"__tablename__": name, "id": mapped_column(sa.Integer, primary_key=True), **columns}
    return made.mapped(type(name, (), body))


@pytest.mark.parametrize("quoting", ["on", "off"])
async def test_hostile_aliases_and_values_stay_texts(mapping, quoting):
    made, create, both, database = mapping
    thing = entity(
        made, "t", **{f"c{n}": mapped_column(name[:20] or "x", sa.Text) for n, name in enumerate(HOSTILE[:-1])}
    )
    await create(thing(id=1, **{f"c{n}": name for n, name in enumerate(HOSTILE[:-1])}))
    fields = {f"c{n}": (str | None, Field(serialization_alias=name)) for n, name in enumerate(HOSTILE[:-1])}
    fields["absent"] = (str, Field(HOSTILE[0], serialization_alias=HOSTILE[-1]))
    model = create_model("HostileOut", **fields)
    async with database.engine.connect() as connection:
        name = (await connection.execute(text("SELECT current_database()"))).scalar()
        await connection.execute(text(f"ALTER DATABASE {name} SET standard_conforming_strings = {quoting}"))
        await connection.commit()
    await database.engine.dispose()

    got, want = await both(thing, model)

    assert got == want


async def test_names_longer_than_postgresql_keeps_are_told_apart(mapping):
    made, create, both, _ = mapping
    names = ["n" * 70 + "1", "n" * 70 + "2"]
    thing = entity(made, "t", **{name: mapped_column(f"c{n}", sa.Text) for n, name in enumerate(names)})
    await create(thing(id=1, **{names[0]: "one", names[1]: "two"}))

    got, want = await both(thing, create_model("LongOut", **dict.fromkeys(names, (str, ...))))

    assert got == want
    assert b"one" in got


async def test_two_fields_of_one_alias_are_both_written(mapping):
    made, create, both, _ = mapping
    thing = entity(made, "t", a=mapped_column(sa.Text), b=mapped_column(sa.Text))
    await create(thing(id=1, a="1", b="2"))
    twice = create_model("TwiceOut", a=(str, Field(serialization_alias="x")), b=(str, Field(serialization_alias="x")))

    got, want = await both(thing, twice)

    assert got == want


async def test_a_wide_model_is_one_statement(mapping):
    made, create, both, _ = mapping
    names = [f"c{n}" for n in range(380)]
    thing = entity(made, "t", **{name: mapped_column(sa.Integer) for name in names})
    await create(thing(id=1, **{name: n for n, name in enumerate(names)}))

    got, want = await both(thing, create_model("WideOut", **dict.fromkeys(names, (int, ...))))

    assert got == want


async def test_a_text_of_megabytes_arrives_whole(mapping):
    made, create, both, database = mapping
    thing = entity(made, "t", note=mapped_column(sa.Text))
    await create(*(thing(id=number, note=f'"é\\{number}' * 600_000) for number in (1, 2)))
    model = create_model("NoteOut", note=(str, ...))

    got, want = await both(thing, model)
    stream = database.json_stream(select(thing).order_by(thing.id), list[model])

    assert len(got) > 7_000_000
    assert got == want == b"".join([part async for part in stream.body_iterator])


async def test_an_answer_larger_than_a_gigabyte_is_an_error_that_says_what_to_do(mapping, major):
    if major < 15:
        pytest.skip("PostgreSQL calls it an internal error before 15")
    made, create, _, database = mapping
    thing = entity(made, "t")
    await create(*(thing(id=number) for number in range(1, 5)))
    large = select(sa.func.repeat("x", 1_500_000_000, type_=sa.Text()).label("note"), thing.id)
    model = create_model("NoteOut", note=(str, ...))

    with pytest.raises(DBAPIError) as raised:
        await database.json(large, list[model])

    assert "db.json_stream()" in raised.value.__notes__[-1]
    assert await database.fetch(select(sa.func.count()).select_from(thing), int) == 4


async def test_a_deep_model_is_one_statement(mapping):
    made, create, both, _ = mapping
    last, model, rows = None, None, []
    for depth in range(15, 0, -1):
        columns: dict[str, Any] = {}
        if last is not None:
            columns["below_id"] = mapped_column(sa.ForeignKey(f"t{depth + 1}.id"), nullable=False)
            columns["below"] = relationship(last)
        last = entity(made, f"t{depth}", **columns)
        rows.append(last(id=1, **({"below": rows[-1]} if rows else {})))
        fields = {"id": (int, ...)} | ({"below": (model, ...)} if model is not None else {})
        model = create_model(f"Out{depth}", **fields)
    await create(*rows)

    got, want = await both(last, model)

    assert got == want


async def test_a_table_that_changes_between_two_reads_is_read_as_it_is(mapping):
    made, create, both, database = mapping
    thing = entity(made, "t", a=mapped_column(sa.Integer))
    await create(thing(id=1, a=7))

    class ThingOut(BaseModel):
        id: int
        a: int | None

    before, _ = await both(thing, ThingOut)
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE t ADD COLUMN z text, ALTER a TYPE bigint"))
    after, want = await both(thing, ThingOut)

    assert before == after == want


async def test_a_model_of_which_nothing_is_left_is_an_empty_object(mapping):
    made, create, _, database = mapping
    thing = entity(made, "t")
    await create(thing(id=1))

    class NothingOut(BaseModel):
        absent: int | None = None

    read = database.json_read(select(thing), list[NothingOut], exclude_none=True)

    assert read.fallback is None
    assert (await read()).body == b"[{}]"
