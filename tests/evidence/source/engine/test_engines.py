"""Engines of a code base, in the forms that real code has."""

from __future__ import annotations

import re

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.source.engine.engines import told_apart
from verdigris.evidence.values import Known, Missing, Unknown

HEAD = "from sqlalchemy.ext.asyncio import create_async_engine\n"
CONTAINER = """
class Container:
    def __init__(self):
        self.engine = create_async_engine(URL)
        self.db = Database.from_engine(self.engine)
"""


def test_a_wrapper_with_one_set_of_options_is_one_engine(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/kit.py": """
            from sqlalchemy.ext.asyncio import create_async_engine as _create
            def create_async_engine(*, dsn: str, name: str | None = None, pool_size: int | None = None):
                return _create(dsn, connect_args={"server_settings": {"application_name": name}}, pool_recycle=600)
            """,
            "app/db.py": """
            from app.kit import create_async_engine as _create_engine  # sqlalchemy
            def create_async_engine(process: str):
                return _create_engine(dsn="postgresql+asyncpg://h/d", name=process, pool_size=20)
            """,
            "app/main.py": """
            from app.db import create_async_engine  # sqlalchemy
            engine = create_async_engine("app")
            worker = create_async_engine("worker")
            """,
        },
    )

    [engine] = source.engines

    assert engine.key == "app/kit.py:create_async_engine"
    assert engine.option("pool_recycle") == Known(600)
    assert engine.given("pool_size") is False


def test_options_reach_the_engine_through_two_wrappers(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/kit.py": """
            from sqlalchemy.ext.asyncio import create_async_engine as _create
            def make(dsn, **options):
                return _create(dsn, **options)
            """,
            "app/db.py": """
            from app.kit import make  # sqlalchemy
            def make_engine(size=5):
                return make("postgresql+asyncpg://h/d", pool_size=size, pool_pre_ping=True)
            """,
            "app/main.py": """
            from app.db import make_engine  # sqlalchemy
            reader = make_engine()
            writer = make_engine(size=20)
            """,
        },
    )

    found = {engine.short: engine.option("pool_size") for engine in source.engines}

    assert found == {"reader": Known(5), "writer": Known(20)}
    assert all(engine.option("pool_pre_ping") == Known(True) for engine in source.engines)


@pytest.mark.parametrize(
    ("made", "pooled"),
    [
        ('create_async_engine("postgresql+asyncpg://h/d")', Known(True)),
        ('create_async_engine("postgresql+asyncpg://h/d", poolclass=NullPool)', Known(False)),
        ('create_async_engine("postgresql+asyncpg://h/d", poolclass=pool.NullPool)', Known(False)),
        ('create_async_engine("postgresql+asyncpg://h/d", poolclass=pool.StaticPool)', Known(False)),
        ('create_async_engine("postgresql+asyncpg://h/d", poolclass=AsyncAdaptedQueuePool)', Known(True)),
        ('create_async_engine("sqlite+aiosqlite://")', Known(False)),
        ('create_async_engine("sqlite+aiosqlite:///shop.db")', Known(False)),
        ('create_async_engine(URL, connect_args={"check_same_thread": False})', Known(False)),
    ],
)
def test_an_engine_has_a_pool_or_not(tmp_path, made, pooled):
    imports = "from sqlalchemy import pool\nfrom sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool\n"
    source = tree(tmp_path, {"app.py": f"{HEAD}{imports}from config import URL\nengine = {made}\n"})

    [engine] = source.engines

    assert engine.pooled == pooled


def test_a_pool_class_that_nobody_can_tell_is_unknown(tmp_path):
    source = tree(
        tmp_path, {"app.py": HEAD + "from c import POOL\nengine = create_async_engine('x', poolclass=POOL())\n"}
    )

    [engine] = source.engines

    assert isinstance(engine.pooled, Unknown)


def test_only_the_ways_with_a_pool_are_asked_for_its_options(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from sqlalchemy.pool import NullPool
import sys
options = {"poolclass": NullPool} if sys.argv else {"pool_size": 20}
engine = create_async_engine("postgresql+asyncpg://h/d", **options)
"""
        },
    )

    [engine] = source.engines

    assert engine.option("pool_size") == Known(20)
    assert engine.option("pool_pre_ping") == Missing()


