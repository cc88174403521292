"""Engines that reach their database through a pooler in transaction mode, and what they keep prepared there."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.paste import dictionary_with
from verdigris.evidence.values import Known, Missing, Unknown, Value, agree

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.engines import Engine
    from verdigris.evidence.source.reading.evaluate import Options

_AUTHORITY = re.compile(r"://(?:[^@/\s]*@)?([^/?\s]+)")
#: A host that says what it is, PgBouncer's own port, and the port of Supabase's pooler that is in transaction mode.
_POOLER = re.compile(
    r"[\w.-]*(?:pgbouncer|pgcat|supavisor)[\w.-]*(?::\d+)?|[\w.-]*:6432\b|[\w.-]*pooler\.supabase\.com:6543",
    re.IGNORECASE,
)
_HOLE = "x-x"  # stands for a part of an f-string that the source does not tell
_MODE = re.compile(r"^[\s-]*[\"']?\w*POOL_MODE[\"']?\s*[=:]\s*[\"']?(\w+)", re.IGNORECASE | re.MULTILINE)
_KEEPS = re.compile(r"MAX_PREPARED_STATEMENTS[\"']?\s*[=:]\s*[\"']?[1-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Behind:
    """What an engine keeps prepared on the server connections that a pooler lends it."""

    pooler: str  # the host, as far as it is written, and how it is known to be one
    cache: Value  # asyncpg's statement_cache_size
    named: bool  # statements get names of the project's own


class Poolers:
    """The poolers of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index and its settings files."""
        self.source = source

    def before(self, engine: Engine) -> Behind | None:
        """Return what stands before an engine's database; None if that is no pooler, or one that keeps sessions."""
        host = self._host(engine)
        if host is None or self._keeps:
            return None
        ways = [inner for way in engine.ways for inner in self._arguments(way)]
        cache = agree([self._cache(way) for way in ways])
        return Behind(host, cache, any("prepared_statement_name_func" in way.values for way in ways))

    @cached_property
    def _keeps(self) -> bool:
        """Whether a settings file gives each client a session of its own, or keeps statements for it."""
        texts = self.source.files.settings.values()
        modes = {found[1].lower() for text in texts for found in _MODE.finditer(text)}
        return modes == {"session"} or any(_KEEPS.search(text) for text in texts)

    def _host(self, engine: Engine) -> str | None:
        if engine.url is None:
            return None
        ours = engine.maker.dotted == "verdigris.Database"  # which reads every spelling as asyncpg
        texts = [text for text in engine.urls.drivers(engine.url) if ours or "asyncpg" in (text.scheme or "")]
        for text in texts:
            if (found := _pooler(text.text)) is not None:
                return found + (f" ({text.by})" if text.by else "")
        return self._in_parts(engine.url.node) if texts else None

    def _in_parts(self, url: ast.expr) -> str | None:
        """Look at the constants of a URL that is put together: f-strings, and `URL.create(host=…, port=…)`."""
        if isinstance(url, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else _HOLE for part in url.values]
            found = _pooler("".join(part for part in parts if isinstance(part, str)))
            return found.replace(_HOLE, "…") if found else None
        if isinstance(url, ast.Call):
            given = {part.arg: part.value.value for part in url.keywords if isinstance(part.value, ast.Constant)}
            return _pooler(f"://{given.get('host', '')!s}:{given.get('port', '')!s}")
        return None

    def _arguments(self, way: Options) -> list[Options]:
        if "connect_args" not in way.values:
            return [way]  # asyncpg's arguments are none of SQLAlchemy's own
        return self.source.evaluator.dictionaries(way.values["connect_args"])

    def _cache(self, way: Options) -> Value:
        if "statement_cache_size" in way.values:
            return self.source.evaluator.value(way.values["statement_cache_size"])
        return Missing() if way.open is None else Unknown(way.open)


def _pooler(url: str) -> str | None:
    """Return the host of a URL, with its port, if it is a pooler's."""
    named = _AUTHORITY.search(url)
    found = _POOLER.match(named[1]) if named is not None else None
    return found[0].strip(":") if found else None


def with_cache_off(engine: Engine) -> str:
    """Return the call that makes an engine with asyncpg's statement cache off, other arguments kept, to paste."""
    given = keyword(engine.call.node, "connect_args")
    if isinstance(given, ast.Dict):
        pairs = zip(given.keys, given.values, strict=True)
        kept = [(key, value) for key, value in pairs if not _is_text(key, "prepared_statement_name_func")]
        given = ast.Dict([key for key, _ in kept], [value for _, value in kept])
    return engine.with_option("connect_args", dictionary_with(given, {"statement_cache_size": "0"}))


def _is_text(node: ast.expr | None, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def is_off(cache: Value) -> bool:
    """Tell whether asyncpg keeps no statement prepared."""
    return isinstance(cache, Known) and cache.value == 0
