import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tests.library.loading.json import models

from verdigris import Database


@pytest.fixture(scope="session")
def shop_url(postgres):
    """The URL of a database with the rows of `models.rows()`, which tests leave as they are."""

    async def fill(url):
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(models.Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(models.rows())
            await session.commit()
        await engine.dispose()

    async def create():
        engine = create_async_engine(postgres.url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.exec_driver_sql("CREATE DATABASE json_shop")
        await engine.dispose()

    asyncio.run(create())
    asyncio.run(fill(postgres.url_for("json_shop")))
    return postgres.url_for("json_shop")


@pytest.fixture
async def db(shop_url):
    database = Database(shop_url)
    yield database
    await database.dispose()
