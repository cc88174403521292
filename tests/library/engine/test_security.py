"""What a service must not tell: passwords in frames and logs, data to whoever sits on the wire."""

import asyncio
import gc
import shutil
import subprocess
import tempfile
import traceback
from pathlib import Path

import pytest
from sqlalchemy import exc, text
from sqlalchemy.engine import make_url

from verdigris import Database, embedded
from verdigris.embedded.account import server_account
from verdigris.engine.tls import is_local
from verdigris.errors import ConfigurationError, DatabaseUnavailableError

SECRET = "s3cr3t-p4ssw0rd"
ELSEWHERE = "0.0.0.0"


# -- TLS -----------------------------------------------------------------------------------------------------------


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates():
    """An authority that nobody knows, and a certificate of its for one address."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    with tempfile.TemporaryDirectory(prefix="verdigris-certificates-") as made:
        place = Path(made)
        place.chmod(0o711)  # as root the server runs under another account, which has to come through
        request = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
        openssl(*request, "-x509", "-subj", "/CN=authority", "-keyout", place / "ca.key", "-out", place / "ca.pem")
        openssl(*request, "-x509", "-subj", "/CN=another", "-keyout", place / "other.key", "-out", place / "other.pem")
        openssl(*request, "-subj", "/CN=database", "-keyout", place / "server.key", "-out", place / "server.csr")
        (place / "names").write_text(f"subjectAltName=IP:{ELSEWHERE}")
        signed = ("-CA", place / "ca.pem", "-CAkey", place / "ca.key", "-days", "2", "-extfile", place / "names")
        openssl("x509", "-req", "-in", place / "server.csr", *signed, "-out", place / "server.pem")
        for name in ("server.key", "server.pem"):
            (place / name).chmod(0o600)
            server_account().own(place / name)
        yield place


@pytest.fixture(scope="module")
def secured(certificates):
    """A server that offers TLS, which the one from the wheel does not."""
    settings = {"ssl": True, "ssl_cert_file": certificates / "server.pem", "ssl_key_file": certificates / "server.key"}
    try:
        with embedded.server(durable=False, settings=settings, provider=embedded.Machine()) as running:
            yield running
    except embedded.EmbeddedError as reason:
        pytest.skip(f"no server with TLS is installed on this machine: {reason.what}")


def url_of(server, host, query=""):
    return make_url(server.url).set(host=host).render_as_string(hide_password=False) + query


async def encrypted(url):
    """Connect, and tell whether the connection is encrypted."""
    db = Database(url)
    try:
        async with db.session() as session:
            return await session.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await db.dispose()


async def test_another_machine_is_verified_without_being_asked(secured):
    with pytest.raises(ConfigurationError, match="certificate was not accepted") as refused:
        await encrypted(url_of(secured, ELSEWHERE))

    assert "?sslmode=verify-full&sslrootcert=" in str(refused.value)
    assert "?sslmode=require" in str(refused.value)


async def test_a_known_authority_is_all_it_takes(secured, certificates, monkeypatch):
    assert await encrypted(url_of(secured, ELSEWHERE, f"?sslrootcert={certificates / 'ca.pem'}"))
    monkeypatch.setenv("PGSSLROOTCERT", str(certificates / "ca.pem"))
    assert await encrypted(url_of(secured, ELSEWHERE))


async def test_another_authority_or_another_name_is_refused(secured, certificates):
    for host, authority in ((ELSEWHERE, "other.pem"), ("localhost", "ca.pem")):
        with pytest.raises(ConfigurationError, match="certificate was not accepted"):
            await encrypted(url_of(secured, host, f"?sslmode=verify-full&sslrootcert={certificates / authority}"))


async def test_begin_goes_with_the_first_statement_over_tls_too(secured):
    db = Database(url_of(secured, ELSEWHERE, "?sslmode=require"), pool_size=1, max_overflow=0)
    add = text("INSERT INTO sealed VALUES (CAST(:id AS int))")
    async with db.session.begin() as session:
        await session.execute(text("CREATE TABLE sealed (id int)"))
    for values in ({"id": 1}, [{"id": 2}, {"id": 3}]):
        for _ in range(3):
            async with db.session() as session:
                await (await session.connection()).execute(add, values)
                await session.rollback()
    async with db.session() as session:
        assert await session.scalar(text("SELECT count(*) FROM sealed")) == 0
    await db.dispose()


async def test_whoever_says_how_gets_it_so(secured, monkeypatch):
    assert await encrypted(url_of(secured, ELSEWHERE, "?sslmode=require"))
    assert not await encrypted(url_of(secured, ELSEWHERE, "?sslmode=disable"))
    monkeypatch.setenv("PGSSLMODE", "require")
    assert await encrypted(url_of(secured, ELSEWHERE))


async def test_this_machine_needs_no_certificate(secured, postgres):
    assert await encrypted(url_of(secured, "127.0.0.1"))  # TLS where it is offered, as asyncpg does
    assert not await encrypted(url_of(postgres, "127.0.0.1"))


async def test_a_server_without_tls_is_refused_with_the_edit_when_the_application_starts(postgres):
    db = Database(url_of(postgres, ELSEWHERE))

    with pytest.raises(ConfigurationError, match="does not offer TLS") as refused:
        await db.start()

    assert "?sslmode=disable" in str(refused.value)
    await db.dispose()


LOCAL = ["", "localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "/run/postgresql", "@abstract"]


def test_what_counts_as_this_machine():
    assert all(map(is_local, LOCAL))
    assert not any(map(is_local, ["db", "10.0.0.1", "localhost.example.com", "2001:db8::1", ELSEWHERE]))


# -- passwords -----------------------------------------------------------------------------------------------------


def holds_secret(value, depth=4):
    """Tell whether a tracker of errors, which walks containers and takes the repr of objects, would find the secret."""
    if isinstance(value, str | bytes):
        return SECRET in str(value)
    if depth and isinstance(value, dict):
        return any(holds_secret(part, depth - 1) for pair in value.items() for part in pair)
    if depth and isinstance(value, list | tuple | set | frozenset):
        return any(holds_secret(part, depth - 1) for part in value)
    try:
        return SECRET in repr(value)
    except Exception:  # noqa: BLE001 - half-made objects have no repr
        return False


def frames_with_secret(error):
    """Return the frames of an exception and all that led to it, our test's own left out, that hold the secret."""
    found, todo, seen = [], [error], set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        for frame, line in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename != __file__ and any(map(holds_secret, frame.f_locals.values())):
                found.append(f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}")
    return found


