"""Routes of a ReadRouter answer as FastAPI's own would: each is compared with one, mostly in one application."""

import json
import logging
from contextvars import ContextVar
from datetime import date
from enum import Enum
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, Select, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from verdigris import Base, Database, load
from verdigris.errors import ConfigurationError, NotFoundError
from verdigris.fastapi import ReadRouter, dispatch, install, reads


class Maker(Base):
    __tablename__ = "makers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    tools: Mapped[list["Tool"]] = relationship(back_populates="maker", order_by="Tool.id", lazy="raise_on_sql")


class Tool(Base):
    __tablename__ = "tools"
    id: Mapped[int] = mapped_column(primary_key=True)
    maker_id: Mapped[int] = mapped_column(ForeignKey("makers.id"))
    name: Mapped[str]
    maker: Mapped[Maker] = relationship(back_populates="tools", lazy="raise_on_sql")


class ToolOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class MakerOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    tools: list[ToolOut]


class Order(Enum):
    NAME = "name"
    ID = "id"


def by_id(id: int) -> Select:  # noqa: A002 - as in a path
    return select(Maker).where(Maker.id == id)


def found(q: str | None = None, limit: Annotated[int, Query(ge=1, le=10)] = 3):
    statement = select(Tool).order_by(Tool.id).limit(limit)
    return statement if q is None else statement.where(Tool.name == q)


def ordered(by: Order = Order.ID, descending: bool = False):
    column = Tool.name if by is Order.NAME else Tool.id
    return select(Tool).order_by(column.desc() if descending else column)


def like(q: str):
    return select(Tool).where(Tool.name.like(f"%{q}%")).order_by(Tool.id)


def chosen(q: str):
    return select(Tool).order_by({"name": Tool.name}.get(q, Tool.id).desc())


def equal(q: str):
    return select(Tool).order_by(Tool.id.desc() if q == "last" else Tool.id)


def capped(limit: int):
    return select(Tool).order_by(Tool.id).limit(min(limit, 2))


def paged(page: int = 1):
    return select(Tool).order_by(Tool.id).limit(2).offset((page - 1) * 2)


def several(ids: Annotated[list[int], Query()]):
    return select(Tool).where(Tool.id.in_(ids)).order_by(Tool.id)


ENDPOINTS = {
    "/makers/{id}": (by_id, MakerOut),
    "/maybe/{id}": (by_id, MakerOut | None),
    "/found": (found, list[ToolOut]),
    "/ordered": (ordered, list[ToolOut]),
    "/like": (like, list[ToolOut]),
    "/chosen": (chosen, list[ToolOut]),
    "/equal": (equal, list[ToolOut]),
    "/capped": (capped, list[ToolOut]),
    "/paged": (paged, list[ToolOut]),
    "/several": (several, list[ToolOut]),
}
ASKED = [
    "/makers/1", "/makers/2", "/makers/9", "/makers/x", "/makers/99999999999999999999", "/maybe/1", "/maybe/9",
    "/found",
    "/found?q=saw", "/found?limit=1", "/found?limit=2&q=saw", "/found?limit=0", "/found?limit=x&q=", "/found?q=it's",
    "/ordered", "/ordered?by=name", "/ordered?by=name&descending=true", "/ordered?descending=1", "/ordered?by=x",
    "/like?q=a", "/like?q=x", "/like", "/chosen?q=name", "/chosen?q=id", "/equal?q=last", "/equal?q=first",
    "/capped?limit=1", "/capped?limit=9", "/paged", "/paged?page=2", "/several?ids=1&ids=3", "/several", "/nowhere",
    "/makers/1?extra=1", "/found?q=two+words", "/found?q=sa%77", "/found?q", "/found?q=saw&q=drill", "/found?q=a=b",
    "/found?limit=1&limit=2", "/found?&limit=2&&", "/found?limit=%32", "/found?q=%FF", "/found?q=;", "/makers/%31",
]  # fmt: skip


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Maker.__table__, Tool.__table__])
    async with database.session.begin() as session:
        session.add(Maker(id=1, name="Ann", tools=[Tool(id=1, name="saw"), Tool(id=2, name="axe")]))
        session.add(Maker(id=2, name="Bob", tools=[Tool(id=3, name="nail"), Tool(id=4, name="it's")]))
    yield database
    await database.dispose()


