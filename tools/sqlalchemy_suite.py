"""Runs SQLAlchemy's own tests, from the source of the installed version, with our classes for theirs.

What is ours must be substitutable: whatever SQLAlchemy promises of a session, ours keeps. The source comes from the
package index through pip, checked against the hashes in the constraints, and is kept inside the environment.

usage: python tools/sqlalchemy_suite.py [MODE ...] [-- PYTEST ARGUMENT...]

plain      its tests of asyncio, with our session class, by itself
database   its tests of asyncio, with sessions and engines as a Database makes them: dialect, driver, pool, lean reads
orm        its tests of the ORM over asyncpg, every plain select() and get() read lean, COMMIT sent ahead
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ("constraints.txt", "constraints-older.txt")
ASYNCIO = "test/ext/asyncio"
# Of the ORM: all, but for the tests of declarative mapping, which load next to nothing.
ORM = ("test/orm", "--ignore=test/orm/declarative", "test/ext/test_associationproxy.py", "test/ext/test_hybrid.py")
MODES = {"plain": (ASYNCIO,), "database": (ASYNCIO,), "orm": ORM}
# What SQLAlchemy's README.unittests.rst asks of a database.
PREPARED = (
    "CREATE SCHEMA test_schema",
    "CREATE SCHEMA test_schema_2",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
)
SETTINGS = {"max_prepared_transactions": 10, "default_text_search_config": "pg_catalog.english", "max_connections": 60}
SECONDS = 1500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="*", choices=[*MODES, []], help="which; all by default")
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    modes = parser.parse_args(given[:split]).modes or list(MODES)
    return max([run(mode, given[split + 1 :]) for mode in modes])


def run(mode: str, arguments: list[str]) -> int:
    from verdigris import embedded

    source = unpacked(version("sqlalchemy"))
    print(f"== {mode}", flush=True)
    with embedded.server(durable=False, settings=SETTINGS) as postgres:
        prepare(postgres.url_for("postgres", driver="postgresql"))
        # -s keeps SQLAlchemy's conftest from putting the unpacked source before the installed, compiled package
        command = [sys.executable, "-s", "-m", "pytest", "-p", "sqlalchemy_substituted", "-p", "no:asyncio", "-q"]
        # verdigris' own pytest plugin has nothing to do here
        command += ["-p", "no:verdigris", "--dburi", postgres.url, *arguments]
        if not any(each.startswith("test/") for each in arguments):
            command += MODES[mode]
        if mode == "orm":
            command += ["-n", "2"]  # four minutes
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tools")])}
        environment["VERDIGRIS_SUITE"] = mode
        return subprocess.run(command, cwd=source, env=environment, check=False, timeout=SECONDS).returncode


def unpacked(wanted: str) -> Path:
    """Return the directory with the source of this version, fetched once."""
    kept = Path(sys.prefix) / "sqlalchemy-suite"
    source = kept / f"sqlalchemy-{wanted}"
    if (source / ASYNCIO).is_dir():
        return source
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as work:
        pinned = Path(work, "pinned.txt")
        pinned.write_text(pin_of(wanted))
        fetch = ["download", "--quiet", "--no-deps", "--no-binary", "sqlalchemy", "--require-hashes"]
        subprocess.run(
            [sys.executable, "-m", "pip", *fetch, "--dest", work, "--requirement", str(pinned)], check=True, timeout=300
        )
        (archive,) = Path(work).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        Path(work, source.name).rename(source)
    return source


def pin_of(wanted: str) -> str:
    """Return the line of the constraints that pins SQLAlchemy to this version, with its hashes."""
    for name in CONSTRAINTS:
        found = re.search(rf"^sqlalchemy=={re.escape(wanted)} (?:.*\\\n)*.*$", (ROOT / name).read_text(), re.MULTILINE)
        if found is not None:
            return found[0] + "\n"
    raise SystemExit(f"SQLAlchemy {wanted} is installed, which none of {', '.join(CONSTRAINTS)} pins.")


def prepare(url: str) -> None:
    import asyncio

    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(url)
        for statement in PREPARED:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
