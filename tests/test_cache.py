from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verdigris.checker import cache, check
from verdigris.checker.check import Plan
from verdigris.evidence.source import Source

ROOT = Path(__file__).parents[1]
BAD = (
    'from sqlalchemy.ext.asyncio import create_async_engine\nengine = create_async_engine("postgresql+asyncpg://h/d")\n'
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "db.py").write_text(BAD)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Count how often a tree is read."""
    counted = []
    read = Source.read.__func__

    def counting(cls, *arguments):
        counted.append(arguments)
        return read(cls, *arguments)

    monkeypatch.setattr(Source, "read", classmethod(counting))
    return counted


def plan(project, **more):
    return Plan(project, str(project), selected=frozenset({"engine/pre-ping", "engine/pool-size"}), **more)


def settled(report):
    return {name: getattr(report, name) for name in report.__slots__ if name != "seconds"}


def test_an_unchanged_tree_is_not_read_again_and_the_report_is_the_same(project, reads):
    (project / "broken.py").write_text("import sqlalchemy (")
    first = check.check(plan(project))

    second = check.check(plan(project))

    assert len(reads) == 1
    assert settled(second) == settled(first)
    assert second.lines == first.lines


@pytest.mark.parametrize(
    "change",
    [
        lambda project: (project / "db.py").write_text(BAD + "\n"),
        lambda project: (project / "db.py").rename(project / "database.py"),
        lambda project: (project / "new.py").write_text(""),
        lambda project: (project / ".env").write_text("DATABASE_URL=x"),
    ],
)
def test_any_change_of_the_tree_is_judged_afresh(change, project, reads):
    check.check(plan(project))
    change(project)

    check.check(plan(project))

    assert len(reads) == 2


def test_settings_that_judging_depends_on_are_part_of_the_key(project, reads):
    check.check(plan(project))
    check.check(plan(project, workers=4))
    check.check(plan(project, exclude=("x",)))

    assert len(reads) == 3


def test_what_the_team_decides_is_applied_to_what_was_remembered(project, reads):
    check.check(plan(project))
    (report,) = [check.check(plan(project, accepted={"engine/pre-ping": "a proxy"}))]

    assert len(reads) == 1
    assert report.boxes[0].excused == "accepted: a proxy"


def test_no_cache_reads_nothing_and_remembers_nothing(project, reads, tmp_path):
    check.check(plan(project, cache=False))
    check.check(plan(project, cache=False))

    assert len(reads) == 2
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without(project, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert check.check(plan(project)).failing


def test_a_user_without_a_home_has_no_cache(project, monkeypatch):
    def homeless(path):
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)

    assert check.check(plan(project)).failing


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"understood": 1}', "\x00"])
def test_a_damaged_entry_is_judged_afresh(content, project, reads, tmp_path):
    check.check(plan(project))
    (entry,) = (tmp_path / "cache" / "verdigris").glob("*.json")
    entry.write_text(content)

    check.check(plan(project))

    assert len(reads) == 2


def test_an_entry_of_another_user_is_not_believed(project, reads, tmp_path, monkeypatch):
    check.check(plan(project))
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)

    check.check(plan(project))

    assert len(reads) == 2


def test_an_entry_behind_a_link_is_not_believed(project, reads, tmp_path):
    check.check(plan(project))
    (entry,) = (tmp_path / "cache" / "verdigris").glob("*.json")
    elsewhere = entry.rename(tmp_path / "elsewhere.json")
    entry.symlink_to(elsewhere)

    check.check(plan(project))

    assert len(reads) == 2


def test_a_box_that_broke_is_not_remembered(project, reads, monkeypatch):
    from dataclasses import replace

    whole = check.judge
    monkeypatch.setattr(check, "judge", lambda *given: tuple(replace(box, crash="KeyError") for box in whole(*given)))

    check.check(plan(project))
    check.check(plan(project))

    assert len(reads) == 2


def test_only_so_many_entries_are_kept(project, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "KEPT", 2)
    for number in range(4):
        (project / "db.py").write_text(BAD + "\n" * number)
        check.check(plan(project))

    assert len(list((tmp_path / "cache" / "verdigris").iterdir())) == 2


def test_an_entry_holds_no_source_text_but_what_findings_say(project, tmp_path):
    (project / "secret.py").write_text("import sqlalchemy\nTOKEN = 'do-not-copy-this'\n")
    check.check(plan(project))

    (entry,) = (tmp_path / "cache" / "verdigris").glob("*.json")
    assert "do-not-copy-this" not in entry.read_text()
    assert json.loads(entry.read_text())["files"] == 2
    assert entry.stat().st_mode & 0o077 == 0


def test_an_unchanged_tree_is_checked_without_the_source_index_or_the_boxes(project, tmp_path):
    program = (
        "import sys; from verdigris.cli import main; "
        "main(['check', sys.argv[1], '-q']); print(sorted(sys.modules), file=sys.stderr)"
    )
    environment = {"PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program, str(project)]

    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    )

    assert first.stdout == second.stdout
    assert "verdigris.evidence.source" in eval(first.stderr)
    assert {"verdigris.evidence.source", "verdigris.checklist.engine"}.isdisjoint(eval(second.stderr))


def test_a_module_of_the_checker_that_moves_makes_it_another_checker(project, tmp_path, monkeypatch):
    package = tmp_path / "verdigris"
    module = package / "evidence" / "engine" / "urls.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(cache, "__file__", str(package / "checker" / "cache.py"))
    before = cache.key(project, ())

    module.parent.rename(package / "evidence" / "session")  # size and time stay as they are

    assert cache.key(project, ()) != before
