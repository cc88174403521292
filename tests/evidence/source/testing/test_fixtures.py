"""Tests as evidence: settings of pytest, databases, event loops."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

TEST = "from sqlalchemy import select\n\nasync def test_order(session): ...\n"


def whose(folder, conftest, **files):
    source = tree(folder, {"tests/conftest.py": conftest, "tests/test_orders.py": TEST, **files})
    return [target.whose for target in source.targets.every]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://localhost/shop_test", "own"),
        ("postgresql+asyncpg://localhost:5432/shop", "own"),
        ("sqlite+aiosqlite://", "own"),
        ("postgresql+asyncpg://app@db.example.com/shop_test", "own"),
        ("postgresql+asyncpg://app@db.example.com/shop", "stranger"),
        ("https://api.example.com/shop", "unknown"),
    ],
)
def test_a_url_is_the_tests_own_when_its_host_or_its_name_says_so(tmp_path, url, expected):
    conftest = f"from sqlalchemy.ext.asyncio import create_async_engine\nengine = create_async_engine({url!r})\n"

    assert whose(tmp_path, conftest) == [expected]


def test_a_url_of_something_else_in_the_environment_is_no_database(tmp_path):
    conftest = "import os, sqlalchemy\nos.environ['CACHE_URL'] = 'redis://cache.example.com'\n"

    assert whose(tmp_path, conftest) == []


@pytest.mark.parametrize(("function", "expected"), [("test_the_url_is_refused", []), ("database", ["stranger"])])
def test_a_test_that_sets_the_url_of_another_database_is_about_the_url(tmp_path, function, expected):
    text = f"import sqlalchemy\ndef {function}(monkeypatch):\n"
    text += "    monkeypatch.setattr(config, 'DB_URI', 'postgresql://app@db.example.com/shop')\n"

    assert whose(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("url", "expected"), [("TEST_CONFIG.url_sync", ["own"]), ("settings.url", ["stranger", "unknown"])]
)
def test_a_fixture_that_sets_the_url_of_another_database_and_works_on_its_own_is_about_the_url(tmp_path, url, expected):
    text = "from sqlalchemy import create_engine\nfrom somewhere import TEST_CONFIG, settings\n"
    text += "@pytest.fixture\ndef table(monkeypatch):\n"
    text += "    monkeypatch.setattr(config, 'DB_URI', 'postgresql://app@internal/shop')\n"
    text += f"    engine = create_engine({url})\n    yield engine\n"

    assert whose(tmp_path, "import pytest\n" + text) == expected


def test_settings_that_know_of_tests_may_switch_by_themselves(tmp_path):
    settings = "import sys, pydantic\nurl = read()\nif 'pytest' in sys.modules:\n    url = other()\n"
    conftest = (
        "from sqlalchemy.ext.asyncio import create_async_engine\nfrom app import settings\n"
        "engine = create_async_engine(settings.url)\n"
    )

    assert whose(tmp_path, conftest, **{"app/__init__.py": "", "app/settings.py": settings}) == ["unknown"]


def test_the_nearest_settings_of_pytest_are_the_tests(tmp_path):
    files = {
        "pyproject.toml": '[tool.pytest.ini_options]\nasyncio_mode = "auto"\n',
        "service/pytest.ini": "[pytest]\nasyncio_mode = strict\n",
        "service/tests/test_orders.py": TEST,
    }
    source = tree(tmp_path, files)

    assert source.tests.setting("service/tests/test_orders.py", "asyncio_mode") == "strict"
    assert source.tests.setting("tests/test_orders.py", "asyncio_mode") == "auto"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", '[tool.pytest]\nasyncio_mode = "auto"\n'),
        ("pytest.toml", '[pytest]\nasyncio_mode = "auto"\n'),
        (".pytest.toml", '[pytest]\nasyncio_mode = "auto"\n'),
        (".pytest.ini", "[pytest]\nasyncio_mode = auto\n"),
        ("pytest.ini", "[pytest]\naddopts = -q --asyncio-mode=auto\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["-q", "-o", "asyncio_mode=auto"]\n'),
        ("Makefile", "test:\n\tpytest --asyncio-mode=auto\n"),
        ("scripts/common.Makefile", "test:\n\tpytest -o asyncio_mode=auto\n"),
    ],
)
def test_the_mode_of_async_tests_is_read_wherever_pytest_takes_it_from(tmp_path, name, text):
    source = tree(tmp_path, {name: text, "tests/test_orders.py": TEST})

    assert source.tests.loops == []


def test_anyio_runs_what_pytest_asyncio_would_not(tmp_path):
    conftest = """
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def session():
    yield AsyncSession()
