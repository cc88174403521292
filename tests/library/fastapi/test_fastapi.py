import asyncio
import contextlib
import logging
import sysconfig
from functools import partial
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import exc, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.routing import Route as PlainRoute

from verdigris.database import Database
from verdigris.errors import ConfigurationError, SessionClosedError
from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


SCHEMA = """
CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL CHECK (text <> ''), slug text CONSTRAINT uq_slug UNIQUE);
CREATE UNIQUE INDEX uq_slug_in_any_case ON note (lower(slug));
CREATE TABLE line (id int PRIMARY KEY,
                   note_id int REFERENCES note DEFERRABLE INITIALLY DEFERRED, CHECK (id + note_id > 0));
CREATE TABLE counter (id int PRIMARY KEY, value int NOT NULL);
INSERT INTO counter VALUES (1, 0);
"""


@pytest.fixture
async def db(database_url, admin):
    for statement in filter(str.strip, SCHEMA.split(";")):
        await admin(statement)
    database = Database(database_url, pool_size=3, max_overflow=0, pool_timeout=0.5)
    yield database
    await database.dispose()


def session_of(db):
    return Annotated[AsyncSession, Depends(db.request_session, scope="function")]


@pytest.fixture
def app(db):
    application = FastAPI()
    install(application, db)
    return application


def browser(app, *, raises=False):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=raises), base_url="http://shop")


@pytest.fixture
async def client(app):
    async with browser(app) as http:
        yield http


async def insert_note(session, number=1, body="one"):
    await session.execute(text("INSERT INTO note VALUES (:id, :text)"), {"id": number, "text": body})


async def notes(admin):
    return [row["id"] for row in await admin("SELECT id FROM note ORDER BY id")]


async def test_the_transaction_is_committed_before_the_response_leaves_on_every_router(app, client, db, admin):
    seen = []

    async def handler(session: session_of(db), number: int):
        await insert_note(session, number)
        return {"id": number}

    plain, ours, inner = APIRouter(), APIRouter(route_class=Route), APIRouter()
    app.post("/app/{number}")(handler)
    plain.post("/plain/{number}")(handler)
    ours.post("/ours/{number}")(handler)
    inner.post("/inner/{number}")(handler)
    plain.include_router(inner)
    app.include_router(plain)
    app.include_router(ours)

    async def spy(scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                seen.append((message["status"], await notes(admin)))
            await send(message)

        await app(scope, receive, sending)

    async with browser(spy) as http:
        for number, path in enumerate(["app", "plain", "ours", "inner"]):
            await http.post(f"/{path}/{number}")

    assert seen == [(200, [0]), (200, [0, 1]), (200, [0, 1, 2]), (200, [0, 1, 2, 3])]


@pytest.mark.parametrize("route_class", [None, Route])
async def test_a_commit_that_fails_answers_409_and_never_200(app, client, db, admin, route_class):
    router = APIRouter(route_class=route_class) if route_class else APIRouter()

    @router.post("/lines")
    async def create(session: session_of(db)):
        await session.execute(text("INSERT INTO line VALUES (1, 4711)"))
        return {"id": 1}

    app.include_router(router)
    answer = await client.post("/lines")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:verdigris:problem:reference",
        "title": "A record that this refers to does not exist, or one still refers to it",
        "status": 409,
        "fields": ["note_id"],
    }
    assert not await admin("SELECT 1 FROM line")


@pytest.mark.parametrize("router", [APIRouter, partial(APIRouter, route_class=Route)])
async def test_a_handler_that_swallows_a_database_error_gets_a_500_that_says_nothing_was_stored(
    app, db, admin, caplog, router
):
    router = router()

    @router.post("/notes")
    async def create(session: session_of(db)):
        await insert_note(session)
        with contextlib.suppress(exc.DBAPIError):
            await session.execute(text("SELECT 1/0"))
        return {"id": 1}

    app.include_router(router)
    async with browser(app) as client:
        answer = await client.post("/notes")

    assert answer.status_code == 500
    assert answer.json()["title"] == "The transaction had failed; nothing was stored"
    assert "POST /notes failed" in caplog.text
    assert await notes(admin) == []


