"""What outlives a request's session: generators, streams, background tasks, websockets. Each outcome is stated."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterable
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from verdigris.database import Database
from verdigris.errors import ConfigurationError
from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession

try:
    from fastapi.sse import EventSourceResponse

    GENERATORS = ["json lines", "events"]
except ImportError:  # endpoints of older FastAPI are no generators
    GENERATORS = []

has_generators = pytest.mark.skipif(not GENERATORS, reason="endpoints of this FastAPI are no generators")


@pytest.fixture
async def db(database_url, admin):
    await admin("CREATE TABLE note (id int PRIMARY KEY)")
    database = Database(database_url, pool_size=2, max_overflow=0, pool_timeout=1)
    yield database
    await database.dispose()


@pytest.fixture
def app(db):
    application = FastAPI()
    install(application, db)
    return application


def session_of(db):
    return Annotated[AsyncSession, Depends(db.request_session, scope="function")]


async def insert(session, number=1):
    await session.execute(text("INSERT INTO note VALUES (:id)"), {"id": number})


async def stored(admin):
    return [row["id"] for row in await admin("SELECT id FROM note ORDER BY id")]


@pytest.fixture
def no_collector():
    """What is closed in these tests is not closed by chance."""
    gc.disable()
    yield
    gc.enable()


async def hang_up(app, path, *, how, after=3):
    """Ask, take some parts of the answer, and be gone: told by receive() or by an error in send(), as servers do."""
    parts, gone, asked = [], asyncio.Event(), []

    async def receive():
        if not asked:
            asked.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        parts.append(message)
        if len(parts) == after:
            gone.set()
            if how == "error":
                raise OSError("the client has gone")

    version = "2.4" if how == "error" else "2.0"
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": version}, "http_version": "1.1"}
    scope |= {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    try:
        await asyncio.wait_for(app(scope | {"root_path": "", "scheme": "http"}, receive, send), 10)
    except Exception:  # the server logs it
        logging.getLogger(__name__).debug("cut", exc_info=True)
    return parts


ROUTERS = {"app": None, "router": APIRouter, "route class": lambda: APIRouter(route_class=Route)}


def routes_of(app, kind):
    """Return what takes routes, and what to call when they are there."""
    if kind == "app":
        return app, lambda: None
    if kind == "mounted":
        inner = FastAPI()
        app.mount("/", inner)
        return inner, lambda: None
    router = ROUTERS[kind]()
    return router, lambda: app.include_router(router)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", ["message", "error"])
@pytest.mark.parametrize("kind", ["app", "router", "route class", "mounted"])
@pytest.mark.parametrize("what", [*GENERATORS, "stream"])
async def test_a_client_that_hangs_up_commits_nothing_and_the_connection_comes_back_at_once(
    app, db, admin, what, kind, how
):
    routes, done = routes_of(app, kind)

    async def numbers() -> AsyncIterable[int]:
        async with db.session.begin() as session:
            await insert(session)
            for number in range(1000):
                yield number
                await asyncio.sleep(0.005)

    async def stream():
        async def body():
            async with db.session.begin() as session:
                await insert(session)
                for number in range(1000):
                    yield str(number)
                    await asyncio.sleep(0.005)

        return StreamingResponse(body())

    match what:
        case "json lines":
            routes.get("/it")(numbers)
        case "events":
            routes.get("/it", response_class=EventSourceResponse)(numbers)
        case "stream":
            routes.get("/it")(stream)
    done()
    parts = await hang_up(app, "/it", how=how)

    assert parts[0]["status"] == 200
    assert db.pool_status().in_use == 0
    assert await stored(admin) == []


@has_generators
@pytest.mark.parametrize("what", GENERATORS)
async def test_a_generator_that_comes_to_its_end_commits(app, db, admin, what):
    async def numbers() -> AsyncIterable[int]:
        async with db.session.begin() as session:
            await insert(session)
            yield 1

    app.get("/it", **({"response_class": EventSourceResponse} if what == "events" else {}))(numbers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http:
        answer = await http.get("/it")

    assert answer.status_code == 200
    assert await stored(admin) == [1]
    assert db.pool_status().in_use == 0


@has_generators
@pytest.mark.parametrize("what", GENERATORS)
async def test_a_generator_with_the_requests_session_is_refused_before_the_first_byte(app, db, admin, what):
    router = APIRouter(route_class=Route)

    async def numbers(session: session_of(db)) -> AsyncIterable[int]:
        await insert(session)
        yield 1

    router.get("/it", **({"response_class": EventSourceResponse} if what == "events" else {}))(numbers)
    app.include_router(router)
    app.debug = True
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http:
        answer = await http.get("/it")

    assert answer.status_code == 500
    assert "the generator of GET /it takes the request's session" in answer.json()["detail"]
    assert await stored(admin) == []


@has_generators
async def test_a_generator_behind_a_dependency_that_uses_the_session_starts(app, db):
    router = APIRouter(route_class=Route)

    async def user(session: session_of(db)):
        return await session.scalar(text("SELECT 7"))

    @router.get("/it")
    async def numbers(user: Annotated[int, Depends(user)]) -> AsyncIterable[int]:
        yield user

    app.include_router(router)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
    async with app.router.lifespan_context(app), http:
        answer = await http.get("/it")

    assert answer.text == "7\n"


@has_generators
def test_a_generator_cannot_be_repeated_and_the_route_says_so():
    router = APIRouter(route_class=Route)

    @retrying()
    async def numbers() -> AsyncIterable[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="@retrying on numbers, which is a generator"):
        router.get("/it")(numbers)


async def test_at_the_start_a_websocket_is_told_what_its_transaction_costs_and_cannot_be_repeated(app, db, caplog):
    caplog.set_level(logging.INFO, "verdigris")

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, session: session_of(db)): ...

    async with app.router.lifespan_context(app):
        pass
    assert "one transaction for as long as the client stays: WEBSOCKET /talk" in caplog.text

    app.websocket("/again")(retrying()(talk))
    with pytest.raises(ConfigurationError, match="a websocket cannot be repeated"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_websocket_whose_client_leaves_is_rolled_back(app, db, admin):
    @app.websocket("/talk")
    async def talk(websocket: WebSocket, session: session_of(db)):
        await websocket.accept()
        await insert(session)
        await websocket.receive_text()

    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}])

    async def receive():
        return next(messages)

    async def send(message): ...

    scope = {"type": "websocket", "path": "/talk", "headers": [], "query_string": b"", "subprotocols": []}
    with pytest.raises(WebSocketDisconnect):  # the server logs it
        await app(scope, receive, send)

    assert await stored(admin) == []
    assert db.pool_status().in_use == 0


@pytest.mark.parametrize("route_class", [None, Route])
async def test_background_tasks_run_when_the_work_is_stored_and_not_when_it_is_not(app, db, admin, route_class):
    router, seen = APIRouter(route_class=route_class) if route_class else APIRouter(), []

    async def later():
        seen.append(await stored(admin))

    @router.post("/notes/{number}")
    async def create(session: session_of(db), number: int, background: BackgroundTasks):
        background.add_task(later)
        await insert(session, number)
        await insert(session, 2)

    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http:
        answers = [(await http.post(f"/notes/{number}")).status_code for number in (1, 3)]

    assert answers == [200, 409]
    assert seen == [[1, 2]]
