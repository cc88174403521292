"""`verdigris fix`: what it writes, what it leaves alone and says so."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from verdigris.cli import main
from verdigris.evidence.judgement import Edit
from verdigris.evidence.values import Place
from verdigris.fix.files import Changed, changes, snapshot, write

DATABASE = """\
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop?timeout=5&command_timeout=60", pool_size=5)  # sized
Session = async_sessionmaker(engine)
"""
MODELS = """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    posts: Mapped[list["Post"]] = relationship(lazy="noload")
    notes: Mapped[list["Post"]] = relationship(
        back_populates="user",
    )


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped["User"] = relationship(back_populates="notes")
"""
SAFE = ", pool_size=5, pool_pre_ping=True, pool_recycle=1800)  # sized\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "database.py").write_text(DATABASE, "utf-8")
    (tmp_path / "models.py").write_text(MODELS, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fix(*options):
    return main(["fix", ".", "--no-cache", *options])


def test_what_changes_nothing_but_the_fault_is_written_and_the_rest_named(project, capsys):
    assert fix() == 0

    told = capsys.readouterr()
    assert (project / "database.py").read_text("utf-8") == DATABASE.replace(", pool_size=5)  # sized\n", SAFE)
    assert (project / "models.py").read_text("utf-8") == MODELS
    assert told.out == "database.py: pool_pre_ping=True, pool_recycle=1800\n"
    assert "2 edits in 1 file written; 4 more with --unsafe." in told.err


def test_afterwards_the_boxes_hold_and_there_is_nothing_to_write(project, capsys):
    assert fix("--unsafe") == 0
    written = {path: path.read_bytes() for path in project.iterdir()}
    boxes = "engine/pre-ping,engine/recycle,session/expire-on-commit,models/explicit-lazy,models/lazy-raise"
    capsys.readouterr()

    assert main(["check", ".", "--no-cache", "--select", boxes]) == 0
    assert fix("--unsafe") == 0

    assert "nothing to write." in capsys.readouterr().err
    assert {path: path.read_bytes() for path in project.iterdir()} == written


def test_diff_shows_exactly_what_is_written_and_writes_nothing(project, capsys):
    before = {path: path.read_bytes() for path in project.iterdir()}

    assert fix("--unsafe", "--diff") == 1
    shown = capsys.readouterr().out
    assert {path: path.read_bytes() for path in project.iterdir()} == before
    assert fix("--unsafe") == 0
    after = {path: path.read_bytes() for path in project.iterdir()}

    subprocess.run(["git", "apply", "-R", "-"], input=shown, text=True, cwd=project, check=True)
    assert {path: path.read_bytes() for path in project.iterdir()} == before
    assert after != before


def test_the_path_that_was_given_is_the_one_that_is_told(project, capsys):
    (project / "app").mkdir()
    (project / "database.py").rename(project / "app" / "database.py")

    assert main(["fix", "app", "--diff", "--no-cache"]) == 1
    assert "--- a/app/database.py\n+++ b/app/database.py\n" in capsys.readouterr().out
    assert main(["fix", "app/database.py", "--no-cache"]) == 0
    assert capsys.readouterr().out.startswith("app/database.py: ")


@pytest.mark.parametrize(
    "decide",
    [
        lambda project: (project / "database.py").write_text(
            DATABASE.replace("# sized", "# verdigris: ignore[engine/pre-ping, engine/recycle] a proxy")
        ),
        lambda project: (project / "pyproject.toml").write_text(
            '[tool.verdigris.accept]\n"engine/pre-ping" = "a proxy"\n"engine/recycle" = "a proxy"\n'
        ),
        lambda _: main(["baseline", "write", "."]),
        lambda project: (project / "pyproject.toml").write_text('[tool.verdigris]\nexclude = ["database.py"]\n'),
    ],
)
def test_what_a_team_has_decided_otherwise_stays(decide, project, capsys):
    decide(project)
    before = (project / "database.py").read_bytes()

    assert fix() == 0

    assert (project / "database.py").read_bytes() == before
    assert "nothing to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "encoding"),
    [("", "utf-8-sig"), ("# -*- coding: latin-1 -*-\r\n# é\r\n", "latin-1"), ("# данные\r\n", "utf-8")],
)
def test_the_encoding_and_the_ends_of_lines_stay(head, encoding, project):
    before = head + DATABASE.replace("\n", "\r\n").removesuffix("\r\n")
    (project / "database.py").write_bytes(before.encode(encoding))

    assert fix("--unsafe") == 0

    after = before.replace(", pool_size=5)", ", pool_size=5, pool_pre_ping=True, pool_recycle=1800)").replace(
        "(engine)", "(engine, expire_on_commit=False)"
    )
    assert (project / "database.py").read_bytes() == after.encode(encoding)


def test_an_option_that_may_be_among_others_is_left_to_people(project):
    code = DATABASE.replace("pool_size=5", "**load()")
    (project / "database.py").write_text(code, "utf-8")

    fix()

    assert (project / "database.py").read_text("utf-8") == code


def test_relationships_that_a_synchronous_session_loads_are_left_to_people(project):
    worker = "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import sessionmaker\n"
    worker += "Sync = sessionmaker(create_engine('postgresql+psycopg://localhost/shop', pool_size=5))\n"
    (project / "worker.py").write_text(worker, "utf-8")

    assert fix("--unsafe") == 0

    assert (project / "models.py").read_text("utf-8") == MODELS
    assert "expire_on_commit=False" in (project / "database.py").read_text("utf-8")


def edits(path="database.py"):
    return [Edit(Place(path, 3, 3, 9, 109), "pool_pre_ping", "True")]


def test_a_file_that_changed_since_it_was_checked_is_left_alone(project):
    looks = snapshot(project, ())
    (project / "database.py").write_text(DATABASE + "\n", "utf-8")

    [change] = changes(project, edits(), looks)

    assert change.left == "it changed while it was checked: fix again"


def test_a_file_that_changes_before_it_is_written_is_left_alone(project):
    [change] = changes(project, edits(), snapshot(project, ()))
    (project / "database.py").write_text("mine = True\n", "utf-8")

    assert write(project, change) == "it changed meanwhile: fix again"
    assert (project / "database.py").read_text("utf-8") == "mine = True\n"


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_a_read_only_file_is_left_alone_and_the_mode_of_another_stays(project, capsys):
    (project / "database.py").chmod(0o444)
    (project / "models.py").chmod(0o750)

    assert fix("--unsafe") == 2

    assert (project / "database.py").read_text("utf-8") == DATABASE
    assert "database.py is left alone: it is read-only" in capsys.readouterr().err
    assert (project / "models.py").read_text("utf-8") != MODELS
    assert stat.S_IMODE((project / "models.py").stat().st_mode) == 0o750


def test_a_link_stays_one_and_what_lies_outside_is_left_alone(project, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "database.py"
    outside.write_text(DATABASE, "utf-8")
    (project / "shared.py").symlink_to(outside)
    (project / "inner.py").symlink_to(project / "database.py")

    found = {change.path: change.left for change in changes(project, edits("shared.py"), snapshot(project, ()))}
    [change] = changes(project, edits("inner.py"), snapshot(project, ()))

    assert str(found["shared.py"]).startswith("it is a link that leads out of the project")
    assert write(project, change) is None
    assert (project / "inner.py").is_symlink()
    assert "pool_pre_ping=True" in (project / "database.py").read_text("utf-8")


def test_an_interrupt_leaves_each_file_whole(project, monkeypatch):
    [change] = changes(project, edits(), snapshot(project, ()))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(project, change)

    assert (project / "database.py").read_text("utf-8") == DATABASE
    assert sorted(path.name for path in project.iterdir()) == ["database.py", "models.py"]


def test_a_full_disk_is_told(project, monkeypatch):
    [change] = changes(project, edits(), snapshot(project, ()))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "chmod", full)

    assert write(project, change) == "it cannot be written: No space left on device"
    assert (project / "database.py").read_text("utf-8") == DATABASE


def test_the_diff_of_a_file_without_a_last_newline_is_one_that_git_takes():
    change = Changed("a.py", (), b"x = 1\ny = 2", b"x = 1\ny = 3")

    assert change.diff("a.py").endswith(b"-y = 2\n\\ No newline at end of file\n+y = 3\n\\ No newline at end of file\n")


@pytest.mark.parametrize("program", [("git", "apply", "-R", "-"), ("patch", "-R", "-p1")])
@pytest.mark.parametrize(
    ("name", "head", "encoding"),
    [
        ("database.py", "# -*- coding: latin-1 -*-\r\n# é\r\n", "latin-1"),
        ("database.py", "# -*- coding: cp1251 -*-\n# данные\n", "cp1251"),
        ("the data base.py", "# é\x0c\n", "utf-8-sig"),
        ("base de données.py", "# é\n", "utf-8"),
    ],
)
def test_the_diff_of_a_file_is_in_its_own_bytes_under_its_own_name(name, head, encoding, program, project, capfdbinary):
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]}")
    (project / "database.py").unlink()
    before = (head + DATABASE).encode(encoding)
    (project / name).write_bytes(before)

    assert fix("--diff") == 1
    shown = capfdbinary.readouterr().out
    assert fix() == 0
    assert (project / name).read_bytes() != before

    subprocess.run(program, input=shown, cwd=project, check=True, capture_output=True)
    assert (project / name).read_bytes() == before


def test_the_diff_of_a_directory_elsewhere_is_under_names_within_it(project, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    assert main(["fix", str(project), "--diff", "--no-cache"]) == 1

    assert capsys.readouterr().out.startswith("--- a/database.py\n+++ b/database.py\n")


def test_a_file_with_several_names_is_written_once_under_its_own(project, capsys):
    (project / "again.py").symlink_to("database.py")

    assert fix() == 0

    told = capsys.readouterr()
    assert told.out == "database.py: pool_pre_ping=True, pool_recycle=1800\n"
    assert "left alone" not in told.err
    assert (project / "again.py").is_symlink()


def test_what_could_not_be_read_is_told(project, capsys):
    for number in range(7):
        (project / f"old{number}.py").write_text("import sqlalchemy\nprint 'x'\n", "utf-8")
    (project / "nul.py").write_bytes(b"import sqlalchemy\0\n")

    assert fix() == 0

    told = capsys.readouterr().err
    assert "verdigris: nul.py is not read: " in told
    assert "verdigris: 3 more are not read: verdigris check names them\n" in told
    assert (project / "nul.py").read_bytes() == b"import sqlalchemy\0\n"


def test_sqlalchemy_takes_the_keywords_with_every_pool():
    code = (
        "from sqlalchemy.ext.asyncio import create_async_engine\nfrom sqlalchemy import pool\n"
        "for kind in (None, pool.NullPool, pool.StaticPool, pool.AsyncAdaptedQueuePool):\n"
        "    create_async_engine('postgresql+asyncpg://h/x', poolclass=kind, pool_pre_ping=True, pool_recycle=1800)\n"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
