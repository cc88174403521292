"""Section 1: how the program connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity
from verdigris.evidence.pooling import OVERFLOW, SIZE, PoolTimeout, bounds
from verdigris.evidence.ran import RanEngine, with_unseen
from verdigris.evidence.source.concurrency.blocking import BlockingUse
from verdigris.evidence.source.engine.configs import urls_of
from verdigris.evidence.source.engine.drivers import is_async
from verdigris.evidence.source.engine.engines import UNPOOLED, Engine, told_apart
from verdigris.evidence.source.engine.poolers import is_off, with_cache_off
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.source.engine.urls import Text


class AsyncEngine(Box[Engine | RanEngine | BlockingUse]):
    """1.1."""

    name = "engine/async-engine"
    holds = "Every engine that asynchronous code uses is an AsyncEngine"
    fails = "Asynchronous code waits for a synchronous engine"
    consequence = (
        "While one request waits for the database, the event loop stands still and every other request waits too."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine | BlockingUse]:
        """Name the engines, and the async functions that wait for a synchronous one."""
        engines = with_unseen(told_apart(evidence.source.engines), evidence)
        return Population((*engines, *evidence.source.blocking_uses), engines.gaps)

    def judge(self, subject: Engine | RanEngine | BlockingUse, evidence: Evidence) -> Judgement:
        """Accept synchronous engines that only synchronous code uses: migrations, commands, workers, threads."""
        if isinstance(subject, BlockingUse):
            return subject.finding(
                subject.variant,
                subject.told,
                fix="async with async_session() as session: ...   # or: await asyncio.to_thread(function)",
                related=tuple((place, "here too") for place in subject.uses[1:5]),
            )
        for seen in evidence.ran(subject):
            if seen.in_event_loop:
                where = max(seen.in_event_loop, key=lambda site: seen.in_event_loop[site])
                count = seen.in_event_loop[where]
                message = (
                    f"`{subject.short}` ran {count} statements of a synchronous driver on the event loop at {where}"
                )
                return subject.finding("sync-in-async", message, kind=Kind.RECORDING)
        if subject.mode == "async":
            return subject.proof(f"`{subject.short}` is an AsyncEngine")
        if evidence.source.blocking_uses:
            return subject.proof(f"`{subject.short}` is synchronous; who uses it from async code is listed")
        return subject.proof(f"`{subject.short}` is synchronous, and no async function of the application waits for it")


_CACHE = (
    "In transaction mode a statement is prepared on one server connection and used on another: under load, requests "
    'fail with 26000 `prepared statement "__asyncpg_stmt_1__" does not exist`.'
)
_NAMES = (
    "Names that are unique do not help: in transaction mode the statement is prepared on one server connection and "
    "used on another (26000), and what was prepared stays there for ever."
)


class AsyncDriver(Box[Engine | RanEngine]):
    """1.2."""

    name = "engine/async-driver"
    holds = "Every async engine's URL names an async driver"
    fails = "An async engine's URL names no driver, or one that is not asynchronous"
    consequence = (
        "SQLAlchemy 2.0 refuses such a URL at start; 2.1 takes psycopg for a bare postgresql://, whose errors and "
        "options are not those the code was written for."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine]:
        """Name the asynchronous engines."""
        engines = with_unseen(evidence.source.engines, evidence).where(lambda engine: engine.mode == "async")
        return Population((*engines, *evidence.source.migration_engines), engines.gaps)

    def judge(self, subject: Engine | RanEngine, evidence: Evidence) -> Judgement:
        """Read the URL's scheme, through settings and rewriting; believe a run first."""
        for seen in evidence.ran(subject):
            if is_async(f"{seen.dialect}+{seen.driver}") is False:
                message = f"`{subject.short}` ran on the synchronous driver {seen.driver}"
                return subject.finding("sync-driver", message, kind=Kind.RECORDING)
            if seen.driver:
                return subject.proof(f"ran on {seen.dialect}+{seen.driver}{_note(seen.driver)}", kind=Kind.RECORDING)
        promise = guaranteed(subject.maker.dotted, "driver")
        if promise is not None:
            return self._refused(subject, evidence) or subject.proof(f"{promise.reason}{_behind(subject, evidence)}")
        pooled = self._through_pooler(subject, evidence) if isinstance(subject, Engine) else None
        if pooled is not None:
            return pooled
        texts = urls_of(evidence.source, subject) if isinstance(subject, Engine) else []
        wrong = [text for text in texts if text.scheme is not None and is_async(text.scheme) is False]
        unknown = [text for text in texts if text.scheme is None or is_async(text.scheme) is None]
        if texts and len(wrong) == len(texts):
            return self._wrong(subject, wrong[0])
        if wrong or unknown or not texts:
            reason = "it has more than one value" if texts else "it is not among the arguments that the source shows"
            reason = unknown[0].reason if unknown and unknown[0].reason else reason
            said = f"; one of them is {wrong[0].scheme}:// ({wrong[0].by or wrong[0].place})" if wrong else ""
            return subject.doubt(f"which driver the URL of `{subject.short}` names is not settled: {reason}{said}")
        told = sorted(
            {f"{text.scheme}://{_note(text.scheme or '')}{f', {text.by}' if text.by else ''}" for text in texts}
        )
        return subject.proof("; ".join(told))

    def _refused(self, engine: Engine | RanEngine, evidence: Evidence) -> Judgement | None:
        """The library refuses another driver when it is made: a URL that names one never starts."""
        texts = [] if engine.url is None else evidence.source.urls.drivers(engine.url)
        named = next(
            (text for text in texts if "+" in (text.scheme or "") and text.scheme != "postgresql+asyncpg"), None
        )
        if named is None:
            return None
        message = f"the URL of `{engine.short}` names {named.scheme}, which Database refuses at start"
        return engine.finding("refused", message, fix="postgresql+asyncpg://…", place=named.place)

    def _through_pooler(self, engine: Engine, evidence: Evidence) -> Judgement | None:
        """A pooler in transaction mode lends a server connection for one transaction; what was prepared stays on it."""
        behind = None if engine.adopted else evidence.source.poolers.before(engine)
        if behind is None:
            return None
        through = f"`{engine.short}` goes through {behind.pooler}"
        if isinstance(behind.cache, Unknown) and not behind.named:
            return engine.doubt(
                f"{through}, and whether asyncpg's statement cache is on is open: {behind.cache.reason}"
            )
        if is_off(behind.cache) and not behind.named:
            return None
        names = "names of its own for prepared statements" if behind.named else "asyncpg's statement cache on"
        return engine.finding(
            "pgbouncer-names" if behind.named else "pgbouncer-cache",
            f"{through} with {names}",
            fix=with_cache_off(engine),
            consequence=_NAMES if behind.named else _CACHE,
        )

    def _wrong(self, engine: Engine | RanEngine, text: Text) -> Judgement:
        dialect, _, driver = (text.scheme or "").partition("+")
        base = "postgresql" if dialect == "postgres" else dialect
        right = {"postgresql": "asyncpg", "sqlite": "aiosqlite", "mysql": "asyncmy", "mariadb": "asyncmy"}.get(base, "")
        source = f" ({text.by})" if text.by else ""
        if driver:
            variant, message = (
                "sync-driver",
                f"the URL of `{engine.short}` names the synchronous driver {driver}{source}",
            )
        else:
            variant = "no-driver"
            message = f"the URL of `{engine.short}` names no driver{source}: SQLAlchemy 2.0 takes a synchronous one"
            if dialect == "postgresql":
                message += ", 2.1 takes psycopg"
        return engine.finding(variant, message, fix=f"{base}+{right}://…", place=text.place)


