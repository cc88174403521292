"""Run the shop's migrations on its own database, or on a connection that the caller brings."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from verdigris import Base

import shop.models  # noqa: F401 - the import is what describes the tables
from shop.database import db


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    async with db.engine.connect() as connection:
        await connection.run_sync(migrate)
    await db.dispose()


brought: Connection | None = context.config.attributes.get("connection")
if brought is not None:
    migrate(brought)
else:
    asyncio.run(connect_and_migrate())
