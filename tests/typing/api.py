"""How the public names are used, for mypy and pyright to read; it is never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncEngine

from verdigris import Database, __version__, embedded
from verdigris.embedded import EmbeddedServer, Installation, Provider, Server

assert_type(__version__, str)


def a_server() -> None:
    with embedded.server(data=Path("data"), durable=False, settings={"work_mem": "8MB", "jit": False}) as running:
        assert_type(running, Server)
        assert_type(running.url, str)
        assert_type(running.url_for("shop", socket=True), str)
        assert_type(running.password, str | None)
        running.stop()
    assert_type(embedded.server(), EmbeddedServer)


async def an_async_server() -> str:
    async with embedded.server() as running:
        return running.url


class Elsewhere:
    def installation(self) -> Installation | None:
        return Installation("elsewhere", "18.6", Path("/opt/postgresql/bin"))


provider: Provider = Elsewhere()
embedded.server(provider=provider)


def a_database(engine: AsyncEngine) -> None:
    assert_type(Database("postgresql+asyncpg://localhost/shop").engine, AsyncEngine)
    assert_type(Database.from_engine(engine), Database)
