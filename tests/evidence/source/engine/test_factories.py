"""Session factories, in the forms that real code has, and where sessions come from."""

from __future__ import annotations

import pytest
from tests.evidence.trees import scope, tree

from verdigris.evidence.source.session.origins import Flags
from verdigris.evidence.values import Known, Missing, Unknown

HEAD = """
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
engine = create_async_engine("postgresql+asyncpg://h/d")
"""


@pytest.mark.parametrize(
    ("made", "form", "mode"),
    [
        ("async_sessionmaker(engine)", "async_sessionmaker", "async"),
        ("async_sessionmaker[AsyncSession](engine)", "async_sessionmaker", "async"),
        ("sessionmaker(engine, class_=AsyncSession)", "sessionmaker", "async"),
        ("sessionmaker[AsyncSession](bind=engine, class_=Audited)", "sessionmaker", "async"),
        ("sessionmaker(engine)", "sessionmaker", "async"),
        ("sessionmaker(create_engine('x://'))", "sessionmaker", "sync"),
        ("sessionmaker(engine, class_=some())", "sessionmaker", "unknown"),
        ("AsyncSession(engine)", "direct", "async"),
        ("Audited(bind=engine, expire_on_commit=False)", "direct", "async"),
    ],
)
def test_each_form_is_known_for_what_it_is(tmp_path, made, form, mode):
    more = "from sqlalchemy import create_engine\nfrom c import some\nclass Audited(AsyncSession): ...\n"
    source = tree(tmp_path, {"app.py": f"{HEAD}{more}made = {made}\n"})

    assert [(each.form, each.mode) for each in source.factories] == [(form, mode)]


def test_the_generic_alias_in_an_annotation_is_no_factory(tmp_path):
    source = tree(tmp_path, {"app.py": HEAD + "def f(factory: async_sessionmaker[AsyncSession]) -> None: ...\n"})

    assert len(source.factories) == 0


def test_a_session_of_another_library_is_none(tmp_path):
    source = tree(
        tmp_path,
        {"app.py": "import sqlalchemy\nfrom neo4j import AsyncSession\ndef f(d):\n    return AsyncSession(d)\n"},
    )

    assert len(source.factories) == 0


def test_what_configure_adds_later_counts(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
Session_ = async_sessionmaker()
def start() -> None:
    Session_.configure(bind=engine, expire_on_commit=False)
"""
        },
    )

    [factory] = source.factories

    assert factory.option("expire_on_commit") == Known(False)


def test_an_option_of_a_single_call_is_a_subject_of_its_own(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
factory = async_sessionmaker(engine, expire_on_commit=False)
async def f() -> None:
    async with factory(expire_on_commit=True) as session:
        await session.commit()
"""
        },
    )

    found = {each.form: each.option("expire_on_commit") for each in source.factories}

    assert found == {"async_sessionmaker": Known(False), "override": Known(True)}


def test_options_of_a_wrapped_factory_come_from_its_callers(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def make(engine, **options):
    return async_sessionmaker(engine, **options)
reads = make(engine, expire_on_commit=False)
writes = make(engine)
"""
        },
    )

    assert {each.option("expire_on_commit") for each in source.factories} == {Known(False), Missing()}


def test_an_option_from_a_settings_object_of_another_package_is_unknown(tmp_path):
    source = tree(
        tmp_path, {"app.py": HEAD + "from c import cfg\nf = async_sessionmaker(engine, expire_on_commit=cfg.x)\n"}
    )

    [factory] = source.factories

    assert isinstance(factory.option("expire_on_commit"), Unknown)


@pytest.mark.parametrize(
    ("dependency", "expires"),
    [
        ("async with expiring() as session:\n        yield session", True),
        ("async with keeping() as session:\n        yield session", False),
        ("async with keeping.begin() as session:\n        yield session", False),
        (
            "session = AsyncSession(engine)\n    try:\n        yield session\n    finally:\n        pass",
            True,
        ),
        ("async for session in inner():\n        yield session", False),
    ],
)
def test_a_dependencys_session_has_the_options_of_what_opens_it(tmp_path, dependency, expires):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + f"""
from typing import Annotated
from fastapi import Depends
expiring = async_sessionmaker(engine)
keeping = async_sessionmaker(engine, expire_on_commit=False)
async def inner():
    async with keeping() as session:
        yield session
async def get_session():
    {dependency}
SessionDep = Annotated[AsyncSession, Depends(get_session)]
async def handler(session: SessionDep) -> None: ...
"""
        },
    )
    handler = scope(source, "app.py", "handler")

    found = source.origins.of_parameter(handler.parameters[0], handler)

    assert found == Flags(expires=expires, autoflush=True)


def test_a_session_from_nowhere_in_particular_has_what_all_factories_agree_on(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
one = async_sessionmaker(engine, expire_on_commit=False, autoflush=False)
two = async_sessionmaker(engine, expire_on_commit=False)
"""
        },
    )

    assert source.origins.everywhere == Flags(expires=False, autoflush=None)


@pytest.mark.parametrize(
    "later", ["made.kw['expire_on_commit'] = True", "made.kw.update(given)", "made.kw[name()] = 1", "made.kw = {}"]
)
def test_an_option_that_is_written_into_kw_later_is_not_settled(tmp_path, later):
    source = tree(tmp_path, {"app.py": f"{HEAD}made = async_sessionmaker(engine, expire_on_commit=False)\n{later}\n"})

    [made] = source.factories
    assert isinstance(made.option("expire_on_commit"), Unknown)


def test_another_option_in_kw_leaves_the_rest_as_written(tmp_path):
    text = f"{HEAD}made = async_sessionmaker(engine, expire_on_commit=False)\nmade.kw['info'] = {{}}\nprint(made.kw)\n"

    [made] = tree(tmp_path, {"app.py": text}).factories
    assert made.option("expire_on_commit") == Known(False)
