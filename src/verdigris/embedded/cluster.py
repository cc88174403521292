"""A data directory: made from a template that initdb built once, or one that was kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.embedded.errors import EmbeddedError
from verdigris.embedded.runtime import drop_dead_lock, postmaster, unwritable

if TYPE_CHECKING:
    from verdigris.embedded.account import Account
    from verdigris.embedded.provider import Installation
    from verdigris.embedded.runtime import Entry

USER = "postgres"
_PASSWORD_FILE = "verdigris.password"  # noqa: S105 - a file's name
# The socket's directory is private; on TCP any account of the machine may knock, so there it takes a password.
_HBA = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""
_BUILTIN_LOCALES = 17
_SETTINGS_AT_INITDB = 16
_NO_INSTRUCTIONS = 14


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory that is ready to be served."""

    data: Path
    password: str | None


def make_cluster(data: Path, installation: Installation, account: Account, *, workspace: Path) -> Cluster:
    """Fill the empty directory `data` from the template of this installation; a copy costs a fifth of an initdb."""
    try:
        template = _template(installation, account, workspace)
        shutil.copytree(template, data, copy_function=shutil.copyfile, dirs_exist_ok=True)
        data.chmod(0o700)
        account.own(data)
    except OSError as error:
        raise unwritable(data, error) from error
    return Cluster(data, _password(data))


def open_cluster(data: Path, installation: Installation, account: Account, entry: Entry) -> Cluster:
    """Check a data directory that was kept, or make it if it is not there.

    Raises EmbeddedError if another server runs on it, another major version made it, or it is something else.
    """
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return _new_kept(data, installation, account, entry)
    except OSError as error:
        raise unwritable(data, error) from error
    if version != str(installation.major):
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {version}, and {installation.source} is PostgreSQL {installation.version}.",
            why="A data directory can be opened by its own major version only.",
            do=(
                f'Open it with that version:   provider=Machine(Path("/usr/lib/postgresql/{version}/bin"))',
                f"or move the data over:   pg_dumpall from {version}, psql into a new directory.",
            ),
        )
    _check_reach(data, account)
    _take(data, entry)
    drop_dead_lock(data)
    return Cluster(data, _password(data))


def _take(data: Path, entry: Entry) -> None:
    running = postmaster(data)
    if running is not None or not entry.hold(data):
        who = f"process {running}" if running else "it is about to start"
        raise EmbeddedError(
            f"a server already runs on {data} ({who}).",
            why="Two servers on one data directory would destroy it.",
            do=("Use that server", f"or stop it first:   kill -INT {running or '<its process>'}"),
        )


def _new_kept(data: Path, installation: Installation, account: Account, entry: Entry) -> Cluster:
    try:
        if data.exists() and any(data.iterdir()):
            raise EmbeddedError(
                f"{data} holds files, but no PostgreSQL data directory.",
                why="A new one is made only where there is nothing.",
                do=("Name an empty or a new directory:   server(data=...)",),
            )
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(data, error) from error
    _check_reach(data, account)
    _take(data, entry)
    cluster = make_cluster(data, installation, account, workspace=entry.path)
    _run(installation, account, "--sync-only", "-D", str(data))  # what is kept must survive a power cut from the start
    return cluster


def _check_reach(data: Path, account: Account) -> None:
    if not account.reaches(data):
        raise EmbeddedError(
            f"the account {account.name} cannot enter the directories above {data}.",
            why="PostgreSQL does not run as root, so it runs under that account.",
            do=("Name a directory it can enter, such as one below /var/lib", "or run as an ordinary account."),
        )


def _password(data: Path) -> str | None:
    """Return the password of a directory made here; None for one that another tool made, with rules of its own."""
    try:
        return (data / _PASSWORD_FILE).read_text()
    except OSError:
        return None


def _template(installation: Installation, account: Account, workspace: Path) -> Path:
    """Return this installation's initialised, never started data directory, building it once."""
    key = hashlib.sha256((installation.programs / "initdb").read_bytes() + _HBA.encode()).hexdigest()[:12]
    template = _cache_directory() / f"template-{installation.version}-{account.name}-{key}"
    if (template / "PG_VERSION").exists():
        return template
    with tempfile.TemporaryDirectory(prefix="initdb-", dir=workspace) as work:
        directory = Path(work)
        account.own(directory)
        _initdb(directory / "data", directory / "password", installation, account)
        try:
            return _store(directory / "data", template)
        except OSError:
            # a home that can't be written costs half a second per start, nothing else
            kept = workspace / "template"
            (directory / "data").rename(kept)
            return kept


def _store(made: Path, template: Path) -> Path:
    template.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{template.name}-", dir=template.parent))
    try:
        shutil.copytree(made, unfinished, copy_function=shutil.copyfile, dirs_exist_ok=True)
        with contextlib.suppress(FileExistsError, OSError):
            unfinished.rename(template)  # refused where another process was first: theirs is as good
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if not (template / "PG_VERSION").exists():
        raise OSError(f"{template} was not made")
    return template


def _cache_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path("~/.cache").expanduser()) / "verdigris"


def _initdb(data: Path, password_file: Path, installation: Installation, account: Account) -> None:
    password = secrets.token_hex(16)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    account.own(password_file)
    locale = (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # sorts alike on every machine
        if installation.major >= _BUILTIN_LOCALES
        else ["--no-locale"]
    )
    # one round is enough: the password is 128 random bits, and every connection pays for each round
    rounds = ["-c", "scram_iterations=1"] if installation.major >= _SETTINGS_AT_INITDB else []
    quiet = ["--no-instructions"] if installation.major >= _NO_INSTRUCTIONS else []
    _run(
        installation,
        account,
        *("-D", str(data), "-U", USER, "--encoding=UTF8", "--auth-host=scram-sha-256", "--auth-local=trust"),
        *(f"--pwfile={password_file}", "--no-sync", *quiet, *locale, *rounds),
    )
    (data / "pg_hba.conf").write_text(_HBA)
    stored = data / _PASSWORD_FILE
    stored.touch(mode=0o600)
    stored.write_text(password)


def _run(installation: Installation, account: Account, *arguments: str) -> None:
    command = [str(installation.programs / "initdb"), *arguments]
    made = subprocess.run(
        command, cwd="/", env=environment(), capture_output=True, text=True, check=False, **account.identity()
    )
    if made.returncode:
        raise EmbeddedError(
            f"initdb of {installation.source} could not make a data directory.",
            why="\n  ".join(made.stderr.strip().splitlines()[-5:]),
            do=("Try a server installed by the system:   server(provider=Machine())",),
        )


def environment() -> dict[str, str]:
    """Return what PostgreSQL's programs get to see: none of the caller's PG* variables, UTC, the C locale."""
    passed = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C", "TZ": "UTC", **{name: os.environ[name] for name in passed if name in os.environ}}
