"""The command line under conditions that nobody plans for: each gets an answer, and none is told as a bug of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verdigris.cli import main

ENGINE = """from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
"""
RUN = f"{sys.executable} -m verdigris"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "main.py").write_text(ENGINE, "utf-8")
    return tmp_path


def shell(command, folder):
    place = {"PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)}
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | place, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), (">&- 2>&-", 1), ("2>&-", 1)])
def test_closed_streams_leave_the_exit_code(closed, code, project):
    ran = shell(f"{RUN} check . --select engine/pre-ping {closed}", project)

    assert ran.returncode == code
    assert "bug of verdigris" not in ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a device")
def test_a_full_disk_is_told_as_one(project):
    ran = shell(f"{RUN} check . --select engine/pre-ping >/dev/full", project)

    assert ran.returncode == 2
    assert "could not be written" in ran.stderr


def test_a_directory_that_is_gone_is_no_bug(tmp_path):
    ran = shell(f"mkdir gone && cd gone && rmdir ../gone && {RUN} check .", tmp_path)

    assert ran.returncode == 2
    assert "has been deleted" in ran.stderr


def test_a_path_that_no_file_system_takes_is_no_bug(capsys):
    assert main(["check", "a" * 5000]) == 2

    assert "longer than the file system takes" in capsys.readouterr().err


def test_settings_nested_without_end_are_no_toml(project, capsys):
    (project / "pyproject.toml").write_text(f"[tool.verdigris]\nselect = {'[' * 5000}{']' * 5000}\n", "utf-8")

    assert main(["check", str(project)]) == 2
    assert "is not TOML" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
@pytest.mark.parametrize("name", ["pyproject.toml", "alembic.ini", "pipe.py"])
def test_a_pipe_among_the_files_is_named_and_not_waited_for(name, project):
    os.mkfifo(project / name)

    ran = subprocess.run(
        [*RUN.split(), "check", ".", "--no-cache", "--select", "engine/pre-ping", "--output-format", "concise"],
        cwd=project, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip

    assert ran.returncode == 1
    assert f"{name}: unread: it is no regular file" in ran.stdout


@pytest.mark.parametrize(("short", "meant"), [("-o", "--output"), ("-r", "--root")])
def test_one_letter_of_an_option_is_told_the_option_that_begins_with_it(short, meant, capsys):
    assert main(["record", short, "run.json", "--", "true"]) == 2

    assert f"Did you mean `{meant}`?" in capsys.readouterr().err


def test_a_python_that_is_too_old_is_told_so(project):
    as_old = "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); "

    ran = shell(f"""{sys.executable} -c "{as_old} runpy.run_module('verdigris', run_name='__main__')" """, project)

    assert ran.returncode == 2
    assert ran.stderr.startswith("verdigris: Python 3.11 is the oldest that it runs on; ")
    assert ran.stderr.count("\n") == 1
