"""Asynchronous work from synchronous fixtures, so that they serve pytest-asyncio, anyio and plain tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
_PATIENCE = 10.0


def apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread with an event loop of its own, whatever loop the caller has or has not."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="verdigris-testing")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def finish(loop: asyncio.AbstractEventLoop | None, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run closing work in the loop that the connections live in; False where that loop is gone."""
    if loop is None:
        return True  # nothing was ever opened
    if loop.is_closed():
        return False
    if loop.is_running():  # in another thread, as TestClient's
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(work(), loop).result(_PATIENCE)
    else:
        loop.run_until_complete(work())
    return True
