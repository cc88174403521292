"""JSON reads that wait in the same moment go to the server together, unless they lock or are told not to."""

import asyncio

import pytest
from pydantic import BaseModel
from sqlalchemy import bindparam, select
from tests.library.loading.json.models import Order

from verdigris.errors import NotFoundError


class OrderOut(BaseModel):
    id: int
    status: str


ONE = select(Order).where(Order.id == bindparam("id"))


async def by_json_read(db, **options):
    read = db.json_read(ONE, OrderOut, **options)
    return lambda: read(id=1)


async def by_json(db, **options):
    return lambda: db.json(select(Order).where(Order.id == 1), OrderOut, **options)


async def by_fetch(db, **options):
    return lambda: db.fetch(select(Order).where(Order.id == 1), OrderOut, **options)


WAYS = pytest.mark.parametrize("way", [by_json_read, by_json, by_fetch])


@WAYS
async def test_they_do_and_each_has_its_answer(db, flights, way):
    ask = await way(db)
    alone = [await ask() for _ in range(5)][-1]

    found = await asyncio.gather(*(ask() for _ in range(30)))

    assert sum(flights) >= 25
    assert {getattr(one, "body", one).__repr__() for one in found} == {repr(getattr(alone, "body", alone))}


@WAYS
async def test_they_do_not_where_that_is_written(db, flights, way):
    ask = await way(db, together=False)
    await asyncio.gather(*(ask() for _ in range(30)))

    assert flights == []


async def test_those_that_lock_do_not(db, flights):
    read = db.json_read(ONE.with_for_update(), OrderOut)
    await asyncio.gather(*(read(id=1) for _ in range(30)))

    assert read.fallback is None
    assert flights == []


async def test_a_row_that_is_missing_is_missed_by_who_asked_for_it(db, flights):
    read = db.json_read(ONE, OrderOut)
    for _ in range(5):
        await read(id=1)

    found = await asyncio.gather(*(read(id=n) for n in (1, 999_999) * 15), return_exceptions=True)

    assert [type(one) for one in found[1::2]] == [NotFoundError] * 15
    assert len({one.body for one in found[::2]}) == 1
    assert sum(flights) >= 25
