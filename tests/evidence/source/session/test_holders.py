"""Sessions inside repositories: what a task carries, what lives too long, what a loop sends through them."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

HEAD = """
import asyncio
import functools
from typing import Annotated
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from models import Order

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine)
app = FastAPI()

async def get_db():
    async with factory() as session:
        yield session

SessionDep = Annotated[AsyncSession, Depends(get_db)]

class Orders:
    def __init__(self, session: AsyncSession):
        self.session = session

    async def all(self):
        return await self.session.scalars(select(Order))

    async def save(self, order):
        self.session.add(order)
        await self.session.flush()

    def named(self):
        return "orders"

class Shop:
    def __init__(self, session: AsyncSession):
        self.orders = Orders(session)

    async def all(self):
        return await self.orders.all()

class Job:
    def __init__(self):
        self.session = factory()

    async def all(self):
        return await self.session.scalars(select(Order))

def get_orders(session: SessionDep):
    return Orders(session)

async def export(orders):
    await orders.all()

async def name(orders):
    orders.named()

OrdersDep = Annotated[Orders, Depends(get_orders)]

"""


def read(folder, text):
    return tree(folder, {"main.py": HEAD + text})


def in_route(body):
    lines = "\n    ".join(body.splitlines())
    parameters = "tasks: BackgroundTasks, session: SessionDep, orders: OrdersDep, rows: list[dict]"
    return f"@app.post('/orders')\nasync def route({parameters}):\n    {lines}\n"


@pytest.mark.parametrize(
    "body",
    [
        "tasks.add_task(orders.all)",
        "tasks.add_task(export, orders)",
        "tasks.add_task(Orders(session).all)",
        "shop = Shop(session)\ntasks.add_task(shop.all)",
    ],
)
def test_a_background_task_that_works_with_a_repository_takes_its_session_along(body, tmp_path):
    assert [escape.into for escape in read(tmp_path, in_route(body)).escapes] == ["background"]


@pytest.mark.parametrize(
    "body",
    ["tasks.add_task(orders.named)", "tasks.add_task(name, orders)", "tasks.add_task(Job().all)", "orders.all()"],
)
def test_a_background_task_without_a_session_of_the_request_takes_none_along(body, tmp_path):
    assert list(read(tmp_path, in_route(body)).escapes) == []


@pytest.mark.parametrize(
    ("body", "shared"),
    [
        ("await asyncio.gather(orders.all(), orders.all())", "orders.session"),
        (
            "a, b = 1, 2\none = Orders(session)\ntwo = Shop(session)\nawait asyncio.gather(one.all(), two.all())",
            "session",
        ),
        ("one = Job()\nawait asyncio.gather(one.all(), orders.all())", None),
        ("await asyncio.gather(orders.all())", None),
    ],
)
def test_two_repositories_of_one_session_are_one_session(body, shared, tmp_path):
    assert [fan_out.shared for fan_out in read(tmp_path, in_route(body)).fan_outs] == [shared]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("orders = Orders(factory())", "orders.session"),
        ("@functools.lru_cache\ndef session() -> AsyncSession:\n    return factory()", "session()"),
        ("@app.on_event('startup')\nasync def start():\n    app.state.session = factory()", "app.state.session"),
    ],
)
def test_a_session_in_what_lives_as_long_as_the_program_does_too(text, name, tmp_path):
    assert [kept.name for kept in read(tmp_path, text + "\n").global_sessions] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "async def middleware(request: Request):\n    request.state.session = factory()",
        "def make(session: AsyncSession):\n    return Orders(session)",
        "@functools.lru_cache\ndef made():\n    return factory",
    ],
)
def test_what_ends_with_its_request_does_not_live_as_long_as_the_program(text, tmp_path):
    assert list(read(tmp_path, text + "\n").global_sessions) == []


@pytest.mark.parametrize(
    ("body", "row_wise"),
    [
        ("for row in rows:\n    await orders.save(Order(**row))", True),
        (
            "for row in rows:\n    try:\n        await orders.save(Order(**row))\n    except ValueError:\n        pass",
            False,
        ),
        ("await orders.save(Order())", False),
    ],
)
def test_a_loop_that_saves_each_row_through_a_repository_sends_them_one_by_one(body, row_wise, tmp_path):
    writers = read(tmp_path, in_route(body)).writers

    assert any(writer.row_wise is not None for writer in writers) is row_wise
