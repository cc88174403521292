"""The head of an answer and its body, written to the client at once.

ASGI hands a server the head first and then the body, and uvicorn writes each when it comes: two calls of the system and
two packets, of which the first wakes the client for nothing. An answer that is there as a whole needs one. uvicorn has
no word for that, so its request's transport is stood in for until the body is written. Only uvicorn's own requests are:
behind middleware that wraps `receive`, and on other servers, answers are sent as they always were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    def __enter__(self) -> None:
        if self._cycle is not None:
            self._cycle.transport = self

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
        self._transport.write(head + data)

    def close(self) -> None:
        """Close the transport behind what was held."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _answers_at_once(cycle: Any) -> bool:
    """Tell whether a body is written behind the head, and nothing before it."""
    return cycle.scope["method"] != "HEAD" and not getattr(cycle, "waiting_for_100_continue", True)


def _is_uvicorns(kind: type) -> bool:
    return kind.__name__ == "RequestResponseCycle" and kind.__module__.startswith(_UVICORNS)
