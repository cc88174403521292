"""`scope="function"`, written by `verdigris fix --unsafe`: only where FastAPI takes it and nothing streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verdigris.cli import main

DB = """\
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop", pool_size=5)
Session = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    async with Session() as session, session.begin():
        yield session
"""
MAIN = """\
from typing import Annotated

from fastapi import Depends, FastAPI, Security
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import get_db

app = FastAPI()
SessionDep = Annotated[
    AsyncSession,
    Depends(get_db),  # one a request
]


def settings(session: SessionDep) -> str:
    return "all"


@app.post("/orders")
async def create(session: SessionDep) -> str:
    await session.execute(text("INSERT INTO orders DEFAULT VALUES"))
    return "stored"


@app.post("/lines")
async def line(session: AsyncSession = Depends(get_db, use_cache=False), name: str = Depends(settings)) -> str:
    await session.execute(text("INSERT INTO lines DEFAULT VALUES"))
    return name
"""
GENERATOR = """

async def audit(session: SessionDep):
    yield session


@app.get("/audit")
async def audited(session: Annotated[AsyncSession, Depends(audit)]) -> str:
    return "ok"
"""
STREAM = """

@app.get("/export")
async def export(session: SessionDep) -> StreamingResponse:
    async def rows():
        async for row in await session.stream(text("SELECT 1")):
            yield str(row)

    return StreamingResponse(rows())
"""
BOX = ("--no-cache", "--select", "3.3")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "db.py").write_text(DB, "utf-8")
    (tmp_path / "main.py").write_text(MAIN, "utf-8")
    (tmp_path / "requirements.txt").write_text("fastapi>=0.121\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_use_ends_before_the_response_and_the_application_starts(project):
    assert main(["check", ".", *BOX]) == 1
    assert main(["fix", ".", "--unsafe", *BOX]) == 0

    text = (project / "main.py").read_text("utf-8")
    assert 'Depends(get_db, scope="function"),  # one a request' in text
    assert 'Depends(get_db, use_cache=False, scope="function")' in text
    assert main(["check", ".", *BOX]) == 0
    subprocess.run([sys.executable, "-c", "import main"], cwd=project, check=True)


def test_it_is_not_written_without_being_asked_for(project):
    assert main(["fix", ".", *BOX]) == 0

    assert (project / "main.py").read_text("utf-8") == MAIN


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (MAIN + GENERATOR, "fastapi>=0.121"),
        (MAIN + STREAM, "fastapi>=0.121"),
        (MAIN.replace("Depends(get_db, use", "Security(get_db, use"), "fastapi>=0.121"),
        (MAIN.replace("use_cache=False", 'scope="request"'), "fastapi>=0.121"),
        (MAIN, "fastapi>=0.115"),
        (MAIN, "fastapi"),
    ],
)
def test_where_the_application_would_not_start_or_stream_it_is_left_to_people(body, asked, project):
    head = "from fastapi.responses import StreamingResponse\n"
    (project / "main.py").write_text(head + body, "utf-8")
    (project / "requirements.txt").write_text(f"{asked}\n", "utf-8")

    assert main(["check", ".", *BOX]) == 1
    assert main(["fix", ".", "--unsafe", *BOX]) == 0

    assert (project / "main.py").read_text("utf-8") == head + body
