"""What a request's session costs a route that does not use it, and what of that is FastAPI's own.

    python benchmarks/bench_dependency.py [ROUNDS]

Requests are made in process, straight to the application: no server, no socket, no database is ever reached. Every
variant has its batch in each round, each round beginning with another; printed are medians over the rounds of this
process's CPU for a request, and of each round's difference to the route with a plain dependency. The variants:

- no dependency: an endpoint that returns a constant
- plain: one dependency, `async def` without `yield`
- generator: one that yields, with `scope="function"`: what FastAPI asks for every dependency that ends something
- request_session: `Depends(db.request_session, scope="function")`, unused
- recipe: the usual generator: a session, `yield`, `commit()`, unused
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI resolves the annotation at run time

from asgi import scope
from verdigris import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUESTS = 300
NOWHERE = "postgresql+asyncpg://nobody:nothing@127.0.0.1:1/nowhere"
SCOPE = scope()

db = Database(NOWHERE)
sessions = async_sessionmaker(create_async_engine(NOWHERE), expire_on_commit=False)


async def plain(connection: HTTPConnection) -> object:
    return connection


async def generator(connection: HTTPConnection) -> AsyncIterator[object]:
    yield connection


async def recipe() -> AsyncIterator[object]:
    async with sessions() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


def application(depends: Any = None) -> FastAPI:
    app = FastAPI()
    if depends is None:

        @app.get("/")
        async def constant() -> dict[str, int]:
            return {"a": 1}
    else:

        @app.get("/")
        async def dependent(_: object = depends) -> dict[str, int]:
            return {"a": 1}

    return app


def variants() -> dict[str, FastAPI]:
    return {
        "no dependency": application(),
        "plain": application(Depends(plain)),
        "generator": application(Depends(generator, scope="function")),
        "request_session": application(Depends(db.request_session, scope="function")),
        "recipe": application(Depends(recipe)),
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    if message.get("status", 200) != 200:
        raise SystemExit(f"answered {message['status']}")


async def batch(app: FastAPI) -> float:
    """Return the CPU that a request took, in microseconds."""
    began = time.process_time()
    for _ in range(REQUESTS):
        await app(dict(SCOPE), receive, send)
    return (time.process_time() - began) / REQUESTS * 1e6


async def run(rounds: int) -> None:
    apps = variants()
    names = list(apps)
    for name in names:
        await batch(apps[name])
    taken: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()  # its pauses fall where they please
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(await batch(apps[name]))
        gc.collect()
    print(f"CPU of one request, median of {rounds} rounds of {REQUESTS}")
    for name, times in taken.items():
        more = statistics.median(each - base for each, base in zip(times, taken["plain"], strict=True))
        print(f"  {name:16} {statistics.median(times):7.1f} µs  {more:+7.1f} µs to plain")


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
