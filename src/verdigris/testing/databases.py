"""Databases for tests: a template made once, clones of it for workers and tests, and no other database ever."""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from verdigris.errors import ConfigurationError
from verdigris.errors.classify import FAILURES
from verdigris.testing.loops import apart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

#: What `COMMENT ON DATABASE name IS '...'` says of a database that tests may use, whatever its name.
MARK = "verdigris: test"

#: Whether somebody has made anything in a database: PostgreSQL's own have smaller numbers.
_EMPTY = """
    SELECT NOT EXISTS (
        SELECT FROM (
            SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_type UNION ALL SELECT oid FROM pg_proc
            UNION ALL SELECT oid FROM pg_namespace UNION ALL SELECT oid FROM pg_extension
        ) AS made WHERE oid >= 16384
    )
"""
_NAMED = re.compile(r"(^|[_.-])(test|tests|testing)\d*($|[_.-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Databases:
    """The server that tests run on, and the databases that are made there; every name holds `test`."""

    url: URL
    prefix: str = "verdigris_test"
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    def url_of(self, name: str) -> str:
        """Return the URL of a database, password included."""
        return self.url.set(database=name).render_as_string(hide_password=False)

    def template(self, schema: Any) -> str:
        """Make the template, filled by `schema`, if this run has not made it; return its name."""
        name = f"{self.prefix}_template"
        if not apart(lambda: self._exists(name)):
            building = f"{name}_building"
            apart(
                lambda: self._run(f'DROP DATABASE IF EXISTS "{building}" WITH (FORCE)', f'CREATE DATABASE "{building}"')
            )
            fill(self.url_of(building), schema)
            apart(lambda: self._run(f'ALTER DATABASE "{building}" RENAME TO "{name}"'))
        return name

    def clone(self, template: str, label: str) -> str:
        """Make a copy of the template and return its name; 20 to 50 ms for a small schema."""
        name = f"{self.prefix}_{label}_{next(self._numbers)}"
        apart(lambda: self._copy(template, name))
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        apart(lambda: self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def drop_all(self) -> None:
        """Drop what this run has made."""
        for name in apart(self._names):
            if name.startswith(self.prefix):
                self.drop(name)

    async def _copy(self, template: str, name: str) -> None:
        async with _connected(self.url, isolation_level="AUTOCOMMIT") as connection:
            # before PostgreSQL 15 files are always copied, and the word is not known
            strategy = " STRATEGY file_copy" if (connection.dialect.server_version_info or ()) >= (15,) else ""
            await connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.exec_driver_sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')

    async def _exists(self, name: str) -> bool:
        return name in await self._names()

    async def _names(self) -> list[str]:
        return [name for (name,) in await self._run("SELECT datname FROM pg_database")]

    async def _run(self, *statements: str) -> list[Any]:
        async with _connected(self.url, isolation_level="AUTOCOMMIT") as connection:
            results = [await connection.exec_driver_sql(statement) for statement in statements]
            return list(results[-1]) if results[-1].returns_rows else []


@asynccontextmanager
async def _connected(url: URL, **options: Any) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url, pool_size=1, **options)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        try:
            connection = await stack.enter_async_context(engine.connect())
        except FAILURES as error:
            raise _no_server(url, error) from error
        yield connection


def _no_server(url: URL, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the tests' server, {url.host or 'this machine'}:{url.port or 5432}, gives no connection to {url.database}: "
        f"{type(error).__name__}: {error}",
        do=(
            "Start it, or name another one:   pytest --verdigris-url postgresql://user@host:port/app_test",
            "or name none, in no variable and setting either: the tests then run on a PostgreSQL of their own.",
        ),
        page="testing/test-database",
    )


def fill(url: str, schema: Any) -> None:
    """Fill the template: MetaData is created; a function is called with the URL, and awaited if it is asynchronous."""
    if schema is None:
        return
    if isinstance(schema, MetaData):
        if not schema.tables:
            raise _no_tables()
        apart(lambda: _create(url, schema))
        return
    if isinstance(schema, type) or not callable(schema):
        raise _no_schema(schema)

    async def call() -> None:
        answer = await asyncio.to_thread(schema, url)  # a migration may run a loop of its own
        if asyncio.iscoroutine(answer):
            await answer

    apart(call)
    if apart(lambda: _is_empty(url)):
        raise _elsewhere(getattr(schema, "__name__", type(schema).__name__), make_url(url).database)


async def _is_empty(url: str) -> bool:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return bool((await connection.exec_driver_sql(_EMPTY)).scalar())
    finally:
        await engine.dispose()


def _elsewhere(name: str, database: str | None) -> ConfigurationError:
    return ConfigurationError(
        f"{name}(), which verdigris_schema gave, made nothing in the tests' database {database}.",
        why="It may have migrated another one: an env.py that takes the URL from the settings goes where they say.",
        do=(
            "Let Alembic's env.py ask who calls it first:",
            'url = config.attributes.get("url") or settings.database_url',
            "and give it the URL of the tests:",
            'config = Config("alembic.ini", attributes={"url": url}); command.upgrade(config, "head")',
            "Tests that need no tables give None for the function.",
        ),
        page="docs/migrating.md",
    )


def _no_tables() -> ConfigurationError:
    return ConfigurationError(
        "the MetaData that the fixture verdigris_schema gave holds no table.",
        why="Models are mapped, and their tables known, when their modules are imported.",
        do=(
            "import app.models   # in conftest.py, before the fixture",
            "or None in its place, for tests that need no tables",
        ),
        page="docs/testing.md",
    )


def _no_schema(schema: Any) -> ConfigurationError:
    name = schema.__name__ if isinstance(schema, type) else type(schema).__name__
    of_it = isinstance(getattr(schema, "metadata", None), MetaData)
    return ConfigurationError(
        f"the fixture verdigris_schema gave {name}, which is neither MetaData nor a function that migrates.",
        why="It says what the tests' databases hold: their template is filled with it once.",
        do=(
            f"Return {name if of_it else 'Base'}.metadata, or a function of the URL:",
            'def migrate(url: str) -> None: command.upgrade(alembic_config(url), "head")',
        ),
        page="docs/testing.md",
    )


async def _create(url: str, schema: MetaData) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(schema.create_all)
    finally:
        await engine.dispose()


def refuse_unless_test(url: str) -> URL:
    """Return the URL if its database may be used by tests: named so, or marked so on the server.

    A database is marked by `COMMENT ON DATABASE name IS 'verdigris: test'`. Raises ConfigurationError for any other,
    which is how tests can't reach production by a variable that is set wrongly.
    """
    from verdigris.database.url import address

    parsed = address(url).url if url else make_url("postgresql+asyncpg://")
    name = parsed.database or ""
    if _NAMED.search(name) or (name and apart(lambda: _marked(parsed))):
        return parsed
    raise ConfigurationError(
        f"{name or 'the default database'} on {parsed.host or 'this machine'} is not named as a test database.",
        why="Tests create and drop databases beside it and write into them; nothing says that they may do so here.",
        do=(
            f"Name one that is:   .../{name or 'app'}_test",
            f"or mark it:   COMMENT ON DATABASE {name or 'app'} IS '{MARK}'",
            "or give no URL: the tests then run on a PostgreSQL of their own.",
        ),
        page="testing/test-database",
    )


async def _marked(url: URL) -> bool:
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    async with _connected(url) as connection:
        return (await connection.exec_driver_sql(query)).scalar() == MARK
