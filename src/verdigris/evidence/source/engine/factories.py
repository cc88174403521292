"""Session factories of a code base, and the sessions that are made without one."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Edit, How, Made
from verdigris.evidence.source.engine.configured import asking, configured, within
from verdigris.evidence.source.engine.engines import DATABASE, key_of, role_of_call
from verdigris.evidence.source.reading.arguments import Argument, Frame, Options, keyword
from verdigris.evidence.source.reading.calls import Call, depends_on_parameters
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.naming import importable
from verdigris.evidence.source.reading.paste import call_with
from verdigris.evidence.source.reading.types import ASYNC_FACTORY
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.evaluate import Evaluator

_PACKAGES = {"sqlalchemy", "sqlmodel"}
_OVERRIDES = ("expire_on_commit", "autoflush")


@dataclass(frozen=True, slots=True)
class Factory(Made):
    """What makes sessions, or one session made by hand.

    `form` is async_sessionmaker, sessionmaker, database (`verdigris.Database`), direct (`AsyncSession(engine)`),
    connection (`AsyncSession(connection)`) or override (a factory called with options of its own); `mode` is async,
    sync or unknown.
    """

    key: str
    place: Place
    maker: External
    form: str
    mode: str
    ways: tuple[Options, ...]
    call: Call
    role: Role
    evaluator: Evaluator = field(repr=False)
    bind: Argument | None = None
    asked_at: tuple[Place, ...] = ()  # of the only configuration: where it may be had first, and is made
    argument: str = ""  # of a configuration that makes it and names no options: where they would stand
    rewritten: frozenset[str | None] = frozenset()  # options that are written into its `kw` later; None: any

    def option(self, name: str) -> Value:
        """Return an option's value over all ways through the code."""
        if not self.rewritten.isdisjoint({name, None}):
            return Unknown(f"`{self.short}.kw` is changed after it was made")
        return agree([self._option(way, name) for way in self.ways])

    def _option(self, way: Options, name: str) -> Value:
        if name in way.values:
            return self.evaluator.value(way.values[name])
        if way.open is not None:
            return Unknown(way.open)
        promise = guaranteed(self.maker.dotted, name)
        return Known(promise.value, promise.reason) if promise is not None else Missing()

    @property
    def short(self) -> str:
        """The last part of its key, as people call it."""
        return self.key.partition(":")[2] or self.key

    @property
    def told(self) -> str:
        """The call itself, for messages."""
        return f"`{self.call.module.text(self.call.node)}`"

    @property
    def made(self) -> str:
        """What is made here, in one word for messages."""
        return {"direct": "session", "override": "session", "database": "Database"}.get(self.form, "factory")

    def with_option(self, name: str, value: str) -> str:
        """Return the call with an option set, to paste."""
        if self.argument:
            return call_with(self.call.node, within(self.argument, {name: value}))
        spread = any(name in way.values or way.open is not None for way in self.ways)
        return call_with(self.call.node, {name: value}, [name] if spread else [])

    def edits(self, name: str, value: str) -> tuple[Edit, ...]:
        """Return the edit that sets an option, which code may have relied on; none where another place may give it."""
        among = any(each.arg is None for each in self.call.node.keywords)
        return () if among or self.argument else (Edit(self.call.place, name, value, safe=False),)

    def renamed(self, maker: str) -> str:
        """Return the call with another maker, to paste; its `class_` stays, as that of SQLModel alone has `exec()`."""
        arguments = [ast.unparse(each) for each in (*self.call.node.args, *self.call.node.keywords)]
        return f"{maker}({', '.join(arguments)})"

    def renaming(self, module: str, maker: str) -> tuple[Edit, ...]:
        """Return the edit that makes it by another maker of a module; none where arguments would be others' there."""
        func = self.call.node.func
        made = importable(self.call.scope, module, maker)
        if made is None or not isinstance(func, (ast.Name, ast.Attribute)) or len(self.call.node.args) > 1:
            return ()
        old = ast.unparse(func)
        return (Edit(self.call.place, old, made.name, safe=False, how=How.CALLEE, imports=made.imports),)

    @property
    def as_factory(self) -> str:
        """A factory of the sessions that are made by hand here, to paste."""
        written = ast.unparse(self.call.node.func)
        plain = self.maker.package == "sqlalchemy" and written.rpartition(".")[2] == self.maker.leaf
        class_ = "" if plain else f"class_={written}, "
        return f"Session = async_sessionmaker(engine, {class_}expire_on_commit=False)"


