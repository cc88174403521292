"""`verdigris record`: any command, every process of it, whatever its end."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.evidence.conftest import RECORDED

from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording import Recording
from verdigris.evidence.recording.command import run
from verdigris.evidence.recording.statements import database_gone
from verdigris.evidence.recording.suites import TestRun

SOURCE = Path(__file__).parents[2] / "src"
PYTHON = [sys.executable, "-c"]
RECORD = (
    "import sys; from pathlib import Path; from verdigris.evidence.recording.command import run;"
    "sys.exit(run(sys.argv[3:], output=Path(sys.argv[1]), root=Path(sys.argv[2])))"
)


@pytest.fixture
def output(tmp_path, postgres, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", str(postgres.url))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("VERDIGRIS_RECORDING_DEBUG", "1")
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
    return tmp_path / "recording.json"


def script(*arguments):
    return [sys.executable, str(RECORDED / "script.py"), *arguments]


def count(recording):
    return sum(statement.count for statement in recording.statements)


@pytest.mark.parametrize(
    ("how", "processes", "statements"), [("alone", 1, 5), ("fork", 2, 8), ("spawn", 2, 8), ("forkserver", 2, 8)]
)
def test_every_process_of_a_command_is_part_of_one_recording(output, how, processes, statements, capfd):
    code = run(script(how, "0"), output=output, root=RECORDED)

    recording = Recording.load(output)
    assert code == recording.exit_code == 0
    assert (recording.processes, count(recording)) == (processes, statements)
    assert recording.engines[0].site == "script.py:14"
    assert recording.recorder_errors == ()
    assert f"{statements} statements in {output}" in capfd.readouterr().err


FORK_WHILE_SAVING = """
import os, threading, time
from pathlib import Path
from verdigris.evidence.recording import child, recorder

HELD, SAVING = threading.Lock(), threading.Event()

class Keeper(child.Keeper):
    def save(self, *, final=True):
        with HELD:
            SAVING.set()
            time.sleep(0.3)

child._EVERY = 0.01
keeper = Keeper(recorder.Recorder("."), Path("."))
keeper.follow_forks()
keeper.wait()
keeper.recorder.begins()
SAVING.wait()
if os.fork() == 0:
    os._exit(not HELD.acquire(timeout=2))
stuck = os.waitstatus_to_exitcode(os.wait()[1])
SAVING.clear()
keeper.recorder.begins()
raise SystemExit(stuck or not SAVING.wait(2))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_waits_for_a_save_whose_locks_the_child_would_inherit_and_saving_goes_on():
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
    assert subprocess.run([*PYTHON, FORK_WHILE_SAVING], env=environment, timeout=20, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_no_thread_of_the_recorder_is_there_that_python_would_warn_of_when_the_process_forks(output):
    command = script("alone", "forks")
    command.insert(1, "-Werror")

    assert run(command, output=output, root=RECORDED) == 0

    assert count(Recording.load(output)) == 8


def test_what_a_program_did_before_it_became_another_one_is_recorded(output):
    assert run(script("alone", "becomes"), output=output, root=RECORDED) == 0

    recording = Recording.load(output)
    assert (recording.processes, count(recording)) == (2, 10)


SIGNAL_TO_A_THREAD = """
import multiprocessing, signal, threading, time
from verdigris.evidence.recording import child

def send():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

child.start()
lock = multiprocessing.Lock()
lock.acquire()
threading.Thread(target=send, daemon=True).start()
with lock:
    pass
"""


def test_a_signal_ends_a_worker_that_waits_for_a_lock_even_if_the_wait_did_not_notice_it(tmp_path):
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "VERDIGRIS_RECORDING": str(tmp_path)}

    ended = subprocess.run([*PYTHON, SIGNAL_TO_A_THREAD], env=environment, timeout=20, check=False)

    assert ended.returncode == -signal.SIGTERM


SIGNAL_WHILE_SAVING = """
import os, signal
from sqlalchemy import create_engine
from verdigris.evidence.recording import child, recorder

class Recorder(recorder.Recorder):
    def artefact(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().artefact()

child.Recorder = Recorder
child.start()
create_engine("sqlite://")
"""


def test_a_signal_that_comes_while_the_last_save_is_made_waits_for_it(tmp_path):
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "VERDIGRIS_RECORDING": str(tmp_path)}

    ended = subprocess.run([*PYTHON, SIGNAL_WHILE_SAVING], env=environment, timeout=20, check=False)

    assert ended.returncode == -signal.SIGTERM
    assert len(list(tmp_path.glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("end", "code"),
    [("at once", 3), ("as a worker", 128 + signal.SIGTERM), ("3", 3), ("raise", 1), ("kill", 128 + signal.SIGKILL)],
)
def test_the_exit_code_is_the_commands_and_a_crash_leaves_a_recording(output, end, code):
    assert run(script("alone", end), output=output, root=RECORDED) == code

    assert count(Recording.load(output)) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_leaves_a_recording(output, number):
    command = [sys.executable, "-c", RECORD, str(output), str(RECORDED), *script("alone", "wait")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"

    process.send_signal(number)
    code = process.wait(20)
    process.stdout.close()

    assert code == (130 if number == signal.SIGINT else 128 + number)
    assert count(Recording.load(output)) == 5


def test_a_test_suite_tells_what_ran_where_and_what_it_left(output):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        str(RECORDED / "checks.py"),
    ]

    assert run(command, output=output, root=RECORDED) == 1

    tests = Recording.load(output).tests
    assert (tests.run, tests.failed) == (5, 1)
    assert [name.rpartition("::")[2] for name in tests.committing] == [
        "test_that_leaves_rows[1]",
        "test_that_leaves_rows[2]",
        "test_that_cleans_up",
    ]
    assert tests.rows_left == {"left_behind": 2}
    assert tests.cleanups == {"TRUNCATE TABLE": 1}
    assert list(tests.databases.values()) == [4]
    assert ":***@" in next(iter(tests.databases))


def test_a_sitecustomize_that_was_there_runs_too(output, tmp_path, monkeypatch, capfd):
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import sys; sys.stderr.write(f'{__name__} of old\\n')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(other), str(SOURCE)]))

    run(script("alone", "0"), output=output, root=RECORDED)

    assert "sitecustomize of old" in capfd.readouterr().err
    assert count(Recording.load(output)) == 5


