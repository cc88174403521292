"""The pytest plugin of SQLAlchemy's own tests: it puts our classes where the tests will import theirs from.

In the mode `orm` the tests are synchronous, and SQLAlchemy runs each in a greenlet over asyncpg; so a session's plain
select() can be handed to LeanReads from inside, and awaited. A lean read needs a statement that SQLAlchemy has run
before, which a test does once: each is therefore run once ahead, in the same transaction, and its rows thrown away. A
test that counts statements does so by listeners, which would send every read down SQLAlchemy's own path: they are
counted at the driver instead. What is not run, or is known to differ, is printed with its reason.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

MODE = os.environ.get("VERDIGRIS_SUITE", "plain")
_UNBUILT = "a Database's session builds its synchronous half when it is first used, and counts as one from then on"
_CLEAN = "a lean read asks for a flush only where something is pending; where nothing is, SQLAlchemy's asks for nothing"
_FIRST_ERROR = "a rollback to a savepoint that fails does not hide the error that led to it"
_BUFFERED = "AsyncSession buffers what execute() gives: its rows are objects before the session can be closed"
_EXEC = "a session of ours has SQLModel's exec(), which async_scoped_session does not pass on"
#: Tests that differ, by mode and by the end of their name: why. They run, and must fail; of several, some.
DIFFERENT = {
    "plain": {"AsyncScopedSessionTest::test_attributes": _EXEC},
    "database": {"AsyncScopedSessionTest::test_attributes": _EXEC, "AsyncProxyTest::test_gc": _UNBUILT},
    "orm": {
        "PropagateAttrsTest*::test_autoflushes": _CLEAN,
        "NewStyleExecutionTest*::test_unbuffered_result_session_is_closed": _BUFFERED,
        "SessionTransactionTest*::test_failed_rollback_deactivates_transaction": _FIRST_ERROR,
    },
}
ran: Counter[str] = Counter()


def pytest_configure() -> None:
    import sqlalchemy.ext.asyncio as theirs
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from verdigris.session import AsyncSession

    AsyncSession.__name__ = "AsyncSession"  # some messages name the class
    theirs.AsyncSession = AsyncSession  # type: ignore[misc]
    theirs.session.AsyncSession = AsyncSession  # type: ignore[misc]
    defaults: dict[str, Any] = async_sessionmaker.__init__.__kwdefaults__
    defaults["class_"] = AsyncSession
    if MODE != "plain":
        _adapt_every_engine()
        _read_lean(AsyncSession)
    if MODE == "orm":
        _read_lean_inside()
        _count_at_the_driver()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in DIFFERENT.get(MODE, {}).items():
            if fnmatch(item.nodeid.split("[")[0], f"*{name}"):
                item.add_marker(pytest.mark.xfail(reason=reason, strict="[" not in item.nodeid))


def pytest_runtest_setup() -> None:
    _reads.clear()  # the next test may map the same classes anew, which a process that serves does not


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # with -n: of this worker
        session.config.workeroutput["ran"] = dict(ran)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    ran.update(getattr(node, "workeroutput", {}).get("ran", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reported = terminalreporter.stats
    terminalreporter.section(f"{MODE}: what did not run, or differs")
    reasons: Counter[str] = Counter()
    for report in reported.get("skipped", ()):
        reasons["SQLAlchemy skips: " + str(report.longrepr[2]).removeprefix("Skipped: ").rpartition("' : ")[2]] += 1
    for report in reported.get("xfailed", ()):
        reasons["expected: " + str(report.wasxfail)] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5}  {reason}")
    for name, count in ran.most_common():
        terminalreporter.write_line(f"{count:7}  {name}")


def _adapt_every_engine() -> None:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    from verdigris.database.build import driver_settings
    from verdigris.database.settings import USUAL
    from verdigris.engine.dialect import adapt
    from verdigris.engine.pool import Pool

    original = Engine.__init__

    def made(  # noqa: PLR0917 - with the names of its parameters: create_engine() finds the keywords that it knows by them
        self: Engine,
        pool: Any,
        dialect: Any,
        url: Any,
        logging_name: Any = None,
        echo: Any = None,
        query_cache_size: int = 500,
        execution_options: Any = None,
        hide_parameters: Any = None,
    ) -> None:
        if getattr(dialect, "driver", "") == "asyncpg":
            adapt(dialect, driver_settings(USUAL))
            if type(pool) is AsyncAdaptedQueuePool:  # not adopt(): create_engine() has yet to listen to this very pool
                pool.__class__ = Pool
        original(self, pool, dialect, url, logging_name, echo, query_cache_size, execution_options, hide_parameters)

    Engine.__init__ = made  # type: ignore[method-assign]


_reads: dict[int, tuple[Any, Any]] = {}


def reads_of(engine: Any) -> Any:
    """Return the lean reads of an engine, as its Database would have them."""
    from sqlalchemy.ext.asyncio import AsyncEngine

    from verdigris.concurrency import Budget
    from verdigris.lean.lane import Lane
    from verdigris.lean.reads import LeanReads

    if id(engine) not in _reads:
        _reads[id(engine)] = (engine, LeanReads(engine, Lane(AsyncEngine(engine), Budget(), shortcuts=True)))
    return _reads[id(engine)][1]


def _read_lean(session: Any) -> None:
    from sqlalchemy.ext.asyncio import AsyncEngine

    original = session.__init__

    def made(self: Any, bind: Any = None, **options: Any) -> None:
        if isinstance(bind, AsyncEngine) and bind.dialect.driver == "asyncpg":
            options.setdefault("lean", reads_of(bind.sync_engine))
        original(self, bind, **options)

    session.__init__ = made


# -- mode orm ----------------------------------------------------------------------------------------------------------


class _Now:
    """What the run is at: whether a statement is being run ahead, and how many others were sent."""

    ahead = False
    sent = 0


def _read_lean_inside() -> None:
    from sqlalchemy import util
    from sqlalchemy.orm import Session, mapperlib

    from verdigris.lean import ending
    from verdigris.lean.reads import NOT_RUN

    execute, scalar, get, commit = Session.execute, Session.scalar, Session.get, Session.commit
    ending_now: set[int] = set()

    def lean_execute(self: Session, statement: Any, params: Any = None, **options: Any) -> Any:
        reads = _lean_for(self, statement, params, options)
        result = None if reads is None else util.await_only(reads.run(self, statement, alone=False))
        if result is None:
            ran["statements that SQLAlchemy ran"] += 1
            return execute(self, statement, params, **options)
        ran["statements run lean"] += 1
        return result

    def lean_scalar(self: Session, statement: Any, params: Any = None, **options: Any) -> Any:
        reads = _lean_for(self, statement, params, options)
        value = NOT_RUN if reads is None else util.await_only(reads.scalar(self, statement, alone=False))
        if value is NOT_RUN:
            return scalar(self, statement, params, **options)
        ran["scalar() run lean"] += 1
        return value

    def lean_get(self: Session, entity: Any, ident: Any, **options: Any) -> Any:
        reads = _lean_for(self, None if options else _by_key(self, entity, ident), None, options)
        value = NOT_RUN if reads is None else util.await_only(reads.get(self, entity, ident, alone=False))
        if value is NOT_RUN:
            return get(self, entity, ident, **options)
        ran["get() run lean"] += 1
        return value

    def lean_commit(self: Session) -> None:
        if id(self) in ending_now or not util.concurrency.in_greenlet() or not _is_async(self.bind):
            commit(self)
            return
        ending_now.add(id(self))
        try:
            if util.await_only(ending.commit_at_once(self)):
                ran["COMMIT sent ahead"] += 1
            else:
                commit(self)
        finally:
            ending_now.discard(id(self))

    dispose = mapperlib._dispose_registries

    def disposed(*args: Any, **options: Any) -> None:
        dispose(*args, **options)
        _reads.clear()  # a process that serves does not map its classes anew

    mapperlib._dispose_registries = disposed
    Session.execute, Session.scalar, Session.get, Session.commit = lean_execute, lean_scalar, lean_get, lean_commit  # type: ignore[method-assign]


def _is_async(bind: Any) -> bool:
    from sqlalchemy.engine import Engine

    return isinstance(bind, Engine) and bind.dialect.driver == "asyncpg"


def _lean_for(session: Session, statement: Any, params: Any, options: dict[str, Any]) -> Any:
    """Return the reads to hand a statement to, which was run ahead; None where AsyncSession would not hand it over."""
    from sqlalchemy import Select, util

    given = dict(options)
    given["execution_options"] = {
        name: value for name, value in (given.get("execution_options") or {}).items() if not _says_nothing(name, value)
    }
    taken = type(statement) is Select and not params and not any(given.values()) and _is_async(session.bind)
    if not taken or _Now.ahead or not util.concurrency.in_greenlet():
        return None
    reads = reads_of(session.bind)
    if reads._plan(session, statement) is None and reads._undisturbed(session):
        _run_ahead(session, statement)
    return reads


def _says_nothing(name: str, value: Any) -> bool:
    """Tell whether an option is what Query passes with every statement: the defaults, and its own uniqueness."""
    from sqlalchemy.orm.context import QueryContext
    from sqlalchemy.orm.query import Query

    if name != "_sa_orm_load_options":
        return False
    defaults = (QueryContext.default_load_options, Query.load_options)
    names = [each for each in dir(defaults[0]) if each.startswith("_") and not each.startswith("__")]
    return any(
        all(
            getattr(value, each, None) == getattr(known, each, None)
            for each in names
            if not callable(getattr(known, each, None))
        )
        for known in defaults
    )


def _by_key(session: Session, entity: Any, ident: Any) -> Any:
    """Return the statement that get() comes to, where LeanReads would run one."""
    from sqlalchemy import inspect, select
    from sqlalchemy.orm import Mapper

    from verdigris.lean.reads import _IDENTS, _key_of

    mapper = inspect(entity, raiseerr=False)
    column = _key_of(mapper) if isinstance(mapper, Mapper) else None
    if column is None or type(ident) not in _IDENTS or (entity, (ident,), None) in session.identity_map:
        return None
    return select(entity).where(column == ident)


def _run_ahead(session: Session, statement: Any) -> None:
    """Let SQLAlchemy's engine run a statement in the session's transaction, so that LeanReads finds it compiled."""
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import context

    if statement._propagate_attrs.get("compile_state_plugin") != "orm" or statement._execution_options:
        return
    connection = session._connection_for_bind(session.bind)
    _Now.ahead = True
    savepoint = connection.begin_nested()
    try:
        connection.execute(statement, {}, execution_options=context._orm_load_exec_options).close()
    except (SQLAlchemyError, ArithmeticError, TypeError, ValueError, NotImplementedError):
        ran["statements that fail"] += 1
    finally:
        savepoint.rollback()
        _Now.ahead = False


def _count_at_the_driver() -> None:
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
    from sqlalchemy.testing.assertions import AssertsExecutionResults, eq_

    from verdigris.lean.lane import Lane

    def counted(original: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            _Now.sent += not _Now.ahead
            return original(*args, **options)

        return called

    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(PGDialect_asyncpg, name, counted(getattr(PGDialect_asyncpg, name)))
    Lane.run = counted(Lane.run)  # type: ignore[method-assign]

    @contextmanager
    def assert_statement_count(_: Any, __: Any, count: int) -> Iterator[None]:
        before = _Now.sent
        yield
        ran["tests that count statements"] += 1
        eq_(_Now.sent - before, count)

    def assert_sql_count(self: Any, _: Any, call: Any, count: int) -> Any:
        with assert_statement_count(self, _, count):
            return call()

    AssertsExecutionResults.assert_statement_count = assert_statement_count
    AssertsExecutionResults.assert_sql_count = assert_sql_count
