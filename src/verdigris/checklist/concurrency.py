"""Section 7: sessions and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity, Subject
from verdigris.evidence.source.concurrency.held import GlobalSession, HeldSession, ScopedSession
from verdigris.evidence.source.concurrency.tasks import FanOut
from verdigris.evidence.source.engine.engines import Engine
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.values import Place

PATIENCE = 250.0  # ms: a checkout that waits longer than this at the 99th percentile is a queue that clients feel
EACH_ITS_OWN = "await db.gather(first, second)   # each unit gets a session of its own: async def first(session): ..."


class SessionPerTask(Box[Subject]):
    """7.1."""

    name = "concurrency/session-per-task"
    holds = "A session is never in use by two tasks at once"
    fails = "A session is reachable by two tasks at once"
    consequence = (
        "One task commits the other's half-done work, or the connection goes back to the pool in mid-transaction."
    )

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name what starts a task, the sessions that outlive one, and the engines that make sessions."""
        started = evidence.source.fan_outs.where(lambda fan_out: fan_out.by == "create_task")
        engines = evidence.source.engines
        subjects: tuple[Subject, ...] = (*started, *evidence.source.global_sessions, *engines)
        return Population(subjects, (*started.gaps, *engines.gaps))

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask what a started task carries; a session at module level is shared by all tasks."""
        match subject:
            case FanOut(carried=None, unsettled=str(name)):
                return subject.doubt(f"whether `{name}` is a session is not settled by the source")
            case FanOut(carried=None):
                return subject.proof("the task carries no session")
            case FanOut(awaited=True):
                return subject.proof("the task is awaited at once: the session is handed over, not shared")
            case FanOut(carried=session):
                return subject.finding(
                    "escapes",
                    f"`{session}` goes into a task that runs beside its owner",
                    fix="async with factory() as session:   # inside the task",
                )
            case GlobalSession(name=name, shared=True):
                return subject.finding(
                    "global",
                    f"`{name}` is one session for all who ask the container at the same time, with `Closing` too",
                    fix="providers.ContextLocalResource(get_session)   # one for each task, and so for each request",
                )
            case GlobalSession(name=name):
                return subject.finding(
                    "global",
                    f"`{name}` is one session for the whole program",
                    fix=f"{name} = async_sessionmaker(engine)",
                )
            case _:
                return self._overlaps(subject, evidence)

    def _overlaps(self, engine: Subject, evidence: Evidence) -> Judgement:
        if evidence.recording is not None and evidence.recording.overlaps:
            seen = evidence.recording.overlaps[0]
            return engine.finding(
                "overlap",
                f"two tasks were inside one session: {seen.operation} at {seen.site} "
                f"and {seen.other_operation} at {seen.other_site}",
                kind=Kind.RECORDING,
            )
        if isinstance(engine, Engine) and engine.shares_connection:
            return engine.finding(
                "one-connection",
                f"all sessions of `{engine.short}` share one connection, and with it one transaction",
                fix='"sqlite+aiosqlite:///file:memdb?mode=memory&cache=shared&uri=true"   # or a file, or PostgreSQL',
            )
        return engine.proof(_guard(engine) or "no code of the application puts one of its sessions into another task")


class NoScopedSession(Box[Subject]):
    """7.2."""

    name = "concurrency/no-scoped-session"
    holds = "No session is hidden behind a scoped registry"
    fails = "Sessions are hidden behind a scoped registry"
    consequence = "All tasks share one session, or the registry keeps every task's session for ever."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the registries, and the engines whose sessions could be in one."""
        engines = evidence.source.engines
        return Population((*evidence.source.scoped_sessions, *engines), engines.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """A sync registry never fits tasks; an async one needs a scope unique to the task, and a removal."""
        match subject:
            case ScopedSession(maker="scoped_session", of_async=False):
                return subject.proof("a registry of sync sessions, for code that runs in threads")
            case ScopedSession(per_task=True, removed=True):
                return subject.finding(
                    "scoped",
                    "a registry that works, and hides who owns the session",
                    severity=Severity.ADVICE,
                    fix=_EXPLICIT,
                )
            case ScopedSession(removed=False):
                return subject.finding("kept", f"`{subject.maker}` whose sessions nothing removes", fix=_EXPLICIT)
            case ScopedSession():
                return subject.finding("shared", f"`{subject.maker}` without a scope unique to the task", fix=_EXPLICIT)
            case _:
                return subject.proof("its sessions are in no registry")


class SeparateSessions(Box[Subject]):
    """7.3."""

    name = "concurrency/separate-sessions"
    holds = "Queries that run at the same time have sessions of their own"
    fails = "Queries that are meant to run at the same time share a session"
    consequence = (
        "With a connection at hand they run one after the other; without one they raise, or damage the pool. Tests "
        "rarely show it, pre-ping turns it into an outage."
    )

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name everything that runs coroutines together, and the engines that make sessions."""
        fan_outs = evidence.source.fan_outs
        engines = evidence.source.engines
        return Population((*fan_outs, *engines), (*fan_outs.gaps, *engines.gaps))

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask whether two arms carry the same session."""
        if isinstance(subject, FanOut):
            if subject.shared is not None:
                return subject.finding(
                    "shared",
                    f"`{subject.shared}` is used by several coroutines of this {subject.by}",
                    fix=EACH_ITS_OWN,
                    related=_carriers(subject),
                )
            if subject.unsettled is not None and len(subject.arms) + sum(arm.many for arm in subject.arms) > 1:
                return subject.doubt(f"whether `{subject.unsettled}` is a session is not settled by the source")
            return subject.proof("at most one of its coroutines carries a session")
        return subject.proof(_guard(subject) or "no concurrent queries on one of its sessions")


class PoolForLoad(Box[Subject]):
    """7.4."""

    name = "concurrency/pool-for-load"
    holds = "The pool is sized for the concurrency really seen"
    fails = "Work asks for more connections than the pool can give"
    consequence = "Requests wait for a connection until they time out, while the server idles."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the pooled engines, what opens sessions without bound, and what holds two at once."""
        engines = evidence.source.engines.where(lambda engine: engine.pooled != Known(value=False))
        fan_outs = evidence.source.fan_outs
        gathered = {arm.place for fan_out in fan_outs if fan_out.by != "create_task" for arm in fan_out.arms}
        opening = fan_outs.where(
            lambda fan_out: fan_out.place not in gathered and any(arm.opens and arm.many for arm in fan_out.arms)
        )
        return Population((*engines, *opening, *evidence.source.held_sessions), (*engines.gaps, *opening.gaps))

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask the run for waits; ask the source for what can starve any pool."""
        match subject:
            case HeldSession(first=first, over="sleep"):
                return subject.finding(
                    "asleep",
                    "a session is held while nothing happens",
                    fix="close the session, then sleep",
                    related=((first, "the session"),),
                )
            case HeldSession(first=first):
                return subject.finding(
                    "nested",
                    "a second session is opened while a first one is held",
                    fix="use the session that is open, or close it before the next one opens",
                    related=((first, "the first one"),),
                )
            case FanOut(bounded=True):
                return subject.proof("what runs at once is bounded by a semaphore or limit")
            case FanOut():
                return subject.finding(
                    "unbounded",
                    "as many sessions are opened at once as there are items",
                    fix=EACH_ITS_OWN,
                )
            case Engine():
                return self._waits(subject, evidence)
        return subject.doubt("how its pool was used is not known")

    def _waits(self, engine: Engine, evidence: Evidence) -> Judgement:
        names = {seen.id for seen in evidence.ran(engine)}
        pools = (
            [] if evidence.recording is None else [pool for pool in evidence.recording.pools if pool.engine in names]
        )
        if not pools:
            return engine.doubt(f"how long requests wait for `{engine.short}`'s connections shows only in a run")
        worst = max(pools, key=lambda pool: (pool.timeouts, pool.wait_p99_ms))
        figures = (
            f"{worst.checkouts:,} checkouts by up to {worst.max_concurrent_requests} requests at once, "
            f"{worst.timeouts} timed out; wait p99 {worst.wait_p99_ms:.1f} ms; "
            f"{worst.high_water} of {worst.capacity or 'unlimited'} connections at most"
        )
        if worst.timeouts or worst.wait_p99_ms > PATIENCE:
            needed = max(worst.high_water + 1, worst.max_concurrent_requests)
            return engine.finding(
                "waits", figures, kind=Kind.RECORDING, fix=engine.with_option("pool_size", str(needed))
            )
        return engine.proof(figures, kind=Kind.RECORDING)


_EXPLICIT = "async with factory() as session: ...   # and pass the session on as an argument"


def _guard(subject: Subject) -> str | None:
    """Quote the library's promise to refuse a second task, unless the engine opts out of it."""
    if not isinstance(subject, Engine) or subject.option("guard_tasks") == Known(value=False):
        return None
    promise = guaranteed(subject.maker.dotted, "guard_tasks")
    return promise.reason if promise is not None else None


def _carriers(fan_out: FanOut) -> tuple[tuple[Place, str], ...]:
    """Return where the shared session is carried, once a line."""
    lines = {arm.place.line: arm.place for arm in fan_out.arms if arm.session == fan_out.shared}
    return tuple((place, "carries it") for place in list(lines.values())[:4])
