"""The response: bytes as PostgreSQL wrote them, and 304 for a client that has them already."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from starlette.responses import Response

from verdigris._one_write import OneWrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

_PLAIN = 200
_IF_NONE_MATCH = b"if-none-match"
_OF_BODY = frozenset({b"content-length", b"content-type"})


class JSONAnswer(Response):
    """A JSON document that is written already."""

    media_type = "application/json"

    def __init__(self, content: bytes, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        if headers is not None or status_code != _PLAIN:
            super().__init__(content, status_code, headers)
            return
        self.status_code, self.background, self.body = status_code, None, content  # what that would come to, as it is
        length = str(len(content)).encode("ascii")
        self.raw_headers = [(b"content-length", length), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with OneWrite(receive):
            await super().__call__(scope, receive, send)


class TaggedAnswer(JSONAnswer):
    """A JSON document with an ETag: 304 and no body where the client's `If-None-Match` names it.

    The tag is weak: whoever compresses the body on its way does not change what it says.
    """

    def __init__(self, content: bytes, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        tag = f'W/"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'
        super().__init__(content, status_code, {**(headers or {}), "ETag": tag})
        self._tag = tag

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.status_code == _PLAIN and scope.get("method") in {"GET", "HEAD"} and self._is_known(scope):
            known = Response(None, 304)
            known.raw_headers += [header for header in self.raw_headers if header[0] not in _OF_BODY]
            await known(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        for name, value in scope.get("headers", ()):
            if name == _IF_NONE_MATCH:
                tags = [tag.strip().removeprefix("W/") for tag in value.decode("latin-1").split(",")]
                return "*" in tags or self._tag.removeprefix("W/") in tags
        return False