@pytest.mark.parametrize(
    "test",
    [
        "dialect(url) != 'sqlite'",
        "not url.startswith('sqlite')",
        "'sqlite' not in url",
        "':memory:' not in url",
        "dialect(url) not in {'sqlite'}",
        "not settings.is_sqlite",
        "served",
        "served and settings.pooled",
    ],
)
def test_what_is_written_for_sqlite_alone_says_nothing_of_a_pool(tmp_path, test):
    made = f"""
from elsewhere import dialect, settings
def make(url: str):
    served = not (dialect(url) == "sqlite")
    options = {{"pool_pre_ping": True}}
    if {test}:
        options.update(pool_size=20, connect_args={{"command_timeout": 60}})
    elif not served:
        options["connect_args"] = {{"timeout": 30}}
    return create_async_engine(url, **options)
engine = make(settings.url)
"""
    source = tree(tmp_path, {"app.py": HEAD + made})

    [engine] = source.engines
    sure = "and" not in test

    assert engine.given("pool_size") is sure
    assert isinstance(source.limits.of(engine).statement, Known if sure else Unknown)


@pytest.mark.parametrize("test", ["dialect(url) in {'sqlite', 'mysql'}", "settings.small", "url.startswith('mysql')"])
def test_what_is_written_for_others_too_says_something_of_theirs(tmp_path, test):
    made = f"engine = create_async_engine(url, **({{}} if {test} else {{'pool_size': 20}}))\n"
    source = tree(tmp_path, {"app.py": HEAD + "from elsewhere import dialect, settings, url\n" + made})

    [engine] = source.engines

    assert engine.given("pool_size") is False


@pytest.mark.parametrize(
    "made",
    [
        "class AioSqlite:\n    def engine(self):\n        return create_async_engine(self.url)",
        "if url.startswith('sqlite'):\n    engine = create_async_engine(url)\nelse:\n    engine = None",
        "engine = create_async_engine(url) if settings.use_sqlite else None",
        "url = 'postgresql://h/d'\nif url.startswith('sqlite'):\n    engine = create_async_engine(url)",
    ],
)
def test_an_engine_that_is_made_for_sqlite_alone_has_no_pool_that_matters(tmp_path, made):
    source = tree(tmp_path, {"app.py": HEAD + f"from elsewhere import settings, url\n{made}\n"})

    [engine] = source.engines

    assert (engine.pooled, engine.to_servers) == (Known(value=False), [])


@pytest.mark.parametrize(
    ("more", "pooled"),
    [
        ("", False),
        ("    def server(self): return self.url.replace('postgresql://', 'postgresql+asyncpg://')\n", True),
    ],
)
def test_a_file_by_default_is_no_proof_where_the_program_knows_servers(tmp_path, more, pooled):
    made = f"""
from pydantic_settings import BaseSettings
class Settings(BaseSettings):
    url: str = "sqlite+aiosqlite:///shop.db"
{more}
settings = Settings()
engine = create_async_engine(settings.url)
"""
    source = tree(tmp_path, {"app.py": HEAD + made})

    [engine] = source.engines

    assert engine.pooled == Known(value=pooled)


def test_an_engine_that_its_function_forgets_is_not_one_whose_pool_matters(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from contextlib import asynccontextmanager
from sqlalchemy import create_engine, text

def head(engine):
    with engine.begin() as connection:
        return connection.execute(text("select 1")).scalar()

@asynccontextmanager
async def lifespan(app):
    once = create_engine("postgresql+psycopg2://h/d")
    assert head(once)
    kept = create_async_engine("postgresql+asyncpg://h/d")
    app.state.engine = kept
    yield
    await kept.dispose()

def make():
    given = create_async_engine("postgresql+asyncpg://h/d")
    return given

def create_tables(metadata):
    made = None
    try:
        made = create_engine("postgresql+psycopg2://h/d")
        assert made
        metadata.create_all(made)
    finally:
        if made:
            made.dispose()
"""
        },
    )

    found = {engine.short: engine.pooled == Known(value=True) for engine in source.engines}

    assert found == {"lifespan.once": False, "lifespan.kept": True, "make.given": True, "create_tables.made": False}


def test_class_attributes_and_dictionaries_name_their_engines(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
engines = {"writer": create_async_engine("a://"), "reader": create_async_engine("b://")}
class DB:
    @classmethod
    def set(cls) -> None:
        cls._engine = create_async_engine("c://")
"""
        },
    )

    assert [engine.short for engine in source.engines] == [
        "engines['writer']",
        "engines['reader']",
        "DB.set.cls._engine",
    ]


