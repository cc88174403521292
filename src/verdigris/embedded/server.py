"""One running server: started, described, stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from verdigris.embedded import exits
from verdigris.embedded.account import reachable, server_account
from verdigris.embedded.cluster import USER, Cluster, environment, make_cluster, open_cluster
from verdigris.embedded.errors import EmbeddedError
from verdigris.embedded.provider import find_installation
from verdigris.embedded.runtime import new_entry, unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from verdigris.embedded.account import Account
    from verdigris.embedded.provider import Installation, Provider
    from verdigris.embedded.runtime import Entry

HOST = "127.0.0.1"
START_PATIENCE = 60.0  # seconds; a kept directory may have to recover from a crash first
STOP_PATIENCE = 60.0
_NOT_DURABLE: Mapping[str, bool] = {"fsync": False, "synchronous_commit": False, "full_page_writes": False}
_OURS = {
    "port": "server(port=...)",
    "data_directory": "server(data=...)",
    "listen_addresses": "nothing: a private server listens on the loopback address only",
    "unix_socket_directories": "nothing: Server.socket_dir says where it is",
    "config_file": "server(settings=...)",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of `server()` asked for."""

    data: Path | None = None
    durable: bool = True
    port: int | None = None
    settings: Mapping[str, str | float | bool] = field(default_factory=dict)
    provider: Provider | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A private server that runs: where it listens, and the URLs that lead to it.

    `password` is None where the data directory came from another tool, whose own pg_hba.conf then decides.
    `programs` holds psql, pg_dump and the rest, in a place that the server's own account can enter.
    """

    host: str
    port: int
    user: str
    password: str | None = field(repr=False)
    database: str
    socket_dir: Path
    data: Path
    log: Path
    programs: Path
    version: str
    process_id: int
    _running: Running = field(repr=False, compare=False)

    @property
    def url(self) -> str:
        """The URL of the first database, over TCP, for SQLAlchemy's asyncpg dialect."""
        return self.url_for(self.database)

    def url_for(self, database: str, *, driver: str = "postgresql+asyncpg", socket: bool = False) -> str:
        """Return the URL of `database`; `socket` is the unix one: no password, a fifth less per round trip."""
        if socket:
            place = urlencode({"host": str(self.socket_dir), "port": self.port}, quote_via=quote, safe="/")
            return f"{driver}://{self.user}@/{quote(database, safe='')}?{place}"
        password = f":{self.password}" if self.password else ""
        return f"{driver}://{self.user}{password}@{self.host}:{self.port}/{quote(database, safe='')}"

    def stop(self) -> None:
        """Stop the server and remove its temporary files; calling it again does nothing."""
        self._running.stop()


class Running:
    """All that has to go when a server goes; only the process that started it can stop it."""

    def __init__(self, entry: Entry, *, keep: bool) -> None:
        self.entry = entry
        self.keep = keep
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._done = False
        exits.stop_at_exit(self.stop)

    def stop(self) -> None:
        """Stop cleanly where the data is kept, at once where it is thrown away."""
        if os.getpid() != self._owner:
            return  # a fork inherited us; the server is its parent's
        with self._lock:
            if self._done:
                return
            if self.process is not None:
                halt(self.process, keep=self.keep)
            self.entry.remove()
            self._done = True
        exits.stopped(self.stop)


def halt(process: subprocess.Popen[bytes], *, keep: bool) -> None:
    """End a child: fast shutdown, then immediate shutdown, then SIGKILL, each when the one before did not do."""
    signals = ((signal.SIGINT, STOP_PATIENCE), (signal.SIGQUIT, 10.0), (signal.SIGKILL, None))
    for number, patience in signals if keep else signals[1:]:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def start(options: Options) -> Server:
    """Start a server and return when it accepts connections.

    Raises EmbeddedError, with nothing left behind, when it can't.
    """
    configuration = _configuration(options)
    if options.port is not None and not _is_free(options.port):
        raise _busy(options.port)
    installation = find_installation(options.provider)
    account = server_account(options.data)
    entry = new_entry(account)
    running = Running(entry, keep=options.data is not None)
    try:
        installation = reachable(installation, account, entry.path.parent)
        if options.data is None:
            cluster = make_cluster(entry.path / "data", installation, account, workspace=entry.path)
        else:
            kept = options.data.expanduser().resolve()
            cluster = open_cluster(kept, installation, account, entry)
        entry.describe(cluster.data, temporary=options.data is None)
        return _Start(installation, account, running, cluster, options.port).run(configuration)
    except BaseException:
        running.stop()
        raise


