from __future__ import annotations

import json

import pytest

from verdigris.checker.masking import masked
from verdigris.cli import main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql+asyncpg://shop:s3cret@h/d", "postgresql+asyncpg://shop:******@h/d"),
        ("a 'redis://:pw@h' and postgres://u:p:w@h", "a 'redis://:**@h' and postgres://u:***@h"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ('f"postgresql://{user}:{password}@{host}"', 'f"postgresql://{user}:{password}@{host}"'),
        ("postgresql://u:$PASSWORD@h", "postgresql://u:$PASSWORD@h"),
        (
            "postgresql://h/d?user=u&password=s3cret&sslmode=require",
            "postgresql://h/d?user=u&password=******&sslmode=require",
        ),
        ("'postgresql://h/d?sslPassword=s3c' and rest", "'postgresql://h/d?sslPassword=***' and rest"),
        ("postgresql://h/d?password={password}", "postgresql://h/d?password={password}"),
        ("see https://h/?passwords=2", "see https://h/?passwords=2"),
    ],
)
def test_passwords_become_stars_and_placeholders_stay(text, expected):
    assert masked(text) == expected


def test_no_report_and_no_cache_tells_a_password_of_the_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "db.py").write_text(
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        'engine = create_async_engine("postgresql+asyncpg://shop:s3cret@h/d")\n'
    )

    writes = [f"--write={form}=out/{form}" for form in ("terminal", "full", "concise", "json", "html")]
    main(["check", "db.py", *writes])
    main(["baseline", "write", "db.py"])

    told = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "db.py"]
    assert len(told) >= 7
    assert [path.name for path in told if "s3cret" in path.read_text()] == []
    assert "s3cret" not in capsys.readouterr().out
    assert any(finding["fix"] for finding in json.loads((tmp_path / "out" / "json").read_text())["findings"])
