"""Run the shop's migrations, on the database of the environment or the one whose URL a caller gives."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from verdigris import Base, Database

import shop.models  # noqa: F401 - the import is what describes the tables


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    db = Database(context.config.attributes.get("url"))
    async with db.engine.connect() as connection:
        await connection.run_sync(migrate)
    await db.dispose()


asyncio.run(main())