def _behind(subject: Engine | RanEngine, evidence: Evidence) -> str:
    """Quote the library's promise about the pooler before an engine, unless the engine says that there is none."""
    promise = guaranteed(subject.maker.dotted, "pgbouncer")
    if promise is None or not isinstance(subject, Engine) or subject.option("pgbouncer") == Known(value=False):
        return ""
    behind = evidence.source.poolers.before(subject)
    return "" if behind is None else f"; behind {behind.pooler} it {promise.promise}"


class PrePing(Box[Engine | RanEngine]):
    """1.3."""

    name = "engine/pre-ping"
    holds = "Every pooled engine validates a connection before handing it out"
    fails = "An engine hands out connections it has not validated"
    consequence = (
        "After a restart, a failover or an idle time-out of the server, each connection that waited in the pool fails "
        "one request."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine]:
        """Name the engines whose connections wait in a pool."""
        return _pooled(told_apart(evidence.source.pooled_engines, "pool_pre_ping"), evidence)

    def judge(self, subject: Engine | RanEngine, evidence: Evidence) -> Judgement:
        """Believe a run first, then the source."""
        for seen in evidence.ran(subject):
            if seen.pool_class in UNPOOLED:  # as in tests: nothing waited, and nothing is said of where it does
                continue
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

    def _off(self, engine: Engine | RanEngine, message: str, kind: Kind) -> Judgement:
        return engine.lacks("off", message, "pool_pre_ping", "True", kind)


