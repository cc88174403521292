"""Find a request's session in what runs after the request: the body of a stream, a background task.

The session closes before the response leaves. Where the frame of the generator or the arguments of the task show that
they hold it, the error comes here, before the 200 is sent; otherwise it comes at the first use.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.responses import StreamingResponse

from verdigris.errors import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.responses import Response

    from verdigris.session import AsyncSession

_DEPTH = 4  # a generator wrapped in generators: FastAPI wraps once or twice itself


def refuse_escapes(response: Response, sessions: Sequence[AsyncSession], request: str) -> None:
    """Raise SessionClosedError if the response would use one of the sessions after they closed."""
    if isinstance(response, StreamingResponse) and _holds(_in_generator(response.body_iterator, _DEPTH), sessions):
        raise escape(f"the streaming body of {request} holds the request's session, which closes", "body")
    if response.background is not None and _holds(_in_task(response.background), sessions):
        raise escape(f"a background task of {request} holds the request's session, which closes", "task")


def escape(what: str, where: str) -> SessionClosedError:
    """Return the error for what would use a session after it closed, and where to open one instead."""
    return SessionClosedError(
        f"{what} before it runs.",
        why="The request's transaction is committed before the response leaves, so that its failure can be the answer.",
        do=[f"Open a session inside the {where}:   async with db.session() as session: ..."],
        page="fastapi/closed",
    )


def _holds(values: Iterator[Any], sessions: Sequence[AsyncSession]) -> bool:
    return any(value is session for value in values for session in sessions)


def _in_generator(generator: Any, depth: int) -> Iterator[Any]:
    """Give the values that a generator's frame holds: its arguments and what it closes over."""
    frame = getattr(generator, "ag_frame", None) or getattr(generator, "gi_frame", None)
    if frame is None or depth == 0:
        return
    for value in list(frame.f_locals.values()):
        yield value
        if inspect.isasyncgen(value) or inspect.isgenerator(value):
            yield from _in_generator(value, depth - 1)


def _in_task(task: BackgroundTask) -> Iterator[Any]:
    if isinstance(task, BackgroundTasks):
        for one in task.tasks:
            yield from _in_task(one)
        return
    yield from (*task.args, *task.kwargs.values())
    function = task.func
    while isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        function = function.func
    yield getattr(function, "__self__", None)  # a method of the session holds it as well
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
