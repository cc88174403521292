"""Section 4: a declarative base that makes relationships explicit, indexes foreign keys and gives datetimes a zone."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from sqlalchemy import Column, DateTime, ForeignKeyConstraint, Index, MetaData, Table, event
from sqlalchemy.orm import DeclarativeBase, MappedColumn, Mapper, RelationshipProperty, Session, declared_attr

from verdigris._annotations import annotations_of
from verdigris.errors import ConfigurationError
from verdigris.lean.session_listeners import OF_LAZY_LOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import ORMExecuteState

__all__ = ["NAMING_CONVENTION", "Base", "Guarded", "guard"]

Ladder = Literal["off", "log", "raise"]
_B = TypeVar("_B", bound=type)

log = logging.getLogger("verdigris.models")

#: Names for constraints and indexes, so that a migration can drop what it did not create by hand.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_MARK = "verdigris"  # the key of our entries in MetaData.info and Index.info
_UNNAMED = "select"  # what relationship() puts where lazy= is not named; a written opt-out is lazy=True
_EXPLICIT: Literal["raise_on_sql"] = "raise_on_sql"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a guarded base does with what its classes leave out."""

    unnamed_lazy: Ladder = "raise"
    index_foreign_keys: bool = True
    require_annotations: bool = True
    eager_defaults: bool = True


def guard(
    base: _B,
    *,
    unnamed_lazy: Ladder = "raise",
    index_foreign_keys: bool = True,
    require_annotations: bool = True,
    eager_defaults: bool = True,
) -> _B:
    """Give a declarative base of your own the guards of `Base`, and return it.

    Call it before the first mapped class is defined. What it can't add to an existing base is the type map and the
    naming convention: derive a new one from `Guarded` for those.

    `unnamed_lazy` is the ladder for code that migrates: "off" leaves SQLAlchemy's lazy loading, "log" leaves it and
    logs each such load, "raise" makes it `raise_on_sql`.
    """
    policy = Policy(unnamed_lazy, index_foreign_keys, require_annotations, eager_defaults)
    if index_foreign_keys:
        metadata = getattr(base, "metadata", None)
        if not isinstance(metadata, MetaData):
            raise ConfigurationError(
                f"{base.__name__} has no MetaData whose foreign keys could be indexed.",
                why="guard() works on the declarative base itself, the class that all mapped classes derive from.",
                do=("class Base(DeclarativeBase): ...", "guard(Base)"),
                page="models/explicit-lazy",
            )
        metadata.info[_MARK] = policy

    def check(_mapper: Mapper[Any], cls: type) -> None:
        if policy.require_annotations:
            _refuse_unannotated(cls)

    def constructed(mapper: Mapper[Any], _cls: type) -> None:
        if policy.eager_defaults and mapper.eager_defaults == "auto":
            mapper.eager_defaults = True
        if policy.index_foreign_keys and isinstance(mapper.local_table, Table):
            index_foreign_keys_of(mapper.local_table)

    def configure(mapper: Mapper[Any], cls: type) -> None:
        _name_lazy(mapper, _ladder(cls, policy))

    def instrumented(cls: type, key: str, attribute: Any) -> None:
        _refuse_late(cls, key, attribute, _ladder(cls, policy))

    event.listen(base, "instrument_class", check, propagate=True)
    event.listen(base, "after_mapper_constructed", constructed, propagate=True)
    event.listen(base, "before_mapper_configured", configure, propagate=True)
    event.listen(base, "attribute_instrument", instrumented, propagate=True)
    return base


