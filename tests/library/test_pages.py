"""The examples of the pages on the library run: block after block against a server, and the tests' page by pytest."""

import json
import os
import re
import subprocess
import sys
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
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DATABASE_URL": url}
    command = [sys.executable, *arguments]
    ran = subprocess.run(
        command, cwd=cwd, env=environment, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


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
