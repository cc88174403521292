"""The handlers that every peer serves, each given the request's session: what application code does with one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    Handler = Callable[[AsyncSession], Awaitable[Any]]

STORED = {"stored": True}
ADD = text("UPDATE account SET balance = balance + 1 WHERE id = 1")
HANDLERS: dict[str, Handler] = {}
_meeting: list[asyncio.Barrier] = []


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


@handler
async def add(session: AsyncSession) -> Any:
    await session.execute(ADD)
    return STORED


@handler
async def deferred(session: AsyncSession) -> Any:
    await session.execute(text("INSERT INTO entry VALUES (99)"))  # refers to no account: told at COMMIT
    return STORED


@handler
async def returned(session: AsyncSession) -> Any:
    await session.execute(ADD)
    return JSONResponse({"error": "not enough money"}, 409)


@handler
async def raised(session: AsyncSession) -> Any:
    await session.execute(ADD)
    raise HTTPException(409)


@handler
async def swallowed(session: AsyncSession) -> Any:
    await session.execute(ADD)
    with contextlib.suppress(SQLAlchemyError):
        await session.execute(text("SELECT 1 / 0"))
    return STORED


@handler
async def duplicate(session: AsyncSession) -> Any:
    await session.execute(text("INSERT INTO account VALUES (1, 0)"))
    return STORED


@handler
async def nul(session: AsyncSession) -> Any:
    await session.execute(text("SELECT CAST(:name AS text)"), {"name": "a\0b"})
    return STORED


async def _stored_but_once(session: AsyncSession, event: str) -> Any:
    """Write; the first time, let something happen before the answer."""
    await session.execute(ADD)
    if await _once(session):
        await session.execute(text(event))
    return STORED


@handler
async def killed(session: AsyncSession) -> Any:
    return await _stored_but_once(session, "SELECT pg_terminate_backend(pg_backend_pid())")


@handler
async def slow(session: AsyncSession) -> Any:
    return await _stored_but_once(session, "SELECT pg_sleep(1)")


@handler
async def endless(session: AsyncSession) -> Any:
    await session.execute(ADD)
    await session.execute(text("SET LOCAL statement_timeout = '300ms'"))
    await session.execute(text("SELECT pg_sleep(30)"))
    return STORED


@handler
async def long(session: AsyncSession) -> Any:
    await session.execute(text("SELECT pg_sleep(1.5)"))
    await asyncio.sleep(6)
    return STORED


@handler
async def star(session: AsyncSession) -> Any:
    await session.execute(text("SELECT * FROM account"))
    return await add(session)


@handler
async def deadlock(session: AsyncSession) -> Any:
    """Meet another request half way, each holding what the other wants."""
    if not _meeting or _meeting[0].broken:
        _meeting[:] = [asyncio.Barrier(2)]
    mine = 1 if await _once(session) else 2
    for account in (mine, 3 - mine):
        await session.execute(text("UPDATE account SET balance = balance + 1 WHERE id = :id"), {"id": account})
        with contextlib.suppress(TimeoutError, asyncio.BrokenBarrierError):
            async with asyncio.timeout(0.5):
                await _meeting[0].wait()
    return STORED


@handler
async def serializable(session: AsyncSession) -> Any:
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    balance = (await session.execute(text("SELECT balance FROM account WHERE id = 1"))).scalar_one()
    await asyncio.sleep(0.2)
    await session.execute(text("UPDATE account SET balance = :new WHERE id = 1"), {"new": balance + 1})
    return STORED


@handler
async def shared(session: AsyncSession) -> Any:
    """Let two tasks work in one session."""
    statement = text("SELECT pg_sleep(0.05)")
    await session.execute(ADD)
    await asyncio.gather(session.execute(statement), session.execute(statement))
    return STORED


@handler
async def streamed(session: AsyncSession) -> Any:
    async def body() -> AsyncIterator[str]:
        for _ in range(50):
            await session.execute(ADD)
            yield "line\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(body())


@handler
async def stormed(session: AsyncSession) -> Any:
    """Leave a statement to a stream that its client will hang up on: it is cancelled again at every await."""

    async def body() -> AsyncIterator[str]:
        yield "line\n"
        await session.execute(text("SELECT pg_sleep(1.7), 'stormed'"))
        yield "line\n"

    return StreamingResponse(body())


@handler
async def background(session: AsyncSession) -> Any:
    return JSONResponse(STORED, background=BackgroundTask(session.execute, ADD))


@handler
async def left(session: AsyncSession) -> Any:
    await session.execute(text("SET search_path = nowhere"))
    return STORED


async def _once(session: AsyncSession) -> bool:
    """Say yes the first time only, whatever becomes of the transaction: a sequence does not roll back."""
    return (await session.execute(text("SELECT nextval('tries')"))).scalar_one() == 1
