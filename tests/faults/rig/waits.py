"""Waits that end, and the reason why a fault cannot be made on this machine."""

import asyncio


class NotHere(Exception):  # noqa: N818 - a reason to skip, not an error
    """This machine cannot make the fault; the message names what is missing."""


async def within(seconds, awaitable):
    """Await what must end by itself: a TimeoutError comes after so many seconds even where it cannot be cancelled."""
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError(f"still running after {seconds} s: {awaitable!r}")
    return task.result()


async def eventually(check, *, seconds=10.0):
    """Ask until the answer is true, and return it; an answer that stays false fails with the last one."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {seconds} s: {check}")
        await asyncio.sleep(0.02)
