"""The migrations make what the models say."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
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
async def connection(db):
    """A connection to the migrated database, in a transaction that is rolled back."""
    async with db.engine.connect() as connection, connection.begin() as transaction:
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


async def test_a_downgrade_leaves_no_table(connection):
    def downgrade(connection: Connection) -> list[str]:
        config = Config(Path(__file__).parents[1] / "alembic.ini")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        return inspect(connection).get_table_names()

    assert await connection.run_sync(downgrade) == ["alembic_version"]
