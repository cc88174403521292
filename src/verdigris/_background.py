"""Tasks that outlive the call which started them, kept until they end and waited for when the database is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()  # a task that nobody holds may be collected before it ran


def background(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run a coroutine in a task that is kept until it has ended, and that `finished` waits for."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def running() -> set[asyncio.Task[Any]]:
    """Return the tasks of this event loop that `background` started and that have not ended, without the caller's."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    return {task for task in _running.copy() if task.get_loop() is loop and task is not me}


def in_background() -> bool:
    """Tell whether the caller is such a task."""
    return asyncio.current_task() in _running


async def finished(seconds: float) -> None:
    """Wait for these tasks; those that take longer are cancelled, once."""
    tasks = running()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
