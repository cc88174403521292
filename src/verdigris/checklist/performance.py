"""Section 10: what keeps queries fast, and shows when they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.judgement import Judgement, Kind, Population, Proof, Severity
from verdigris.evidence.source.engine.engines import Engine
from verdigris.evidence.source.models.edits import indexed
from verdigris.evidence.source.statements.filters import Sought
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

SMALL = 1_000  # rows: below this PostgreSQL reads the whole table as fast as an index, and nothing is advised
LARGE = 10_000  # rows: from here on a missing index is an error
DATABASE = "verdigris.Database"


class Indexed(Box[Sought]):
    """10.1."""

    name = "performance/indexed"
    holds = "Columns by which rows are found are indexed, foreign keys first"
    fails = "A column by which rows are found has no index"
    consequence = (
        "Each lookup reads the whole table, and deleting a parent scans and locks its children: PostgreSQL indexes "
        "primary keys and unique constraints by itself, foreign keys never."
    )

    def subjects(self, evidence: Evidence) -> Population[Sought]:
        """Name the foreign keys and the filtered columns; MySQL indexes foreign keys by itself."""
        if evidence.source.on_mysql:
            return evidence.source.sought_columns.where(lambda sought: not sought.foreign_key)
        return evidence.source.sought_columns

    def judge(self, subject: Sought, evidence: Evidence) -> Judgement:
        """Believe the live catalogue first, then models and migrations."""
        live = evidence.indexed(subject.table, subject.column.column_name)
        if live is not None:
            return self._live(subject, evidence, indexed=live)
        served = evidence.source.filters.served(subject.model, subject.column)
        if served is not None:
            return subject.proof(f"an index begins with it: {served}")
        index = subject.column.option("index")
        if isinstance(index, Unknown):
            return subject.doubt(f"whether {subject.key} is indexed is not settled: {index.reason}")
        promised = evidence.source.filters.promised(subject.model, subject.column)
        if promised is not None:
            return subject.proof(promised)
        partial = evidence.source.filters.partly(subject.model, subject.column)
        apart = f", apart from one of the rows where {partial.where} ({partial.place})" if partial is not None else ""
        if subject.foreign_key:
            return self._finding(subject, "foreign-key", f"is a foreign key without an index{apart}", Kind.SOURCE)
        return self._filtered(subject, f"is compared in a where clause and has no index{apart}", Severity.ADVICE)

    def _live(self, subject: Sought, evidence: Evidence, *, indexed: bool) -> Judgement:
        if indexed:
            return subject.proof(
                f"the database has an index on {subject.table} that begins with it", kind=Kind.DATABASE
            )
        if subject.foreign_key:
            text = "is a foreign key without an index in the database"
            return self._finding(subject, "foreign-key", text + _apart(subject, evidence), Kind.DATABASE)
        table = evidence.database.table(subject.table) if evidence.database is not None else None
        rows = table.rows if table is not None and (table.rows or table.analyzed) else None
        size = "size unknown" if rows is None else f"{rows:,} row{'s' * (rows != 1)}"
        if rows is not None and rows < SMALL:
            return subject.proof(
                f"the table has {size}: fewer than {SMALL:,} are read as fast as an index", kind=Kind.DATABASE
            )
        apart = _apart(subject, evidence)
        large = rows is not None and rows >= LARGE and not apart
        text = f"is compared in a where clause and has no index in the database ({size}){apart}"
        return self._filtered(subject, text, Severity.ERROR if large else Severity.ADVICE, Kind.DATABASE)

    def _filtered(self, subject: Sought, text: str, severity: Severity, kind: Kind = Kind.SOURCE) -> Judgement:
        return subject.finding(
            "filtered",
            f"{subject.key} {text}, at {subject.uses[0]}",
            fix=subject.index_form,
            severity=severity,
            kind=kind,
            edits=indexed(subject.column) if severity is Severity.ERROR else (),
            related=tuple((place, "used here") for place in subject.uses[1:4]),
        )

    def _finding(self, subject: Sought, variant: str, text: str, kind: Kind) -> Judgement:
        message = f"{subject.key} {text}"
        return subject.finding(variant, message, fix=subject.index_form, kind=kind, edits=indexed(subject.column))


def _apart(sought: Sought, evidence: Evidence) -> str:
    """Name the live partial index that finds some of the rows by a column."""
    database = evidence.database
    partial = database.partly_indexed(sought.table, sought.column.column_name) if database is not None else None
    return "" if partial is None else f", apart from {partial.name}, of the rows where {partial.predicate}"


class Explained(Box[Engine]):
    """10.2."""

    name = "performance/explained"
    holds = "Slow queries are explained: their plan is known"
    fails = "Slow queries run and nobody sees their plan"
    consequence = "A query that reads a whole table looks like any other until the table has grown."

    def subjects(self, evidence: Evidence) -> Population[Engine]:
        """Name the engines through which queries run."""
        return _serving(evidence)

    def judge(self, subject: Engine, evidence: Evidence) -> Judgement:
        """Ask whether explaining was switched off, then what a run showed; nothing else shows in source."""
        careless = evidence.source.executing_explains
        if careless:
            return subject.finding(
                "executes",
                "`EXPLAIN ANALYZE` of a statement that writes executes it",
                place=careless[0],
                fix="EXPLAIN (GENERIC_PLAN) …   -- or ANALYZE inside a transaction that is rolled back",
            )
        if subject.ours:
            match subject.option("explain_slow"):
                case Known(value) if not value:
                    return subject.finding(
                        "off",
                        "`explain_slow` is off: slow queries leave no plan",
                        fix=subject.with_setting("explain_slow", "True"),
                        edits=subject.setting_edits("explain_slow", "True", safe=False),
                    )
                case Known(_, by):
                    return subject.proof(by or "explain_slow=True")
        explained = evidence.recording.explains if evidence.recording is not None else ()
        if explained:
            return subject.proof(f"{len(explained)} statements were explained in the run", kind=Kind.RECORDING)
        return subject.doubt(
            "source does not show whether slow queries were explained",
            settle='record a run that explains them, or accept: [tool.verdigris.accept] "performance/explained" = "…"',
        )


class PoolMetrics(Box[Engine]):
    """10.3."""

    name = "performance/pool-metrics"
    holds = "The pool's size, use, overflow and waiting are measured"
    fails = "Nothing measures the pool"
    consequence = "The first sign of a pool that is too small is a time-out in front of a customer."

    def subjects(self, evidence: Evidence) -> Population[Engine]:
        """Name the engines whose connections wait in a pool."""
        return evidence.source.engines.where(lambda engine: engine.pooled != Known(value=False))

    def judge(self, subject: Engine, evidence: Evidence) -> Judgement:
        """Look for the library's gauges and their export, then for listeners, instrumentation, gauges of one's own."""
        judged = _watched(subject, evidence, "pool", "pool_metrics", "nothing measures the pool of")
        seen = evidence.source.watchers("exported") or evidence.source.watchers("pool")
        if isinstance(judged, Proof) and subject.ours and not seen:
            return subject.finding(
                "unexported",
                f"the pool of `{subject.short}` is measured, and nothing here exports the figures",
                fix=f'REGISTRY.register(PrometheusCollector({{"main": {subject.database}.queries}}))',
                severity=Severity.ADVICE,
            )
        return judged


class QueryTimes(Box[Engine]):
    """10.4."""

    name = "performance/query-times"
    holds = "Every query's time is recorded, and slow ones are logged with their call site"
    fails = "Nothing records how long queries take"
    consequence = "Which query got slower since the last release is a guess."

    def subjects(self, evidence: Evidence) -> Population[Engine]:
        """Name the engines through which queries run."""
        return _serving(evidence)

    def judge(self, subject: Engine, evidence: Evidence) -> Judgement:
        """Look for the library's timings, then for listeners and instrumentation; echo is no measurement."""
        judged = _watched(subject, evidence, "times", "time_queries", "nothing records query times on")
        echo = subject.option("echo")
        if isinstance(echo, Known) and echo.value is True and not evidence.source.watchers("times"):
            return subject.finding(
                "echo",
                f"`echo=True` on `{subject.short}` prints every statement with its values, and no times",
                fix=subject.with_option("echo", "False"),
            )
        return judged


