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
