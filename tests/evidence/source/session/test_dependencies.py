"""How a dependency opens, closes and ends what it gives: shapes that look right and are not, and their twins."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.fastapi import AsyncWith, CommitOrRollback
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence

HEAD = """
import asyncio
import logging
import contextlib
from contextlib import asynccontextmanager, suppress
from typing import Annotated
from fastapi import Depends, FastAPI, Request
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from models import Order

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine)
app = FastAPI()
"""
USED = """
SessionDep = Annotated[AsyncSession, Depends(get_db, scope="function")]
"""


def verdict(box, folder, dependency, route=""):
    return box().conclude(Evidence(tree(folder, {"main.py": HEAD + dependency + USED + route}))).verdict


@pytest.mark.parametrize("given", ["db.request_session", "get_db", "again", "kit.get_db"])
def test_the_librarys_dependency_is_known_by_the_name_that_a_project_gives_it(given, tmp_path):
    files = {
        "app/__init__.py": "",
        "app/core.py": """
        from sqlalchemy.ext.asyncio import create_async_engine
        from verdigris import Database
        db = Database.from_engine(create_async_engine("postgresql+asyncpg://h/d"))
        get_db = db.request_session
        """,
        "app/kit.py": "from app.core import get_db  # sqlalchemy",
        "app/main.py": f"""
        from fastapi import Depends, FastAPI
        from sqlalchemy.ext.asyncio import AsyncSession
        from app import kit
        from app.core import db, get_db
        from app.kit import get_db as again
        app = FastAPI()
        @app.get("/")
        async def read(session: AsyncSession = Depends({given}, scope="function")): ...
        """,
    }
    evidence = Evidence(tree(tmp_path, files))

    assert {box().conclude(evidence).verdict for box in (AsyncWith, CommitOrRollback)} == {Verdict.HOLDS}


def test_the_edit_of_a_dependency_names_it_as_it_is_written_there(tmp_path):
    dependency = "class Kit:\n    async def session(self):\n        async with factory() as session:\n"
    dependency += "            yield session\n            await session.commit()\nkit = Kit()\n"
    route = "@app.get('/')\nasync def read(session: Annotated[AsyncSession, Depends(kit.session)]): ...\n"
    evidence = Evidence(tree(tmp_path, {"main.py": HEAD + dependency + route}))

    [finding] = CommitOrRollback().conclude(evidence).findings

    assert finding.fix.startswith('Depends(kit.session, scope="function")')


LOCKED = '[[package]]\nname = "fastapi"\nversion = "{}"\n'
PIPENV = (
    '{"default": {"fastapi": {"hashes": ["sha256:0"], "index": "x", "version": "==0.115.2"}, "x": {"version": "==9"}}}'
)


@pytest.mark.parametrize(
    ("files", "severity"),
    [
        ({"uv.lock": LOCKED.format("0.115.2")}, "advice"),
        ({"poetry.lock": LOCKED.format("0.117.9").replace("\n", "\r\n")}, "advice"),
        ({"pdm.lock": LOCKED.format("0.118.0")}, "error"),
        ({"pylock.toml": "[[packages]]\n" + LOCKED.format("0.109.0").partition("\n")[2]}, "advice"),
        ({"Pipfile.lock": PIPENV}, "advice"),
        ({"uv.lock": LOCKED.format("1.0.0")}, "error"),
        ({"uv.lock": LOCKED.format("0.115.2").replace("fastapi", "fastapi-users")}, "error"),
        ({"uv.lock": LOCKED.format("0.136.1"), "requirements.txt": "fastapi==0.115.4\n"}, "error"),
        ({"uv.lock": LOCKED.format("0.115.2"), "worker/uv.lock": LOCKED.format("0.136.1")}, "error"),
        ({"uv.lock": LOCKED.format("0.115.2"), "examples/uv.lock": LOCKED.format("0.136.1")}, "advice"),
    ],
)
def test_a_lock_file_says_which_fastapi_is_installed(files, severity, tmp_path):
    dependency = "async def get_db():\n    async with factory() as session:\n        yield session\n"
    dependency += "        await session.commit()\n"
    route = "\n@app.get('/')\nasync def read(session: Annotated[AsyncSession, Depends(get_db)]): ...\n"
    source = tree(tmp_path, {"main.py": HEAD + dependency + route, **files})

    [finding] = CommitOrRollback().conclude(Evidence(source)).findings

    assert finding.severity == severity
    assert source.unread == []


@pytest.mark.parametrize(
    ("file", "text", "severity"),
    [
        ("requirements.txt", "fastapi==0.115.4\n", "advice"),
        ("requirements/base.txt", "alembic\nfastapi[all]==0.117.1  # not yet\n", "advice"),
        ("requirements-dev.txt", "fastapi-users==0.1\nfastapi>=0.115\n", "error"),
        ("requirements.txt", "fastapi==0.118.0\n", "error"),
    ],
)
def test_a_commit_behind_the_answer_is_advice_below_the_release_that_moved_it(file, text, severity, tmp_path):
    dependency = "async def get_db():\n    async with factory() as session:\n        yield session\n"
    dependency += "        await session.commit()\n"
    route = "\n@app.get('/')\nasync def read(session: Annotated[AsyncSession, Depends(get_db)]): ...\n"
    evidence = Evidence(tree(tmp_path, {"main.py": HEAD + dependency + route, file: text}))

    [finding] = CommitOrRollback().conclude(evidence).findings

    assert finding.severity == severity


def closing(finally_):
    return f"""
