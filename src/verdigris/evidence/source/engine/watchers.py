"""What watches the pool and the queries: listeners, instrumentation libraries, gauges of one's own."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import External

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
_CURSOR = {"before_cursor_execute", "after_cursor_execute", "do_execute"}
_POOL = {"checkout", "checkin", "connect", "first_connect", "reset", "invalidate"}
_GAUGES = ("checkedout", "checkedin", "overflow")


@dataclass(frozen=True, slots=True)
class Watcher:
    """Something that measures or exports: `what` is pool, times or exported, `name` is what a reader would call it."""

    what: str
    name: str
    place: Place


def watchers(source: Source) -> Iterator[Watcher]:
    """Yield everything in application code that measures the pool or the queries, or exports the library's figures."""
    yield from _libraries(source)
    for call in source.calls.named(*_EXPORTERS):
        if call.module.role is Role.APPLICATION:
            yield Watcher("exported", f"{ast.unparse(call.node.func)}()", call.place)
    for call in source.calls.named("listens_for", "listen"):
        if call.module.role is Role.APPLICATION and _is_event(source, call):
            yield from _listener(call)
    for call in source.calls.named(*_GAUGES):
        if (
            call.module.role is Role.APPLICATION
            and isinstance(call.node.func, ast.Attribute)
            and _is_pool(call.node.func.value)
        ):
            yield Watcher("pool", f"{ast.unparse(call.node.func)}()", call.place)
    sentry = next((call for call, _ in source.calls.outside({"sentry_sdk"}, "init")), None)
    if sentry is not None and sentry.module.role is Role.APPLICATION:
        yield Watcher("times", "sentry_sdk.init(), which traces SQLAlchemy", sentry.place)


def _libraries(source: Source) -> Iterator[Watcher]:
    for call in source.calls.named(*_LIBRARIES):
        leaf = call.node.func.attr if isinstance(call.node.func, ast.Attribute) else getattr(call.node.func, "id", "")
        if call.module.role is Role.APPLICATION:
            for what in _LIBRARIES.get(leaf, ()):
                yield Watcher(what, f"{leaf}()", call.place)


def _is_event(source: Source, call: Call) -> bool:
    meaning = source.names.resolve(call.node.func, call.scope)
    return isinstance(meaning, External) and meaning.package == "sqlalchemy"


def _listener(call: Call) -> Iterator[Watcher]:
    name = call.node.args[1] if len(call.node.args) > 1 else None
    if isinstance(name, ast.Constant) and name.value in _CURSOR:
        yield Watcher("times", f"a listener on {name.value}", call.place)
    if isinstance(name, ast.Constant) and name.value in _POOL:
        yield Watcher("pool", f"a listener on {name.value}", call.place)


def _is_pool(node: ast.expr) -> bool:
    """`engine.pool.checkedout()`, `pool.checkedout()`: a name that says pool, since pools are rarely annotated."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "pool" in name.lower()