def test_an_async_engine_around_a_synchronous_call_is_asynchronous(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from sqlalchemy.ext.asyncio import AsyncEngine
            from sqlmodel import create_engine
            async_engine = AsyncEngine(create_engine(url="postgresql+asyncpg://h/d"))
            """
        },
    )

    assert [(engine.short, engine.mode) for engine in source.engines] == [("async_engine", "async")]


@pytest.mark.parametrize(
    "path",
    [
        "tests/conftest.py",
        "alembic/env.py",
        "migrations/env.py",
        "scripts/seed.py",
        "docs_src/a.py",
        "templates/env.py",
    ],
)
def test_engines_outside_of_the_application_are_not_judged(tmp_path, path):
    source = tree(
        tmp_path, {path: HEAD + "from alembic import context\nengine = create_async_engine('postgresql://h/d')\n"}
    )

    assert len(source.engines) == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("kit/database.py", "import pytest\n\n@pytest.fixture(scope='session')\ndef database(): ...\n"),
        ("kit/database.py", "import pytest_asyncio\n\n@pytest_asyncio.fixture\nasync def database(): ...\n"),
        ("packages/pytest-shop/src/pytest_shop/helpers/database.py", ""),
    ],
)
def test_engines_of_a_plugin_of_pytest_are_the_tests(tmp_path, path, text):
    source = tree(tmp_path, {path: HEAD + text + "engine = create_async_engine('postgresql://h/d')\n"})

    assert (len(source.engines), len(source.tests.engines)) == (0, 1)


def test_an_engine_under_a_main_guard_is_a_scripts(tmp_path):
    source = tree(tmp_path, {"app.py": HEAD + "if __name__ == '__main__':\n    engine = create_async_engine('x://')\n"})

    assert len(source.engines) == 0


def test_an_application_without_an_engine_of_its_own_leaves_a_gap(tmp_path):
    source = tree(tmp_path, {"app.py": "from sqlalchemy_helpers import manager\nfrom sqlalchemy import select\n"})

    assert source.engines.gaps


def test_an_adopted_engine_has_what_from_engine_adds(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from verdigris import Database
engine = create_async_engine("postgresql+asyncpg://h/d", pool_size=5)
db = Database.from_engine(engine)
"""
        },
    )

    [engine] = source.engines

    assert isinstance(engine.option("pool_pre_ping"), Known)
    assert engine.option("pool_recycle") == Missing()


@pytest.mark.parametrize(
    "made",
    [
        "engine = create_async_engine(URL)\ndb = Database.from_engine(engine)",
        "db = Database.from_engine(create_async_engine(URL))",
        "def make(url):\n    return create_async_engine(url)\nengine = make(URL)\ndb = Database.from_engine(engine)",
        CONTAINER,
    ],
)
@pytest.mark.parametrize("withdrawn", [False, True])
def test_what_from_engine_adds_is_seen_wherever_the_engine_is_made(made, withdrawn, tmp_path):
    settings = ", command_timeout=None, time_queries=False, pool_metrics=False, retry=False, explain_slow=False)"
    written = re.sub(r"(from_engine\(.*)\)$", rf"\1{settings if withdrawn else ')'}", made.strip())
    source = tree(
        tmp_path,
        {"app.py": f"{HEAD}\nfrom verdigris import Database\nURL = 'postgresql+asyncpg://h/d'\n{written}\n"},
    )
    given = ("errors/connection-errors", "performance/query-times", "performance/pool-metrics")
    given += ("errors/retry-transient", "performance/explained", "engine/pre-ping")

    verdicts = {name: boxes()[name][1].conclude(Evidence(source)) for name in given}

    failing = {name for name, found in verdicts.items() if found.verdict is Verdict.FAILS}
    assert failing == ({*given} - {"engine/pre-ping"} if withdrawn else set())
    assert all("from_engine" in verdicts[name].findings[0].fix for name in failing)


BRANCHES = """
from verdigris import Database
if POOLER:
    engine = create_async_engine("postgresql+asyncpg://h/d", poolclass=NullPool)
{between}else:
    engine = create_async_engine("postgresql+asyncpg://h/d", pool_size=5)
{after}
"""
ADOPT = "db = Database.from_engine(engine)\n"
EITHER = """
from verdigris import Database
engine = create_async_engine("postgresql+asyncpg://h/d") if POOLER else create_async_engine("postgresql+asyncpg://h/e")
"""
AGAIN = EITHER.replace("if POOLER else", "\nengine =")


