"""A request leaves nothing behind that only the garbage collector could free, which goes through the whole heap."""

import gc

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database
from verdigris.fastapi import ReadRouter, install


class Pebble(Base):
    __tablename__ = "garbage_pebbles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class PebbleOut(BaseModel):
    id: int
    name: str


@pytest.fixture
async def app(database_url):
    db = Database(database_url)
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Pebble.__table__])
    async with db.session.begin() as session:
        session.add(Pebble(id=1, name="grey"))
    app = FastAPI()
    install(app, db)

    @app.get("/session/{id}", response_model=PebbleOut)
    async def by_session(id: int, session=Depends(db.request_session)):  # noqa: A002 - as in a path
        return (await session.scalars(select(Pebble).where(Pebble.id == id))).one()

    @app.get("/unused")
    async def unused(session=Depends(db.request_session)):
        return {}

    @app.get("/read/{id}", response_model=PebbleOut)
    async def by_read(id: int):  # noqa: A002 - as above
        async with db.read() as session:
            return await session.get(Pebble, id)

    @app.get("/json/{id}", response_model=PebbleOut)
    async def by_json(id: int):  # noqa: A002 - as above
        return await db.json(select(Pebble).where(Pebble.id == id), PebbleOut)

    reads = ReadRouter(db)

    @reads.get("/route/{id}", response_model=PebbleOut)
    def by_route(id: int):  # noqa: A002 - as above
        return select(Pebble).where(Pebble.id == id)

    app.include_router(reads)
    yield app
    await db.dispose()


async def ask(app, path):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize("path", ["/session/1", "/unused", "/read/1", "/json/1", "/route/1"])
async def test_a_request_leaves_no_garbage_of_ours(app, path):
    for _ in range(5):
        assert await ask(app, path) == 200
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await ask(app, path)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = {f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert {name for name in left if name.startswith(("verdigris", "sqlalchemy", "asyncpg"))} == set()
