"""Section 10: how much a table's size and a partial index count, and what is advised to whom."""

from __future__ import annotations

import pytest

from tests.checklist.pages import catalogue
from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Severity
from verdigris.evidence.source import Source

MODELS = """
from sqlalchemy import ForeignKey, Index, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

class Loan(Base):
    __tablename__ = "loans"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    copy_id: Mapped[int]{key}
    __table_args__ = ({args})

def of(copy):
    return select(Loan).where(Loan.copy_id == copy)
"""
KEY = ' = mapped_column(ForeignKey("copies.id"))'
PARTIAL = """Index("one_open", "copy_id", unique=True, postgresql_where=text("state = 'out'")),"""


def conclude(box, folder, text, database=None):
    (folder / "app.py").write_text(text, "utf-8")
    told = None if database is None else catalogue(database)
    return boxes()[f"performance/{box}"][1].conclude(Evidence(Source.read(folder), None, told))


def loans(rows, *indexes):
    return {"tables": [{"name": "loans", "rows": rows, "columns": ["id", "state", "copy_id"]}], "indexes": indexes}


@pytest.mark.parametrize(("rows", "size"), [(1, "1 row"), (999, "999 rows")])
def test_no_index_is_advised_for_a_table_that_is_read_as_fast_without(tmp_path, rows, size):
    outcome = conclude("indexed", tmp_path, MODELS.format(key="", args=""), loans(rows))

    assert outcome.findings == ()
    assert [proof.reason for proof in outcome.proofs] == [
        f"the table has {size}: fewer than 1,000 are read as fast as an index"
    ]


@pytest.mark.parametrize(
    ("rows", "size", "severity"),
    [
        (0, "size unknown", Severity.ADVICE),
        (1_000, "1,000 rows", Severity.ADVICE),
        (10_000, "10,000 rows", Severity.ERROR),
    ],
)
def test_a_larger_table_without_an_index_is_advice_then_an_error(tmp_path, rows, size, severity):
    (finding,) = conclude("indexed", tmp_path, MODELS.format(key="", args=""), loans(rows)).findings

    assert f"({size})" in finding.message
    assert finding.severity is severity


@pytest.mark.parametrize("columns", [["copy_id"], ["id"]])
def test_a_partial_index_in_the_database_is_named_and_makes_it_advice(tmp_path, columns):
    partial = {"name": "one_open", "table": "loans", "columns": columns, "predicate": "(copy_id > 7)"}

    (finding,) = conclude("indexed", tmp_path, MODELS.format(key="", args=""), loans(20_000, partial)).findings

    assert "apart from one_open, of the rows where (copy_id > 7)" in finding.message
    assert finding.severity is Severity.ADVICE


def test_a_partial_index_in_the_source_does_not_serve_a_foreign_key(tmp_path):
    (finding,) = conclude("indexed", tmp_path, MODELS.format(key=KEY, args=PARTIAL)).findings

    assert finding.severity is Severity.ERROR
    assert "apart from one of the rows where state = 'out' (app.py:12)" in finding.message


def test_a_partial_index_serves_what_compares_all_of_it(tmp_path):
    text = MODELS.format(key="", args=PARTIAL).replace(
        "Loan.copy_id == copy", 'Loan.copy_id == copy, Loan.state == "out"'
    )

    outcome = conclude("indexed", tmp_path, text)

    assert (outcome.findings, outcome.doubts) == ((), ())


def test_a_foreign_key_that_the_base_indexes_serves_what_is_compared_with_it(tmp_path):
    text = MODELS.format(key=KEY, args="").replace("Loan.copy_id == copy", 'Loan.copy_id == copy, Loan.state == "out"')
    ours = text.replace("class Base(DeclarativeBase): ...", "from verdigris import Base")

    assert conclude("indexed", tmp_path, ours).findings == ()


@pytest.mark.parametrize("where", ["text('copy_id IS NOT NULL')", "copy_id.is_not(None)"])
def test_a_partial_index_that_leaves_out_nulls_serves(tmp_path, where):
    args = f'Index("some", "copy_id", postgresql_where={where}),'

    assert conclude("indexed", tmp_path, MODELS.format(key=KEY, args=args)).findings == ()


@pytest.mark.parametrize(
    "made",
    [
        'op.create_index("one_open", "loans", ["copy_id"], postgresql_where=sa.text("state = 1"))',
        'op.execute("CREATE UNIQUE INDEX one_open ON loans (copy_id) WHERE state = 1; SELECT 1")',
        'with op.batch_alter_table("loans") as t: t.create_index("i", ["copy_id"], postgresql_where="state = 1")',
    ],
)
def test_a_migrations_partial_index_does_not_serve_either(tmp_path, made):
    (tmp_path / "alembic" / "versions").mkdir(parents=True)
    text = f"import sqlalchemy as sa\nfrom alembic import op\n\ndef upgrade():\n    {made}\n"
    (tmp_path / "alembic" / "versions" / "1.py").write_text(text, "utf-8")

    (finding,) = conclude("indexed", tmp_path, MODELS.format(key=KEY, args="")).findings

    assert "of the rows where state = 1" in finding.message


