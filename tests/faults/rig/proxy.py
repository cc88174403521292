"""A TCP proxy before PostgreSQL that knows enough of the protocol to lose exactly the answer to a COMMIT."""

import asyncio
import contextlib
import enum
import socket
import struct
from collections import deque

from sqlalchemy.engine import make_url

_SSL_REQUEST, _CANCEL_REQUEST, _GSS_REQUEST = 80877103, 80877102, 80877104


class Fate(enum.Enum):
    """What becomes of a COMMIT on its way."""

    REPLY_LOST = "the server commits; its answer is dropped and the connection cut"
    REPLY_HELD = "the server commits; its answer never comes and the connection stays open"
    LOST = "the COMMIT is dropped and the connection cut; the server rolls back"
    HELD = "the COMMIT never arrives and the connection stays open"


class Proxy:
    """A proxy that can go silent, be slow, cut, refuse, and decide the fate of the COMMITs to come."""

    def __init__(self, host, port):
        self.upstream = (host, port)
        self.delay = 0.0  # seconds that each packet takes, either way
        self.fates = deque()  # of the next COMMITs, one each
        self.caught = asyncio.Event()  # a COMMIT has met its fate
        self.commits = 0  # COMMITs seen
        self.cancels = 0  # CancelRequests seen
        self.port = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._lines = set()
        self._server = None

    async def __aenter__(self):
        await self.accept()
        return self

    async def __aexit__(self, *_):
        await self.refuse()
        self._flows.set()
        self.cut()
        await asyncio.gather(*(line.done for line in set(self._lines)), return_exceptions=True)

    def url(self, url):
        """Return the URL that leads through the proxy to where this one leads."""
        return make_url(url).set(host="127.0.0.1", port=self.port)

    def __len__(self):
        """How many connections are open."""
        return len(self._lines)

    # -- faults

    def black_hole(self):
        """Forward nothing any more, either way; connections stay open and new ones are accepted."""
        self._flows.clear()

    def flow(self):
        self._flows.set()

    def cut(self):
        """Reset every open connection."""
        for line in set(self._lines):
            line.cut()

    async def refuse(self):
        """Let nobody connect any more (connection refused); open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    async def accept(self):
        """Take connections again, under the same address."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port or 0)
            self.port = self._server.sockets[0].getsockname()[1]

    def commit(self, fate):
        """Decide what becomes of the next COMMIT; `caught` is set when it has."""
        self.caught.clear()
        self.fates.append(fate)

    async def _serve(self, reader, writer):
        line = _Line(self, reader, writer)
        self._lines.add(line)
        try:
            await line.run()
        finally:
            self._lines.discard(line)

    async def pause(self):
        """Let a packet take its time."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flows.wait()


class _Line:
    """One client's connection and its way to the server."""

    def __init__(self, proxy, reader, writer):
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.up = None
        self.fate = None
        self.done = asyncio.get_running_loop().create_future()

    async def run(self):
        try:
            await self.proxy.pause()
            up_reader, self.up = await asyncio.open_connection(*self.proxy.upstream)
            pumps = [asyncio.create_task(self._to_server()), asyncio.create_task(self._to_client(up_reader))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for writer in (self.writer, self.up):
                if writer is not None:
                    writer.close()
            if not self.done.done():
                self.done.set_result(None)

    def cut(self):
        for writer in (self.writer, self.up):
            if writer is None:
                continue
            with contextlib.suppress(OSError, AttributeError):
                linger = struct.pack("ii", 1, 0)  # a reset, not an orderly end
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async def _to_client(self, source):
        while data := await source.read(65536):
            await self.proxy.pause()
            if self.fate is Fate.REPLY_LOST:
                self.proxy.caught.set()
                self.cut()
                return
            if self.fate is Fate.REPLY_HELD:
                self.proxy.caught.set()
                continue
            self.writer.write(data)
            await self.writer.drain()

    async def _to_server(self):
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            code = _SSL_REQUEST
            while code in {_SSL_REQUEST, _GSS_REQUEST}:  # answered by one letter; then comes the real start
                code = await self._start()
            if code == _CANCEL_REQUEST:
                self.proxy.cancels += 1
            while True:
                await self._message()

    async def _start(self):
        head = await self.reader.readexactly(8)
        length, code = struct.unpack("!ii", head)
        await self._forward(head + await self.reader.readexactly(length - 8))
        return code

    async def _message(self):
        head = await self.reader.readexactly(5)
        body = await self.reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
        if head[:1] == b"Q" and body.rstrip(b"\0; \n").upper() == b"COMMIT":
            self.proxy.commits += 1
            if self.proxy.fates:
                self.fate = self.proxy.fates.popleft()
        if self.fate in {Fate.LOST, Fate.HELD}:
            self.proxy.caught.set()
            if self.fate is Fate.LOST:
                self.cut()
            return
        await self._forward(head + body)

    async def _forward(self, data):
        await self.proxy.pause()
        self.up.write(data)
        await self.up.drain()
