"""Section 3: how a request gets its session, and how its transaction ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity, Subject
from verdigris.evidence.ran import RanRequest, RanSessions, of_tests, requests_that_ran
from verdigris.evidence.source.session.containers import INJECTOR
from verdigris.evidence.source.session.dependencies import SessionDependency
from verdigris.evidence.source.session.escapes import Escape
from verdigris.evidence.source.session.handed_out import LateCommit
from verdigris.evidence.source.session.scopes import function_scope
from verdigris.evidence.source.transactions.uncommitted import LostWrite
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

OWN = "async with session_factory() as session:   # in what runs later, a session of its own"
BEFORE = 'Depends(get_session, scope="function")   # FastAPI 0.121: it ends before the response begins'
GIVE = "async with session_factory() as session:\n    yield session"
OF_YOUR_OWN = """async def get_session() -> AsyncIterator[AsyncSession]:
    async with {}.get_session() as session, session.begin():
        yield session
# Depends(get_session, scope="function"), also for services: AuthorService(session=session)"""


class AsyncWith(Box[SessionDependency]):
    """3.1."""

    name = "fastapi/async-with"
    holds = "Every dependency that gives out a session opens it in a context that closes it"
    fails = "A dependency gives out a session that nothing closes when the request fails"
    consequence = "Each failed request keeps a connection until the garbage collector finds it; then the pool is empty."

    def subjects(self, evidence: Evidence) -> Population[SessionDependency]:
        """Name the providers of sessions that FastAPI calls."""
        return evidence.source.session_dependencies

    def judge(self, subject: SessionDependency, evidence: Evidence) -> Judgement:
        """Follow what is yielded to where it was opened."""
        promise = _promise(subject, "opens")
        if promise is not None:
            return subject.proof(promise)
        if subject.of == "factory":
            return subject.proof(
                f"{subject.short} gives a factory: whoever takes it opens and closes a session of its own"
            )
        opened = evidence.source.lifetimes.opening(subject)
        match opened.how:
            case "with" | "stack" | "finally":
                return subject.proof(f"{subject.short} opens and closes it: {opened.told}", place=opened.place)
            case "given":
                return subject.proof(f"{subject.short} opens nothing: {opened.told}", place=opened.place)
            case "iterated":
                return subject.finding(
                    "iterated",
                    f"{subject.short} takes its session out of a loop over {opened.told}: an error leaves the "
                    "loop, and not the generator inside it, which stays open",
                    place=opened.place,
                    fix="Depends(get_session)   # the inner generator itself, or contextlib.aclosing() around it",
                )
            case "next":
                return subject.finding(
                    "next",
                    f"{subject.short} takes its session by {opened.told}, and nobody closes that generator",
                    place=opened.place,
                    fix=GIVE,
                )
            case "open" if subject.provided:
                return subject.doubt(
                    f"{subject.short}: {opened.told}, unless the container goes on with it",
                    settle="open it in async with",
                )
            case "open" if subject.yields:
                return subject.finding("open", f"{subject.short}: {opened.told}", place=opened.place, fix=GIVE)
            case "open":
                return subject.doubt(
                    f"{subject.short} returns its session: who closes it is not settled",
                    settle="yield it: fastapi/yielded",
                )
        return subject.doubt(f"how {subject.short} opens its session is not settled: {opened.told}", place=opened.place)


