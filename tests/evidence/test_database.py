"""The live catalogue: what it says, that nothing is changed by asking, and that a password is never told."""

from __future__ import annotations

import asyncio
import socket

import asyncpg
import pytest

from verdigris.evidence.database import DatabaseUnreachableError, inspect

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
DROP SCHEMA IF EXISTS catalogue, elsewhere CASCADE; CREATE SCHEMA catalogue; CREATE SCHEMA elsewhere;
CREATE TABLE catalogue.a (id serial PRIMARY KEY, name text UNIQUE, other text);
CREATE TABLE catalogue.b (id serial PRIMARY KEY, a_id int REFERENCES catalogue.a ON DELETE CASCADE,
  "Other A" int REFERENCES catalogue.a, some_a int REFERENCES catalogue.a, x int, y int, z int);
CREATE INDEX b_nn ON catalogue.b ("Other A") WHERE "Other A" IS NOT NULL;
CREATE INDEX b_some ON catalogue.b (some_a) WHERE x > 3;
CREATE INDEX b_xy ON catalogue.b (x, y) INCLUDE (z); CREATE INDEX b_xy_too ON catalogue.b (x, y) INCLUDE (z);
CREATE INDEX b_yx ON catalogue.b (y, x); CREATE INDEX a_lower ON catalogue.a (lower(other));
CREATE INDEX a_brin ON catalogue.a USING brin (other);
CREATE TABLE elsewhere.a (id int PRIMARY KEY, b_id int REFERENCES catalogue.b);
CREATE INDEX elsewhere_b ON elsewhere.a (b_id, id);
INSERT INTO catalogue.a (name) SELECT n::text FROM generate_series(1, 500) AS n; ANALYZE catalogue.a;
"""


def execute(url, sql):
    async def run():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return (
                await connection.fetch(sql)
                if sql.lstrip().upper().startswith("SELECT")
                else await connection.execute(sql)
            )
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def url(postgres):
    execute(str(postgres.url), SCHEMA)
    return str(postgres.url)


@pytest.fixture(scope="module")
def catalogue(url):
    return inspect(url)


def test_the_servers_limits_are_told(catalogue):
    assert catalogue.version.startswith("1")
    assert (catalogue.max_connections, catalogue.superuser_reserved_connections) == (100, 3)
    assert catalogue.connections_usable == 97
    assert catalogue.idle_session_timeout == 0
    assert catalogue.statement_timeout == 0


def test_clients_of_other_databases_are_subtracted_and_the_applications_own_are_not(url):
    async def with_clients():
        dsn = url.replace("+asyncpg", "")
        own = await asyncpg.connect(dsn, server_settings={"application_name": "the app"})
        other = await asyncpg.connect(dsn, database="template1")
        try:
            return await asyncio.to_thread(inspect, url)
        finally:
            await own.close()
            await other.close()

    catalogue = asyncio.run(with_clients())

    assert catalogue.connections_of_others == 1
    assert catalogue.connections_available == 96
    assert "the app" in {client.application_name for client in catalogue.clients}


def test_settings_of_the_user_count(url):
    execute(url, "ALTER ROLE CURRENT_USER SET idle_session_timeout = '90s'")
    try:
        assert inspect(url).idle_session_timeout == 90
    finally:
        execute(url, "ALTER ROLE CURRENT_USER RESET idle_session_timeout")


def test_tables_have_rows_and_columns(catalogue):
    table = catalogue.table("catalogue.a")

    assert table.columns == ("id", "name", "other")
    assert (table.rows, table.analyzed, table.visible) == (500, True, False)
    assert catalogue.table("catalogue.a").rows == 500
    assert catalogue.table("catalogue.none") is None
    assert catalogue.table("a") is None


def test_a_foreign_key_is_supported_only_by_an_index_that_finds_every_row(catalogue):
    keys = {
        (key.schema, key.columns): key for key in catalogue.foreign_keys if key.schema in {"catalogue", "elsewhere"}
    }

    assert keys["catalogue", ("a_id",)].index is None
    assert keys["catalogue", ("a_id",)].on_delete == "CASCADE"
    assert keys["catalogue", ("some_a",)].index is None
    assert keys["catalogue", ("Other A",)].index == "b_nn"
    assert keys["elsewhere", ("b_id",)].index == "elsewhere_b"
    assert keys["elsewhere", ("b_id",)].target == "catalogue.b"


def test_an_invalid_index_supports_nothing(url):
    execute(url, "CREATE INDEX b_a ON catalogue.b (a_id)")
    execute(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'catalogue.b_a'::regclass")
    try:
        catalogue = inspect(url)
        assert ("a_id",) in [key.columns for key in catalogue.unindexed_foreign_keys]
        assert catalogue.indexed("catalogue.b", "a_id") is False
    finally:
        execute(url, "DROP INDEX catalogue.b_a")


def test_a_column_is_indexed_when_an_index_begins_with_it(catalogue):
    assert catalogue.indexed("catalogue.a", "name") is True
    assert catalogue.indexed("catalogue.b", "y") is True
    assert catalogue.indexed("catalogue.b", "z") is False
    assert catalogue.indexed("catalogue.a", "other") is False
    assert catalogue.indexed("catalogue.a", "missing") is None
    assert catalogue.indexed("catalogue.missing", "id") is None


def test_indexes_tell_their_shape(catalogue):
    indexes = {index.name: index for index in catalogue.indexes if index.schema == "catalogue"}

    assert indexes["b_xy"].columns == ("x", "y")
    assert (indexes["a_lower"].columns, indexes["a_lower"].expression) == ((None,), True)
    assert indexes["b_some"].partial
    assert (indexes["a_name_key"].unique, indexes["a_name_key"].constraint) == (True, True)
    assert indexes["a_pkey"].primary


def test_unused_and_duplicate_indexes_are_told(catalogue):
    duplicates = [[index.name for index in group] for group in catalogue.duplicate_indexes]
    unused = {index.name for index in catalogue.unused_indexes}

    assert ["b_xy", "b_xy_too"] in duplicates
    assert not [group for group in duplicates if "b_yx" in group]
    assert "b_yx" in unused
    assert "a_pkey" not in unused


def test_statements_have_the_fingerprint_of_recordings_and_no_values(url):
    execute(url, "SELECT name FROM catalogue.a WHERE id = 4711")

    catalogue = inspect(url)

    assert catalogue.statements_known
    found = [figures for figures in catalogue.statements if figures.text == "SELECT name FROM catalogue.a WHERE id = ?"]
    assert found[0].calls >= 1


def test_asking_changes_nothing(url):
    question = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    tables = "SELECT count(*) AS n FROM pg_class"
    before = execute(url, tables)[0]["n"]

    inspect(url)

    assert execute(url, tables)[0]["n"] == before
    assert execute(url, question)


def test_a_user_who_may_read_little_gets_what_there_is(url):
    execute(url, "DROP ROLE IF EXISTS modest; CREATE ROLE modest LOGIN PASSWORD 'geheim' CONNECTION LIMIT 7")
    try:
        host = url.rpartition("@")[2]
        catalogue = inspect(f"postgresql+asyncpg://modest:geheim@{host}")
        assert catalogue.user == "modest"
        assert catalogue.connections_usable == 7
        assert catalogue.indexed("catalogue.a", "name") is True
    finally:
        execute(url, "DROP ROLE modest")


def test_a_user_from_whom_a_view_was_taken_is_told_what_to_grant(url):
    execute(url, "DROP ROLE IF EXISTS modest; CREATE ROLE modest LOGIN PASSWORD 'geheim'")
    execute(url, "REVOKE SELECT ON pg_catalog.pg_stat_activity FROM PUBLIC")
    try:
        with pytest.raises(DatabaseUnreachableError, match="permission denied for view pg_stat_activity") as caught:
            inspect(f"postgresql://modest:geheim@{url.rpartition('@')[2]}")
    finally:
        execute(url, "GRANT SELECT ON pg_catalog.pg_stat_activity TO PUBLIC; DROP ROLE modest")

    assert "GRANT SELECT ON pg_catalog." in caught.value.do[0]


def test_it_can_be_asked_from_inside_an_event_loop(url):
    async def main():
        return inspect(url)

    assert asyncio.run(main()).database


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+asyncpg://u:geheim@127.0.0.1:1/x", "nothing listens there"),
        ("postgresql://u:geheim@no-host.invalid/x", "host name is not known"),
        ("postgresql://u:geheim@/x?host=/nowhere", "Its socket is not there"),
        ("mysql://u:geheim@h/x", "only PostgreSQL"),
        ("postgresql://u:geheim@h:abc/x", "cannot be read as a URL"),
        ("postgresql://u:geheim@[::1/x", "cannot be read as a URL"),
        ("geheim", "only PostgreSQL"),
    ],
)
def test_a_database_that_cannot_be_asked_is_one_clear_error_without_its_password(url, message):
    with pytest.raises(DatabaseUnreachableError, match=message) as caught:
        inspect(url, timeout=3)

    shown = f"{caught.value}{caught.value!r}{caught.value.__cause__}"
    assert "geheim" not in shown


def test_a_wrong_password_is_not_repeated(url):
    host = url.rpartition("@")[2]

    with pytest.raises(DatabaseUnreachableError, match="28P01") as caught:
        inspect(f"postgresql://postgres:ge%20heim@{host}")

    assert "heim" not in str(caught.value)


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_told():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(DatabaseUnreachableError, match=r"did not answer within 0\.3 s"),
    ):
        inspect(f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/x", timeout=0.3)