async def get_db(log: logging.Logger, keep: bool = False):
    session = factory()
    try:
        yield session
    finally:
        {finally_}
"""


@pytest.mark.parametrize(
    "finally_",
    [
        "await session.close()",
        "await asyncio.shield(session.close())",
        "if session is not None:\n            await session.close()",
        "with suppress(Exception):\n            await session.close()",
        "await closed(session)\n\nasync def closed(session):\n    await session.close()",
    ],
)
def test_a_finally_that_always_closes_the_session_is_as_good_as_async_with(finally_, tmp_path):
    assert verdict(AsyncWith, tmp_path, closing(finally_)) is Verdict.HOLDS


@pytest.mark.parametrize("finally_", ["log.close()", "print(session)", "pass"])
def test_a_finally_that_closes_something_else_closes_no_session(finally_, tmp_path):
    assert verdict(AsyncWith, tmp_path, closing(finally_)) is Verdict.FAILS


@pytest.mark.parametrize("finally_", ["session.close()", "if keep:\n            await session.close()"])
def test_a_close_that_is_not_awaited_or_depends_on_something_proves_nothing(finally_, tmp_path):
    assert verdict(AsyncWith, tmp_path, closing(finally_)) is Verdict.UNPROVEN


def test_a_context_manager_of_the_tree_that_closes_nothing_is_seen_through(tmp_path):
    dependency = """
@asynccontextmanager
async def opened():
    yield factory()

async def get_db():
    async with opened() as session:
        yield session
"""

    assert verdict(AsyncWith, tmp_path, dependency) is Verdict.FAILS


def test_a_context_manager_of_the_tree_that_closes_is_as_good_as_the_session_itself(tmp_path):
    dependency = """
@asynccontextmanager
async def opened():
    async with factory() as session:
        yield session

async def get_db():
    async with opened() as session:
        yield session
"""

    assert verdict(AsyncWith, tmp_path, dependency) is Verdict.HOLDS


def test_a_session_that_a_middleware_left_in_the_requests_state_is_a_doubt(tmp_path):
    dependency = "def get_db(request: Request): return request.state.db\n"

    assert verdict(AsyncWith, tmp_path, dependency) is Verdict.UNPROVEN


def ending(body):
    return f"""
async def get_db():
    async with factory() as session:
        {body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "with suppress(Exception):\n            yield session\n        await session.commit()",
        "try:\n            yield session\n        finally:\n            await session.commit()",
        "try:\n            yield session\n            await session.commit()\n        finally:\n            return",
    ],
)
def test_an_error_of_the_request_is_neither_swallowed_nor_committed(body, tmp_path):
    assert verdict(CommitOrRollback, tmp_path, ending(body)) is Verdict.FAILS


@pytest.mark.parametrize(
    "body",
    [
        "with suppress(KeyError):\n            yield session\n        await session.commit()",
        (
            "try:\n            yield session\n        except Exception:\n            await session.rollback()\n"
            "            raise\n        finally:\n            await session.commit()"
        ),
        (
            "try:\n            yield session\n            await session.commit()\n        except Exception:\n"
            "            await session.rollback()\n            raise"
        ),
    ],
)
def test_a_dependency_that_rolls_back_what_failed_may_commit_the_rest(body, tmp_path):
    assert verdict(CommitOrRollback, tmp_path, ending(body)) is Verdict.HOLDS


def test_a_commit_in_an_except_clause_commits_no_request_that_went_well(tmp_path):
    body = "try:\n            yield session\n        except KeyError:\n            await session.commit()\n"
    body += "            raise"
    route = """
@app.post("/orders")
async def add(session: SessionDep):
    session.add(Order())
"""

    assert verdict(CommitOrRollback, tmp_path, ending(body), route) is Verdict.FAILS


