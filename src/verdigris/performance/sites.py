"""Who asked: the application's own line, and the route that is being answered."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent  # type: ignore[import-untyped]  # greenlet ships no types

from verdigris._places import Place, is_application, request_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

#: The ASGI scope of the request that is being answered; whoever serves requests sets it.
REQUEST: ContextVar[Mapping[str, Any] | None] = ContextVar("verdigris_request", default=None)

#: Where the application says what is asked, where no line of its own is among the callers.
PLACE: ContextVar[Place | None] = ContextVar("verdigris_place", default=None)

_application: dict[str, bool] = {}
_place = tuple.__new__  # a third of what the class itself takes, in each query


def calling_place() -> Place | None:
    """Return the innermost place of the application among the callers.

    SQLAlchemy runs its synchronous half in a greenlet, whose frames end where it began: the search goes on in the
    frame of the greenlet's parent, where the coroutines are.
    """
    given = PLACE.get()
    if given is not None:
        return given
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way without building a traceback
    here: Any = getcurrent()
    while True:
        while frame is not None:
            name = frame.f_code.co_filename
            ours = _application.get(name)
            if ours is None:
                ours = _application.setdefault(name, is_application(name))
            if ours:
                return _place(Place, (frame.f_code, frame.f_lasti))
            frame = frame.f_back
        here = here.parent
        if here is None:
            return None
        frame = here.gr_frame


def current_route() -> str | None:
    """Return the route that is being answered, as `GET /orders/{id}`; None outside of a request."""
    scope = REQUEST.get()
    return request_name(scope) if scope is not None else None
