"""What a load sends next: the statements of `selectinload`, known and sent before the first object is made.

SQLAlchemy makes a page's objects, then asks for their collections. A service that answers many requests at once would
hold half-made objects of all of them meanwhile, and the garbage collector would walk through them again and again.
Here the keys are read from the rows, all rows are there before the first object is, and the objects of one request
come and go in one piece. Grouping them stays the loader's: it asks its session, which has the answer. What a loader
asks beyond that is sent, as ever.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, SmallInteger, String, Text, Uuid
from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.orm import context as orm_context
from sqlalchemy.orm import strategies
from sqlalchemy.orm.path_registry import PathRegistry
from sqlalchemy.util import coerce_to_immutabledict

from verdigris.lean.theirs import theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Engine
    from sqlalchemy.engine import Result
    from sqlalchemy.orm import Session

SELECT = theirs(orm_context, "_ORMSelectCompileState", "ORMSelectCompileState")  # in 2.1, in 2.0
_SELECTIN = theirs(strategies, "_SelectInLoader", "SelectInLoader")
_KEYS = "primary_keys"  # as the loader names them
_IN = f" IN (__[POSTCOMPILE_{_KEYS}])"
_AT_MOST = 500  # keys in one statement, as in SQLAlchemy's
#: Keys of which PostgreSQL compares an array as it compares each.
_TYPES = frozenset({Integer, BigInteger, SmallInteger, String, Text, Uuid})


class UnsentError(Exception):
    """SQLAlchemy's engine has not sent a statement yet, so that nothing is known of its columns."""


class _SentError(Exception):
    """Carries what a loader sends."""

    def __init__(self, statement: Any, execution_options: Any) -> None:
        self.statement = statement
        self.execution_options = execution_options


@dataclass(frozen=True, slots=True)
class Following:
    """The statement that collections are loaded with, whose parents come as the rows of another statement."""

    path: tuple[Any, ...]  # that its objects are loaded along
    keys: Callable[[Any], tuple[Any, ...]]  # of a parent's row: its key, alone
    text: str  # takes an array of keys; each row begins with one
    metadata: Any
    context: Any  # what loading asks of an execution context
    following: tuple[Following, ...]

    def batches(self, rows: Iterable[Any]) -> Iterator[list[Any]]:
        """Yield the keys to ask for, each once, for these rows of the parents."""
        keys = [key for (key,) in dict.fromkeys(map(self.keys, rows)) if key is not None]
        for start in range(0, len(keys), _AT_MOST):
            yield keys[start : start + _AT_MOST]

    def instances(
        self, session: Session, statement: Any, params: Any, options: Any, rows: Iterable[Any]
    ) -> Result[Any]:
        """Return what the session would return if these rows were the answer."""
        arguments: dict[str, Any] = {}
        statement, options, *_ = SELECT.orm_pre_session_exec(  # and in 2.1 the parameters, which a select() keeps
            session, statement, params, coerce_to_immutabledict(options), arguments, False
        )
        cursor: Any = IteratorResult(self.metadata, iter(rows))
        cursor.context = self.context
        result: Result[Any] = SELECT.orm_setup_cursor_result(session, statement, params, options, arguments, cursor)
        return result


@dataclass(slots=True)
class Fetched:
    """The rows of one such statement, and the keys that they were asked for with."""

    one: Following
    keys: set[Any]
    rows: list[Any]

    def of(self, keys: Sequence[Any]) -> list[Any] | None:
        """Return the rows of some keys; None if one of them was not asked for."""
        wanted = set(keys)
        if wanted == self.keys:
            return self.rows
        return [row for row in self.rows if row[0] in wanted] if wanted <= self.keys else None


@contextmanager
def answering(session: Session, fetched: Sequence[Fetched]) -> Iterator[None]:
    """Let loaders that run inside of the block find their rows here, where they ask the session for them."""
    known = {each.one.path: each for each in fetched}
    send = session.execute

    def execute(statement: Any, params: Any = None, **options: Any) -> Any:
        found = known.get(_path(statement)) if params and params.keys() == {_KEYS} else None
        rows = found.of(params[_KEYS]) if found is not None and options.keys() == {"execution_options"} else None
        if found is None or rows is None:
            return send(statement, params, **options)
        return found.one.instances(session, statement, params, options["execution_options"], rows)

    with _executing(session, execute):
        yield


