"""Routes and dependencies as the source shows them."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

PROVIDERS = """
from typing import Annotated
from fastapi import Depends, FastAPI, Request
from sqlalchemy.ext.asyncio import AsyncSession

app = FastAPI()

def of_the_middleware(request: Request):
    return request.state.db

def settings(request: Request):
    return request.state.settings
"""


def providers(source):
    return {dependency.short for dependency in source.session_dependencies}


def test_what_a_parameter_is_annotated_as_tells_that_its_provider_gives_a_session(tmp_path):
    source = tree(
        tmp_path,
        {
            "main.py": PROVIDERS
            + """
@app.get("/")
async def read(db: AsyncSession = Depends(of_the_middleware), told: dict = Depends(settings)):
    return await db.scalar(told)
"""
        },
    )

    assert providers(source) == {"of_the_middleware"}


def test_so_does_an_annotated_alias(tmp_path):
    alias = "SessionDep = Annotated[AsyncSession, Depends(of_the_middleware)]\n"

    assert providers(tree(tmp_path, {"main.py": PROVIDERS + alias})) == {"of_the_middleware"}


@pytest.mark.parametrize(
    "given",
    ["session_of('main')", "main_session", "Sessions()", "sessions"],
)
def test_what_a_function_makes_and_objects_that_can_be_called_are_dependencies(tmp_path, given):
    made = f"""
from sqlalchemy.ext.asyncio import async_sessionmaker

factory = async_sessionmaker()

def session_of(name):
    async def opened():
        async with factory() as session:
            yield session
    return opened

class Sessions:
    async def __call__(self):
        async with factory() as session:
            yield session

main_session = session_of("main")
sessions = Sessions()

@app.get("/")
async def read(db: Annotated[AsyncSession, Depends({given})]): ...
"""

    assert len(providers(tree(tmp_path, {"main.py": PROVIDERS + made}))) == 1


@pytest.mark.parametrize("given", ["APIKeyHeader(name='key')", "scheme", "Rule('admin')", "rule_of('admin')"])
def test_what_gives_no_session_leaves_no_doubt_of_one(tmp_path, given):
    made = f"""
from fastapi.security import APIKeyHeader, HTTPBearer
from elsewhere import Elsewhere

class Rule:
    def __init__(self, name): ...
    def __call__(self, request: Request) -> None: ...

def rule_of(name):
    def rule(request: Request) -> None: ...
    return rule

scheme = HTTPBearer()

@app.get("/", dependencies=[Depends({given})])
async def read(): ...
"""

    assert not tree(tmp_path / "known", {"main.py": PROVIDERS + made}).session_dependencies.gaps
    made = made.replace(f"[Depends({given})]", "[Depends(Elsewhere().rule('admin'))]")
    assert tree(tmp_path / "open", {"main.py": PROVIDERS + made}).session_dependencies.gaps


def test_a_route_is_named_with_the_prefixes_of_all_routers_around_it(tmp_path):
    source = tree(
        tmp_path,
        {
            "orders.py": """
                from fastapi import APIRouter

                router = APIRouter(prefix="/orders")

                @router.get("/{id}")
                async def read(id: int): ...
                """,
            "main.py": """
                from fastapi import APIRouter, FastAPI
                from orders import router as orders

                app = FastAPI()
                api = APIRouter(prefix="/api")
                api.include_router(orders, prefix="/v1")
                app.include_router(api)
                """,
        },
    )

    assert [route.key for route in source.routes] == ["GET /api/v1/orders/{id}"]


def test_an_application_without_a_database_has_no_database_errors_to_answer(tmp_path):
    main = "from fastapi import FastAPI\n\napp = FastAPI()\n"

    assert list(tree(tmp_path, {"main.py": main}).applications) == []


def test_one_whose_repositories_reach_a_database_has(tmp_path):
    main = "from fastapi import FastAPI\nfrom sqlalchemy import select\n\napp = FastAPI()\n"

    assert [application.place.path for application in tree(tmp_path, {"main.py": main}).applications] == ["main.py"]


def test_a_handler_that_is_added_by_name_is_a_route(tmp_path):
    source = tree(
        tmp_path,
        {
            "handlers.py": """
                from fastapi import Depends
                from sqlalchemy.ext.asyncio import AsyncSession

                async def read(id: int): ...
                async def write(): ...
                async def talk(): ...
                """,
            "main.py": PROVIDERS
            + """
import handlers
from fastapi import APIRouter

router = APIRouter(prefix="/orders", dependencies=[Depends(settings)])
router.add_api_route("/{id}", handlers.read)
router.add_api_route(path="", endpoint=handlers.write, methods=["POST"], dependencies=[Depends(of_the_middleware)])
router.add_api_websocket_route("/talk", handlers.talk)
app.include_router(router, prefix="/api")
""",
        },
    )

    routes = {route.key: [use.given for use in source.web.around(route)] for route in source.web.routes}

    assert routes == {
        "GET /api/orders/{id}": ["settings"],
        "POST /api/orders": ["of_the_middleware", "settings"],
        "WEBSOCKET /api/orders/talk": ["settings"],
    }


def test_a_module_of_routes_that_speaks_of_nothing_else_is_read(tmp_path):
    routes = "from kit import SlashRouter\nrouter = SlashRouter()\n@router.get('/')\nasync def read(): ...\n"
    kit = "from fastapi import APIRouter\nclass SlashRouter(APIRouter): ...\n"

    assert len(tree(tmp_path, {"kit.py": kit, "routes.py": routes}).web.routes) == 1
