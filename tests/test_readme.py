"""What the README shows works: its commands run, its application starts, its report is what the checker prints."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.demo.breaks import BREAKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SHOWN = ("engine/pre-ping", "models/lazy-raise", "concurrency/separate-sessions")
COMMANDS = re.findall(r"^\$ verdigris (.+)$", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def verdigris(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = str(ROOT / "src")
    code = f"import sys; sys.path.insert(0, {path!r}); from verdigris.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command: str) -> None:
    done = verdigris(*shlex.split(command), cwd=ROOT / "examples" / "shop")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_there_are_commands_in_the_readme() -> None:
    assert len(COMMANDS) >= 4


def test_the_releases_that_the_readme_asks_for_are_the_ones_that_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = dict(re.findall(r"(\w+)(?:\[\w+\])?>=([\d.]+)", " ".join(project["optional-dependencies"]["fastapi"])))
    python = project["requires-python"].removeprefix(">=")

    said = re.search(r"^PostgreSQL 14, Python (\S+), (.*) at least\.$", README, re.MULTILINE)

    assert said is not None
    named = {name.lower(): version for name, version in re.findall(r"(\w+) ([\d.]+)", said[2])}
    assert (said[1], named) == (python, needed)


def test_what_the_readme_links_to_is_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)

    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_every_page_is_linked_from_the_readme_or_a_page_of_it() -> None:
    pages = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
    told = README + "".join(pages.values())

    assert [name for name in pages if f"{name})" not in told] == []


def test_the_report_in_the_readme_is_the_one_that_is_printed(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "examples" / "shop", shop, ignore=shutil.ignore_patterns("__pycache__"))
    for each in BREAKS:
        if each.box in SHOWN:
            each.apply(shop)

    done = verdigris("check", "shop", "--no-cache", "--color", "never", cwd=tmp_path)

    assert done.returncode == 1
    assert steady(done.stdout) == steady(blocks("text")[0])


def test_the_application_of_the_readme_starts(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(blocks("python")[0], "utf-8")
    paths = [str(tmp_path), str(ROOT / "src"), str(ROOT / "examples" / "shop")]
    code = f"import sys; sys.path[:0] = {paths!r}; import app; print(sorted(app.app.openapi()['paths']))"
    environment = {"DATABASE_URL": "postgresql://localhost/shop", "PATH": ""}

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)

    assert done.stdout.strip() == "['/orders/{id}']", done.stderr


def steady(report: str) -> str:
    """Leave out what differs from run to run: the seconds, and spaces at the ends of lines."""
    return re.sub(r" · [\d.]+ s$", "", "\n".join(line.rstrip() for line in report.strip().splitlines()))
