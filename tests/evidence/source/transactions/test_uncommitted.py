"""Routes whose writes nobody commits, where others commit theirs; and all that may commit out of sight."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

HEAD = """
import functools
from typing import Annotated
from fastapi import Depends, FastAPI
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from models import Order

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine)
app = FastAPI()

async def get_db():
    async with factory() as session:
        yield session

SessionDep = Annotated[AsyncSession, Depends(get_db)]

@app.post("/orders")
async def create(session: SessionDep):
    session.add(Order())
    await session.commit()
"""


def lost(folder, text):
    return [each.key for each in tree(folder, {"main.py": HEAD + text}).uncommitted.every]


@pytest.mark.parametrize(
    "body",
    [
        "session.add(Order(id=id))",
        "await session.execute(delete(Order).where(Order.id == id))",
        "await store(session, id)",
        "await Orders(session).store(id)",
    ],
)
def test_a_route_whose_way_holds_a_write_and_no_commit_loses_it(body, tmp_path):
    text = f"""
async def store(session: AsyncSession, id: int):
    session.add(Order(id=id))
    await session.flush()

class Orders:
    def __init__(self, session: AsyncSession):
        self.session = session

    async def store(self, id: int):
        self.session.add(Order(id=id))

@app.put("/orders/{{id}}")
async def replace(id: int, session: SessionDep):
    {body}
"""

    assert lost(tmp_path, text) == ["PUT /orders/{id}"]


@pytest.mark.parametrize(
    "body",
    [
        "session.add(Order())\n    await session.commit()",
        "async with session.begin():\n        session.add(Order())",
        "session.add(Order())\n    await finish(session)",
        "session.add(Order())\n    await unknown.finish(session)",
        "session.add(Order())\n    await session.run_sync(finish)",
        "async with unit(session):\n        session.add(Order())",
        "session.add(Order())\n    await session.flush()\n    await session.rollback()",
        "await select(Order)",
    ],
)
def test_what_may_end_the_transaction_out_of_sight_loses_nothing(body, tmp_path):
    text = f"""
from elsewhere import unknown, unit

class Unit:
    async def __aexit__(self, *error):
        await self.session.commit()

async def finish(session):
    await last(session)

async def last(session):
    await session.commit()

@app.put("/orders/{{id}}")
async def replace(id: int, session: SessionDep):
    {body}
"""

    assert lost(tmp_path, text) == []


@pytest.mark.parametrize(
    "around",
    [
        '@app.middleware("http")\nasync def finish(request, call_next):\n    await request.state.session.commit()',
        "class Finish:\n    async def __call__(self, scope, receive, send):\n        await scope['session'].commit()",
        "async def finish(session: SessionDep):\n    yield\n    await session.commit()\n\nFinish = Depends(finish)",
        'autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")',
    ],
)
def test_what_commits_around_every_route_loses_nothing(around, tmp_path):
    text = f"""
{around}

@app.put("/orders")
async def replace(session: SessionDep):
    session.add(Order())
"""

    assert lost(tmp_path, text) == []
