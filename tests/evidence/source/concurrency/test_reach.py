"""How often the source says a line runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS = """
from contextlib import asynccontextmanager
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

app = FastAPI()

async def session_of_its_own():
    engine = create_async_engine("postgresql+asyncpg://localhost/shop")
    factory = async_sessionmaker(engine)
    async with factory() as session:
        yield session
"""
DISPOSES = "    await engine.dispose()\n"
ROUTE = """
@app.get("/")
async def read(session: AsyncSession = Depends(session_of_its_own)): ...
"""

CACHED = """
from functools import lru_cache
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

app = FastAPI()

class Adapter:
    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url)

@lru_cache
def create_adapter(url: str) -> Adapter:
    return Adapter(url)

def get_adapter() -> Adapter:
    return create_adapter("postgresql+asyncpg://localhost/shop")

@app.get("/size")
async def size() -> str:
    return str(get_adapter().engine.url)
"""


def per_request(folder: Path, text: str) -> int:
    (folder / "app.py").write_text(text, "utf-8")
    _, box = boxes()["session/single-factory"]
    found = box.conclude(Evidence(Source.read(folder))).findings
    return sum(finding.variant == "per-request" for finding in found)


def test_what_a_cached_function_makes_is_not_made_again_by_its_callers(tmp_path: Path) -> None:
    assert per_request(tmp_path, CACHED) == 0


def test_without_the_cache_it_is_made_for_every_request(tmp_path: Path) -> None:
    assert per_request(tmp_path, CACHED.replace("@lru_cache\n", "")) == 1


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (SCRIPTS, Verdict.FAILS),
        (SCRIPTS + DISPOSES, Verdict.UNPROVEN),
        (SCRIPTS + DISPOSES + ROUTE, Verdict.FAILS),
    ],
)
def test_what_a_script_makes_and_disposes_of_is_no_requests_unless_one_asks_for_it(
    tmp_path: Path, code: str, verdict: Verdict
) -> None:
    (tmp_path / "app.py").write_text(code)

    assert boxes()["session/single-factory"][1].conclude(Evidence(Source.read(tmp_path))).verdict is verdict