async def test_a_handler_that_swallows_a_failed_flush_gets_the_same(app, client, db, admin):
    @app.post("/notes")
    async def create(session: session_of(db)):
        session.add(Note(id=1, text="one"))
        session.add(Note(id=2, text=None))
        with contextlib.suppress(exc.DBAPIError):
            await session.flush()
        return {"id": 1}

    answer = await client.post("/notes")

    assert answer.status_code == 500
    assert answer.json()["title"] == "The transaction had failed; nothing was stored"
    assert await notes(admin) == []


async def test_dependencies_of_the_request_scope_end_after_the_response_and_once_an_attempt(app, db, admin):
    router, ended, calls = APIRouter(route_class=Route), [], []

    async def resource():
        yield "held"
        ended.append("ended")

    @router.get("/held")
    @retrying
    async def held(session: session_of(db), name: Annotated[str, Depends(resource)]):
        calls.append(list(ended))
        if len(calls) == 1:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

        async def body():
            yield f"{name} {len(ended)}"

        return StreamingResponse(body())

    app.include_router(router)
    async with browser(app) as client:
        answer = await client.get("/held")

    assert answer.text == "held 0"
    assert ended == ["ended"]
    assert calls == [[], []]


async def test_the_attempts_behind_an_answer_are_in_the_log_and_in_debug_mode_in_the_answer(app, db, caplog):
    router = APIRouter(route_class=Route)

    @router.get("/busy")
    @retrying(attempts=2)
    async def busy(session: session_of(db)):
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    app.include_router(router)
    app.debug = True
    async with browser(app) as client:
        answer = await client.get("/busy")

    assert "not repeated after 2 attempts" in answer.json()["detail"]
    assert "GET /busy answered 503: serialization; not repeated after 2 attempts" in caplog.text


async def test_a_streaming_body_that_uses_the_session_gets_an_error_that_says_what_to_use(app, client, db):
    router = APIRouter(route_class=Route)
    started = []

    @router.get("/export")
    async def export(session: session_of(db)):
        async def rows():
            started.append(True)
            yield str(await session.scalar(text("SELECT 1")))

        return StreamingResponse(rows())

    app.include_router(router)
    app.debug = True
    answer = await client.get("/export")

    assert answer.status_code == 500
    assert "the streaming body of GET /export holds the request's session" in answer.json()["detail"]
    assert "async with db.session() as session" in answer.json()["detail"]
    assert answer.json()["title"] == "This service used its database wrongly"
    assert started == []


async def test_without_the_route_class_the_error_comes_at_the_first_use_and_nothing_leaks(app, db):
    @app.get("/export")
    async def export(session: session_of(db)):
        async def rows():
            yield str(await session.scalar(text("SELECT 1")))

        return StreamingResponse(rows())

    async with browser(app, raises=True) as http:
        with pytest.raises(RuntimeError) as raised:
            await http.get("/export")

    assert isinstance(raised.value.__cause__, SessionClosedError)
    assert "the session of GET /export was used after it had been closed" in str(raised.value.__cause__)
    assert db.pool_status().in_use == 0


async def test_a_stream_with_a_session_of_its_own_works(app, client, db):
    @app.get("/export")
    async def export():
        async def rows():
            async with db.session() as session:
                yield str(await session.scalar(text("SELECT 7")))

        return StreamingResponse(rows())

    assert (await client.get("/export")).text == "7"
    assert db.pool_status().in_use == 0


@pytest.mark.parametrize("how", ["argument", "closure", "method"])
async def test_a_background_task_that_holds_the_session_is_refused_before_the_answer(app, client, db, admin, how):
    router = APIRouter(route_class=Route)

    @router.post("/notes")
    async def create(session: session_of(db), background: BackgroundTasks):
        async def later():
            await insert_note(session, 2)

        await insert_note(session)
        if how == "argument":
            background.add_task(insert_note, session, 2)
        elif how == "method":
            background.add_task(session.execute, text("INSERT INTO note VALUES (2, 'two')"))
        else:
            background.add_task(later)
        return {}

    app.include_router(router)
    answer = await client.post("/notes")

    assert answer.status_code == 500
    assert await notes(admin) == []


