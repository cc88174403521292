"""What the columns of an entity ask for: how each value reaches the driver, and what COPY can't carry."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """The columns of one entity, by attribute name."""

    def __init__(self, mapper: Mapper[Any], dialect: Dialect) -> None:
        self.mapper = mapper
        self.dialect = dialect
        self.by_key = {prop.key: prop.columns[0] for prop in mapper.column_attrs}
        self._copied: dict[tuple[str, ...], Copied | str] = {}

    @classmethod
    def of(cls, entity: type, session: AsyncSession) -> Columns:
        """Read the mapping of `entity`; raises ConfigurationError where it is not a mapped class."""
        mapper: Any = inspect(entity, raiseerr=False)
        if not isinstance(mapper, Mapper):
            raise ConfigurationError(
                f"bulk.insert() was given {entity!r}, which is not a mapped class.",
                why="The rows' keys and types are those of a class's mapped attributes.",
                do=("await bulk.insert(session, Product, rows)   # class Product(Base): ...",),
                page="bulk/add-all",
            )
        return cls(mapper, session.get_bind(mapper).dialect)

    @property
    def entity(self) -> type:
        """The mapped class."""
        return self.mapper.class_

    @property
    def table(self) -> str:
        """The table's name, with its schema if it has one."""
        table = self.mapper.local_table
        return table.fullname if isinstance(table, Table) else str(table)

    def check(self, keys: Iterable[str], row: int) -> None:
        """Refuse a key that is no column."""
        for key in keys:
            if key in self.by_key:
                continue
            near = difflib.get_close_matches(str(key), self.by_key, n=1)
            raise ConfigurationError(
                f"Row {row} for {self.table} has the key {key!r}, and {self.entity.__name__} has no such column.",
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
        return plain and bool(column.nullable) and column is not self.mapper.polymorphic_on

    def copied(self, keys: tuple[str, ...]) -> Copied | str:
        """Return how COPY writes rows with these keys, or the reason why it can't."""
        if keys not in self._copied:
            self._copied[keys] = self._plan(keys)
        return self._copied[keys]

    def _plan(self, keys: tuple[str, ...]) -> Copied | str:
        if self.dialect.driver != "asyncpg":
            return f"the driver is {self.dialect.driver}, not asyncpg"
        if len(self.mapper.tables) != 1 or not isinstance(self.mapper.local_table, Table):
            return f"{self.entity.__name__} is mapped to more than one table"
        names, processes, defaults = [], [], []
        for position, key in enumerate(keys):
            column = self.by_key[key]
            if not isinstance(column, Column) or column.table is not self.mapper.local_table:
                return f"{key} is not a column of {self.table}"
            refused = self._refusal(column)
            if refused is not None:
                return refused
            names.append(column.name)
            process = _processor(column, self.dialect)
            if process is not None:
                processes.append((position, process, bool(column.type.should_evaluate_none)))
        for column in self._left_out(keys):
            default = self._default(column)
            if isinstance(default, str):
                return default
            names.append(column.name)
            defaults.append(default)
        return Copied(tuple(names), tuple(processes), tuple(defaults))

    def _refusal(self, column: Column[Any]) -> str | None:
        kind = column.type.dialect_impl(self.dialect)
        carrier = kind.impl_instance if isinstance(kind, types.TypeDecorator) else kind
        if column.type.bind_expression(bindparam("value", type_=column.type)) is not None:
            return f"{column.name} has a type with SQL of its own ({column.type!r})"
        if not isinstance(carrier, _CARRIED):
            return f"{column.name} is a {column.type!r}, which COPY is not known to carry"
        return None

    def _left_out(self, keys: Sequence[str]) -> list[Column[Any]]:
        """Return the columns that rows leave out and that something in Python fills."""
        given = set(keys)
        return [
            column
            for key, column in self.by_key.items()
            if key not in given and isinstance(column, Column) and self._is_filled(column)
        ]

    def _is_filled(self, column: Column[Any]) -> bool:
        mapper = self.mapper
        return column.default is not None or column in {mapper.polymorphic_on, mapper.version_id_col}

    def _default(self, column: Column[Any]) -> Default | str:
        mapper, default = self.mapper, column.default
        process = _processor(column, self.dialect) or _as_it_is
        if column is mapper.polymorphic_on:
            identity = process(mapper.polymorphic_identity)
            return lambda _row: identity
        if column is mapper.version_id_col:
            generate = mapper.version_id_generator
            if not callable(generate):
                return f"{column.name} is set by the server"
            return lambda _row: process(generate(None))
        refused = self._refusal(column)
        if refused is not None:
            return refused
        if default is None or not (default.is_scalar or default.is_callable):
            return f"the default of {column.name} is SQL"
        made: Any = default.arg  # type: ignore[attr-defined]  # of ColumnDefault, which the two flags say it is
        if default.is_callable:
            return lambda row: process(made(_Context(row)))
        value = process(made)
        return lambda _row: value


@dataclass(frozen=True, slots=True)
class _Context:
    """What a default's callable may ask of SQLAlchemy's execution context: the other values of its row."""

    current_parameters: Mapping[str, Any]

    def get_current_parameters(self, isolate_multiinsert_params: bool = True) -> Mapping[str, Any]:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        return self.current_parameters


def _processor(column: Column[Any], dialect: Dialect) -> Process | None:
    kind = column.type.dialect_impl(dialect)
    return kind.bind_processor(dialect)


def _as_it_is(value: Any) -> Any:
    return value
