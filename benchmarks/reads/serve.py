"""One peer behind uvicorn, in a process of its own: `python -m reads.serve PEER URL SOCKET_FD`."""

from __future__ import annotations

import ctypes
import importlib
import signal
import socket
import sys

import uvicorn

_PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a run that was killed leaves no server behind
    peer, url, descriptor = sys.argv[1:]
    application = importlib.import_module(f"reads.peers.{peer}").app(url)
    listening = socket.socket(fileno=int(descriptor))
    config = uvicorn.Config(application, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