class Yielded(Box[SessionDependency]):
    """3.2."""

    name = "fastapi/yielded"
    holds = "Every dependency yields its session, so that its end follows the request's"
    fails = "A dependency returns the session it has opened"
    consequence = "Nothing runs after the request: the session is closed before its first use, or never."

    def subjects(self, evidence: Evidence) -> Population[SessionDependency]:
        """Name the providers of sessions that FastAPI calls."""
        return evidence.source.session_dependencies

    def judge(self, subject: SessionDependency, evidence: Evidence) -> Judgement:
        """A generator yields; a function may hand on what another dependency opened."""
        promise = _promise(subject, "yields")
        if promise is not None:
            return subject.proof(promise)
        if subject.yields:
            return subject.proof(f"{subject.short} yields", place=evidence.source.lifetimes.opening(subject).place)
        returned = evidence.source.lifetimes.returned(subject)
        if returned is not None:
            return subject.finding(
                "returned", f"{subject.short} returns a session that it opened", place=returned, fix=GIVE
            )
        opened = evidence.source.lifetimes.opening(subject)
        if subject.of == "factory" or opened.how == "given":
            return subject.proof(f"{subject.short} opens no session: {opened.told}")
        return subject.doubt(
            f"whether {subject.short} opens what it returns is not settled: {opened.told}", place=opened.place
        )


