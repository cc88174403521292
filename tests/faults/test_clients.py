"""Clients that hang up, streams that break, and a server that is told to end: over real sockets."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Annotated

import httpx
import pytest
import uvicorn
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from tests.faults.rig import eventually, within
from tests.faults.service import ADD
from verdigris.session import AsyncSession

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:uvicorn", "ignore::DeprecationWarning:websockets")


@contextlib.asynccontextmanager
async def served(app):
    """Serve an application over a socket, in this event loop, and give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=5))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals_as_they_are())
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: server.started or serving.done())
        try:
            yield server.servers[0].sockets[0].getsockname()
        finally:
            server.should_exit = True
            await within(15, serving)


@contextlib.contextmanager
def _signals_as_they_are():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def ask_and_hang_up(address, path, *, after):
    """Send a request, read until `after` has come (or just wait a moment), and close the socket."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: service\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()
    if after:
        await asyncio.wait_for(reader.readuntil(after), 10)
    else:
        await asyncio.sleep(0.2)
    writer.transport.abort()


@pytest.mark.parametrize("way", ["plain", "route", "retried"])
async def test_a_client_that_hangs_up_changes_nothing_the_request_ends_and_commits(service, balance, whole, way):
    begun = asyncio.Event()

    async def work(session):
        await session.execute(ADD)
        begun.set()
        await session.execute(text("SELECT pg_sleep(0.5)"))

    service.work = work
    async with served(service.app) as address:
        await ask_and_hang_up(address, f"/{way}", after=None)
        await within(5, begun.wait())

        async def stored():
            return await balance() == 1

        assert await eventually(stored)
    assert await whole()


def stream_with_a_unit_of_its_own(service, *, broken=False):
    @service.app.post("/stream")
    async def stream():
        async def body():
            async with service.db.session.begin() as session:
                await session.execute(ADD)
                yield "first\n"
                await session.execute(text("SELECT pg_sleep(0.1)"))
                if broken:
                    raise KeyError("after the headers")
                for _ in range(100):
                    yield "next\n"
                    await session.execute(text("SELECT pg_sleep(0.1)"))

        return StreamingResponse(body())


async def test_a_client_that_hangs_up_mid_stream_rolls_the_streams_own_unit_back(service, balance, whole):
    stream_with_a_unit_of_its_own(service)

    async with served(service.app) as address:
        await ask_and_hang_up(address, "/stream", after=b"next\n")
        assert await whole()

    assert await balance() == 0


async def test_a_client_that_hangs_up_mid_stream_finds_the_requests_own_work_committed_before_the_first_byte(
    service, balance, whole
):
    @service.app.post("/mixed")
    async def mixed(session: Annotated[AsyncSession, Depends(service.db.request_session, scope="function")]):
        await session.execute(ADD)

        async def body():
            for _ in range(100):
                yield "next\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(body())

    async with served(service.app) as address:
        await ask_and_hang_up(address, "/mixed", after=b"next\n")
        assert await balance() == 1
        assert await whole()


async def test_an_error_in_a_stream_after_the_headers_cuts_the_connection_rolls_back_and_is_logged(
    service, balance, whole, caplog
):
    stream_with_a_unit_of_its_own(service, broken=True)

    async with served(service.app) as (host, port), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        with caplog.at_level(logging.ERROR), pytest.raises(httpx.RemoteProtocolError):
            await client.post("/stream")
        assert await whole()

    assert "after the headers" in caplog.text
    assert await balance() == 0


async def test_a_handler_that_watches_for_the_disconnect_can_stop_its_own_work(service, balance, whole):
    async def watch(request: Request):
        async with service.db.session() as session, asyncio.TaskGroup() as group:
            await session.execute(ADD)
            sleeping = group.create_task(session.execute(text("SELECT pg_sleep(30)")))
            while not await request.is_disconnected():
                await asyncio.sleep(0.05)
            sleeping.cancel()

    service.app.post("/watched", response_model=None)(watch)

    async with served(service.app) as address:
        await ask_and_hang_up(address, "/watched", after=None)
        assert await whole()

    assert await balance() == 0


PROGRAM = """
    import os
    from fastapi import FastAPI, Depends
    from sqlalchemy import text
    from typing import Annotated
    from verdigris import Database
    from verdigris.fastapi import install
    from verdigris.session import AsyncSession

    db = Database(os.environ["DATABASE_URL"])
    app = FastAPI()
    install(app, db)

    @app.post("/slow/{seconds}")
    async def slow(
        seconds: float, session: Annotated[AsyncSession, Depends(db.request_session, scope="function")]
    ) -> str:
        await session.execute(text("UPDATE account SET balance = balance + 1 WHERE id = 1"))
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        return "stored"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "stored"), [(1.0, 1), (60.0, 0)])
async def test_sigterm_lets_requests_finish_in_the_time_of_grace_and_rolls_the_others_back(
    postgres, database, balance, tmp_path, seconds, stored
):
    (tmp_path / "slow_service.py").write_text(dedent(PROGRAM))
    command = [sys.executable, "-m", "uvicorn", "slow_service:app", "--app-dir", str(tmp_path), "--port", "0"]
    environment = {**os.environ, "DATABASE_URL": postgres.url_for(database), "PYTHONPATH": _source()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--timeout-graceful-shutdown", "3"], env=environment, stdout=log, stderr=log
        )
    try:
        address = await eventually(lambda: _address(tmp_path / "log"), seconds=20)
        async with httpx.AsyncClient(timeout=20) as client:
            asking = asyncio.create_task(client.post(f"{address}/slow/{seconds}"))

            async def sleeping():
                return [each for each in await postgres.backends(database, busy=True) if "pg_sleep" in each["query"]]

            await eventually(sleeping)
            process.send_signal(signal.SIGTERM)
            outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        await asyncio.to_thread(process.wait, 15)
    finally:
        process.kill()
        process.wait(5)

    if stored:
        assert outcome.status_code == 200
    else:
        assert isinstance(outcome, httpx.HTTPError) or outcome.status_code >= 500
    assert await balance() == stored
    assert not await postgres.backends(database)


def _address(log):
    words = [word for word in log.read_text().split() if word.startswith("http://")]
    return words[0] if words else None


def _source():
    return str(Path(__file__).parents[2] / "src")