@pytest.mark.parametrize("route_class", [None, Route])
async def test_an_http_exception_rolls_back(app, client, db, admin, route_class):
    router = APIRouter(route_class=route_class) if route_class else APIRouter()

    @router.post("/notes")
    async def create(session: session_of(db)):
        await insert_note(session)
        raise HTTPException(418)

    app.include_router(router)

    assert (await client.post("/notes")).status_code == 418
    assert await notes(admin) == []


async def test_a_returned_error_rolls_back_with_the_route_class_and_not_without(app, client, db, admin):
    async def create(session: session_of(db), number: int):
        await insert_note(session, number)
        return JSONResponse({}, 400)

    ours = APIRouter(route_class=Route)
    app.post("/plain/{number}")(create)
    ours.post("/ours/{number}")(create)
    app.include_router(ours)
    await client.post("/plain/1")
    await client.post("/ours/2")

    assert await notes(admin) == [1]


@pytest.mark.parametrize("router", [APIRouter, partial(APIRouter, route_class=Route)])
async def test_a_returned_error_keeps_what_was_committed_for_it(app, client, db, admin, router):
    router = router()

    @router.post("/logins/{number}")
    async def refuse(session: session_of(db), number: int):
        await insert_note(session, number)  # a failed attempt that has to be counted
        await session.commit()
        return JSONResponse({}, 401)

    app.include_router(router)

    assert (await client.post("/logins/7")).status_code == 401
    assert await notes(admin) == [7]


async def test_a_response_that_breaks_its_model_rolls_back(app, client, db, admin):
    @app.post("/notes", response_model=int)
    async def create(session: session_of(db)):
        await insert_note(session)
        return "not a number"

    assert (await client.post("/notes")).status_code == 500
    assert await notes(admin) == []


async def test_a_failing_handler_rolls_back_and_returns_its_connection(app, client, db, admin):
    @app.post("/notes")
    async def create(session: session_of(db)):
        await insert_note(session)
        raise RuntimeError("boom")

    for _ in range(5):
        assert (await client.post("/notes")).status_code == 500
    assert await notes(admin) == []
    assert db.pool_status().in_use == 0


async def test_a_cancelled_request_rolls_back_and_returns_its_connection(app, client, db, admin):
    @app.post("/notes")
    async def create(session: session_of(db)):
        await insert_note(session)
        await session.execute(text("SELECT pg_sleep(10)"))

    request = asyncio.create_task(client.post("/notes"))
    await asyncio.sleep(0.3)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert db.pool_status().in_use == 0
    assert await notes(admin) == []


async def test_all_dependencies_of_a_request_share_one_session(app, client, db):
    async def repository(session: session_of(db)):
        return session

    @app.get("/same")
    async def same(session: session_of(db), other: Annotated[AsyncSession, Depends(repository)]):
        return session is other

    assert (await client.get("/same")).json() is True


async def test_the_dependency_can_be_overridden(app, client, db):
    async def instead():
        yield "another"

    @app.get("/session")
    async def session(session: session_of(db)):
        return session

    app.dependency_overrides[db.request_session] = instead

    assert (await client.get("/session")).json() == "another"


