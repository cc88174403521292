"""Reads found before the application's router answer as if its router had found them: each application has a twin."""

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, routing
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from verdigris import Base, Database
from verdigris.errors import NotFoundError
from verdigris.fastapi import ReadRouter, dispatch, install


class Plant(Base):
    __tablename__ = "plants"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class PlantOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


ODD = [
    "/plants/1", "/plants/2", "/plants/3", "/plants/x", "/plants/", "/plants", "/plants//", "//plants/1", "/plants/1/",
    "/plants/%31", "/plants/1%2F2", "/plants/1%0A", "/plants/01", "/plants/+1", "/plants/-1", "/plants/1.0",
    "/plants/%201", "/plants/99999999999999999999999", "/plants/1?x=1", "/plants/ü", "/plants/1;v=2", "/Plants/1", "/",
    "/named/ivy", "/named/iv%79", "/named/i%76y?x", "/named/", "/named/none", "/all", "/all/", "/all?limit=1",
    "/all?limit=x", "/all?limit=%31", "/number/1", "/number/x", "/rest/a/b", "/openapi.json", "/nowhere",
]  # fmt: skip


def by_id(id: int):  # noqa: A002 - as in a path
    return select(Plant).where(Plant.id == id)


def by_name(name: str):
    return select(Plant).where(Plant.name == name)


def some(limit: int = 5):
    return select(Plant).order_by(Plant.id).limit(limit)


def reads(db, **options):
    router = ReadRouter(db, **options)
    router.get("/plants/{id}", response_model=PlantOut)(by_id)
    router.get("/named/{name}", response_model=PlantOut)(by_name)
    router.get("/number/{id:int}", response_model=PlantOut)(by_id)
    router.get("/rest/{name:path}", response_model=PlantOut)(by_name)
    router.get("/all", response_model=list[PlantOut])(some)
    return router


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Plant.__table__])
    async with database.session.begin() as session:
        session.add_all([Plant(id=1, name="ivy"), Plant(id=2, name="oak/tree")])
    yield database
    await database.dispose()


@pytest.fixture
def dispatched(monkeypatch):
    """The answers that were sent before a router was asked."""
    sent = []
    original = dispatch.send_json

    async def spy(receive, send, body, status):
        sent.append(body)
        await original(receive, send, body, status)

    monkeypatch.setattr(dispatch, "send_json", spy)
    return sent


class Twins:
    """Two equal applications, of which one asks its router for every request."""

    def __init__(self, db, build):
        self.first, self.ordinary = build(), build()
        for app in (self.first, self.ordinary):
            install(app, db)
        self.ordinary.user_middleware = [
            each for each in self.ordinary.user_middleware if each.cls is not dispatch.ReadsFirst
        ]

    async def agree(self, *paths, method="GET", root="", **options):
        """Ask both; their statuses, headers and bodies are equal. Return the first one's."""
        answers = []
        for app in (self.first, self.ordinary):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answers.append([await client.request(method, path, **options) for path in paths])
        for path, one, other in zip(paths, *answers, strict=True):
            said, expected = ((each.status_code, sorted(each.headers.items()), each.content) for each in (one, other))
            assert said == expected, path
        return answers[0]


def plain(db, **options):
    def build():
        app = FastAPI()
        app.include_router(reads(db), **options)
        return app

    return build


async def test_odd_paths_and_methods_have_the_same_answers(db, dispatched):
    twins = Twins(db, plain(db))
    found = await twins.agree(*ODD)
    assert len(dispatched) >= 8
    assert {each.status_code for each in found} == {200, 307, 404, 422}
    before = len(dispatched)
    for method in ("HEAD", "POST", "OPTIONS", "PUT", "DELETE"):
        await twins.agree("/plants/1", "/all", "/nowhere", method=method)
    assert len(dispatched) == before


async def test_prefixes_and_routers_within_routers(db, dispatched):
    def build():
        app, outer = FastAPI(), APIRouter(prefix="/outer")
        outer.include_router(reads(db), prefix="/inner")
        app.include_router(outer, prefix="/v1")
        app.include_router(reads(db, prefix="/green"))
        app.include_router(reads(db), prefix="/{tenant}")
        return app

    await Twins(db, build).agree(
        "/v1/outer/inner/plants/1", "/v1/outer/inner/all", "/green/plants/1", "/x/plants/1", "/plants/1", "/green/all"
    )
    assert len(dispatched) == 5


