"""Plans: how a select() of mapped classes is run without SQLAlchemy's engine, once that has run it before.

The engine compiles a statement, works out its parameters and what its columns are, every time: from caches, but through
some fifty calls. A plan keeps the outcome for one shape of statement: the text, where each argument comes from, what
the columns are, and which statements of loaders follow. Making objects of the rows stays SQLAlchemy's, by
`sqlalchemy.orm.loading` itself: identity map, load events, loader options, types, uniqueness. What a plan cannot be
made for takes SQLAlchemy's own path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import methodcaller
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.orm import context as orm_context
from sqlalchemy.orm import loading
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.util import greenlet_spawn, immutabledict

from verdigris.engine.read_only import writes
from verdigris.lean.following import SELECT, UnsentError, answering, following
from verdigris.lean.making import NOT_MADE, columns_of, maker_of
from verdigris.lean.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sqlalchemy import Engine, Select
    from sqlalchemy.engine import Result
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import BindParameter

    from verdigris.lean.following import Fetched, Following
    from verdigris.lean.making import Columns, Maker

_KEPT = 500  # shapes that were used last, and up to as many of those before them; as many that are being learnt
_SEVERAL = 2  # rows, which loading makes as fast
#: For what the engine has made of a shape, after 1, 2, 4, 8 … of its statements: many may wait for the first.
_LOOKS = 10
#: What the ORM says to the engine of its loads; rows are made into objects when they are there, as AsyncSession does.
_UNBUFFERED: immutabledict[str, Any] = immutabledict({"_result_disable_adapt_to_context": True})
_OPTIONS: immutabledict[str, Any] = _UNBUFFERED.union({"prebuffer_rows": True})

_tuples: Any = methodcaller("_raw_all_tuples" if hasattr(IteratorResult, "_raw_all_tuples") else "_raw_all_rows")  # 2.0

#: Of an argument: which of the statement's values it is, and what makes it the driver's; else the constant that it is.
Source = tuple[int | None, "Callable[[Any], Any] | None", Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How statements of one shape are run."""

    text: str
    sources: tuple[Source, ...]  # of each argument
    metadata: Any
    context: Any  # what loading asks of an execution context
    compile_state: Any
    mapper: Any
    waits: bool  # loading may send more statements, or listeners of classes that joins load may
    single: bool  # one entity or column, and rows that stand for themselves
    managers: tuple[Any, ...]  # of the classes that are loaded: they know who listens
    locks: bool
    repeatable: bool  # the text calls no functions, so that running it twice is running it once
    witness: Select[Any]  # keeps alive what the shape's key identifies
    following: tuple[Following, ...] = ()  # what loading would send: known, and sent before
    maker: Maker | None = None  # of single rows, where there is no more to loading
    columns: Columns | None = None  # as is what becomes of columns

    def arguments(self, binds: Sequence[BindParameter[Any]]) -> list[Any]:
        """Return the driver's arguments for a statement of this shape."""
        return [
            constant if place is None else binds[place].value if process is None else process(binds[place].value)
            for place, process, constant in self.sources
        ]

    def first(self, session: Session, statement: Select[Any], rows: list[Any]) -> Any:
        """Return what `load(...).scalar()` comes to, for a `single` plan that needs not wait: no result in between."""
        if self.columns is not None:
            columns = self._columns(rows)
            return columns[0][self.columns.first] if columns else None
        if self.maker is not None and len(rows) == 1:
            instance = self.maker.make(session, rows[0])
            if instance is not NOT_MADE:
                return instance
        query: Any = self._query(session, statement)
        query.runid, query.post_load_paths, query.partials = loading._new_runid(), {}, {}
        cursor = self.cursor(rows)
        made, _, _ = self.compile_state._entities[0].row_processor(query, cursor)
        values = [made(row) for row in _tuples(cursor)]
        return values[0] if values else None

    @property
    def loads_at_once(self) -> bool:
        """Whether making objects of rows calls nobody who might wait."""
        for manager in self.managers:
            if manager.dispatch.load or manager.dispatch.refresh:
                return False
        return not self.waits

    async def load(
        self, session: Session, statement: Select[Any], rows: list[Any], fetched: Sequence[Fetched] = ()
    ) -> Result[Any]:
        """Return SQLAlchemy's own result of these rows: instances of the session's identity map."""
        if not self.loads_at_once:
            return await greenlet_spawn(self.instances, session, statement, rows, fetched)
        if self.maker is not None and len(rows) < _SEVERAL:
            made = [self.maker.make(session, row) for row in rows]
            if not made or made[0] is not NOT_MADE:
                return self.maker.results.of(made, self.cursor([]))
        if self.columns is not None and self.columns.results is not None:
            return self.columns.results.of(list(map(self.columns.values, self._columns(rows))), self.cursor([]))
        return self.instances(session, statement, rows)

    def instances(
        self, session: Session, statement: Select[Any], rows: list[Any], fetched: Sequence[Fetched] = ()
    ) -> Result[Any]:
        query = self._query(session, statement)
        if not fetched:
            return loading.instances(self.cursor(rows), query)
        with answering(session, fetched):
            return loading.instances(self.cursor(rows), query)

    def unloaded(self, session: Session, statement: Select[Any]) -> tuple[Any, Result[Any]]:
        """Return a context that no row was loaded with, and its result: what loaders have asked for is still there."""
        query = self._query(session, statement)
        query.execution_options = _UNBUFFERED
        return query, loading.instances(self.cursor([]), query)

    def cursor(self, rows: list[Any]) -> Any:
        """Return rows as loading takes them."""
        cursor: Any = IteratorResult(self.metadata, iter(rows))
        cursor.context = self.context
        return cursor

    def _columns(self, rows: list[Any]) -> Sequence[Any]:
        """Return rows as loading finds them: with what types make of their values."""
        return _tuples(self.cursor(rows)) if self.columns and self.columns.processed else rows

    def _query(self, session: Session, statement: Select[Any]) -> orm_context.QueryContext:
        return orm_context.QueryContext(
            self.compile_state,
            statement,
            statement,
            {},
            session,
            orm_context.QueryContext.default_load_options,
            _OPTIONS,
            {"clause": statement, "mapper": self.mapper},
        )