"""
    source = tree(tmp_path, {"tests/conftest.py": conftest, "tests/test_orders.py": TEST})

    assert source.tests.loops == []


def test_rows_that_a_wide_fixture_hands_to_nobody_are_reference_data(tmp_path):
    conftest = """
import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

factory = async_sessionmaker()

@pytest.fixture(scope="session", autouse=True)
async def currencies():
    async with factory.begin() as session:
        session.add(object())
    yield
"""
    source = tree(tmp_path, {"tests/conftest.py": conftest, "tests/test_orders.py": TEST})

    assert source.leftovers.shared == []


def test_the_librarys_fixtures_are_seen_where_they_are_asked_for_by_name(tmp_path):
    test = (
        "import pytest\n\n@pytest.fixture\ndef db(request):\n    return request.getfixturevalue('verdigris_sandbox')\n"
    )
    source = tree(tmp_path, {"tests/test_orders.py": test + "\ndef test_order(db): ...\n"})

    assert source.tests.ours == {"verdigris_sandbox"}


DB = """
import os
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
SessionLocal = async_sessionmaker(engine)
"""
USING = """
import pytest
from clinic.db import SessionLocal

@pytest.mark.asyncio
async def test_a():
    async with SessionLocal() as s:
        await s.execute("select 1")

@pytest.mark.asyncio
async def test_b():
    async with SessionLocal.begin() as s:
        s.add(object())
"""
FIXTURE = """
import pytest, pytest_asyncio
from clinic import db

@pytest_asyncio.fixture
async def session():
    async with db.SessionLocal() as s:
        yield s

@pytest.mark.asyncio
async def test_a(session): ...

