"""Section 1: how the program connects."""

from __future__ import annotations

from verdigris.checklist.box import Box
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Judgement, Kind, Population
from verdigris.evidence.source.engines import Engine
from verdigris.evidence.values import Known, Missing, Unknown

SPARE = 0.9  # of the server's connections: the rest is for deployments that overlap, psql and backups


class PrePing(Box[Engine]):
    """1.3."""

    name = "engine/pre-ping"
    holds = "Every pooled engine validates a connection before handing it out"
    fails = "An engine hands out connections it has not validated"
    consequence = (
        "After a restart, a failover or an idle time-out of the server, each connection that waited in the pool fails "
        "one request."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine]:
        """Name the engines whose connections wait in a pool."""
        return evidence.source.engines.where(lambda engine: engine.pooled != Known(value=False))

    def judge(self, subject: Engine, evidence: Evidence) -> Judgement:
        """Believe a run first, then the source."""
        for seen in evidence.ran(subject):
            if seen.pre_ping is False:
                return self._off(subject, f"`{subject.short}` ran without pre-ping", Kind.RECORDING)
            if seen.pre_ping is True:
                return subject.proof(f"`{subject.short}` ran with pool_pre_ping on", kind=Kind.RECORDING)
        match subject.option("pool_pre_ping"):
            case Known(value, by) if value:
                return subject.proof(by or "pool_pre_ping=True")
            case Known() | Missing():
                return self._off(subject, f"`pool_pre_ping` is off on `{subject.short}`", Kind.SOURCE)
            case Unknown(reason):
                return subject.doubt(f"whether `{subject.short}` pings is not settled: {reason}")

    def _off(self, engine: Engine, message: str, kind: Kind) -> Judgement:
        return engine.finding("off", message, fix=engine.with_option("pool_pre_ping", "True"), kind=kind)


class PoolSize(Box[Engine]):
    """1.4."""

    name = "engine/pool-size"
    holds = "Every pool's size is chosen on purpose and fits the server"
    fails = "A pool's size was never chosen, or does not fit the server"
    consequence = (
        "Too small, and requests queue for connections; too large, and the server refuses the last worker's with 53300."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine]:
        """Name the engines whose connections wait in a pool."""
        return evidence.source.engines.where(lambda engine: engine.pooled != Known(value=False))

    def judge(self, subject: Engine, evidence: Evidence) -> Judgement:
        """Ask whether the size is set, then whether the sum fits the live server."""
        size, overflow = subject.option("pool_size"), subject.option("max_overflow")
        seen = next((ran for ran in evidence.ran(subject) if ran.pool_size is not None), None)
        if isinstance(size, Missing):
            return subject.finding(
                "default",
                f"`{subject.short}` has the default pool: 5 connections and 10 of overflow, whatever the load",
                fix=subject.with_option("pool_size", "10", max_overflow="5", pool_timeout="3"),
            )
        if seen is None and isinstance(size, Unknown):
            return subject.doubt(f"the pool's size is not settled: {size.reason}")
        if evidence.database is None:
            return subject.doubt(
                "the size is chosen; whether it fits the server is not known",
                settle="give the database: VERDIGRIS_DATABASE_URL=… verdigris check --evidence source,database",
            )
        most = (seen.pool_size or 0, seen.max_overflow or 0) if seen else (_number(size, 5), _number(overflow, 10))
        return self._fits(subject, evidence, sum(most))

    def _fits(self, engine: Engine, evidence: Evidence, each: int) -> Judgement:
        assert evidence.database is not None  # noqa: S101 - the caller asked; said for the type checker
        workers = evidence.workers or 1
        free = evidence.database.connections_available
        sum_ = f"{workers} worker{'s' * (workers != 1)} x {each} = {workers * each} of the server's {free} free connections"
        if workers * each > free:
            return engine.finding(
                "too-many",
                f"`{engine.short}` may open more connections than the server has: {sum_}",
                fix=engine.with_option("pool_size", str(max(1, free // workers - 2)), max_overflow="2"),
                kind=Kind.DATABASE,
            )
        return engine.proof(sum_, kind=Kind.DATABASE)


def _number(value: object, default: int) -> int:
    return value.value if isinstance(value, Known) and isinstance(value.value, int) else default