class Plans:
    """The plans of one engine: a shape that SQLAlchemy has run gets one, or is known to get none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plans: dict[Hashable, Plan | Select[Any]] = {}  # a statement where its shape is known to get none
        self._before: dict[Hashable, Plan | Select[Any]] = {}
        self._learning: dict[Hashable, tuple[int, Select[Any]]] = {}  # the last that ran is the last one

    def find(self, statement: Select[Any], session: Session) -> tuple[Plan, Sequence[BindParameter[Any]]] | None:
        """Return the plan for a statement and its bound values; None if SQLAlchemy shall run it."""
        key: Hashable
        binds: Sequence[BindParameter[Any]]
        shape = shape_of(statement)
        if shape is not None:
            key, binds = shape
        else:
            general = statement._generate_cache_key()
            if general is None:
                return None
            key, binds = general[0], general[1]
        plan: Any = self._plans.get(key)
        if plan is None:
            plan = self._before.pop(key, None)
            if plan is None:
                plan = self._learn(key, binds, statement, session)
            if plan is None:
                return None
            self._keep(key, plan)
        return (plan, binds) if type(plan) is Plan else None

    def _keep(self, key: Hashable, plan: Plan | Select[Any]) -> None:
        if len(self._plans) >= _KEPT:
            self._plans, self._before = {}, self._plans
        self._plans[key] = plan

    def _learn(
        self, key: Hashable, binds: Sequence[BindParameter[Any]], statement: Select[Any], session: Session
    ) -> Plan | Select[Any] | None:
        """Return a plan, the statement if its shape gets none, None while it is being learnt."""
        ran, witness = self._learning.pop(key, (0, statement))
        if not ran or ran & (ran - 1):
            self._run(key, ran, witness)
            return None
        try:
            return self._made(binds, statement, session) or statement
        except UnsentError:  # the first are still under way, perhaps, or no row had collections to load
            if ran >= 2**_LOOKS:
                return statement
        self._run(key, ran, witness)
        return None

    def _run(self, key: Hashable, ran: int, witness: Select[Any]) -> None:
        if len(self._learning) >= _KEPT:
            del self._learning[next(iter(self._learning))]
        self._learning[key] = (ran + 1, witness)

    def _made(self, binds: Sequence[BindParameter[Any]], statement: Select[Any], session: Session) -> Plan | None:
        compiled, extracted = self._compiled(statement)
        plan = _made(compiled, extracted, binds, statement)
        return None if plan is None else self._followed(plan, statement, session)

    def _followed(self, plan: Plan, statement: Select[Any], session: Session) -> Plan:
        """Return the plan with the statements that loaders send: `selectinload`, `subqueryload`, `immediateload`."""
        query, result = plan.unloaded(session, statement)
        if not (query.post_load_paths or query.loaders_require_buffering):
            if plan.waits:
                return plan
            asked = query, plan.cursor([]), result
            made = replace(plan, maker=maker_of(*asked), columns=columns_of(*asked))
            query.session = None  # which results would keep
            return made
        more = None if query.loaders_require_buffering else following(self._engine, query)
        return replace(plan, waits=True, following=more or ())

    def _compiled(self, statement: Select[Any]) -> tuple[Any, Sequence[BindParameter[Any]]]:
        """Return what SQLAlchemy's engine has compiled of a statement run without parameters; raise UnsentError."""
        general = statement._generate_cache_key()
        cache: Any = self._engine._compiled_cache or {}
        compiled = None if general is None else cache.get((self._engine.dialect, general[0], (), False, False))
        if general is None or compiled is None or compiled._cached_metadata is None:
            raise UnsentError
        return compiled, general[1]


