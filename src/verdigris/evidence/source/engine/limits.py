"""How long an engine waits for its database: to connect, and for a statement to end."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Edit, How
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.paste import dictionary_with
from verdigris.evidence.values import Known, Missing, Unknown, Value, agree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.engines import Engine
    from verdigris.evidence.source.reading.evaluate import Argument, Options

_STATEMENT = ("command_timeout", "statement_timeout")
_CONNECT = ("timeout", "connect_timeout")
_Words: TypeAlias = "tuple[Mapping[str, str], Mapping[str, str]]"  # for connecting, for a statement
_ASYNCPG: _Words = ({"timeout": "5"}, {"command_timeout": "60"})
_PSYCOPG: _Words = ({"connect_timeout": "5"}, {"options": "'-c statement_timeout=60000'"})
_WORDS: Mapping[frozenset[str], _Words] = {
    frozenset({"psycopg", "psycopg_async"}): _PSYCOPG,
    frozenset({"aiomysql", "asyncmy"}): (
        {"connect_timeout": "5"},
        {"init_command": "'SET SESSION max_execution_time = 60000'"},
    ),
}
_SETTLED = {"asyncpg", "psycopg", "psycopg_async"}  # whose limits are read back: MySQL's are a statement of SQL


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an engine's waits: for a connection to be made, and for a statement to end."""

    connect: Value
    statement: Value
    told: str


