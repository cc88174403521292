"""The migrations make what the models say."""

import asyncio
from collections.abc import Sequence

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Row, inspect, text
from verdigris import Base

CONSTRAINTS = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    ORDER BY 1, 2
""")
INDEXES = text("""
    SELECT tablename, indexname, replace(indexdef, current_schema() || '.', '') FROM pg_indexes
    WHERE schemaname = current_schema() AND tablename <> 'alembic_version'
    ORDER BY 1, 2
""")


@pytest.fixture
async def connection(verdigris_database):
    """A connection to the migrated database, in a transaction that is rolled back."""
    async with verdigris_database.engine.connect() as connection, connection.begin() as transaction:
        yield connection
        await transaction.rollback()


def describe(connection: Connection) -> list[Sequence[Row]]:
    return [connection.execute(query).all() for query in (CONSTRAINTS, INDEXES)]


async def test_autogenerate_finds_nothing_to_do(connection):
    def differences(connection: Connection) -> object:
        settings = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=settings), Base.metadata)

    assert await connection.run_sync(differences) == []


async def test_constraints_and_indexes_are_the_models_to_the_letter(connection):
    migrated = await connection.run_sync(describe)

    await connection.execute(text("CREATE SCHEMA models"))
    await connection.execute(text("SET LOCAL search_path = models"))
    await connection.run_sync(Base.metadata.create_all)

    assert migrated == await connection.run_sync(describe)


async def test_a_downgrade_leaves_no_table(verdigris_database, alembic):
    url = verdigris_database.url.render_as_string(hide_password=False)

    await asyncio.to_thread(command.downgrade, alembic(url), "base")

    async with verdigris_database.engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["alembic_version"]
