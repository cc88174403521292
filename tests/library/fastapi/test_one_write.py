"""What uvicorn writes to its clients: an answer in one piece, and those that one flight brought behind each other."""

import asyncio
import re
import socket
import struct

import pytest
from fastapi.middleware.gzip import GZipMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from tests.library.fastapi.serving import Telling, keep_asking, lamps, serving, talk
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from verdigris._one_write import OneWrite, answer_together
from verdigris.lean import coalescing

PATHS = ["/fast/1", "/slow", "/empty"]


@pytest.fixture(params=[HttpToolsProtocol, H11Protocol])
def protocol(request):
    return request.param


@pytest.fixture
async def application(database_url):
    return await lamps(database_url)


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_is_written_at_once(application, protocol, path):
    async with serving(application, protocol) as (port, written):
        answer = await talk(port, f"GET {path}")
    assert answer.startswith(b"HTTP/1.1 200")
    assert [each for each in written if each] == [answer]


@pytest.mark.parametrize("lacking", ["transport", "keep_alive", "scope", "waiting_for_100_continue"])
def test_requests_of_a_version_that_has_other_names_are_left_alone(lacking):
    names = {"transport": None, "keep_alive": True, "scope": {"method": "GET"}, "waiting_for_100_continue": False}
    del names[lacking]
    named = {"__module__": "uvicorn.protocols.http.httptools_impl", "receive": lambda _: None}
    request = type("RequestResponseCycle", (), {**names, **named})()

    with OneWrite(request.receive):
        assert vars(request) == {}


async def test_answers_on_one_connection_come_in_order_and_whole(application, protocol):
    asked = [f"GET /fast/{n}" for n in (1, 2, 3)] + ["HEAD /slow", "GET /slow", "GET /fast/9", "GET /fast/x"]
    async with serving(application, protocol) as (port, written):
        answer = await talk(port, *asked)
    assert b"".join(written) == answer
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 5 + [b"404", b"422"]
    bodies = [each for each in written if b"lamp" in each]
    assert [re.findall(rb"lamp (\d)", each) for each in bodies] == [[b"1"], [b"2"], [b"3"], [b"1", b"2", b"3"]]
    assert all(each.startswith(b"HTTP/1.1 200") for each in bodies)


async def test_the_head_alone_is_not_held(application, protocol):
    async with serving(application, protocol) as (port, _):
        answer = await talk(port, "HEAD /slow")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 76" in answer


async def test_middleware_between_is_served_as_ever(application, protocol):
    async def passed_on(request, following):
        return await following(request)

    application.add_middleware(GZipMiddleware, minimum_size=1)
    async with serving(application, protocol) as (port, written):
        zipped = await talk(port, "GET /fast/1", accept="gzip")
    assert b"content-encoding: gzip" in zipped
    assert [each for each in written if each] == [zipped]
    application.middleware_stack = None
    application.add_middleware(BaseHTTPMiddleware, dispatch=passed_on)  # has a task send what it was sent
    async with serving(application, protocol) as (port, _):
        answers = [await talk(port, f"GET {path}") for path in PATHS]
    assert [each[:15] for each in answers] == [b"HTTP/1.1 200 OK"] * 3
    assert answers[0].endswith(b'"name":"lamp 1"}')


async def test_a_head_asked_for_as_get_is_written(application, protocol):
    async def as_get(scope, receive, send):
        await application({**scope, "method": "GET"} if scope["type"] == "http" else scope, receive, send)

    async with serving(as_get, protocol) as (port, _):
        answers = [await talk(port, f"HEAD {path}") for path in PATHS[:2]]
    assert all(each.startswith(b"HTTP/1.1 200 OK") and each.endswith(b"\r\n\r\n") for each in answers)


