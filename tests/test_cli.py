"""The command line as a user meets it: exit codes, what goes where, and every wrong use answered in one form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verdigris import __version__
from verdigris.checklist.pages import SECTIONS, entries, numbers
from verdigris.checklist.registry import boxes
from verdigris.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "src" / "verdigris" / "checklist"
BAD = """from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
"""
GOOD = BAD.replace('shop"', 'shop", pool_pre_ping=True')
PRE_PING = ("--select", "engine/pre-ping")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NO_COLOR", "FORCE_COLOR", "VERDIGRIS_DATABASE_URL", "VERDIGRIS_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "db.py").write_text(BAD)
    monkeypatch.chdir(folder)
    return folder


def run(capsys, *arguments):
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


def refused(capsys, *arguments):
    """Run a command that is wrong use; return the one message it answers with."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("verdigris: ")
    assert "Traceback" not in err
    return err


def test_a_failing_box_is_exit_code_one_and_the_summary_comes_last(project, capsys):
    code, out, err = run(capsys, "check", *PRE_PING)

    assert (code, err) == (1, "")
    assert out.startswith("1 engine, 0 factories, 0 routes, 0 models; no commit seen\n")
    assert "app/db.py:3" in out
    assert out.splitlines()[-1].startswith("0 hold, 1 fails, 0 unproven, 0 not applicable of 1 box · ")


def test_a_holding_box_is_exit_code_zero(project, capsys):
    (project / "app" / "db.py").write_text(GOOD)

    assert run(capsys, "check", *PRE_PING)[0] == 0


def test_quiet_prints_the_names_of_failing_boxes_and_nothing_else(project, capsys):
    assert run(capsys, "check", *PRE_PING, "-q") == (1, "engine/pre-ping\n", "")


def test_json_is_one_object_with_paths_relative_to_the_checked_path(project, capsys, monkeypatch):
    monkeypatch.chdir(project.parent)

    code, out, _ = run(capsys, "check", "project", "--output-format", "json", *PRE_PING)

    told = json.loads(out)
    assert code == 1
    assert told["schema_version"] == 1
    assert [(box["name"], box["number"], box["verdict"]) for box in told["boxes"]] == [
        ("engine/pre-ping", boxes()["engine/pre-ping"][0], "fails")
    ]
    assert [(each["path"], each["line"], each["rule"]) for each in told["findings"]] == [
        ("app/db.py", 3, "engine/pre-ping/off")
    ]
    assert (told["doubts"], told["unread"]) == ([], [])


def test_one_check_writes_several_reports(project, capsys):
    code, out, _ = run(capsys, "check", *PRE_PING, "--write", "json=out/r.json", "--write", "html=out/r.html", "-q")

    assert (code, out) == (1, "engine/pre-ping\n")
    assert json.loads((project / "out" / "r.json").read_text())["findings"]
    assert (project / "out" / "r.html").read_text().startswith("<!doctype html>")


def test_a_single_file_can_be_checked(project, capsys):
    code, out, _ = run(capsys, "check", "app/db.py", "--output-format", "concise", *PRE_PING)

    assert code == 1
    assert out.startswith("app/db.py:3: engine/pre-ping/off ")


def test_several_boxes_are_selected_by_section_number_and_glob(project, capsys):
    for selection in ("engine", "engine/*", ",".join(name for name in boxes() if name.startswith("engine/"))):
        told = json.loads(run(capsys, "check", "--select", selection, "--output-format", "json")[1])
        assert {box["name"] for box in told["boxes"]} == {name for name in boxes() if name.startswith("engine/")}
    number = boxes()["engine/pre-ping"][0]
    told = json.loads(run(capsys, "check", "--select", number, "--output-format", "json")[1])
    assert [box["name"] for box in told["boxes"]] == ["engine/pre-ping"]


def test_an_ignored_box_is_not_judged_and_is_counted(project, capsys):
    told = json.loads(run(capsys, "check", "--ignore", "engine/pre-ping", "--output-format", "json")[1])

    assert "engine/pre-ping" not in {box["name"] for box in told["boxes"]}
    assert [(each["name"], each["reason"]) for each in told["ignored"]] == [("engine/pre-ping", "--ignore")]


def test_strict_makes_an_unproven_box_count(project, capsys):
    (project / "app" / "db.py").write_text(BAD.replace('shop"', 'shop", **settings.options'))

    assert run(capsys, "check", *PRE_PING)[0] == 0
    assert run(capsys, "check", *PRE_PING, "--strict")[0] == 1


