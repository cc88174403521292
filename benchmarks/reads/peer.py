"""A peer as the run sees it: a server process that sleeps while another is measured, and what it costs."""

from __future__ import annotations

import ast
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reads import cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS = Path(__file__).parent / "peers"
FLOOR = "floor_"
_READY_SECONDS = 60.0
_STOP_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_IDLE_SHARE = 0.1


def titles() -> dict[str, str]:
    """Return every peer with its name in the table, without importing one."""
    files = sorted(path for path in PEERS.glob("*.py") if path.stem != "__init__")
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or path.stem).split("\n")[0] for path in files}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes


class Peer:
    """One peer's server; between `awake()` blocks it is stopped by a signal, so that it costs the others nothing."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listening.set_inheritable(True)
        self.port: int = listening.getsockname()[1]
        command = [sys.executable, "-m", "reads.serve", name, url, str(listening.fileno())]
        environment = {**os.environ, "DATABASE_URL": url}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the server
        self.process = subprocess.Popen(
            command, pass_fds=[listening.fileno()], env=environment, stdout=self.log, stderr=self.log
        )
        listening.close()

    @property
    def is_floor(self) -> bool:
        return self.name.startswith(FLOOR)

    def wait_until_ready(self) -> None:
        """Wait for the first answer, then put the server to sleep; raises RuntimeError if it ended or is silent."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended before it answered: {self.last_words()}")
            with contextlib.suppress(OSError):
                self.get("/orders/1")
                self.process.send_signal(signal.SIGSTOP)
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not answer within {_READY_SECONDS:.0f} s")

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def get(self, path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def wait_until_idle(self) -> None:
        """Wait until what was under way when the load ended has been worked off; raises RuntimeError after 30 s."""
        deadline = time.monotonic() + _IDLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            now = self.cpu_seconds()
            if now - before < _LOOK_SECONDS * _IDLE_SHARE:
                return
            before = now
        raise RuntimeError(f"{self.name} was still at work {_IDLE_SECONDS:.0f} s after the load ended")

    def last_words(self) -> str:
        """Return the end of what the server wrote."""
        self.log.seek(0)
        return self.log.read()[-2000:]

    def cpu_seconds(self) -> float:
        return cpu.of_process(self.process.pid)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@contextlib.contextmanager
def running(names: list[str], url: str) -> Iterator[list[Peer]]:
    """Start the servers, all at once, and end them."""
    with contextlib.ExitStack() as stack:
        peers = []
        for name in names:
            peers.append(Peer(name, url))
            stack.callback(peers[-1].stop)
        for peer in peers:
            peer.wait_until_ready()
        yield peers