def _made(
    compiled: Any,
    extracted: Sequence[BindParameter[Any]],
    binds: Sequence[BindParameter[Any]],
    statement: Select[Any],
) -> Plan | None:
    """Return the plan for a compiled statement; None if there is more to running it than a plan knows."""
    state = compiled.compile_state
    subject = statement._propagate_attrs.get("plugin_subject")
    if type(state) is not SELECT or state.compile_options._is_star or subject is None:
        return None
    if compiled.post_compile_params or compiled.literal_execute_params or compiled.escaped_bind_names:
        return None
    if writes(compiled.string):  # in a WITH
        return None
    sources = _sources(compiled, extracted, binds)
    if sources is None:
        return None
    context = SimpleNamespace(_is_server_side=False, compiled=compiled, execution_options=_OPTIONS)
    parts = list(visitors.iterate(statement))
    return Plan(
        text=compiled.string,
        sources=sources,
        metadata=compiled._cached_metadata,
        context=context,
        compile_state=state,
        mapper=subject.mapper,
        waits=state.compound_eager_adapter is not None or bool(state.eager_joins) or _asks_more(state),
        single=len(state._entities) == 1 and not state.multi_row_eager_loaders,
        managers=_managers(state),
        locks=statement._for_update_arg is not None,
        repeatable=not any(isinstance(part, FunctionElement | TextClause) for part in parts),
        witness=statement,
    )


def _sources(
    compiled: Any, extracted: Sequence[BindParameter[Any]], binds: Sequence[BindParameter[Any]]
) -> tuple[Source, ...] | None:
    """Return where each argument comes from, as `construct_params` would find it; None if one is not a value."""
    matches, _ = compiled._cache_key_bind_match
    places = {id(bind): place for place, bind in enumerate(binds)}
    origin = {
        id(inner): places[id(own)]
        for cached, own in zip(compiled.cache_key[1], extracted, strict=True)
        if id(own) in places
        for inner in matches[cached]
    }  # the others belong to mappers: constants of a column_property, or of the select() that a class is mapped to
    names = compiled.positiontup or ()
    if any(compiled.binds[name].callable is not None or compiled.binds[name].required for name in names):
        return None
    values = compiled.construct_params(extracted_parameters=extracted)
    sources: list[Source] = []
    for name in names:
        place, process = origin.get(id(compiled.binds[name])), compiled._bind_processors.get(name)
        if isinstance(process, tuple):
            return None
        constant = None if place is not None else values[name] if process is None else process(values[name])
        sources.append((place, process, constant))
    right = all(
        place is None or binds[place].value is values[name] for (place, _, _), name in zip(sources, names, strict=True)
    )
    return tuple(sources) if right else None


def _asks_more(state: Any) -> bool:
    """Tell whether loading may ask the database: what it loads of a subclass it finds out when a row is of that one.

    A dynamic collection is asked for where `noload()` empties it.
    """
    mappers = [entity.mapper for entity in state._lead_mapper_entities]
    return any(
        len(tuple(mapper.self_and_descendants)) > 1 or any(each.lazy == "dynamic" for each in mapper.relationships)
        for mapper in mappers
    )


def _managers(state: Any) -> tuple[Any, ...]:
    mappers = [mapper for entity in state._lead_mapper_entities for mapper in entity.mapper.self_and_descendants]
    return tuple({mapper.class_manager: None for mapper in mappers})
