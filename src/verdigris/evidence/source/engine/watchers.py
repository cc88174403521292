"""What watches the pool and the queries: listeners, instrumentation libraries, gauges of one's own."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.values import Place

#: Libraries whose call instruments SQLAlchemy, and what of it they measure.
_LIBRARIES = {
    "SQLAlchemyInstrumentor": ("pool", "times"),
    "instrument_sqlalchemy": ("pool", "times"),
    "instrument_asyncpg": ("times",),
    "AsyncPGInstrumentor": ("times",),
    "SqlalchemyIntegration": ("times",),
    "AsyncPGIntegration": ("times",),
    "patch_all": ("times",),
}
#: What takes the figures of a Database, which measures by itself, to where somebody sees them.
_EXPORTERS = ("PrometheusCollector", "prometheus_text", "observe_with_opentelemetry", "pool_status")
#: Of these, the ones that reach an engine by taking the place of `create_async_engine`, where none is named.
_REPLACING = {"SQLAlchemyInstrumentor", "instrument_sqlalchemy"}
#: Integrations of Sentry, which record spans only where Sentry traces.
_SPANS = {"SqlalchemyIntegration", "AsyncPGIntegration"}
_TRACES = {"traces_sample_rate", "traces_sampler", "enable_tracing", None}  # None: `**options`
_CURSOR = {"before_cursor_execute", "after_cursor_execute", "do_execute"}
_POOL = {"checkout", "checkin"}
_GAUGES = ("checkedout", "checkedin", "overflow")


@dataclass(frozen=True, slots=True)
class Watcher:
    """Something that measures or exports: `what` is pool, times or exported, `name` is what a reader would call it.

    `unaimed` says that it names no engine, and reaches only those that are made by what it has replaced.
    """

    what: str
    name: str
    place: Place
    unaimed: bool = False


def watchers(source: Source) -> Iterator[Watcher]:
    """Yield everything in application code that measures the pool or the queries, or exports the library's figures."""
    yield from _libraries(source)
    for call in source.calls.named(*_EXPORTERS):
        if call.module.role is Role.APPLICATION:
            yield Watcher("exported", f"{ast.unparse(call.node.func)}()", call.place)
    for call in source.calls.named("listens_for", "listen"):
        if call.module.role is Role.APPLICATION and _is_event(source, call):
            yield from _listener(source, call)
    for call in source.calls.named(*_GAUGES):
        if (
            call.module.role is Role.APPLICATION
            and isinstance(call.node.func, ast.Attribute)
            and _is_pool(call.node.func.value)
        ):
            yield Watcher("pool", f"{ast.unparse(call.node.func)}()", call.place)
    for sentry in _sentry(source):
        if _traces(sentry):
            yield Watcher("times", "sentry_sdk.init(), which traces SQLAlchemy", sentry.place)


def _libraries(source: Source) -> Iterator[Watcher]:
    untraced = any(not _traces(sentry) for sentry in _sentry(source))
    for call in source.calls.named(*_LIBRARIES):
        leaf = leaf_of(call.node.func)
        if call.module.role is not Role.APPLICATION or (leaf in _SPANS and untraced):
            continue
        unaimed = leaf in _REPLACING and not _names_engine(source, call)
        for what in _LIBRARIES.get(leaf, ()):
            yield Watcher(what, f"{leaf}()", call.place, unaimed)


def _names_engine(source: Source, call: Call) -> bool:
    """Tell whether an instrumentation is given its engines, in its own call or in its module's `instrument()`."""
    starts = (each for each in source.calls.named("instrument") if each.module is call.module)
    return any(given.arg in {"engine", "engines", None} for each in (call, *starts) for given in each.node.keywords)


def _sentry(source: Source) -> list[Call]:
    calls = (call for call, _ in source.calls.outside({"sentry_sdk"}, "init"))
    return [call for call in calls if call.module.role is Role.APPLICATION]


def _traces(sentry: Call) -> bool:
    """Tell whether Sentry records spans: without a rate or a sampler it sends errors alone."""
    return any(
        given.arg in _TRACES and not (isinstance(given.value, ast.Constant) and not given.value.value)
        for given in sentry.node.keywords
    )


def _is_event(source: Source, call: Call) -> bool:
    meaning = source.names.resolve(call.node.func, call.scope)
    return isinstance(meaning, External) and meaning.package == "sqlalchemy"


def _listener(source: Source, call: Call) -> Iterator[Watcher]:
    """Yield what a listener measures: new connections, which get settings and codecs, tell nothing of the pool."""
    name = call.node.args[1] if len(call.node.args) > 1 else None
    if isinstance(name, ast.Constant) and name.value in _CURSOR:
        yield Watcher("times", f"a listener on {name.value}", call.place)
    if isinstance(name, ast.Constant) and name.value in _POOL and not _prepares(source, call):
        yield Watcher("pool", f"a listener on {name.value}", call.place)


def _prepares(source: Source, call: Call) -> bool:
    """Tell whether a listener sends statements of its own: it prepares or clears the connection."""
    function = next((scope for scope in call.module.scope.walk() if call.node in scope.decorators), None)
    if function is None and len(call.node.args) > 2:
        meaning = source.names.resolve(call.node.args[2], call.scope)
        function = meaning if isinstance(meaning, Scope) else None
    return function is not None and any(
        isinstance(node.func, ast.Attribute) and node.func.attr in {"cursor", "execute"} for node in function.calls
    )


def _is_pool(node: ast.expr) -> bool:
    """`engine.pool.checkedout()`, `pool.checkedout()`: a name that says pool, since pools are rarely annotated."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "pool" in name.lower()