@pytest.mark.parametrize("first", [True, False])
async def test_a_route_that_comes_before_wins(db, dispatched, first):
    def build():
        app, own = FastAPI(), APIRouter()
        own.add_api_route("/plants/2", lambda: "own")
        own.add_api_route("/{anything}/me", lambda anything: anything)
        own.add_api_route("/named/{name}", lambda name: name, methods=["POST"])
        for router in (own, reads(db)) if first else (reads(db), own):
            app.include_router(router)
        return app

    won, *_ = await Twins(db, build).agree("/plants/2", "/named/me", "/plants/1", "/named/ivy")
    assert won.json() == ("own" if first else {"id": 2, "name": "oak/tree"})
    assert len(dispatched) == (2 if first else 3)  # of /named/me the one has a 200, the other a 404


@pytest.mark.parametrize("hides", [True, False])
async def test_mounts_and_hosts_that_come_before(db, dispatched, hides):
    async def own(request):
        return PlainTextResponse(f"own {request.url.path}")

    def build():
        app = FastAPI()
        if hides:
            app.router.routes.append(Host("elsewhere", Router([Route("/{rest:path}", own)])))
        app.mount("/named", Router([Route("/{rest:path}", own)]))
        app.router.routes.append(Mount("/static", Router([Route("/{rest:path}", own)])))
        app.include_router(reads(db))
        return app

    found = await Twins(db, build).agree("/named/ivy", "/static/plants/1", "/plants/1")
    assert found[0].text == "own /named/ivy"
    assert len(dispatched) == (0 if hides else 1)


async def test_a_mounted_application_asks_its_router(db, dispatched):
    def build():
        app, inner = FastAPI(), FastAPI()
        inner.include_router(reads(db))
        install(inner, db)
        app.mount("/inner", inner)
        app.include_router(reads(db))
        return app

    await Twins(db, build).agree("/inner/plants/1", "/inner/plants/9", "/plants/1")
    assert len(dispatched) == 1


async def test_a_root_path_is_no_part_of_a_route(db, dispatched):
    paths = ("/api/plants/1", "/plants/1", "/api", "/apiplants/1", "/api/api/plants/1")
    found = await Twins(db, plain(db)).agree(*paths, root="/api")
    assert [each.status_code for each in found] == [200, 200, 404, 404, 404]
    assert len(dispatched) == 2


async def test_routes_that_come_and_go_are_seen(db, dispatched):
    twins = Twins(db, plain(db))
    await twins.agree("/plants/1", "/late")
    for app in (twins.first, twins.ordinary):
        app.router.routes.insert(0, Route("/plants/1", PlainTextResponse("now mine")))
        late = ReadRouter(db)
        late.get("/late", response_model=list[PlantOut])(some)
        app.include_router(late)
    found = await twins.agree("/plants/1", "/late")
    assert [each.text for each in found] == ["now mine", '[{"id":1,"name":"ivy"},{"id":2,"name":"oak/tree"}]']
    for app in (twins.first, twins.ordinary):
        app.router.routes[0] = Route("/plants/2", PlainTextResponse("now mine"))
    found = await twins.agree("/plants/1", "/plants/2")
    assert [each.text for each in found] == ['{"id":1,"name":"ivy"}', "now mine"]
    assert len(dispatched) == 3


@pytest.mark.parametrize("included", [False, True])
async def test_a_route_that_takes_the_place_of_an_equal_one_is_asked(db, dispatched, included):
    def refuse():
        raise HTTPException(403)

    def build():
        app, own = FastAPI(), reads(db)
        if included:
            app.include_router(own)
        else:
            app.router.routes.extend(own.routes)
        app.state.routes = own.routes if included else app.router.routes
        return app

    twins = Twins(db, build)
    await twins.agree("/plants/1")
    for routes in (twins.first.state.routes, twins.ordinary.state.routes):
        at = next(place for place, route in enumerate(routes) if getattr(route, "path", "") == "/plants/{id}")
        old = routes[at]
        guarded = {"response_model": PlantOut, "methods": old.methods, "dependencies": [Depends(refuse)]}
        routes[at] = routing.APIRoute(old.path, old.endpoint, **guarded)
        assert routes[at] == old
    found = await twins.agree("/plants/1", "/plants/1", "/all")
    assert [each.status_code for each in found[:2]] == [
        200 if included else 403
    ] * 2  # FastAPI remembers what it includes


@pytest.mark.skipif(not hasattr(routing, "iter_route_contexts"), reason="this FastAPI asks no router that it includes")
async def test_a_router_with_a_mind_of_its_own_is_asked(db, dispatched):
    class Own(APIRouter):
        def matches(self, scope):
            return super().matches(scope)

    class Guarded(APIRouter):
        async def handle(self, scope, receive, send):
            await PlainTextResponse("no")(scope, receive, send)

    for kind in (Own, Guarded):

        def build(kind=kind):
            app, outer = FastAPI(), kind()
            outer.include_router(reads(db))
            app.include_router(outer)
            return app

        await Twins(db, build).agree("/plants/1", "/all")
    assert not dispatched


