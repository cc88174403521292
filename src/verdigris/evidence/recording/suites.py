"""Test suites: what ran, on which databases, and what it left there.

pytest loads this module through PYTEST_PLUGINS; it was imported before, which PYTEST_DONT_REWRITE tells it to accept.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from threading import RLock, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.artefact import Tests

if TYPE_CHECKING:
    from verdigris.evidence.recording.places import Places

_NAMES = 100
_BOOKKEEPING = "alembic_version"  # which migration a schema has: no test's data
_TESTS = {"test", "tests"}  # directories
_SHUFFLERS = ("randomly", "random_order", "reverse")


class TestRun:
    """The running totals of one process's tests."""

    __test__ = False

    def __init__(self) -> None:
        self.names: list[str] = []
        self.run = self.failed = 0
        self.current: str | None = None
        self.databases: dict[str, set[str]] = {}
        self.committing: dict[str, None] = {}
        self.rows: Counter[tuple[str, str]] = Counter()  # by the database's URL and the table
        self.cleanups: Counter[str] = Counter()
        self.shuffled = False
        self.plugins: tuple[str, ...] = ()
        self._lock = RLock()  # as the ledger's

    def used(self, url: str) -> None:
        """Note which database the running test talks to."""
        if url in self.databases or len(self.databases) < _NAMES:
            self.databases.setdefault(url, set()).add(self.current or "")

    def runs(self, places: Places, task: Any) -> bool:
        """Tell whether a task, or without one this thread, is the running test's own and none of the application's."""
        if self.current is None:
            return False
        if task is None:
            return current_thread() is main_thread()
        code = getattr(task.get_coro(), "cr_code", None)
        if code is None or not places.is_application(code.co_filename):
            return True  # a plugin's, that runs the test
        path = PurePath(code.co_filename)
        return path.name.startswith(("test_", "conftest")) or not _TESTS.isdisjoint(path.parts[-3:-1])

    def committed(self, url: str, changes: dict[str, int]) -> None:
        """Note rows that were committed for good."""
        written = {table: rows for table, rows in changes.items() if table.rpartition(".")[2] != _BOOKKEEPING}
        if not written:
            return
        with self._lock:
            self.rows.update({(url, table): rows for table, rows in written.items()})
            if self.current is not None:
                self.committing[self.current] = None

    def cleaned(self, how: str, url: str, tables: tuple[str, ...]) -> None:
        """Note a TRUNCATE or DROP."""
        self.cleanups[how] += 1
        for table in tables:
            self.rows.pop((url, table), None)

    def gone(self, database: str) -> None:
        """Note that a database was dropped, or renamed to be a template: what was written there is in no test's way."""
        with self._lock:
            for url, table in list(self.rows):
                if url.partition("?")[0].rpartition("/")[2] == database:
                    del self.rows[url, table]

    def facts(self) -> Tests:
        """Return what was seen."""
        left: Counter[str] = Counter()
        for (_, table), rows in self.rows.items():
            left[table] += max(rows, 0)
        return Tests(
            run=self.run,
            failed=self.failed,
            names=tuple(self.names[:_NAMES]),
            databases={url: len(names - {""}) for url, names in sorted(self.databases.items())},
            committing=tuple(self.committing)[:_NAMES],
            rows_left={table: rows for table, rows in sorted(left.items()) if rows},
            cleanups=dict(self.cleanups),
            workers=1,
            shuffled=self.shuffled,
            plugins=self.plugins,
        )


class PytestWatch:
    """The pytest plugin: tells the recorder which test runs."""

    def __init__(self, tests: TestRun) -> None:
        self.tests = tests

    def pytest_configure(self, config: Any) -> None:
        """Note the plugins that decide on order and isolation."""
        names = {str(name) for name, plugin in config.pluginmanager.list_name_plugin() if plugin is not None}
        known = ("asyncio", "anyio", "xdist", *_SHUFFLERS, "verdigris.pytest_plugin")
        self.tests.plugins = tuple(name for name in known if any(name in other for other in names))
        self.tests.shuffled = any(name in self.tests.plugins for name in _SHUFFLERS)

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """A test starts, its fixtures first."""
        self.tests.current = nodeid

    def pytest_runtest_call(self, item: Any) -> None:
        """A test is run by this very process."""
        self.tests.run += 1
        self.tests.names.append(item.nodeid)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """A test failed."""
        if call.when == "call" and call.excinfo is not None and call.excinfo.typename not in {"Skipped", "XFailed"}:
            self.tests.failed += 1

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """A test and its fixtures are done."""
        self.tests.current = None


def pytest_configure(config: Any) -> None:
    """Join the running recording, if there is one."""
    from verdigris.evidence.recording.recorder import active

    recorder = active()
    if recorder is not None and not config.pluginmanager.has_plugin("verdigris-recording"):
        watch = PytestWatch(recorder.testing())
        config.pluginmanager.register(watch, "verdigris-recording")
