"""The head of an answer and its body, written to the client at once; the answers of one moment, one behind the other.

ASGI hands a server the head first and then the body, and uvicorn writes each when it comes: two calls of the system and
two packets, of which the first wakes the client for nothing. An answer that is there as a whole needs one. uvicorn has
no word for that, so its request's transport is stood in for until the body is written. Only uvicorn's own requests are:
behind middleware that wraps `receive`, and on other servers, answers are sent as they always were.

Where one round trip to the database serves many requests, each of their tasks runs in turn before the next one writes,
and the client, which may be one process, a proxy, falls asleep between two answers: waking it again costs more than
the answer. `answer_together` lets the tasks run first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from starlette.types import Receive

_UVICORNS = "uvicorn.protocols.http."


class OneWrite:
    """A context in which `send` is called for one answer, in one piece; it is the transport that uvicorn writes to.

    What was held is written when the context is left, whatever happened inside, unless the client has gone.
    """

    def __init__(self, receive: Receive) -> None:
        cycle: Any = getattr(receive, "__self__", None)
        self._cycle: Any = cycle if _is_uvicorns(type(cycle)) and _answers_at_once(cycle) else None
        self._transport: Any = None if self._cycle is None else cycle.transport
        self._head: bytes | None = None
        self.head: bytes | None = None  # as it was written

    def __enter__(self) -> Self:
        if self._cycle is not None:
            self._cycle.transport = self
        return self

    def __exit__(self, *_: object) -> None:
        if self._cycle is not None:
            self._cycle.transport = self._transport
            self._let_go()

    def write(self, data: bytes) -> None:
        """Hold the head; write it with what comes behind it."""
        if self._head is None:
            self._head = data
            return
        head, self._head = self._head, None
        self._cycle.transport = self._transport
        self.head = head
        write(self._cycle, self._transport, head + data)

    def close(self) -> None:
        """Close the transport behind what was held."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            _write(self._transport, head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


#: The answers of the event loops that hold some now, with their transports.
_held: dict[asyncio.AbstractEventLoop, list[tuple[Any, bytes]]] = {}


def answer_together(answered: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    """Give futures of the running loop their results; let the answers of the tasks that wait for them leave together.

    Between the first answer and the last nothing else runs in the loop: no server shuts down, and nobody closes the
    transport of an answer that is held.
    """
    loop = asyncio.get_running_loop()
    holds = loop.get_task_factory() is None  # an eager one would answer, before these, what a client has sent ahead
    if holds:
        loop.call_soon(_hold, loop)
    for future, result in answered:
        if not future.done():
            future.set_result(result)  # which calls its task between the two
    if holds:
        loop.call_soon(_write_held, loop)


def write(cycle: Any, transport: Any, data: bytes) -> None:
    """Write the whole answer to a request of uvicorn's, now or with others."""
    held = _held.get(asyncio.get_running_loop()) if _held and _goes_on(cycle) else None
    if held is None:
        _write(transport, data)
    else:
        held.append((transport, data))


def _hold(loop: asyncio.AbstractEventLoop) -> None:
    _held[loop] = []


def _write_held(loop: asyncio.AbstractEventLoop) -> None:
    for transport, answer in _held.pop(loop):
        _write(transport, answer)


def _write(transport: Any, data: bytes) -> None:
    if not transport.is_closing():  # uvloop's raises; uvicorn asks only for the first of what a client has sent ahead
        transport.write(data)


def _answers_at_once(cycle: Any) -> bool:
    """Tell whether a body is written behind the head, and nothing before it; not known of other versions' requests."""
    if not (hasattr(cycle, "transport") and hasattr(cycle, "keep_alive") and hasattr(cycle, "scope")):
        return False
    return cycle.scope["method"] != "HEAD" and not getattr(cycle, "waiting_for_100_continue", True)


def _goes_on(cycle: Any) -> bool:
    """Tell whether the transport is left alone behind an answer: h11 may close it, or refuse what was sent ahead."""
    return cycle.keep_alive and type(cycle).__module__.endswith(".httptools_impl")


def _is_uvicorns(kind: type) -> bool:
    return kind.__name__ == "RequestResponseCycle" and kind.__module__.startswith(_UVICORNS)
