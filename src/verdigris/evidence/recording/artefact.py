"""What a run did: the facts of a recording, as `verdigris record` writes them and the boxes read them.

A recording is one JSON object. Its keys are the fields of `Recording`, and so on inwards; `format` and
`schema_version` say what it is. A field that is absent has its default, a field that is not known is left alone.

A *site* is `path:line` relative to the project's root: the innermost line of the application's own files, which are
those under the root that no installer put there. A site is None when no such file had a part in it. A *route* is
`GET /orders/{id}`: method and path template. Times are milliseconds unless a name says otherwise. No bind value, no
password and no row of data is ever part of a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "verdigris recording"
SCHEMA_VERSION = 1

Site: TypeAlias = str | None
Counts: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Engine:
    """Engines built at one site with the same settings; a pool setting is None where the pool has none."""

    id: str  # the site, with #2, #3 … where one site builds several kinds
    site: Site = None
    created: int = 1
    created_in_requests: int = 0
    disposed: int = 0
    dialect: str = ""
    driver: str = ""
    url: str = ""  # password masked
    database: str = ""
    is_async: bool = False
    pool_class: str = ""
    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float | None = None  # seconds
    pool_recycle: int | None = None  # seconds, -1 for never
    pre_ping: bool | None = None
    isolation_level: str | None = None
    statements: int = 0
    in_event_loop: Counts = field(default_factory=dict)  # statements of a sync driver there, by site
    query_listeners: tuple[str, ...] = ()  # "module:name" of functions that watch statements, ours excluded
    pool_listeners: tuple[str, ...] = ()  # the same for checkouts
    loop_crossings: Counts = field(default_factory=dict)  # checkouts on another event loop than the connect, by site


@dataclass(frozen=True, slots=True)
class Factory:
    """Session factories built at one site: sessionmaker, async_sessionmaker, and scoped registries."""

    id: str
    site: Site = None
    created: int = 1
    created_in_requests: int = 0
    factory_class: str = ""  # "sqlalchemy.ext.asyncio:async_sessionmaker"
    session_class: str = ""
    expire_on_commit: bool = True
    autoflush: bool = True
    close_resets_only: bool = True
    join_transaction_mode: str = "conditional_savepoint"
    engine: str | None = None  # id of an Engine
    scoped: str | None = None  # the scope function's "module:name" of a scoped registry


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions opened at one site; `factory` is None for those built by calling the session class."""

    site: Site = None
    factory: str | None = None
    session_class: str = ""
    is_async: bool = False
    created: int = 0
    used: int = 0  # began a transaction at least once
    closed: int = 0
    abandoned: int = 0  # used, and collected or outlived by its request without close
    reopened: int = 0  # used again after close
    expire_on_commit: bool = True
    autoflush: bool = True
    identity_map_max: int = 0  # objects in the identity map, as seen at flush and close
    commits: int = 0
    rollbacks: int = 0


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two tasks were inside one session at the same time."""

    site: Site = None  # the one that was there
    other_site: Site = None  # the one that came
    operation: str = ""
    other_operation: str = ""
    session_site: Site = None
    count: int = 0
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Requests (and websocket connections) of one route."""

    route: str
    site: Site = None  # the endpoint's definition
    response_model: str | None = None
    count: int = 0
    statuses: Counts = field(default_factory=dict)
    statements: int = 0
    statements_max: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0
    disconnected: int = 0
    # A transaction that had written was still open when the response started; `lost` are those that then failed.
    answered_before_commit: int = 0
    answered_before_commit_sites: Counts = field(default_factory=dict)
    lost_after_answer: int = 0
    # The same for transactions that had only read: they hold a connection while the client reads.
    answered_while_reading: int = 0
    # Connections that were still checked out when the request was over, by the site that took them.
    left_checked_out: int = 0
    left_checked_out_sites: Counts = field(default_factory=dict)
    transactions: int = 0
    writing_transactions: int = 0
    connection_ms: float = 0.0  # with a connection checked out
    statement_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class StatementUse:
    """What one site did with a statement."""

    site: Site = None
    count: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0
    rows: int = 0
    rows_max: int = 0
    errors: int = 0
    routes: Counts = field(default_factory=dict)
    executemany: int = 0
    executemany_rows_max: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, its values taken out."""

    fingerprint: str
    text: str
    kind: str = ""  # SELECT, INSERT, UPDATE, DELETE, EXPLAIN, COPY …
    tables: tuple[str, ...] = ()
    engine: str | None = None
    count: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0
    rows: int = 0
    uses: tuple[StatementUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """One site sent the same SELECT several times within one request, or one task's session.

    `different` counts executions whose parameters no earlier one of the same scope had: a query per row. `same`
    counts repetitions of the very same question. Loads that SQLAlchemy emits for a relationship are LazyLoads.
    """

    fingerprint: str
    site: Site = None
    scope: str = "request"  # or "task"; "test" for a test's own, in which nobody knows whose loop it was
    different: int = 0  # the largest in one scope
    same: int = 0
    scopes: int = 0  # how many scopes repeated it
    route: str | None = None  # an example


@dataclass(frozen=True, slots=True)
class LazyLoad:
    """Attributes that were loaded when they were touched."""

    attribute: str  # "Order.lines"
    kind: str = "relationship"  # or "column": deferred or expired
    uselist: bool | None = None
    site: Site = None  # the line that touched it; None inside a serialiser
    query_site: Site = None  # the line whose query should have loaded it
    would_raise: int = 0  # of these, outside a greenlet on an async engine: MissingGreenlet
    count: int = 0
    max_in_scope: int = 0  # loads in one request or task
    parents: int = 0  # objects that the originating queries loaded in that scope
    phase: str = ""  # handler, serialisation, dependency, after-response, task
    route: str | None = None


@dataclass(frozen=True, slots=True)
class RaiseHit:
    """A read of an attribute that is mapped, or loaded, with raise or raise_on_sql."""

    attribute: str
    lazy: str = "raise_on_sql"
    site: Site = None
    query_site: Site = None
    count: int = 0
    phase: str = ""
    route: str | None = None


@dataclass(frozen=True, slots=True)
class CartesianRows:
    """A query whose rows outnumber the objects they made several times over."""

    fingerprint: str
    site: Site = None
    rows: int = 0
    objects: int = 0
    count: int = 0
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Inserts:
    """INSERTs into one table from one site."""

    table: str
    site: Site = None
    statements: int = 0
    rows: int = 0
    rows_max: int = 0  # in one statement or one driver batch
    single_row_max: int = 0  # single-row statements in one request or task
    seconds: float = 0.0
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of a bulk load."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY … FROM STDIN into one table from one site; `chunks` are the last that were seen, in order."""

    table: str
    site: Site = None
    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    chunks: tuple[Chunk, ...] = ()
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of one engine. A wait is the time from asking to having a connection, less connecting and pinging."""

    engine: str
    checkouts: int = 0
    wait_p50_ms: float = 0.0
    wait_p99_ms: float = 0.0
    wait_max_ms: float = 0.0
    timeouts: int = 0
    high_water: int = 0
    capacity: int | None = None  # size + overflow; None: unlimited
    connects: int = 0
    connect_max_ms: float = 0.0
    pings: int = 0
    invalidated: int = 0
    held_p50_ms: float = 0.0
    held_p99_ms: float = 0.0
    held_max_ms: float = 0.0
    held_total_ms: float = 0.0
    statement_total_ms: float = 0.0  # of the held time, spent in the driver
    max_concurrent_requests: int = 0
    longest_holder: Site = None
    wait_histogram: Counts = field(default_factory=dict)  # upper bound in ms, count
    held_histogram: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatabaseFailure:
    """Errors of one class and code, and what the client was answered."""

    error: str  # the class, as the driver's adapter or SQLAlchemy names it
    sqlstate: str | None = None
    status: int | None = None  # of the response; None outside a request
    count: int = 0
    site: Site = None
    route: str | None = None
    swallowed: int = 0  # a later COMMIT in the same transaction was nevertheless asked for
    retried: int = 0  # the same route or task ran the statement again in a new transaction


@dataclass(frozen=True, slots=True)
class Explain:
    """An EXPLAIN that was run."""

    fingerprint: str  # of the explained statement
    analyze: bool = False
    count: int = 0
    ms: float = 0.0
    plan: str = ""  # its first node, such as "Seq Scan on orders  (cost=0.00..35.50 rows=2550 width=36)"
    site: Site = None


@dataclass(frozen=True, slots=True)
class QueryTimes:
    """Whether anything but this recorder times statements."""

    watchers: tuple[str, ...] = ()  # "module:name" of dialect wrappers and cursor listeners


@dataclass(frozen=True, slots=True)
class Tests:
    """What the test suite did, where the recorded command was one."""

    __test__ = False

    run: int = 0
    failed: int = 0
    names: tuple[str, ...] = ()  # the first hundred
    databases: Counts = field(default_factory=dict)  # masked URL, tests that used it
    committing: tuple[str, ...] = ()  # tests whose own writes were committed for good
    rows_left: Counts = field(default_factory=dict)  # table, rows that tests committed and nothing removed
    cleanups: Counts = field(default_factory=dict)  # TRUNCATE, DROP TABLE, DROP DATABASE … seen
    workers: int = 1
    shuffled: bool = False
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A mapped column as the live mapper has it."""

    name: str  # in the table
    attribute: str = ""
    type: str = ""
    nullable: bool = True
    primary_key: bool = False
    foreign_key: str | None = None  # "customer.id"
    indexed: bool = False  # an index, unique constraint or primary key leads with it
    unique: bool = False
    annotated: bool = False  # Mapped[...] in the class body


