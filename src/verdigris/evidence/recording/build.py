"""From the recorder's totals to a recording: spots become sites, texts become statements without values."""

from __future__ import annotations

import platform
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import verdigris
from verdigris.evidence.recording import artefact, statements
from verdigris.evidence.recording.histogram import quantile
from verdigris.evidence.recording.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verdigris.evidence.recording.factories import FactoryState
    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.units import EngineState, RequestState, Text

_PACKAGES = ("sqlalchemy", "asyncpg", "psycopg", "fastapi", "starlette", "pydantic", "sqlmodel", "pytest", "greenlet")
_LEFT_NS = 250_000_000


def build(recorder: Recorder) -> artefact.Recording:
    """Tell what a recorder has seen so far; what is still running counts as far as it got."""
    from verdigris.evidence.recording.merge import merge

    folded = _Builder(recorder, recorder.ledger).recording()
    alive = Ledger()
    for unit in list(recorder.units.alone):
        _try(recorder, lambda unit=unit: alive.peek(unit))
    running = _Builder(recorder, alive).flow()
    return merge([folded, running])


def _try(recorder: Recorder, step: Any) -> Any:
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
        recorder.trouble("the artefact", error)
        return ()


class _Builder:
    def __init__(self, recorder: Recorder, ledger: Ledger) -> None:
        self.recorder = recorder
        self.ledger = ledger
        self.site = recorder.places.site
        self.engine_ids = _ids(recorder.engines.states.values(), self.site)
        self.factory_ids = _ids(recorder.factories.states.values(), self.site)
        self.prints: dict[Text, tuple[str, str]] = {}

    def recording(self) -> artefact.Recording:
        recorder = self.recorder
        parts: dict[str, Any] = {
            "engines": self.engines,
            "factories": self.factories,
            "sessions": self.sessions,
            "overlaps": self.overlaps,
            "requests": self.requests,
            "routes": lambda: tuple(sorted(recorder.requests.offered)),
            "pools": self.pools,
            "query_times": self.query_times,
            "models": self.models,
        }
        built = {name: _try(recorder, part) for name, part in parts.items()}
        if built["query_times"] == ():
            built["query_times"] = artefact.QueryTimes()
        return replace(
            self.flow(),
            verdigris=verdigris.__version__,
            python=platform.python_version(),
            versions={name: found for name in _PACKAGES if name in sys.modules and (found := _version(name))},
            root=recorder.root.name,
            command=tuple(sys.orig_argv),
            started=recorder.started.isoformat(timespec="seconds"),
            seconds=perf_counter() - recorder.clock,
            processes=1,
            tests=recorder.tests.facts() if recorder.tests is not None and recorder.tests.run else None,
            recorder_errors=tuple(
                artefact.RecorderError(where, message, count)
                for (where, message), count in list(recorder.troubles.items())
            ),
            **built,
        )

    def flow(self) -> artefact.Recording:
        """Return what units of work did, which is all that may still be running."""
        parts = {
            "statements": self.statements,
            "repeats": self.repeats,
            "lazy_loads": self.lazy_loads,
            "raise_hits": self.raise_hits,
            "cartesian": self.cartesian,
            "inserts": self.inserts,
            "copies": self.copies,
            "errors": self.errors,
            "explains": self.explains,
        }
        return artefact.Recording(**{name: _try(self.recorder, part) for name, part in parts.items()})

    def fingerprint(self, text: Text) -> str:
        found = self.prints.get(text)
        if found is None:
            short = statements.normalise(text.sql)
            found = self.prints[text] = (statements.fingerprint(short), short)
        return found[0]

    # Engines and pools

    def engines(self) -> tuple[artefact.Engine, ...]:
        return tuple(
            artefact.Engine(
                id=self.engine_ids[state],
                site=self.site(state.spot),
                created=state.created,
                created_in_requests=state.created_in_requests,
                disposed=state.disposed,
                statements=state.statements,
                in_event_loop=self.by_site(state.on_loop),
                loop_crossings=self.by_site(state.crossings),
                query_listeners=_listeners(state, "before_cursor_execute", "after_cursor_execute"),
                pool_listeners=_listeners(state, "checkout", "checkin", "connect", pool=True),
                **state.last_facts(),
            )
            for state in self.recorder.engines.states.values()
        )

    def pools(self) -> tuple[artefact.Pool, ...]:
        return tuple(self._pool(state) for state in self.recorder.engines.states.values() if state.waits.count)

    def _pool(self, state: EngineState) -> artefact.Pool:
        facts = state.last_facts()
        size, overflow = facts["pool_size"], facts["max_overflow"]
        waits, held = state.waits.counts(), state.held.counts()
        longest_wait, longest_held = state.waits.longest / 1e6, state.held.longest / 1e6
        return artefact.Pool(
            engine=self.engine_ids[state],
            checkouts=state.waits.count,
            wait_p50_ms=quantile(waits, 0.5, longest_wait),
            wait_p99_ms=quantile(waits, 0.99, longest_wait),
            wait_max_ms=longest_wait,
            timeouts=state.timeouts,
            high_water=state.high_water,
            capacity=None if size is None or overflow is None or overflow < 0 else size + overflow,
            connects=state.connects,
            connect_max_ms=state.longest_connect / 1e6,
            pings=state.pings,
            invalidated=state.invalidated,
            held_p50_ms=quantile(held, 0.5, longest_held),
            held_p99_ms=quantile(held, 0.99, longest_held),
            held_max_ms=longest_held,
            held_total_ms=state.held.total / 1e6,
            statement_total_ms=state.statement_ns / 1e6,
            max_concurrent_requests=state.requests_max,
            longest_holder=self.site(state.holder),
            wait_histogram=waits,
            held_histogram=held,
        )

    def query_times(self) -> artefact.QueryTimes:
        watchers: dict[str, None] = {}
        for state in self.recorder.engines.states.values():
            watchers.update(dict.fromkeys(_listeners(state, "before_cursor_execute", "after_cursor_execute")))
            watchers.update(dict.fromkeys(_wrappers(state)))
        return artefact.QueryTimes(watchers=tuple(watchers))

    # Factories and sessions

    def factories(self) -> tuple[artefact.Factory, ...]:
        return tuple(self._factory(state) for state in self.recorder.factories.states.values())

    def _factory(self, state: FactoryState) -> artefact.Factory:
        from verdigris.evidence.recording.facts import factory_facts

        maker = state.maker()
        facts = {
            **state.facts,
            **(factory_facts(maker) if maker is not None else {}),
        }  # configure() may have come later
        engine = facts.pop("engine") or state.facts["engine"]
        return artefact.Factory(
            id=self.factory_ids[state],
            site=self.site(state.spot),
            created=state.created,
            created_in_requests=state.created_in_requests,
            engine=self.engine_ids.get(engine),
            **facts,
        )

    def sessions(self) -> tuple[artefact.Sessions, ...]:
        from verdigris.evidence.recording.facts import name_of

        watch = self.recorder.sessions
        abandoned = watch.abandoned()
        return tuple(
            artefact.Sessions(
                site=self.site(spot),
                factory=self.factory_ids.get(factory),
                session_class=name_of(kind),
                is_async=is_async,
                created=total.created,
                used=total.used,
                closed=total.closed,
                abandoned=abandoned.get(key, 0),
                reopened=total.reopened,
                expire_on_commit=expire,
                autoflush=autoflush,
                identity_map_max=total.identity_max,
                commits=total.commits,
                rollbacks=total.rollbacks,
            )
            for key, total in list(watch.totals.items())
            if total.created > 0
            for spot, factory, kind, is_async, expire, autoflush in [key]
        )

    def overlaps(self) -> tuple[artefact.Overlap, ...]:
        return tuple(
            artefact.Overlap(
                site=self.site(there),
                other_site=self.site(here),
                operation=first,
                other_operation=second,
                session_site=self.site(opened),
                count=count,
                route=_label(request),
            )
            for (there, here, first, second, opened), (count, request) in list(self.recorder.sessions.overlaps.items())
        )

    # Requests and statements

    def requests(self) -> tuple[artefact.Request, ...]:
        left: defaultdict[str, Counter[Spot | None]] = defaultdict(Counter)
        now = perf_counter_ns()
        for request, checkout in self.recorder.requests.suspects:
            if id(checkout) in request.checkouts and now - request.ended > _LEFT_NS:
                left[request.label][checkout.spot] += 1
        return tuple(
            artefact.Request(
                route=route,
                count=total.count,
                statuses=dict(sorted(total.statuses.items())),
                statements=total.statements,
                statements_max=total.statements_max,
                total_ms=total.total_ns / 1e6,
                max_ms=total.max_ns / 1e6,
                disconnected=total.disconnected,
                answered_before_commit=total.early,
                answered_before_commit_sites=self.by_site(total.early_spots),
                lost_after_answer=total.lost,
                answered_while_reading=total.reading,
                left_checked_out=sum((total.left + left[route]).values()),
                left_checked_out_sites=self.by_site(total.left + left[route]),
                transactions=total.transactions,
                writing_transactions=total.writing,
                connection_ms=total.connection_ns / 1e6,
                statement_ms=total.statement_ns / 1e6,
                **total.scope,
            )
            for route, total in sorted(self.ledger.routes.items())
        )

    def statements(self) -> tuple[artefact.Statement, ...]:
        uses: defaultdict[str, list[artefact.StatementUse]] = defaultdict(list)
        first: dict[str, Text] = {}
        for (text, spot), use in list(self.ledger.uses.items()):
            key = self.fingerprint(text)
            first.setdefault(key, text)
            uses[key].append(
                artefact.StatementUse(
                    site=self.site(spot),
                    count=use.count,
                    total_ms=use.total / 1e6,
                    max_ms=use.longest / 1e6,
                    rows=use.rows,
                    rows_max=use.rows_max,
                    errors=use.errors,
                    routes=dict(use.routes),
                    executemany=use.batches,
                    executemany_rows_max=use.batch_max,
                )
            )
        return tuple(self._statement(key, text, uses[key]) for key, text in first.items())

    def _statement(self, key: str, text: Text, uses: list[artefact.StatementUse]) -> artefact.Statement:
        short = self.prints[text][1]
        return artefact.Statement(
            fingerprint=key,
            text=short,
            kind=text.kind,
            tables=statements.tables(short),
            engine=self.engine_ids.get(text.engine) if text.engine is not None else None,
            count=sum(use.count for use in uses),
            total_ms=sum(use.total_ms for use in uses),
            max_ms=max(use.max_ms for use in uses),
            rows=sum(use.rows for use in uses),
            uses=tuple(uses),
        )

    def repeats(self) -> tuple[artefact.Repeat, ...]:
        return tuple(
            artefact.Repeat(
                self.fingerprint(text), self.site(spot), scope, peak.max, peak.other, peak.scopes, peak.route
            )
            for (text, spot, scope), peak in list(self.ledger.repeats.items())
        )

    def lazy_loads(self) -> tuple[artefact.LazyLoad, ...]:
        return tuple(
            artefact.LazyLoad(
                attribute=attribute,
                kind=kind,
                uselist=total.uselist,
                site=self.site(spot),
                query_site=self.site(query),
                would_raise=total.would_raise,
                count=total.count,
                max_in_scope=total.max,
                parents=total.parents,
                phase=phase,
                route=total.route,
            )
            for (attribute, kind, spot, query, phase), total in list(self.ledger.lazies.items())
        )

    def raise_hits(self) -> tuple[artefact.RaiseHit, ...]:
        return tuple(
            artefact.RaiseHit(attribute, lazy, self.site(spot), self.site(query), count, phase, route)
            for ((attribute, lazy, spot, query, phase), route), count in list(self.ledger.raised.items())
        )

    def cartesian(self) -> tuple[artefact.CartesianRows, ...]:
        return tuple(
            artefact.CartesianRows(self.fingerprint(text), self.site(spot), rows, objects, count, route)
            for (text, spot), (rows, objects, count, route) in list(self.ledger.cartesian.items())
            if text.sql.upper().count(" JOIN ") > 1
        )

    def inserts(self) -> tuple[artefact.Inserts, ...]:
        return tuple(
            artefact.Inserts(
                table=table,
                site=self.site(spot),
                statements=total["statements"],
                rows=total["rows"],
                rows_max=total["rows_max"],
                single_row_max=total["single"],
                seconds=total["ns"] / 1e9,
                route=total["route"],
            )
            for (table, spot), total in list(self.ledger.inserts.items())
        )

    def copies(self) -> tuple[artefact.Copy, ...]:
        return tuple(
            artefact.Copy(
                table=table,
                site=self.site(spot),
                calls=total["calls"],
                rows=total["rows"],
                seconds=total["ns"] / 1e9,
                chunks=tuple(artefact.Chunk(rows, elapsed / 1e9) for rows, elapsed in total["chunks"]),
                route=total["route"],
            )
            for (table, spot), total in list(self.ledger.copies.items())
        )

    def errors(self) -> tuple[artefact.DatabaseFailure, ...]:
        return tuple(
            artefact.DatabaseFailure(error, code, status, count, self.site(spot), route, swallowed, retried)
            for (error, code, status, spot, route), (count, swallowed, retried) in list(self.ledger.failures.items())
        )

    def explains(self) -> tuple[artefact.Explain, ...]:
        found = []
        for (text, spot), use in list(self.ledger.uses.items()):
            inner = statements.explained(text.sql) if text.kind == "EXPLAIN" else None
            if inner is not None:
                plan = self.recorder.plans.get(text, "")
                key = statements.fingerprint(statements.normalise(inner[0]))
                found.append(artefact.Explain(key, inner[1], use.count, use.total / 1e6, plan, self.site(spot)))
        return tuple(found)

    def models(self) -> tuple[artefact.Model, ...]:
        if "sqlalchemy.orm" not in sys.modules:
            return ()
        from verdigris.evidence.recording.mappers import models

        return models(self.recorder.places)

    def by_site(self, counts: Mapping[Spot | None, int]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for spot, count in list(counts.items()):
            found[self.site(spot) or ""] += count
        return dict(found)


def _ids(states: Iterable[Any], site: Any) -> dict[Any, str]:
    seen: Counter[str] = Counter()
    found = {}
    for number, state in enumerate(states, 1):
        name = site(state.spot) or f"unknown-{number}"
        seen[name] += 1
        found[state] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return found


def _label(request: RequestState | None) -> str | None:
    return request.label or None if request is not None else None


def _listeners(state: EngineState, *names: str, pool: bool = False) -> tuple[str, ...]:
    from verdigris.evidence.recording.facts import name_of

    found: dict[str, None] = {}
    for engine in filter(None, (ref() for ref in state.engines)):
        target = engine.pool if pool else engine
        for name in names:
            found.update(dict.fromkeys(name_of(_listener(function)) for function in getattr(target.dispatch, name, ())))
    return tuple(name for name in found if not name.startswith(("sqlalchemy.", "verdigris.evidence.")))


def _listener(function: Any) -> Any:
    """Look through what SQLAlchemy puts around a listener to give it another signature."""
    if str(getattr(function, "__module__", "")).startswith("sqlalchemy."):
        for cell in getattr(function, "__closure__", None) or ():
            if callable(cell.cell_contents):
                return cell.cell_contents
    return function


def _wrappers(state: EngineState) -> tuple[str, ...]:
    """Name who else overrides `do_execute` on the dialect, over ours or under it."""
    from verdigris.evidence.recording.facts import name_of

    found = []
    for engine in filter(None, (ref() for ref in state.engines)):
        function = engine.dialect.__dict__.get("do_execute")
        if function is not None and not function.__module__.startswith("verdigris.evidence."):
            found.append(name_of(function))
    return tuple(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