def ordinary(db, build, model):
    """The endpoint as a careful team writes it by hand."""
    many = getattr(model, "__origin__", None) is list
    entity, schema = (Tool, ToolOut) if many else (Maker, MakerOut)

    async def endpoint(**values):
        async with db.session() as session:
            found = list(await session.scalars(build(**values).options(load(entity, schema))))
        if many:
            return found
        if not found and model is MakerOut:
            raise NotFoundError("there is none")
        return found[0] if found else None

    from functools import wraps
    from inspect import signature

    wrapped = wraps(build)(endpoint)
    wrapped.__signature__ = signature(build, eval_str=True).replace(return_annotation=None)
    return wrapped


def application(db, router, **options):
    app = FastAPI()
    app.include_router(router, **options)
    install(app, db)
    return app


def by_hand(db, **options):
    router = APIRouter(**options)
    for path, (build, model) in ENDPOINTS.items():
        router.add_api_route(path, ordinary(db, build, model), response_model=model)
    return router


def compiled(db, **options):
    router = ReadRouter(db, **options)
    for path, (build, model) in ENDPOINTS.items():
        router.get(path, response_model=model)(build)
    return router


async def ask(app, path, **options):
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, **options)


@pytest.fixture
def fast(monkeypatch):
    """The paths that were answered below FastAPI."""
    seen = []
    original = reads.send_json

    async def spy(receive, send, body, status):
        seen.append(body)
        await original(receive, send, body, status)

    monkeypatch.setattr(reads, "send_json", spy)
    monkeypatch.setattr(dispatch, "send_json", spy)
    return seen


async def test_answers_are_those_of_a_route_written_by_hand(db):
    ours, theirs = application(db, compiled(db)), application(db, by_hand(db))

    for path in ASKED * 2:
        mine, other = await ask(ours, path), await ask(theirs, path)

        assert (path, mine.status_code, mine.content) == (path, other.status_code, other.content)
        assert mine.headers == other.headers


async def test_usual_shapes_are_answered_below_fastapi_and_the_log_says_why_others_are_not(db, fast, caplog):
    caplog.set_level(logging.INFO)
    app = application(db, compiled(db))
    answered = set()
    for path in ASKED:
        fast.clear()
        response = await ask(app, path)
        if response.status_code == 200 and fast:
            answered.add(path)

    templates = {path.partition("?")[0].rpartition("/")[0] or path.partition("?")[0] for path in answered}
    assert templates == {"/makers", "/maybe", "/found", "/ordered"}
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "/like is answered in the ordinary way: it looks at the value of 'q' (as text)" in told
    assert "/chosen is answered in the ordinary way: it looks at the value of 'q' (as a key)" in told
    assert "/equal is answered in the ordinary way: it looks at the value of 'q' (compared with another value)" in told


async def test_openapi_is_that_of_a_route_written_by_hand(db):
    assert application(db, compiled(db)).openapi() == application(db, by_hand(db)).openapi()


async def test_prefixes_and_nested_routers_work(db, fast):
    inner = compiled(db, prefix="/inner")
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    app = application(db, outer, prefix="/api", tags=["x"])

    response = await ask(app, "/api/outer/inner/makers/1")

    assert response.json()["name"] == "Ann"
    assert len(fast) == 1


async def test_dependencies_of_the_router_and_the_endpoint_are_solved_in_the_ordinary_way(db, fast):
    def key(x_key: Annotated[str | None, Header()] = None):
        if x_key != "secret":
            raise HTTPException(401)
        return 1

    router = ReadRouter(db, dependencies=[Depends(key)])
    router.get("/makers/{id}", response_model=MakerOut)(by_id)
    own = ReadRouter(db)

    @own.get("/mine", response_model=MakerOut)
    def mine(me: Annotated[int, Depends(key)]):
        return select(Maker).where(Maker.id == me)

    app = application(db, router)
    app.include_router(own)

    refused = [(await ask(app, path)).status_code for path in ("/makers/1", "/mine")]
    allowed = [(await ask(app, path, headers={"X-Key": "secret"})).json()["name"] for path in ("/makers/1", "/mine")]

    assert refused == [401, 401]
    assert allowed == ["Ann", "Ann"]
    assert fast == []
    own_app = application(db, own)
    own_app.dependency_overrides[key] = lambda: 2
    assert (await ask(own_app, "/mine")).json()["name"] == "Bob"