def test_an_environment_without_verdigris_is_recorded_too(output):
    shell = f'PYTHONPATH="${{PYTHONPATH%%:*}}" exec "{sys.executable}" "{RECORDED / "script.py"}" alone 0'

    run(["sh", "-c", shell], output=output, root=RECORDED)

    assert count(Recording.load(output)) == 5


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["true"], "no process of the command imported SQLAlchemy in a Python that reads PYTHONPATH"),
        ([*PYTHON, "pass"], "no process of the command imported SQLAlchemy. "),
        (
            [*PYTHON, "import sqlalchemy.orm, sqlalchemy.ext.asyncio"],
            "the command imported SQLAlchemy, but made no engine and answered no request. ",
        ),
    ],
)
def test_a_command_without_a_database_leaves_an_empty_recording_that_says_why(output, capfd, command, why):
    assert run(command, output=output, root=RECORDED) == 0

    assert Recording.load(output).processes == 0
    assert f"Nothing was recorded: {why}" in capfd.readouterr().err


def test_a_python_too_old_for_the_recorder_runs_as_it_would_and_the_closing_line_names_it(output, capfd):
    injected = SOURCE / "verdigris/evidence/recording/injected/sitecustomize.py"
    as_old = f"import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); runpy.run_path({str(injected)!r})"

    code = run(
        ["sh", "-c", f'"{sys.executable}" -I -c "{as_old}"; "{sys.executable}" -c pass'], output=output, root=RECORDED
    )

    told = capfd.readouterr().err
    assert code == 0
    assert "no process of the command imported SQLAlchemy. " in told
    assert "Not recorded: 1 process of Python 3.9; the recorder needs 3.11 at least" in told
    assert told.count("\n") == 2
    ast.parse(injected.read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("argv", "message"), [([], "no command to record"), (["no-such-command"], "no-such-command could not be started")]
)
def test_what_cannot_be_run_is_said_before_anything_happens(output, argv, message):
    with pytest.raises(EvidenceError, match=message):
        run(argv, output=output, root=RECORDED)

    assert not output.exists()


def test_an_output_that_cannot_be_written_is_said_before_the_command_runs(output, tmp_path):
    with pytest.raises(EvidenceError, match="It is a directory"):
        run(["touch", str(tmp_path / "ran")], output=tmp_path, root=RECORDED)

    assert not (tmp_path / "ran").exists()


def test_a_root_that_is_no_directory_is_said(output, tmp_path):
    with pytest.raises(EvidenceError, match="is no directory"):
        run(["true"], output=output, root=tmp_path / "none")


def test_a_process_that_outlives_the_recording_is_left_in_peace(output, tmp_path):
    later = f"import time, pathlib; time.sleep(1.5); import sqlalchemy; pathlib.Path(r'{tmp_path}/done').write_text('')"

    code = run(["sh", "-c", f'"{sys.executable}" -c "{later}" & exit 0'], output=output, root=RECORDED)

    assert code == 0
    for _ in range(100):
        if (tmp_path / "done").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "done").exists()


def test_a_process_that_goes_on_after_the_recording_saves_nothing_any_more(output, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    program = f'"{sys.executable}" "{RECORDED / "script.py"}" alone "{tmp_path / "done"}"'

    code = run(["sh", "-c", f"{program} & sleep 1; exit 0"], output=output, root=RECORDED)

    assert code == 0
    for _ in range(100):
        if (tmp_path / "done").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "done").exists()
    assert list(tmp_path.glob("verdigris-recording-*")) == []


def test_pytest_with_every_warning_an_error_accepts_that_the_recorder_came_before_it(output, tmp_path):
    marking = "from _pytest.config import get_config; from _pytest.assertion import install_importhook as hook\n"
    marking += "hook(get_config()).mark_rewrite('verdigris')"  # as pytest does for the plugin of an installed package

    assert run([sys.executable, "-W", "error", "-c", marking], output=output, root=tmp_path) == 0


@pytest.mark.parametrize("table", ["alembic_version", "public.alembic_version"])
def test_what_alembic_writes_of_itself_is_no_row_that_a_test_left(table):
    tests = TestRun()
    tests.current = "test_first"

    tests.committed("postgresql+asyncpg://h/shop_test", {table: 2})

    assert (tests.facts().rows_left, tests.facts().committing) == ({}, ())


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("SELECT 1", {"orders": 3}),
        ('DROP DATABASE IF EXISTS "own_1" WITH (FORCE)', {"orders": 1}),
        ("alter database own_1 rename to template_1", {"orders": 1}),
        ("ALTER DATABASE own_1 SET jit = off", {"orders": 3}),
    ],
)
def test_rows_in_a_database_that_is_gone_are_in_nobodys_way(sql, left):
    tests = TestRun()
    tests.committed("postgresql+asyncpg://postgres:***@127.0.0.1/own_1?ssl=disable", {"orders": 2})
    tests.committed("postgresql+asyncpg://postgres:***@127.0.0.1/shared", {"orders": 1})

    tests.gone(database_gone(sql) or "")

    assert tests.facts().rows_left == left
