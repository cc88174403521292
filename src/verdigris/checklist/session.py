"""Section 2: how sessions are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Edit, Judgement, Kind, Population, Severity
from verdigris.evidence.ran import RanEngine, RanFactory, unseen_factories, with_unseen
from verdigris.evidence.source.concurrency.reach import Frequency
from verdigris.evidence.source.engine.engines import Engine
from verdigris.evidence.source.engine.factories import Factory
from verdigris.evidence.source.reading.versions import is_before
from verdigris.evidence.source.session.expiry import StaleRead
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from verdigris.evidence import Evidence


class AsyncSessionmaker(Box[Factory | RanFactory]):
    """2.1."""

    name = "session/async-sessionmaker"
    holds = "Asynchronous sessions come from an async_sessionmaker"
    fails = "Asynchronous sessions come from a sessionmaker, or from no factory at all"
    consequence = (
        "Type checkers take what a sessionmaker gives for a synchronous Session; a session made by hand has only the "
        "options that its line repeats."
    )

    def subjects(self, evidence: Evidence) -> Population[Factory | RanFactory]:
        """Name the factories of asynchronous sessions, and the sessions made without one."""
        made = evidence.source.factories.where(lambda made: made.mode != "sync" and made.form != "override")
        return Population((*made, *unseen_factories(evidence)), made.gaps)

    def judge(self, subject: Factory | RanFactory, evidence: Evidence) -> Judgement:
        """Ask what makes the session."""
        promise = guaranteed(subject.maker.dotted, "session")
        if promise is not None:
            return subject.proof(promise.reason)
        if subject.form == "async_sessionmaker":
            return subject.proof(f"`{subject.short}` is an async_sessionmaker")
        if subject.form == "direct":
            return subject.finding(
                "direct",
                f"{subject.told} makes a session without a factory",
                fix=f"{subject.as_factory}   # once, beside the engine\nasync with Session() as session: ...",
            )
        if subject.mode == "unknown":
            return subject.doubt(f"what `{subject.short}` makes is not settled: its class_ is not known")
        return subject.finding(
            "sessionmaker",
            f"`{subject.short}` is a synchronous sessionmaker that makes asynchronous sessions",
            fix=subject.renamed("async_sessionmaker"),
            edits=self._renaming(subject, evidence),
        )

    def _renaming(self, made: Factory | RanFactory, evidence: Evidence) -> tuple[Edit, ...]:
        if isinstance(made, RanFactory) or is_before(evidence.source.files, "sqlalchemy", (2,)):
            return ()
        return made.renaming("sqlalchemy.ext.asyncio", "async_sessionmaker")


class ExpireOnCommit(Box[Factory | RanFactory | StaleRead]):
    """2.2."""

    name = "session/expire-on-commit"
    holds = "Objects stay readable after their transaction ended"
    fails = "Objects expire, and reading them afterwards needs a query that cannot be awaited"
    consequence = (
        "The first attribute read after a commit raises MissingGreenlet; of a closed session, DetachedInstanceError."
    )

    def subjects(self, evidence: Evidence) -> Population[Factory | RanFactory | StaleRead]:
        """Name what makes asynchronous sessions, options of single calls included, and the reads that will raise."""
        made = evidence.source.factories.where(lambda made: made.mode == "async")
        reads = (read for read in evidence.source.expiry.found if read.variant != "dropped-change")
        return Population((*made, *unseen_factories(evidence), *reads), made.gaps)

    def judge(self, subject: Factory | RanFactory | StaleRead, evidence: Evidence) -> Judgement:
        """Believe a run first, then the source."""
        if isinstance(subject, StaleRead):
            return self._read(subject)
        for seen in evidence.ran_factory(subject):
            if subject.form in {"override", "direct"}:
                continue
            if seen.expire_on_commit:
                return self._expires(subject, f"`{subject.short}` ran with expire_on_commit=True", Kind.RECORDING)
            return subject.proof(f"`{subject.short}` ran with expire_on_commit=False", kind=Kind.RECORDING)
        match subject.option("expire_on_commit"):
            case Known(value, by) if not value:
                return subject.proof(by or "expire_on_commit=False")
            case Missing() if subject.form == "override":
                return subject.proof("expire_on_commit is the factory's own")
            case Known() | Missing():
                message = f"`expire_on_commit` is on for the {subject.made} `{subject.short}`"
                return self._expires(subject, message, Kind.SOURCE)
            case Unknown(reason):
                return subject.doubt(f"`expire_on_commit` of `{subject.short}` is not settled: {reason}")

    def _expires(self, made: Factory | RanFactory, message: str, kind: Kind) -> Judgement:
        return made.lacks("expires", message, "expire_on_commit", "False", kind)

    def _read(self, read: StaleRead) -> Judgement:
        after = read.variant.rpartition("-")[2]
        keep = f"{read.attribute} = {read.name}.{read.attribute}   # before the {after}"
        return read.finding(
            read.variant,
            read.told,
            fix=keep if read.attribute else f"await session.refresh({read.name})",
            related=((read.cause, f"the {after}"),),
        )


class Autoflush(Box[Factory | RanFactory | StaleRead]):
    """2.3."""

    name = "session/autoflush"
    holds = "Autoflush is on, or off with nothing that would lose pending changes"
    fails = "Autoflush is off where a refresh drops changes that were not flushed"
    consequence = "A changed attribute silently goes back to its old value, and the commit stores nothing."

    def subjects(self, evidence: Evidence) -> Population[Factory | RanFactory | StaleRead]:
        """Name what makes asynchronous sessions, and the changes that are dropped."""
        made = evidence.source.factories.where(lambda made: made.mode == "async")
        dropped = (read for read in evidence.source.expiry.found if read.variant == "dropped-change")
        return Population((*made, *unseen_factories(evidence), *dropped), made.gaps)

    def judge(self, subject: Factory | RanFactory | StaleRead, evidence: Evidence) -> Judgement:
        """Take either setting for a choice; off is advised against where refreshes could bite."""
        if isinstance(subject, StaleRead):
            return subject.finding(
                subject.variant,
                subject.told,
                fix="await session.flush()   # before it",
                related=((subject.cause, "changed here"),),
            )
        match subject.option("autoflush"):
            case Unknown(reason):
                return subject.doubt(f"`autoflush` of `{subject.short}` is not settled: {reason}")
            case Known(value, by) if not value:
                promise = guaranteed(subject.maker.dotted, "unflushed")
                if promise is not None:
                    return subject.proof(promise.reason)
                refreshes = evidence.source.refreshes
                if not refreshes:
                    return subject.proof(by or "autoflush=False, and nothing refreshes objects")
                return subject.finding(
                    "off",
                    f"autoflush is off for the {subject.made} `{subject.short}`, and {len(refreshes)} "
                    f"refresh{'es' * (len(refreshes) != 1)} may drop what was not flushed",
                    fix=subject.with_option("autoflush", "True"),
                    severity=Severity.ADVICE,
                    related=tuple((place, "refreshed here") for place in refreshes[:3]),
                )
            case _:
                return subject.proof("autoflush is on: every query sees what is pending")


class SingleFactory(Box[Engine | RanEngine | Factory | RanFactory]):
    """2.4."""

    name = "session/single-factory"
    holds = "Engines and session factories are made once per process"
    fails = "An engine or a session factory is made again and again"
    consequence = (
        "Each engine has a pool of its own: under load they pile up until the server refuses connections with 53300."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine | Factory | RanFactory]:
        """Name the engines and the factories."""
        engines = with_unseen(evidence.source.engines, evidence)
        factories = evidence.source.factories.where(lambda made: made.form in {"async_sessionmaker", "sessionmaker"})
        ran = (made for made in unseen_factories(evidence) if made.form != "direct")
        return Population((*engines, *factories, *ran), tuple(dict.fromkeys(engines.gaps + factories.gaps)))

    def judge(self, subject: Engine | RanEngine | Factory | RanFactory, evidence: Evidence) -> Judgement:
        """Ask how often the line that makes it runs."""
        what = "engine" if isinstance(subject, (Engine, RanEngine)) else "session factory"
        if isinstance(subject, (Engine, RanEngine)):
            counts = [(seen.created, seen.created_in_requests) for seen in evidence.ran(subject)]
        else:
            counts = [(seen.created, seen.created_in_requests) for seen in evidence.ran_factory(subject)]
        again = sum(in_requests for _, in_requests in counts)
        kept = bool(subject.asked_at) and evidence.recording is not None and again <= evidence.recording.processes
        if again and not kept:  # advanced-alchemy makes its own when it is first asked, and keeps them
            return self._again(subject, what, f"{again} were made while requests were answered", Kind.RECORDING)
        if isinstance(subject, (RanEngine, RanFactory)):
            return subject.proof("made in the run, but in none of its requests")
        reach = evidence.source.reaches.of(subject.call)
        if reach.frequency is Frequency.REQUEST:
            return self._again(subject, what, f"it is made in {subject.call.scope.name}(), {reach.why}", Kind.SOURCE)
        if reach.frequency is Frequency.UNKNOWN and not counts:
            return subject.doubt(f"how often `{subject.short}` is made is not settled: {reach.why}")
        if reach.frequency is Frequency.UNKNOWN:
            made = sum(created for created, _ in counts)
            return subject.proof(
                f"made {made} time{'s' * (made != 1)} in the run, none of them in a request", kind=Kind.RECORDING
            )
        return subject.proof(f"made {reach.why}")

    def _again(self, subject: Engine | RanEngine | Factory | RanFactory, what: str, why: str, kind: Kind) -> Judgement:
        return subject.finding(
            "per-request",
            f"a new {what} `{subject.short}` for every request: {why}",
            fix="make it once, at module level or in the lifespan",
            kind=kind,
        )
