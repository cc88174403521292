"""Sessions that a container of dependency-injector gives out: who ends them, and how many there are."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.concurrency import SessionPerTask
from verdigris.checklist.fastapi import AsyncWith, Closed, CommitOrRollback
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence

APP = """
from collections.abc import AsyncIterator
from dependency_injector import containers, providers
from dependency_injector.wiring import Closing, Provide, inject
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()

async def get_session() -> AsyncIterator[AsyncSession]:
    async with factory() as session:
        yield session
        COMMIT

class Container(containers.DeclarativeContainer):
    session = providers.RESOURCE

@app.post("/orders")
@inject
async def create(session: AsyncSession = Depends(GIVEN)) -> None:
    session.add(object())
"""
CLOSING = "Closing[Provide[Container.session]]"


def evidence(folder, *, resource="Resource(get_session)", commit="await session.commit()", given=CLOSING):
    text = APP.replace("RESOURCE", resource).replace("COMMIT", commit).replace("GIVEN", given)
    return Evidence(tree(folder, {"app.py": text}))


def variants(box, given):
    return [finding.variant for finding in box().conclude(given).findings]


def test_a_resource_that_commits_does_so_when_the_request_failed_too(tmp_path):
    given = evidence(tmp_path)

    (finding,) = CommitOrRollback().conclude(given).findings

    assert (finding.variant, finding.subject) == ("on-error", "app.py:get_session")
    assert AsyncWith().conclude(given).verdict is Verdict.HOLDS
    assert Closed().conclude(given).verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("resource", "shared"),
    [("Resource(get_session)", ["global"]), ("ContextLocalResource(get_session)", [])],
)
def test_a_resource_is_one_session_for_all_who_ask_unless_it_is_one_for_each_context(tmp_path, resource, shared):
    given = evidence(tmp_path, resource=resource, commit="pass")

    assert variants(SessionPerTask, given) == shared


def test_nothing_ends_a_resource_with_a_request_but_closing(tmp_path):
    given = evidence(tmp_path, given="Provide[Container.session]")

    assert variants(Closed, given) == ["left-open"]
    assert variants(CommitOrRollback, given) == ["after-response"]


@pytest.mark.parametrize(
    "resource", ["Factory(factory)", "Callable(factory)", "Factory(AsyncSession, engine)", "Resource(unknown)"]
)
def test_a_session_that_nobody_is_seen_to_end_leaves_the_boxes_open(tmp_path, resource):
    given = evidence(tmp_path, resource=resource, given="Provide[Container.session]")

    assert AsyncWith().conclude(given).verdict is Verdict.UNPROVEN
    assert Closed().conclude(given).verdict is Verdict.UNPROVEN


def test_providers_of_anything_else_are_none_of_its_business(tmp_path):
    given = evidence(tmp_path, resource="Factory(list)", given="get_session")

    assert [each.short for each in given.source.session_dependencies] == ["get_session"]
    assert given.source.session_dependencies.gaps == ()
