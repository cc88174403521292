"""Three ways to cancel what is awaited, each at the moment when something is ready, and not after some time."""

import asyncio
import contextlib

import anyio
import pytest


async def once(awaitable, ready):
    task = asyncio.ensure_future(awaitable)
    await ready()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def timeout(awaitable, ready):
    async def over():
        await ready()
        limit.reschedule(0)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            soon = asyncio.create_task(over())
            await awaitable
    await soon
    assert limit.expired()


async def storm(awaitable, ready):
    """As a task group of anyio cancels: again at every await, until the scope is left."""

    async def over():
        await ready()
        scope.cancel()

    with anyio.CancelScope() as scope:
        soon = asyncio.create_task(over())
        await awaitable
    await soon
    assert scope.cancelled_caught
