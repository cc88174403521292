"""Engines of a code base: every call that makes one, through wrappers, with its options."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Edit, Made, Population
from verdigris.evidence.source.engine.configured import Configured, asking, configured, gives_its_engine, within
from verdigris.evidence.source.reading.arguments import is_kept, keyword
from verdigris.evidence.source.reading.calls import Call, assigned_to, depends_on_parameters
from verdigris.evidence.source.reading.evaluate import Argument, Evaluator, Frame, Options
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.kept_values import alternatives, forgotten
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.paste import call_with
from verdigris.evidence.source.reading.sqlite import is_within
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.urls import Text, Urls

_TELLING = ("pool_pre_ping", "pool_size", "max_overflow", "pool_recycle", "pool_timeout", "isolation_level")
NONE_MADE = "no engine is made in the application's own files, though it uses SQLAlchemy"
DATABASE = External("verdigris.Database")
ADOPTING = "verdigris.Database.from_engine"
UNPOOLED = {"NullPool", "StaticPool"}
_SERVERS = ("postgresql+asyncpg", "postgresql+psycopg", "mysql+")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAKERS = {
    "create_async_engine": "async",
    "async_engine_from_config": "async",
    "create_engine": "sync",
    "engine_from_config": "sync",
}


@dataclass(frozen=True, slots=True)
class Engine(Made):
    """An engine the source makes: `maker` is what makes it, `ways` its options for each way through the code."""

    key: str
    place: Place
    maker: External
    mode: str
    ways: tuple[Options, ...]
    call: Call
    made: Call  # where the maker itself is called: inside a wrapper, where there is one
    role: Role
    evaluator: Evaluator = field(repr=False)
    urls: Urls = field(repr=False)
    url: Argument | None = None
    adopted: Call | None = None  # the Database.from_engine() that it is given to
    passing: bool = False  # made, used and forgotten in one function
    asked_for: str = ""  # of a configuration that makes it: how it is had
    asked_at: tuple[Place, ...] = ()  # of the only configuration: where it may be had first, and is made
    argument: str = ""  # of such a one that names no options: where they would stand
    _judged: dict[int, bool | Unknown] = field(default_factory=dict, init=False, repr=False, compare=False)

    def option(self, name: str) -> Value:
        """Return an option's value over all ways in which this engine is pooled."""
        return agree([self._option(way, name) for way in self._pooling])

    def _option(self, way: Options, name: str) -> Value:
        added = self._added(name) if self.adopted is not None else None
        if added is not None:
            return added
        if name in way.values:
            return self.evaluator.value(way.values[name])
        if way.open is not None:
            return Unknown(way.open)
        promise = guaranteed(self.maker.dotted, name)
        return Known(promise.value, promise.reason) if promise is not None else Missing()

    def _added(self, name: str) -> Value | None:
        """Return what `from_engine()` makes of an option; None for one that stays the engine's own."""
        promise = guaranteed(self.symbol, name)
        if promise is None or self.adopted is None:
            return None
        given = keyword(self.adopted.node, name)
        if given is not None:
            return self.evaluator.value(Argument(given, self.adopted.scope))
        if any(each.arg is None for each in self.adopted.node.keywords):
            return Unknown("from_engine() is given options that the source does not show")
        return Known(promise.value, promise.reason)

    @property
    def ours(self) -> bool:
        """Tell whether it is a Database's: made by one, or taken over."""
        return self.adopted is not None or self.maker.dotted == DATABASE.dotted

    @property
    def symbol(self) -> str:
        """What promises something of it: the Database's constructor, where it is a Database's."""
        return ADOPTING if self.adopted is not None else self.maker.dotted

    @property
    def database(self) -> str:
        """The name of its Database."""
        return self.short if self.adopted is None else assigned_to(self.adopted) or "db"

    def can_give(self, *names: str) -> bool:
        """Tell whether the callers of a wrapper have a say in these options."""
        written = {given.arg for given in self.made.node.keywords}
        return None in written or not names or not written.isdisjoint(names)

    @property
    def inside(self) -> Engine:
        """This engine as its wrapper's: named and placed where the maker is called."""
        return replace(self, key=key_of(self.made, "engine"), place=self.made.place, call=self.made)

    def given(self, name: str) -> bool | None:
        """Tell whether an option is written at all, whatever its value, on every way in which this engine is pooled.

        Where some ways have it and others do not, as those of a database without a pool, the latter have to be pooled.
        """
        ways = self._pooling
        lacking = [way for way in ways if name not in way.values and way.open is None]
        if lacking and (len(lacking) == len(ways) or any(self._pooled(way) is True for way in lacking)):
            return False
        return True if all(name in way.values for way in ways) else None

    @property
    def _pooling(self) -> list[Options]:
        """The ways on which connections wait in a pool between uses; all of them where none is known to."""
        return [way for way in self.ways if self._pooled(way) is not False] or list(self.ways)

    @property
    def pooled(self) -> Value:
        """Tell whether connections wait in a pool between uses, on any way through the code."""
        if self.passing:
            return Known(False)
        kinds = [self._pooled(way) for way in self.ways]
        if any(kind is True for kind in kinds):
            return Known(True)
        reason = next((kind for kind in kinds if isinstance(kind, Unknown)), None)
        return reason if reason is not None else Known(False)

    def _pooled(self, way: Options) -> bool | Unknown:
        mark = id(way)
        if mark not in self._judged:  # every option asks
            self._judged[mark] = self._judge(way)
        return self._judged[mark]

    def _judge(self, way: Options) -> bool | Unknown:
        if self._in_a_file(way):
            return False
        poolclass = self._option(way, "poolclass")
        if isinstance(poolclass, Known) and isinstance(poolclass.value, External):
            return poolclass.value.leaf not in UNPOOLED
        if isinstance(poolclass, Unknown) and "poolclass" in way.values:
            return poolclass
        return True

    def _in_a_file(self, way: Options) -> bool:
        """Tell whether this is SQLite: without a server nothing goes stale and nothing refuses a connection."""
        if way.sqlite or is_within(self.evaluator.names, self.made.node, self.made.scope):
            return True
        if "connect_args" in way.values:
            given = self.evaluator.dictionaries(way.values["connect_args"])
            if all("check_same_thread" in inner.values for inner in given):
                return True
        texts = [] if self.url is None else self.urls.drivers(self.url)
        schemes = [text.scheme or "" for text in texts]
        if not any(schemes):  # of a class that is named for it, or a function
            return "sqlite" in self.made.scope.qualname.lower()
        return all(scheme.startswith("sqlite") for scheme in schemes) and not self._only_by_default(texts)

    def _only_by_default(self, texts: list[Text]) -> bool:
        """Tell whether a setting names the file, and where it stands a server's URL in its place is known, too."""
        modules = self.evaluator.names.by_path
        for text in texts:
            module = modules.get(text.place.path) if text.place is not None else None
            rewritten = text.by is None or text.by.startswith("`")
            if module is None or rewritten or not any(server in module.file.text for server in _SERVERS):
                return False
        return True

    @property
    def to_servers(self) -> list[Options]:
        """The ways on which this engine connects to a server: none, if its database is always a file or memory."""
        return [way for way in self.ways if not self._in_a_file(way)]

    @property
    def shares_connection(self) -> bool:
        """Tell whether on some way all checkouts get the same connection: StaticPool, or SQLite in memory."""
        return any(self._shares(way) for way in self.ways)

    def _shares(self, way: Options) -> bool:
        if self._in_a_file(way):
            return False
        poolclass = self._option(way, "poolclass")
        if isinstance(poolclass, Known) and isinstance(poolclass.value, External):
            return poolclass.value.leaf == "StaticPool"
        url = self.evaluator.value(self.url) if self.url is not None else Missing()
        memory = isinstance(url, Known) and isinstance(url.value, str) and url.value.startswith("sqlite")
        return (
            memory
            and "poolclass" not in way.values
            and isinstance(url, Known)
            and (":memory:" in url.value or url.value.endswith("://"))
        )

    def with_option(self, name: str, value: str, **more: str) -> str:
        """Return the call that makes this engine with options set, to paste; a wrapper's own where it takes none."""
        changed = {name: value, **more}
        if self.argument:
            return call_with(self.call.node, within(self.argument, changed))
        call = self.call if self._takes(*changed) else self.made
        return call_with(call.node, changed, [key for key in changed if self._may_be_given(key)])

    def edits(self, name: str, value: str, *, safe: bool = True) -> tuple[Edit, ...]:
        """Return the edit that sets an option; none where another place may give it too."""
        if self.argument:
            return ()
        call = self.call if self._takes(name) else self.made
        among = any(each.arg is None for each in call.node.keywords) and self._may_be_given(name)
        return () if among else (Edit(call.place, name, value, safe),)

    def pool_edits(self, **given: str) -> tuple[Edit, ...]:
        """Return the edits that set options of a pool; none where some way may have none, which refuses them."""
        if any("poolclass" in way.values or way.open is not None for way in self.ways):
            return ()
        edits = [self.edits(name, value, safe=False) for name, value in given.items()]
        return tuple(edit for each in edits for edit in each) if all(edits) else ()

    def setting_edits(self, name: str, value: str, *, safe: bool = True) -> tuple[Edit, ...]:
        """Return the edit that gives its Database a setting."""
        call = self.adopted or self.call
        return () if any(each.arg is None for each in call.node.keywords) else (Edit(call.place, name, value, safe),)

    def _takes(self, *names: str) -> bool:
        """Tell whether the call takes options that are not written there: one of the project's own may not."""
        function = self.made.scope.function
        if self.call is self.made or function is None or not isinstance(function.node, _FUNCTIONS):
            return True
        given = {each.arg for each in self.call.node.keywords} | {each.arg for each in function.parameters}
        return function.node.args.kwarg is not None or given.issuperset(names)

    def _may_be_given(self, name: str) -> bool:
        """Tell whether `**options` give an option on some way, or may."""
        return any(name in way.values or way.open is not None for way in self.ways)

    def with_setting(self, name: str, value: str) -> str:
        """Return the call that makes its Database with a setting, to paste."""
        return call_with((self.adopted or self.call).node, {name: value})

    @property
    def variable(self) -> str | None:
        """The name that it is assigned to, if there is one."""
        if self.asked_for:
            return self.asked_for
        match self.call.module.parents.get(self.call.node):
            case ast.Assign(targets=[ast.Name() | ast.Attribute() as target]) | ast.AnnAssign(target=target):
                return ast.unparse(target)
            case _:
                return None

    @property
    def short(self) -> str:
        """The last part of its key, as people call it."""
        return self.key.partition(":")[2] or self.key