def test_an_unread_file_is_named(project, capsys):
    (project / "app" / "broken.py").write_text("from sqlalchemy import (\n")

    out = run(capsys, "check", *PRE_PING)[1]

    assert "unread app/broken.py: it is broken at line 1" in out


def test_a_file_of_another_encoding_a_template_and_a_pipe_are_unread_and_nothing_crashes(project, capsys):
    (project / "app" / "latin.py").write_bytes(b"# sqlalchemy \xe9\n")
    (project / "app" / "template.py").write_text("import sqlalchemy\n{% if x %}\nfoo = {{ name }}\n{% endif %}\n")
    (project / "app" / "nul.py").write_bytes(b"import sqlalchemy\0\n")
    os.mkfifo(project / "app" / "pipe.py")

    told = json.loads(run(capsys, "check", *PRE_PING, "--output-format", "json")[1])

    assert {file["path"] for file in told["unread"]} == {
        f"app/{name}.py" for name in ("latin", "template", "nul", "pipe")
    }


# Wrong use: exit code 2, one message on stderr, nothing on stdout.


def test_no_such_path_is_refused(project, capsys):
    assert "There is no nowhere." in refused(capsys, "check", "nowhere")


def test_a_directory_without_python_is_refused(project, capsys):
    (project / "empty").mkdir()
    (project / "empty" / "pyproject.toml").write_text("")

    assert "There is no Python file under empty." in refused(capsys, "check", "empty")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("chek",), "Did you mean `check`?"),
        (("check", "--selct", "engine"), "Did you mean `--select`?"),
        (("check", "--select", "engine/preping"), "Did you mean `engine/pre-ping`?"),
        (("check", "--ignore", "engin"), "Did you mean `engine`?"),
        (("check", "--output-format", "jsn"), "Did you mean `json`?"),
        (("check", "--evidence", "recordings"), "Did you mean `recording`?"),
        (("check", "--color", "sometimes"), "`sometimes` is not known."),
        (("check", "--workers", "0"), "`0` is no positive number"),
        (("check", "--select"), "expected one argument"),
        (("check", ".", "more"), "`more` is one argument too many."),
        (("check", "--write", "html"), "`--write html` names no file."),
        (("check", "--write", "htm=x"), "Did you mean `html`?"),
        (("check", "--evidence", "recording"), "No recording was given."),
        (("check", "--recording", "nowhere.json"), "The recording nowhere.json could not be read."),
        (("check", "--evidence", "database"), "VERDIGRIS_DATABASE_URL is not set."),
        (("check", "--evidence", "database", "--database-url-env", "SHOP_URL"), "SHOP_URL is not set."),
        (("check", "--baseline", "nowhere.json"), "There is no baseline nowhere.json."),
        (("check", "--select", "engine", "--ignore", "engine"), "No box is left to judge."),
        (("explain", "engine/preping"), "Did you mean `engine/pre-ping`?"),
        (("explain", "docs/recordings.md"), "Did you mean `docs/recording.md`?"),
        (("explain",), "required: BOX"),
        (("boxes", "--output-format", "html"), "`html` is not known."),
        (("record",), "No command was given to record."),
        (("record", "--outptu", "x", "--", "true"), "Did you mean `--output`?"),
        (("baseline", "wirte"), "Did you mean `write`?"),
        (("baseline", "prune"), "There is no baseline "),
    ],
)
def test_wrong_use_is_answered_with_what_would_be_right(arguments, told, project, capsys):
    assert told in refused(capsys, *arguments)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', '{"format": "verdigris recording"}', "\xff"])
def test_a_damaged_recording_is_refused(content, project, capsys):
    (project / "recording.json").write_bytes(content.encode("latin-1"))

    assert "recording.json" in refused(capsys, "check", "--recording", "recording.json")


def test_a_report_that_cannot_be_written_is_refused(project, capsys):
    (project / "file").write_text("")

    assert "could not be written" in refused(capsys, "check", *PRE_PING, "--write", "json=file/x.json")


def test_no_argument_prints_the_overview_and_is_no_success(capsys):
    code, out, _ = run(capsys)

    assert code == 2
    assert all(name in out for name in COMMANDS)


def test_help_and_version_are_successes(capsys):
    assert run(capsys, "--help")[0] == 0
    assert run(capsys, "--version") == (0, f"verdigris {__version__}\n", "")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])

    assert stopped.value.code == 0
    assert f"verdigris {command}" in capsys.readouterr().out