@pytest.mark.parametrize(
    "body",
    [
        "statement = insert(Order)\n    await session.execute(statement)",
        'await session.execute(text("delete from orders"))',
        "order = await session.get(Order, 1)\n    order.name = 'changed'",
    ],
)
def test_where_nothing_commits_what_may_write_unseen_is_a_doubt(body, tmp_path):
    route = f"\n@app.post('/orders')\nasync def add(session: SessionDep):\n    {body}\n"

    assert verdict(CommitOrRollback, tmp_path, ending("yield session"), route) is Verdict.UNPROVEN


def test_where_nothing_commits_reading_is_fine(tmp_path):
    route = (
        "\n@app.get('/orders')\nasync def read(session: SessionDep):\n    return await session.scalar(select(Order))\n"
    )

    assert verdict(CommitOrRollback, tmp_path, ending("yield session"), route) is Verdict.HOLDS


KEPT = """
async def lifespan(app: FastAPI):
    app.state.factory = {factory}
    yield

async def get_db(request: Request):
    session = request.app.state.factory()
    {end}
"""


@pytest.mark.parametrize(
    ("factory", "end", "expected"),
    [
        ("factory", "async with session: yield session", Verdict.HOLDS),
        ("factory", "yield session", Verdict.FAILS),
        ("elsewhere()", "yield session", Verdict.UNPROVEN),
        ("factory if engine else None\n    app.state.factory = elsewhere()", "yield session", Verdict.UNPROVEN),
    ],
)
def test_a_factory_is_known_by_what_the_application_keeps_in_its_state(factory, end, expected, tmp_path):
    assert verdict(AsyncWith, tmp_path, KEPT.format(factory=factory, end=end)) is expected


CONTAINER = """
from dishka import FromDishka, Provider, Scope, make_async_container, provide
from dishka.integrations.fastapi import inject, setup_dishka
from typing import AsyncIterator

class Connections(Provider):
    scope = Scope.REQUEST

    @provide
    async def session(self) -> AsyncIterator[AsyncSession]:
        {body}

setup_dishka(make_async_container(Connections()), app)

@app.get("/")
@inject
async def write(session: FromDishka[AsyncSession]):
    session.add(Order())
"""


def contained(body):
    return CONTAINER.format(body=body)


@pytest.mark.parametrize(
    ("body", "opens", "ends"),
    [
        ("async with factory() as session:\n            yield session", Verdict.HOLDS, Verdict.FAILS),
        ("async with factory.begin() as session:\n            yield session", Verdict.HOLDS, Verdict.FAILS),
        (
            "async with factory() as session:\n            yield session\n            await session.commit()",
            Verdict.HOLDS,
            Verdict.FAILS,
        ),
        ("session = factory()\n        yield session\n        await session.close()", Verdict.HOLDS, Verdict.FAILS),
        (
            "session = factory()\n        yield session\n        await session.commit()\n        await session.close()",
            Verdict.UNPROVEN,
            Verdict.FAILS,
        ),
    ],
)
def test_what_a_container_gives_is_judged_by_when_the_container_goes_on_with_it(body, opens, ends, tmp_path):
    evidence = Evidence(tree(tmp_path, {"main.py": HEAD + contained(body)}))

    assert (AsyncWith().conclude(evidence).verdict, CommitOrRollback().conclude(evidence).verdict) == (opens, ends)


def test_a_container_may_leave_commits_to_services(tmp_path):
    service = "\nasync def save(session: AsyncSession):\n    session.add(Order())\n    await session.commit()\n"
    body = "async with factory() as session:\n            yield session"
    source = tree(
        tmp_path, {"main.py": HEAD + contained(body).replace("session.add(Order())", "await save(session)") + service}
    )

    assert CommitOrRollback().conclude(Evidence(source)).verdict is Verdict.HOLDS


def test_a_container_that_answers_no_requests_has_no_dependencies_of_theirs(tmp_path):
    body = "async with factory() as session:\n            yield session"
    text = contained(body).replace("dishka.integrations.fastapi", "dishka.integrations.aiogram")

    assert not tree(tmp_path, {"main.py": HEAD + text}).dependencies.every


def test_a_cast_gives_what_it_is_given(tmp_path):
    dependency = """
from typing import cast

async def get_db():
    async with factory() as session:
        yield cast(AsyncSession, session)
"""

    assert verdict(AsyncWith, tmp_path, dependency) is Verdict.HOLDS
