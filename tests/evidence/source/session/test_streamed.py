"""Sessions that wait for the reader of a stream."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

APP = """
from typing import Annotated
import io
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

factory = async_sessionmaker(create_async_engine("postgresql+asyncpg://localhost/shop"))

async def get_db():
    async with factory() as session:
        yield session

SessionDep = Annotated[AsyncSession, Depends(get_db)]

async def current_user(session: SessionDep):
    return await session.scalar("SELECT 1")

async def find(session: AsyncSession): ...

async def archive() -> io.BytesIO: ...

async def lines():
    yield "1"

app = FastAPI()
"""
WATCH = """
@router.get("/watch")
async def watch():
    return StreamingResponse(lines())
"""
HANDLER = """
@app.get("/watch")
async def watch(session: SessionDep, live: bool = False):
"""


def kept(folder, text):
    return [(each.into, each.key) for each in tree(folder, {"app.py": APP + text}).escapes]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("router = APIRouter(dependencies=[Depends(current_user)])", ""),
        ("router = APIRouter()", "app.include_router(router, dependencies=[Depends(current_user)])"),
    ],
)
def test_a_routers_dependency_keeps_its_session_while_a_stream_is_read(tmp_path, before, after):
    assert kept(tmp_path, f"{before}\n{WATCH}\n{after}\n") == [("kept", "app.py:current_user:kept")]


@pytest.mark.parametrize(
    "body",
    [
        "    await find(session)\n    return StreamingResponse(lines())",
        "    if live:\n        await session.execute('SELECT 1')\n        return StreamingResponse(lines())",
    ],
)
def test_so_does_a_handler_that_asked_before_it_streams(tmp_path, body):
    assert kept(tmp_path, HANDLER + body) == [("kept", "app.py:watch:kept")]


@pytest.mark.parametrize(
    "body",
    [
        "    if live:\n        return StreamingResponse(lines())\n    return await find(session)",
        "    if live:\n        return await find(session)\n    return StreamingResponse(lines())",
        "    await find(session)\n    await session.commit()\n    return StreamingResponse(lines())",
        "    await find(session)\n    return StreamingResponse(io.BytesIO(b''))",
        "    await find(session)\n    body = await archive()\n    return StreamingResponse(body)",
    ],
)
def test_a_session_that_has_no_connection_when_the_stream_begins_keeps_none(tmp_path, body):
    assert kept(tmp_path, HANDLER + body) == []


def test_what_wraps_the_generator_behind_a_stream_may_hold_the_session_too(tmp_path):
    wrapped = """
def within(session: AsyncSession):
    return lambda function: function
"""
    body = """
    @within(session)
    async def body():
        yield "1"
    return StreamingResponse(body())
"""

    assert ("stream", "app.py:watch:stream") in kept(tmp_path / "held", wrapped + HANDLER + body)
    assert kept(tmp_path / "free", wrapped + HANDLER + body.replace("@within(session)", "")) == []
