"""One peer under faults: its server process, the database behind a proxy, and what a client sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
from tests.faults.rig import Postgres, Proxy, eventually

from faults.settings import LIMIT, OVERFLOW, POOL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PATIENCE = 12.0  # seconds a client waits for an answer
_SCHEMA = (
    "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)",
    "INSERT INTO account VALUES (1, 0), (2, 0)",
    "CREATE TABLE entry (account int REFERENCES account DEFERRABLE INITIALLY DEFERRED)",
    "CREATE SEQUENCE tries",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw; a status of 0 is no answer at all."""

    status: int
    body: str = ""
    comes_back: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.status:
            return self.body
        return f"{self.status} ↻" if self.comes_back else str(self.status)

    @property
    def is_away(self) -> bool:
        """The answer that a load balancer and a client understand: not now. ↻ says when, too."""
        return self.status == 503


class Bench:
    """A peer that serves; `fresh()` starts its process and its tables anew."""

    def __init__(self, peer: str, postgres: Postgres, proxy: Proxy) -> None:
        self.peer, self.postgres, self.proxy = peer, postgres, proxy
        self.process: subprocess.Popen[bytes] | None = None
        self.address: Any = ("", 0)

    async def fresh(self) -> None:
        self.stop()
        self.proxy.cut()
        await self.postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *_SCHEMA):
            await self.postgres.run(statement)
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        listening.set_inheritable(True)
        self.address = listening.getsockname()
        url = self.proxy.url(self.postgres.url_for("postgres")).render_as_string(hide_password=False)
        command = [sys.executable, "-m", "faults.serve", self.peer, url, str(listening.fileno())]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(  # noqa: ASYNC220 - it is there in a millisecond
            command, pass_fds=[listening.fileno()], stdout=self.log, stderr=self.log, env=os.environ
        )
        listening.close()
        ready = await self.ask("add", patience=60)
        if ready.status != 200:
            self.log.seek(0)
            raise RuntimeError(f"{self.peer} does not serve: {ready} {self.log.read().decode()[-2000:]}")
        await self.clean()

    async def clean(self) -> None:
        """Set the tables back; raises if something still holds them."""
        await self.postgres.run(
            "SET lock_timeout = '2s'; UPDATE account SET balance = 0; DELETE FROM entry; ALTER SEQUENCE tries RESTART"
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.log.close()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    async def ask(self, handler: str, *, patience: float = PATIENCE) -> Answer:
        """Send one request and say what came of it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with httpx.AsyncClient(timeout=patience) as client:
            try:
                response = await client.post(f"{self.url}/{handler}")
            except httpx.TimeoutException:
                return Answer(0, "hangs")
            except httpx.HTTPError:
                return Answer(0, "cut off")
        return Answer(response.status_code, response.text, "retry-after" in response.headers, clock() - began)

    async def hang_up(self, handler: str) -> Answer:
        """Read a stream's first line and hang up; a stream that was refused is an answer."""
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            try:
                async with client.stream("POST", f"{self.url}/{handler}") as response:
                    async for line in response.aiter_lines():
                        if line == "line":
                            return Answer(response.status_code, line)
                    return Answer(response.status_code, "refused")
            except httpx.HTTPError:
                return Answer(0, "cut off")

    async def balance(self, account: int = 1) -> int:
        rows = await self.postgres.run("SELECT balance FROM account WHERE id = $1", account)
        return int(rows[0][0])

    async def backend_of(self, query: str) -> int:
        """Wait until a statement like this one runs, and return its backend."""

        async def found() -> int | None:
            return next((each["pid"] for each in await self.running(query)), None)

        return int(await eventually(found, seconds=5))

    async def running(self, query: str) -> list[Any]:
        return [
            each
            for each in await self.postgres.backends("postgres", busy=True)
            if query in each["query"] and each["state"] == "active" and "pg_stat_activity" not in each["query"]
        ]

    async def in_use(self) -> int:
        """Return how many connections stay checked out when every request is over; -1 if the server is past asking."""
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            for _ in range(10):
                try:
                    number = int((await client.get(f"{self.url}/in-use")).text)
                except (httpx.HTTPError, ValueError):
                    return -1
                if not number:
                    return 0
                await asyncio.sleep(0.3)
        return number

    async def is_well(self) -> bool:
        """Say whether all of the pool's connections can be had and work."""
        answers = await asyncio.gather(*(self.ask("add", patience=LIMIT + 2) for _ in range(POOL + OVERFLOW)))
        with contextlib.suppress(asyncpg.PostgresError, TimeoutError):
            await self.clean()
            return all(answer.status == 200 for answer in answers)
        return False


@contextlib.asynccontextmanager
async def bench(peer: str) -> AsyncGenerator[Bench]:
    """Run a peer on a database and a proxy of its own."""
    with Postgres() as postgres:
        async with Proxy("127.0.0.1", postgres.port) as proxy:
            made = Bench(peer, postgres, proxy)
            try:
                await made.fresh()
                yield made
            finally:
                made.stop()
