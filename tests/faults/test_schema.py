"""A schema that changes under a running service."""

import asyncio

import pytest
from sqlalchemy import text

from tests.faults.service import Work, come_back
from verdigris import Database


@pytest.fixture
def select(db):
    async def select(session):
        await session.execute(text("SELECT * FROM account"))

    return select


async def changed(db, admin, select):
    """Let the pool's connections plan a statement, and change the table under them."""
    await asyncio.gather(*(db.transaction(Work(select)) for _ in range(2)))
    await admin("UPDATE account SET balance = 0")
    await admin("ALTER TABLE account ADD COLUMN note text")


async def test_a_plan_that_the_schema_outlived_repeats_the_unit_and_stores_it_once(db, admin, select, balance, whole):
    await changed(db, admin, select)

    await asyncio.gather(db.transaction(Work(select)), db.transaction(Work(select)))

    assert await balance() == 2
    assert await whole()


async def test_a_plan_that_the_schema_outlived_answers_200_on_a_retried_route(db, service, admin, select, balance):
    await changed(db, admin, select)

    assert (await service.ask("retried", Work(select))).status_code == 200
    assert await balance() == 1


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_plan_that_the_schema_outlived_answers_503_and_the_next_request_works(
    db, service, admin, select, balance, way
):
    await changed(db, admin, select)

    assert come_back(await service.ask(way, Work(select)))
    assert (await service.ask(way, Work(select))).status_code == 200
    assert await balance() == 1


@pytest.fixture
async def mood(admin):
    await admin("CREATE TYPE mood AS ENUM ('calm', 'wild')")
    await admin("CREATE TABLE face (mood mood)")
    await admin("INSERT INTO face VALUES ('calm')")

    async def again():
        await admin("ALTER TABLE face ALTER mood TYPE text")
        await admin("DROP TYPE mood")
        await admin("CREATE TYPE mood AS ENUM ('calm', 'wild', 'sleepy')")
        await admin("ALTER TABLE face ALTER mood TYPE mood USING mood::mood")

    return again


@pytest.mark.parametrize("way", ["unit", "retried"])
async def test_an_enum_that_was_made_anew_costs_nobody_an_error(db, service, mood, balance, way):
    async def look(session):
        await session.execute(text("SELECT mood FROM face WHERE mood = CAST(:mood AS mood)"), {"mood": "calm"})

    async def work():
        if way == "unit":
            return await db.transaction(look_and_add)
        return await service.ask(way, look_and_add)

    async def look_and_add(session):
        await look(session)
        await Work()(session)

    await work()
    await mood()
    for _ in range(3):
        answer = await work()
        assert answer is None or answer.status_code == 200

    assert await balance() == 4


async def test_a_table_that_is_locked_by_a_migration_ends_with_lock_timeout_or_statement_timeout(
    postgres, database, proxy, admin
):
    db = Database(proxy.url(postgres.url_for(database)), statement_timeout=0.3)
    async with db.session.begin() as migration:
        await migration.execute(text("LOCK TABLE account IN ACCESS EXCLUSIVE MODE"))

        answer = await type_of_service(db).ask("plain", Work())

    assert answer.status_code == 504
    await db.dispose()


def type_of_service(db):
    from tests.faults.service import Service

    return Service(db)
