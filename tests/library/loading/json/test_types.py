"""Section 5: a column printed by PostgreSQL is what Pydantic prints of the value that the ORM loads, byte for byte."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import ConfigDict, create_model
from pydantic_core import PydanticSerializationError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from tests.library.loading.json.columns import Kind, kinds
from tests.library.loading.json.comparing import (
    EXAMPLES,
    LONG,
    Source,
    Tally,
    adapter,
    dumped,
    examples,
    field_schema,
    same,
)

from verdigris.loading.json.planner import Options, Planner
from verdigris.loading.json.schema import InPython, Reader
from verdigris.loading.json.types import Encoded, Unsupported, encode

#: What a session may have set otherwise, and no encoding may depend on.
SESSION = {"timezone": "Asia/Kolkata", "datestyle": "German", "intervalstyle": "sql_standard", "bytea_output": "escape"}
CONFIGS: tuple[ConfigDict, ...] = (
    {},
    {"ser_json_inf_nan": "strings", "ser_json_timedelta": "float", "ser_json_bytes": "hex"},
    {"ser_json_inf_nan": "constants", "ser_json_bytes": "base64"},
    {"strict": True, "use_enum_values": True},
    {"allow_inf_nan": False, "str_strip_whitespace": True, "coerce_numbers_to_str": True},
)
#: JSON is printed as the database keeps it: other white space, more digits, the same values.
VALUES = {"json", "jsonb", "objects", "tags", "hstore"}
#: Kinds of which each field of a table's own class is read in Python.
IN_PYTHON = {"inet", "cidr"}
_numbers = count()


@pytest.fixture(scope="module")
def url(postgres):
    """The URL of one database for all kinds; each leaves nothing behind."""

    async def make():
        connection = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
        await connection.execute("CREATE DATABASE json_types")
        await connection.close()
        connection = await asyncpg.connect(postgres.url_for("json_types").replace("+asyncpg", ""))
        await connection.execute("CREATE EXTENSION hstore; CREATE EXTENSION citext")
        await connection.close()

    asyncio.run(make())
    return postgres.url_for("json_types")


@pytest.fixture
async def connection(url):
    engine = create_async_engine(url, connect_args={"server_settings": SESSION})
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
async def test_what_postgresql_prints_of_a_column_is_what_pydantic_prints(connection, kind):
    table = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True), sa.Column("v", kind.type))
    tally = Tally()

    await filled(connection, table, kind)
    loaded = {n: await value(connection, table, n) for n in await connection.scalars(sa.select(table.c.n))}
    fields = list(encoded(table, kind))
    texts = (sa.cast(found.sql, sa.Text).label(f"_{number}") for number, (*_, found) in enumerate(fields))
    printed = await connection.execute(sa.select(table.c.n, *texts))
    differences = [
        difference
        for n, *texts in printed
        for (annotation, config, model, _), text in zip(fields, texts, strict=True)
        for difference in compared(tally, kind, (annotation, config, model), loaded[n], text)
    ]

    print(f"{kind.name}: {tally}")
    assert differences == []
    assert tally.equal > len(fields)


def test_what_no_sql_prints_is_said_with_a_reason():
    for kind in kinds():
        column = sa.column("v", kind.type)
        for annotation in kind.python:
            found = encode(column, kind.type, *field_schema(create_model("M", f=(annotation, ...))))

            assert isinstance(found, Unsupported), (kind.name, annotation)
            assert found.reason


def encoded(table: sa.Table, kind: Kind):
    """Yield each field that reads a column under each config, and its encoding."""
    for annotation in kind.fields:
        for number, config in enumerate(CONFIGS):
            model = create_model("M", __config__=config, f=(annotation, ...))
            found = encode(table.c.v, kind.type, *field_schema(model))
            assert isinstance(found, Encoded) or number, (kind.name, annotation, found)
            if isinstance(found, Encoded):
                yield annotation, config, adapter(model), found


def compared(tally: Tally, kind: Kind, field: tuple[Any, ...], loaded: Any, text: str | None):
    """Count one comparison; yield it if it is a difference."""
    annotation, config, model = field
    want = None if isinstance(loaded, Exception) else dumped(model, Source(loaded))
    want = None if want is None else want.removeprefix('{"f":').removesuffix("}")

    def is_equal() -> bool:
        return text is None if loaded is None else same(text, want, as_values=kind.name in VALUES)

    if tally.differs(text, want, is_equal):
        yield annotation, config, loaded, text, want


async def filled(connection, table, kind):
    await connection.run_sync(table.metadata.create_all)
    length = getattr(kind.type, "length", None) if isinstance(kind.type, sa.String) else None
    values = [
        value[:length] if length and isinstance(value, str) else value for value in examples(kind.values, EXAMPLES)
    ]
    await connection.execute(table.insert(), [{"v": value} for value in [*values, None]])
    for literal in kind.literals:
        await connection.execute(sa.text(f"INSERT INTO t (v) VALUES ({literal})"))


async def value(connection, table, n):
    """Return what SQLAlchemy loads of one row, or the error that it raises."""
    try:
        return await connection.scalar(sa.select(table.c.v).where(table.c.n == n))
    except Exception as error:  # noqa: BLE001 - whatever it is, the loader path raises it too
        return error


class Own(SQLModel, registry=registry()):
    """The base of what is made here, so that no table comes into the metadata of others."""


def table_of(annotation: Any, type_: Any, config: Any) -> Any:
    """Return a class of SQLModel whose `f` has this annotation, over a column of this type."""
    columns = {"n": Field(primary_key=True), "f": Field(sa_column=sa.Column("v", type_))}
    said = {"__annotations__": {"n": int, "f": annotation}, "__module__": __name__, "model_config": config}
    return type(Own)(f"T{next(_numbers)}", (Own,), {**columns, **said}, table=True)


def node_of(table: Any) -> Any:
    """Return what prints `f` of an object of a table's class; raises InPython."""
    reader = Reader("dump")
    found: Any = Planner(reader, Options()).object(sa.inspect(table), reader.of(table))
    return next(member.node for member in found.members if member.key == "f")


