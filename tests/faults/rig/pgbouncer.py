"""PgBouncer before a server, where the machine has it."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.faults.rig.waits import NotHere
from verdigris.embedded.account import server_account

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"


class PgBouncer:
    """A PgBouncer on a free port of the loopback address that leads to every database of a server."""

    def __init__(self, postgres, *, mode="transaction", size=5, **settings):
        self.postgres = postgres
        self.settings = {"pool_mode": mode, "default_pool_size": size, "max_client_conn": 200, **settings}
        self.port = self._process = self._home = None

    def __enter__(self):
        program = shutil.which("pgbouncer", path=_PLACES)
        if program is None:
            raise NotHere("PgBouncer is not installed (apt-get install pgbouncer)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._home = Path(tempfile.mkdtemp(prefix="verdigris-pgbouncer-"))
        (self._home / "pgbouncer.ini").write_text(self._configuration())
        server_account().own(self._home)
        try:
            self._start(program)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def restart(self):
        """Stop at once and start again, under the same address: every client is cut off."""
        self._stop()
        self._start(shutil.which("pgbouncer", path=_PLACES))

    def _start(self, program):
        self._process = subprocess.Popen(
            [program, "--quiet", str(self._home / "pgbouncer.ini")],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **server_account().identity(),
        )
        self._wait()

    def _stop(self):
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)

    def url_for(self, database, *, driver="postgresql+asyncpg"):
        return f"{driver}://app:app@127.0.0.1:{self.port}/{database}"

    def _configuration(self):
        server = self.postgres.server
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "logfile": self._home / "log",
            **self.settings,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        return (
            f"[databases]\n* = host={server.host} port={server.port} user={server.user} password={server.password}\n"
            f"[pgbouncer]\n{lines}\n"
        )

    def _wait(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        log = self._home / "log"
        raise RuntimeError(f"PgBouncer did not start: {log.read_text() if log.exists() else 'it said nothing'}")
