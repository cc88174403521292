"""One peer behind uvicorn, in a process of its own: `python -m faults.serve PEER URL SOCKET_FD`."""

from __future__ import annotations

import ctypes
import gc
import importlib
import signal
import socket
import sys
from typing import Any

import uvicorn

_PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a run that was killed leaves no server behind
    peer, url, descriptor = sys.argv[1:]
    application = importlib.import_module(f"faults.peers.{peer}").app(url)

    @application.get("/in-use")
    async def in_use() -> int:
        """Say how many connections are checked out, after whatever the collector can still bring back."""
        gc.collect()
        pool: Any = application.state.engine().pool
        return int(pool.checkedout())

    config = uvicorn.Config(application, access_log=False, log_level="critical", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
