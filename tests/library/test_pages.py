"""The examples of the pages on the library run: block after block against a server, and the tests' page by pytest."""

import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from sqlalchemy import make_url

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(__file__).parents[2] / "src"
INSTALLED = any(each.value == "verdigris.pytest_plugin" for each in entry_points(group="pytest11"))
LOADED = [] if INSTALLED else ["-p", "verdigris.pytest_plugin"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FRAGMENT = re.compile(r"^```python(?: fragment)?\n(.*?)^```", re.MULTILINE | re.DOTALL)

RUN = """
    import ast, asyncio, inspect, json, sys

    async def run(blocks):
        names = {"__name__": "page"}
        for number, code in enumerate(blocks):
            made = eval(compile(code, f"block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(made):
                await made
            if "Base" in names and "db" in names:
                async with names["db"].engine.begin() as connection:
                    await connection.run_sync(names["Base"].metadata.create_all)
        if "db" in names:
            await names["db"].dispose()

    asyncio.run(run(json.loads(sys.stdin.read())))
"""

# What a fragment takes for granted: the names of a service, and values for the parameters of its functions.
SERVICE = """
    import os
    from contextvars import ContextVar
    from types import SimpleNamespace
    from typing import Annotated, Any, AsyncIterator, Generic, TypeVar

    from fastapi import APIRouter, Depends, FastAPI, Response
    from pydantic import BaseModel
    from sqlalchemy import ForeignKey, bindparam, event, func, select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
    from sqlalchemy.orm import Mapped, Session, mapped_column, relationship, selectinload
    from verdigris import Base, Database, after_commit, explain_plan, load
    from verdigris.fastapi import Route, install
    from verdigris.loading import plan

    class Customer(Base):
        __tablename__ = "customers"

        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(unique=True)

    class Product(Base):
        __tablename__ = "products"

        id: Mapped[int] = mapped_column(primary_key=True)

    class Order(Base):
        __tablename__ = "orders"

        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int]
        status: Mapped[str]
        customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
        customer: Mapped[Customer] = relationship()
        lines: Mapped[list["Line"]] = relationship()
        payments: Mapped[list["Payment"]] = relationship()

    class Line(Base):
        __tablename__ = "lines"

        id: Mapped[int] = mapped_column(primary_key=True)
        order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
        product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
        product: Mapped[Product] = relationship()

    class Payment(Base):
        __tablename__ = "payments"

        id: Mapped[int] = mapped_column(primary_key=True)
        order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

    class CustomerOut(BaseModel):
        id: int

    class LineOut(BaseModel):
        product: CustomerOut

    class OrderOut(BaseModel):
        id: int
        customer: CustomerOut
        lines: list[LineOut]

    db = Database()
    app = FastAPI()
    SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]
    T = TypeVar("T")
    id, order, session = 1, Order(id=1), db.session()
    primary_url = replica_url = os.environ["DATABASE_URL"]
    settings = SimpleNamespace(database_url=primary_url)
    mail = SimpleNamespace(welcome=lambda email: None)

    class EmailTaken(Exception):
        pass

    def the_tenant_of_the_request() -> str:
        return "acme"

    async def work(session: AsyncSession) -> None:
        await session.merge(Customer(id=1, email="a@b.example"))
        await session.merge(Order(id=1, number=1, status="new", customer_id=1))

    async def register(session: AsyncSession) -> None:
        session.add(Customer(id=2, email="a@b.example"))
"""

SERVED = """
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await db.transaction(work)
    del Base        # whose tables would be made after each block, on servers that a page only names
"""

# `run.py` as it stands, with a client in the place of the server that it starts.
CALLS = """
    import argparse, asyncio, json, runpy, shlex, sys

    import httpx, uvicorn

    curl = argparse.ArgumentParser()
    curl.add_argument("-X", default="GET")
    curl.add_argument("-H", default="accept: */*")
    curl.add_argument("-d")
    curl.add_argument("url")

    async def call(application):
        from app import app

        assert application == "app:app"
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            for command in json.loads(sys.stdin.read()):
                asked = curl.parse_args(shlex.split(command)[1:])
                headers = dict([asked.H.split(": ")])
                print((await client.request(asked.X, asked.url, headers=headers, content=asked.d)).text)

    uvicorn.run = lambda application: asyncio.run(call(application))
    sys.path.insert(0, "")
    runpy.run_path("run.py")
"""

APPLICATION = """
    from typing import Annotated

    from fastapi import Body, Depends, FastAPI
    from sqlalchemy import select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapped, mapped_column
    from verdigris import Base, Database
    from verdigris.fastapi import install

    class Order(Base):
        __tablename__ = "orders"

        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int]

    db = Database("postgresql://app@127.0.0.1:1/shop")
    app = FastAPI()
    install(app, db)
    SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]

    @app.post("/orders")
    async def create(number: Annotated[int, Body(embed=True)], session: SessionDep) -> int:
        session.add(Order(number=number))
        return number

    @app.get("/orders")
    async def read(session: SessionDep) -> list[int]:
        return list(await session.scalars(select(Order.number)))
"""


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text("utf-8"))