async def visit(app, path):
    """Open a websocket, say nothing, and return what the application sent."""
    sent, scope = [], {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": []}

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_a_websocket_has_a_session_that_commits_at_the_end(app, db, admin):
    @app.websocket("/ws")
    async def talk(websocket: WebSocket, session: session_of(db)):
        await websocket.accept()
        await insert_note(session)
        await websocket.close()

    await visit(app, "/ws")

    assert await notes(admin) == [1]
    assert db.pool_status().in_use == 0


async def test_a_database_error_closes_a_websocket_with_its_code(app, db):
    @app.websocket("/ws")
    async def talk(websocket: WebSocket, session: session_of(db)):
        await websocket.accept()
        await session.execute(text("SELECT 1/0"))

    sent = await visit(app, "/ws")

    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == 1011


PROBLEMS = [
    ("INSERT INTO note VALUES (1, 'a'), (1, 'b')", 409, "duplicate", ["id"]),
    ("INSERT INTO note VALUES (1, 'a', 's'), (2, 'b', 's')", 409, "duplicate", ["address"]),
    ("INSERT INTO note VALUES (1, '')", 422, "check", ["text"]),
    ("INSERT INTO note VALUES (1, 'a', 'S'), (2, 'a', 's')", 409, "duplicate", ["slug"]),
    ("INSERT INTO line VALUES (-1, -1)", 422, "check", ["id", "note_id"]),
    ("INSERT INTO note VALUES (1, NULL)", 422, "missing-value", ["text"]),
    ("SELECT 'x'::int", 422, "unusable-value", None),
    ("SELECT 99999999999::int", 422, "unusable-value", None),
    ("SELECT * FROM nowhere", 500, "wrong-statement", None),
    ("SET LOCAL statement_timeout = 50; SELECT pg_sleep(1)", 504, "too-slow", None),
]


@pytest.mark.parametrize(("statement", "status", "name", "fields"), PROBLEMS)
async def test_a_database_error_becomes_a_problem_without_sql_or_values(db, statement, status, name, fields):
    app = FastAPI()
    install(app, db, fields={"uq_slug": "address"})

    @app.post("/run")
    async def run(session: session_of(db)):
        for one in statement.split(";"):
            await session.execute(text(one))

    async with browser(app) as http:
        answer = await http.post("/run")

    body = answer.json()
    assert answer.status_code == status
    assert body["type"] == f"urn:verdigris:problem:{name}"
    assert body.get("fields") == fields
    assert '"note' not in answer.text.replace("note_id", "")
    assert "SELECT" not in answer.text
    assert "uq_slug" not in answer.text


@pytest.mark.parametrize(
    ("option", "says"), [(defer(Note.text, raiseload=True), "not available"), (defer(Note.text), "greenlet_spawn")]
)
async def test_reading_what_was_not_loaded_says_what_to_write(app, client, db, admin, caplog, option, says):
    await admin("INSERT INTO note VALUES (1, 'a')")
    app.debug = True

    @app.get("/text")
    async def read(session: session_of(db)):
        note = await session.scalar(select(Note).options(option))
        return note.text

    answer = await client.get("/text")

    assert (answer.status_code, answer.json()["type"]) == (500, "urn:verdigris:problem:not-loaded")
    assert says in answer.json()["detail"]
    for told in (answer.json()["detail"], caplog.text):
        assert "select(Order).options(load(Order, OrderOut))" in told
        assert "verdigris explain loading/all-loaded" in told


@pytest.mark.parametrize("option", [defer(Note.text, raiseload=True), defer(Note.text)])
@pytest.mark.parametrize("where", ["/by-fastapi", "/by-hand"])
async def test_so_does_reading_it_while_the_answer_is_made(app, client, db, admin, caplog, option, where):
    await admin("INSERT INTO note VALUES (1, 'a')")

    class TextOut(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        text: str

    @app.get("/by-fastapi", response_model=TextOut)
    async def by_fastapi(session: session_of(db)):
        return await session.scalar(select(Note).options(option))

    @app.get("/by-hand")
    async def by_hand(session: session_of(db)):
        return TextOut.model_validate(await session.scalar(select(Note).options(option)))

    answer = await client.get(where)

    assert (answer.status_code, answer.json()["type"]) == (500, "urn:verdigris:problem:not-loaded")
    assert "select(Order).options(load(Order, OrderOut))" in caplog.text


async def test_an_answer_that_breaks_its_model_otherwise_is_the_applications_own(app, client):
    @app.get("/broken", response_model=int)
    async def broken():
        return "none"

    @app.exception_handler(ValueError)
    async def mine(request, error):
        return JSONResponse({"mine": type(error).__name__}, 418)

    @app.get("/by-hand")
    async def by_hand():
        return TypeAdapter(int).validate_python("none")

    assert (await client.get("/broken")).text == "Internal Server Error"
    assert (await client.get("/by-hand")).json() == {"mine": "ValidationError"}


async def test_the_fields_of_a_second_database_count_too(db):
    app, first = FastAPI(), Database("postgresql://nobody@127.0.0.1:1/none")
    install(app, first, fields={"uq_other": "other"})
    install(app, db, fields={"uq_slug": "address"})

    @app.post("/run")
    async def run(session: session_of(db)):
        await session.execute(text("INSERT INTO note VALUES (1, 'a', 's'), (2, 'b', 's')"))

    async with browser(app) as http:
        answer = await http.post("/run")

    assert answer.json()["fields"] == ["address"]


def test_a_database_that_is_installed_again_with_other_options_is_refused(db):
    app = FastAPI()
    install(app, db, fields={"uq_slug": "slug"})
    install(app, db, fields={"uq_slug": "slug"})

    with pytest.raises(ConfigurationError, match="another fields") as raised:
        install(app, db, fields={"uq_slug": "address"})
    assert raised.value.do == ("Call it once, with all options:   install(app, db, fields={'uq_slug': 'address'})",)


def test_what_belongs_to_the_application_is_added_once_for_all_databases(db):
    app = FastAPI()
    install(app, db)
    before = len(app.user_middleware)
    install(app, Database("postgresql://nobody@127.0.0.1:1/none"))

    assert len(app.user_middleware) == before


async def test_a_full_pool_answers_503_and_when_to_come_back(app, client, db, caplog):
    @app.get("/slow")
    async def slow(session: session_of(db)):
        await session.execute(text("SELECT pg_sleep(1.5)"))

    answers = await asyncio.gather(*(client.get("/slow") for _ in range(4)))
    refused = next(answer for answer in answers if answer.status_code != 200)

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503]
    assert int(refused.headers["Retry-After"]) >= 1
    assert "Longest holders: GET /slow" in caplog.text
    assert "test_fastapi.py:" in caplog.text


async def test_a_server_that_is_away_answers_503(postgres):
    app, db = FastAPI(), Database("postgresql://nobody@127.0.0.1:1/none")
    install(app, db)

    @app.get("/")
    async def root(session: session_of(db)):
        await session.execute(text("SELECT 1"))

    async with browser(app) as http:
        answer = await http.get("/")

    assert answer.status_code == 503
    assert answer.json()["title"] == "The database is not available"
    assert "Retry-After" in answer.headers


async def test_without_errors_the_application_keeps_its_own_answers(db):
    app = FastAPI()
    install(app, db, errors=False)

    assert not any(issubclass(kind, exc.SQLAlchemyError) for kind in app.exception_handlers if isinstance(kind, type))


async def test_a_handler_of_the_application_goes_before_ours(db):
    app = FastAPI()

    @app.exception_handler(exc.IntegrityError)
    async def own(request: Request, error: Exception):
        return JSONResponse({"own": True}, 400)

    install(app, db)

    @app.post("/notes")
    async def create(session: session_of(db)):
        await insert_note(session, body=None)

    async with browser(app) as http:
        assert (await http.post("/notes")).json() == {"own": True}


class StorageError(Exception):
    """What an application makes of every error of the database."""


class DuplicateKeyError(Exception):
    """What a package makes of it."""

    __module__ = "advanced_alchemy.exceptions"


def wrapping(app, db, wrapper, statement):
    @app.post("/wrapped")
    async def wrapped(session: session_of(db)):
        try:
            await session.execute(text(statement))
        except exc.SQLAlchemyError as error:
            raise wrapper from error


CUT, TWICE = "SELECT pg_terminate_backend(pg_backend_pid())", "INSERT INTO counter VALUES (1, 0)"


@pytest.mark.parametrize(
    ("wrapper", "statement", "answered"),
    [
        (StorageError, CUT, (503, "connection-lost", True)),
        (DuplicateKeyError, CUT, (503, "connection-lost", True)),
        (DuplicateKeyError, TWICE, (409, "duplicate", False)),
    ],
)
async def test_an_error_in_a_wrapper_that_nobody_handles_is_answered_as_what_it_wraps(
    app, db, client, wrapper, statement, answered
):
    wrapping(app, db, wrapper, statement)

    answer = await client.post("/wrapped")

    problem = answer.json()["type"].rpartition(":")[2]
    assert (answer.status_code, problem, "retry-after" in answer.headers) == answered


async def test_what_was_wrong_with_a_value_is_not_told_where_the_application_has_wrapped_it(app, db):
    wrapping(app, db, StorageError, TWICE)

    async with browser(app, raises=True) as http:
        with pytest.raises(StorageError):
            await http.post("/wrapped")


async def test_a_handler_of_every_exception_gets_the_wrappers_too(app, db, client):
    app.exception_handler(Exception)(lambda _, error: JSONResponse({"own": type(error).__name__}, 500))
    wrapping(app, db, StorageError, CUT)

    assert (await client.post("/wrapped")).json() == {"own": "StorageError"}


def its_own(request, error):
    return JSONResponse({"type": "its:own"}, 500)


@pytest.mark.parametrize(
    ("options", "joined", "answered"),
    [
        ({}, False, (503, "connection-lost")),
        ({"exception_handlers": {500: its_own}}, False, (500, "own")),
        ({}, True, (500, None)),
    ],
)
async def test_an_application_that_is_mounted_answers_as_the_one_around_it(app, db, options, joined, answered):
    async def cut(request):
        async with db.session() as session:
            await session.execute(text(CUT))

    admin = Starlette(routes=[PlainRoute("/cut", cut)], **options)
    if joined:
        install(admin, db, errors=False)
    app.mount("/admin", admin)

    async with app.router.lifespan_context(app), browser(app) as http:
        answer = await http.get("/admin/cut")

    kind = answer.json()["type"].rpartition(":")[2] if "json" in answer.headers["content-type"] else None
    assert (answer.status_code, kind) == answered


class Passing:
    def __init__(self, app):
        self.app = app

    async def __call__(self, *arguments):
        await self.app(*arguments)


@pytest.mark.parametrize("path", ["/plain", "/wrapped"])
async def test_whatever_is_mounted_below_what_is_mounted_answers_alike(app, db, path):
    inner = FastAPI()
    wrapping(inner, db, StorageError, CUT)

    @inner.post("/plain")
    async def plain():
        async with db.session() as session:
            await session.execute(text(CUT))

    outer = FastAPI()
    outer.mount("/inner", inner)
    app.mount("/outer", outer)
    app.mount("/again", outer)
    app.router.routes.append(Mount("/passed", inner, middleware=[Middleware(Passing)]))
    app.router.routes.append(Mount("/group", routes=[Mount("/inner", inner)]))

    async with app.router.lifespan_context(app), browser(app) as http:
        answers = [
            await http.post(f"{mounted}{path}")
            for mounted in ("/outer/inner", "/again/inner", "/passed", "/group/inner")
        ]

    assert [each.status_code for each in answers] == [503] * 4


async def test_without_errors_a_wrapper_stays_what_it_is(db):
    app = FastAPI()
    install(app, db, errors=False)
    wrapping(app, db, StorageError, CUT)

    async with browser(app) as http:
        assert (await http.post("/wrapped")).text == "Internal Server Error"


async def test_a_wrapper_behind_the_beginning_of_an_answer_goes_on(app, db):
    @app.get("/begun")
    async def begun():
        async def body():
            yield b"a"
            try:
                async with db.session() as session:
                    await session.execute(text(CUT))
            except exc.SQLAlchemyError as error:
                raise StorageError from error

        return StreamingResponse(body())

    async with browser(app, raises=True) as http:
        with pytest.raises(StorageError):
            await http.get("/begun")


async def test_a_retried_route_repeats_the_whole_request_with_a_fresh_session(app, client, db, admin):
    router = APIRouter(route_class=Route)
    sessions, meeting = set(), asyncio.Barrier(2)

    @router.post("/count")
    @retrying(isolation_level="SERIALIZABLE")
    async def count(session: session_of(db), step: dict[str, int]):
        value = await session.scalar(text("SELECT value FROM counter WHERE id = 1"))
        if len(sessions) < 2:
            sessions.add(session)
            await meeting.wait()
        sessions.add(session)
        await session.execute(text("UPDATE counter SET value = :value"), {"value": value + step["by"]})
        return await session.scalar(text("SHOW transaction_isolation"))

    app.include_router(router)
    answers = await asyncio.gather(client.post("/count", json={"by": 1}), client.post("/count", json={"by": 10}))

    assert [answer.json() for answer in answers] == ["serializable", "serializable"]
    assert (await admin("SELECT value FROM counter"))[0]["value"] == 11
    assert len(sessions) == 3
    assert db.pool_status().in_use == 0


async def test_a_route_without_the_mark_is_not_repeated(app, client, db):
    router, calls = APIRouter(route_class=Route), []

    @router.post("/count")
    async def count(session: session_of(db)):
        calls.append(1)
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    app.include_router(router)
    answer = await client.post("/count")

    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert calls == [1]


async def test_a_failed_attempt_gives_its_connection_back_before_the_next(database_url):
    app, db = FastAPI(), Database(database_url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    install(app, db)
    router, calls = APIRouter(route_class=Route), []

    @router.post("/count")
    @retrying()
    async def count(session: session_of(db)):
        calls.append(await session.scalar(text("SELECT 1")))
        if len(calls) < 3:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"))
        return len(calls)

    app.include_router(router)
    async with browser(app) as http:
        answer = await http.post("/count")

    assert answer.json() == 3
    await db.dispose()


async def test_each_of_several_files_in_one_field_is_rewound(app, client, db):
    router, read = APIRouter(route_class=Route), []

    @router.post("/uploads")
    @retrying()
    async def upload(session: session_of(db), files: list[UploadFile]):
        read.append([await file.read() for file in files])
        if len(read) == 1:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    app.include_router(router)
    answer = await client.post("/uploads", files=[("files", b"one"), ("files", b"two")])

    assert answer.status_code == 200
    assert read == [[b"one", b"two"]] * 2


@pytest.mark.parametrize(
    ("content", "headers", "reason"),
    [
        (b"x" * 101, {}, "its body of 101 bytes is larger than max_body=100"),
        ("stream", {}, "its body is a stream of unknown length"),
        (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, "the endpoint read the stream of its form"),
    ],
)
async def test_a_body_that_cannot_be_read_again_is_not_repeated_and_the_log_says_why(
    app, client, db, caplog, content, headers, reason
):
    router, tries = APIRouter(route_class=Route), []

    @router.post("/raw")
    @retrying(max_body=100)
    async def raw(session: session_of(db), request: Request):
        tries.append([part async for part in request.stream()])
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    async def parts():
        yield b"x"

    app.include_router(router)
    answer = await client.post("/raw", content=parts() if content == "stream" else content, headers=headers)

    assert answer.status_code == 503
    assert len(tries) == 1
    assert f"not repeated after serialization (40001): {reason}" in caplog.text


async def test_uploaded_files_are_rewound_for_the_next_attempt(app, client, db):
    router, read = APIRouter(route_class=Route), []

    @router.post("/upload")
    @retrying()
    async def upload(session: session_of(db), file: Annotated[bytes, File()], request: Request):
        form = await request.form()
        read.append(await form["file"].read())
        if len(read) < 2:
            await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))
        return file.decode()

    app.include_router(router)
    answer = await client.post("/upload", files={"file": b"content"})

    assert answer.json() == "content"
    assert len(read) == 2