class PoolSize(Box[Engine | RanEngine | PoolTimeout]):
    """1.4."""

    name = "engine/pool-size"
    holds = "Every pool's size is chosen on purpose and fits the server"
    fails = "A pool's size was never chosen, or does not fit the server"
    consequence = (
        "Too small, and requests queue for connections; too large, and the server refuses the last worker's with 53300."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine | PoolTimeout]:
        """Name the engines whose connections wait in a pool, and the pools that let a request wait too long."""
        told = told_apart(evidence.source.pooled_engines, "pool_size", "max_overflow", "pool_timeout")
        engines = _pooled(told, evidence)
        return Population(
            (*engines, *(PoolTimeout.of(engine) for engine in engines if PoolTimeout.long(engine))), engines.gaps
        )

    def judge(self, subject: Engine | RanEngine | PoolTimeout, evidence: Evidence) -> Judgement:
        """Ask whether the size is set, then whether the sum fits the live server."""
        if isinstance(subject, PoolTimeout):
            return subject.finding(
                "patience",
                f"a request waits {subject.told} for a connection of `{subject.engine.short}`, its client does not",
                fix=subject.engine.with_option("pool_timeout", "3"),
                severity=Severity.ADVICE,
            )
        if subject.given("pool_size") is False and guaranteed(subject.maker.dotted, "pool_size") is None:
            return subject.finding(
                "default",
                f"`{subject.short}` has the default pool: 5 connections and 10 of overflow, whatever the load",
                fix=subject.with_option("pool_size", "10", max_overflow="5", pool_timeout="3"),
            )
        bound = bounds(subject, evidence)
        if isinstance(subject, RanEngine) and (bound.size, bound.overflow) == (SIZE, OVERFLOW):
            return subject.doubt(f"`{subject.short}` ran with the default pool; whether that was chosen is not known")
        if bound.endless is not None:
            return subject.finding(
                "endless", bound.endless, fix=subject.with_option("pool_size", "10", max_overflow="5")
            )
        if subject.given("pool_size") is None and bound.each is None:
            return subject.doubt(f"whether the pool's size is chosen is not settled: {bound.told}")
        server = evidence.database
        if server is None or server.in_recovery:
            known, give = ("is not known", "database") if server is None else ("no standby says", "primary")
            return subject.doubt(
                f"the size is chosen ({bound.told}); whether it fits the server {known}",
                settle=f"give the {give}: VERDIGRIS_DATABASE_URL=… verdigris check --evidence source,database",
            )
        if bound.each is None:
            return subject.doubt(f"whether the pool fits the server is not known: {bound.told}")
        if bound.total > bound.free:
            return subject.finding(
                "too-many",
                f"`{subject.short}` may open more connections than the server has: {bound.sum}",
                fix=subject.with_option("pool_size", str(bound.share), max_overflow="2"),
                kind=Kind.DATABASE,
                edits=subject.pool_edits(pool_size=str(bound.share), max_overflow="2"),
            )
        if bound.together > bound.free:
            return subject.doubt(
                f"it fits alone ({bound.sum}), but all pools of the application together may open {bound.together}",
                settle="record a run: it shows which engines one process makes",
            )
        return subject.proof(f"{bound.sum}; {bound.told}", kind=Kind.DATABASE)