def factories(source: Source) -> Iterator[Factory]:
    """Yield every session factory, every session made without one and every call that overrides a factory's options."""
    makers = source.calls.outside(_PACKAGES, "async_sessionmaker", "sessionmaker")
    rewritten = _rewritten(source)
    for call, maker in makers:
        frames: list[Frame] = []
        function = call.scope.function
        if function is not None and depends_on_parameters(call.node, function):
            frames = source.calls.frames(function)
        later = frozenset(rewritten.get(id(call.node), ()))
        made = (_factory(source, call, maker, frame) for frame in frames or (None,))
        yield from _distinct([replace(each, rewritten=later) if later else each for each in made])
    for call, _ in source.calls.outside({"verdigris"}, "Database", "from_engine"):
        yield _made(source, call, DATABASE, "database")
    yield from _direct(source)
    yield from _overrides(source)
    yield from _of_configurations(source)


def _of_configurations(source: Source) -> Iterator[Factory]:
    """Yield the factories that advanced-alchemy makes of its configurations."""
    every = list(configured(source, "session_config"))
    for made in every:
        yield Factory(
            key=key_of(made.call, "factory"),
            place=made.call.place,
            maker=ASYNC_FACTORY,
            form="async_sessionmaker",
            mode="async",
            ways=tuple(way.without("connection_string") for way in made.ways),
            call=made.call,
            role=role_of_call(made.config),
            evaluator=source.evaluator,
            asked_at=tuple(asking(source)) if len(every) == 1 else (),
            argument=made.argument,
        )


def _distinct(made: list[Factory]) -> Iterator[Factory]:
    made.sort(key=lambda factory: factory.role is not Role.APPLICATION)  # who else uses a wrapper comes second
    groups: dict[str, Factory] = {}
    for factory in made:
        groups.setdefault(repr([factory.mode, *(factory.option(name) for name in _OVERRIDES)]), factory)
    yield from groups.values()


def _factory(source: Source, call: Call, maker: External, frame: Frame | None) -> Factory:
    made = _made(source, call, maker, maker.leaf, frame=frame)
    if maker.leaf == "sessionmaker":
        made = replace(made, mode=_mode(source, made))
    configured = _configured(source, call)
    return (
        replace(made, ways=tuple(way.merged(more) for way in made.ways for more in configured)) if configured else made
    )


def _made(
    source: Source, call: Call, maker: External, form: str, *, mode: str = "async", frame: Frame | None = None
) -> Factory:
    bind = keyword(call.node, "bind") or (call.node.args[0] if call.node.args else None)
    return Factory(
        key=key_of(call, form),
        place=call.place,
        maker=maker,
        form=form,
        mode=mode,
        ways=tuple(source.evaluator.options(call.node, call.scope, frame)),
        call=call,
        role=role_of_call(call),
        evaluator=source.evaluator,
        bind=None if bind is None else Argument(bind, call.scope, frame),
    )


def _mode(source: Source, made: Factory) -> str:
    """Tell whether a plain sessionmaker makes asynchronous sessions: by `class_`, else by its engine."""
    given = made.option("class_")
    if isinstance(given, Known) and isinstance(given.value, (External, Scope)):
        return source.types.session_type(given.value) or "unknown"
    if isinstance(given, Unknown):
        return "unknown"
    bound = None if made.bind is None else source.types.of(made.bind.node, made.bind.scope)
    return "async" if isinstance(bound, External) and bound.leaf == "AsyncEngine" else "sync"


