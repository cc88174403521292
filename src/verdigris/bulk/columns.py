"""What the columns of an entity ask for: how each value reaches the driver, and what COPY can't carry."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table, bindparam, inspect, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapper

from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.ext.asyncio import AsyncSession

    Process = Callable[[Any], Any]
    Default = Callable[["Mapping[str, Any]"], Any]

# Types whose bound value is the one that asyncpg encodes for the column, whatever SQL surrounds it.
_CARRIED = (
    types.Integer, types.String, types.Numeric, types.Float, types.Boolean, types.Date, types.DateTime, types.Time,
    types.Interval, types.LargeBinary, types.Uuid, types.Enum, types.JSON, types.ARRAY,
    postgresql.INET, postgresql.CIDR, postgresql.INTERVAL, postgresql.ranges.AbstractRange,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copied:
    """How COPY writes one set of attributes: the columns, and what each of them does to a value or makes of a row."""

    columns: tuple[str, ...]
    processes: tuple[tuple[int, Process, bool], ...]
    defaults: tuple[Default, ...]


class Columns:
    """The columns of one entity by attribute name, or of a table that has no class by the columns' keys."""

    def __init__(self, source: Mapper[Any] | Table, session: AsyncSession) -> None:
        self.mapper = source if isinstance(source, Mapper) else None
        self.target = source.local_table if isinstance(source, Mapper) else source
        self.dialect = session.get_bind(**self.bind_arguments).dialect
        self.by_key: dict[str, Any] = (
            {prop.key: prop.columns[0] for prop in source.column_attrs}
            if isinstance(source, Mapper)
            else dict(source.columns.items())
        )
        self._copied: dict[tuple[str, ...], Copied | str] = {}

    @classmethod
    def of(cls, entity: type | Table, session: AsyncSession) -> Columns:
        """Read the mapping of `entity`; raises ConfigurationError where it is not a mapped class or a table."""
        source: Any = inspect(entity, raiseerr=False)
        if not isinstance(source, Mapper | Table):
            raise ConfigurationError(
                f"bulk.insert() was given {entity!r}, which is not a mapped class.",
                why="The rows' keys and types are those of a class's mapped attributes.",
                do=("await bulk.insert(session, Product, rows)   # class Product(Base): ...",),
                page="bulk/add-all",
            )
        return cls(source, session)

    @property
    def entity(self) -> type | Table:
        """The mapped class, or the table that has none: what an INSERT goes into."""
        return self.mapper.class_ if self.mapper is not None else cast("Table", self.target)

    @property
    def name(self) -> str:
        """The name of the entity as the reader knows it."""
        return self.mapper.class_.__name__ if self.mapper is not None else self.table

    @property
    def bind_arguments(self) -> dict[str, Any]:
        """What a session needs to know to choose its connection."""
        return {"mapper": self.mapper} if self.mapper is not None else {"clause": self.target}

    @property
    def table(self) -> str:
        """The table's name, with its schema if it has one."""
        return self.target.fullname if isinstance(self.target, Table) else str(self.target)

    def check(self, keys: Iterable[str], row: int) -> None:
        """Refuse a key that is no column."""
        for key in keys:
            if key in self.by_key:
                continue
            near = difflib.get_close_matches(str(key), self.by_key, n=1)
            raise ConfigurationError(
                f"Row {row} for {self.table} has the key {key!r}, and {self.name} has no such column.",
                why="Rows are mappings by attribute name; a key that goes nowhere is lost data.",
                do=(f"did you mean {near[0]!r}?",) if near else (f"its columns: {', '.join(self.by_key)}",),
                page="bulk/add-all",
            )

    def may_be_null(self, key: str) -> bool:
        """Whether leaving the attribute out is the same as None: no default of any kind, and nullable."""
        column = self.by_key.get(key)
        if column is None or not isinstance(column, Column):
            return False
        plain = column.default is None and column.server_default is None and not column.identity
        return plain and bool(column.nullable) and column not in self._special

    def copied(self, keys: tuple[str, ...]) -> Copied | str:
        """Return how COPY writes rows with these keys, or the reason why it can't."""
        if keys not in self._copied:
            self._copied[keys] = self._plan(keys)
        return self._copied[keys]

    def _plan(self, keys: tuple[str, ...]) -> Copied | str:
        if self.dialect.driver != "asyncpg":
            return f"the driver is {self.dialect.driver}, not asyncpg"
        if not isinstance(self.target, Table) or (self.mapper is not None and len(self.mapper.tables) != 1):
            return f"{self.name} is mapped to more than one table"
        names, processes, defaults = [], [], []
        for position, key in enumerate(keys):
            column = self.by_key[key]
            if not isinstance(column, Column) or column.table is not self.target:
                return f"{key} is not a column of {self.table}"
            refused = self._refusal(column)
            if refused is not None:
                return refused
            names.append(column.name)
            process = _processor(column, self.dialect)
            if process is not None:
                processes.append((position, process, bool(column.type.should_evaluate_none)))
        for column in self._left_out(keys).values():
            default, refused = self._default(column), self._refusal(column)
            if isinstance(default, str) or refused is not None:
                return refused or str(default)
            names.append(column.name)
            defaults.append(_processed(default, _processor(column, self.dialect)))
        if not names:
            return "the rows name no column"  # which COPY would take for all of them
        return Copied(tuple(names), tuple(processes), tuple(defaults))

    def filled(self, keys: tuple[str, ...], row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with what Python fills in for the attributes that it leaves out."""
        made = {key: self._default(column) for key, column in self._left_out(keys).items()}
        return {**row, **{key: default(row) for key, default in made.items() if not isinstance(default, str)}}

    def _refusal(self, column: Column[Any]) -> str | None:
        kind = column.type.dialect_impl(self.dialect)
        carrier = kind.impl_instance if isinstance(kind, types.TypeDecorator) else kind
        if column.type.bind_expression(bindparam("value", type_=column.type)) is not None:
            return f"{column.name} has a type with SQL of its own ({column.type!r})"
        if not isinstance(carrier, _CARRIED):
            return f"{column.name} is a {column.type!r}, which COPY is not known to carry"
        return None

    def _left_out(self, keys: Sequence[str]) -> dict[str, Column[Any]]:
        """Return the columns that rows leave out and that something on this side fills, by attribute."""
        given = set(keys)
        return {
            key: column
            for key, column in self.by_key.items()
            if key not in given and isinstance(column, Column) and self._is_filled(column)
        }

    def _is_filled(self, column: Column[Any]) -> bool:
        return column.default is not None or column in self._special

    @property
    def _special(self) -> set[Any]:
        """The columns that the mapper fills by itself."""
        return set() if self.mapper is None else {self.mapper.polymorphic_on, self.mapper.version_id_col}

    def _default(self, column: Column[Any]) -> Default | str:
        """Return what makes the column's value of a row, or why that is not done on this side."""
        mapper, default = self.mapper, column.default
        if mapper is not None and column is mapper.polymorphic_on:
            identity = mapper.polymorphic_identity
            return lambda _row: identity
        if mapper is not None and column is mapper.version_id_col:
            generate = mapper.version_id_generator
            if not callable(generate):
                return f"{column.name} is set by the server"
            return lambda _row: generate(None)
        if default is None or not (default.is_scalar or default.is_callable):
            return f"the default of {column.name} is SQL"
        made: Any = default.arg  # type: ignore[attr-defined]  # of ColumnDefault, which the two flags say it is
        if default.is_callable:
            return lambda row: made(_Context({self.by_key[key].key: value for key, value in row.items()}))
        return lambda _row: made


@dataclass(frozen=True, slots=True)
class _Context:
    """What a default's callable may ask of SQLAlchemy's execution context: the other values of its row."""

    current_parameters: Mapping[str, Any]

    def get_current_parameters(self, isolate_multiinsert_params: bool = True) -> Mapping[str, Any]:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        return self.current_parameters


def _processor(column: Column[Any], dialect: Dialect) -> Process | None:
    kind = column.type.dialect_impl(dialect)
    return kind.bind_processor(dialect)


def _processed(default: Default, process: Process | None) -> Default:
    return default if process is None else lambda row: process(default(row))
