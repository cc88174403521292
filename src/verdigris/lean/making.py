"""What `sqlalchemy.orm.loading` makes of rows, where nothing else has a say in it.

Loading works out anew for each statement what is done with its rows, which for a single row takes longer than doing it.
What is kept here is the outcome: for one object of a class of which SQLAlchemy itself does nothing but fill columns in
(no inheritance, no loader with work of its own, no option, no listener), and for rows of columns. An object that its
session has already stays loading's.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.result import ChunkedIteratorResult
from sqlalchemy.orm import attributes, loading
from sqlalchemy.orm import context as orm_context

from verdigris.lean.theirs import theirs

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Record
    from sqlalchemy.engine import Result
    from sqlalchemy.orm import Session

NOT_MADE: Any = object()  # nothing was done: loading shall do it
_ENTITY = theirs(orm_context, "_MapperEntity")
_COLUMNS = frozenset({theirs(orm_context, "_RawColumnEntity"), theirs(orm_context, "_ORMColumnEntity")})


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes instances of one class from rows of one statement."""

    manager: Any
    identity: type
    path: Any
    key: Callable[[Any], tuple[Any, ...]]  # as the driver gives it
    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]  # of these attributes, in their order
    process: tuple[Callable[[Any], Any] | None, ...] | None  # of the row's columns, where a type has anything to do
    results: _Results

    def make(self, session: Session, record: Record) -> Any:
        """Return the row's instance, new in the session's identity map; `NOT_MADE` if it is there, or has no key."""
        key, identity_map = self.key(record), session.identity_map
        for part in key:  # not `in`, which would ask what a type has made of it
            if part is None:
                return NOT_MADE
        identity = (self.identity, key, None)
        if identity_map.get(identity) is not None:
            return NOT_MADE
        row: Any = record
        if self.process is not None:
            row = [value if make is None else make(value) for make, value in zip(self.process, record, strict=True)]
        instance = self.manager.new_instance()
        state: Any = attributes.instance_state(instance)
        state.key, state.identity_token, state.session_id = identity, None, session.hash_key
        identity_map._add_unpresent(state, identity)
        state.load_options, state.load_path, state.runid = (), self.path, loading._new_runid()
        attributes.instance_dict(instance).update(zip(self.names, self.values(row), strict=True))
        return instance


@dataclass(frozen=True, slots=True)
class Columns:
    """Gives the rows of a statement of columns alone."""

    first: int  # the place of the first column
    values: Callable[[Any], tuple[Any, ...]]
    processed: bool  # a type has something to do
    results: _Results | None  # None where they know the statement's own expressions


@dataclass(frozen=True, slots=True)
class _Results:
    """Makes results as loading does, which differ in their rows only."""

    metadata: Any
    attributes: Any
    objects: bool  # the rows are objects

    def of(self, rows: list[Any], cursor: Any) -> Result[Any]:
        """Return a result; `cursor` is a result of the driver's whose rows were fetched."""
        made: Any = ChunkedIteratorResult(self.metadata, lambda _: iter([rows]), self.objects, cursor)
        made._attributes = self.attributes
        return made  # type: ignore[no-any-return]


def maker_of(query: Any, cursor: Any, result: Any) -> Maker | None:
    """Return the maker of a statement's only entity, of which loading has been asked once; None if there is more to it.

    `query` is the context that it was asked with, `cursor` a result of the same columns, `result` what it gave.
    """
    state, metadata = query.compile_state, cursor._metadata
    entity = state._entities[0]
    if len(state._entities) != 1 or type(entity) is not _ENTITY or query.propagated_loader_options:
        return None
    mapper = entity.mapper
    alone = mapper.inherits is None and mapper.polymorphic_on is None and not mapper.polymorphic_map
    if not alone or mapper.always_refresh or state.current_path.path:
        return None
    getters = entity.path.get(state.attributes, ("getters", mapper), None)
    if getters is None or metadata._tuplefilter is not None:
        return None
    populators = {kind: list(of_kind) for kind, of_kind in getters["cached_populators"].items()}
    for attribute in getters["todo"]:
        attribute.create_row_processor(query, entity, entity.path, mapper, cursor, None, populators)
    columns = populators.pop("quick")
    later = [sets for kind, of_kind in populators.items() for sets in of_kind if kind != "expire" or sets[1]]
    if not columns or later:
        return None
    places = range(len(metadata._keys))  # a getter tells its place in a row of places
    process, key = metadata._effective_processors, getters["primary_key_getter"](places)
    if process is not None and any(process[place] for place in key):
        return None  # what is there already would be converted twice
    return Maker(
        manager=mapper.class_manager,
        identity=mapper._identity_class,
        path=entity.path,
        key=_tuple_of(key),
        names=tuple(name for name, _ in columns),
        values=_tuple_of(tuple(getter(places) for _, getter in columns)),
        process=tuple(process) if process is not None and any(process) else None,
        results=_Results(result._metadata, result._attributes, objects=True),
    )


def columns_of(query: Any, cursor: Any, result: Any) -> Columns | None:
    """Return how a statement's rows become columns; None if it is not of columns alone. For the rest see `maker_of`."""
    entities = query.compile_state._entities
    if not all(type(entity) in _COLUMNS for entity in entities) or cursor._metadata._tuplefilter is not None:
        return None
    places = range(len(cursor._metadata._keys))
    at = tuple(entity.row_processor(query, cursor)[0](places) for entity in entities)
    own = any(entity.translate_raw_column for entity in entities)
    return Columns(
        first=at[0],
        values=_tuple_of(at),
        processed=cursor._metadata._effective_processors is not None,
        results=None if own else _Results(result._metadata, result._attributes, objects=False),
    )


def _tuple_of(places: tuple[int, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    place = places[0]
    return lambda row: (row[place],)
