"""Section 9: the tests' database, what they leave in it, and their event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity, Subject
from verdigris.evidence.source.testing.fixtures import Fact, Leftover, Suite

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.source.testing.targets import Target
    from verdigris.evidence.values import Place

OWN = "--verdigris-url, VERDIGRIS_TEST_DATABASE_URL, or neither: verdigris_database boots a PostgreSQL of its own"
SANDBOX = (
    'AsyncSession(connection, join_transaction_mode="create_savepoint")   # over a transaction that is rolled back'
)


class TestDatabase(Box[Suite]):
    """9.1."""

    __test__ = False
    name = "testing/test-database"
    holds = "Tests run on a database of their own"
    fails = "Tests run on whatever database the application is pointed at"
    consequence = "The day somebody runs them with production's environment, they empty production."

    def subjects(self, evidence: Evidence) -> Population[Suite]:
        """Name the suite."""
        return evidence.source.test_suite

    def judge(self, subject: Suite, evidence: Evidence) -> Judgement:
        """Ask which databases the tests name, and whether anything separates them from the application's."""
        targets = evidence.source.targets.every
        stranger = next((target for target in targets if target.whose == "stranger"), None)
        if stranger is not None:
            return subject.finding(
                "not-named",
                f"the tests run on {stranger.told}, which nothing marks as a test database",
                place=stranger.place,
                fix=OWN,
            )
        own = next((target for target in targets if target.whose == "own"), None)
        promise = guaranteed("verdigris.pytest_plugin", "test_database") if evidence.source.tests.ours else None
        if promise is not None:
            return subject.proof(promise.reason)
        theirs = next((target for target in targets if target.whose == "application"), None)
        if own is not None:
            return subject.proof(f"the tests have their own: {own.told}", place=own.place)
        destructive = evidence.source.targets.destructive
        unknown = next((target for target in targets if target.whose == "unknown"), None)
        altered = evidence.source.targets.altered
        if theirs is not None and unknown is None and altered is None:
            done = destructive or (evidence.source.leftovers.commits_each if theirs.borrowed else None)
            what = "create or drop its tables" if destructive is not None else "commit"
            if done is not None:
                return subject.finding(
                    "application",
                    f"{_reached(theirs)}, and they {what}",
                    place=theirs.place,
                    fix=OWN,
                    related=((done, "tables are made or dropped here" if destructive else "here"),),
                )
        if theirs is not None:
            apart = f"what {altered} changes" if altered is not None else "only the environment"
            return subject.doubt(f"{_reached(theirs)}: {apart} tells them apart", place=theirs.place)
        if unknown is not None and unknown.borrowed:
            return subject.doubt(f"which database {unknown.told} reaches in the tests is not settled by the source")
        return subject.doubt(
            unknown.told if unknown is not None else "which database the tests reach is not settled by the source"
        )


class RolledBack(Box[Suite]):
    """9.2."""

    name = "testing/rolled-back"
    holds = "What a test writes is gone when the next one begins"
    fails = "What a test commits stays in the database"
    consequence = "Tests pass or fail by what ran before them."

    def subjects(self, evidence: Evidence) -> Population[Suite]:
        """Name the suite."""
        return evidence.source.test_suite

    def judge(self, subject: Suite, evidence: Evidence) -> Judgement:
        """Accept a rolled-back transaction, emptied tables and a fresh database alike."""
        recorded = evidence.recording.tests if evidence.recording is not None else None
        if recorded is not None and recorded.rows_left:
            table, rows = next(iter(recorded.rows_left.items()))
            return subject.finding(
                "left",
                f"what a test wrote outlived it: {rows} row{'s' * (rows != 1)} of {table}",
                kind=Kind.RECORDING,
                fix=SANDBOX,
            )
        tests, leftovers = evidence.source.tests, evidence.source.leftovers
        wrong = next((fact for fact in leftovers.cleaning if fact.kind in {"leaks", "savepoint"}), None)
        right = next((fact for fact in leftovers.cleaning if fact.kind in {"rolled back", "emptied", "fresh"}), None)
        if wrong is not None and (wrong.kind == "leaks" or right is None):
            return subject.finding(
                wrong.kind, _LEAKS.get(wrong.kind, "{}").format(wrong.told), place=wrong.place, fix=SANDBOX
            )
        promise = guaranteed("verdigris.pytest_plugin", "rolled_back") if tests.ours else None
        if promise is not None:
            return subject.proof(promise.reason)
        if right is not None:
            return subject.proof(right.told, place=right.place)
        if recorded is not None and recorded.run and not recorded.committing:
            return subject.proof(f"{recorded.run} tests ran and none of them committed for good", kind=Kind.RECORDING)
        commits = leftovers.commits if tests.engines else leftovers.commits_each if tests.borrowed.every else None
        if commits is not None:
            return subject.finding(
                "left",
                "the tests commit, and nothing undoes it before the next test",
                place=commits,
                fix=SANDBOX,
            )
        return subject.doubt(
            "how a test's writes vanish is not settled by the source",
            settle="record the tests: verdigris record -- pytest",
        )


