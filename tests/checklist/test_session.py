"""Section 2 with a run beside the source."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.ran import unseen_engines, unseen_factories
from verdigris.evidence.recording.artefact import Engine, Factory, Recording, Sessions
from verdigris.evidence.source import Source

APP = """from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from config import settings

def make(url: str):
    engine = create_async_engine(url)
    return async_sessionmaker(engine, **settings.session)
"""
ENGINE = Engine(id="app.py:5", site="app.py:5", is_async=True)
FACTORY = Factory(
    id="app.py:6", site="app.py:6", factory_class="sqlalchemy.ext.asyncio:async_sessionmaker", expire_on_commit=False
)


def conclude(box, folder, recording=None):
    (folder / "app.py").write_text(APP, "utf-8")
    return boxes()[f"session/{box}"][1].conclude(Evidence(Source.read(folder), recording))


def test_a_run_settles_an_option_that_the_source_leaves_open(tmp_path):
    kept, expiring = (
        Recording(factories=(Factory(id="app.py:6", site="app.py:6", expire_on_commit=value),))
        for value in (False, True)
    )

    assert conclude("expire-on-commit", tmp_path).verdict is Verdict.UNPROVEN
    assert conclude("expire-on-commit", tmp_path, kept).verdict is Verdict.HOLDS
    assert conclude("expire-on-commit", tmp_path, expiring).verdict is Verdict.FAILS


def test_a_run_counts_what_is_made_in_requests(tmp_path):
    once = Recording(engines=(ENGINE,), factories=(FACTORY,))
    again = Recording(
        engines=(Engine(id="app.py:5", site="app.py:5", created=40, created_in_requests=39),), factories=(FACTORY,)
    )

    assert conclude("single-factory", tmp_path).verdict is Verdict.UNPROVEN
    assert conclude("single-factory", tmp_path, once).verdict is Verdict.HOLDS
    assert conclude("single-factory", tmp_path, again).verdict is Verdict.FAILS


def test_sessions_that_only_a_run_saw_are_subjects_too(tmp_path):
    recording = Recording(
        factories=(FACTORY,),
        sessions=(Sessions(site="plugin.py:3", factory=None, is_async=True, created=4, expire_on_commit=True),),
    )

    assert conclude("async-sessionmaker", tmp_path, recording).verdict is Verdict.FAILS


def test_the_librarys_autoflush_that_is_off_drops_nothing(tmp_path):
    text = """from verdigris import Base, Database
from sqlalchemy.orm import Mapped, mapped_column
db = Database("postgresql://h/d", autoflush=False)
class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
async def rename(name: str) -> None:
    async with db.session() as session:
        user = await session.get_one(User, 1)
        user.name = name
        await session.refresh(user)
"""
    (tmp_path / "app.py").write_text(text, "utf-8")

    conclusion = boxes()["session/autoflush"][1].conclude(Evidence(Source.read(tmp_path)))

    assert conclusion.verdict is Verdict.HOLDS
    assert conclusion.findings == ()


FACTORIES = """from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine("postgresql+asyncpg://h/d")
Session = sessionmaker(bind=engine, class_=AsyncSession, expire_on_commit=False)

async def get_session():
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
"""


def test_what_to_paste_for_sessions_of_sqlmodel_keeps_their_exec(tmp_path):
    (tmp_path / "app.py").write_text(FACTORIES, "utf-8")

    found = boxes()["session/async-sessionmaker"][1].conclude(Evidence(Source.read(tmp_path))).findings

    assert {each.variant: each.fix.splitlines()[0].partition("   #")[0] for each in found} == {
        "sessionmaker": "async_sessionmaker(bind=engine, class_=AsyncSession, expire_on_commit=False)",
        "direct": "Session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)",
    }


CONFIGURED = """from advanced_alchemy.config import AsyncSessionConfig
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, SQLAlchemyAsyncConfig
from config import settings

config = SQLAlchemyAsyncConfig(
    connection_string=settings.url, session_config=AsyncSessionConfig(**settings.session)
)
alchemy = AdvancedAlchemy(config=config, app=settings.app)
"""


@pytest.mark.parametrize(("times", "verdict"), [(1, Verdict.HOLDS), (2, Verdict.FAILS)])
def test_what_a_configuration_makes_is_made_where_it_is_first_asked(tmp_path, times, verdict):
    (tmp_path / "app.py").write_text(CONFIGURED, "utf-8")
    engine = replace(ENGINE, id="app.py:8", site="app.py:8", created=times, created_in_requests=times)
    factory = replace(FACTORY, id="app.py:8", site="app.py:8")
    evidence = Evidence(Source.read(tmp_path), Recording(processes=1, engines=(engine,), factories=(factory,)))

    kept, once = (boxes()[f"session/{box}"][1].conclude(evidence) for box in ("expire-on-commit", "single-factory"))

    assert (kept.verdict, once.verdict) == (Verdict.HOLDS, verdict)
    assert (unseen_engines(evidence), unseen_factories(evidence)) == ((), ())