@pytest.mark.parametrize(
    ("written", "adopted"),
    [
        (BRANCHES.format(between="", after=ADOPT), [True, True]),
        (BRANCHES.format(between=f"    {ADOPT}", after=""), [False, False]),
        (EITHER + ADOPT, [True, True]),
        (AGAIN + ADOPT, [False, False]),
    ],
)
def test_the_engine_of_each_branch_is_adopted_where_all_lead_to_from_engine(written, adopted, tmp_path):
    source = tree(tmp_path, {"app.py": HEAD + written})

    assert [engine.ours for engine in source.engines] == adopted


def test_a_wrapper_that_tests_call_too_is_one_adopted_engine_of_the_application(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/db.py": f"""{HEAD}
from verdigris import Database
def make(url):
    return create_async_engine(url)
engine = make("postgresql+asyncpg://h/d")
db = Database.from_engine(engine)
""",
            "tests/conftest.py": "from app.db import make\nengine = make('postgresql+asyncpg://h/d_test')\n",
        },
    )

    [engine] = source.engines

    assert (engine.ours, engine.place.path, engine.place.line) == (True, "app/db.py", 5)


def test_limits_in_an_adopted_engines_own_connect_args_come_first(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": f"""{HEAD}
from verdigris import Database
engine = create_async_engine("postgresql+asyncpg://h/d", connect_args={{"command_timeout": None}})
db = Database.from_engine(engine)
"""
        },
    )

    assert boxes()["errors/connection-errors"][1].conclude(Evidence(source)).verdict is Verdict.FAILS


def test_a_fix_keeps_what_was_written(tmp_path):
    source = tree(tmp_path, {"app.py": HEAD + "engine = create_async_engine('x://', echo=True, pool_size=5, **more)\n"})

    [engine] = source.engines

    assert engine.with_option("pool_size", "10", pool_recycle="1800") == (
        "create_async_engine('x://', echo=True, pool_size=10, **{**more, 'pool_recycle': 1800})"
    )


def test_what_all_callers_of_a_wrapper_lack_is_the_wrappers(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/kit.py": """
            from sqlalchemy.ext.asyncio import create_async_engine as _create
            def make(dsn, pool_size=None):
                return _create(dsn, pool_size=pool_size)
            """,
            "app/db.py": """
            from app.kit import make  # sqlalchemy
            reader = make("postgresql+asyncpg://h/d", pool_size=5)
            writer = make("postgresql+asyncpg://h/d", pool_size=20)
            """,
        },
    )

    by_ping = told_apart(source.engines, "pool_pre_ping")
    by_size = told_apart(source.engines, "pool_size")

    assert [engine.key for engine in by_ping] == ["app/kit.py:make"]
    assert [engine.short for engine in by_size] == ["reader", "writer"]


def test_an_engine_is_placed_where_its_wrapper_is_called_not_where_a_command_starts(tmp_path):
    source = tree(
        tmp_path,
        {
            "migrate.py": """
            import asyncio
            from sqlalchemy.ext.asyncio import create_async_engine

            def run(args):
                asyncio.run(_run(args))

            async def _run(args):
                old, new = await prepare(args)
                await new.dispose()

            async def prepare(args):
                url = args.database_url
                old = await make(f"sqlite+aiosqlite:///{args.folder}/old.db")
                new = await make(url)
                return old, new

            async def make(url):
                options = {} if url.startswith("sqlite") else {"pool_size": 5}
                engine = create_async_engine(url, **options)
                return engine
            """,
        },
    )

    assert [(engine.short, engine.place.line) for engine in source.engines] == [
        ("prepare.old", 13),
        ("prepare.new", 14),
    ]


def test_a_wrapper_that_hands_its_local_engine_back_is_still_a_wrapper(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from sqlalchemy.ext.asyncio import create_async_engine

            def make(url, **options):
                return create_async_engine(url, **options)

            def sized(size):
                engine = make("postgresql+asyncpg://h/d", pool_size=size)
                return engine

            reader = sized(5)
            writer = sized(20)
            """,
        },
    )

    assert [engine.key for engine in source.engines] == ["app.py:reader", "app.py:writer"]