@dataclass(frozen=True, slots=True)
class Relationship:
    """A relationship as the live mapper has it; `lazy` is what is in force, named or not."""

    attribute: str  # "Order.lines"
    target: str = ""
    lazy: str = "select"
    uselist: bool | None = None
    direction: str = ""  # ONETOMANY, MANYTOONE, MANYTOMANY
    viewonly: bool = False
    nullable: bool | None = None  # of a to-one's own columns
    backref: bool = False  # made by another's backref=


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the metadata."""

    name: str
    columns: tuple[str, ...] = ()
    unique: bool = False
    partial: bool = False
    expression: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A mapped class that was alive at the end of the run."""

    name: str
    module: str = ""
    path: str | None = None  # its file, relative to the root
    table: str = ""
    base: str = ""  # "module:name" of the declarative base
    columns: tuple[Column, ...] = ()
    relationships: tuple[Relationship, ...] = ()
    indexes: tuple[Index, ...] = ()


@dataclass(frozen=True, slots=True)
class RecorderError:
    """Something the recorder itself could not do; the application never noticed."""

    where: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything one command did with its databases, all its processes taken together."""

    schema_version: int = SCHEMA_VERSION
    verdigris: str = ""
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)  # sqlalchemy, asyncpg, fastapi …
    root: str = ""  # the name of the project's directory
    command: tuple[str, ...] = ()
    exit_code: int | None = None
    started: str = ""  # ISO 8601, UTC
    seconds: float = 0.0
    processes: int = 0  # that recorded something
    truncated: tuple[str, ...] = ()  # facts of which only the most frequent were kept
    engines: tuple[Engine, ...] = ()
    factories: tuple[Factory, ...] = ()
    sessions: tuple[Sessions, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    requests: tuple[Request, ...] = ()
    routes: tuple[str, ...] = ()  # every route the applications offered, exercised or not
    statements: tuple[Statement, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    lazy_loads: tuple[LazyLoad, ...] = ()
    raise_hits: tuple[RaiseHit, ...] = ()
    cartesian: tuple[CartesianRows, ...] = ()
    inserts: tuple[Inserts, ...] = ()
    copies: tuple[Copy, ...] = ()
    pools: tuple[Pool, ...] = ()
    errors: tuple[DatabaseFailure, ...] = ()
    explains: tuple[Explain, ...] = ()
    query_times: QueryTimes = QueryTimes()
    tests: Tests | None = None
    models: tuple[Model, ...] = ()
    recorder_errors: tuple[RecorderError, ...] = ()

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Read a recording; raise ArtefactError when the file is not one that this version can read."""
        from verdigris.evidence.recording.codec import load

        return load(path)

    def save(self, path: Path | str) -> None:
        """Write the recording as one JSON object; the file is replaced in one step, never left half-written."""
        from verdigris.evidence.recording.codec import save

        save(self, path)
