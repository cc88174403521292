"""Configurations of advanced-alchemy, from which it makes an engine and a session factory when first asked.

Its `EngineConfig` and `AsyncSessionConfig` pass on what is written in them: what is left out is SQLAlchemy's default.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import Argument, Options, keyword, short
from verdigris.evidence.source.reading.calls import Call, assigned_to
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

PACKAGES = {"advanced_alchemy", "litestar"}  # litestar.plugins.sqlalchemy hands the same classes on
_ASKING = (
    "AdvancedAlchemy", "init_app", "get_engine", "get_async_engine", "create_session_maker", "get_session",
    "with_async_session",
)  # fmt: skip
_CONFIG, _SYNC = "SQLAlchemyAsyncConfig", "SQLAlchemySyncConfig"
_INNER = {"engine_config": "EngineConfig", "session_config": "AsyncSessionConfig"}
_GIVERS = {f"{_CONFIG}.get_engine", "AdvancedAlchemy.get_engine", "AdvancedAlchemy.get_async_engine"}
#: Arguments that take a making into their own hands, by the argument that has its options.
_OTHERS = {
    "engine_config": ("create_engine_callable", "routing_config"),
    "session_config": ("session_maker_class", "routing_config"),
}
#: What stands for the engine or the factory itself.
_INSTEAD = {"engine_config": "engine_instance", "session_config": "session_maker"}


@dataclass(frozen=True, slots=True)
class Configured:
    """What a configuration makes: `call` is where its options are written, `argument` where they would be."""

    config: Call
    call: Call
    ways: tuple[Options, ...]
    argument: str = ""

    @property
    def variable(self) -> str:
        """What the configuration is called."""
        return variable(self.config)


def variable(config: Call) -> str:
    """Return what a configuration is called in the code around it."""
    return assigned_to(config) or "config"


def within(argument: str, changed: dict[str, str]) -> dict[str, str]:
    """Return the argument of a configuration that sets options."""
    options = ", ".join(f"{name}={value}" for name, value in changed.items())
    return {argument: f"{_INNER[argument]}({options})"}


def configured(source: Source, argument: str) -> Iterator[Configured]:
    """Yield what each configuration makes of its `engine_config`, or of its `session_config`."""
    for config, _ in source.calls.outside(PACKAGES, _CONFIG):
        found = [
            _made(source, config, way, argument)
            for way in source.evaluator.options(config.node, config.scope)
            if _is_none(way.values.get(_INSTEAD[argument]))
        ]
        if found:
            first = next((call for call, _ in found if call is not None), None)
            ways = tuple(way for _, ways in found for way in ways)
            yield Configured(config, first or config, ways, "" if first is not None else argument)


def configurations(source: Source) -> Iterator[tuple[Call, Options]]:
    """Yield the configurations of the application and what each is given, each way through the code."""
    for call, _ in source.calls.outside(PACKAGES, _CONFIG):
        if call.module.role is Role.APPLICATION:
            yield from ((call, way) for way in source.evaluator.options(call.node, call.scope))


def _is_none(given: Argument | None) -> bool:
    return given is None or (isinstance(given.node, ast.Constant) and given.node.value is None)


def _made(source: Source, config: Call, way: Options, argument: str) -> tuple[Call | None, list[Options]]:
    """Return the call in which options are written, and the options."""
    kept = {name: way.values[name] for name in ("connection_string",) if name in way.values}
    other = next((name for name in _OTHERS[argument] if not _is_none(way.values.get(name))), None)
    if other is not None:
        return None, [Options(kept, f"`{other}` of `{_named(config)}` has a say in it")]
    given = way.values.get(argument)
    if given is None:
        return None, [Options(kept, way.open, way.sqlite)]
    call = _call(source, given)
    if call is None:
        return None, [Options(kept, f"`{argument}={short(given.node)}` of `{_named(config)}` is not followed")]
    inner = source.evaluator.options(call.node, call.scope, given.frame)
    return call, [replace(each, values={**each.values, **kept}, sqlite=each.sqlite or way.sqlite) for each in inner]


def _call(source: Source, given: Argument) -> Call | None:
    """Return the call of `EngineConfig` or `AsyncSessionConfig` that an argument is."""
    node, scope = given.node, given.scope
    meaning = source.names.resolve(node, scope)
    if isinstance(meaning, Assigned) and meaning.value is not None:
        node, scope = meaning.value, meaning.scope
    if not isinstance(node, ast.Call):
        return None
    maker = source.names.resolve(node.func, scope)
    known = isinstance(maker, External) and maker.package in PACKAGES and maker.leaf in _INNER.values()
    return Call(node, scope) if known else None


def _named(config: Call) -> str:
    return assigned_to(config) or _CONFIG


def gives_its_engine(source: Source, call: Call) -> bool:
    """Tell whether `Database.from_engine(config.get_engine())` is what a call is."""
    given = call.node.args[0] if call.node.args else None
    meaning = None if given is None else source.names.resolve(given, call.scope)
    node, scope = (meaning.value, meaning.scope) if isinstance(meaning, Assigned) else (given, call.scope)
    asked = source.types.callee(node, scope) if isinstance(node, ast.Call) else None
    return isinstance(asked, External) and asked.package in PACKAGES and asked.dotted.endswith(tuple(_GIVERS))


def asking(source: Source) -> Iterator[Place]:
    """Yield where a configuration is asked for what it makes: the run that made it has one of these as its line."""
    for call in source.calls.named(*_ASKING):
        asked = source.types.callee(call.node, call.scope)
        if isinstance(asked, External) and asked.package in PACKAGES:
            yield call.place


def not_followed(source: Source) -> Iterator[str]:
    """Yield a gap for each synchronous configuration whose engine is not made in the tree."""
    for call, maker in source.calls.outside(PACKAGES, _SYNC):
        if call.module.role is Role.APPLICATION and keyword(call.node, _INSTEAD["engine_config"]) is None:
            yield f"{call.place}: the engine that {maker.leaf} makes is not followed"
