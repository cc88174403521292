"""Runs SQLAlchemy's own asyncio tests, from the source of the installed version, with our session class for theirs.

What is ours must be substitutable: whatever SQLAlchemy promises of an AsyncSession, ours keeps. The source comes from
the package index through pip, checked against the hashes in the constraints, and is kept inside the environment.

usage: python tools/sqlalchemy_suite.py [--driver] [PYTEST ARGUMENT...]

With --driver every engine of the tests gets our dialect's overrides, driver connection and pool as well, and every
session reads lean.
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
from typing import Any

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ("constraints.txt", "constraints-older.txt")
TESTS = "test/ext/asyncio"
# What SQLAlchemy's README.unittests.rst asks of a database.
PREPARED = (
    "CREATE SCHEMA test_schema",
    "CREATE SCHEMA test_schema_2",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
)
SETTINGS = {"max_prepared_transactions": 10, "default_text_search_config": "pg_catalog.english", "max_connections": 60}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", action="store_true", help="our driver connection, dialect overrides and pool too")
    options, arguments = parser.parse_known_args()
    from verdigris import embedded

    source = unpacked(version("sqlalchemy"))
    with embedded.server(durable=False, settings=SETTINGS) as postgres:
        prepare(postgres.url_for("postgres", driver="postgresql"))
        # -s keeps SQLAlchemy's conftest from putting the unpacked source before the installed, compiled package
        command = [sys.executable, "-s", "-m", "pytest", "-p", Path(__file__).stem, "-p", "no:asyncio", "-q"]
        # verdigris' own pytest plugin has nothing to do here
        command += ["-p", "no:verdigris", "--dburi", postgres.url, TESTS, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tools")])}
        environment["VERDIGRIS_SUITE_DRIVER"] = "1" if options.driver else ""
        return subprocess.run(command, cwd=source, env=environment, check=False, timeout=900).returncode


def unpacked(wanted: str) -> Path:
    """Return the directory with the source of this version, fetched once."""
    kept = Path(sys.prefix) / "sqlalchemy-suite"
    source = kept / f"sqlalchemy-{wanted}"
    if (source / TESTS).is_dir():
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


# -- the plugin: this module is also loaded by pytest, in the run that `main` starts


def pytest_configure() -> None:
    """Put our classes where the tests will import theirs from."""
    import sqlalchemy.ext.asyncio as theirs
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from verdigris.session import AsyncSession

    AsyncSession.__name__ = "AsyncSession"  # some messages name the class
    theirs.AsyncSession = AsyncSession  # type: ignore[misc]
    theirs.session.AsyncSession = AsyncSession  # type: ignore[misc]
    defaults: dict[str, Any] = async_sessionmaker.__init__.__kwdefaults__
    defaults["class_"] = AsyncSession
    if os.environ.get("VERDIGRIS_SUITE_DRIVER"):
        _adapt_every_engine()
        _read_lean(AsyncSession)


def _adapt_every_engine() -> None:
    from sqlalchemy import create_engine, engine, event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    from verdigris.engine.dialect import adapt
    from verdigris.engine.driver import DriverSettings
    from verdigris.engine.pool import Pool

    del create_engine, engine, event
    original = Engine.__init__

    def made(self: Engine, pool: Any, dialect: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(dialect, "driver", "") == "asyncpg":
            adapt(dialect, DriverSettings())
            if type(pool) is AsyncAdaptedQueuePool:  # not adopt(): create_engine() has yet to listen to this very pool
                pool.__class__ = Pool
        original(self, pool, dialect, *args, **kwargs)

    Engine.__init__ = made  # type: ignore[method-assign]


def _read_lean(session: Any) -> None:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from verdigris.concurrency import Budget
    from verdigris.engine.lane import Lane
    from verdigris.engine.lean import LeanReads

    known: dict[int, tuple[AsyncEngine, LeanReads]] = {}
    original = session.__init__

    def made(self: Any, bind: Any = None, **options: Any) -> None:
        if isinstance(bind, AsyncEngine) and bind.dialect.driver == "asyncpg":
            if id(bind) not in known:
                known[id(bind)] = (bind, LeanReads(bind.sync_engine, Lane(bind, Budget())))
            options.setdefault("lean", known[id(bind)][1])
        original(self, bind, **options)

    session.__init__ = made


if __name__ == "__main__":
    sys.exit(main())
