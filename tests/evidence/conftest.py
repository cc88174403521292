"""A server for the tests of this directory, and one recording of the small service that most of them look at."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import httpx
import pytest

from verdigris import embedded
from verdigris.evidence.recording import record

RECORDED = Path(__file__).with_name("recorded")
REQUESTS = (
    "GET /orders/1", "GET /orders/2", "GET /orders/1/lazy", "GET /orders/2/strict", "GET /orders/3/note",
    "GET /orders/3/again", "GET /orders", "GET /orders-touched", "GET /orders-joined", "GET /orders-pages",
    "POST /orders?name=late", "POST /orders?name=late", "POST /orders-early?name=early",
    "POST /orders-early?name=early",
    "POST /orders-swallowed", "GET /orders-shared", "GET /orders-leak", "GET /orders-fan", "GET /orders-stream",
    "POST /orders-bulk", "GET /orders-perrequest", "GET /orders-perrequest", "GET /orders-blocking", "GET /nowhere",
)  # fmt: skip


@pytest.fixture(scope="session")
def postgres():
    with embedded.server(durable=False, settings={"shared_preload_libraries": "pg_stat_statements"}) as server:
        yield server


@pytest.fixture
def debugging(monkeypatch):
    """An error of the recorder is an error of the test."""
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")


@pytest.fixture(scope="session")
def service(postgres):
    """The service, driven through every route while recorded: its module, the answers and the recording."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", str(postgres.url))
        patch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
        with record(RECORDED) as recorder:
            module = load("orders")
            answers, recording = asyncio.run(drive(module, recorder))
    return module, answers, recording


@pytest.fixture(scope="session")
def recording(service):
    return service[2]


def load(name):
    spec = importlib.util.spec_from_file_location(f"recorded_{name}", RECORDED / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def drive(module, recorder):
    answers, app = {}, module.app
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for line in REQUESTS:
                method, path = line.split()
                answers.setdefault(line, []).append((await client.request(method, path)).status_code)
        await websocket(app)
        await asyncio.sleep(0.3)
        recording = recorder.artefact()
        while module.LEAKED:
            await module.LEAKED.pop().close()
    return answers, recording


async def websocket(app):
    incoming = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": str(n)} for n in (1, 2, 3))]
    scope = {"type": "websocket", "path": "/orders-socket", "headers": [], "query_string": b"", "subprotocols": []}

    async def receive():
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect"}

    async def send(message):
        pass

    await asyncio.create_task(app({**scope, "root_path": "", "extensions": {}}, receive, send))


def line_of(text, path="orders.py"):
    """Return the site of the first line that contains a text."""
    lines = (RECORDED / path).read_text().splitlines()
    return f"{path}:{next(number for number, line in enumerate(lines, 1) if text in line)}"