@contextmanager
def _executing(session: Any, execute: Callable[..., Any]) -> Iterator[None]:
    session.execute = execute
    try:
        yield
    finally:
        del session.execute


def _path(statement: Any) -> Any:
    options = getattr(statement, "_compile_options", None)
    return None if options is None else options._current_path.path


# -- learning ----------------------------------------------------------------------------------------------------------


def following(engine: Engine, query: Any) -> tuple[Following, ...] | None:
    """Return what the loaders of a query will send; None where that can't be told before objects are made.

    `query` is a context that no row was loaded with. Raises UnsentError.
    """
    asked = list(query.post_load_paths.items())
    query.post_load_paths.clear()
    found: list[Following] = []
    for path, post_load in asked:
        for context, _, mapper, loader, arguments, _ in post_load.loaders.values():
            one = _one(engine, _Asking(context, PathRegistry.coerce(path), mapper, loader, arguments))
            if one is None:
                return None
            found.append(one)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Asking:
    """A loader that will ask for the collections of a path's objects, as SQLAlchemy notes it."""

    context: Any  # of the statement whose rows these objects are
    path: Any
    mapper: Any
    loader: Any
    arguments: tuple[Any, ...]

    @property
    def is_known(self) -> bool:
        """Whether its keys are the parents' own, in one column, at one level: a tree's levels share their path."""
        strategy: Any = getattr(self.loader, "__self__", None)
        if type(strategy) is not _SELECTIN:
            return False
        info, recursion_depth = strategy._query_info, self.arguments[-2]
        return info.zero_idx and not info.load_only_child and recursion_depth is None

    @property
    def keys(self) -> Any:
        """Return what takes a parent's key out of a row, as loading does it; None where loading has another way."""
        state = self.context.compile_state
        own = PathRegistry.coerce(self.path.path[len(state.current_path.path) :])
        getters = own.get(state.attributes, ("getters", self.mapper))
        return getters and getters["primary_key_getter"]

    def statement(self) -> tuple[Any, Any]:
        """Return the statement that it will send, and its execution options, without sending it."""
        parent = SimpleNamespace(key=(None, (None,), None), dict={}, manager=self.mapper.class_manager)

        def execute(statement: Any, *_: Any, execution_options: Any, **__: Any) -> Any:
            raise _SentError(statement, execution_options)

        try:
            with _executing(self.context.session, execute):
                self.loader(self.context, self.path, [(parent, True)], None, *self.arguments)
        except _SentError as sent:
            return sent.statement, sent.execution_options
        raise UnsentError


def _one(engine: Engine, asking: _Asking) -> Following | None:
    keys = asking.keys if asking.is_known else None
    if keys is None:
        return None
    statement, options = asking.statement()
    compiled = _compiled(engine, statement)
    text = _text(engine, compiled)
    if text is None:
        return None
    context: Any = SimpleNamespace(_is_server_side=False, compiled=compiled)
    one = Following(_path(statement), keys, text, compiled._cached_metadata, context, ())
    one.instances(asking.context.session, statement, {}, options, [])
    top = asking.context.top_level_context or asking.context
    more = following(engine, top)  # which notes what loaders of these objects ask for in turn
    return None if more is None else replace(one, following=more)


def _compiled(engine: Engine, statement: Any) -> Any:
    """Return what the engine has compiled of a loader's statement."""
    key = statement._generate_cache_key()
    cache: Any = engine._compiled_cache or {}
    compiled = None if key is None else cache.get((engine.dialect, key[0], (_KEYS,), False, False))
    if compiled is None or compiled._cached_metadata is None:
        raise UnsentError
    return compiled


def _text(engine: Engine, compiled: Any) -> str | None:
    """Return a statement's text with one array in the place of its list of keys; None if there is more to it."""
    bind = compiled.binds.get(_KEYS)
    alone = compiled.positiontup == [_KEYS] and compiled.post_compile_params == {bind}
    if not alone or type(bind.type) not in _TYPES or _KEYS in compiled._bind_processors:
        return None
    name = "VARCHAR" if isinstance(bind.type, String) else engine.dialect.type_compiler_instance.process(bind.type)
    before, found, after = compiled.string.partition(_IN)
    return f"{before} = ANY ($1::{name}[]){after}" if found and _IN not in after else None