class CommitOrRollback(Box[Subject]):
    """3.3."""

    name = "fastapi/commit-or-rollback"
    holds = "A request's transaction is committed before its answer leaves, and rolled back on any error"
    fails = "A request can be answered before its transaction was committed, or an error is swallowed"
    consequence = "A commit that fails after the answer left is a 200 for a write that was never stored."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the providers of sessions that FastAPI calls, and the routes whose writes nobody commits."""
        source, ran = evidence.source, requests_that_ran(evidence)
        dependencies = source.session_dependencies
        return Population((*dependencies, *source.late_commits, *source.uncommitted.every, *ran), dependencies.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Compare the place of the commit with the scope under which the dependency is used."""
        if isinstance(subject, LostWrite):
            return self._lost(subject, evidence)
        if isinstance(subject, LateCommit):
            return self._late(subject)
        if isinstance(subject, RanRequest):
            seen = self._seen(subject, evidence, subject.key)
            return seen or subject.proof("no answer of the run left before its transaction was committed")
        assert isinstance(subject, SessionDependency)  # noqa: S101 - the other kind
        transactions = evidence.source.transactions
        if subject.provided is not None:
            return self._seen(subject, evidence) or self._contained(subject, subject.provided.by, evidence)
        swallowed = transactions.swallows(subject)
        if swallowed is not None:
            return subject.finding(
                "swallowed",
                f"{subject.short} catches an error around its yield and does not raise it again",
                place=swallowed,
                fix="raise  # as the last statement of the except block",
            )
        seen = self._seen(subject, evidence)
        if seen is not None:
            return seen
        failed = transactions.commits_errors(subject)
        if failed is not None:
            return subject.finding(
                "on-error",
                f"{subject.short} commits in a finally: half of a request that failed is stored",
                place=failed,
                fix="async with factory() as session, session.begin():\n    yield session",
            )
        commit = transactions.commit_of(subject)
        if commit is None:
            return self._without_commit(subject, evidence)
        early = [use for use in subject.uses if use.scope != Known("function")]
        if not early:
            told = _promise(subject, "commit") or f"commits at {commit}"
            return subject.proof(f"{told}, under function scope: before the response leaves", place=commit)
        mixed = len(early) < len(subject.uses)
        before = not transactions.exits_after_response
        fastapi = "FastAPI 0.118 and later" if before else "FastAPI"
        name = early[0].given
        places = f"at {early[0].place}" if len(early) == 1 else f"in {len(early)} places, first at {early[0].place}"
        return subject.finding(
            "two-scopes" if mixed else "after-response",
            f"{subject.short} is used under two scopes: two sessions, two transactions, one committed too late"
            if mixed
            else f"{subject.short} commits after its yield, which {fastapi} runs when the response has been sent",
            place=commit,
            fix=f'Depends({name}, scope="function")   # FastAPI 0.121; {places}',
            related=tuple((use.place, "used here") for use in early[:5]),
            severity=Severity.ADVICE if before and not mixed else Severity.ERROR,
            edits=() if before else function_scope(evidence.source, subject),
        )

    def _lost(self, subject: LostWrite, evidence: Evidence) -> Judgement:
        others = evidence.source.transactions.committers
        return subject.finding(
            "lost",
            f"{subject.key} writes, and nothing on its way commits: closing the session rolls it back",
            fix="await session.commit()   # before the route returns",
            consequence="The answer says that it was stored; it never is.",
            related=((others[0], "other code of the project commits itself"), (subject.route.place, "the route")),
        )

    def _late(self, subject: LateCommit) -> Judgement:
        return subject.finding(
            "after-response",
            f"`commit_mode={subject.mode!r}` of {subject.config} commits when the response has been sent, as "
            "advanced-alchemy does since its 1.9.3",
            fix=OF_YOUR_OWN.format(subject.config),
            related=tuple((use.place, "used here") for use in subject.uses[:5]),
        )

    def _contained(self, subject: SessionDependency, by: str, evidence: Evidence) -> Judgement:
        """A container goes on with its generators when what asked for them is over, whatever was raised."""
        commit = evidence.source.transactions.commit_of(subject)
        if commit is None:
            return self._without_commit(subject, evidence)
        if by == INJECTOR:
            closes = evidence.source.containers.closes
            when = "`Closing` runs when the request failed, too" if closes else "runs when the container shuts down"
            variant = "on-error" if closes else "after-response"
        else:
            when, variant = (
                "dishka runs when the response has been sent, and when the request failed, too",
                "after-response",
            )
        return subject.finding(
            variant,
            f"{subject.short} commits after its yield, which {when}",
            place=commit,
            fix="await session.commit()   # where the work is done, before the route returns",
        )

    def _seen(self, subject: Subject, evidence: Evidence, route: str | None = None) -> Judgement | None:
        """Believe a run in which an answer went out before its transaction had ended."""
        for request in evidence.recording.requests if evidence.recording is not None else ():
            if request.answered_before_commit and not of_tests(request.site) and route in {None, request.route}:
                where = next(iter(request.answered_before_commit_sites), request.route)
                lost = f", {request.lost_after_answer} of them were lost" if request.lost_after_answer else ""
                count = request.answered_before_commit
                answers = "an answer" if count == 1 else f"{count} answers"
                message = f"{answers} of {request.route} left before the commit{lost} ({where})"
                return subject.finding(
                    "answered-early", message, kind=Kind.RECORDING, fix='Depends(..., scope="function")'
                )
        return None

    def _without_commit(self, subject: SessionDependency, evidence: Evidence) -> Judgement:
        source = evidence.source
        transactions, connections = source.transactions, source.connections
        alone = subject.of == "connection"
        committers = connections.committers if alone else transactions.committers
        writers = connections.writers if alone else transactions.writers
        if committers:
            places = f"in {len(committers)} places, first" if len(committers) > 1 else "at"
            return subject.proof(
                f"the project's services commit themselves ({places} {committers[0]}); closing "
                f"the {'connection' if alone else 'session'} rolls back what they did not commit"
            )
        if not subject.yields:
            return subject.doubt(
                f"{subject.short} returns: nothing of it runs when the request ends",
                settle="yield the session: fastapi/yielded",
            )
        if transactions.handed_over is not None:
            return subject.doubt(
                f"whether what gets the session at {transactions.handed_over} commits is not settled by the source"
            )
        if not writers and transactions.unsettled is not None:
            return subject.doubt(f"nothing commits, and whether {transactions.unsettled} writes is not settled")
        if not writers:
            return subject.proof(f"nothing in the project writes through a {'connection' if alone else 'session'}")
        other = next((each for each in source.session_dependencies if transactions.commit_of(each) is not None), None)
        if other is not None:
            return subject.doubt(
                f"{other.short} commits; whether anything writes that {subject.short} is given to is not settled"
            )
        return subject.finding(
            "never",
            f"nothing commits: neither {subject.short} nor any service, yet {writers[0]} writes",
            fix='await session.commit()   # after the yield, with Depends(..., scope="function")',
        )


