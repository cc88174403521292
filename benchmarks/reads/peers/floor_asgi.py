"""floor: bare ASGI, a constant"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reads.constants import constants

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def app(url: str) -> ASGIApp:
    answers: dict[str, bytes] = {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            answers.update(await constants(url))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/nested":
            body = answers["nested100" if scope["query_string"].endswith(b"=100") else "nested20"]
        else:
            body = answers["page" if scope["path"] == "/orders" else "row"]
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application