def held(table: Any, loaded: Any) -> str | None:
    """Return what Pydantic prints of an object that holds this value, None where it cannot."""
    instance = sa.inspect(table).class_manager.new_instance()
    vars(instance).update(f=loaded)
    whole = adapter(table)
    try:
        text = whole.dump_json(whole.validate_python(instance, from_attributes=True), warnings=False).decode()
    except PydanticSerializationError:
        return None
    return text.removeprefix('{"f":').removesuffix("}")


def fields(kind: Any):
    """Yield the classes over a column that PostgreSQL prints, and the text of each."""
    column = sa.column("v", kind.type)
    for annotation in (*kind.fields, *kind.python):
        for config in CONFIGS if LONG else CONFIGS[::4]:
            table = table_of(annotation, kind.type, config)
            try:
                node = node_of(table)
            except InPython:
                continue
            found: Any = encode(column, kind.type, node.schema, node.config)
            yield annotation, config, table, found.sql


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
async def test_a_column_of_a_table_is_printed_as_an_object_of_it_is(connection, kind):
    table = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True), sa.Column("v", kind.type))
    tally, differences = Tally(), []

    await filled(connection, table, kind)
    loaded = {n: await value(connection, table, n) for n in await connection.scalars(sa.select(table.c.n))}
    printable = list(fields(kind))
    texts = [sa.cast(sql, sa.Text).label(f"_{number}") for number, (*_, sql) in enumerate(printable)]
    for n, *printed in await connection.execute(sa.select(table.c.n, *texts).select_from(table)):
        for (annotation, config, model, _), text in zip(printable, printed, strict=True):
            got = "null" if text is None else text
            want = None if isinstance(loaded[n], Exception) else held(model, loaded[n])

            def is_equal(got: str = got, want: str | None = want) -> bool:
                return same(got, want, as_values=kind.name in VALUES)

            if tally.differs(got, want, is_equal):
                differences.append((annotation, config, loaded[n], got, want))

    print(f"{kind.name}: {tally}; {len(printable)} fields")
    assert differences == []
    assert printable or kind.name in IN_PYTHON
