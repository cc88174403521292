"""A stream's memory, and what becomes of the connection behind it."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import date

import pytest
from pydantic import BaseModel, TypeAdapter, computed_field
from sqlalchemy import select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.requests import ClientDisconnect

from verdigris import Database


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    day: Mapped[date]


class ReadingOut(BaseModel):
    id: int
    label: str
    day: date


async def read(response, *, stop_after=None):
    """Run a response as a server would; return how many bytes it sent, and its last byte."""
    sent = 0
    last = b""

    async def send(message):
        nonlocal sent, last
        body = message.get("body", b"")
        sent, last = sent + len(body), body[-1:] or last
        if stop_after is not None and sent > stop_after:
            raise OSError("the client is gone")

    async def receive():
        await asyncio.Event().wait()

    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    return sent, last


@pytest.fixture
async def readings(database_url):
    database = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=1.0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        columns = "i, 'reading ' || i || repeat('.', 80), date '2024-01-01' + i % 700"
        await connection.execute(text(f"INSERT INTO readings SELECT {columns} FROM generate_series(1, 100000) i"))
    yield database
    await database.dispose()


async def test_memory_does_not_grow_with_the_list(readings):
    async def peak(rows):
        tracemalloc.start()
        sent, last = await read(readings.json_stream(select(Reading).where(Reading.id <= rows), list[ReadingOut]))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert last == b"]"
        assert sent > rows * 130
        return most

    await peak(500)  # what is made once
    small, large = await peak(4000), await peak(100_000)

    assert large < small * 1.3
    assert large < 1_500_000


async def test_memory_is_bounded_for_large_rows_too(readings):
    async with readings.engine.begin() as connection:
        await connection.execute(text("DELETE FROM readings WHERE id > 100"))
        await connection.execute(text("UPDATE readings SET label = repeat('x', 1000000)"))

    tracemalloc.start()
    sent, last = await read(readings.json_stream(select(Reading), list[ReadingOut]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (sent > 100_000_000, last) == (True, b"]")
    assert most < 80_000_000


async def test_memory_does_not_grow_with_a_list_that_load_reads(readings):
    class Shouted(ReadingOut):
        @computed_field
        @property
        def loud(self) -> str:
            return self.label.upper()

    async def peak(rows):
        statement = select(Reading).where(Reading.id <= rows)
        tracemalloc.start()
        await read(readings.json_stream(statement, list[Shouted]))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    await peak(500)
    small, large = await peak(2000), await peak(10_000)

    assert large < small * 1.3
    assert large < 3_000_000


async def test_a_client_that_leaves_gives_the_connection_back(readings):
    with pytest.raises(ClientDisconnect):
        await read(readings.json_stream(select(Reading), list[ReadingOut]), stop_after=100_000)

    assert await readings.fetch(select(Reading).where(Reading.id == 1), ReadingOut) is not None


async def test_a_row_that_sql_does_not_write_is_read_by_load_and_the_others_are_not(readings):
    async with readings.engine.begin() as connection:
        await connection.execute(text("UPDATE readings SET day = 'infinity' WHERE id = 700"))
        await connection.execute(text("DELETE FROM readings WHERE id > 1200"))
    statement = select(Reading).order_by(Reading.id)

    parts = [part async for part in readings.json_stream(statement, list[ReadingOut]).body_iterator]

    found = TypeAdapter(list[ReadingOut]).validate_json(b"".join(parts))
    assert [one.id for one in found] == list(range(1, 1201))
    assert found[699].day == date.max