class Guarded:
    """What makes `Base`, for a base of your own: `class Base(Guarded, DeclarativeBase): ...`.

    Unlike `guard` it brings the type map and the naming convention too, unless the class has its own `metadata` or
    `type_annotation_map`.
    """

    if TYPE_CHECKING:
        __unnamed_lazy__: ClassVar[Ladder]
        metadata: ClassVar[MetaData]
        type_annotation_map: ClassVar[Mapping[Any, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        is_base = DeclarativeBase in cls.__bases__
        if is_base and "metadata" not in cls.__dict__:
            cls.metadata = MetaData(naming_convention=NAMING_CONVENTION)
        if is_base and "type_annotation_map" not in cls.__dict__:
            cls.type_annotation_map = {dt.datetime: DateTime(timezone=True)}
        super().__init_subclass__(**options)
        if is_base:
            guard(cls)


class Base(Guarded, DeclarativeBase):
    """The declarative base: what a class leaves out is safe, what it writes is kept.

    - a `relationship()` that names no `lazy=` is `raise_on_sql`, its backref too; `lazy=True` asks for lazy loading;
    - a foreign key that no primary key, unique constraint or index leads with gets an index, in a plain
      `Table(..., Base.metadata)` too; `mapped_column(ForeignKey(...), index=False)` asks for none, a table's
      `info={"index_foreign_keys": False}` (in `__table_args__`) for none on the whole table;
    - `Mapped[datetime]` is `timestamp with time zone`; `mapped_column(DateTime())` asks for one without;
    - an unannotated `Column()`, `mapped_column()` or `relationship()` in a class is refused;
    - values that the server sets are fetched in the statement that sets them (`eager_defaults`);
    - constraints and indexes are named by `NAMING_CONVENTION`.

    `__unnamed_lazy__ = "off" | "log" | "raise"` on a class, or on a base in between, is the ladder for code that
    migrates.
    """


# -- relationships -----------------------------------------------------------------------------------------------------


def _ladder(cls: type, policy: Policy) -> Ladder:
    return cast("Ladder", getattr(cls, "__unnamed_lazy__", policy.unnamed_lazy))


def _name_lazy(mapper: Mapper[Any], ladder: Ladder) -> None:
    """Turn each relationship of a mapper that names no lazy= into raise_on_sql, before its strategy is chosen."""
    if ladder == "off":
        return
    if ladder == "log":
        _log_lazy_loads()
        return
    for prop in mapper._props.values():  # noqa: SLF001 - Mapper.relationships would configure the mapper
        if not isinstance(prop, RelationshipProperty):
            continue
        if prop.lazy == _UNNAMED:
            prop.lazy = _EXPLICIT
            prop.strategy_key = (("lazy", _EXPLICIT),)
        if prop.backref is not None:
            name, options = prop.backref if isinstance(prop.backref, tuple) else (prop.backref, {})
            prop.backref = (name, {"lazy": _EXPLICIT, **options})


def _refuse_late(cls: type, key: str, attribute: Any, ladder: Ladder) -> None:
    """Refuse what `_name_lazy` never saw: a relationship added to a class whose mapper was configured before."""
    prop = getattr(attribute, "property", None)
    if ladder != "raise" or not isinstance(prop, RelationshipProperty) or prop.lazy != _UNNAMED:
        return
    raise ConfigurationError(
        f"{cls.__name__}.{key} was added after the mappers were configured, and it names no lazy=.",
        why="It would load lazily, which async SQLAlchemy can't do inside attribute access.",
        do=(f'{cls.__name__}.{key} = relationship(..., lazy="raise_on_sql")',),
        page="models/explicit-lazy",
    )


_logging_lazy_loads = False


def _log_lazy_loads() -> None:
    global _logging_lazy_loads  # noqa: PLW0603 - one listener for the process, whatever the number of bases
    if _logging_lazy_loads:
        return
    _logging_lazy_loads = True

    def log_lazy_load(state: ORMExecuteState) -> None:
        if state.is_relationship_load and state.lazy_loaded_from is not None:
            path: Any = state.loader_strategy_path
            log.warning("%s was loaded lazily", path.prop)

    setattr(log_lazy_load, OF_LAZY_LOADS, True)
    event.listen(Session, "do_orm_execute", log_lazy_load)


# -- foreign keys ------------------------------------------------------------------------------------------------------


def index_foreign_keys_of(table: Table) -> list[Index]:
    """Add an index for each foreign key of `table` that nothing leads with, and return those added.

    PostgreSQL indexes the referenced side only: without one, a DELETE of the parent scans the child table and holds
    its locks meanwhile (PostgreSQL, "Constraints", 5.5.5).
    """
    added: list[Index] = []
    if table.info.get("index_foreign_keys") is False:
        return added
    for constraint in sorted(table.foreign_key_constraints, key=lambda fk: list(fk.column_keys)):
        columns = tuple(constraint.columns)
        if not columns or any(column.index is False for column in columns):
            continue
        if not any(_leads(candidate, columns) for candidate in _ordered_columns(table)):
            added.append(Index(None, *columns, info={_MARK: "foreign key"}))
    return added


def _leads(candidate: tuple[Column[Any], ...], columns: tuple[Column[Any], ...]) -> bool:
    return set(candidate[: len(columns)]) == set(columns)


def _ordered_columns(table: Table, *, besides: Index | None = None) -> Iterator[tuple[Column[Any], ...]]:
    """Yield the columns, in order, of everything on a table that can serve a lookup."""
    for constraint in table.constraints:
        if not isinstance(constraint, ForeignKeyConstraint) and constraint.__visit_name__ in _KEYS:
            yield tuple(constraint.columns)  # type: ignore[attr-defined]
    for column in table.columns:
        if column.unique or column.index:
            yield (column,)
    for index in table.indexes:
        if index is not besides and _serves_lookups(index):
            yield tuple(expression for expression in index.expressions if isinstance(expression, Column))


_KEYS = frozenset({"primary_key_constraint", "unique_constraint"})


def _serves_lookups(index: Index) -> bool:
    options = index.dialect_options["postgresql"]
    plain = all(isinstance(expression, Column) for expression in index.expressions)
    return plain and options["where"] is None and options["using"] in {False, None, "btree", "hash"}


@event.listens_for(Table, "after_parent_attach")
def _index_new_table(table: Table, metadata: Any) -> None:
    policy = _policy_of(metadata)
    if policy is not None and policy.index_foreign_keys:
        index_foreign_keys_of(table)


@event.listens_for(Index, "after_parent_attach")
def _prefer_written_index(index: Index, table: Any) -> None:
    """Withdraw an index of ours where the user writes one that serves the same lookups, after the class as is usual."""
    if not isinstance(table, Table) or _MARK in index.info or _policy_of(table.metadata) is None:
        return
    if not _serves_lookups(index):
        return
    written = tuple(expression for expression in index.expressions if isinstance(expression, Column))
    for ours in [other for other in table.indexes if other.info.get(_MARK) == "foreign key"]:
        if _leads(written, tuple(ours.columns)):
            table.indexes.discard(ours)


def _policy_of(metadata: Any) -> Policy | None:
    policy = metadata.info.get(_MARK) if isinstance(metadata, MetaData) else None
    return policy if isinstance(policy, Policy) else None


# -- annotations -------------------------------------------------------------------------------------------------------


def _refuse_unannotated(cls: type) -> None:
    bases = [klass for klass in cls.__mro__ if klass is not object and not klass.__module__.startswith("sqlalchemy.")]
    annotated = {name for klass in bases for name in annotations_of(klass)}
    for name, value in vars(cls).items():  # what mixins declare has been copied here by now
        home = next(klass for klass in reversed(bases) if name in vars(klass))
        maker = vars(home)[name]
        if isinstance(value, Column):
            raise _column_refused(home, name, value, annotated=name in annotated)
        if isinstance(maker, declared_attr) and "return" in annotations_of(maker.fget):
            continue
        if isinstance(value, MappedColumn | RelationshipProperty) and name not in annotated:
            raise _unannotated(home, name, value)


def _column_refused(cls: type, name: str, column: Column[Any], *, annotated: bool) -> ConfigurationError:
    hint = f"Mapped[{_python_type(column)}]"
    return ConfigurationError(
        f"{cls.__name__}.{name} is a Column() in a mapped class.",
        why=(
            "Column() takes nothing from the annotation: it stays nullable where the type says it is not."
            if annotated
            else "Without Mapped[...] neither a type checker nor SQLAlchemy knows its type and whether it can be None."
        ),
        do=(f"{name}: {hint} = mapped_column(...)",),
        page="models/mapped-column",
    )


def _unannotated(cls: type, name: str, value: object) -> ConfigurationError:
    if isinstance(value, MappedColumn):
        what, hint = "mapped_column()", f"{name}: Mapped[{_python_type(value.column)}] = mapped_column(...)"
    else:
        what, hint = "relationship()", f'{name}: Mapped[...] = relationship(..., lazy="raise_on_sql")'
    return ConfigurationError(
        f"{cls.__name__}.{name} is a {what} without an annotation.",
        why="Without Mapped[...] neither a type checker nor SQLAlchemy knows its type and whether it can be None.",
        do=(hint,),
        page="models/mapped",
    )


def _python_type(column: Column[Any]) -> str:
    try:
        name = column.type.python_type.__name__
    except NotImplementedError:
        return "..."
    return f"{name} | None" if column.nullable and not column.primary_key else name
