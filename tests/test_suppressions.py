from __future__ import annotations

import pytest

from tests.report.sample import finding
from verdigris.checker.suppressions import scan
from verdigris.cli import main
from verdigris.evidence.values import Place

MARK = "# verdigris: ignore[engine/pre-ping] the proxy does it"
IMPORT = "from sqlalchemy.ext.asyncio import create_async_engine\n"
CALL = 'create_async_engine("postgresql+asyncpg://h/d")'


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(project, capsys, text):
    (project / "db.py").write_text(IMPORT + text)
    code = main(["check", "db.py", "--select", "engine/pre-ping"])
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        f"engine = {CALL}  {MARK}\n",
        f"{MARK}\nengine = {CALL}\n",
        f"{MARK}\n# and another comment\n\nengine = {CALL}\n",
        f"engine = create_async_engine(\n    'postgresql+asyncpg://h/d',  {MARK}\n    pool_size=3,\n)\n",
        f"engine = create_async_engine(\n    'postgresql+asyncpg://h/d',\n    {MARK}\n    pool_size=3,\n)\n",
        f"engine = create_async_engine(\n    'postgresql+asyncpg://h/d',\n)  {MARK}\n",
        f"engine = {CALL}  # noqa: X1  {MARK}\n".replace("# noqa: X1  ", ""),
        f"engine = {CALL}  # verdigris:ignore[engine/pre-ping/off]: the proxy does it\n",
        f"engine = {CALL}  # verdigris: ignore[engine/recycle, engine/pre-ping] the proxy does it\n",
    ],
)
def test_a_comment_excuses_the_finding_of_its_statement(text, project, capsys):
    code, out = check(project, capsys, text)

    assert code == 0, out
    assert "suppressed: the proxy does it" in out
    assert "1 finding suppressed" in out


@pytest.mark.parametrize(
    "text",
    [
        f"other = 1  {MARK}\nengine = {CALL}\n",
        f"engine = {CALL}\n{MARK}\n",
        f'"""{MARK}"""\nengine = {CALL}\n',
        f"def make():\n    return 1  {MARK}\nengine = {CALL}\n",
        f"engine = {CALL}  # verdigris: ignore[session] the proxy does it\n",
        f"engine = {CALL}  # noqa\n",
    ],
)
def test_a_comment_elsewhere_excuses_nothing(text, project, capsys):
    assert check(project, capsys, text)[0] == 1


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("# verdigris: ignore[engine/pre-ping]", "gives no reason and excuses nothing"),
        ("# verdigris: ignore the proxy does it", "names no box and excuses nothing"),
        ("# verdigris: ignore[engine/preping] the proxy", "Did you mean `engine/pre-ping`?"),
        ("# verdigris: ignroe[engine/pre-ping] the proxy", "names no box and excuses nothing"),
    ],
)
def test_a_comment_without_a_name_or_a_reason_is_reported(comment, told, project, capsys):
    code, out = check(project, capsys, f"engine = {CALL}  {comment}\n")

    assert code == 1
    assert "note db.py:2: " in out
    assert told in " ".join(out.split())


def test_a_comment_that_has_nothing_to_excuse_is_reported(project, capsys):
    code, out = check(project, capsys, f"engine = {CALL[:-1]}, pool_pre_ping=True)  {MARK}\n")

    assert code == 0
    assert "note db.py:2: nothing to suppress here: engine/pre-ping (the proxy does it)" in out


def test_a_comment_about_a_box_that_was_not_judged_is_not_called_unused(project, capsys):
    text = f"engine = {CALL[:-1]}, pool_pre_ping=True)  # verdigris: ignore[session/autoflush] later\n"

    assert "note" not in check(project, capsys, text)[1]


def test_settings_files_have_comments_too():
    (above, behind) = scan(
        ".env", "# verdigris: ignore[engine/async-driver] a job\nURL=x\nB=1  # verdigris: ignore[a/b] y\n"
    )

    assert above.covers("engine/async-driver", finding(place=Place(".env", 2, 2)))
    assert behind.covers("a/b", finding(place=Place(".env", 3, 3)))


def test_a_decorators_comment_speaks_for_the_function():
    (comment,) = scan("a.py", f"@router.get(\n    '/x',\n)  {MARK}\nasync def read():\n    pass\n")

    assert comment.covers("engine/pre-ping", finding(place=Place("a.py", 4, 5)))
    assert not comment.covers("engine/pre-ping", finding(place=Place("a.py", 5, 5)))
