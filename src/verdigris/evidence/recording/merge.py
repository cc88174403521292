"""Several recordings of one command, a process each, become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from verdigris.evidence.recording import artefact
from verdigris.evidence.recording.histogram import quantile

T = TypeVar("T")
_IDENTITY: dict[type, tuple[str, ...]] = {
    artefact.Engine: ("id",),
    artefact.Factory: ("id",),
    artefact.Sessions: ("site", "factory", "session_class", "is_async", "expire_on_commit", "autoflush"),
    artefact.Overlap: ("site", "other_site", "operation", "other_operation", "session_site", "route"),
    artefact.Request: ("route",),
    artefact.Statement: ("fingerprint",),
    artefact.StatementUse: ("site",),
    artefact.Repeat: ("fingerprint", "site", "scope"),
    artefact.LazyLoad: ("attribute", "kind", "site", "query_site", "phase"),
    artefact.RaiseHit: ("attribute", "lazy", "site", "query_site", "phase", "route"),
    artefact.CartesianRows: ("fingerprint", "site"),
    artefact.Inserts: ("table", "site"),
    artefact.Copy: ("table", "site"),
    artefact.Pool: ("engine",),
    artefact.DatabaseFailure: ("error", "sqlstate", "status", "site", "route"),
    artefact.Explain: ("fingerprint", "analyze", "site"),
    artefact.Model: ("module", "name"),
    artefact.RecorderError: ("where", "message"),
}
_LARGEST = frozenset(
    {
        "batch_max", "capacity", "connect_max_ms", "different", "executemany_rows_max", "exit_code", "flushes_max",
        "held_max_ms", "high_water", "identity_map_max", "max_concurrent_requests", "max_in_scope", "max_ms",
        "max_overflow", "objects", "parents", "pool_recycle", "pool_size", "pool_timeout", "rows_max", "same",
        "schema_version", "seconds", "single_row_max", "statements_max", "wait_max_ms",
    }
)  # fmt: skip
_SUMMED = frozenset({"seconds"})
_SETTINGS = frozenset({"pool_size", "max_overflow", "pool_timeout", "pool_recycle", "capacity"})


def merge(recordings: Iterable[artefact.Recording]) -> artefact.Recording:
    """Add up counts and times, keep the largest of what is a maximum, the first of what only names."""
    parts = [tidy(part) for part in recordings]
    if not parts:
        return artefact.Recording()
    merged = parts[0]
    for part in parts[1:]:
        merged = _joined(merged, part)
    return merged


def tidy(recording: artefact.Recording) -> artefact.Recording:
    """Join the facts of one recording that name the same thing, such as two statements of one line."""
    changes = {item.name: getattr(recording, item.name) for item in fields(recording)}
    joined: dict[str, Any] = {
        name: _items(name, value, ()) for name, value in changes.items() if isinstance(value, tuple)
    }
    joined["statements"] = tuple(
        replace(statement, uses=_items("uses", statement.uses, ())) for statement in joined["statements"]
    )
    return replace(recording, **joined)


def _joined(one: Any, other: Any) -> Any:
    changes = {}
    for item in fields(one):
        changes[item.name] = _value(type(one), item.name, getattr(one, item.name), getattr(other, item.name))
    joined = replace(one, **changes)
    return _pool(joined) if isinstance(joined, artefact.Pool) else joined


def _value(owner: type, name: str, one: Any, other: Any) -> Any:
    if name in _IDENTITY.get(owner, ()) or one is None or other is None:
        return one if one is not None else other
    if isinstance(one, bool):
        return one or other
    if isinstance(one, str):
        return one or other
    if isinstance(one, int | float):
        return _number(owner, name, one, other)
    if isinstance(one, Mapping):
        return (
            one
            if name == "versions" and not other
            else dict(Counter(one) + Counter(other))
            if name != "versions"
            else {**other, **one}
        )
    if isinstance(one, tuple):
        return _items(name, one, other)
    return _joined(one, other)


def _number(owner: type, name: str, one: float, other: float) -> float:
    is_total = owner in {artefact.Inserts, artefact.Copy} and name in _SUMMED
    if name in _LARGEST and not is_total and not (name == "rows" or name in _SETTINGS):
        return max(one, other)
    if name in _SETTINGS or owner is artefact.Column:
        return one
    if owner is artefact.CartesianRows and name == "rows":
        return max(one, other)
    return one + other


def _items(name: str, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    kind = type((one or other)[0]) if one or other else None
    identity = _IDENTITY.get(kind) if kind is not None else None
    if name == "command":
        return one or other
    if identity is None:
        return (*one, *other) if name == "chunks" else tuple(dict.fromkeys((*one, *other)))
    if kind is artefact.Model:
        return tuple({(model.module, model.name): model for model in (*other, *one)}.values())
    return tuple(_by(lambda item: tuple(getattr(item, field) for field in identity), (*one, *other)))


def _by(key: Callable[[T], Any], items: Iterable[T]) -> list[T]:
    found: dict[Any, T] = {}
    for item in items:
        name = key(item)
        found[name] = _joined(found[name], item) if name in found else item
    return list(found.values())


def _pool(pool: artefact.Pool) -> artefact.Pool:
    return replace(
        pool,
        wait_p50_ms=quantile(pool.wait_histogram, 0.5, pool.wait_max_ms),
        wait_p99_ms=quantile(pool.wait_histogram, 0.99, pool.wait_max_ms),
        held_p50_ms=quantile(pool.held_histogram, 0.5, pool.held_max_ms),
        held_p99_ms=quantile(pool.held_histogram, 0.99, pool.held_max_ms),
    )
