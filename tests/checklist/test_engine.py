"""Section 1 with a run and a server beside the source: what they refute, and what they settle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checklist.pages import catalogue
from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.recording.artefact import Engine, Recording
from verdigris.evidence.source import Source

APP = """from config import settings
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(settings.url, **settings.options)
"""
SEEN = Engine(
    id="app.py:4",
    site="app.py:4",
    dialect="postgresql",
    driver="asyncpg",
    is_async=True,
    pool_size=10,
    max_overflow=5,
    pool_recycle=1800,
    pre_ping=True,
)


def conclude(box, folder, *seen, text=APP, workers=None, database=None):
    (folder / "app.py").write_text(text, "utf-8")
    told = None if database is None else catalogue(database)
    evidence = Evidence(Source.read(folder), Recording(engines=seen) if seen else None, told, workers)
    return boxes()[f"engine/{box}"][1].conclude(evidence)


@pytest.mark.parametrize("box", ["async-driver", "pre-ping", "recycle"])
def test_a_run_settles_what_the_source_leaves_open(tmp_path, box):
    assert conclude(box, tmp_path).verdict is Verdict.UNPROVEN
    assert conclude(box, tmp_path, SEEN).verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("box", "seen", "variant"),
    [
        ("pre-ping", replace(SEEN, pre_ping=False), "off"),
        ("recycle", replace(SEEN, pool_recycle=-1), "never"),
        ("async-engine", replace(SEEN, in_event_loop={"app.py:9": 3}), "sync-in-async"),
        ("async-driver", replace(SEEN, driver="psycopg2"), "sync-driver"),
    ],
)
def test_a_run_refutes(tmp_path, box, seen, variant):
    conclusion = conclude(box, tmp_path, seen)

    assert [finding.variant for finding in conclusion.findings] == [variant]


@pytest.mark.parametrize(
    ("workers", "maximum", "verdict"),
    [(1, 100, Verdict.HOLDS), (6, 100, Verdict.HOLDS), (7, 100, Verdict.FAILS), (2, 30, Verdict.FAILS)],
)
def test_the_sum_of_all_workers_is_what_counts(tmp_path, workers, maximum, verdict):
    conclusion = conclude("pool-size", tmp_path, SEEN, workers=workers, database={"max_connections": maximum})

    assert conclusion.verdict is verdict


def test_a_server_alone_does_not_tell_the_size_of_a_pool(tmp_path):
    conclusion = conclude("pool-size", tmp_path, database={"max_connections": 100})

    assert conclusion.verdict is Verdict.UNPROVEN


def test_pools_that_fit_alone_but_not_together_are_in_doubt(tmp_path):
    made = 'create_async_engine("postgresql+asyncpg://h/d", pool_size=20, max_overflow=10)'
    text = f"from sqlalchemy.ext.asyncio import create_async_engine\na = {made}\nb = {made}\n"

    assert conclude("pool-size", tmp_path, text=text, database={"max_connections": 100}).verdict is Verdict.HOLDS
    assert conclude("pool-size", tmp_path, text=text, database={"max_connections": 50}).verdict is Verdict.UNPROVEN


def test_a_pool_that_lets_requests_wait_is_advice(tmp_path):
    text = """from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine("postgresql+asyncpg://h/d", pool_size=5, max_overflow=0)
"""

    conclusion = conclude("pool-size", tmp_path, text=text, database={"max_connections": 100})

    assert conclusion.verdict is Verdict.HOLDS
    assert [(finding.variant, finding.severity.value) for finding in conclusion.findings] == [("patience", "advice")]


def test_a_database_that_nothing_starts_keeps_its_small_pool(tmp_path):
    text = 'from verdigris import Database\ndb = Database("postgresql://h/d")\n'
    started = text + "from fastapi import FastAPI\napp = FastAPI(lifespan=db.lifespan)\n"
    server = {"max_connections": 100}

    assert conclude("pool-size", tmp_path, text=text, database=server).verdict is Verdict.UNPROVEN
    assert conclude("pool-size", tmp_path, text=started, database=server).verdict is Verdict.HOLDS