def engines(source: Source) -> Iterator[Engine]:
    """Yield every engine made anywhere in the tree; a wrapper gives one for each place that calls it."""
    makers = source.calls.outside({"sqlalchemy", "sqlmodel"}, *_MAKERS)
    databases = ((call, DATABASE) for call, _ in source.calls.outside({"verdigris"}, "Database"))
    adopted = _adopted(source)
    for call, maker in [*makers, *databases]:
        function = call.scope.function
        frames: list[Frame] = []
        if function is not None and depends_on_parameters(call.node, function):
            frames = source.calls.frames(function)
        for engine in _distinct(source, call, maker, frames, adopted):
            yield replace(engine, passing=forgotten(source, call))
    yield from _of_configurations(source)


def _of_configurations(source: Source) -> Iterator[Engine]:
    """Yield the engines that advanced-alchemy makes of its configurations."""
    every = list(configured(source, "engine_config"))
    takers = [call for call, _ in source.calls.outside({"verdigris"}, "from_engine") if gives_its_engine(source, call)]
    if len(every) == 1:
        made = _of_configuration(source, every[0])
        yield replace(made, adopted=takers[0] if takers else None, asked_at=tuple(asking(source)))
    else:
        yield from (_of_configuration(source, each) for each in every)


def _of_configuration(source: Source, made: Configured) -> Engine:
    return Engine(
        key=key_of(made.call, "engine"),
        place=made.call.place,
        maker=External("sqlalchemy.ext.asyncio.create_async_engine"),
        mode="async",
        ways=tuple(way.without("connection_string") for way in made.ways),
        call=made.call,
        made=made.call,
        role=role_of_call(made.config),
        evaluator=source.evaluator,
        urls=source.urls,
        url=next((way.values["connection_string"] for way in made.ways if "connection_string" in way.values), None),
        asked_for=f"{made.variable}.get_engine()",
        argument=made.argument,
    )