def _serving(evidence: Evidence) -> Population[Engine]:
    """Leave out the engines of files beside those of servers: what is slow for users is not slow there."""
    engines = evidence.source.engines
    return (
        engines.where(lambda engine: bool(engine.to_servers)) if any(each.to_servers for each in engines) else engines
    )


def _watched(engine: Engine, evidence: Evidence, what: str, option: str, nothing: str) -> Judgement:
    if engine.ours:
        match engine.option(option):
            case Known(value, by) if value:
                return engine.proof(by or f"{option}=True")
            case Known() | Missing():
                return engine.finding(
                    "off",
                    f"`{option}` is off on `{engine.short}`",
                    fix=engine.with_setting(option, "True"),
                    edits=engine.setting_edits(option, "True"),
                )
            case Unknown(reason):
                return engine.doubt(f"whether `{option}` is on is not settled: {reason}")
    found = sorted(evidence.source.watchers(what), key=lambda watcher: watcher.unaimed)
    if found and not found[0].unaimed:
        return engine.proof(f"{found[0].name} at {found[0].place}")
    for seen in evidence.ran(engine):
        listeners = seen.pool_listeners if what == "pool" else seen.query_listeners
        if listeners:
            return engine.proof(f"{listeners[0]} watched in the run", kind=Kind.RECORDING)
    if found:
        return engine.doubt(
            f"{found[0].name} at {found[0].place} names no engine: it misses each that was made before it ran, or by a "
            "`create_async_engine` that was imported before",
            settle=f"name it: instrument(engine={engine.variable or 'engine'}{_SYNC.get(engine.mode, '')})",
        )
    return engine.finding("none", f"{nothing} `{engine.short}`", fix=_instrument(engine))


def _instrument(engine: Engine) -> str:
    """Return what measures an engine, to paste: a Database adopts asyncpg's engines only."""
    name = engine.variable or "engine"
    if engine.mode != "async":
        return f"SQLAlchemyInstrumentor().instrument(engine={name})   # opentelemetry-instrumentation-sqlalchemy"
    library = f"SQLAlchemyInstrumentor().instrument(engine={name}.sync_engine)"
    schemes = {text.scheme for text in engine.urls.drivers(engine.url)} if engine.url is not None else set()
    if all(scheme is None or scheme in _ADOPTED for scheme in schemes):
        return f"Database.from_engine({name})   # or {library}"
    return f"{library}   # opentelemetry-instrumentation-sqlalchemy"


_SYNC = {"async": ".sync_engine"}
_ADOPTED = {"postgresql+asyncpg", "postgresql", "postgres"}
