import asyncio
import time

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from verdigris import Database
from verdigris.engine.handoff import HandOffQueue
from verdigris.errors import PoolExhaustedError
from verdigris.fastapi import install

PATIENCE = 20.0  # of the pool: no test waits so long, so whoever is refused was refused at once


@pytest.fixture
async def make(database_url):
    made = []

    def database(**options):
        db = Database(database_url, **{"pool_size": 2, "max_overflow": 0, "pool_timeout": PATIENCE, **options})
        made.append(db)
        return db

    yield database
    for db in made:
        await db.dispose()


async def answers(session, value=1):
    return await session.scalar(text("SELECT CAST(:value AS int)"), {"value": value})


async def test_two_sessions_per_request_do_not_wait_for_each_other_for_ever(make):
    db, meeting = make(), asyncio.Barrier(2)

    async def request():
        async with db.session() as first:
            await answers(first)
            await meeting.wait()  # both connections are held, and both ask for another
            async with db.session() as second:
                return await answers(second)

    done = await asyncio.wait_for(asyncio.gather(request(), request(), return_exceptions=True), PATIENCE / 2)

    (refused,) = (one for one in done if isinstance(one, PoolExhaustedError))
    assert 1 in done
    assert "no connection can come free: all 2 are held by tasks that wait for another one" in str(refused)
    assert "test_waiting.py" in str(refused)
    assert db.pool_status().in_use == 0


async def test_waiting_for_a_task_that_works_is_no_deadlock(make):
    db = make()
    release = asyncio.Event()

    async def works():
        async with db.session() as session:
            await answers(session)
            await release.wait()

    async def nests():
        async with db.session() as first:
            await answers(first)
            async with db.session() as second:
                return await answers(second)

    holder = asyncio.create_task(works())
    await asyncio.sleep(0.05)
    nested = asyncio.create_task(nests())
    await asyncio.sleep(0.05)
    release.set()

    assert await asyncio.wait_for(nested, PATIENCE / 2) == 1
    await holder


async def test_a_gather_inside_of_the_last_session_is_refused_at_once(make):
    db = make()
    meeting = asyncio.Barrier(2)

    async def request():
        async with db.session() as session:
            await answers(session)
            await meeting.wait()
            return await db.gather(answers, answers)

    done = await asyncio.wait_for(asyncio.gather(request(), request(), return_exceptions=True), PATIENCE / 2)

    assert any(isinstance(one, PoolExhaustedError) for one in done)
    assert all(isinstance(one, PoolExhaustedError) or one == (1, 1) for one in done)
    assert db.pool_status().in_use == 0


async def test_a_gather_inside_of_a_session_works_while_the_pool_has_more(make):
    db = make(pool_size=3)

    async with db.session() as session:
        await answers(session)
        assert await db.gather(*(lambda s, n=n: answers(s, n) for n in range(6))) == tuple(range(6))


async def test_a_task_with_two_connections_is_named_once_a_place(make, caplog):
    db = make()
    for _ in range(3):
        async with db.session() as first:
            await answers(first)
            async with db.session() as second:
                await answers(second)

    assert caplog.text.count("holds a connection and asks for another: 2 of them at once") == 1
    assert "test_waiting.py" in caplog.text


async def test_one_session_after_the_other_is_not_named(make, caplog):
    db = make()
    for _ in range(3):
        async with db.session() as session:
            await answers(session)
    async with db.session() as session:
        await answers(session)
        await session.commit()
        await db.transaction(answers)

    assert "asks for another" not in caplog.text


async def test_the_line_before_the_pool_may_have_an_end(make):
    db = make(max_waiting=3)
    release = asyncio.Event()

    async def slow(session):
        await answers(session)
        await release.wait()

    holders = [asyncio.create_task(db.transaction(slow)) for _ in range(2)]
    await asyncio.sleep(0.1)
    waiting = [asyncio.create_task(db.transaction(answers)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(PoolExhaustedError, match="3 callers wait for a connection already"):
        await asyncio.wait_for(db.transaction(answers), PATIENCE / 4)
    release.set()

    assert await asyncio.gather(*waiting) == [1, 1, 1]
    await asyncio.gather(*holders)
    assert await db.transaction(answers) == 1


async def test_beyond_the_end_of_the_line_the_answer_is_503_with_retry_after(make):
    db = make(max_waiting=1)
    app, release = FastAPI(), asyncio.Event()
    install(app, db)

    @app.get("/slow")
    async def slow(session=Depends(db.request_session, scope="function")):
        await answers(session)
        await release.wait()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        served = [asyncio.create_task(client.get("/slow")) for _ in range(3)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        refused = await asyncio.wait_for(client.get("/slow"), PATIENCE / 4)
        release.set()
        done = [response.status_code for response in await asyncio.gather(*served)]

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert done == [200, 200, 200]
    assert time.monotonic() - began < PATIENCE


async def test_one_whose_turn_brings_a_dead_connection_gets_a_new_one_though_the_pool_has_filled(make):
    db = make(pool_size=1, max_overflow=1)
    await db.start()
    dead, sound = [await greenlet_spawn(db.engine.sync_engine.pool.connect) for _ in range(2)]
    waiting = asyncio.create_task(db.lane.fetch("SELECT 1 AS one"))
    await asyncio.sleep(0.05)

    dead.invalidate()  # to the one who waits, and before it runs
    sound.close()  # the other one fills the pool

    assert [row["one"] for row in await waiting] == [1]
    assert (db.pool_status().in_use, db.pool_status().idle) == (0, 1)


async def test_waits_that_are_served_have_one_timer_between_them(monkeypatch):
    loop, queue, timers = asyncio.get_running_loop(), HandOffQueue(), []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **options: timers.append(args[0]) or call_at(*args, **options))

    served = []
    for n in range(100):
        waiting = asyncio.create_task(queue.turn(PATIENCE))
        await asyncio.sleep(0)
        queue.put_nowait(n)
        served.append(await waiting)

    assert served == list(range(100))
    assert len(timers) == 1


async def test_each_gives_up_in_its_own_time_and_the_others_stay_in_line():
    loop, queue = asyncio.get_running_loop(), HandOffQueue()
    began = loop.time()

    async def waits(seconds):
        with pytest.raises(TimeoutError):
            await queue.turn(seconds)
        return loop.time() - began >= seconds

    waiting = [asyncio.create_task(waits(seconds)) for seconds in (0.1, 0.15, 0.05, 0.1)]
    gone = asyncio.create_task(queue.turn(0.01))
    patient = [asyncio.create_task(queue.turn(seconds)) for seconds in (None, PATIENCE)]
    await asyncio.sleep(0)
    gone.cancel()
    ended = await asyncio.gather(*waiting)
    for item in ("first", "second"):
        queue.put_nowait(item)

    assert ended == [True] * 4
    assert await asyncio.gather(*patient) == ["first", "second"]
    assert queue.empty()
