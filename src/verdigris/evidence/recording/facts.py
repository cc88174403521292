"""What is read off engines and factories at their construction."""

from __future__ import annotations

from typing import Any


def engine_facts(engine: Any) -> dict[str, Any]:
    """Return an engine's settings under the names of the artefact's fields.

    A pool tells its size only; its other settings are private attributes that have not changed since SQLAlchemy 1.0.
    """
    pool, url, dialect = engine.pool, engine.url, engine.dialect
    is_queue = hasattr(pool, "_max_overflow")
    return {
        "dialect": dialect.name,
        "driver": dialect.driver,
        "url": masked(url),
        "database": url.database or "",
        "is_async": bool(getattr(dialect, "is_async", False)),
        "pool_class": type(pool).__name__,
        "pool_size": pool.size() if is_queue else None,
        "max_overflow": getattr(pool, "_max_overflow", None),
        "pool_timeout": _number(getattr(pool, "_timeout", None)),
        "pool_recycle": getattr(pool, "_recycle", None),
        "pre_ping": getattr(pool, "_pre_ping", None),
        "isolation_level": getattr(dialect, "_on_connect_isolation_level", None),
    }


def masked(url: Any) -> str:
    """Return a URL without its secrets, those among its options included."""
    query = {
        name: "***" if "pass" in name.lower() or "key" in name.lower() else value for name, value in url.query.items()
    }
    return str(url.set(query=query).render_as_string(hide_password=True))


def factory_facts(maker: Any) -> dict[str, Any]:
    """Return a factory's settings under the names of the artefact's fields, with SQLAlchemy's defaults."""
    keywords: dict[str, Any] = dict(getattr(maker, "kw", {}))
    made = getattr(maker, "class_", None)
    bind = keywords.get("bind")
    dialect = getattr(getattr(bind, "sync_engine", bind), "dialect", None)
    return {
        "session_class": name_of(_own(made)) if isinstance(made, type) else "",
        "expire_on_commit": bool(keywords.get("expire_on_commit", True)),
        "autoflush": bool(keywords.get("autoflush", True)),
        "close_resets_only": keywords.get("close_resets_only") is not False,
        "join_transaction_mode": str(keywords.get("join_transaction_mode") or "conditional_savepoint"),
        "engine": getattr(dialect, "__dict__", {}).get("_verdigris_recording"),
    }


def _own(made: type) -> type:
    """Return the class that was given: sessionmaker makes each factory a subclass of its own, of the same name."""
    above = made.__mro__[1]
    return above if above.__qualname__ == made.__qualname__ else made


def name_of(thing: Any) -> str:
    """Return "module:name" of a class or function."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return f"{module}:{getattr(thing, '__qualname__', None) or type(thing).__qualname__}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
