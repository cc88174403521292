"""Sessions that advanced-alchemy ends: nothing of their end is in the tree, and the checker says whose it is."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

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
