"""Which driver a URL names, in every way in which people write URLs."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

from verdigris.evidence.source.engine.configs import urls_of
from verdigris.evidence.source.engine.drivers import is_async

HEAD = "import os, re\nfrom sqlalchemy import URL, make_url\nfrom sqlalchemy.ext.asyncio import create_async_engine\n"


def schemes(source):
    [engine] = source.engines
    return [text.scheme for text in source.urls.drivers(engine.url)]


@pytest.mark.parametrize(
    ("expression", "scheme"),
    [
        ('"postgresql+asyncpg://u:p@h/d"', "postgresql+asyncpg"),
        ('f"postgresql+asyncpg://{USER}:{PASSWORD}@{HOST}/d"', "postgresql+asyncpg"),
        ('f"{DRIVER}://{USER}@h/d"', "postgresql+psycopg"),
        ('DRIVER + "://h/" + NAME', "postgresql+psycopg"),
        ('"postgresql+asyncpg://%s:%s@h" % (USER, PASSWORD)', "postgresql+asyncpg"),
        ('"postgresql+asyncpg://{}@h".format(USER)', "postgresql+asyncpg"),
        ('URL.create("postgresql+asyncpg", host=HOST)', "postgresql+asyncpg"),
        ("URL.create(drivername=DRIVER, host=HOST)", "postgresql+psycopg"),
        ('PostgresDsn.build(scheme="postgresql+asyncpg", host=HOST)', "postgresql+asyncpg"),
        ('str(MultiHostUrl.build(scheme="postgresql+asyncpg", host=HOST))', "postgresql+asyncpg"),
        ('make_url(SECRET).set(drivername="postgresql+asyncpg")', "postgresql+asyncpg"),
        ('SECRET.replace("postgresql://", "postgresql+asyncpg://", 1)', "postgresql+asyncpg"),
        ('re.sub(r"^postgres(ql)?://", "postgresql+asyncpg://", SECRET)', "postgresql+asyncpg"),
        (
            'SECRET.replace("postgres://", "postgresql://").replace("postgresql://", "postgresql+asyncpg://")',
            "postgresql+asyncpg",
        ),
        ('SECRET.replace("postgres://", "postgresql://")', None),
        ('SECRET.replace("+asyncpg", "")', None),
        ('os.getenv("URL_OF_DB", "postgresql://h/d")', "postgresql"),
        ('os.environ["URL_OF_DB"]', None),
        ('os.environ.get("URL_OF_DB") or "sqlite+aiosqlite:///x.db"', "sqlite+aiosqlite"),
        ("SECRET", None),
        ("settings.anything.at.all", None),
    ],
)
def test_the_scheme_is_read_or_unknown(tmp_path, expression, scheme):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + "from pydantic import MultiHostUrl, PostgresDsn\nfrom secrets_of_ours import SECRET, settings\n"
            + 'USER, HOST = "u", os.environ["HOST"]\nDRIVER = "postgresql+psycopg"\n'
            + f"engine = create_async_engine({expression})\n"
        },
    )

    assert schemes(source) == [scheme]


def test_a_url_that_is_rewritten_step_by_step_is_what_it_becomes(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from urllib.parse import urlparse, urlunparse
async def start(db_url: str):
    if db_url.startswith("postgresql://"):
        db_url = re.sub(r"^postgresql://", "postgresql+asyncpg://", db_url)
        parsed = urlparse(db_url)
        db_url = urlunparse(parsed._replace(query=""))
    return create_async_engine(db_url)
async def main():
    await start("postgresql://localhost/shop")
"""
        },
    )

    assert schemes(source) == ["postgresql+asyncpg"]


