"""A request as a server hands it to an application, without a server."""

from __future__ import annotations

from typing import Any


def scope(path: str = "/", query: str = "") -> dict[str, Any]:
    """Return the scope of a GET."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