async def test_middleware_sees_the_request_and_other_methods_are_refused(db, fast):
    app = application(db, compiled(db))
    seen = []

    @app.middleware("http")
    async def look(request: Request, call_next):
        response = await call_next(request)
        seen.append((request.url.path, response.status_code))
        response.headers["X-Seen"] = "yes"
        return response

    response = await ask(app, "/makers/1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        other = await client.post("/makers/1")

    assert response.headers["X-Seen"] == "yes"
    assert (seen, other.status_code) == ([("/makers/1", 200), ("/makers/1", 405)], 405)
    assert len(fast) == 1


async def test_statuses_and_options_of_the_response_model_hold(db, fast):
    router = ReadRouter(db)
    router.get("/none", response_model=list[ToolOut], status_code=203)(lambda: select(Tool).where(Tool.id < 0))
    tagged = ReadRouter(db, etag=True)
    tagged.get("/tagged/{id}", response_model=MakerOut)(by_id)
    app = application(db, router)
    app.include_router(tagged)

    first = await ask(app, "/tagged/1")
    again = await ask(app, "/tagged/1", headers={"If-None-Match": first.headers["etag"]})

    assert (await ask(app, "/none")).status_code == 203
    assert again.status_code == 304


async def test_what_looks_at_values_unseen_is_found_by_comparing(db, fast, caplog):
    caplog.set_level(logging.INFO)
    router = ReadRouter(db)

    @router.get("/sly", response_model=list[ToolOut])
    def sly(n: int):
        return select(Tool).order_by(Tool.id if isinstance(n, int) else Tool.name)

    response = await ask(application(db, router), "/sly?n=1")

    assert [tool["id"] for tool in response.json()] == [1, 2, 3, 4]
    assert fast == []
    assert "cannot be seen without them" in caplog.text


async def test_a_parameter_that_makes_the_ordinary_way_is_named(db, fast, caplog):
    caplog.set_level("INFO")
    router = ReadRouter(db)

    @router.get("/some", response_model=list[ToolOut])
    def some(n: int = 0, ids: Annotated[list[int], Query()] = []):  # noqa: B006 - as people write it
        return select(Tool).where(Tool.id.in_(ids)).order_by(Tool.id)

    response = await ask(application(db, router), "/some?ids=1&ids=2")

    assert [tool["id"] for tool in response.json()] == [1, 2]
    assert "GET /some is answered in the ordinary way: each value of ids would be a statement of its own" in caplog.text


async def test_what_cannot_be_answered_is_refused_when_it_is_written_or_at_start(db):
    router = ReadRouter(db)
    with pytest.raises(ConfigurationError, match="no response_model"):
        router.get("/a/{id}")(by_id)

    def annotated(key: int) -> MakerOut:
        return select(Maker).where(Maker.id == key)

    with pytest.raises(ConfigurationError, match="it returns MakerOut") as raised:
        router.get("/a/{key}")(annotated)
    assert raised.value.do == (
        '@reads.get("/a/{key}", response_model=MakerOut)',
        "def annotated(...): return select(...)",
    )

    async def waits():
        return select(Maker)

    with pytest.raises(ConfigurationError, match="no plain function"):
        router.get("/b/{id}", response_model=MakerOut)(waits)
    with pytest.raises(ConfigurationError, match="response_model_exclude"):
        router.get("/c/{id}", response_model=MakerOut, response_model_exclude={"tools"})(by_id)
    with pytest.raises(ConfigurationError, match="more than GET"):
        router.post("/d/{id}", response_model=MakerOut)(by_id)

    class Wrong(BaseModel):
        id: int
        colour: str

    router.get("/e/{id}", response_model=Wrong)(by_id)
    app = application(db, router)
    with pytest.raises(ConfigurationError, match="colour"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_listener_that_changes_statements_is_asked(db, fast):
    from sqlalchemy import event
    from sqlalchemy.orm import Session, with_loader_criteria

    app = application(db, compiled(db))
    await ask(app, "/makers/1")
    fast.clear()

    @event.listens_for(Session, "do_orm_execute")
    def only_saws(state):
        state.statement = state.statement.options(with_loader_criteria(Tool, Tool.name == "saw"))

    try:
        response = await ask(app, "/makers/1")
    finally:
        event.remove(Session, "do_orm_execute", only_saws)

    assert [tool["name"] for tool in response.json()["tools"]] == ["saw"]
    assert fast == []


async def test_counts_of_the_query_times_name_the_route(db):
    app = application(db, compiled(db))
    db.queries.clear()
    await ask(app, "/makers/1")

    (query,) = db.queries
    assert query.sites[0].route == "GET /makers/{id}"


def counted(response: Response, tasks: BackgroundTasks):
    response.headers["X-Total"] = "4"
    response.set_cookie("seen", "1")
    response.set_cookie("again", "1")
    response.status_code = 206
    tasks.add_task(DONE.append, "task")


def marked(response: Response):
    response.headers["X-Mark"] = "yes"
    return select(Tool).order_by(Tool.id)


DONE: list[str] = []
TENANT = ContextVar("tenant", default=1)


def of_the_tenant():
    return select(Tool).where(Tool.maker_id == TENANT.get()).order_by(Tool.id)


def since_today():
    return select(Tool).where(Tool.id < date.today().year).order_by(Tool.id)  # noqa: DTZ011 - as people write it


def of_either_kind(key: int | date):
    return select(Tool).where(Tool.id == key if isinstance(key, int) else Tool.id > key.day).order_by(Tool.id)


def at_most(kept: int | bool):
    return select(Tool).where(Tool.id <= (3 if kept is True else kept)).order_by(Tool.id)


@pytest.mark.parametrize("status", [None, 201])
@pytest.mark.parametrize("build", [paged, marked])
async def test_what_is_said_of_the_answer_beside_it_is_kept(db, build, status):
    def router(kind, endpoint):
        kind.get("/tools", response_model=list[ToolOut], dependencies=[Depends(counted)], status_code=status)(endpoint)
        kind.get("/plain", response_model=list[ToolOut], status_code=status)(endpoint)
        return kind

    ours = application(db, router(ReadRouter(db), build))
    theirs = application(db, router(APIRouter(), ordinary(db, build, list[ToolOut])))

    for path in ("/tools", "/plain"):
        DONE.clear()
        mine, other = await ask(ours, path), await ask(theirs, path)

        assert (mine.status_code, mine.content) == (other.status_code, other.content)
        assert sorted(mine.headers.multi_items()) == sorted(other.headers.multi_items())
        assert ["task"] * 2 * (path == "/tools") == DONE
    assert ours.openapi() == theirs.openapi()


async def test_what_may_be_another_in_each_request_is_built_in_each(db, fast, caplog):
    router = ReadRouter(db)
    router.get("/mine", response_model=list[ToolOut])(of_the_tenant)
    router.get("/today", response_model=list[ToolOut])(since_today)
    app = application(db, router)
    caplog.set_level("INFO", logger="verdigris")
    answers = []

    for tenant in (1, 2, 1):
        token = TENANT.set(tenant)
        answers.append([each["id"] for each in (await ask(app, "/mine")).json()])
        TENANT.reset(token)
    await ask(app, "/today")

    assert answers == [[1, 2], [3, 4], [1, 2]]
    assert not fast
    assert "it reads the context variable TENANT" in caplog.text
    assert "it asks which day it is" in caplog.text


async def test_a_value_of_one_of_several_kinds_is_looked_at(db):
    router = ReadRouter(db)
    router.get("/either", response_model=list[ToolOut])(of_either_kind)
    app = application(db, router)

    paths = ["/either?key=2024-01-03", "/either?key=2", "/either?key=2024-01-03", "/either?key=3"]
    answers = [[each["id"] for each in (await ask(app, path)).json()] for path in paths]

    assert answers == [[4], [2], [4], [3]]


class Custom(JSONResponse):
    media_type = "application/vnd.shop+json"


class Indented(JSONResponse):
    def render(self, content):
        return json.dumps(content, indent=2).encode()


async def test_values_that_are_equal_and_of_two_kinds_are_two_statements(db):
    def router(kind, endpoint):
        kind.get("/tools", response_model=list[ToolOut])(endpoint)
        return kind

    ours = application(db, router(ReadRouter(db), at_most))
    theirs = application(db, router(APIRouter(), ordinary(db, at_most, list[ToolOut])))

    for kept in ("true", "1", "true", "2"):
        mine, other = await ask(ours, f"/tools?kept={kept}"), await ask(theirs, f"/tools?kept={kept}")
        assert mine.content == other.content


class Enveloped(JSONResponse):
    def __init__(self, content, **options):
        super().__init__({"data": content}, **options)
        self.headers["X-Rows"] = str(len(content))


@pytest.mark.parametrize("kind", [Custom, Indented, Enveloped, JSONResponse])
@pytest.mark.parametrize("of", ["route", "router", "application", "inclusion"])
async def test_a_class_of_responses_makes_the_answer_wherever_it_is_said(db, kind, of, caplog):
    caplog.set_level(logging.INFO, "verdigris")

    def made(router, endpoint):
        options = {"response_class": kind} if of == "route" else {}
        router.get("/tools", response_model=list[ToolOut], status_code=203, **options)(endpoint)
        app = FastAPI(**({"default_response_class": kind} if of == "application" else {}))
        app.include_router(router, **({"default_response_class": kind} if of == "inclusion" else {}))
        install(app, db)
        return app

    default = {"default_response_class": kind} if of == "router" else {}
    ours = made(ReadRouter(db, **default), paged)
    theirs = made(APIRouter(**default), ordinary(db, paged, list[ToolOut]))
    mine, other = await ask(ours, "/tools?page=2"), await ask(theirs, "/tools?page=2")

    assert (mine.status_code, mine.content, mine.headers) == (other.status_code, other.content, other.headers)
    assert (f"{kind.__name__} writes its answers" in caplog.text) is (kind is not JSONResponse)


async def test_an_answer_of_a_class_of_ones_own_has_an_etag_too(db):
    router = ReadRouter(db, etag=True)
    router.get("/tools", response_model=list[ToolOut], response_class=Enveloped)(paged)
    app = application(db, router)

    first = await ask(app, "/tools")
    again = await ask(app, "/tools", headers={"If-None-Match": first.headers["etag"]})

    assert (first.json()["data"][0]["id"], first.headers["x-rows"]) == (1, "2")
    assert (again.status_code, again.content) == (304, b"")


async def test_a_class_of_responses_that_writes_no_json_is_refused(db):
    with pytest.raises(ConfigurationError, match="its response_class, HTMLResponse, is no JSONResponse"):
        ReadRouter(db).get("/tools", response_model=list[ToolOut], response_class=HTMLResponse)(paged)
    with pytest.raises(ConfigurationError, match="its response_class, HTMLResponse, is no JSONResponse"):
        ReadRouter(db, default_response_class=HTMLResponse).get("/tools", response_model=list[ToolOut])(paged)


async def test_a_default_of_the_application_that_writes_no_json_is_refused_at_the_start(db):
    router = ReadRouter(db)
    router.get("/tools", response_model=list[ToolOut])(paged)

    with pytest.raises(ConfigurationError, match="its response_class, HTMLResponse, is no JSONResponse"):  # noqa: PT012
        app = FastAPI(default_response_class=HTMLResponse)
        app.include_router(router)  # older FastAPI makes the route anew here
        install(app, db)
        async with app.router.lifespan_context(app):
            pass
