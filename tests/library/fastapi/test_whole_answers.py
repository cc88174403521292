"""Answers that begin as the last one like them did: what clients, middleware and logs see of them."""

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.library.fastapi.serving import Lamp, keep_asking, lamps, serving
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from verdigris import _whole_answers


@pytest.fixture
async def application(database_url):
    return await lamps(database_url)


@pytest.fixture
def begun(monkeypatch):
    """Tell of each answer that could be written so whether it was."""
    monkeypatch.setattr(_whole_answers, "_known", {})
    kind = httptools_impl.RequestResponseCycle
    _whole_answers._known[kind] = _whole_answers._sends(kind)
    told, answer = [], _whole_answers._answer

    def telling(*args):
        told.append(answer(*args))
        return told[-1]

    monkeypatch.setattr(_whole_answers, "_answer", telling)
    monkeypatch.setattr(_whole_answers, "_heads", {})
    return told


def undated(answer):
    return re.sub(rb"date: [^\r]+", b"date", answer)


async def test_an_answer_begins_as_the_last_one_like_it(application, begun):
    async with serving(application, HttpToolsProtocol, headers=[("X-Of", "a server")]) as (port, written):
        await keep_asking(port, "/fast/1", 6)
        last = (await keep_asking(port, "/fast/1", 3))[-1]

    assert last == b'{"id":1,"name":"lamp 1"}'
    assert begun.count(True) > 1  # all but the first of each second
    assert len(set(map(undated, written))) == 1
    assert b"x-of: a server\r\n" in written[-1].lower()


async def test_an_answer_of_another_length_says_its_own(application, begun):
    async with serving(application, HttpToolsProtocol) as (port, _):
        async with application.state.verdigris.databases[0].session.begin() as session:
            (await session.get(Lamp, 2)).name = "a longer name"
        bodies = [(await keep_asking(port, f"/fast/{n}", 3))[-1] for n in (1, 2, 1)]

    assert bodies == [b'{"id":1,"name":"lamp 1"}', b'{"id":2,"name":"a longer name"}', b'{"id":1,"name":"lamp 1"}']
    assert begun.count(True) > 1


@pytest.mark.parametrize("what", ["GET /fast/1 HTTP/1.0", "GET /fast/1 HTTP/1.1\r\nConnection: close"])
async def test_the_end_of_a_connection_is_uvicorns_to_say(application, begun, what):
    async with serving(application, HttpToolsProtocol) as (port, _):
        await keep_asking(port, "/fast/1", 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{what}\r\nHost: x\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5)  # to its end: the server closes
        writer.close()

    assert b"connection: close\r\n" in answer
    assert begun[-1] is False


async def test_middleware_that_looks_at_answers_sees_them_all(application, begun):
    async def counting(scope, receive, send):
        async def counted(message):
            seen.append(message["type"])
            await send(message)

        await application(scope, receive, counted if scope["type"] == "http" else send)

    seen = []
    async with serving(counting, HttpToolsProtocol) as (port, _):
        await keep_asking(port, "/fast/1", 5)

    assert seen == ["http.response.start", "http.response.body"] * 5
    assert begun == []  # it is not even looked at


async def test_an_access_log_names_every_answer(application, begun, caplog):
    caplog.set_level("INFO", logger="uvicorn.access")
    options = {"access_log": True, "log_level": "info", "log_config": None}
    async with serving(application, HttpToolsProtocol, **options) as (port, _):
        await keep_asking(port, "/fast/1", 5)

    assert [each.getMessage().split('"', 1)[1] for each in caplog.records if each.name == "uvicorn.access"] == [
        'GET /fast/1 HTTP/1.1" 200'
    ] * 5
    assert begun == [False] * 4  # there was one to begin like, and it was not taken


async def test_who_fails_behind_an_answer_fails_as_ever(application, begun, caplog):
    """Starlette answers 500 where no answer has begun."""

    class Failing:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)
            if scope["type"] == "http":
                raise LookupError("behind the answer")

    application.add_middleware(Failing)
    async with serving(application, HttpToolsProtocol, log_config=None) as (port, _):
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /fast/1 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 5)).endswith(b'"lamp 1"}')
            writer.close()

    assert begun.count(True) > 1
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [str(error) for error in errors] == ["behind the answer"] * 4


async def test_connections_that_are_kept_are_closed_in_time(application, begun):
    async with serving(application, HttpToolsProtocol, timeout_keep_alive=1) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(4):
            writer.write(b"GET /fast/1 HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b'"lamp 1"}'), 5)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert begun.count(True) > 1


@pytest.mark.parametrize(
    "change",
    [
        ("self.response_complete = True", "self.response_complete = self.over = True"),
        ("self.message_event.set()", "pass"),
        ("self.response_started = True", "self.has_begun = True"),
        ("expect_100_continue: bool,", "expects_100_continue: bool,"),
    ],
)
def test_another_uvicorn_is_asked_as_ever(monkeypatch, change):
    source = Path(httptools_impl.__file__).read_text()
    assert change[0] in source
    assert _whole_answers._sends(httptools_impl.RequestResponseCycle)
    for sources, known in ((source, True), (source.replace(*change), False)):
        other = ModuleType(httptools_impl.__name__)
        monkeypatch.setitem(sys.modules, other.__name__, other)
        exec(sources, vars(other))
        assert bool(_whole_answers._sends(other.RequestResponseCycle)) is known


def test_a_send_that_somebody_has_replaced_is_asked(monkeypatch):
    kind = httptools_impl.RequestResponseCycle

    async def send(self, message):
        raise AssertionError

    monkeypatch.setattr(kind, "send", send)
    assert _whole_answers._sends(kind) is None
    monkeypatch.undo()
    cycle = _whole_answers._Trial(kind).cycle
    assert _whole_answers._asked_directly(cycle.receive, cycle.send) is cycle
    monkeypatch.setattr(kind, "send", send)
    assert _whole_answers._asked_directly(cycle.receive, cycle.send) is None
