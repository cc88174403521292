"""Options that a `Database` does not know, told from those of `create_engine()`, with the nearest that there is."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.util import get_cls_kwargs

from verdigris.database.settings import Settings
from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PAGE = "engine/async-engine"
_OF_THE_POOL: Final = frozenset(
    {
        "echo_pool",
        "max_overflow",
        "pool",
        "pool_events",
        "pool_logging_name",
        "pool_pre_ping",
        "pool_recycle",
        "pool_reset_on_return",
        "pool_size",
        "pool_timeout",
        "pool_use_lifo",
        "poolclass",
    }
)
#: https://docs.sqlalchemy.org/en/20/core/engines.html#sqlalchemy.create_engine
_OF_THE_ENGINE: Final = frozenset(
    {
        "async_creator",
        "connect_args",
        "creator",
        "echo",
        "enable_from_linting",
        "execution_options",
        "future",
        "hide_parameters",
        "isolation_level",
        "json_deserializer",
        "json_serializer",
        "label_length",
        "logging_name",
        "max_identifier_length",
        "module",
        "paramstyle",
        "plugins",
        "query_cache_size",
    }
)
#: What other factories call an option of ours.
_CALLED: Final = {"class_": "session_class", "sync_session_class": "session_class"}
_OURS: Final = frozenset({field.name for field in fields(Settings)} - {"options"})


def misspelt(given: Iterable[str]) -> ConfigurationError | None:
    """Return the error for options that neither `Database` nor `create_engine()` knows; None where all are known."""
    engines = _OF_THE_ENGINE | _OF_THE_POOL | set(get_cls_kwargs(PGDialect_asyncpg))
    unknown = sorted(set(given) - engines)
    if not unknown:
        return None
    return ConfigurationError(
        f"Database() has no option {', '.join(unknown)}.",
        why="What it does not take itself goes to create_async_engine(), which has none of that name either.",
        do=_nearest(unknown, _OURS | engines | {"replicas"}),
        page=_PAGE,
    )


def not_adopted(given: Mapping[str, Any]) -> ConfigurationError:
    """Return the error for options that `Database.from_engine()` does not take."""
    engines = {name: value for name, value in given.items() if name in _OF_THE_ENGINE | _OF_THE_POOL}
    if engines:
        written = ", ".join(f"{name}={_shown(value)}" for name, value in engines.items())
        return ConfigurationError(
            f"from_engine() got {', '.join(engines)}.",
            why="The engine is made already.",
            do=[
                f"{'These belong' if len(engines) > 1 else 'This belongs'} to it:   create_async_engine(..., {written})"
            ],
            page=_PAGE,
        )
    if given.keys() & {"replicas", "max_lag"}:
        return ConfigurationError(
            "from_engine() takes no replicas.",
            why="A Database reads from replicas through engines that it has made itself.",
            do=["Let it make the primary's, too:   Database(url, replicas=[...])"],
            page="docs/topologies.md",
        )
    return ConfigurationError(
        f"from_engine() has no option {', '.join(sorted(given))}.",
        do=_nearest(sorted(given), _OURS),
        page=_PAGE,
    )


def _nearest(unknown: Iterable[str], known: Iterable[str]) -> list[str]:
    names = sorted(known)
    near = [
        (name, [_CALLED[name]] if name in _CALLED else difflib.get_close_matches(name, names, 1, 0.75))
        for name in unknown
    ]
    return [f"Did you mean {found[0]}= where {name}= stands?" for name, found in near if found] or ["Remove it."]


def _shown(value: object) -> str:
    """Return a value as code, if it is sure to hold no password."""
    return repr(value) if isinstance(value, bool | int | float) else "..."
