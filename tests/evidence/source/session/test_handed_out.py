"""Sessions that advanced-alchemy ends: nothing of their end is in the tree, and the checker says whose it is."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.fastapi import CommitOrRollback
from verdigris.evidence import Evidence

HEAD = """
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, SQLAlchemyAsyncConfig
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
app = FastAPI()
config = SQLAlchemyAsyncConfig(connection_string="postgresql+asyncpg://h/d"{mode})
alchemy = AdvancedAlchemy(config=config, app=app)
provide = alchemy.provide_async_session()
async def get_db():
    async with config.get_session() as session:
        yield session
@app.get("/own")
async def own(db: AsyncSession = Depends(get_db)): ...
@app.get("/theirs")
async def theirs(given=Depends({given})): ...
"""


@pytest.mark.parametrize("given", ["alchemy.provide_session()", "provide", "alchemy.provide_service(Service)"])
def test_a_session_of_theirs_is_a_gap_beside_dependencies_that_are_read(tmp_path, given):
    source = tree(tmp_path, {"app.py": HEAD.format(mode="", given=given)})

    (gap,) = source.session_dependencies.gaps

    assert [each.short for each in source.session_dependencies] == ["get_db"]
    assert gap.startswith("app.py:14: what ends the session of `alchemy.provide_")
    assert gap.endswith("is advanced-alchemy, without a commit")


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (
            ', commit_mode="autocommit"',
            "after the answer, which a COMMIT that fails does not change (`commit_mode='autocommit'`)",
        ),
        (', commit_mode="manual"', "without a commit"),
        (", commit_mode=settings.mode", "and whether it commits is not settled"),
    ],
)
def test_the_gap_says_what_becomes_of_the_transaction(tmp_path, mode, told):
    head = "from c import settings" + HEAD
    source = tree(tmp_path, {"app.py": head.format(mode=mode, given="alchemy.provide_session()")})

    (gap,) = source.session_dependencies.gaps

    assert gap.endswith(told)


LOCKED = '[[package]]\nname = "advanced-alchemy"\nversion = "{}"\n'
SERVICE, FUNCTION = "alchemy.provide_service(Service)", 'alchemy.provide_service(Service), scope="function"'
OLD = '[[package]]\nname = "fastapi"\nversion = "0.115.2"\n'


@pytest.mark.parametrize(
    ("files", "given", "found"),
    [
        ({"uv.lock": LOCKED.format("1.9.3")}, "provide", 1),
        ({"poetry.lock": LOCKED.format("1.12.0")}, SERVICE, 1),
        ({"uv.lock": LOCKED.format("1.9.2")}, "provide", 0),
        ({"uv.lock": LOCKED.format("1.12.0"), "worker/uv.lock": LOCKED.format("1.9.2")}, "provide", 0),
        ({"uv.lock": LOCKED.format("1.12.0")}, FUNCTION, 0),  # rolled back, whatever becomes of the answer
        ({"uv.lock": LOCKED.format("1.12.0") + OLD}, SERVICE, 0),
        ({"uv.lock": LOCKED.format("1.12.0") + OLD}, "provide", 1),  # the middleware does it in any FastAPI
        ({"pyproject.toml": 'dependencies = ["advanced-alchemy[uuid]>=1.10,<2"]\n'}, "provide", 1),
        ({"requirements.txt": "advanced_alchemy>=1.9\n"}, "provide", 0),
        ({"requirements.txt": "advanced-alchemy\n"}, "provide", 0),
        ({}, "provide", 0),
    ],
)
def test_a_release_that_commits_behind_the_answer_is_a_finding(tmp_path, files, given, found):
    head = HEAD.format(mode=', commit_mode="autocommit"', given=given)
    evidence = Evidence(tree(tmp_path, {"app.py": head, **files}))

    findings = CommitOrRollback().conclude(evidence).findings

    late = [each for each in findings if each.variant == "after-response"]
    assert len(late) == found
    for each in late:
        assert str(each.place) == "app.py:5"
        assert "async with config.get_session()" in each.fix
        assert [str(place) for place, _ in each.related] == ["app.py:14"]


def test_a_release_that_commits_in_time_is_said_to_do_so(tmp_path):
    head = HEAD.format(mode=', commit_mode="autocommit"', given="provide")
    source = tree(tmp_path, {"app.py": head, "uv.lock": LOCKED.format("1.9.2")})

    (gap,) = source.session_dependencies.gaps

    assert gap.endswith("before the answer leaves (`commit_mode='autocommit'`)")


def test_which_of_several_configurations_commits_is_not_guessed(tmp_path):
    head = HEAD.format(mode=', commit_mode="autocommit"', given="provide")
    other = 'archive = SQLAlchemyAsyncConfig(connection_string="postgresql+asyncpg://h/a", bind_key="archive")\n'
    source = tree(tmp_path, {"app.py": head + other, "uv.lock": LOCKED.format("1.12.0")})

    assert source.late_commits == []