def test_both_arms_of_a_condition_count(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def url(kind):
    if kind == "sqlite":
        return "sqlite+aiosqlite:///shop.db"
    return f"postgresql+asyncpg://{os.environ['HOST']}/shop"
engine = create_async_engine(url(os.environ["KIND"]))
"""
        },
    )

    assert schemes(source) == ["sqlite+aiosqlite", "postgresql+asyncpg"]


def test_a_validator_makes_the_field(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from pydantic import BaseSettings, PostgresDsn, validator
class Settings(BaseSettings):
    HOST: str
    DATABASE_URI: PostgresDsn | None = None
    @validator("DATABASE_URI", pre=True)
    def assemble(cls, v, values):
        if isinstance(v, str):
            return v
        return PostgresDsn.build(scheme="postgresql+asyncpg", host=values.get("HOST"))
settings = Settings()
engine = create_async_engine(str(settings.DATABASE_URI))
"""
        },
    )

    assert schemes(source) == ["postgresql+asyncpg"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", "DATABASE_URL=postgresql://u:p@h/d\n"),
        (".env.example", "# the database\nexport DATABASE_URL='postgresql://u:p@h/d'\n"),
        ("config/local.env", "DATABASE_URL=postgresql://u:p@h/d\n"),
        ("docker-compose.yml", "services:\n  api:\n    environment:\n      DATABASE_URL: postgresql://u:p@h/d\n"),
        ("compose.yaml", 'services:\n  api:\n    environment:\n      - "DATABASE_URL=postgresql://u:p@h/d"\n'),
    ],
)
def test_environment_files_give_what_the_code_leaves_open(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content, "utf-8")
    source = tree(tmp_path, {"app.py": HEAD + 'engine = create_async_engine(os.environ["DATABASE_URL"])\n'})

    [engine] = source.engines
    [text] = source.urls.drivers(engine.url)

    assert text.scheme == "postgresql"
    assert text.place is not None
    assert text.place.path == name


def test_a_field_is_read_from_the_variable_that_pydantic_reads(tmp_path):
    (tmp_path / ".env").write_text("SHOP_DSN=postgresql+asyncpg://h/d\n", "utf-8")
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from pydantic_settings import BaseSettings, SettingsConfigDict
class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_", env_file=".env")
    dsn: str
engine = create_async_engine(Settings().dsn)
"""
        },
    )

    assert schemes(source) == ["postgresql+asyncpg"]


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("postgresql+asyncpg", True),
        ("postgresql+psycopg", True),
        ("sqlite+aiosqlite", True),
        ("mysql+aiomysql", True),
        ("mysql+asyncmy", True),
        ("cockroachdb+asyncpg", True),
        ("postgresql", False),
        ("postgres", False),
        ("postgresql+psycopg2", False),
        ("sqlite", False),
        ("mysql+pymysql", False),
        ("duckdb", None),
        ("postgresql+something", None),
    ],
)
def test_drivers_are_asynchronous_or_not_or_unknown(scheme, answer):
    assert is_async(scheme) is answer


def test_another_services_environment_does_not_count(tmp_path):
    for folder, scheme in (("api", "postgresql+asyncpg"), ("web", "postgresql")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".env.example").write_text(f"DATABASE_URL={scheme}://h/d\n", "utf-8")
    source = tree(tmp_path, {"api/app/db.py": HEAD + 'engine = create_async_engine(os.environ["DATABASE_URL"])\n'})

    assert schemes(source) == ["postgresql+asyncpg"]


@pytest.mark.parametrize(
    ("lines", "ini", "scheme"),
    [
        ("", "postgresql://h/d", "postgresql"),
        ("", "postgresql+asyncpg://h/d", "postgresql+asyncpg"),
        (
            'config.set_main_option("sqlalchemy.url", "postgresql+asyncpg://h/d")',
            "postgresql://h/d",
            "postgresql+asyncpg",
        ),
        ('section["sqlalchemy.url"] = "postgresql+asyncpg://h/d"', "postgresql://h/d", "postgresql+asyncpg"),
        ("", "driver://user:pass@localhost/dbname", None),
    ],
)
def test_an_asynchronous_migration_reads_alembics_configuration(tmp_path, lines, ini, scheme):
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = alembic\nsqlalchemy.url = {ini}\n", "utf-8")
    source = tree(
        tmp_path,
        {
            "alembic/env.py": f"""
            from alembic import context
            from sqlalchemy.ext.asyncio import async_engine_from_config
            config = context.config
            section = config.get_section(config.config_ini_section, {{}})
            {lines}
            engine = async_engine_from_config(section, prefix="sqlalchemy.")
            """
        },
    )

    assert [text.scheme for each in source.migration_engines for text in urls_of(source, each)] == [scheme] * bool(
        scheme
    )


def test_one_rewriting_for_each_dialect_leaves_each_of_them(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def make(url: str):
    if url.startswith("sqlite://"):
        url = re.sub(r"^sqlite://", "sqlite+aiosqlite://", url)
    elif url.startswith("postgresql://"):
        url = re.sub(r"^postgresql://", "postgresql+asyncpg://", url)
    return create_async_engine(url)
"""
        },
    )

    assert sorted(schemes(source)) == ["postgresql+asyncpg", "sqlite+aiosqlite"]