@pytest.mark.asyncio
async def test_b(session): ...
"""


def clinic(folder, tests, *, database=DB, **files):
    return tree(folder, {"clinic/__init__.py": "", "clinic/db.py": database, "tests/test_x.py": tests, **files})


@pytest.mark.parametrize("tests", [USING, FIXTURE])
def test_tests_that_share_the_applications_pooled_engine_cross_event_loops(tmp_path, tests):
    assert {fact.kind for fact in clinic(tmp_path, tests).tests.loops} == {"crosses"}


@pytest.mark.parametrize(
    ("tests", "database", "files"),
    [
        (USING.replace("asyncio\n", "asyncio(loop_scope='session')\n"), DB, {}),
        (USING + "\n@pytest.fixture\nasync def clean(engine):\n    await engine.dispose()\n", DB, {}),
        (
            USING,
            DB.replace('_URL"]', '_URL"], poolclass=NullPool').replace(
                "import os", "import os\nfrom sqlalchemy import NullPool"
            ),
            {},
        ),
        (USING, DB, {"pytest.ini": "[pytest]\nasyncio_default_test_loop_scope = session\n"}),
        (USING, "from verdigris import Database\ndb = Database()\nSessionLocal = db.session\n", {}),
        (USING.partition("@pytest.mark.asyncio\nasync def test_b")[0], DB, {}),
        (USING + "\nSessionLocal.configure(bind=other)\n", DB, {}),
        (FIXTURE.replace("fixture\n", "fixture(scope='session')\n"), DB, {}),
    ],
)
def test_an_engine_that_stays_on_one_event_loop_crosses_none(tmp_path, tests, database, files):
    assert "crosses" not in {fact.kind for fact in clinic(tmp_path, tests, database=database, **files).tests.loops}


@pytest.mark.parametrize(
    ("tests", "database", "expected"),
    [
        (USING, DB, "application"),
        (FIXTURE, DB, "application"),
        (USING, DB.replace('os.environ["DATABASE_URL"]', "'sqlite+aiosqlite:///x'"), "own"),
        (USING, DB.replace('os.environ["DATABASE_URL"]', "'postgresql+asyncpg://localhost/shop_test'"), "own"),
        (USING, DB.replace('os.environ["DATABASE_URL"]', "'postgresql+asyncpg://localhost/shop'"), "application"),
        (USING, DB + "\nif 'pytest' in sys.modules: ...\n", "unknown"),
        (USING + "\nSessionLocal.configure(bind=other)\n", DB, "unknown"),
        (
            USING,
            DB.replace("SessionLocal = async", "def make():\n    return async") + "\nSessionLocal = make()\n",
            "unknown",
        ),
    ],
)
def test_what_the_tests_borrow_is_a_database_that_they_reach(tmp_path, tests, database, expected):
    source = clinic(tmp_path, tests, database=database)

    assert [target.whose for target in source.targets.every] == [expected]


@pytest.mark.parametrize(
    ("test", "service", "judged"),
    [
        ("from clinic.db import SessionLocal", "", True),
        ("from clinic.service import place", "from clinic.db import SessionLocal\ndef place(): ...\n", True),
        ("from clinic.service import place", "def place(): ...\n", False),
        ("import json", "", False),
    ],
)
def test_tests_that_import_what_reaches_the_database_are_a_suite(tmp_path, test, service, judged):
    tests = f"{test}\n\ndef test_it():\n    assert True\n"

    source = clinic(tmp_path, tests, **{"clinic/service.py": service})

    assert bool(source.tests.suite) is judged


def test_a_factorys_block_commits_what_tests_add(tmp_path):
    assert clinic(tmp_path, USING).leftovers.commits is not None


SHARED = """
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop_test")

@pytest_asyncio.fixture(scope="session")
async def session():
    async with AsyncSession(engine) as session:
        yield session

@pytest_asyncio.fixture({autouse})
async def emptied(session: AsyncSession):
    await session.execute(text("TRUNCATE orders"))

@pytest_asyncio.fixture
async def client({client}): ...

async def test_first(session, emptied): ...
async def test_second(session): ...
"""


@pytest.mark.parametrize(
    ("autouse", "client", "seen"),
    [("", "", []), ("autouse=True", "", ["emptied"]), ("", "emptied", ["emptied"])],
)
def test_what_only_some_of_the_tests_ask_for_empties_nothing_for_the_others(tmp_path, autouse, client, seen):
    source = tree(tmp_path, {"tests/test_orders.py": SHARED.format(autouse=autouse, client=client)})

    assert [fact.kind for fact in source.leftovers.cleaning] == seen


CLEARED = """
import os, pytest
from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop_test")

@pytest.fixture(autouse=True)
async def cleared({parameters}):
    {body}