def test_a_bug_of_ours_is_exit_code_two_and_says_so(project, capsys, monkeypatch):
    from verdigris.checker import check

    def broken(*_):
        raise KeyError("engine")

    monkeypatch.setattr(check, "_judge", broken)

    err = refused(capsys, "check", "--no-cache")

    assert err.startswith("verdigris: KeyError: 'engine' (test_cli.py:")
    assert "This is a bug of verdigris, not of the code it looked at" in err


def test_ctrl_c_ends_without_a_traceback(project, capsys, monkeypatch):
    from verdigris.checker import check

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "_judge", stopped)

    assert run(capsys, "check", "--no-cache") == (130, "", "verdigris: stopped.\n")


# Evidence beside the source


def recording(path, **engine):
    from verdigris.evidence.recording.artefact import Engine, Recording, Tests

    given = {"id": "app/db.py:3", "site": "app/db.py:3", "pool_class": "AsyncAdaptedQueuePool", "is_async": True}
    Recording(engines=(Engine(**(given | engine)),), tests=Tests(run=3), processes=1).save(path)


def test_a_recording_is_evidence_beside_the_source(project, capsys):
    (project / "app" / "db.py").write_text(GOOD)
    recording(project / "run.json", pre_ping=False)

    code, out, _ = run(capsys, "check", *PRE_PING, "--recording", "run.json")

    assert code == 1
    assert "evidence: source, recording (3 tests); not given: database" in out
    assert "ran without pre-ping" in out


def test_several_recordings_are_one(project, capsys):
    recording(project / "one.json", pre_ping=True)
    recording(project / "other.json", pre_ping=True)

    code, out, _ = run(capsys, "check", *PRE_PING, "--recording", "one.json", "--recording", "other.json")

    assert code == 0
    assert "recording (6 tests)" in out


@pytest.mark.parametrize("again", [False, True])
def test_a_recording_of_another_version_or_one_that_lacks_something_says_so(again, project, capsys):
    from verdigris.evidence.recording.artefact import RecorderError, Recording

    Recording(verdigris="0.0.9").save(project / "old.json")
    Recording(verdigris=__version__, recorder_errors=(RecorderError("a statement", "ValueError: x", 3),)).save(
        "new.json"
    )
    given = ("check", *PRE_PING, "--recording", "old.json", "--recording", "new.json")
    if again:
        run(capsys, *given)

    _, out, _ = run(capsys, *given)

    told = " ".join(out.split())
    assert f"old.json was recorded by verdigris 0.0.9, and {__version__} reads it" in told
    assert "Record it again: verdigris record --output old.json -- CMD" in told
    assert "new.json may lack something: the recorder failed 3 times, first at a statement: ValueError: x" in told
    assert told.count("was recorded by") == 1


def test_a_recording_that_changed_is_read_again(project, capsys):
    recording(project / "run.json", pre_ping=True)
    assert run(capsys, "check", *PRE_PING, "--recording", "run.json")[0] == 0
    recording(project / "run.json", pre_ping=False)

    assert run(capsys, "check", *PRE_PING, "--recording", "run.json")[0] == 1


@pytest.mark.parametrize("url", ["postgresql://u:s3cret@127.0.0.1:1/x", "mysql://u:s3cret@h/x", "u:s3cret"])
def test_a_database_that_cannot_be_asked_is_refused_at_once_and_its_password_is_not_told(
    url, project, capsys, monkeypatch
):
    monkeypatch.setenv("VERDIGRIS_DATABASE_URL", url)

    assert "s3cret" not in refused(capsys, "check", "--evidence", "source,database")


def test_a_database_is_evidence_beside_the_source(project, capsys, monkeypatch):
    from verdigris import embedded

    with embedded.server(durable=False) as server:
        monkeypatch.setenv("SHOP_URL", str(server.url))
        arguments = ("check", *PRE_PING, "--evidence", "source,database", "--database-url-env", "SHOP_URL")
        code, out, err = run(capsys, *arguments)

    assert (code, err) == (1, "")
    assert "evidence: source, database; not given: recording" in out


def test_record_runs_the_command_and_ends_as_it_did(project, capsys):
    code, _, err = run(capsys, "record", "--output", "run.json", "--", sys.executable, "-c", "raise SystemExit(7)")

    assert code == 7
    assert "run.json" in err
    assert (project / "run.json").exists()


# The checklist


def test_boxes_prints_one_line_a_box(capsys):
    code, out, _ = run(capsys, "boxes")

    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [[number, name] for name, (number, _) in boxes().items()]


