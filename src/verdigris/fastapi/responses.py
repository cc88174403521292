"""Classes of responses that an application has written itself: they are given what PostgreSQL wrote as their content.

FastAPI gives the class of a route, else of its router or the application (`default_response_class`), what the response
model made; the class says what is sent: another media type, an envelope, headers.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fastapi.datastructures import DefaultPlaceholder
from starlette.responses import JSONResponse

from verdigris.loading.json.response import TaggedAnswer

if TYPE_CHECKING:
    from starlette.responses import Response

#: The class of one's own by which the request in progress is answered.
OWN_CLASS: ContextVar[type[Response] | None] = ContextVar("verdigris_own_class", default=None)
_SAYS = ("render", "__init__", "init_headers", "__call__")
_THEIRS = ("starlette.", "fastapi.")


def own_class(response_class: Any) -> type[Response] | None:
    """Return a class of responses that writes otherwise than FastAPI's; None for those that only write JSON."""
    if response_class is None or isinstance(response_class, DefaultPlaceholder):
        return None
    plain = all(getattr(response_class, name).__module__.startswith(_THEIRS) for name in _SAYS)
    found: type[Response] = response_class
    return None if plain and response_class.media_type == JSONResponse.media_type else found


def writes_json(response_class: Any) -> bool:
    """Tell whether a class of responses takes what a response model says."""
    own = own_class(response_class)
    return own is None or issubclass(own, JSONResponse)


def rewritten(response: Response, own: type[Response], status: int | None, *, etag: bool) -> Response:
    """Return an answer as a class of the application's own makes it."""
    content = json.loads(bytes(response.body))
    made = own(content) if status is None else own(content, status_code=status)
    return TaggedAnswer(bytes(made.body), made.status_code, dict(made.headers)) if etag else made
