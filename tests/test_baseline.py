from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from verdigris.checker import baseline
from verdigris.checker.usage import UsageError
from verdigris.cli import main

ENGINE = 'engine = create_async_engine("postgresql+asyncpg://h/d")\n'
SOURCE = f"from sqlalchemy.ext.asyncio import create_async_engine\n{ENGINE}"
SELECT = ("--select", "engine/pre-ping")
FILE = Path("verdigris-baseline.json")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "db.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    return folder


def test_known_findings_do_not_fail_and_are_counted(capsys):
    assert main(["baseline", "write", *SELECT]) == 0
    assert capsys.readouterr().out.endswith("verdigris-baseline.json: 1 known, 1 of them new, 0 gone\n")

    assert main(["check", *SELECT]) == 0
    out = capsys.readouterr().out
    assert "1 finding known in the baseline" in out
    assert "~ " in out


def test_lines_may_move(project):
    main(["baseline", "write", *SELECT])
    (project / "db.py").write_text(f'"""A module."""\n\n{SOURCE}')

    assert main(["check", *SELECT]) == 0


def test_a_new_finding_fails_beside_known_ones(project, capsys):
    main(["baseline", "write", *SELECT])
    (project / "db.py").write_text(SOURCE + ENGINE.replace("engine =", "other ="))

    assert main(["check", *SELECT, "--output-format", "json"]) == 1
    told = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert [each["subject"] for each in told["findings"]] == ["db.py:other"]
    assert [each["subject"] for each in told["known"]] == ["db.py:engine"]


def test_what_is_gone_is_reported_and_pruned(project, capsys):
    main(["baseline", "write", *SELECT])
    (project / "db.py").write_text(SOURCE.replace('d"', 'd", pool_pre_ping=True'))
    capsys.readouterr()

    assert main(["check", *SELECT]) == 0
    assert "1 finding of the baseline is gone: verdigris baseline prune" in capsys.readouterr().out
    assert main(["baseline", "prune", *SELECT]) == 0
    assert capsys.readouterr().out.endswith("1 gone, 0 left\n")
    assert baseline.read(FILE) == ()


def test_what_this_check_cannot_see_is_neither_gone_nor_overwritten():
    entries = [
        baseline.Entry("loading/no-n-plus-one/repeat", "GET /orders", 1, "recording", "101 queries"),
        baseline.Entry("session/expire-on-commit/on", "db.py:factory", 1, "source", ""),
    ]
    baseline.write(FILE, entries)

    main(["baseline", "prune", *SELECT])
    assert set(baseline.read(FILE)) == set(entries)
    main(["baseline", "write", *SELECT])
    assert set(entries) < set(baseline.read(FILE))


def test_several_findings_of_one_subject_are_told_apart_by_their_order(project):
    from tests.report.sample import box, finding
    from verdigris.checklist.verdict import Verdict

    three = box("engine/pre-ping", "1.3", Verdict.FAILS, findings=tuple(finding(line) for line in (3, 5, 9)))
    known = [entry for entry, _ in baseline.entries(three, three.findings[:2])]

    (applied,) = baseline.apply((three,), known)

    assert [entry.ordinal for entry in known] == [1, 2]
    assert [each.place.line for each in applied.findings] == [9]
    assert [each.place.line for each in applied.known] == [3, 5]


def test_a_baseline_of_another_name_is_taken_from_the_option_or_the_configuration(project):
    assert main(["baseline", "write", "--baseline", "ci/known.json", *SELECT]) == 0

    assert main(["check", *SELECT]) == 1
    assert main(["check", *SELECT, "--baseline", "ci/known.json"]) == 0
    (project / "pyproject.toml").write_text('[tool.verdigris]\nbaseline = "ci/known.json"\n')
    assert main(["check", *SELECT]) == 0


def test_it_is_written_one_finding_a_line_and_the_same_each_time():
    main(["baseline", "write", *SELECT])
    first = FILE.read_text()
    main(["baseline", "write", *SELECT])

    assert FILE.read_text() == first
    assert len([line for line in first.splitlines() if '"rule"' in line]) == 1
    assert json.loads(first)["findings"][0]["subject"] == "db.py:engine"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "verdigris baseline", "schema_version": 9}',
        '{"format": "verdigris baseline", "schema_version": 1, "findings": [{"rule": 1}]}',
    ],
)
def test_a_damaged_baseline_is_refused(content, capsys):
    FILE.write_text(content)

    with pytest.raises(UsageError, match="is not a baseline"):
        baseline.read(FILE)
    assert main(["check", *SELECT]) == 2
    assert "is not a baseline" in capsys.readouterr().err
    assert FILE.read_text() == content


def test_what_is_told_of_a_damaged_baseline_works(project, monkeypatch, capsys):
    FILE.write_text("<<<<<<< ours")
    assert main(["baseline", "write", *SELECT]) == 2
    assert FILE.read_text() == "<<<<<<< ours"
    told = capsys.readouterr().err

    command = next(line for line in told.splitlines() if "start afresh:" in line).partition(":   ")[2]
    delete, _, write = command.partition(" && ")
    subprocess.run(shlex.split(delete), check=True)
    assert main([*shlex.split(write)[1:], *SELECT]) == 0

    assert [entry.subject for entry in baseline.read(FILE)] == ["db.py:engine"]
