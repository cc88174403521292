"""What a live server says of itself: limits, clients, tables, indexes, foreign keys, statistics."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """Connections alike, this program's own excluded."""

    application_name: str | None
    database: str | None
    user: str | None
    count: int
    active: int = 0
    idle_in_transaction: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table, partitioned ones included; `rows` is an estimate, the larger of the planner's and the statistics'."""

    schema: str
    name: str
    visible: bool  # on the search path: needs no schema
    rows: int
    bytes: int
    columns: tuple[str, ...]
    sequential_scans: int = 0
    sequential_rows: int = 0
    index_scans: int = 0
    analyzed: bool = False

    @property
    def label(self) -> str:
        """The name as the search path lets one write it."""
        return self.name if self.visible else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Index:
    """An index; `columns` are its key columns in order, None for an expression, included columns left out."""

    schema: str
    table: str
    name: str
    columns: tuple[str | None, ...]
    unique: bool = False
    primary: bool = False
    constraint: bool = False  # stands behind a primary key, unique or exclusion constraint
    valid: bool = True
    predicate: str | None = None
    expression: bool = False
    method: str = "btree"
    bytes: int = 0
    scans: int = 0
    definition: str = ""
    alike: str = ""  # the same for indexes on the same keys, operators, orders and predicate

    @property
    def partial(self) -> bool:
        """Whether it holds only rows that satisfy a predicate."""
        return self.predicate is not None

    def serves(self, columns: tuple[str, ...]) -> bool:
        """Tell whether rows with given values of these columns are found by it: they are its first keys, in any order.

        A partial index serves only if its predicate is that one of them is not null, which equality implies. BRIN
        serves ranges over ordered data, not single values.
        """
        leading = self.columns[: len(columns)]
        if not self.valid or self.method == "brin" or len(leading) < len(columns) or set(leading) != set(columns):
            return False
        return self.predicate is None or self.predicate.strip("()").replace('"', "") in {
            f"{column} IS NOT NULL" for column in columns
        }


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key and the index that finds the rows which refer to a parent, if there is one."""

    schema: str
    table: str
    name: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    index: str | None = None
    on_delete: str = "NO ACTION"


@dataclass(frozen=True, slots=True)
class StatementFigures:
    """A statement of pg_stat_statements, under the fingerprint that recordings use; times in milliseconds."""

    fingerprint: str
    text: str
    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    rows: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One database as it was at one moment. Times are seconds; 0 means that a limit is off."""

    version: str
    version_number: int
    database: str
    user: str
    max_connections: int
    superuser_reserved_connections: int = 0
    reserved_connections: int = 0
    role_limit: int = -1  # of this user; -1: none
    database_limit: int = -1
    in_recovery: bool = False
    clients: tuple[Client, ...] = ()
    idle_session_timeout: float = 0.0
    idle_in_transaction_session_timeout: float = 0.0
    statement_timeout: float = 0.0
    lock_timeout: float = 0.0
    transaction_timeout: float = 0.0
    log_min_duration_statement: float | None = None  # None: off
    statistics_since: str | None = None  # ISO 8601
    tables: tuple[Table, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    statements: tuple[StatementFigures, ...] = ()
    statements_known: bool = False  # pg_stat_statements is there and may be read

    @property
    def connections_usable(self) -> int:
        """What the server gives this user and database: its limit less what is reserved, or a lower own limit."""
        own = [limit for limit in (self.role_limit, self.database_limit) if limit >= 0]
        return min([self.max_connections - self.superuser_reserved_connections - self.reserved_connections, *own])

    @property
    def connections_of_others(self) -> int:
        """What is in use by another user or on another database: this user's own on this one are the application's."""
        return sum(
            client.count for client in self.clients if (client.user, client.database) != (self.user, self.database)
        )

    @property
    def connections_available(self) -> int:
        """What the pools of the application may use together."""
        return max(0, self.connections_usable - self.connections_of_others)

    def table(self, name: str) -> Table | None:
        """Return a table by its name, with its schema or as the search path finds it."""
        schema, _, bare = name.replace('"', "").rpartition(".")
        found = [table for table in self.tables if table.name == bare and schema in {"", table.schema}]
        return next((table for table in found if table.visible), found[0] if len(found) == 1 else None)

    def indexes_of(self, name: str) -> tuple[Index, ...]:
        """Return the indexes of a table."""
        table = self.table(name)
        if table is None:
            return ()
        return tuple(index for index in self.indexes if (index.schema, index.table) == (table.schema, table.name))

    def indexed(self, table: str, column: str) -> bool | None:
        """Tell whether a valid index that holds all rows begins with a column; None where there is no such column."""
        found = self.table(table)
        if found is None or column not in found.columns:
            return None
        return any(index.serves((column,)) for index in self.indexes_of(table))

    def partly_indexed(self, table: str, column: str) -> Index | None:
        """Return a valid partial index that begins with a column, or whose predicate is about it."""
        word = re.compile(rf"\b{re.escape(column)}\b")
        for index in self.indexes_of(table):
            about = index.predicate is not None and word.search(index.predicate)
            if index.partial and index.valid and (index.columns[:1] == (column,) or about):
                return index
        return None

    @property
    def unindexed_foreign_keys(self) -> tuple[ForeignKey, ...]:
        """The foreign keys without a supporting index."""
        return tuple(key for key in self.foreign_keys if key.index is None)

    @property
    def unused_indexes(self) -> tuple[Index, ...]:
        """Indexes that no query used since the statistics began, apart from those that enforce something."""
        return tuple(index for index in self.indexes if not (index.scans or index.unique or index.constraint))

    @property
    def duplicate_indexes(self) -> tuple[tuple[Index, ...], ...]:
        """Groups of indexes of which one would do; the one to keep is first."""
        groups: defaultdict[tuple[str, str, str], list[Index]] = defaultdict(list)
        for index in self.indexes:
            if index.valid:
                groups[index.schema, index.table, index.alike].append(index)
        ranked = (
            sorted(group, key=lambda index: (not index.constraint, not index.unique, index.name))
            for group in groups.values()
        )
        return tuple(tuple(group) for group in ranked if len(group) > 1)
