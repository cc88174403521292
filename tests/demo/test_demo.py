"""`verdigris demo` as a newcomer runs it: the whole way, a busy port, an impatient Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verdigris.demo import stage

ROOT = Path(__file__).parents[2]
WHOLE = 240.0  # seconds; on two cores it takes less than a fifth of that


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "verdigris", "demo", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    output = tmp_path_factory.mktemp("demo")
    process = demo("--output", str(output), "--seconds", "1")
    told, complaints = process.communicate(timeout=WHOLE)
    return process.returncode, told + complaints, output


def test_every_box_of_the_shop_holds(whole: tuple[int, str, Path]) -> None:
    code, told, output = whole

    boxes = json.loads((output / "report.json").read_text("utf-8"))["boxes"]
    doubtful = {box["name"]: box["verdict"] for box in boxes if box["verdict"] != "holds"}

    assert doubtful == {}, told
    assert len(boxes) == 41
    assert code == 0, told


def test_the_proof_of_each_box_and_the_figures_are_printed(whole: tuple[int, str, Path]) -> None:
    _, told, output = whole

    for word in ("1.1 engine/async-engine", "10.4 performance/query-times", "The pool", "The slowest queries"):
        assert word in told
    assert str(output / "report.html") in told


def test_the_html_report_is_one_file_without_script(whole: tuple[int, str, Path]) -> None:
    page = (whole[2] / "report.html").read_text("utf-8")

    assert "<script" not in page
    assert page.count("<details") >= 41


def test_a_busy_port_is_one_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        process = demo("--port", str(port))
        _, complaints = process.communicate(timeout=30)

    assert process.returncode == 2
    assert f"Port {port} cannot be had" in complaints


def test_ctrl_c_stops_everything_that_was_started(tmp_path: Path) -> None:
    process = demo("--output", str(tmp_path))
    assert process.stderr is not None
    for line in process.stderr:
        if "alembic" in line:
            break
    time.sleep(0.5)

    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=60)

    assert process.returncode == 130, complaints
    assert not processes_of_group(process.pid)


def processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def test_what_the_shop_lacks_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr(stage, "NEEDED", ("fastapi", "no_such_distribution"))

    with pytest.raises(stage.StageError, match="no_such_distribution is not installed") as raised:
        stage.equipped()

    assert "verdigris[demo]" in str(raised.value)
