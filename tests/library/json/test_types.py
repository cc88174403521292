import pytest
from pydantic import TypeAdapter
from sqlalchemy import Boolean, Date, Integer, Text, Uuid, func, literal, select
from sqlalchemy.ext.asyncio import create_async_engine

from verdigris.loading.json.types import Encoded, Unsupported, encode

VALUES = [
    (int, Integer(), "-2147483648"),
    (str, Text(), 'a "quoted" \\ line\n\x01 ü'),
    (bool, Boolean(), "true"),
    (bool, Boolean(), "false"),
]


def encoded(kind, type_, column):
    return encode(column, type_, TypeAdapter(kind).core_schema)


@pytest.mark.parametrize(("kind", "type_", "value"), VALUES)
async def test_a_column_is_printed_as_pydantic_prints_its_value(database_url, kind, type_, value):
    engine = create_async_engine(database_url)
    column = literal(value, Text()).cast(type_)
    found = encoded(kind, type_, column)
    assert isinstance(found, Encoded)

    async with engine.connect() as connection:
        text, loaded = (await connection.execute(select(func.concat(found.sql), column))).one()
    await engine.dispose()

    assert text.encode() == TypeAdapter(kind).dump_json(loaded)


@pytest.mark.parametrize("type_", [Text(), Date(), Uuid()])
def test_a_column_of_another_type_is_not_supported_and_the_reason_names_it(type_):
    found = encoded(int, type_, literal("1", type_))

    assert isinstance(found, Unsupported)
    assert repr(type_) in found.reason