def test_boxes_are_there_as_json(capsys):
    told = json.loads(run(capsys, "boxes", "--output-format", "json")[1])

    assert [each["name"] for each in told] == list(boxes())


def test_the_checklist_that_is_read_is_the_one_that_judges():
    registered = {name: (number, box.holds, box.fails) for name, (number, box) in boxes().items()}

    assert {entry.name: (entry.number, entry.holds, entry.fails) for entry in entries()} == registered


def pages(section):
    return (PAGES / f"{section}.md").read_text("utf-8").splitlines()


def test_every_box_has_its_page_in_the_checklists_order():
    for section in SECTIONS:
        headings = [line[3:] for line in pages(section) if line.startswith("## ")]
        assert headings == [name for name in numbers() if name.startswith(f"{section}/")]


@pytest.mark.parametrize("asked", ["engine/pre-ping", numbers()["engine/pre-ping"], "engine/pre-ping/off"])
def test_explain_takes_a_name_a_number_or_a_rule(asked, capsys):
    code, out, _ = run(capsys, "explain", asked)

    assert code == 0
    assert out.startswith(f"{numbers()['engine/pre-ping']} engine/pre-ping\n\nHolds when ")
    assert "fails: engine/pre-ping/off" in out


def test_explain_names_the_variants_that_there_are_beside_one_that_is_none(capsys):
    code, out, err = run(capsys, "explain", "fastapi/yielded/nosuch")

    assert code == 0
    assert "fails: fastapi/yielded/returned" in out
    assert err == "The page of fastapi/yielded has no example of `nosuch`; it shows returned.\n"


def test_explain_takes_a_section(capsys):
    out = run(capsys, "explain", "engine")[1]

    assert [line for line in out.splitlines() if line[:2] == "1."] == [
        f"{number} {name}" for name, number in numbers().items() if name.startswith("engine/")
    ]


def test_explain_takes_a_page_that_is_no_boxs(capsys):
    code, out, _ = run(capsys, "explain", "docs/recording.md")

    assert (code, out) == (0, (ROOT / "docs" / "recording.md").read_text("utf-8"))


# In a process of its own


def process(*arguments, folder=ROOT, environment=None, options=()):
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), **(environment or {})}
    command = [sys.executable, *options, "-m", "verdigris", *arguments]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, timeout=120, check=False)


def test_it_runs_where_no_package_is_installed(project, tmp_path):
    ran = process("check", ".", *PRE_PING, "-q", folder=project, options=("-S",), environment={"HOME": str(tmp_path)})

    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"engine/pre-ping\n", b"")


def test_output_that_is_not_unicode_is_ascii(project, tmp_path):
    (project / "app" / "naïve.py").write_text(BAD)
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "HOME": str(tmp_path)}

    ran = process("check", ".", *PRE_PING, folder=project, environment=environment)

    assert ran.returncode == 1
    assert ran.stdout.isascii()
    assert b"na\\xefve.py" in ran.stdout


def test_a_reader_that_leaves_early_is_no_crash(project, tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)}
    command = f"{sys.executable} -m verdigris explain engine | head -1"

    ran = subprocess.run(command, shell=True, env=environment, capture_output=True, timeout=120, check=False)

    assert b"Traceback" not in ran.stderr
    assert b"BrokenPipe" not in ran.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("explain", "engine/pre-ping")])
def test_it_starts_without_the_checker_the_library_or_any_dependency(arguments):
    program = f"import sys; from verdigris.cli import main; main({list(arguments)!r}); print(sorted(sys.modules))"

    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )

    modules = set(eval(ran.stdout.splitlines()[-1]))
    assert modules.isdisjoint({"sqlalchemy", "rich", "asyncio", "verdigris.checklist.registry"})
    if sys.version_info < (3, 14):  # whose own NamedTuple and argparse bring them
        assert modules.isdisjoint({"ast", "dataclasses"})


def test_a_check_is_not_searched_for_cycles_neither_after_it_nor_at_exit(project, tmp_path):
    program = """
import atexit, gc, sys
from verdigris.cli import main
searches = []
gc.callbacks.append(lambda phase, info: searches.append(info["generation"]))
atexit.register(lambda: print(searches, gc.get_freeze_count() > 0))
sys.argv[1:] = ["check", "--no-cache", "-q", "--select", "engine/pre-ping"]
main()
"""

    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)},
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.splitlines()[-1] == "[] True"
