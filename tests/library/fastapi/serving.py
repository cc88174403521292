"""A server of lamps: uvicorn, what it writes to its clients, and clients that ask it."""

import asyncio
import contextlib
import re
import socket
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database
from verdigris.fastapi import ReadRouter, install
from verdigris.loading.json.response import JSONAnswer


class Lamp(Base):
    __tablename__ = "lamps"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class LampOut(BaseModel):
    id: int
    name: str


class Telling:
    """A transport that keeps what is written, write by write."""

    def __init__(self, transport, written):
        self.transport, self.written = transport, written

    def write(self, data):
        self.written.append(bytes(data))
        self.transport.write(data)

    def __getattr__(self, name):
        return getattr(self.transport, name)


@asynccontextmanager
async def serving(app, protocol, **options):
    """Serve an application; gives its port and what is written to all of its clients."""
    written = []

    class Told(protocol):
        def connection_made(self, transport):
            super().connection_made(Telling(transport, written))

    options = {"log_level": "warning", "access_log": False, **options}
    server = uvicorn.Server(uvicorn.Config(app, http=Told, lifespan="on", **options))
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname()[1], written
    finally:
        server.should_exit = True
        await task


async def talk(port, *requests, accept="*"):
    """Send requests at once, on one connection, and return all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    *first, last = [f"{request} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\n" for request in requests]
    writer.write("\r\n".join([*first, f"{last}Connection: close\r\n\r\n"]).encode())
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def keep_asking(port, path, times):
    """Ask again and again on one connection; return the bodies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    bodies = []
    for _ in range(times):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        bodies.append(await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1])))
    writer.close()
    return bodies


async def lamps(database_url):
    """Return an application that answers with lamps."""
    db = Database(database_url)
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Lamp.__table__])
    async with db.session.begin() as session:
        session.add_all([Lamp(id=n, name=f"lamp {n}") for n in range(1, 4)])
    app = FastAPI()
    install(app, db)
    reads = ReadRouter(db)

    @reads.get("/fast/{id_}", response_model=LampOut)
    def fast(id_: int):
        return select(Lamp).where(Lamp.id == id_)

    @app.api_route("/slow", methods=["GET", "HEAD"], response_model=list[LampOut])
    async def slow():
        return await db.json(select(Lamp).order_by(Lamp.id), list[LampOut])

    @app.get("/empty")
    async def empty():
        return JSONAnswer(b"")

    app.include_router(reads)
    return app