async def test_a_stream_that_is_gone_is_not_repeated(app, client, db):
    router, calls = APIRouter(route_class=Route), []

    @router.post("/upload")
    @retrying()
    async def upload(session: session_of(db), request: Request):
        calls.append(b"".join([part async for part in request.stream()]))
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    app.include_router(router)
    answer = await client.post("/upload", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"})

    assert answer.status_code == 503
    assert len(calls) == 1


async def test_the_lifespan_of_the_application_runs_inside_ours(database_url):
    from contextlib import asynccontextmanager

    order = []

    @asynccontextmanager
    async def own(app):
        async with db.session() as session:
            order.append(await session.scalar(text("SELECT 'open'")))
        yield {"key": "value"}
        order.append(db.pool_status().idle)

    db = Database(database_url)
    app = FastAPI(lifespan=own)
    install(app, db)
    install(app, db)

    async with app.router.lifespan_context(app) as state:
        assert state == {"key": "value"}
    assert order == ["open", 1]
    assert db.pool_status().idle == 0


async def start(app):
    async with app.router.lifespan_context(app):
        pass


async def test_a_session_that_would_commit_after_the_response_is_named_at_start(app, db):
    async def repository(session: Annotated[AsyncSession, Depends(db.request_session)]):
        yield session

    router = APIRouter(prefix="/api")

    @router.get("/late")
    async def late(found: Annotated[AsyncSession, Depends(repository)]): ...

    app.include_router(router)
    with pytest.raises(ConfigurationError) as named:
        await start(app)

    assert "GET /api/late (" in str(named.value)
    assert 'Write Depends(db.request_session, scope="function").' in str(named.value)
    assert 'Write Depends(repository, scope="function") too.' in str(named.value)


async def test_routes_that_a_package_wrote_are_given_a_dependency_of_the_projects_own(app, db):
    async def create(session: Annotated[AsyncSession, Depends(db.request_session)]) -> None: ...

    installed = f"{sysconfig.get_path('purelib')}/crud/routes.py"
    create.__code__ = create.__code__.replace(co_filename=installed)
    app.post("/notes")(create)

    with pytest.raises(ConfigurationError) as named:
        async with app.router.lifespan_context(app):
            pass

    assert "async with db.session() as session: yield session" in str(named.value)
    assert "Write Depends(" not in str(named.value)


async def test_one_session_under_two_scopes_is_named_at_start(app, db):
    @app.get("/two")
    async def two(a: session_of(db), b: Annotated[AsyncSession, Depends(db.request_session)]): ...

    with pytest.raises(ConfigurationError, match="would be a second session"):
        await start(app)


async def test_a_generator_endpoint_with_the_session_is_named_at_start(app, db):
    @app.get("/stream")
    async def stream(session: session_of(db)):
        yield 1

    with pytest.raises(ConfigurationError, match=r"GET /stream .* a generator's body runs after"):
        await start(app)


async def test_a_sync_endpoint_with_the_session_is_named_at_start(app, db):
    @app.get("/sync")
    def sync(session: session_of(db)): ...

    with pytest.raises(ConfigurationError, match="Write async def"):
        await start(app)


async def test_retries_without_the_route_class_are_named_at_start(app, db):
    @app.post("/retry")
    @retrying()
    async def retry(session: session_of(db)): ...

    with pytest.raises(ConfigurationError, match="@retrying needs the route class"):
        await start(app)


async def test_writing_routes_without_the_route_class_are_listed_at_start(app, db, caplog):
    ours = APIRouter(route_class=Route)

    @app.post("/plain")
    async def plain(session: session_of(db)): ...

    @ours.post("/ours")
    async def route(session: session_of(db)): ...

    app.include_router(ours)
    with caplog.at_level(logging.INFO, "verdigris"):
        await start(app)

    assert "keeps what was written in POST /plain: APIRouter(route_class=Route)" in caplog.text


async def test_a_query_is_kept_with_the_route_that_asked_prefix_included(app, client, db):
    router = APIRouter(prefix="/api")

    @router.get("/notes/{number}")
    async def read(session: session_of(db), number: int):
        await session.execute(text("SELECT * FROM note"))

    app.include_router(router, prefix="/v1")
    await client.get("/v1/api/notes/7")

    (query,) = [query for query in db.queries if "note" in query.fingerprint]
    assert {site.route for site in query.sites} == {"GET /v1/api/notes/{number}"}


async def test_checks_can_be_left_out(db):
    app = FastAPI()
    install(app, db, checks=False)

    @app.get("/late")
    async def late(session: Annotated[AsyncSession, Depends(db.request_session)]): ...

    await start(app)
