"""The demo's stage: the shop's own commands, run as a user would run them, each in a process that is stopped again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.checker.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.report.report import Report

HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds for the shop to answer, and to stop
NEEDED = (
    "alembic",
    "asyncpg",
    "fastapi",
    "httpx",
    "prometheus_client",
    "python_multipart",
    "sqlalchemy",
    "uvicorn",
    "websockets",
)


class StageError(UsageError):
    """A step of the demo failed; what it wrote is part of the message."""


def equipped() -> None:
    """Ask for what the shop imports before anything is started; raise `StageError` that names what is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise StageError(
            f"The shop cannot run here: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            why="The demo serves a whole application, which needs more than the checker.",
            do=('pip install "verdigris[demo]"   # in a clone: pip install ".[demo]", or make demo',),
        )


def shop_directory() -> Path:
    """Find the shop: beside the sources in a clone, inside the package where it was installed."""
    package = Path(__file__).parents[1]
    for path in (package.parents[1] / "examples" / "shop", package / "_shop"):
        if (path / "alembic.ini").exists():
            return path
    raise StageError(
        "The example shop is not here.",
        why="The demo serves it; it lies in examples/shop of a clone and in the wheel.",
        do=("make demo   # in a clone",),
    )


def free_port(wanted: int | None) -> int:
    """Return a port of the loopback address that is free: the one asked for, or any."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise StageError(
                f"Port {wanted} cannot be had: {error.strerror}.",
                why="The shop listens there for the visitors.",
                do=("verdigris demo   # takes a free port", f"verdigris demo --port {(wanted or 8000) + 1}"),
            ) from error
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Stage:
    """One shop with its database: how to make it, serve it, drive it and prove it."""

    shop: Path
    database_url: str = field(repr=False)
    port: int
    output: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where the shop listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def recording(self) -> Path:
        """Where the recording goes."""
        return self.output / "recording.json"

    @property
    def environment(self) -> dict[str, str]:
        """What the shop's processes see: this database, and none that the user's shell names."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "VERDIGRIS_", "DATABASE_"))
        }
        paths = [str(self.shop), *([kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else [])]
        return kept | {"DATABASE_URL": self.database_url, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}

    def migrate(self) -> None:
        """Make the tables by the shop's own migrations."""
        self._run("the migrations", "-m", "alembic", "upgrade", "head")

    def seed(self) -> None:
        """Load the shop's year of trade; its progress goes to standard error."""
        code = subprocess.run(
            [sys.executable, "-m", "shop.seed"], cwd=self.shop, env=self.environment, check=False
        ).returncode
        if code:
            raise StageError("The shop could not be loaded.", why=f"`python -m shop.seed` ended with {code}.")

    def drive(self, seconds: float) -> str:
        """Let visitors use every route for a while; return the table of what was answered."""
        return self._run("the visitors", "-m", "shop.traffic", self.address, str(seconds))

    def _run(self, who: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.shop,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise StageError(
                f"{who.capitalize()} failed with exit code {done.returncode}.",
                why="The demo proves nothing about a shop that does not run.",
                do=tuple((done.stderr or done.stdout).strip().splitlines()[-12:]),
            )
        return done.stdout

    @contextlib.contextmanager
    def served(self, *, record: bool) -> Iterator[None]:
        """Serve the shop for the length of a block, under the recorder or not."""
        serve = [
            sys.executable,
            "-m",
            "uvicorn",
            "shop.main:app",
            "--host",
            HOST,
            "--port",
            str(self.port),
            "--no-access-log",
        ]
        recorder = [
            sys.executable,
            "-m",
            "verdigris",
            "record",
            "--output",
            str(self.recording),
            "--root",
            str(self.shop),
            "--",
        ]
        log = self.output / "shop.log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [*recorder, *serve] if record else serve,
                cwd=self.shop,
                env=self.environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            try:
                self._await_health(log)
                yield
            finally:
                self._stop()

    def _await_health(self, log: Path) -> None:
        assert self._process is not None  # noqa: S101 - served() set it
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"{self.address}/health", timeout=2),  # noqa: S310 - our own address
            ):
                return
            time.sleep(0.1)
        raise StageError(
            "The shop did not come up.",
            why=f"It was to answer on {self.address}/health.",
            do=tuple(log.read_text("utf-8", "replace").strip().splitlines()[-12:]),
        )

    def _stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)  # SIGINT is ignored below a shell that runs in the background
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self) -> None:
        """Wait until the shop ends or Ctrl-C is pressed."""
        if self._process is not None:
            self._process.wait()

    def prove(self) -> Report:
        """Check the shop on all three kinds of evidence."""
        from verdigris.checker.check import Plan, check
        from verdigris.checker.config import find

        config = find(self.shop)
        return check(
            Plan(
                self.shop,
                shown=self.shop.name,
                recordings=(self.recording,),
                database_url=self.database_url,
                workers=config.workers,
                accepted=config.accept,
                exclude=config.exclude,
                cache=False,
            )
        )
