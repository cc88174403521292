"""Load: wrk where it is installed, else a generator of our own; each in its own process, for a bounded time.

The own one is `python -m reads.load PORT CONNECTIONS SECONDS PATHS_FILE`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one piece of load measured; latencies in milliseconds."""

    requests: int
    #: What the server worked on: with wrk also the request that each connection had under way at the end.
    served: int
    seconds: float
    errors: int
    p50: float
    p99: float


def generator() -> str:
    """Return the name of what makes the load."""
    return "wrk" if shutil.which("wrk") else "own generator"


def drive(port: int, connections: int, seconds: int, paths: Path) -> Outcome:
    """Send requests over `connections` for `seconds`, each connection one at a time."""
    if generator() == "wrk":
        threads = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        script = ["--timeout", f"{_PATIENCE:.0f}s", "--latency", "--script", str(Path(__file__).with_name("wrk.lua"))]
        command = ["wrk", *threads, *script, f"http://127.0.0.1:{port}", "--", str(paths)]
    else:
        command = [sys.executable, "-m", "reads.load", str(port), str(connections), str(seconds), str(paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 2 * _PATIENCE)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return Outcome(served=said["requests"] + (connections if command[0] == "wrk" else 0), **said)


class _Client(asyncio.Protocol):
    """One keep-alive connection that asks for the next path when the last answer is complete."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.buffer = b""
        self.expected = -1
        self.asked = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # of create_connection; uvloop's is no subclass of it
        self.ask()

    def ask(self) -> None:
        self.buffer, self.expected = b"", -1
        self.asked = time.perf_counter()
        self.transport.write(self.load.next())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.expected < 0:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lines = self.buffer[:head].lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            self.expected = head + 4 + length
        if len(self.buffer) >= self.expected:
            now = time.perf_counter()
            self.load.took.append(now - self.asked)
            self.load.errors += not self.buffer.startswith(b"HTTP/1.1 200")
            if now < self.load.ends:
                self.ask()
            else:
                self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.load.errors += error is not None
        self.load.left -= 1
        if not self.load.left:
            self.load.over.set()


class _Load:
    def __init__(self, connections: int, seconds: float, paths: list[str]) -> None:
        self.requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths]
        self.sent = 0
        self.took: list[float] = []
        self.errors = 0
        self.left = connections
        self.over = asyncio.Event()
        self.ends = time.perf_counter() + seconds

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


async def _run(port: int, connections: int, seconds: float, paths: list[str]) -> dict[str, float]:
    load = _Load(connections, seconds, paths)
    began = time.perf_counter()
    for _ in range(connections):
        await asyncio.get_running_loop().create_connection(lambda: _Client(load), "127.0.0.1", port)
    async with asyncio.timeout(seconds + _PATIENCE):
        await load.over.wait()
    took = sorted(load.took)
    p50, p99 = (1000 * took[int(len(took) * share)] for share in (0.5, 0.99))
    elapsed = time.perf_counter() - began
    return {"requests": len(took), "seconds": elapsed, "errors": load.errors, "p50": p50, "p99": p99}


def main() -> None:
    port, connections, seconds, paths = sys.argv[1:]
    import uvloop

    found = uvloop.run(_run(int(port), int(connections), float(seconds), Path(paths).read_text().splitlines()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
