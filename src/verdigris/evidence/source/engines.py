"""Engines of a code base: every call that makes one, through wrappers, with its options."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.calls import Call, depends_on_parameters
from verdigris.evidence.source.evaluate import Argument, Evaluator, Frame, Options
from verdigris.evidence.source.files import Role
from verdigris.evidence.source.names import External
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from verdigris.evidence.source import Source

_TELLING = ("pool_pre_ping", "pool_size", "max_overflow", "pool_recycle", "pool_timeout", "isolation_level")
UNPOOLED = {"NullPool", "StaticPool"}
_MAKERS = {
    "create_async_engine": "async",
    "async_engine_from_config": "async",
    "create_engine": "sync",
    "engine_from_config": "sync",
}


@dataclass(frozen=True, slots=True)
class Engine(Subject):
    """An engine the source makes: `maker` is what makes it, `ways` its options for each way through the code."""

    key: str
    place: Place
    maker: External
    mode: str
    ways: tuple[Options, ...]
    call: Call
    role: Role
    evaluator: Evaluator = field(repr=False)
    url: Argument | None = None

    def option(self, name: str) -> Value:
        """Return an option's value over all ways in which this engine is pooled."""
        ways = [way for way in self.ways if self._pooled(way) is not False] or list(self.ways)
        return agree([self._option(way, name) for way in ways])

    def _option(self, way: Options, name: str) -> Value:
        if name in way.values:
            return self.evaluator.value(way.values[name])
        if way.open is not None:
            return Unknown(way.open)
        promise = guaranteed(self.maker.dotted, name)
        return Known(promise.value, promise.reason) if promise is not None else Missing()

    @property
    def pooled(self) -> Value:
        """Tell whether connections wait in a pool between uses, on any way through the code."""
        kinds = [self._pooled(way) for way in self.ways]
        if any(kind is True for kind in kinds):
            return Known(True)
        reason = next((kind for kind in kinds if isinstance(kind, Unknown)), None)
        return reason if reason is not None else Known(False)

    def _pooled(self, way: Options) -> bool | Unknown:
        poolclass = self._option(way, "poolclass")
        if isinstance(poolclass, Known) and isinstance(poolclass.value, External):
            return poolclass.value.leaf not in UNPOOLED
        if isinstance(poolclass, Unknown) and "poolclass" in way.values:
            return poolclass
        if self.url is not None:
            url = self.evaluator.value(self.url)
            if isinstance(url, Known) and isinstance(url.value, str) and url.value.startswith("sqlite"):
                return ":memory:" not in url.value and not url.value.endswith("://")
        return True

    def with_option(self, name: str, value: str, **more: str) -> str:
        """Return the call that makes this engine with options set, to paste."""
        changed = {name: value, **more}
        kept = [kw for kw in self.call.node.keywords if kw.arg not in changed]
        arguments = [ast.unparse(arg) for arg in self.call.node.args]
        arguments += [f"{kw.arg}={ast.unparse(kw.value)}" if kw.arg else f"**{ast.unparse(kw.value)}" for kw in kept]
        arguments += [f"{key}={text}" for key, text in changed.items()]
        return f"{ast.unparse(self.call.node.func)}({', '.join(arguments)})"

    @property
    def short(self) -> str:
        """The last part of its key, as people call it."""
        return self.key.partition(":")[2] or self.key


def engines(source: Source) -> Iterator[Engine]:
    """Yield every engine made anywhere in the tree; a wrapper gives one for each place that calls it."""
    makers = source.calls.outside({"sqlalchemy", "sqlmodel"}, *_MAKERS)
    databases = source.calls.outside({"verdigris"}, "Database")
    for call, maker in [*makers, *databases]:
        function = call.scope.function
        frames: list[Frame] = []
        if function is not None and depends_on_parameters(call.node, function):
            frames = source.calls.frames(function)
        yield from _distinct(source, call, maker, frames)


def _distinct(source: Source, call: Call, maker: External, frames: list[Frame]) -> Iterator[Engine]:
    """Yield one engine for each set of options that the callers of a wrapper give; one that they all share is the wrapper's."""
    made = [_engine(source, call, maker, frame) for frame in frames or (None,)]
    groups: dict[str, Engine] = {}
    for engine in made:
        groups.setdefault(repr([engine.pooled, *(engine.option(name) for name in _TELLING)]), engine)
    if len(groups) == 1:
        engine = made[0]
        yield replace(engine, key=_key(call), place=call.place, call=call)
    else:
        yield from groups.values()


def _engine(source: Source, call: Call, maker: External, frame: Frame | None) -> Engine:
    where = _outermost(call, frame)
    url = call.node.args[0] if call.node.args else None
    for keyword in call.node.keywords:
        url = keyword.value if keyword.arg in {"url", "name_or_url"} else url
    mode = _MAKERS.get(maker.leaf, "async")
    if mode == "sync" and _wrapped_async(source, call):
        mode = "async"
    return Engine(
        key=_key(where),
        place=where.place,
        maker=maker,
        mode=mode,
        ways=tuple(source.evaluator.options(call.node, call.scope, frame)),
        call=where,
        role=where.module.role,
        evaluator=source.evaluator,
        url=None if url is None else Argument(url, call.scope, frame),
    )


def _outermost(call: Call, frame: Frame | None) -> Call:
    while frame is not None and frame.call is not None and frame.caller is not None:
        call = Call(frame.call, frame.caller)
        frame = frame.outer
    return call


def _wrapped_async(source: Source, call: Call) -> bool:
    """`AsyncEngine(create_engine(url))` is how an async engine was made before 1.4.3 and in SQLModel tutorials."""
    parent = call.module.parents.get(call.node)
    if not isinstance(parent, ast.Call):
        return False
    meaning = source.names.resolve(parent.func, call.scope)
    return isinstance(meaning, External) and meaning.leaf == "AsyncEngine"


def _key(call: Call) -> str:
    """Name an engine by what it is assigned to, else by the function that makes it."""
    target = assigned_to(call)
    inside = call.scope.qualname
    name = ".".join(part for part in (inside, target) if part)
    return f"{call.module.path}:{name or 'engine'}"


def assigned_to(call: Call) -> str | None:
    """Return the name a call's result is assigned to in its own statement."""
    for ancestor in call.module.ancestors(call.node):
        if isinstance(ancestor, ast.Assign) and len(ancestor.targets) == 1:
            return ast.unparse(ancestor.targets[0])
        if isinstance(ancestor, ast.AnnAssign):
            return ast.unparse(ancestor.target)
        if isinstance(ancestor, ast.stmt):
            return None
    return None
