"""Effects outside the database wait for the truth, whichever way a transaction is made."""

import asyncio
import logging
from functools import partial
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemySession

from verdigris import after_commit
from verdigris.database import Database
from verdigris.errors import CommitRefusedError, ConfigurationError, SessionClosedError
from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession


@pytest.fixture
async def db(database_url, admin):
    await admin("CREATE TABLE note (id int PRIMARY KEY)")
    database = Database(database_url, pool_size=1, max_overflow=0, pool_timeout=1)
    yield database
    await database.dispose()


@pytest.fixture
def seen(admin):
    """What a hook saw, asked on a connection of its own: the rows that are stored at its time."""

    class Seen(list):
        async def look(self):
            self.append([row["id"] for row in await admin("SELECT id FROM note ORDER BY id")])

    return Seen()


async def insert(session, number=1):
    await session.execute(text("INSERT INTO note VALUES (:id)"), {"id": number})


async def explicit(db, work):
    async with db.session() as session:
        await work(session)
        await session.commit()


async def block(db, work):
    async with db.session.begin() as session:
        await work(session)


async def inner_block(db, work):
    async with db.session() as session, session.begin():
        await work(session)


async def unit(db, work):
    await db.transaction(work)


WAYS = [explicit, block, inner_block, unit]


@pytest.mark.parametrize("way", WAYS)
async def test_a_hook_runs_when_the_work_is_stored_and_its_connection_free(db, seen, way):
    async def work(session):
        after_commit(session, seen.look)
        await insert(session)
        assert seen == []
        after_commit(session, lambda: seen.append(db.pool_status().in_use))

    await way(db, work)

    assert seen == [[1], 0]


@pytest.mark.parametrize("way", WAYS)
async def test_a_hook_does_not_run_when_the_work_is_rolled_back(db, seen, way):
    async def work(session):
        await insert(session)
        after_commit(session, seen.look)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await way(db, work)
    assert seen == []


async def test_a_hook_does_not_run_when_commit_fails_or_is_refused(db, seen, admin):
    async def swallow(session):
        after_commit(session, seen.look)
        with pytest.raises(exc.DBAPIError):
            await session.execute(text("SELECT 1/0"))

    with pytest.raises(CommitRefusedError):
        await db.transaction(swallow)
    assert seen == []


async def test_a_hook_of_a_savepoint_that_was_rolled_back_does_not_run_and_the_others_do(db, seen):
    async with db.session.begin() as session:
        after_commit(session, lambda: seen.append("outer"))
        await insert(session)
        with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
            async with session.begin_nested():
                after_commit(session, lambda: seen.append("undone"))
                async with session.begin_nested():
                    after_commit(session, lambda: seen.append("undone with it"))
                raise KeyError(1)
        async with session.begin_nested():
            after_commit(session, lambda: seen.append("released"))
        assert seen == []

    assert seen == ["outer", "released"]


async def test_each_transaction_of_a_session_has_its_own_hooks(db, seen):
    async with db.session() as session:
        after_commit(session, lambda: seen.append("first"))
        await session.commit()
        await insert(session)
        after_commit(session, lambda: seen.append("undone"))
        await session.rollback()
        await insert(session)
        after_commit(session, lambda: seen.append("second"))
        await session.commit()

    assert seen == ["first", "second"]


async def test_a_unit_that_is_repeated_runs_the_hooks_of_the_attempt_that_was_stored(db, seen):
    tries = []

    async def work(session):
        tries.append(1)
        after_commit(session, partial(seen.append, len(tries)))
        await insert(session)
        if len(tries) == 1:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    await db.transaction(work)

    assert seen == [2]


async def test_a_hook_that_fails_is_logged_and_neither_the_work_nor_the_others_suffer(db, seen, caplog):
    def fail():
        raise RuntimeError("the mail server is down")

    async with db.session.begin() as session:
        after_commit(session, fail)
        after_commit(session, seen.look)
        await insert(session)

    assert seen == [[1]]
    assert "an after_commit hook failed; what it waited for is stored" in caplog.text
    assert "the mail server is down" in caplog.text


async def test_hooks_go_on_when_the_caller_is_cancelled_while_they_run(db, seen):
    async def slow():
        await asyncio.sleep(0.3)
        seen.append("done")

    async def work(session):
        await insert(session)
        after_commit(session, slow)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(db.transaction(work), 0.1)
    await db.dispose()  # waits for them

    assert seen == ["done"]


async def test_a_hook_may_open_a_session_of_its_own_although_the_pool_is_one_connection(db, seen):
    async def follow_up():
        async with db.session.begin() as session:
            await insert(session, 2)

    async with db.session.begin() as session:
        after_commit(session, follow_up)
        after_commit(session, seen.look)
        await insert(session)

    assert seen == [[1, 2]]


async def test_a_closed_session_takes_no_hook(db):
    async with db.session() as session:
        pass

    with pytest.raises(SessionClosedError):
        after_commit(session, print)


@pytest.mark.parametrize("route_class", [None, Route])
async def test_the_hooks_of_a_request_run_before_its_answer_and_only_if_it_is_stored(db, seen, route_class):
    app, router = FastAPI(), APIRouter(route_class=route_class) if route_class else APIRouter()
    install(app, db)
    session_of = Annotated[AsyncSession, Depends(db.request_session, scope="function")]

    @router.post("/notes/{number}")
    async def create(session: session_of, number: int):
        after_commit(session, seen.look)
        await insert(session, number)
        if number == 2:
            raise HTTPException(409)
        if number == 3:
            return JSONResponse({}, 400)
        return {}

    app.include_router(router)

    async def spy(scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                seen.append(message["status"])
            await send(message)

        await app(scope, receive, sending)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(spy), base_url="http://shop") as http:
        for number in (1, 2, 3):
            await http.post(f"/notes/{number}")

    expected = [[1], 200, 409, 400] if route_class else [[1], 200, 409, [1, 3], 400]
    assert seen == expected


async def test_a_request_that_is_repeated_runs_its_hooks_once(db, seen, caplog):
    app, router = FastAPI(), APIRouter(route_class=Route)
    install(app, db)
    caplog.set_level(logging.INFO, "verdigris")
    calls = []

    @router.post("/notes")
    @retrying(resolve=True)
    async def create(session: Annotated[AsyncSession, Depends(db.request_session, scope="function")]):
        calls.append(1)
        after_commit(session, seen.look)
        await insert(session)
        if len(calls) == 1:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))
        return {}

    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http:
        answer = await http.post("/notes")

    assert answer.status_code == 200
    assert (len(calls), seen) == (2, [[1]])


async def test_a_session_that_no_database_made_is_refused_by_name(db):
    async with SQLAlchemySession(db.engine) as session:
        with pytest.raises(ConfigurationError, match="AsyncSession that no Database made"):
            after_commit(session, print)