def _configured(source: Source, call: Call) -> list[Options]:
    """Return what `factory.configure(…)` adds later."""
    found: list[Options] = []
    for later in source.calls.named("configure"):
        if isinstance(later.node.func, ast.Attribute):
            meaning = source.names.resolve(later.node.func.value, later.scope)
            if isinstance(meaning, Assigned) and meaning.value is call.node:
                found += source.evaluator.options(later.node, later.scope)
    return found


def _rewritten(source: Source) -> dict[int, set[str | None]]:
    """Return the options that are written into `factory.kw` later, by the factory's call; None for any of them."""
    found: dict[int, set[str | None]] = {}
    told = {id(module) for module in source.names.modules if ".kw" in module.file.text}  # looked through once
    for scope in source.scopes:
        if id(scope.module) not in told:
            continue
        for node in scope.nodes():
            match node:
                case ast.Subscript(value=ast.Attribute(value=owner, attr="kw"), slice=key, ctx=ast.Store()):
                    name = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
                case ast.Call(func=ast.Attribute(value=ast.Attribute(value=owner, attr="kw"), attr=verb)) if verb in {
                    "update",
                    "setdefault",
                    "pop",
                    "clear",
                }:
                    name = None
                case ast.Attribute(value=owner, attr="kw", ctx=ast.Store()):
                    name = None
                case _:
                    continue
            meaning = source.names.resolve(owner, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                found.setdefault(id(meaning.value), set()).add(name)
    return found


def _direct(source: Source) -> Iterator[Factory]:
    """Yield `AsyncSession(engine)`; one on a single connection, as migrations and tests want it, is told apart."""
    own = [scope for scope in source.scopes if scope.is_class and source.types.session_type(scope) == "async"]
    seen: set[int] = set()
    for call in source.calls.named("AsyncSession", *(scope.name for scope in own)):
        meaning = source.names.resolve(call.node.func, call.scope)
        if id(call.node) in seen or not isinstance(meaning, (External, Scope)):
            continue
        if (isinstance(meaning, Scope) and not meaning.is_class) or source.types.session_type(meaning) != "async":
            continue
        if not (call.node.args or call.node.keywords):
            continue
        seen.add(id(call.node))
        maker = meaning if isinstance(meaning, External) else External("sqlalchemy.ext.asyncio.AsyncSession")
        made = _made(source, call, maker, "direct")
        bound = None if made.bind is None else source.types.of(made.bind.node, made.bind.scope)
        on_connection = isinstance(bound, External) and bound.leaf == "AsyncConnection"
        yield replace(made, form="connection") if on_connection else made


def _overrides(source: Source) -> Iterator[Factory]:
    """Yield `factory(expire_on_commit=True)`: one session that differs from its factory's."""
    for call in source.calls.with_keyword(*_OVERRIDES):
        if isinstance(source.names.resolve(call.node.func, call.scope), External):
            continue
        found = source.types.of(call.node.func, call.scope)
        if isinstance(found, External) and found.leaf == "async_sessionmaker":
            yield _made(source, call, External("sqlalchemy.ext.asyncio.AsyncSession"), "override")


def made_outside(source: Source, factories: list[Factory]) -> Iterator[str]:
    """Yield a gap for each factory whose engine comes from a package that is not in the tree."""
    for factory in factories:
        if factory.bind is None:
            continue
        node, scope = factory.bind.node, factory.bind.scope
        meaning = source.names.resolve(node, scope)
        if isinstance(meaning, Assigned) and meaning.value is not None:
            node, scope = meaning.value, meaning.scope
            meaning = source.types.callee(node, scope) if isinstance(node, ast.Call) else None
        elif isinstance(node, ast.Call):
            meaning = source.types.callee(node, scope)
        if isinstance(meaning, External) and meaning.package not in {*_PACKAGES, "verdigris"}:
            yield f"{factory.place}: the engine of `{factory.short}` is made by {meaning.dotted}, outside of the tree"
