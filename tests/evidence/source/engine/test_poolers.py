"""Which engines go through a pooler in transaction mode, and what they keep prepared there."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.evidence.source.engine.poolers import is_off, with_cache_off
from verdigris.evidence.values import Unknown

HEAD = "import os\nfrom sqlalchemy import URL\nfrom sqlalchemy.ext.asyncio import create_async_engine\n"


def behind(folder, call, files=None):
    source = tree(folder, {"db.py": f"{HEAD}engine = create_async_engine({call})\n", **(files or {})})
    [engine] = source.engines
    return source.poolers.before(engine), engine


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ('"postgresql+asyncpg://app@pgbouncer/shop"', "pgbouncer"),
        ('"postgresql+asyncpg://app:pw@shop-pgbouncer.internal:5432/shop"', "shop-pgbouncer.internal:5432"),
        ('"postgresql+asyncpg://10.0.0.5:6432/shop"', "10.0.0.5:6432"),
        ('f"postgresql+asyncpg://{USER}:{PASSWORD}@db:6432/{NAME}"', "db:6432"),
        ('f"postgresql+asyncpg://{USER}@{HOST}:6432/shop"', "…:6432"),
        ('URL.create("postgresql+asyncpg", host="db", port=6432)', "db:6432"),
        ('"postgresql+asyncpg://p.abc@aws-0-eu.pooler.supabase.com:6543/p"', "aws-0-eu.pooler.supabase.com:6543"),
    ],
)
def test_a_pooler_is_known_by_its_host_or_port(tmp_path, url, host):
    found, _ = behind(tmp_path, url)

    assert found is not None
    assert found.pooler == host
    assert not is_off(found.cache)


@pytest.mark.parametrize(
    "url",
    [
        '"postgresql+asyncpg://app@db:5432/pgbouncer"',
        '"postgresql+asyncpg://pgbouncer:pw@db/shop"',
        '"postgresql+asyncpg://app@db:64321/shop"',
        '"postgresql+psycopg://app@pgbouncer:6432/shop"',
        '"postgresql+asyncpg://p.abc@aws-0-eu.pooler.supabase.com:5432/p"',
        'f"postgresql+asyncpg://{USER}@{HOST}/shop"',
        'os.environ["DATABASE_URL"]',
    ],
)
def test_what_only_looks_like_one_is_none(tmp_path, url):
    assert behind(tmp_path, url)[0] is None


@pytest.mark.parametrize(
    "files",
    [
        {"pgbouncer.ini": "[pgbouncer]\npool_mode = session\n"},
        {"compose.yml": 'services:\n  pgbouncer:\n    environment:\n      PGBOUNCER_POOL_MODE: "session"\n'},
        {"compose.yml": "services:\n  pgbouncer:\n    environment:\n      - MAX_PREPARED_STATEMENTS=100\n"},
    ],
)
def test_one_that_keeps_sessions_or_statements_is_left_alone(tmp_path, files):
    assert behind(tmp_path, '"postgresql+asyncpg://pgbouncer/shop"', files)[0] is None


def test_transaction_mode_beside_it_is_not(tmp_path):
    files = {"pgbouncer.ini": "[pgbouncer]\npool_mode = transaction\nmax_prepared_statements = 0\n"}

    assert behind(tmp_path, '"postgresql+asyncpg://pgbouncer/shop"', files)[0] is not None


def test_the_cache_is_read_from_connect_args_and_unknown_arguments_stay_unknown(tmp_path):
    url = '"postgresql+asyncpg://pgbouncer/shop"'
    off, _ = behind(tmp_path / "off", f'{url}, connect_args={{"statement_cache_size": 0}}')
    unknown, _ = behind(tmp_path / "unknown", f"{url}, connect_args=load()")

    assert is_off(off.cache)
    assert isinstance(unknown.cache, Unknown)


def test_the_fix_keeps_what_else_is_given_and_drops_the_names(tmp_path):
    arguments = '{"timeout": 3, "prepared_statement_name_func": name}'
    found, engine = behind(tmp_path, f'"postgresql+asyncpg://pgbouncer/shop", connect_args={arguments}')

    assert found.named
    assert "connect_args={'timeout': 3, 'statement_cache_size': 0}" in with_cache_off(engine)