def _adopted(source: Source) -> dict[int, Call]:
    """Return the calls of `Database.from_engine` by the calls that make what they are given."""
    found: dict[int, Call] = {}
    for call, _ in source.calls.outside({"verdigris"}, "from_engine"):
        given = call.node.args[0] if call.node.args else keyword(call.node, "engine")
        if isinstance(given, ast.Attribute):
            found.update((id(made.value), call) for made in _kept_as(given, call))
        meaning = None if given is None else source.names.resolve(given, call.scope)
        made = alternatives(meaning, call.node) if isinstance(meaning, Assigned) else [given]
        found.update((id(value), call) for value in made)
    return found


def _kept_as(given: ast.Attribute, call: Call) -> Iterator[ast.Assign]:
    """Yield what the same function assigns to `self.engine`, as a container of dependencies does."""
    name = ast.unparse(given)
    for node in () if call.scope.function is None else call.scope.function.nodes():
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
            yield node


def _distinct(
    source: Source, call: Call, maker: External, frames: list[Frame], adopted: Mapping[int, Call]
) -> Iterator[Engine]:
    """Yield one engine for each set of options that a wrapper's callers give; one that all share is the wrapper's."""
    made = [_engine(source, call, maker, frame) for frame in frames or (None,)]
    made = [replace(each, adopted=adopted.get(id(each.made.node)) or adopted.get(id(each.call.node))) for each in made]
    takers = [each.adopted for each in made if each.role is Role.APPLICATION]
    if takers and all(takers):  # what tests make by the same wrapper tells no two engines of the application apart
        made = [replace(each, adopted=each.adopted or takers[0]) for each in made]
    made.sort(key=lambda engine: engine.role is not Role.APPLICATION)  # who else uses a wrapper comes second
    groups: dict[str, Engine] = {}
    for engine in made:
        options = (engine.option(name) for name in _TELLING)
        groups.setdefault(repr([engine.pooled, engine.adopted is None, *options]), engine)
    yield from [made[0].inside] if len(groups) == 1 else groups.values()