class AsyncFixtures(Box[Subject]):
    """9.3."""

    name = "testing/async-fixtures"
    holds = "Async tests and fixtures run, each engine on one event loop"
    fails = "An async fixture is never awaited, or an engine is used on two event loops"
    consequence = "The test gets a coroutine instead of a session, or fails with `attached to a different loop`."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the suite, if anything in it is async, and a replaced event loop."""
        suite = evidence.source.test_suite.where(lambda _: evidence.source.tests.has_async)
        return Population((*suite, *(evidence.source.tests.event_loops if suite else ())), suite.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Compare decorators and marks with the mode that pytest's settings name."""
        if isinstance(subject, Leftover):
            return subject.finding(subject.kind_, subject.told, fix=_FIXES[subject.kind_], severity=Severity.ADVICE)
        for engine in evidence.recording.engines if evidence.recording is not None else ():
            if engine.loop_crossings:
                where = next(iter(engine.loop_crossings))
                return subject.finding(
                    "crosses",
                    f"a connection of {engine.site} was used on another event loop at {where}",
                    kind=Kind.RECORDING,
                    fix=_LOOPS,
                )
        tests = evidence.source.tests
        for fact in tests.loops:
            return subject.finding(
                fact.kind, fact.told, place=fact.place, fix=_FIXES[fact.kind], related=_others(fact, tests.loops)
            )
        mode = tests.mode(subject.place.path if subject.place is not None else "")
        if tests.anyio:
            return subject.proof("anyio's plugin runs the async tests and fixtures")
        return subject.proof(f"asyncio_mode is {mode}, and every async test and fixture fits it")


class Isolated(Box[Subject]):
    """9.4."""

    name = "testing/isolated"
    holds = "Tests pass in any order and side by side"
    fails = "A test can see what another one did"
    consequence = "A test that passes alone fails in the suite, and the suite fails on two workers."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the suite, and what a test leaves in the application."""
        suite = evidence.source.test_suite
        return Population((*suite, *(evidence.source.leftovers.overrides if suite else ())), suite.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Look for what tests share; then ask what keeps them apart."""
        if isinstance(subject, Leftover):
            return subject.finding(subject.kind_, subject.told, fix=_APART[subject.kind_], severity=Severity.ADVICE)
        tests, leftovers = evidence.source.tests, evidence.source.leftovers
        for fact in leftovers.shared:
            return subject.finding(
                fact.kind, fact.told, place=fact.place, fix=_APART[fact.kind], related=_others(fact, leftovers.shared)
            )
        recorded = evidence.recording.tests if evidence.recording is not None else None
        promise = guaranteed("verdigris.pytest_plugin", "isolated") if tests.ours else None
        if promise is not None:
            return subject.proof(promise.reason)
        if leftovers.per_worker is not None:
            return subject.proof("each worker has a database of its own", place=leftovers.per_worker)
        if recorded is not None and recorded.run and not recorded.failed and recorded.shuffled and recorded.workers > 1:
            return subject.proof(
                f"{recorded.run} tests passed in shuffled order on {recorded.workers} workers", kind=Kind.RECORDING
            )
        apart = next((fact for fact in leftovers.cleaning if fact.kind in {"rolled back", "fresh"}), None)
        if apart is not None:
            return subject.proof(apart.told, place=apart.place)
        return subject.doubt(
            "whether tests disturb each other side by side is not settled by the source",
            settle="record them shuffled and on two workers: verdigris record -- pytest -n 2 -p random_order",
        )


def _reached(target: Target) -> str:
    if target.borrowed:
        return f"the tests reach the application's own database, by {target.told}"
    return f"the tests' engine takes the application's own URL, {target.told}"


def _others(fact: Fact, facts: list[Fact]) -> tuple[tuple[Place, str], ...]:
    return tuple((other.place, "here too") for other in facts if other.kind == fact.kind and other is not fact)[:4]


_LOOPS = 'poolclass=NullPool for the tests\' engine, or asyncio_default_test_loop_scope = "session"'
_LEAKS = {"leaks": "{}: what the test commits is committed for good", "savepoint": "{}"}
_FIXES = {
    "plain": '@pytest_asyncio.fixture   # or: asyncio_mode = "auto" in [tool.pytest.ini_options]',
    "unmarked": 'asyncio_mode = "auto"   # in [tool.pytest.ini_options]',
    "crosses": _LOOPS,
    "event-loop": 'asyncio_default_test_loop_scope = "session"   # instead of the fixture',
}
_APART = {
    "shared-data": "@pytest.fixture   # a row for each test: function scope",
    "global": "a fixture that gives the value",
    "ordered": "a fixture that makes what the earlier test made",
    "overrides": "app.dependency_overrides.clear()   # after the yield",
}
