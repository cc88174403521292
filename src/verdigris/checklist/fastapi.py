"""Section 3: how a request gets its session, and how its transaction ends."""

from __future__ import annotations

from verdigris.checklist.box import Box
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Judgement, Population
from verdigris.evidence.source.web import SessionDependency
from verdigris.evidence.values import Known


class CommitOrRollback(Box[SessionDependency]):
    """3.3."""

    name = "fastapi/commit-or-rollback"
    holds = "A request's transaction is committed before its answer leaves, and rolled back on any error"
    fails = "A request can be answered before its transaction was committed, or an error is swallowed"
    consequence = "A commit that fails after the answer left is a 200 for a write that was never stored."

    def subjects(self, evidence: Evidence) -> Population[SessionDependency]:
        """Name the providers of sessions that FastAPI calls."""
        return evidence.source.session_dependencies

    def judge(self, subject: SessionDependency, evidence: Evidence) -> Judgement:
        """Compare the place of the commit with the scope under which the dependency is used."""
        commit = evidence.source.transactions.commit_of(subject)
        swallowed = evidence.source.transactions.swallows(subject)
        if swallowed is not None:
            return subject.finding(
                "swallowed",
                f"{subject.short} catches an error around its yield and does not raise it again",
                place=swallowed,
                fix="raise  # as the last statement of the except block",
            )
        if commit is None:
            return self._without_commit(subject, evidence)
        early = [use for use in subject.uses if use.scope != Known("function")]
        if early:
            return subject.finding(
                "after-response",
                f"{subject.short} commits after its yield, which FastAPI runs when the response has been sent",
                place=commit,
                fix=f'Depends({subject.short}, scope="function")   # {len(early)} use(s), first at {early[0].place}',
                related=tuple((use.place, "used here") for use in early[:5]),
            )
        return subject.proof(f"commits at {commit} under function scope: before the response leaves", place=commit)

    def _without_commit(self, subject: SessionDependency, evidence: Evidence) -> Judgement:
        committers = evidence.source.transactions.committers
        if committers:
            return subject.proof(
                f"the project's services commit themselves ({len(committers)} places, first {committers[0]}); "
                "closing the session rolls back what they did not commit"
            )
        if not evidence.source.transactions.writers:
            return subject.proof("nothing in the project writes through a session")
        return subject.finding(
            "never",
            f"nothing commits: neither {subject.short} nor any service, yet {evidence.source.transactions.writers[0]} writes",
            fix="await session.commit()   # after the yield, with Depends(..., scope=\"function\")",
        )
