"""Section 8: what becomes of a database's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity, Subject
from verdigris.evidence.ran import of_tests
from verdigris.evidence.source.engine.engines import Engine
from verdigris.evidence.source.fastapi.handlers import Application
from verdigris.evidence.source.transactions.clauses import Clause
from verdigris.evidence.source.transactions.polling import Loop
from verdigris.evidence.source.transactions.retries import DeadClause, Repetition
from verdigris.evidence.source.transactions.rolled_back import RolledBackRead, rolled_back_reads
from verdigris.evidence.source.transactions.unawaited import Unawaited, unawaited
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.recording.artefact import DatabaseFailure
    from verdigris.evidence.values import Place

HANDLER = "install(app, db)   # or: @app.exception_handler(SQLAlchemyError), 409 for IntegrityError, 503 for the rest"
ANSWER = "await session.rollback()\n    raise"
UNIT = "await db.transaction(unit)   # async def unit(session): the whole transaction, from a fresh session"
UNHANDLED = 500
TOLD = {
    "08",
    "22",
    "23",
    "40",
    "53",
    "55",
    "57",
}  # classes that have a better answer; 42, a mistake in the code, has none


class Handled(Box[Application]):
    """8.1."""

    name = "errors/handled"
    holds = "Database errors become answers of their own, by what they are"
    fails = "Nothing turns a database's errors into answers"
    consequence = "A duplicate key is a 500, and so is an outage: clients cannot tell whose mistake it was."

    def subjects(self, evidence: Evidence) -> Population[Application]:
        """Name the applications."""
        return evidence.source.applications

    def judge(self, subject: Application, evidence: Evidence) -> Judgement:
        """Look for a handler on the way out, then for clauses that know what they catch."""
        seen = self._seen(subject, evidence)
        if seen is not None:
            return seen
        promise = guaranteed("verdigris.fastapi.install", "errors")
        if subject.installed and promise is not None:
            return subject.proof(promise.reason, place=subject.install)
        if subject.covers:
            return subject.proof(f"the application has handlers for {', '.join(dict.fromkeys(subject.handled))}")
        if subject.open is not None:
            return subject.doubt(subject.open)
        clauses = evidence.source.handlers.named_clauses
        if subject.handled:
            return subject.doubt(
                f"{', '.join(dict.fromkeys(subject.handled))} has a handler; what other errors become is not known"
            )
        if clauses:
            return subject.doubt(f"{_places(clauses)}; what the other errors become is not known")
        if subject.installed is False:
            return subject.finding(
                "none",
                "install() is told errors=False, and no handler takes its place",
                place=subject.install,
                fix=HANDLER,
            )
        what = (
            "one handler turns every error into the same answer"
            if subject.everything
            else "no handler and no clause knows a database error"
        )
        return subject.finding("none", what, fix=HANDLER)

    def _seen(self, subject: Application, evidence: Evidence) -> Judgement | None:
        told = (error for error in _errors(evidence) if error.status == UNHANDLED and not error.swallowed)
        wrong = next((error for error in told if (error.sqlstate or "")[:2] in TOLD), None)
        if wrong is not None:
            what = f"{wrong.error} ({wrong.sqlstate or 'no SQLSTATE'}) was answered 500 on {wrong.route}"
            return subject.finding("answered-500", what, kind=Kind.RECORDING, fix=HANDLER)
        return None


class RollbackThenRaise(Box[Subject]):
    """8.2."""

    name = "errors/rollback-then-raise"
    holds = "After an error the session is rolled back or closed, and the error goes on"
    fails = "Code goes on with a session whose transaction has failed"
    consequence = "PostgreSQL answers the next COMMIT with ROLLBACK, nobody looks, and what was written is gone."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the clauses around writes, what is not awaited, and the engines whose sessions could be in one."""
        source = evidence.source
        engines = source.engines.where(lambda engine: engine.mode == "async")
        subjects = [*source.clauses.every, *unawaited(source), *rolled_back_reads(source), *engines]
        return source.population(subjects, *engines.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask who goes on with the session that an error left behind."""
        match subject:
            case Unawaited(method=method, session=session):
                return subject.finding(
                    "not-awaited",
                    f"`{session}.{method}()` is not awaited: it does nothing",
                    fix=f"await {session}.{method}()",
                )
            case RolledBackRead(attribute=attribute, rollback=rollback):
                return subject.finding(
                    "read-after-rollback",
                    f"`{attribute}` is read after the rollback, which expired it: MissingGreenlet instead of the error",
                    fix="read it before the try, or refresh the object",
                    related=((rollback, "the rollback"),),
                )
            case Clause(end="swallowed", session=session, catches=catches, then=then, after=after):
                return subject.finding(
                    "swallowed",
                    f"`{catches}` hides an error of `{session}`, and {then} goes on with its failed transaction",
                    fix="raise   # or: async with session.begin_nested(): around what may fail",
                    related=((after, "here"),) if after is not None else (),
                )
            case Clause(end="unknown", session=session, catches=catches):
                return subject.doubt(
                    f"`{catches}` hides an error of `{session}`; whether its owner goes on with it is not settled"
                )
            case Clause(end=end, session=session):
                return subject.proof(f"`{session}` is {_ENDS[end]}")
        return self._engine(subject, evidence)

    def _engine(self, engine: Subject, evidence: Evidence) -> Judgement:
        for error in _errors(evidence):
            if error.swallowed:
                told = f"{error.error} at {error.site}"
                what = f"{error.swallowed} transactions were committed after {told} had ended them: nothing was stored"
                return engine.finding("swallowed", what, kind=Kind.RECORDING, fix=ANSWER)
        if isinstance(engine, Engine) and engine.option("guard_commit") != Known(value=False):
            promise = guaranteed(engine.maker.dotted, "guard_commit")
            if promise is not None:
                return engine.proof(promise.reason)
        return engine.proof("what the clauses around its sessions do is listed")


class ConnectionErrors(Box[Subject]):
    """8.3."""

    name = "errors/connection-errors"
    holds = "A lost, refused or silent connection is an error within bounded time, and ends no loop"
    fails = "Code can wait for the database for ever, or ends with the first lost connection"
    consequence = "A network that drops packets holds every request, and every slot of the pool, until a restart."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the async engines with a server, the loops that poll it, and clauses that never match."""
        engines = evidence.source.engines.where(lambda engine: engine.mode == "async" and bool(engine.to_servers))
        return Population(
            (*engines, *evidence.source.polling.loops, *evidence.source.retries.dead_clauses[:1]), engines.gaps
        )

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask for a limit on statements; a limit on connecting exists by default, and is long."""
        match subject:
            case Loop(guarded=True):
                return subject.proof("an error inside the loop does not end it")
            case Loop():
                return subject.finding(
                    "loop",
                    "the first lost connection ends this loop for good",
                    fix="try: ...\nexcept Exception:\n    log.exception(...)   # inside the loop",
                )
            case DeadClause():
                more = evidence.source.retries.dead_clauses[1:5]
                return subject.finding(
                    "never-raised",
                    "`except OperationalError` never matches on asyncpg: a lost connection is a DBAPIError there",
                    fix="except (DBAPIError, OSError)",
                    related=tuple((other.place, "here too") for other in more),
                )
            case Engine():
                return self._limits(subject, evidence)
        return subject.doubt("its limits are not known")

    def _limits(self, engine: Engine, evidence: Evidence) -> Judgement:
        limits = evidence.source.limits.of(engine)
        fix, edits = evidence.source.limits.edit(engine, limits), evidence.source.limits.edits(engine, limits)
        match limits.statement:
            case Missing():
                what = f"nothing bounds how long a statement of `{engine.short}` may take"
                return engine.finding("no-limit", what, fix=fix, edits=edits)
            case Unknown(reason):
                return engine.doubt(f"whether `{engine.short}` bounds its statements is not settled: {reason}")
        match limits.connect:
            case Missing():
                what = f"connecting for `{engine.short}` may take the driver's default, a minute"
                return engine.finding("slow-connect", what, fix=fix, severity=Severity.ADVICE, edits=edits)
            case Unknown(reason):
                return engine.doubt(f"whether `{engine.short}` bounds its connecting is not settled: {reason}")
        return engine.proof(f"bounded: {limits.told}")


class RetryTransient(Box[Subject]):
    """8.4."""

    name = "errors/retry-transient"
    holds = "Transactions that fail in passing are repeated as a whole, from a fresh session"
    fails = "What is repeated is not a whole transaction, or nothing is"
    consequence = (
        "A deadlock's victim is told 500, or the repetition fails with 25P02 because its transaction is already lost."
    )

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name what is repeated, and the engines whose transactions could be."""
        engines = evidence.source.engines.where(lambda engine: engine.mode == "async" and bool(engine.to_servers))
        return Population((*evidence.source.retries.every, *engines), engines.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """A repetition needs a session of its own; an engine needs somebody who repeats."""
        match subject:
            case Repetition(unit="statement", session=session):
                return subject.finding(
                    "statement", f"the next attempt runs in the failed transaction of `{session}`", fix=UNIT
                )
            case Repetition(unit="decorated", session=session):
                return subject.finding(
                    "decorated", f"each attempt gets the same `{session}`, whose transaction has failed", fix=UNIT
                )
            case Repetition(dead=True, catches=catches):
                return subject.finding(
                    "never-raised",
                    f"it waits for {catches}, which asyncpg's dialect raises neither for a deadlock nor for 40001",
                    fix="if error.orig.sqlstate in {'40001', '40P01'}   # of a DBAPIError; or " + UNIT,
                )
            case Repetition(unit="whole"):
                return subject.proof(f"repeats the whole transaction after {subject.catches}")
            case Engine():
                return self._engine(subject, evidence)
        return subject.doubt("what it repeats is not settled by the source")

    def _engine(self, engine: Engine, evidence: Evidence) -> Judgement:
        if engine.option("retry") == Known(value=False):
            return engine.finding(
                "off", f"`{engine.short}` repeats nothing: retry=False", fix=engine.with_setting("retry", "True")
            )
        promise = guaranteed(engine.symbol, "retry")
        if promise is not None:
            return engine.proof(promise.reason)
        whole = [
            each for each in evidence.source.retries.every if each.unit == "whole" and each.writes and not each.dead
        ]
        units = [each.place for each in whole] + evidence.source.retries.units
        if units:
            return engine.proof(f"whole transactions are repeated at {len(units)} places, first {units[0]}")
        transactions = evidence.source.transactions
        silent = transactions.handed_over is None and transactions.unsettled is None  # of connections, raw SQL, a route
        if not transactions.writers and not transactions.committers and silent:
            return engine.proof("nothing in the project writes")
        return engine.doubt(
            "nothing repeats a transaction that a deadlock, a serialization failure or a lost connection ended",
            settle="repeat whole units (db.transaction), or accept the box and say who repeats, a queue or the client",
        )


_ENDS = {
    "raised": "left by an error that goes on",
    "rolled back": "rolled back, or closed, before anyone goes on",
    "closed": "closed without further use, which rolls back",
}


def _places(clauses: list[Place]) -> str:
    if len(clauses) == 1:
        return f"one place catches database errors ({clauses[0]})"
    return f"{len(clauses)} places catch database errors (first {clauses[0]})"


def _errors(evidence: Evidence) -> tuple[DatabaseFailure, ...]:
    errors = evidence.recording.errors if evidence.recording is not None else ()
    return tuple(error for error in errors if not of_tests(error.site))