async def test_failures_meet_the_handlers_of_the_application(db, dispatched):
    def build():
        app = plain(db)()

        @app.exception_handler(NotFoundError)
        async def none(request: Request, error: NotFoundError):
            return JSONResponse({"none": request.path_params["id"]}, 418)

        return app

    twins = Twins(db, build)
    found = await twins.agree("/plants/9", "/plants/1")
    assert [each.status_code for each in found] == [418, 200]
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE plants")
    found = await twins.agree("/plants/1", "/all")
    assert {each.status_code for each in found} == {500}
    assert len(dispatched) == 1


async def test_a_value_that_no_convertor_takes_meets_the_handlers_too(db, dispatched):
    def build():
        app = plain(db)()

        @app.exception_handler(ValueError)
        async def none(request: Request, error: ValueError):
            return JSONResponse({"no": "number"}, 418)

        return app

    found = await Twins(db, build).agree(f"/number/{'9' * 5000}", "/number/1")  # Python reads 4,300 digits
    assert [each.status_code for each in found] == [418, 200]
    assert len(dispatched) == 1


async def test_middleware_sees_what_it_sees_of_other_routes(db, dispatched):
    seen = []

    class Watching:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http" and scope["path"] == "/old/1":
                scope = {**scope, "path": "/plants/1"}
            await self.app(scope, receive, send)
            context = scope.get("fastapi", {}).get("effective_route_context")
            path = getattr(context, "path", None) or scope["route"].path
            seen.append((path, scope["path_params"], scope["endpoint"].__name__, type(scope["router"]).__name__))

    class Marking(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-marked"] = "yes"
            return response

    def build():
        app = plain(db, prefix="")()
        app.add_middleware(Watching)
        app.add_middleware(Marking)
        return app

    found = await Twins(db, build).agree("/plants/1", "/old/1", "/plants/9")
    assert found[0].headers["x-marked"] == "yes"
    assert seen[:3] == seen[3:]
    assert seen[0] == ("/plants/{id}", {"id": "1"}, "by_id", "APIRouter")
    assert len(dispatched) == 2


async def test_middleware_that_is_usual_does_what_it_does(db, dispatched):
    def build():
        app = plain(db)()
        app.add_middleware(GZipMiddleware, minimum_size=1)
        app.add_middleware(CORSMiddleware, allow_origins=["https://shop.test"], allow_credentials=True)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["test"])
        return app

    twins = Twins(db, build)
    found = await twins.agree("/plants/1", "/all", "/plants/9", headers={"Origin": "https://shop.test"})
    assert found[0].headers["access-control-allow-origin"] == "https://shop.test"
    assert found[1].headers["content-encoding"] == "gzip"
    assert found[1].json()[0] == {"id": 1, "name": "ivy"}
    refused, *_ = await twins.agree("/plants/1", headers={"Host": "elsewhere"})
    assert refused.status_code == 400
    assert len(dispatched) == 2


async def test_middleware_that_is_put_inside_of_it_later_is_not_passed_by(db, dispatched):
    class Refusing:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await PlainTextResponse("no")(scope, receive, send)

    twins = Twins(db, plain(db))
    for app in (twins.first, twins.ordinary):
        app.user_middleware.append(Middleware(Refusing))

    found = await twins.agree("/plants/1", "/nowhere")
    assert [each.text for each in found] == ["no", "no"]
    assert not dispatched


async def test_a_dependency_of_the_application_or_the_router_is_solved(db, dispatched):
    asked = []

    def who(request: Request):
        asked.append(request.url.path)

    def refuse():
        raise HTTPException(403)

    def build():
        app = FastAPI()
        app.include_router(reads(db, prefix="/guarded"), dependencies=[Depends(who)])
        app.include_router(reads(db))
        return app

    twins = Twins(db, build)
    await twins.agree("/guarded/plants/1", "/plants/1")
    assert asked == ["/guarded/plants/1"] * 2
    for app in (twins.first, twins.ordinary):
        app.dependency_overrides[who] = refuse
    found = await twins.agree("/guarded/plants/1", "/plants/1")
    assert [each.status_code for each in found] == [403, 200]
    assert len(dispatched) == 2


async def test_middleware_of_the_router_itself_is_passed(db, dispatched):
    def build():
        app = plain(db)()
        inner = app.router.middleware_stack

        async def marked(scope, receive, send):
            await (
                PlainTextResponse("no")(scope, receive, send)
                if scope["type"] == "http"
                else inner(scope, receive, send)
            )

        app.router.middleware_stack = marked
        return app

    found = await Twins(db, build).agree("/plants/1")
    assert found[0].text == "no"
    assert not dispatched
