"""What the library promises by construction: data for the checker, each promise with its opt-out and its proof.

A box never holds because a name comes from `verdigris`. It holds because one of these guarantees covers the subject
and the code does not use the opt-out; the named test runs the guarantee against a real server. What no box asks for is
not declared here: docs/security.md (verified TLS) and docs/faults.md (cleared session state) name its tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One promise: `symbol` called without the opt-out behaves as if `option` were `value`."""

    symbol: str
    option: str
    value: Any
    boxes: tuple[str, ...]
    promise: str
    opt_out: str
    proved_by: str

    @property
    def reason(self) -> str:
        """The sentence a proof quotes."""
        return f"{self.symbol} {self.promise}"


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "verdigris.Database",
        "pool_pre_ping",
        True,
        ("engine/pre-ping",),
        "validates a connection before handing it out",
        "pool_pre_ping=False",
        "tests/library/engine/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "pool_pre_ping",
        True,
        ("engine/pre-ping",),
        "turns pre-ping on for the engine it is given",
        "another poolclass on the engine",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_gets_the_guards_and_keeps_its_settings",
    ),
    Guarantee(
        "verdigris.Database",
        "driver",
        "postgresql+asyncpg",
        ("engine/async-driver",),
        "reads postgres:// and postgresql:// as postgresql+asyncpg:// and refuses every other driver",
        "none: another driver is refused at construction",
        "tests/library/engine/test_engine.py::test_every_spelling_of_postgresql_becomes_asyncpg",
    ),
    Guarantee(
        "verdigris.Database",
        "pgbouncer",
        "found out",
        ("engine/async-driver",),
        "keeps no statement prepared, which it finds out by itself",
        "pgbouncer=False",
        "tests/faults/test_pooler.py::test_pgbouncer_works_out_of_the_box_said_or_not",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_size",
        "half of the server, shared by the workers",
        ("engine/pool-size",),
        "sizes its pool at start, by the number of workers, to half of what the server gives",
        "pool_size=N",
        "tests/library/engine/test_engine.py::test_the_pool_is_a_workers_share_of_half_the_connections",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_timeout",
        3.0,
        ("engine/pool-size",),
        "lets a request wait 3 s for a connection, then answers 503",
        "pool_timeout=SECONDS",
        "tests/library/engine/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_recycle",
        1800,
        ("engine/recycle",),
        "replaces each connection after half an hour, jittered",
        "pool_recycle=-1",
        "tests/library/engine/test_engine.py::test_connections_do_not_expire_in_one_moment",
    ),
    Guarantee(
        "verdigris.Database",
        "session",
        "async_sessionmaker",
        ("session/async-sessionmaker",),
        "has one async_sessionmaker as its attribute session",
        "a factory of your own on db.engine",
        "tests/library/engine/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database",
        "expire_on_commit",
        False,
        ("session/expire-on-commit",),
        "keeps objects readable after commit",
        "expire_on_commit=True",
        "tests/library/session/test_session.py::test_attributes_stay_readable_after_commit",
    ),
    Guarantee(
        "verdigris.Database",
        "autoflush",
        True,
        ("session/autoflush",),
        "flushes before each query, as SQLAlchemy does",
        "autoflush=False",
        "tests/library/engine/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database",
        "unflushed",
        "refused",
        ("session/autoflush",),
        "refuses, with autoflush off, every statement that would miss or drop what was not flushed",
        "a session_class of your own",
        "tests/library/session/test_session.py::test_without_autoflush_a_refresh_drops_nothing",
    ),
    Guarantee(
        "verdigris.load",
        "collections",
        "selectin",
        ("loading/selectin-collections",),
        "loads every collection by selectinload",
        "a loader option of your own for the same relationship",
        "tests/library/loading/test_loading.py::test_collections_are_selected_and_single_relationships_joined",
    ),
    Guarantee(
        "verdigris.load",
        "singles",
        "joined",
        ("loading/joined-single",),
        "joins single objects, by an outer join where there may be none",
        "a loader option of your own for the same relationship",
        "tests/library/loading/test_loading.py::test_collections_are_selected_and_single_relationships_joined",
    ),
    Guarantee(
        "verdigris.load",
        "needed",
        "loaded",
        ("loading/all-loaded",),
        "loads every relationship that the response model reads",
        "a loader option of your own for the same relationship",
        "tests/library/loading/test_loading.py::test_a_page_of_orders_takes_two_statements_and_serialises",
    ),
    Guarantee(
        "verdigris.Database.json",
        "needed",
        "loaded",
        ("loading/all-loaded",),
        "reads everything that its response model names, in one statement or through load()",
        "a loader option of your own on its statement",
        "tests/library/loading/json/test_read.py::test_whatever_the_statement_the_answer_is_the_one_of_pydantic",
    ),
    Guarantee(
        "verdigris.Base",
        "lazy",
        "raise_on_sql",
        ("models/explicit-lazy", "models/lazy-raise"),
        "makes a relationship that names no strategy raise instead of loading",
        'lazy=True, any other strategy, or __unnamed_lazy__ = "off"',
        "tests/library/test_models.py::test_a_relationship_that_names_no_lazy_raises_on_sql",
    ),
    Guarantee(
        "verdigris.Base",
        "index",
        True,
        ("performance/indexed",),
        "indexes every foreign key that nothing else leads with",
        "mapped_column(..., index=False)",
        "tests/library/test_models.py::test_a_foreign_key_is_indexed",
    ),
    Guarantee(
        "verdigris.Database",
        "guard_tasks",
        True,
        ("concurrency/session-per-task",),
        "refuses the second task that enters a session",
        "guard_tasks=False",
        "tests/library/session/test_session.py::test_two_tasks_in_one_session_get_an_error_that_names_both",
    ),
    Guarantee(
        "verdigris.Database.request_session",
        "commit",
        True,
        ("fastapi/commit-or-rollback",),
        "commits before the response leaves, and rolls back on any error",
        "a session of your own",
        "tests/library/fastapi/test_fastapi.py::test_the_transaction_is_committed_before_the_response_leaves_on_every_router",
    ),
    Guarantee(
        "verdigris.Database.request_session",
        "opens",
        True,
        ("fastapi/async-with",),
        "opens the session in a context that closes it, also when the request fails",
        "a dependency of your own",
        "tests/library/fastapi/test_fastapi.py::test_a_failing_handler_rolls_back_and_returns_its_connection",
    ),
    Guarantee(
        "verdigris.Database.request_session",
        "yields",
        True,
        ("fastapi/yielded",),
        "yields the session and ends with the request, cancelled ones too",
        "a dependency of your own",
        "tests/library/fastapi/test_fastapi.py::test_a_cancelled_request_rolls_back_and_returns_its_connection",
    ),
    Guarantee(
        "verdigris.Database.request_session",
        "closed",
        True,
        ("fastapi/closed",),
        "closes the session for good before the answer leaves; what uses it later gets an error",
        "close_resets_only=True",
        "tests/library/fastapi/test_fastapi.py::test_without_the_route_class_the_error_comes_at_the_first_use_and_nothing_leaks",
    ),
    Guarantee(
        "verdigris.fastapi.install",
        "errors",
        True,
        ("errors/handled",),
        "answers every database error by its SQLSTATE: 409, 422, 503 with Retry-After, never the SQL",
        "errors=False",
        "tests/library/fastapi/test_fastapi.py::test_a_database_error_becomes_a_problem_without_sql_or_values",
    ),
    Guarantee(
        "verdigris.Database",
        "guard_commit",
        True,
        ("errors/rollback-then-raise",),
        "refuses to commit a transaction that an error has ended",
        "guard_commit=False",
        "tests/library/session/test_session.py::test_a_commit_after_a_swallowed_error_is_refused_and_names_the_cause",
    ),
    Guarantee(
        "verdigris.Database",
        "connect_timeout",
        5.0,
        ("errors/connection-errors",),
        "gives up connecting after 5 s",
        "connect_timeout=None",
        "tests/library/engine/test_engine.py::test_connecting_to_a_black_hole_ends",
    ),
    Guarantee(
        "verdigris.Database",
        "command_timeout",
        60.0,
        ("errors/connection-errors",),
        "gives up connecting after 5 s, a statement after 60 s, and waiting for a connection after 3 s",
        "command_timeout=None",
        "tests/library/engine/test_engine.py::test_a_statement_into_a_black_hole_ends_with_an_error_of_its_own",
    ),
    Guarantee(
        "verdigris.Database",
        "retry",
        True,
        ("errors/retry-transient",),
        "repeats units of work (transaction, transactional) as a whole, where that is safe, within a budget",
        "retry=False",
        "tests/library/test_concurrency.py::test_a_conflict_repeats_the_whole_unit_from_a_fresh_session",
    ),
    Guarantee(
        "verdigris.pytest_plugin",
        "test_database",
        True,
        ("testing/test-database",),
        "boots a PostgreSQL of the tests' own, or takes a URL whose database is named or marked as one for tests",
        "an engine of your own in the tests",
        "tests/library/test_testing.py::test_a_url_of_a_database_that_is_no_test_database_stops_the_tests",
    ),
    Guarantee(
        "verdigris.pytest_plugin",
        "rolled_back",
        True,
        ("testing/rolled-back",),
        "undoes what a test committed (verdigris_sandbox), or drops its database (verdigris_database)",
        "a session of your own in the tests",
        "tests/library/test_testing.py::test_nothing_is_left_when_the_sandbox_ends",
    ),
    Guarantee(
        "verdigris.pytest_plugin",
        "isolated",
        True,
        ("testing/isolated",),
        "gives each xdist worker a copy of the template database, and each test its own transaction or database",
        "a fixture of a wider scope that writes",
        "tests/library/test_testing.py::test_workers_share_one_server_and_have_a_database_each",
    ),
    Guarantee(
        "verdigris.bulk.insert",
        "chunks",
        True,
        ("bulk/chunked",),
        "sends rows in chunks, whatever it is given",
        "chunk=N above what you need",
        "tests/library/test_bulk.py::test_wide_rows_go_in_smaller_chunks",
    ),
    Guarantee(
        "verdigris.bulk.insert",
        "objects",
        None,
        ("bulk/flush-between",),
        "builds no objects that a session could keep",
        "session.add_all()",
        "tests/library/test_bulk.py::test_memory_does_not_grow_with_the_number_of_rows",
    ),
    Guarantee(
        "verdigris.bulk.insert",
        "tuned",
        True,
        ("bulk/batch-tuned",),
        "tunes its chunks by rows a second while it runs",
        "chunk=N",
        "tests/library/test_bulk.py::test_the_size_grows_while_that_pays",
    ),
    Guarantee(
        "verdigris.Database",
        "explain_slow",
        True,
        ("performance/explained",),
        "explains slow queries by itself",
        "explain_slow=False",
        "tests/library/test_performance.py::test_a_slow_read_is_explained_without_being_run_again",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_metrics",
        True,
        ("performance/pool-metrics",),
        "measures the pool: size, use, overflow, waiting",
        "pool_metrics=False",
        "tests/library/test_performance.py::test_the_pools_figures_say_who_is_in_and_who_waits",
    ),
    Guarantee(
        "verdigris.Database",
        "time_queries",
        True,
        ("performance/query-times",),
        "times every query by fingerprint and call site, and logs slow ones",
        "time_queries=False",
        "tests/library/test_performance.py::test_a_query_is_counted_and_timed_under_its_fingerprint_and_place",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "connect_timeout",
        5.0,
        ("errors/connection-errors",),
        "gives up connecting after 5 s",
        "connect_timeout=None",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "command_timeout",
        60.0,
        ("errors/connection-errors",),
        "gives up connecting after 5 s, and a statement after 60 s",
        "command_timeout=None",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "retry",
        True,
        ("errors/retry-transient",),
        "repeats whole units of work (db.transaction)",
        "retry=False",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "pool_metrics",
        True,
        ("performance/pool-metrics",),
        "measures the pool: size, use, overflow, waiting",
        "pool_metrics=False",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "time_queries",
        True,
        ("performance/query-times",),
        "times every query by fingerprint and call site, and logs slow ones",
        "time_queries=False",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "explain_slow",
        True,
        ("performance/explained",),
        "explains the reads that were slow",
        "explain_slow=False",
        "tests/library/engine/test_engine.py::test_a_teams_own_engine_is_bounded_measured_and_repeats_its_units",
    ),
)


def guaranteed(symbol: str, option: str) -> Guarantee | None:
    """Find the promise about an option of a symbol of the library."""
    for guarantee in GUARANTEES:
        if guarantee.symbol == symbol and guarantee.option == option:
            return guarantee
    return None