@pytest.mark.parametrize(
    ("made", "advised"),
    [
        ("create_async_engine('postgresql+asyncpg://localhost/shop')", "Database.from_engine(reports)"),
        ("create_async_engine(url)", "Database.from_engine(reports)"),
        (
            "create_async_engine('sqlite+aiosqlite:///x')",
            "SQLAlchemyInstrumentor().instrument(engine=reports.sync_engine)",
        ),
        ("create_engine('sqlite:///x')", "SQLAlchemyInstrumentor().instrument(engine=reports)"),
        ("create_engine('postgresql://localhost/shop')", "SQLAlchemyInstrumentor().instrument(engine=reports)"),
    ],
)
def test_what_measures_an_engine_is_advised_by_its_kind_and_name(tmp_path, made, advised):
    text = (
        "from config import url\nfrom sqlalchemy import create_engine\n"
        f"from sqlalchemy.ext.asyncio import create_async_engine\n\nreports = {made}\n"
    )

    (finding,) = conclude("query-times", tmp_path, text).findings

    assert finding.fix is not None
    assert finding.fix.startswith(advised)
    assert ("from_engine" in finding.fix) is ("from_engine" in advised)


ENGINE = """
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
"""


@pytest.mark.parametrize(
    ("instrumented", "verdict"),
    [
        ("SQLAlchemyInstrumentor().instrument()", (1, 0)),
        ("SQLAlchemyInstrumentor().instrument(tracer_provider=None)", (1, 0)),
        ("SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine)", (0, 0)),
        ("SQLAlchemyInstrumentor().instrument(**options)", (0, 0)),
    ],
)
@pytest.mark.parametrize("box", ["pool-metrics", "query-times"])
def test_an_instrumentation_that_names_no_engine_leaves_it_open_which_it_reaches(tmp_path, box, instrumented, verdict):
    library = "from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor\n"

    outcome = conclude(box, tmp_path, f"{ENGINE}{library}\ndef start(options):\n    {instrumented}\n")

    assert (len(outcome.doubts), len(outcome.findings)) == verdict
    assert all(doubt.settle == "name it: instrument(engine=engine.sync_engine)" for doubt in outcome.doubts)


@pytest.mark.parametrize(
    ("options", "findings"),
    [
        ("dsn=dsn", 1),
        ("dsn=dsn, traces_sample_rate=0.0", 1),
        ("dsn=dsn, integrations=[SqlalchemyIntegration()]", 1),
        ("dsn=dsn, traces_sample_rate=0.1", 0),
        ("dsn=dsn, traces_sampler=dsn.sampled", 0),
        ("**dsn", 0),
    ],
)
def test_sentry_records_query_times_where_it_traces(tmp_path, options, findings):
    sentry = (
        "import sentry_sdk\nfrom sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration\n"
        f"\ndef start(dsn):\n    sentry_sdk.init({options})\n"
    )

    outcome = conclude("query-times", tmp_path, ENGINE + sentry)

    assert len(outcome.findings) == findings


@pytest.mark.parametrize(
    ("name", "body", "findings"),
    [
        ("connect", 'connection.cursor().execute("PRAGMA foreign_keys=ON")', 1),
        ("connect", "connection.run_async(register)", 1),
        ("checkout", 'connection.cursor().execute("RESET search_path")', 1),
        ("checkout", "in_use.inc()", 0),
    ],
)
def test_a_listener_that_prepares_a_connection_does_not_measure_the_pool(tmp_path, name, body, findings):
    listener = f'\n@event.listens_for(engine.sync_engine, "{name}")\ndef listener(connection, *_):\n    {body}\n'

    outcome = conclude("pool-metrics", tmp_path, ENGINE + listener)

    assert len(outcome.findings) == findings


def test_the_engine_of_a_file_beside_a_servers_is_not_asked_for_the_times_of_its_queries(tmp_path):
    text = """
from sqlalchemy.ext.asyncio import create_async_engine

def made(url: str):
    if url.startswith("sqlite"):
        return create_async_engine(url, echo_pool=True)
    return create_async_engine(url)
"""
    alone = 'from sqlalchemy.ext.asyncio import create_async_engine\nfile = create_async_engine("sqlite+aiosqlite:///x.db")\n'

    assert [each.place.line for each in conclude("query-times", tmp_path, text).findings] == [7]
    assert [each.place.line for each in conclude("query-times", tmp_path, alone).findings] == [2]