def python(*arguments, cwd, url, given=""):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DATABASE_URL": url or ""}
    command = [sys.executable, *arguments]
    if url is None:
        environment.pop("DATABASE_URL", None)
    ran = subprocess.run(
        command, cwd=cwd, env=environment, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def as_it_runs(fragment):
    """Return a fragment as code that runs where it stands: what returns is the end of a function, which is called."""
    if not re.search(r"^return ", fragment, re.MULTILINE):
        return fragment
    return f"async def handler():\n{textwrap.indent(fragment, '    ')}\nawait handler()"


def run_fragments(page, *, cwd, url):
    fragments = FRAGMENT.findall((DOCS / page).read_text("utf-8"))
    given = [textwrap.dedent(SERVICE), textwrap.dedent(SERVED), *map(as_it_runs, fragments)]
    return python("-c", textwrap.dedent(RUN), cwd=cwd, url=url, given=json.dumps(given))


@pytest.mark.parametrize("page", ["json-read.md", "reads.md", "topologies.md", "transactions.md"])
def test_the_fragments_of_a_page_run_where_the_names_of_a_service_are_known(page, database_url, tmp_path):
    code, said = run_fragments(page, cwd=tmp_path, url=database_url)

    assert code == 0, said


def test_the_fragments_of_the_loading_page_print_what_it_says(database_url, tmp_path):
    code, said = run_fragments("loading.md", cwd=tmp_path, url=database_url)

    assert code == 0, said
    assert "".join(f"# {line}\n" for line in said.splitlines()) in (DOCS / "loading.md").read_text("utf-8")


def test_the_fragment_of_the_page_of_errors_ends_as_it_says(database_url, tmp_path):
    code, said = run_fragments("errors.md", cwd=tmp_path, url=database_url)

    assert code == 1
    assert said.rstrip().endswith("\npage.EmailTaken")


@pytest.mark.parametrize("page", ["database.md", "monitoring.md", "models.md"])
def test_the_examples_of_a_page_run_one_after_the_other(page, database_url, tmp_path):
    code, said = python("-c", textwrap.dedent(RUN), cwd=tmp_path, url=database_url, given=json.dumps(blocks(page)))

    assert code == 0, said


def test_the_examples_of_the_bulk_page_print_what_it_says(database_url, tmp_path):
    code, said = python("-c", textwrap.dedent(RUN), cwd=tmp_path, url=database_url, given=json.dumps(blocks("bulk.md")))

    assert code == 0, said
    assert "20,000 rows in " in said
    assert "\ninsert a value is SQL\n2000\n4000\n5000\n" in said
    assert "\nbulk.insert into products: row 1, counted from 0\n" in said


@pytest.fixture
def directory():
    """An empty one that the account of a private server can enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="verdigris-test-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_the_service_of_the_first_page_answers_as_it_says(directory):
    for code in blocks("start.md"):
        (directory / code.split()[1].removesuffix(":")).write_text(code, "utf-8")
    console = re.findall(r"^\$ (curl .*)\n(.*)$", (DOCS / "start.md").read_text("utf-8"), re.MULTILINE)

    code, said = python(
        "-c", textwrap.dedent(CALLS), cwd=directory, url="", given=json.dumps([command for command, _ in console])
    )

    assert code == 0, said
    assert said.splitlines() == [answer for _, answer in console]
    assert len(console) == 3


def test_the_tests_of_the_testing_page_pass(database_url, tmp_path):
    for code in blocks("testing.md"):
        name = code.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(code, "utf-8")
    (tmp_path / "app.py").write_text(textwrap.dedent(APPLICATION), "utf-8")
    settings = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\npythonpath = .\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}", "utf-8")
    url = make_url(database_url).render_as_string(hide_password=False)

    code, said = python("-m", "pytest", *LOADED, "-q", "--verdigris-url", url, cwd=tmp_path, url=url)

    assert code == 0, said
    assert "\n2 passed in" in said


MOVED = """
    from typing import Annotated

    from fastapi import APIRouter, Depends, FastAPI
    from pydantic import BaseModel
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapped, mapped_column
    from verdigris import Base, Database
    from verdigris.fastapi import Route, install

    db = Database()
    get_db = db.request_session
    app, router = FastAPI(), APIRouter(route_class=Route)
    install(app, db)

    class Note(Base):
        __tablename__ = "notes"

        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]

    class NoteIn(BaseModel):
        title: str

    @router.post("/notes", status_code=201)
    async def write(note: NoteIn, session: Annotated[AsyncSession, Depends(get_db, scope="function")]) -> None:
        session.add(Note(title=note.title))

    app.include_router(router)
"""


def test_the_tests_of_the_page_on_moving_a_service_pass(tmp_path, database_url):
    for code in blocks("migrating.md"):
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code, "utf-8")
    (tmp_path / "service.py").write_text(textwrap.dedent(MOVED), "utf-8")
    settings = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\npythonpath = .\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}", "utf-8")
    url = make_url(database_url).render_as_string(hide_password=False)

    code, said = python("-m", "pytest", *LOADED, "-q", "--verdigris-url", url, cwd=tmp_path, url=None)

    assert code == 0, said
    assert "\n1 passed in" in said
