"""What `verdigris fix` writes where engines and factories are made, beside what a finding's one keyword is."""

from __future__ import annotations

import pytest

from verdigris.cli import main

HEAD = "from sqlalchemy.ext.asyncio import {}create_async_engine\n"
URL = '"postgresql+asyncpg://localhost/shop"'


def fixed(tmp_path, monkeypatch, text, box, *options, asked="sqlalchemy>=2"):
    (tmp_path / "db.py").write_text(text, "utf-8")
    (tmp_path / "requirements.txt").write_text(f"{asked}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["fix", ".", "--no-cache", "--select", box, *options]) == 0
    return (tmp_path / "db.py").read_text("utf-8")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            f"create_async_engine({URL})",
            f'create_async_engine({URL}, connect_args={{"timeout": 5, "command_timeout": 60}})',
        ),
        (
            f'create_async_engine({URL}, connect_args={{"ssl": "require"}})',
            f'create_async_engine({URL}, connect_args={{"ssl": "require", "timeout": 5, "command_timeout": 60}})',
        ),
        (
            f"create_async_engine(\n    {URL},\n    connect_args={{\n        'timeout': 9,  # slow\n    }},\n)",
            (
                f"create_async_engine(\n    {URL},\n    connect_args={{\n        'timeout': 9,  # slow\n"
                '        "command_timeout": 60,\n    },\n)'
            ),
        ),
    ],
)
def test_limits_are_set_in_the_drivers_words(before, after, tmp_path, monkeypatch):
    head = HEAD.format("") + "\nengine = "

    assert fixed(tmp_path, monkeypatch, f"{head}{before}\n", "8.3").replace("'", '"') == f"{head}{before}\n".replace(
        "'", '"'
    )
    text = fixed(tmp_path, monkeypatch, f"{head}{before}\n", "8.3", "--unsafe")

    assert text.replace("'", '"') == f"{head}{after}\n".replace("'", '"')
    assert main(["check", ".", "--no-cache", "--strict", "--select", "8.3"]) == 0


@pytest.mark.parametrize(
    "made",
    [
        "create_async_engine(url())",
        f"create_async_engine({URL}, connect_args=arguments())",
        f"create_async_engine({URL}, **options())",
        'create_async_engine("sqlite+aiosqlite:///shop.db")',
        'create_async_engine("mysql+aiomysql://localhost/shop")',
    ],
)
def test_limits_of_an_unknown_driver_are_left_to_people(made, tmp_path, monkeypatch):
    text = f"{HEAD.format('')}\nengine = {made}\n"

    assert fixed(tmp_path, monkeypatch, text, "8.3", "--unsafe") == text


OLD = """\
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
Session = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
"""


def test_a_sessionmaker_of_asynchronous_sessions_becomes_an_async_sessionmaker(tmp_path, monkeypatch):
    text = fixed(tmp_path, monkeypatch, OLD, "2.1", "--unsafe")

    assert "import AsyncSession, create_async_engine, async_sessionmaker\n" in text
    assert "\nSession = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)\n" in text
    assert main(["check", ".", "--no-cache", "--strict", "--select", "2.1"]) == 0


@pytest.mark.parametrize(
    "asked", ["sqlalchemy<2", "sqlalchemy==1.4.46", "SQLAlchemy~=1.4", "sqlalchemy[asyncio]>=1.4,<2.0"]
)
def test_what_sqlalchemy_has_since_2_0_is_not_written_for_an_older_one(asked, tmp_path, monkeypatch):
    assert fixed(tmp_path, monkeypatch, OLD, "2.1", "--unsafe", asked=asked) == OLD


@pytest.mark.parametrize(("version", "written"), [("1.4.54", False), ("2.0.35", True)])
def test_a_lock_file_is_believed_before_requirements(version, written, tmp_path, monkeypatch):
    (tmp_path / "poetry.lock").write_text(f'[[package]]\nname = "SQLAlchemy"\nversion = "{version}"\n', "utf-8")

    text = fixed(tmp_path, monkeypatch, OLD, "2.1", "--unsafe", asked="sqlalchemy>=1.4,<3")

    assert (text != OLD) == written


@pytest.mark.parametrize("asked", ["", "sqlalchemy", 'sqlalchemy = "^1.4 || ^2.0"', "sqlalchemy>=1.4"])
def test_what_may_be_sqlalchemy_2_0_is_taken_for_it(asked, tmp_path, monkeypatch):
    assert fixed(tmp_path, monkeypatch, OLD, "2.1", "--unsafe", asked=asked) != OLD


@pytest.mark.parametrize(
    ("setting", "box", "options"),
    [
        ("pool_metrics", "10.3", ()),
        ("time_queries", "10.4", ()),
        ("explain_slow", "10.2", ("--unsafe",)),
        ("pool_pre_ping", "1.3", ()),
    ],
)
def test_what_a_database_was_told_not_to_do_it_does(setting, box, options, tmp_path, monkeypatch):
    text = "from verdigris import Database\n\ndb = Database({})  # ours\n"

    found = fixed(tmp_path, monkeypatch, text.format(f"{setting}=False"), box, *options)

    assert found == text.format(f"{setting}=True")
    assert main(["check", ".", "--no-cache", "--select", box]) == 0