class TimeLimits:
    """Time limits of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def of(self, engine: Engine) -> Limits:
        """Return the limits of an engine, from its options, its connect_args and its URL."""
        found = [self._of(engine, way) for way in engine.to_servers or engine.ways]
        connect, statement = agree([each.connect for each in found]), agree([each.statement for each in found])
        return Limits(connect, statement, found[0].told if found else "")

    def edit(self, engine: Engine, limits: Limits) -> str:
        """Return the call that makes an engine with the limits that it lacks, in its driver's words, to paste."""
        if engine.ours:
            return engine.with_setting("command_timeout", "60.0")
        argued = [way.values["connect_args"] for way in engine.ways if "connect_args" in way.values]
        missing = self._missing(engine, limits, argued)
        among = next((each.node for each in argued if isinstance(each.node, ast.Dict)), None)  # of the `**options`
        given = keyword(engine.call.node, "connect_args") or among
        return engine.with_option("connect_args", dictionary_with(given, missing))

    def edits(self, engine: Engine, limits: Limits) -> tuple[Edit, ...]:
        """Return the edits that set the limits that an engine lacks; none where its driver is not known for certain."""
        if engine.ours:
            return engine.setting_edits("command_timeout", "60.0", safe=False)
        texts = [] if engine.url is None else engine.urls.drivers(engine.url)
        drivers = {(text.scheme or "").partition("+")[2] for text in texts}
        argued = [way.values["connect_args"] for way in engine.ways if "connect_args" in way.values]
        given = keyword(engine.call.node, "connect_args")
        if len(drivers) != 1 or not drivers <= _SETTLED:
            return ()
        missing = self._missing(engine, limits, argued)
        if given is None and not argued:
            return engine.edits("connect_args", dictionary_with(None, missing), safe=False)
        if not isinstance(given, ast.Dict) or None in given.keys or missing.keys() & {"options", "init_command"}:
            return ()
        place = engine.call.module.place(given)
        return tuple(Edit(place, name, value, safe=False, how=How.ITEM) for name, value in missing.items())

    def _missing(self, engine: Engine, limits: Limits, argued: list[Argument]) -> dict[str, str]:
        connect, statement = self._words(engine, argued)
        return {
            **(connect if isinstance(limits.connect, Missing) else {}),
            **(statement if isinstance(limits.statement, Missing) else {}),
        }

    def _words(self, engine: Engine, argued: list[Argument]) -> _Words:
        """Return how the engine's driver is told to give up; asyncpg's words where nobody knows which it is."""
        texts = [] if engine.url is None else engine.urls.drivers(engine.url)
        drivers = {(text.scheme or "").partition("+")[2] for text in texts}
        for names, words in _WORDS.items():
            if drivers & names and "asyncpg" not in drivers:
                return words
        given = {key for each in argued for inner in self.source.evaluator.dictionaries(each) for key in inner.values}
        psycopg = "asyncpg" not in drivers and given & {"connect_timeout", "prepare_threshold", "options"}
        return _PSYCOPG if psycopg else _ASYNCPG

    def _of(self, engine: Engine, way: Options) -> Limits:
        said = "connect_args" in way.values and engine.adopted is not None  # these come before what from_engine() adds
        if guaranteed(engine.symbol, "command_timeout") is not None and not (said and self._speaks(way)):
            return Limits(self._option(engine, "connect_timeout"), self._bounded(engine), _promised(engine.symbol))
        if "connect_args" not in way.values:
            missing: Value = Missing() if way.open is None else Unknown(way.open)
            return self._elsewhere(engine, missing, missing)
        ways = self.source.evaluator.dictionaries(way.values["connect_args"])
        connect = agree([self._first(inner, _CONNECT) for inner in ways])
        statement = agree([self._statement(inner) for inner in ways])
        return self._elsewhere(engine, connect, statement)

    def _speaks(self, way: Options) -> bool:
        """Tell whether connect_args may say a limit themselves."""
        ways = self.source.evaluator.dictionaries(way.values["connect_args"])
        return any(inner.open is not None or inner.values.keys() & {*_STATEMENT, *_CONNECT} for inner in ways)

    def _option(self, engine: Engine, name: str) -> Value:
        worth = engine.option(name)
        return Missing() if worth == Known(None) else worth

    def _bounded(self, engine: Engine) -> Value:
        """A Database's command_timeout: without it, a connection that went silent holds a request for ever."""
        worth = self._option(engine, "command_timeout")
        return Missing() if isinstance(worth, Known) and worth.value in {0, None} else worth

    def _statement(self, way: Options) -> Value:
        own = self._first(way, _STATEMENT)
        if not isinstance(own, Missing):
            return own
        for name in ("server_settings", "options"):
            if name in way.values:
                if name == "options":
                    worth = self.source.evaluator.value(way.values[name])
                    if isinstance(worth, Unknown) or "statement_timeout" in str(getattr(worth, "value", "")):
                        return worth
                    continue
                return agree(
                    [self._first(inner, _STATEMENT) for inner in self.source.evaluator.dictionaries(way.values[name])]
                )
        return own

    def _first(self, way: Options, names: tuple[str, ...]) -> Value:
        for name in names:
            if name in way.values:
                worth = self.source.evaluator.value(way.values[name])
                return (
                    Known(worth, name)
                    if isinstance(worth, Unknown)
                    else Known(worth.value, name)
                    if isinstance(worth, Known) and worth.value
                    else Missing()
                )
        return Missing() if way.open is None else Unknown(way.open)

    def _elsewhere(self, engine: Engine, connect: Value, statement: Value) -> Limits:
        """A limit may stand in the URL, in a role's settings or in a SET that a listener sends."""
        url = self.source.evaluator.value(engine.url) if engine.url is not None else Missing()
        text = str(url.value) if isinstance(url, Known) else ""
        if isinstance(statement, Missing):
            if "command_timeout" in text or "statement_timeout" in text:
                statement = Known(text.rpartition("?")[2], "the URL")
            elif self.source.mentions("statement_timeout"):
                statement = Unknown("statement_timeout is spoken of elsewhere in the project")
        if isinstance(connect, Missing) and "timeout=" in text:
            connect = Known(text.rpartition("?")[2], "the URL")
        named = [each.by for each in (connect, statement) if isinstance(each, Known) and each.by]
        return Limits(connect, statement, " and ".join(named))


def _promised(maker: str) -> str:
    promise = guaranteed(maker, "command_timeout")
    return promise.reason if promise is not None else ""