async def test_a_client_that_waits_for_100_continue_gets_it(application, protocol):
    async def reads_first(scope, receive, send):
        async def drained(message):
            if message["type"] == "http.response.start":
                while (await receive()).get("more_body"):
                    pass
            await send(message)

        await application(scope, receive, drained if scope["type"] == "http" else send)

    async with serving(reads_first, protocol) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await asyncio.wait_for(reader.readuntil(b"lamp 3"), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_client_that_goes_between_head_and_body_is_no_error(application, protocol, caplog):
    gone, over = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send):
        async def later(message):
            await send(message)
            if message["type"] == "http.response.start":
                await gone.wait()
                await asyncio.sleep(0.1)  # until the server has seen it

        await application(scope, receive, later if scope["type"] == "http" else send)
        over.set()

    async with serving(slow, protocol) as (port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # a reset, no goodbye
        writer.write(b"GET /fast/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.transport.abort()
        gone.set()
        await asyncio.wait_for(over.wait(), 5)
    assert not [record for record in caplog.records if record.exc_info]


async def test_what_was_held_is_written_when_sending_fails(application, protocol):
    async def breaking(scope, receive, send):
        async def broken(message):
            if message["type"] == "http.response.body":
                raise RuntimeError("no body")
            await send(message)

        await application(scope, receive, broken if scope["type"] == "http" else send)

    async with serving(breaking, protocol) as (port, _):
        answer = await talk(port, "GET /fast/1")
    assert answer.startswith(b"HTTP/1.1 200")  # as it is where each is written when it comes
    assert answer.endswith(b"\r\n\r\n")


@pytest.fixture
def much(monkeypatch):
    """A machine on which reads always go together."""
    monkeypatch.setattr(coalescing, "_PAYS", 1000.0)
    monkeypatch.setattr(coalescing, "_LONGEST", 1.0)
    monkeypatch.setattr(coalescing, "_LONE", 0)


async def test_the_answers_of_one_flight_are_written_behind_each_other(application, much):
    async def noted(scope, receive, send):
        await application(scope, receive, send)
        events.append(b"served")

    async with serving(noted, HttpToolsProtocol) as (port, events):
        found = await asyncio.gather(*(keep_asking(port, f"/fast/{n % 3 + 1}", 20) for n in range(12)))

    assert found == [[b'{"id":%d,"name":"lamp %d"}' % (n % 3 + 1, n % 3 + 1)] * 20 for n in range(12)]
    in_a_row = [len(each) for each in "".join("w" if event != b"served" else " " for event in events).split()]
    assert sum(in_a_row) == 12 * 20
    assert max(in_a_row) > 3


async def test_an_answer_that_ends_its_connection_is_not_lost_among_others(application, protocol, much):
    async with serving(application, protocol) as (port, _):
        found = await asyncio.gather(*(talk(port, f"GET /fast/{n % 3 + 1}") for n in range(30)))

    assert [re.findall(rb"lamp (\d)", each) for each in found] == [[b"%d" % (n % 3 + 1)] for n in range(30)]


@pytest.mark.parametrize("factory", [None, getattr(asyncio, "eager_task_factory", None)])
async def test_answers_to_what_was_sent_ahead_come_in_order_among_others(application, protocol, much, factory):
    asyncio.get_running_loop().set_task_factory(factory)
    paths = ["GET /fast/1", "GET /slow", "GET /fast/2", "GET /empty", "GET /fast/3", "GET /fast/1"]
    async with serving(application, protocol) as (port, _):
        found = await asyncio.gather(*(talk(port, *paths) for _ in range(8)))

    assert [re.findall(rb"lamp (\d)", each) for each in found] == [[b"1", b"1", b"2", b"3", b"2", b"3", b"1"]] * 8


class Held(Telling):
    def __init__(self, events):
        super().__init__(None, events)

    def write(self, data):
        assert not self.is_closing()  # of uvloop's it is an error
        self.written.append(data)

    def close(self):
        self.written.append("closed")

    def is_closing(self):
        return "closed" in self.written


def cycle_on(transport, receive):
    """Return what stands for a request of uvicorn's, whose method `receive` is."""
    cycle = type("RequestResponseCycle", (), {"__module__": "uvicorn.protocols.http.httptools_impl"})()
    cycle.scope, cycle.waiting_for_100_continue, cycle.keep_alive = {"method": "GET"}, False, True
    cycle.transport, cycle.receive = transport, receive.__get__(cycle)
    return cycle


async def test_nothing_comes_between_an_answer_that_is_held_and_its_writing():
    """Between them a server that shuts down would close the connection."""
    loop, events = asyncio.get_running_loop(), []
    transport, waiting = Held(events), [loop.create_future() for _ in range(3)]

    async def answered(future):
        cycle = cycle_on(transport, answered)
        body = await future
        with OneWrite(cycle.receive):
            cycle.transport.write("head of ")
            cycle.transport.write(body)
        events.append(f"served {body}")

    tasks = [loop.create_task(answered(future)) for future in waiting]
    await asyncio.sleep(0)
    loop.call_soon(events.append, "before")
    answer_together(zip(waiting, "abc", strict=True))
    loop.call_soon(transport.close)
    await asyncio.gather(*tasks)
    await asyncio.sleep(0)

    served = [f"served {each}" for each in "abc"]
    assert events == ["before", *served, *(f"head of {each}" for each in "abc"), "closed"]


def test_nothing_is_written_to_a_client_that_has_gone():
    """uvicorn does not know it of requests that were sent ahead, when it comes to them."""
    transport = Held([])
    cycle = cycle_on(transport, lambda _: None)
    transport.close()

    with OneWrite(cycle.receive):
        cycle.transport.write("head of ")
        cycle.transport.write("a")

    assert transport.written == ["closed"]
