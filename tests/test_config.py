from __future__ import annotations

from pathlib import Path

import pytest

from verdigris.checker.config import KEYS, find
from verdigris.checker.usage import UsageError
from verdigris.cli import COMMANDS, main
from verdigris.cli.options import Parser
from verdigris.cli.plan import add_options, plan
from verdigris.evidence.judgement import Kind

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"
ENGINE = (
    'from sqlalchemy.ext.asyncio import create_async_engine\nengine = create_async_engine("postgresql+asyncpg://h/d")\n'
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VERDIGRIS_DATABASE_URL", raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "db.py").write_text(ENGINE)
    monkeypatch.chdir(folder)
    return folder


def configure(folder, text):
    (folder / "pyproject.toml").write_text(f"[tool.verdigris]\n{text}\n")


def planned(*arguments):
    parser = Parser("check", "")
    add_options(parser)
    return plan(parser.read(list(arguments)))


def test_the_nearest_pyproject_with_our_table_is_read(project):
    configure(project, "workers = 3")
    (project / "app" / "pyproject.toml").write_text("[project]\nname = 'app'\n")

    config = find(project / "app")

    assert (config.folder, config.workers) == (project, 3)


def test_a_table_beyond_the_repository_is_not_ours(project):
    configure(project.parent, "workers = 3")
    (project / ".git").mkdir()

    assert find(project / "app").workers is None


def test_every_setting_is_read(project):
    configure(
        project,
        """
        evidence = ["source", "recording"]
        select = ["engine"]
        ignore = { "engine/recycle" = "behind a proxy" }
        accept = { "engine/pool-size" = "reviewed" }
        workers = 4
        exclude = ["legacy/"]
        recording = ["out/recording.json"]
        baseline = "known.json"
        """,
    )

    config = find(project)

    assert config.evidence == (Kind.SOURCE, Kind.RECORDING)
    assert config.select == ("engine",)
    assert config.ignore == {"engine/recycle": "behind a proxy"}
    assert config.accept == {"engine/pool-size": "reviewed"}
    assert config.workers == 4
    assert config.exclude == ("legacy/",)
    assert config.recording == (project / "out" / "recording.json",)
    assert config.baseline == project / "known.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("selct = []", "Did you mean `select`?"),
        ("database-url = 'x'", "`database-url` in [tool.verdigris]"),
        ("evidence = 'source'", "`evidence` in [tool.verdigris]"),
        ("evidence = ['sauce']", "Did you mean `source`?"),
        ("select = [1]", "`select` in [tool.verdigris]"),
        ("workers = 'many'", "is a text"),
        ("workers = 0", "is a number (0)"),
        ("workers = true", "is true or false"),
        ("ignore = ['engine/recycle']", "is an array"),
        ("ignore = { 'engine/recycle' = ' ' }", "`engine/recycle` has no reason"),
        ("accept = { 'engine/recycle' = true }", "`engine/recycle` has no reason"),
        ("baseline = 3", "`baseline` in [tool.verdigris]"),
        ("workers = ", "is not TOML"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused_by_its_name(text, told, project):
    configure(project, text)

    with pytest.raises(UsageError) as refused:
        find(project)

    assert told in str(refused.value)
    assert str(project / "pyproject.toml") in str(refused.value)


@pytest.mark.parametrize(
    "key", ["select = ['engine/preping']", "ignore = { 'engine/preping' = 'x' }", "accept = { 'engine/preping' = 'x' }"]
)
def test_a_box_that_does_not_exist_is_refused_with_the_nearest(key, project, capsys):
    configure(project, key)

    assert main(["check"]) == 2
    assert "Did you mean `engine/pre-ping`?" in capsys.readouterr().err


def test_the_command_line_comes_before_the_file(project):
    configure(project, "workers = 4\nselect = ['session']\nbaseline = 'other.json'")

    settled = planned("--workers", "2", "--select", "engine/pre-ping", "--baseline", "mine.json")

    assert (settled.workers, settled.selected, settled.baseline) == (2, {"engine/pre-ping"}, Path("mine.json"))


def test_the_file_fills_what_the_command_line_leaves_open(project):
    configure(project, "workers = 4\nselect = ['engine/pre-ping']")

    settled = planned()

    assert (settled.workers, settled.selected) == (4, {"engine/pre-ping"})


def test_a_recording_alone_is_asked_for_by_naming_it(project):
    assert planned("--recording", "r.json").recordings == (Path("r.json"),)
    assert planned("--recording", "r.json", "--evidence", "source").recordings == ()


def test_the_database_is_asked_only_when_it_is_named(project, monkeypatch):
    monkeypatch.setenv("VERDIGRIS_DATABASE_URL", "postgresql://u:secret@h/d")

    assert planned().database_url is None
    asked = planned("--evidence", "source,database")
    assert asked.database_url == "postgresql://u:secret@h/d"
    assert "secret" not in repr(asked)


def test_the_databases_url_may_have_a_variable_of_its_own(project, monkeypatch):
    monkeypatch.setenv("SHOP", "postgresql://h/shop")

    assert planned("--evidence", "database", "--database-url-env", "SHOP").database_url == "postgresql://h/shop"


def test_excluded_paths_are_relative_to_the_file_wherever_the_check_starts(project, capsys):
    (project / "app" / "legacy").mkdir()
    (project / "app" / "legacy" / "db.py").write_text(ENGINE)
    (project / "app" / "db.py").write_text(ENGINE.replace("/d", "/d?x").replace('x"', 'x", pool_pre_ping=True'))
    configure(project, "exclude = ['app/legacy']")

    for path in (".", "app"):
        assert main(["check", path, "--select", "engine/pre-ping"]) == 0, capsys.readouterr().out


def test_an_excluded_path_that_is_not_there_is_reported(project, capsys):
    (project / "app" / "legacy").mkdir()
    (project / "app" / "legacy" / "db.py").write_text(ENGINE)
    (project / "node_modules").mkdir()
    configure(project, "exclude = ['app/legacy/', 'app/lagecy', '**/generated_*.py', 'node_modules']")

    main(["check", "--select", "engine/pre-ping"])
    whole = capsys.readouterr().out
    main(["check", "app", "--select", "engine/pre-ping"])
    part = capsys.readouterr().out

    assert [line for line in whole.splitlines() if line.startswith("note ")] == [
        "note `exclude`: app/lagecy matches nothing here",
        "note `exclude`: **/generated_*.py matches nothing here",
    ]
    assert "matches nothing" not in part  # of which the patterns do not all speak


def test_an_accepted_box_keeps_its_verdict_and_does_not_count(project, capsys):
    configure(project, "accept = { 'engine/pre-ping' = 'the proxy does it' }")

    assert main(["check", "--select", "engine/pre-ping"]) == 0
    out = capsys.readouterr().out
    assert "~ " in out
    assert "accepted: the proxy does it" in out
    assert "0 fail, 0 unproven, 0 not applicable, 1 excused of 1 box" in out


def test_an_acceptance_that_is_not_needed_any_more_is_reported(project, capsys):
    (project / "app" / "db.py").write_text(ENGINE.replace('d"', 'd", pool_pre_ping=True'))
    configure(project, "accept = { 'engine/pre-ping' = 'the proxy does it' }")

    assert main(["check", "--select", "engine/pre-ping"]) == 0
    assert "note engine/pre-ping holds: take it out of [tool.verdigris.accept]" in capsys.readouterr().out


def test_an_ignored_box_shows_its_reason(project, capsys):
    import json

    configure(project, "ignore = { 'engine/pre-ping' = 'the proxy does it' }")

    main(["check", "--output-format", "json"])

    assert json.loads(capsys.readouterr().out)["ignored"][0]["reason"] == "the proxy does it"


def test_every_setting_and_every_option_is_documented():
    text = DOCS.read_text("utf-8")
    parser = Parser("check", "")
    add_options(parser)
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}

    assert [name for name in COMMANDS if f"verdigris {name} " not in text] == []
    assert [key for key in KEYS if f"`{key}`" not in text] == []
    assert [option for option in options - {"--help"} if option not in text] == []