class Recycle(Box[Engine | RanEngine]):
    """1.5."""

    name = "engine/recycle"
    holds = "Every pool replaces its connections after a finite time"
    fails = "A pool keeps its connections for ever"
    consequence = (
        "A firewall, proxy or server that closes idle connections does it unseen, and after a failover or a scale-out "
        "the old connections stay where they were."
    )

    def subjects(self, evidence: Evidence) -> Population[Engine | RanEngine]:
        """Name the engines whose connections wait in a pool."""
        return _pooled(told_apart(evidence.source.pooled_engines, "pool_recycle"), evidence)

    def judge(self, subject: Engine | RanEngine, evidence: Evidence) -> Judgement:
        """Ask for a finite time, and for one below the server's own limit where the server was asked."""
        told: str | None = None
        kind = Kind.SOURCE
        seconds = subject.option("pool_recycle")
        for seen in evidence.ran(subject):
            if seen.pool_recycle is not None:
                seconds, kind, told = (
                    Known(seen.pool_recycle),
                    Kind.RECORDING,
                    f"ran with pool_recycle={seen.pool_recycle}",
                )
        match seconds:
            case Missing() | Known(value=None):
                return self._never(subject, f"`pool_recycle` is not set on `{subject.short}`", kind)
            case Known(value=int() | float() as value) if value < 0:
                return self._never(subject, f"`pool_recycle` is off on `{subject.short}`", kind)
            case Known(value=int() | float() as value, by=by):
                return self._against(subject, value, told or by or f"pool_recycle={value}", kind, evidence)
            case Known(value=value):
                return subject.doubt(f"`pool_recycle` is {value!r}, which is no number of seconds")
            case Unknown(reason):
                return subject.doubt(f"`pool_recycle` of `{subject.short}` is not settled: {reason}")

    def _never(self, engine: Engine | RanEngine, message: str, kind: Kind) -> Judgement:
        return engine.lacks("never", message, "pool_recycle", "1800", kind)

    def _against(
        self, engine: Engine | RanEngine, seconds: float, told: str, kind: Kind, evidence: Evidence
    ) -> Judgement:
        database = evidence.database
        limit = database.idle_session_timeout if database is not None and not database.in_recovery else None
        if limit and seconds >= limit:
            return engine.finding(
                "above-limit",
                f"`{engine.short}` recycles after {seconds:g} s, and the server closes idle sessions after {limit:g} s",
                fix=engine.with_option("pool_recycle", str(int(limit * 0.8))),
                kind=Kind.DATABASE,
            )
        return engine.proof(told, kind=kind)


def _pooled(engines: Population[Engine], evidence: Evidence) -> Population[Engine | RanEngine]:
    """Add the engines with a pool that only a run saw."""
    return with_unseen(engines, evidence).where(lambda engine: engine.pooled != Known(value=False))


def _note(driver: str) -> str:
    """Asyncpg is what the checklist names; others are asynchronous too."""
    name = driver.rpartition("+")[2]
    return "" if name == "asyncpg" else f" ({name} is asynchronous too, though not asyncpg)"
