"""The head of an answer and its body, written to the client at once.

ASGI hands a server the head first and then the body, and uvicorn writes each when it comes: two calls of the system and
two packets, of which the first wakes the client for nothing. An answer that is there as a whole needs one. uvicorn has
no word for that, so its request's transport is stood in for until the body is written. Only uvicorn's own requests are:
behind middleware that wraps `receive`, and on other servers, answers are sent as they always were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

_UVICORNS = "uvicorn.protocols.http."


class OneWrite:
    """A context in which `send` is called for one answer, in one piece; it is the transport that uvicorn writes to.

    What was held is written when the context is left, whatever happened inside.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        cycle: Any = getattr(receive, "__self__", None)
        known = _is_uvicorns(type(cycle)) and scope["method"] != "HEAD"  # behind whose head nothing is written
        self._cycle: Any = cycle if known else None
        self._transport: Any = cycle.transport if known else None
        self._head: bytes | None = None

    def __enter__(self) -> None:
        if self._cycle is not None:
            self._cycle.transport = self

    def __exit__(self, *_: object) -> None:
        if self._cycle is not None:
            self._cycle.transport = self._transport
        if self._head is not None:
            self._transport.write(self._head)

    def write(self, data: bytes) -> None:
        """Hold the head; write it with what comes behind it."""
        if self._head is None:
            self._head = data
            return
        head, self._head = self._head, None
        self._cycle.transport = self._transport
        self._transport.write(head + data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _is_uvicorns(kind: type) -> bool:
    return kind.__name__ == "RequestResponseCycle" and kind.__module__.startswith(_UVICORNS)
