"""Where the columns of a node come from: a sub-select's alias, or the application's own select()."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import VARCHAR, ColumnClause, Float, Numeric, String, inspect, literal_column, type_coerce
from sqlalchemy.sql import visitors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Mapper, RelationshipProperty
    from sqlalchemy.types import TypeEngine

    from verdigris.loading.json.page import Beside


#: Bytes of an identifier in PostgreSQL.
LONGEST = 63


class EntityRow(Protocol):
    """A row of a mapped class, which leads to others by its relationships."""

    def column(self, name: str) -> ColumnElement[Any]:
        """Return the expression of an attribute."""

    def related(self, prop: RelationshipProperty[Any], target: Any) -> ColumnElement[bool]:
        """Return the condition under which `target`, an alias of the other side, belongs to this row."""

    def beside(self, prop: RelationshipProperty[Any], target: Any) -> Beside | None:
        """Return how rows of `target` are found for many such rows at once; None where they are found for each."""

    def correlated(self, statement: Select[Any]) -> Select[Any]:
        """Return a sub-select in which this row's columns are those of the statement around it."""


class AliasRow:
    """A row of an aliased class, selected by a sub-select."""

    def __init__(self, alias: Any) -> None:
        self.alias = alias

    def column(self, name: str) -> ColumnElement[Any]:
        found = expression_of(self.alias, name)
        type_ = type_of(found)
        return found if type_ is found.type else type_coerce(found, type_)

    def related(self, prop: RelationshipProperty[Any], target: Any) -> ColumnElement[bool]:
        condition: Any = getattr(self.alias, prop.key).of_type(target)
        return clause_of(condition)

    def beside(self, prop: RelationshipProperty[Any], target: Any) -> Beside | None:
        return None

    def correlated(self, statement: Select[Any]) -> Select[Any]:
        return statement.correlate(self.alias)


class RootRow:
    """A row of the application's own select(), which becomes a sub-select named `_0` with the columns that are used."""

    name = "_0"

    def __init__(self, entity: Any, prefix: str = "", columns: dict[str, ColumnElement[Any]] | None = None) -> None:
        self.entity = entity
        self._prefix = prefix
        inspected = inspect(entity)
        self.mapper: Mapper[Any] = inspected.mapper
        self._tables = set(inspected.selectable._from_objects)  # noqa: SLF001 - a join's own tables too
        self.columns: dict[str, ColumnElement[Any]] = {} if columns is None else columns

    def column(self, name: str) -> ColumnElement[Any]:
        return self._named(f"{self._prefix}{name}", expression_of(self.entity, name))

    def identity(self) -> list[ColumnElement[Any]]:
        """Return the columns of the primary key."""
        return [self.column(self.mapper.get_property_by_column(column).key) for column in self.mapper.primary_key]

    def keep(self) -> None:
        """Let the sub-select have every column that the entity is loaded with: what is distinct are whole rows."""
        for attribute in self.mapper.column_attrs:
            if not attribute.deferred:
                self.column(attribute.key)

    def related(self, prop: RelationshipProperty[Any], target: Any) -> ColumnElement[bool]:
        condition: Any = getattr(self.entity, prop.key).of_type(target)
        replaced: ColumnElement[bool] = visitors.replacement_traverse(clause_of(condition), {}, self._replaced)
        return replaced

    def beside(self, prop: RelationshipProperty[Any], target: Any) -> Beside | None:
        return None

    def correlated(self, statement: Select[Any]) -> Select[Any]:
        return statement.correlate(None)

    def _replaced(self, element: Any, **_: Any) -> ColumnElement[Any] | None:
        if getattr(element, "table", None) not in self._tables:
            return None
        plain = element._deannotate()  # noqa: SLF001 - the same column, whoever asks for it
        same = (name for name, known in self.columns.items() if known._deannotate() is plain)  # noqa: SLF001
        return self._named(next(same, None) or self._unused(element.key), element)

    def _unused(self, key: str) -> str:
        """Return a name that no attribute has: of two tables, a column each may have this key."""
        name = f"{self._prefix}{key}#"
        while name in self.columns:
            name += "#"
        return name

    def _named(self, name: str, expression: ColumnElement[Any]) -> ColumnElement[Any]:
        if len(name.encode()) > LONGEST:  # PostgreSQL would cut it, and two may begin alike
            name = f"#{zlib.crc32(name.encode()):08x}"
        self.columns.setdefault(name, expression)
        return _of_root(name, expression)


class RootColumns:
    """A row of a select() of columns: each is kept under its name, mapped classes by the columns that are used.

    It has no relationships of its own; those of a mapped class in it are its part's.
    """

    def __init__(self, selected: Mapping[str, Any]) -> None:
        self._selected = selected
        self.columns = {name: clause_of(each) for name, each in selected.items() if not is_entity(each)}

    def column(self, name: str) -> ColumnElement[Any]:
        return _of_root(name, self.columns[name])

    def part(self, name: str) -> RootRow:
        """Return the row of one of the mapped classes."""
        return RootRow(self._selected[name], f"{name}.", self.columns)

    def keep(self) -> None:
        """As `RootRow.keep`, for each mapped class."""
        for name, each in self._selected.items():
            if is_entity(each):
                self.part(name).keep()


#: Where the columns of a node come from.
Row = EntityRow | RootColumns


def _of_root(name: str, expression: ColumnElement[Any]) -> ColumnElement[Any]:
    quoted = name.replace('"', '""')
    return literal_column(f'{RootRow.name}."{quoted}"', type_of(expression))


def is_entity(selected: Any) -> bool:
    """Whether what is selected is a mapped class or an alias of one."""
    inspected = inspect(selected, raiseerr=False)
    return bool(getattr(inspected, "is_mapper", False) or getattr(inspected, "is_aliased_class", False))


def type_of(expression: ColumnElement[Any]) -> TypeEngine[Any]:
    """Return a column's type; of any other expression one that promises no length, precision or scale.

    What a product or a concatenation is typed as is the type of one of its parts, which it need not fit.
    """
    type_: TypeEngine[Any] = expression.type
    if isinstance(expression, ColumnClause) and expression.table is not None:
        return type_
    if isinstance(type_, Numeric) and not isinstance(type_, Float) and type_.precision is not None:
        return Numeric() if type_.asdecimal else Numeric(asdecimal=False)
    if isinstance(type_, String) and type(type_) in {String, VARCHAR} and type_.length is not None:
        return String()
    return type_


def clause_of(attribute: Any) -> ColumnElement[Any]:
    """Return the expression of an attribute of a mapped class or alias."""
    found: ColumnElement[Any] = (
        attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else attribute
    )
    return found


def expression_of(entity: Any, name: str) -> ColumnElement[Any]:
    """Return the expression of an attribute, by its name."""
    return clause_of(getattr(entity, name))