def told_apart(engines: Population[Engine], *names: str) -> Population[Engine]:
    """Return one engine for a wrapper whose callers do not differ in these options: the wrapper is the cause then."""
    groups: dict[int, dict[str, Engine]] = {}
    for engine in engines:
        alike = groups.setdefault(id(engine.made.node), {})
        alike.setdefault(repr([engine.pooled, *(engine.option(name) for name in names)]), engine)
    found: list[Engine] = []
    for alike in groups.values():
        each = list(alike.values())
        several = sum(engine.made.node is each[0].made.node for engine in engines) > 1
        if len(each) == 1 and (several or not each[0].can_give(*names[:1])):
            inside = each[0].inside
            taken = sum(engine.key.partition("#")[0] == inside.key for engine in found)
            each = [replace(inside, key=f"{inside.key}#{taken + 1}") if taken else inside]
        found += each
    return Population(tuple(found), engines.gaps)


def _engine(source: Source, call: Call, maker: External, frame: Frame | None) -> Engine:
    where = _outermost(call, frame)
    url = call.node.args[0] if call.node.args and not maker.leaf.endswith("_from_config") else None
    url = url or keyword(call.node, "url") or keyword(call.node, "name_or_url")
    ways = tuple(source.evaluator.options(call.node, call.scope, frame))
    mode = _MAKERS.get(maker.leaf, "async")
    if mode == "sync" and _wrapped_async(source, call):
        mode = "async"
    return Engine(
        key=key_of(where, "engine"),
        place=where.place,
        maker=maker,
        mode=mode,
        ways=ways,
        call=where,
        made=call,
        role=role_of_call(where),
        evaluator=source.evaluator,
        urls=source.urls,
        url=_spread_url(ways) if url is None else Argument(url, call.scope, frame),
    )


def role_of_call(call: Call) -> Role:
    """Tell what a call is for: one under `if __name__ == "__main__"` is a script's."""
    for ancestor in call.module.ancestors(call.node):
        if isinstance(ancestor, ast.If) and "__name__" in ast.unparse(ancestor.test):
            return Role.SCRIPT if call.module.role is Role.APPLICATION else call.module.role
    return call.module.role


def _spread_url(ways: tuple[Options, ...]) -> Argument | None:
    return next((way.values["url"] for way in ways if "url" in way.values), None)


def _outermost(call: Call, frame: Frame | None) -> Call:
    """Return the call whose own code keeps the engine: a command whose arguments only pass through it is no wrapper."""
    while frame is not None and frame.call is not None and frame.caller is not None and not is_kept(frame.function):
        call = Call(frame.call, frame.caller)
        if _stays(call):
            break
        frame = frame.outer
    return call


def _stays(call: Call) -> bool:
    """Tell whether what a call gives is a local variable that its function does not hand back as it is."""
    target = assigned_to(call)
    function = call.scope.function
    if target is None or function is None or target not in function.bindings:
        return False
    if any(target in node.names for node in function.nodes() if isinstance(node, (ast.Global, ast.Nonlocal))):
        return False
    given = (node.value for node in function.nodes() if isinstance(node, (ast.Return, ast.Yield)))
    kept = (
        node.value
        for node in function.nodes()
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Attribute) for each in node.targets)
    )
    return not any(isinstance(value, ast.Name) and value.id == target for value in (*given, *kept))


def _wrapped_async(source: Source, call: Call) -> bool:
    """`AsyncEngine(create_engine(url))` is how an async engine was made before 1.4.3 and in SQLModel tutorials."""
    parent = call.module.parents.get(call.node)
    if not isinstance(parent, ast.Call):
        return False
    meaning = source.names.resolve(parent.func, call.scope)
    return isinstance(meaning, External) and meaning.leaf == "AsyncEngine"


def key_of(call: Call, what: str) -> str:
    """Name what a call makes by what it is assigned to, else by the function that makes it."""
    target = assigned_to(call)
    inside = call.scope.qualname
    name = ".".join(part for part in (inside, target) if part)
    return f"{call.module.path}:{name or what}"
