"""Whole answers, written as uvicorn writes them, without asking it anew for each what it has been asked before.

uvicorn's `send` takes any answer, in any pieces: each time it looks through the names and values of all headers, which
is a tenth of what a read of one row costs the application. Here an answer begins as uvicorn itself began the last one
like it, with another length. Only requests on httptools are answered so, behind nothing but Starlette's handler of
errors, and only if uvicorn, given a request that nobody made, leaves it as it is left here. All others are answered as
ever: behind middleware that looks at answers, with an access log, at the end of a connection.
"""

from __future__ import annotations

import asyncio
import sys
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.middleware.errors import ServerErrorMiddleware

from verdigris import _one_write
from verdigris._one_write import OneWrite

if TYPE_CHECKING:
    from starlette.types import Receive, Send

_HTTPTOOLS = "uvicorn.protocols.http.httptools_impl"
_LENGTH = b"content-length: %d\r\n"


class _Head(NamedTuple):
    """How uvicorn began an answer. The date is among its default headers, so that this is good for a second."""

    default_headers: list[tuple[bytes, bytes]]
    before: bytes  # the length, and behind it
    behind: bytes


_heads: dict[int, _Head] = {}  # of the last answers, by status
_known: dict[type, Any] = {}  # classes of requests, with the `send` of those that may be answered here


async def send_json(receive: Receive, send: Send, body: bytes, status: int) -> None:
    """Send a JSON document that is written already."""
    cycle = _asked_directly(receive, send)
    if cycle is None:
        with OneWrite(receive):
            await _tell(send, body, status)
        return
    head = _heads.get(status)
    if head is not None and _answer(cycle, head, body):
        _note(send)
        return
    with OneWrite(receive) as written:
        await _tell(send, body, status)
    head = _begun(cycle, written.head, len(body))
    if head is not None:
        _heads[status] = head


async def _tell(send: Send, body: bytes, status: int) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _begun(cycle: Any, written: bytes | None, length: int) -> _Head | None:
    before, found, behind = (written or b"").partition(_LENGTH % length)
    return _Head(cycle.default_headers, before, behind) if found and cycle.keep_alive else None


def _answer(cycle: Any, head: _Head, body: bytes) -> bool:
    """Answer, and leave a request as uvicorn does; False, with nothing done, for an answer that begins otherwise."""
    if (
        cycle.default_headers is not head.default_headers
        or cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.access_log
        or cycle.waiting_for_100_continue
        or cycle.flow.write_paused
        or cycle.scope["method"] != "GET"
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.chunked_encoding = False
    _one_write.write(cycle, cycle.transport, b"%b%b%b%b" % (head.before, _LENGTH % len(body), head.behind, body))
    cycle.message_event.set()
    cycle.on_response()
    return True


def _asked_directly(receive: Receive, send: Send) -> Any:
    """Return uvicorn's request that `send` answers, if nobody between has a say in it; None if that is not known."""
    cycle: Any = getattr(receive, "__self__", None)
    kind = type(cycle)
    sends = _known[kind] if kind in _known else _known.setdefault(kind, _sends(kind))
    if sends is None:
        return None
    asked: Any = send
    if getattr(asked, "__code__", None) is _NOTES:
        asked = asked.__closure__[_SEND].cell_contents
    return cycle if getattr(asked, "__self__", None) is cycle and asked.__func__ is sends else None


def _note(send: Any) -> None:
    """Let Starlette's handler of errors know that the answer has begun."""
    if getattr(send, "__code__", None) is _NOTES:
        send.__closure__[_STARTED].cell_contents = True


def _noting() -> Any:
    """Return the code by which Starlette's handler of errors notes that, and does nothing else; no code if unknown."""
    code = getattr(ServerErrorMiddleware.__call__, "__code__", None)
    for inner in getattr(code, "co_consts", ()):
        if isinstance(inner, CodeType) and inner.co_freevars == ("response_started", "send") and not inner.co_names:
            return inner
    return object()


_NOTES = _noting()
_STARTED, _SEND = range(2)  # its variables


def _sends(kind: Any) -> Any:
    """Return the `send` of uvicorn's own class, if it leaves a request as `_answer` does; else None."""
    module: Any = sys.modules.get(_HTTPTOOLS)
    uvicorns: Any = getattr(module, "RequestResponseCycle", None)
    if kind is not uvicorns or kind.send.__globals__ is not vars(module):
        return None
    try:
        theirs, ours = _Trial(kind), _Trial(kind)
        _run(_tell(theirs.cycle.send, b"null", 200))
        head = _begun(ours.cycle, theirs.written[0], len(b"null"))
        same = head is not None and _answer(ours.cycle, head, b"null") and ours.state() == theirs.state()
    except Exception:  # noqa: BLE001 - another version, in which names are others
        return None
    return kind.send if same else None


class _Trial:
    """A request that nobody made, and what is written to nobody."""

    def __init__(self, kind: Any) -> None:
        self.written: list[bytes] = []
        self.answered = 0
        self.cycle = kind(
            scope={"method": "GET"},
            transport=SimpleNamespace(write=self.written.append, is_closing=lambda: False),
            flow=SimpleNamespace(write_paused=False),
            logger=None,
            access_logger=None,
            access_log=False,
            default_headers=[(b"server", b"uvicorn")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self._count,
        )

    def _count(self) -> None:
        self.answered += 1

    def state(self) -> dict[str, Any]:
        """Return what became of it."""
        own = {"transport", "flow", "message_event", "on_response"}
        state = {name: value for name, value in vars(self.cycle).items() if name not in own}
        told = self.cycle.message_event.is_set(), self.answered
        return {**state, "written": b"".join(self.written), "told": told}


def _run(coroutine: Any) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError
