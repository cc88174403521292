"""A PostgreSQL that can be frozen, killed, stopped and started again under the same address; and its standby."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from tests.faults.rig.waits import eventually
from verdigris import embedded
from verdigris.embedded.account import server_account

# A crash of processes must lose nothing that was acknowledged; only a crash of the machine may.
_SETTINGS = {
    "fsync": False,
    "full_page_writes": False,
    "max_connections": 60,
    "wal_level": "replica",
    "max_prepared_transactions": 10,  # SQLAlchemy's own tests ask for it
    "deadlock_timeout": "200ms",
}


class Postgres:
    """One server on a port and a data directory of its own, both kept when it is stopped and started again."""

    def __init__(self, settings=None):
        self.settings = {**_SETTINGS, **(settings or {})}
        self.home = Path(tempfile.mkdtemp(prefix="verdigris-faults-"))
        self.home.chmod(0o711)  # as root the server runs under another account, which has to come through
        self.data = self.home / "data"
        self._context = self.server = self.port = None
        self._frozen = set()

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def prepare(self):
        """Make the data directory; a new one is made by the start itself."""

    def remove(self):
        """Stop the server, whatever state it is in, and remove its files."""
        try:
            self.stop(at_once=True)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    # -- up and down

    def start(self):
        """Start the server, on the port it had before; does nothing while it runs."""
        if self.server is None:
            self._context = embedded.server(data=self.data, port=self.port, settings=self.settings)
            self.server = self._context.__enter__()
            self.port = self.server.port

    def stop(self, *, at_once=False):
        """Stop the server: by a fast shutdown, or at once, as after a crash: what is in flight is not answered."""
        if self.server is None:
            return
        self.thaw()
        if at_once:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.server.process_id, signal.SIGQUIT)
        context, self._context, self.server = self._context, None, None
        context.__exit__(None, None, None)

    def restart(self, *, at_once=False):
        self.stop(at_once=at_once)
        self.start()

    # -- freezing and killing

    def freeze(self, *pids):
        """Stop the processes with these ids, or all of the server's, in mid-air: sockets stay open, nothing answers."""
        for pid in pids or (self.server.process_id, *_children(self.server.process_id)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._frozen.add(pid)

    def thaw(self):
        """Let everything that was frozen go on."""
        while self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._frozen.pop(), signal.SIGCONT)

    def kill_backend(self, pid):
        """Kill one backend as the system's out-of-memory killer would; the server then recovers, all others die."""
        if pid not in _children(self.server.process_id):
            raise ProcessLookupError(f"{pid} is no backend of this server")
        os.kill(pid, signal.SIGKILL)

    # -- beside the code under test

    def url_for(self, database):
        return self.server.url_for(database)

    async def run(self, statement, *values, database="postgres"):
        """Run a statement on a connection of its own, past every proxy, and return its rows.

        A server that recovers from a crash is waited for.
        """
        connection = await eventually(lambda: self._connection(database))
        try:
            if ";" in statement:  # several: no rows then
                return await connection.execute(statement, timeout=20)
            return await connection.fetch(statement, *values, timeout=20)
        finally:
            connection.terminate()

    async def _connection(self, database):
        with contextlib.suppress(asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return await asyncpg.connect(
                host=str(self.server.socket_dir), port=self.port, user=self.server.user, database=database, timeout=10
            )

    async def backends(self, database, *, busy=False):
        """Return what the server says about the clients of a database; with `busy` those that are not idle."""
        return await self.run(
            "SELECT pid, state, query, wait_event_type FROM pg_stat_activity WHERE datname = $1"
            " AND backend_type = 'client backend'" + (" AND state <> 'idle'" if busy else ""),
            database,
        )


class Standby(Postgres):
    """A hot standby of another server, by streaming replication."""

    def __init__(self, primary, settings=None):
        super().__init__({**primary.settings, "hot_standby": True, **(settings or {})})
        self.primary = primary

    def prepare(self):
        account = server_account()
        account.own(self.home)
        subprocess.run(
            [
                str(self.primary.server.programs / "pg_basebackup"),
                *("-h", str(self.primary.server.socket_dir), "-p", str(self.primary.port)),
                *("-U", self.primary.server.user, "-D", str(self.data)),
                *("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
            cwd="/",
            **account.identity(),
        )

    async def promote(self):
        """Make this server a primary, as a failover does."""
        assert (await self.run("SELECT pg_promote(true, 30)"))[0][0]

    async def caught_up(self):
        """Say whether everything the primary has written is applied here."""
        written = (await self.primary.run("SELECT pg_current_wal_lsn()::text"))[0][0]
        return (await self.run("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written))[0][0]


def _children(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if children.exists():
        return [int(each) for each in children.read_text().split()]
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.split()[1] == str(pid)]
