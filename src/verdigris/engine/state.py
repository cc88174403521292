"""State that a statement leaves in the server's session, where the next user of the connection finds it.

`SET`, session-level advisory locks, temporary tables, LISTEN and cursors WITH HOLD outlive the transaction. They are
known from the text of the statements that go through asyncpg, read once per text; what a function of the server does
inside is not seen. Reading costs nothing on the wire, and only a connection that has something to clear is cleared.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from verdigris.engine.pipelined_begin import Beginning, FirstStatement
from verdigris.performance.sites import calling_place

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from verdigris._places import Place

log = logging.getLogger("verdigris")
_KINDS = 100  # of state that are told, at most
_START = r"(?:\A|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_NAME = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_EFFECTS = re.compile(
    rf"""{_START}(?:
        SET\s+(?:SESSION\s+)?(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)(?P<setting>[\w.]+)
      | (?P<reset>RESET\s+ALL|DISCARD\s+ALL)\b
      | CREATE\s+(?:OR\s+REPLACE\s+)?(?:GLOBAL\s+|LOCAL\s+)?TEMP(?:ORARY)?\s+(?:RECURSIVE\s+)?\w+\s+
        {_NAME}(?P<temporary>[\w.\"]+)(?P<short>(?:[^;](?!ON\s+COMMIT))*.\s*ON\s+COMMIT\s+DROP)?
      | DROP\s+\w+\s+{_NAME}(?P<dropped>[\w.\"]+)
      | LISTEN\s+(?P<listen>[\w.\"]+)
      | UNLISTEN\s+(?P<unlisten>\*|[\w.\"]+)
      | PREPARE\s+(?!TRANSACTION\b|verdigris_)(?P<prepare>\w+)
      | DEALLOCATE\s+(?:PREPARE\s+)?(?!ALL\b)(?P<deallocate>\w+)
      | DECLARE\s+(?P<cursor>\w+)\s[^;]*?\bWITH\s+HOLD\b
      | LOAD\s+(?P<load>\S+)
    )
    | \bset_config\s*\([^;]*?,\s*(?P<local>[^,;]*?)\)
    | \bpg_(?:try_)?(?P<lock>advisory_lock)(?:_shared)?\s*\(
    | \bpg_advisory_(?P<unlock>unlock)(?:_shared)?\s*\(
    | \bpg_advisory_(?P<unlock_all>unlock_all)\s*\(
    | \bINTO\s+(?:LOCAL\s+)?TEMP(?:ORARY)?\s+(?:TABLE\s+)?(?P<into>[\w.\"]+)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# What a match means: how it is named, and whether it leaves something (1), takes one away (-1) or all of the name (0).
_MEANING = {
    "setting": ("SET {}", 1),
    "reset": ("SET ", 0),
    "temporary": ("temporary {}", 1),
    "into": ("temporary {}", 1),
    "dropped": ("temporary {}", 0),
    "listen": ("LISTEN {}", 1),
    "unlisten": ("LISTEN {}", 0),
    "lock": ("an advisory lock", 1),
    "unlock": ("an advisory lock", -1),
    "unlock_all": ("an advisory lock", 0),
    "prepare": ("PREPARE {}", 1),
    "deallocate": ("PREPARE {}", 0),
    "cursor": ("the cursor {}", 1),
    "load": ("LOAD {}", 1),
}
# Cheap tests that almost every statement passes: the expression above is for the few that do not.
_VERBS = (
    "set",
    "reset",
    "discard",
    "create",
    "drop",
    "listen",
    "unlisten",
    "prepare",
    "deallocate",
    "declare",
    "load",
    "--",
    "/*",
)
_WORDS = (";", "set_config", "advisory_", "into temp", "into local")
_PARAMETER = re.compile(r"\$(\d+)")
_TRUE = re.compile(r"'?(?:true|t|on|1)'?(?:::bool(?:ean)?)?\Z", re.IGNORECASE)

#: Clears everything above in one round trip, and leaves asyncpg's prepared statements alone, as DISCARD ALL would not.
CLEAR = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;"
    " SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)

_STAYS = ("PREPARE", "LOAD")  # what CLEAR does not take away


class Effect(NamedTuple):
    """One thing that a statement leaves behind (`change` 1), or takes away again (-1; 0: all of its name)."""

    what: str
    change: int
    unless: int | None = None  # the argument that, when true, makes it end with the transaction


@lru_cache(maxsize=4096)
def effects(statement: str) -> tuple[Effect, ...]:
    """Return what a statement does to the state of its session; almost always nothing."""
    lowered = statement.lower()
    if not lowered.lstrip().startswith(_VERBS) and not any(word in lowered for word in _WORDS):
        return ()
    return tuple(_read(statement))


def _read(statement: str) -> Iterator[Effect]:
    for found in _EFFECTS.finditer(statement):
        parts = {name: text for name, text in found.groupdict().items() if text is not None}
        if "local" in parts:
            yield from _configured(parts["local"].strip())
        if "short" in parts:
            continue
        for name in _MEANING.keys() & parts.keys():
            what, change = _MEANING[name]
            yield Effect(what.format(parts[name].lower().replace("*", "")), change)


def _configured(local: str) -> Iterator[Effect]:
    """Judge `set_config(name, value, is_local)` by its third argument, which may be a bind value."""
    parameter = _PARAMETER.match(local)
    if not _TRUE.match(local):
        yield Effect("SET by set_config()", 1, int(parameter[1]) if parameter else None)


def _is(name: str, what: str) -> bool:
    return name.startswith(what) if what.endswith(" ") else name == what


class StatefulStatement(FirstStatement):
    """A prepared statement that leaves state: noted each time it runs."""

    __slots__ = ()
    _connection: Tracked
    _query: str

    async def fetch(self, *args: Any, **options: Any) -> Any:
        self._connection.changes(effects(self._query), args)
        return await super().fetch(*args, **options)

    def cursor(self, *args: Any, **options: Any) -> Any:
        self._connection.changes(effects(self._query), args)
        return super().cursor(*args, **options)


class Tracked(Beginning):
    """An asyncpg connection that knows what its statements have left in the session."""

    left: dict[str, int] | None = None  # what the present user left, and how often; None is nothing
    left_at: Place | None = None  # where the application did it
    furnished: bool = False  # set up by listeners when it was made: clearing it would take that away

    def changes(self, found: tuple[Effect, ...], args: tuple[object, ...]) -> None:
        """Note the effects of a statement that is about to run."""
        left = self.left or {}
        for what, change, unless in found:
            if unless is not None and unless <= len(args) and args[unless - 1] is True:
                continue
            if change > 0:
                left[what] = left.get(what, 0) + 1
            elif change < 0 and left.get(what, 0) > 1:
                left[what] -= 1
            else:
                left = {name: times for name, times in left.items() if not _is(name, what)}
        self.left = left or None
        self.left_at = calling_place() if left else None

    @property
    def clearable(self) -> bool:
        """Whether one round trip takes everything away, and nothing that listeners have set up with it."""
        return not self.furnished and not any(what.startswith(_STAYS) for what in self.left or ())

    async def prepare(self, query: str, **options: Any) -> Any:
        statement = await super().prepare(query, **options)
        if effects(query):
            statement.__class__ = StatefulStatement
        return statement

    # These are not async themselves: a coroutine less to step through, in every statement.
    def execute(self, query: str, *args: object, timeout: float | None = None) -> Coroutine[Any, Any, str]:
        found = effects(query)
        if found:
            self.changes(found, args)
        return super().execute(query, *args, timeout=timeout)

    def fetch(self, query: str, *args: object, **options: Any) -> Any:  # LISTEN of add_listener() comes here
        found = effects(query)
        if found:
            self.changes(found, args)
        return super().fetch(query, *args, **options)

    def fetchval(self, query: str, *args: object, **options: Any) -> Any:
        found = effects(query)
        if found:
            self.changes(found, args)
        return super().fetchval(query, *args, **options)

    async def clear(self) -> None:
        """Take away everything that was left, in one round trip."""
        await super().execute(CLEAR, timeout=self.settings.close_timeout)


@dataclass(slots=True)
class Leavings:
    """Tells, once for each kind of state, that a connection came back with it."""

    told: set[str] = field(default_factory=set)

    def tell(self, left: str, place: Place | None, done: str) -> None:
        """Log what was left, where, and what became of it."""
        if left in self.told or len(self.told) >= _KINDS:
            return
        self.told.add(left)
        log.warning(
            "a connection came back with state in its session (%s%s): %s. SET LOCAL, pg_advisory_xact_lock() and"
            " ON COMMIT DROP end with the transaction",
            left,
            f", {place}" if place else "",
            done,
        )