async def failure(db):
    try:
        async with db.session() as session:
            await session.execute(text("SELECT 1"))
    except Exception as error:  # noqa: BLE001 - looked at
        return error
    finally:
        await db.dispose()
    raise AssertionError("it connected")


@pytest.mark.parametrize("option", [{"statment_timeout": 5}, {"workers": 0}])
def test_an_option_that_is_refused_leaves_no_password_in_its_frames(option):
    with pytest.raises(ConfigurationError) as refused:
        Database(f"postgresql://app:{SECRET}@127.0.0.1:1/shop", **option)

    assert frames_with_secret(refused.value) == []
    assert SECRET not in "".join(traceback.format_exception(refused.value))


async def test_a_refused_connection_leaves_no_password_in_its_frames():
    error = await failure(Database(f"postgresql://app:{SECRET}@127.0.0.1:1/shop"))

    assert isinstance(error, DatabaseUnavailableError)
    assert frames_with_secret(error) == []
    assert SECRET not in "".join(traceback.format_exception(error))


async def test_a_refused_password_leaves_no_password_in_its_frames(postgres):
    url = make_url(postgres.url).set(password=SECRET)

    error = await failure(Database(url))

    assert "password authentication failed" in str(error)
    assert frames_with_secret(error) == []


async def test_a_refused_certificate_leaves_no_password_in_its_frames(secured):
    url = make_url(secured.url).set(password=SECRET, host=ELSEWHERE)

    assert frames_with_secret(await failure(Database(url))) == []


async def test_a_server_that_stops_answering_leaves_no_password_in_its_frames(monkeypatch):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://app:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/shop"
        error = await failure(Database(url, connect_timeout=0.3))

    assert "no answer in time" in str(error)
    assert frames_with_secret(error) == []


@pytest.mark.parametrize(
    "url", [f"postgresql://app:{SECRET}@db:port/x", f"postgresql://app:{SECRET}@db/x?keepalives=1"]
)
def test_a_refused_url_leaves_no_password_in_its_frames(url):
    with pytest.raises(ConfigurationError) as refused:
        Database(url)

    assert frames_with_secret(refused.value) == []
    assert SECRET not in str(refused.value)


async def test_the_plain_engine_does_leave_it():
    """The walk finds what there is to find."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"postgresql+asyncpg://app:{SECRET}@127.0.0.1:1/shop")
    with pytest.raises((OSError, exc.DBAPIError)) as refused:
        async with engine.connect():
            pass

    assert frames_with_secret(refused.value)
    await engine.dispose()


def test_the_password_still_reaches_tools_that_need_the_url():
    db = Database(f"postgresql://app:{SECRET}@db.example/shop")

    assert db.url.render_as_string(hide_password=False).count(SECRET) == 1
    assert SECRET not in repr(db) + repr(db.engine) + str(db.url)


async def test_slow_queries_are_logged_without_their_values(database_url, caplog):
    db = Database(database_url, slow_query=0.0)
    async with db.session() as session:
        await session.execute(text(f"SELECT '{SECRET}', :value"), {"value": SECRET})
        await session.execute(text("SELECT CAST(:value AS text)"), {"value": SECRET})
    await db.dispose()

    assert "slow query" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_an_event_loop_that_is_closed_leaves_no_encrypted_connection_open(secured):
    db = Database(url_of(secured, ELSEWHERE, "?sslmode=require"))
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

    async def others(db):
        async with db.session() as session:
            await session.execute(text("SELECT 1"))
            await asyncio.sleep(0.1)  # the server's time to see who is gone
            return await session.scalar(text(count))

    seen = [asyncio.run(others(db)) for _ in range(3)]
    asyncio.run(db.dispose())
    del db
    gc.collect()

    assert len(set(seen)) == 1
