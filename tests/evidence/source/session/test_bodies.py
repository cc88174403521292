"""Streaming responses that are not made where their session is: a called function, a method, a class."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

APP = """
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sse_starlette.sse import EventSourceResponse
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

factory = async_sessionmaker(create_async_engine("postgresql+asyncpg://localhost/shop"))
app = FastAPI()

async def get_db():
    async with factory() as session:
        yield session

SessionDep = Annotated[AsyncSession, Depends(get_db)]

async def lines(session):
    for row in await session.execute("SELECT 1"):
        yield row

async def own():
    async with factory() as session:
        yield await session.scalar("SELECT 1")

async def numbered(body):
    async for line in body:
        yield line

class Sse(StreamingResponse):
    def __init__(self, body):
        super().__init__(body, media_type="text/event-stream")

class Export:
    def __init__(self, session: AsyncSession):
        self.session = session
    async def held(self):
        yield await self.session.scalar("SELECT 1")
    async def closed(self):
        try:
            yield await self.session.scalar("SELECT 1")
        finally:
            await self.session.close()
    async def own(self):
        async with factory() as session:
            yield await session.scalar("SELECT 1")
    def rows(self):
        return self.held()
    def answer(self):
        return EventSourceResponse(self.held())

def streamed(session): return StreamingResponse(lines(session))

async def sent(body): return EventSourceResponse(content=body)

def read():
    return StreamingResponse(own())

async def asked(session: AsyncSession):
    await session.execute("SELECT 1")
    return read()

async def committed(session: AsyncSession):
    await session.execute("SELECT 1")
    await session.commit()
    return read()

@app.get("/watch")
async def watch(session: SessionDep, live: bool = False):
"""


def found(folder, body):
    text = APP + "".join(f"    {line}\n" for line in body.splitlines())
    return [(each.into, each.session, each.place.line) for each in tree(folder, {"app.py": text}).escapes]


LINE = APP.count("\n")
ANSWER = APP[: APP.index("EventSourceResponse(self.held")].count("\n")


@pytest.mark.parametrize(
    ("body", "name", "line"),
    [
        ("return streamed(session)", "session", LINE),
        ("return await sent(lines(session))", "session", LINE),
        ("body = lines(session)\nreturn await sent(body)", "session", LINE + 1),
        ("return StreamingResponse(numbered(lines(session)))", "session", LINE),
        ("return Sse(lines(session))", "session", LINE),
        ("export = Export(session)\nreturn StreamingResponse(export.rows())", "export.session", LINE + 1),
    ],
)
def test_the_body_of_a_stream_is_followed_to_the_session_that_goes_into_it(tmp_path, body, name, line):
    assert ("stream", name, line) in found(tmp_path, body)


def test_a_method_that_makes_the_stream_of_its_own_session_is_the_place(tmp_path):
    assert ("stream", "self.session", ANSWER) in found(tmp_path, "return Export(session).answer()")


@pytest.mark.parametrize(
    "body",
    [
        "return read()",
        "return await sent(own())",
        "return Sse(own())",
        "return StreamingResponse(Export(session).own())",
        "return StreamingResponse(Export(factory()).closed())",
        "rows = [each async for each in lines(session)]\nreturn StreamingResponse(iter(rows))",
    ],
)
def test_a_body_that_works_with_none_or_with_one_of_its_own_is_none(tmp_path, body):
    assert [each for each in found(tmp_path, body) if each[2] >= LINE] == []


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("await session.execute('SELECT 1')\nreturn read()", True),
        ("return await asked(session)", True),
        ("return await committed(session)", False),
        ("if live:\n    return read()\nreturn await session.scalar('SELECT 1')", False),
        ("read()\nreturn await session.scalar('SELECT 1')", False),
    ],
)
def test_a_session_waits_for_the_reader_of_a_stream_that_a_called_function_makes(tmp_path, body, kept):
    assert any(each[0] == "kept" for each in found(tmp_path, body)) is kept