async def test_first(): ...
"""


@pytest.mark.parametrize(
    ("parameters", "body", "seen"),
    [
        ("index", 'await index.indices.delete(index="orders")', []),
        ("client", 'client.orders.delete("first")', []),
        ("session: AsyncSession", "await session.execute(delete(object))", ["emptied"]),
        ("session: AsyncSession", "await session.delete(object())", ["emptied"]),
        ("session, table", "await session.execute(table.delete())", ["emptied"]),
        ("session", 'for each in ["DELETE FROM orders"]: await session.execute(text(each))', ["emptied"]),
        ("session", '"""Delete from nothing."""', []),
        ("tmp_path", 'return f"sqlite+aiosqlite:///{tmp_path}/orders.db"', ["fresh"]),
        ("tmp_path", 'return tmp_path / "orders.csv"', []),
    ],
)
def test_a_fixture_empties_the_database_and_no_other_store(tmp_path, parameters, body, seen):
    text = CLEARED.replace("{parameters}", parameters).replace("{body}", body)
    source = tree(tmp_path, {"tests/conftest.py": text, "tests/test_orders.py": TEST})

    assert [fact.kind for fact in source.leftovers.cleaning] == seen


@pytest.mark.parametrize(("test", "seen"), [("session", []), ("session, emptied", ["emptied"])])
def test_a_fixture_that_nobody_asks_for_empties_nothing(tmp_path, test, seen):
    conftest = SHARED.format(autouse="", client="").partition("@pytest_asyncio.fixture\nasync def client")[0]
    conftest = conftest.replace('(scope="session")', "")
    orders = f"import sqlalchemy\n\nasync def test_order({test}): ...\n"
    source = tree(tmp_path, {"tests/conftest.py": conftest, "tests/test_orders.py": orders})

    assert [fact.kind for fact in source.leftovers.cleaning] == seen


@pytest.mark.parametrize(("engine", "seen"), [("", ["emptied"]), ("engine = create_async_engine('sqlite://')", [])])
def test_what_the_tests_of_one_file_have_says_nothing_of_those_with_an_engine_of_their_own(tmp_path, engine, seen):
    test = CLEARED.replace("{parameters}", "session").replace(
        "{body}", 'await session.execute(text("TRUNCATE orders"))'
    )
    other = f"from sqlalchemy.ext.asyncio import create_async_engine\n{engine}\n"
    source = tree(tmp_path, {"tests/conftest.py": other, "tests/test_orders.py": test})

    assert [fact.kind for fact in source.leftovers.cleaning] == seen


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("def database(worker_id): return f'shop_test_{worker_id}'", True),
        ("def port(worker_id): return 9000 + int(worker_id[2:])", False),
        ("NAME = f'shop_test_db_{os.environ[\"PYTEST_XDIST_WORKER\"]}'", True),
        ("PLUGIN = 'os.environ[\"PYTEST_XDIST_WORKER\"] + db'", False),
    ],
)
def test_a_workers_name_keeps_tests_apart_where_it_names_a_database(tmp_path, text, apart):
    source = tree(tmp_path, {"tests/conftest.py": f"import os\n\n{text}\n", "tests/test_orders.py": TEST})

    assert (source.leftovers.per_worker is not None) is apart


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ('os.getenv("DATABASE_URL", "sqlite+aiosqlite:///test.db")', ["unknown"]),
        ('os.environ.get("DATABASE_URL", "postgresql+asyncpg://localhost/shop_test")', ["unknown"]),
        ('os.getenv("TEST_DATABASE_URL", "postgresql+asyncpg://localhost/shop")', ["own"]),
        ('os.getenv("DATABASE_URL", "").replace("/shop", "/shop_test")', ["own"]),
        (
            'os.getenv("DATABASE_URL", "sqlite:///test").replace("memory_test", f"memory_test_{os.getpid()}")',
            ["unknown"],
        ),
        ('os.getenv("DATABASE_URL", "") + "_test"', ["own"]),
        ('sqlalchemy.make_url(os.getenv("DATABASE_URL")).set(database="shop_test")', ["own"]),
    ],
)
def test_a_url_for_tests_is_not_what_the_environment_happens_to_name(tmp_path, url, expected):
    conftest = (
        f"import os, sqlalchemy\nfrom sqlalchemy.ext.asyncio import create_async_engine\n\nTEST_DATABASE = {url}\n"
        "\ndef make():\n    return create_async_engine(TEST_DATABASE)\n"
    )

    assert whose(tmp_path, conftest) == expected
