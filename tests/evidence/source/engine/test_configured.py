"""What advanced-alchemy makes of its configurations: an engine and a factory, with the options written in them."""

from __future__ import annotations

import ast

import pytest
from tests.evidence.trees import scope, tree

from verdigris.evidence.values import Known, Missing, Unknown

HEAD = """
from advanced_alchemy.extensions.fastapi import (
    AdvancedAlchemy, AsyncSessionConfig, EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemySyncConfig
)
URL = "postgresql+asyncpg://h/d"
"""


def app(tmp_path, code):
    return tree(tmp_path, {"app.py": f"{HEAD}{code}\n"})


@pytest.mark.parametrize(
    "code",
    [
        (
            "config = SQLAlchemyAsyncConfig(connection_string=URL, engine_config=EngineConfig(pool_pre_ping=True),"
            " session_config=AsyncSessionConfig(expire_on_commit=False))"
        ),
        (
            "pool = EngineConfig(pool_pre_ping=True)\nsessions = AsyncSessionConfig(expire_on_commit=False)\n"
            "config = SQLAlchemyAsyncConfig(connection_string=URL, engine_config=pool, session_config=sessions)"
        ),
        (
            "given = {'connection_string': URL, 'engine_config': EngineConfig(pool_pre_ping=True)}\n"
            "config = SQLAlchemyAsyncConfig(session_config=AsyncSessionConfig(expire_on_commit=False), **given)"
        ),
    ],
)
def test_a_configuration_makes_an_engine_and_a_factory(tmp_path, code):
    source = app(tmp_path, code)

    (engine,), (factory,) = source.engines, source.factories

    assert source.engines.gaps == source.factories.gaps == ()
    assert (engine.mode, engine.pooled, engine.option("pool_pre_ping")) == ("async", Known(True), Known(True))
    assert [text.scheme for text in source.urls.drivers(engine.url)] == ["postgresql+asyncpg"]
    assert (factory.form, factory.mode) == ("async_sessionmaker", "async")
    assert factory.option("expire_on_commit") == Known(False)
    assert engine.variable == "config.get_engine()"


def test_what_no_configuration_names_is_sqlalchemys_default_and_stands_in_one_when_it_is_set(tmp_path):
    source = app(tmp_path, "config = SQLAlchemyAsyncConfig(connection_string=URL)")

    (engine,), (factory,) = source.engines, source.factories

    assert engine.option("pool_pre_ping") == factory.option("expire_on_commit") == Missing()
    assert engine.with_option("pool_pre_ping", "True") == (
        "SQLAlchemyAsyncConfig(connection_string=URL, engine_config=EngineConfig(pool_pre_ping=True))"
    )
    assert factory.with_option("expire_on_commit", "False") == (
        "SQLAlchemyAsyncConfig(connection_string=URL, session_config=AsyncSessionConfig(expire_on_commit=False))"
    )
    assert engine.edits("pool_pre_ping", "True") == factory.edits("expire_on_commit", "False") == ()


def test_an_option_is_set_where_the_others_are(tmp_path):
    source = app(
        tmp_path, "config = SQLAlchemyAsyncConfig(connection_string=URL, engine_config=EngineConfig(echo=True))"
    )

    (engine,) = source.engines

    assert engine.with_option("pool_pre_ping", "True") == "EngineConfig(echo=True, pool_pre_ping=True)"
    assert [(edit.place, edit.name) for edit in engine.edits("pool_pre_ping", "True")] == [
        (engine.place, "pool_pre_ping")
    ]


@pytest.mark.parametrize(
    "given",
    [
        "engine_config=settings.engine, session_config=settings.sessions",
        "engine_config=EngineConfig(), session_config=AsyncSessionConfig(), routing_config=settings.routing",
        "create_engine_callable=make, session_maker_class=Maker",
        "**settings.given",
    ],
)
def test_what_is_not_seen_of_a_configuration_is_a_doubt(tmp_path, given):
    source = app(tmp_path, f"from c import Maker, make, settings\nconfig = SQLAlchemyAsyncConfig({given})")

    (engine,), (factory,) = source.engines, source.factories

    assert isinstance(engine.option("pool_pre_ping"), Unknown)
    assert isinstance(factory.option("expire_on_commit"), Unknown)


def test_an_engine_and_a_factory_that_are_given_are_not_made_again(tmp_path):
    source = app(
        tmp_path,
        "from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine\n"
        "engine = create_async_engine(URL, pool_pre_ping=True)\n"
        "Session = async_sessionmaker(engine)\n"
        "config = SQLAlchemyAsyncConfig(engine_instance=engine, session_maker=Session)",
    )

    assert [each.short for each in (*source.engines, *source.factories)] == ["engine", "Session"]


def test_the_engine_that_a_database_takes_over_has_what_the_database_sees_to(tmp_path):
    source = app(
        tmp_path,
        "from verdigris import Database\nconfig = SQLAlchemyAsyncConfig(connection_string=URL)\n"
        "engine = config.get_engine()\ndb = Database.from_engine(engine)",
    )

    (engine,) = source.engines

    assert engine.ours
    assert engine.option("pool_pre_ping").value is True


def test_a_synchronous_configuration_is_a_gap(tmp_path):
    source = app(
        tmp_path,
        "config = SQLAlchemyAsyncConfig(connection_string=URL)\n"
        "other = SQLAlchemySyncConfig(connection_string='postgresql://h/d')\n"
        "third = SQLAlchemySyncConfig(engine_instance=made)",
    )

    assert source.engines.gaps == ("app.py:6: the engine that SQLAlchemySyncConfig makes is not followed",)


@pytest.mark.parametrize(
    "opened",
    [
        "config.get_session()",
        "config.create_session_maker()()",
        "alchemy.with_async_session()",
    ],
)
def test_its_sessions_are_sessions(tmp_path, opened):
    source = app(
        tmp_path,
        "config = SQLAlchemyAsyncConfig(connection_string=URL)\nalchemy = AdvancedAlchemy(config=config)\n"
        f"async def use():\n    async with {opened} as session:\n        await session.commit()",
    )

    use = scope(source, "app.py", "use")
    session = next(node for node in use.nodes() if isinstance(node, ast.Name) and node.id == "session")

    assert source.types.session(session, use) == "async"
