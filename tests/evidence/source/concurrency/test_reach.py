"""How often the source says a line runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

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