@dataclass(frozen=True, slots=True)
class _Start:
    """One start: the same parts go through all of its steps."""

    installation: Installation
    account: Account
    running: Running
    cluster: Cluster
    port: int | None

    def run(self, configuration: str) -> Server:
        try:
            sockets = self._place("sockets")
            self._write("server.conf", f"include '{_quoted(self.cluster.data / 'postgresql.conf')}'\n{configuration}")
        except OSError as error:
            raise unwritable(self.running.entry.path, error) from error
        tries = 1 if self.port else 3
        while True:
            port = self.port or _free_port()
            process = self.running.process = self._launch(port, sockets)
            if self._becomes_ready(process):
                return self._server(port, sockets, process)
            if _is_free(port):
                raise self._failure()
            tries -= 1  # somebody took the port between our look and the server's
            if not tries:
                raise _busy(port)

    def _place(self, name: str) -> Path:
        place = self.running.entry.path / name
        place.mkdir(mode=0o700)
        self.account.own(place)
        return place

    def _write(self, name: str, text: str) -> None:
        path = self.running.entry.path / name
        path.touch(mode=0o600)
        path.write_text(text)
        self.account.own(path)

    def _launch(self, port: int, sockets: Path) -> subprocess.Popen[bytes]:
        command = [
            str(self.installation.programs / "postgres"),
            *("-D", str(self.cluster.data), "-c", f"config_file={self.running.entry.path / 'server.conf'}"),
            *("-p", str(port), "-k", str(sockets), "-c", f"listen_addresses={HOST}"),
        ]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd="/",
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop the server when its users are done
                **self.account.identity(),
            )

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the status that PostgreSQL itself writes for pg_ctl; False if it ended instead."""
        status = self.cluster.data / "postmaster.pid"
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = status.read_text().split("\n")
                if lines[0] == str(process.pid) and any(line.strip() == "ready" for line in lines[7:]):
                    return True
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        raise EmbeddedError(
            f"PostgreSQL {self.installation.version} was not ready after {START_PATIENCE:.0f} s.",
            why=self._last_words(),
            do=(f"Look at its log while it starts:   tail -f {self._log}",),
        )

    def _server(self, port: int, sockets: Path, process: subprocess.Popen[bytes]) -> Server:
        return Server(
            host=HOST,
            port=port,
            user=USER,
            password=self.cluster.password,
            database="postgres",
            socket_dir=sockets,
            data=self.cluster.data,
            log=self._log,
            programs=self.installation.programs,
            version=self.installation.version,
            process_id=process.pid,
            _running=self.running,
        )

    def _failure(self) -> EmbeddedError:
        return EmbeddedError(
            f"PostgreSQL {self.installation.version} ended as soon as it started.",
            why=self._last_words(),
            do=("Its own words above name the cause; settings come from   server(settings={...})",),
        )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return "\n  ".join(lines[-5:]) or "It said nothing."
        return "It left no log."

    @property
    def _log(self) -> Path:
        return self.running.entry.path / "log"


def _configuration(options: Options) -> str:
    """Return the settings as configuration lines: in a file, for a command line is everybody's to read."""
    lines = []
    for name, value in {**({} if options.durable else _NOT_DURABLE), **options.settings}.items():
        if name in _OURS:
            raise EmbeddedError(
                f"the setting {name} is not free.", why="The server's place is its own.", do=(f"Use {_OURS[name]}",)
            )
        if not re.fullmatch(r"[a-zA-Z_][\w.]*", name) or "\n" in str(value):
            raise EmbeddedError(
                f"{name!r} = {value!r} is no setting.",
                why="A setting is a name such as work_mem or auto_explain.log_analyze, and a value on one line.",
            )
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        lines.append(f"{name} = '{_quoted(text)}'\n")
    return "".join(lines)


def _quoted(text: object) -> str:
    return str(text).replace("\\", "\\\\").replace("'", "''")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _busy(port: int) -> EmbeddedError:
    return EmbeddedError(
        f"port {port} is busy.",
        why=f"Another program listens on {HOST}:{port}, or it takes more rights than ours.",
        do=("Let a free one be chosen:   server()", f"or see who has it:   ss -ltnp 'sport = :{port}'"),
    )