class Closed(Box[Subject]):
    """3.4."""

    name = "fastapi/closed"
    holds = "A request's session is closed with the request, and nothing uses it afterwards"
    fails = "Something uses a request's session after the request, or keeps it open"
    consequence = "The closed session opens itself again, unseen, and nobody gives its connection back."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the providers of sessions, and what takes a session beyond its request."""
        dependencies, ran = evidence.source.session_dependencies, requests_that_ran(evidence)
        sessions = (RanSessions(),) if ran else ()
        return Population((*dependencies, *evidence.source.escapes, *ran, *sessions), dependencies.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Every escape is a finding; a dependency without one is proved."""
        if isinstance(subject, Escape):
            if subject.into == "kept" and not evidence.source.transactions.exits_after_response:
                return subject.proof("FastAPI before 0.118 ends what yields before a stream begins")
            what, fix = ("the stream", BEFORE) if subject.into == "kept" else ("the generator", OWN)
            related = ((subject.opened, what),) if subject.opened is not None else ()
            return subject.finding(
                subject.into, _ESCAPES[subject.into].format(subject.session), fix=fix, related=related
            )
        seen = self._checked_out(subject, evidence) or self._unclosed(subject, evidence)
        if seen is not None:
            return seen
        kept = subject.provided if isinstance(subject, SessionDependency) else None
        if kept is not None and kept.by == INJECTOR and not evidence.source.containers.closes:
            message = f"without `Closing`, `{kept.name}` keeps its session until the container shuts down"
            return subject.finding("left-open", message, place=kept.place, fix=GIVE)
        if isinstance(subject, RanRequest | RanSessions):
            return subject.proof("in the run, no session and no connection was left open when its request was over")
        reopens = any(engine.option("close_resets_only") == Known(value=True) for engine in evidence.source.engines)
        promise = None if reopens else _promise(subject, "closed")
        return subject.proof(promise or "no stream, background task or generator of the application keeps its session")

    def _checked_out(self, subject: Subject, evidence: Evidence) -> Judgement | None:
        """Believe a run in which a connection was still checked out when its request was over."""
        route = subject.key if isinstance(subject, RanRequest | RanSessions) else None
        for request in evidence.recording.requests if evidence.recording is not None else ():
            if request.left_checked_out and route in {None, request.route}:
                where = next(iter(request.left_checked_out_sites), request.route)
                count = request.left_checked_out
                connections = "a connection was" if count == 1 else f"{count} connections were"
                message = f"{connections} still checked out when {request.route} was over ({where})"
                return subject.finding("left-open", message, kind=Kind.RECORDING, fix=GIVE)
        return None

    def _unclosed(self, subject: Subject, evidence: Evidence) -> Judgement | None:
        """Believe a run in which a session was never closed, or used again."""
        if isinstance(subject, RanRequest) or evidence.recording is None:
            return None
        for sessions in evidence.recording.sessions:
            if sessions.abandoned or sessions.reopened:
                what = (
                    f"{sessions.abandoned} never closed"
                    if sessions.abandoned
                    else f"{sessions.reopened} used again after close"
                )
                at = f"at {sessions.site}" if sessions.site is not None else "by a package"
                message = f"of the sessions made {at}, {what}"
                return subject.finding("left-open", message, kind=Kind.RECORDING, fix=GIVE)
        return None


_ESCAPES = {
    "background": "`{}` goes into a background task, which runs when the answer has been sent",
    "stream": "the body of the streaming response works with `{}`, and runs while the client reads",
    "endpoint": "the handler is a generator that works with `{}`: its body runs while the client reads",
    "next": "the session of `{}` is taken by anext(), and the generator behind it is never closed",
    "kept": "since FastAPI 0.118 `{}` keeps its transaction, and a connection, until the client has read the stream",
    "loop": "a loop over `{}` is left early: the generator, and its session, stay open",
}


def _promise(subject: Subject, option: str) -> str | None:
    """Quote what the library promises of its own dependency."""
    if not isinstance(subject, SessionDependency) or subject.function is not None:
        return None
    promise = guaranteed("verdigris.Database.request_session", option)
    return promise.reason if promise is not None else None
