"""A page's related rows, found for all of its rows at once.

A correlated sub-select starts anew for each row, which costs PostgreSQL more than what it finds. Of a page whose size
is known, the rows are a common table expression; what they lead to is looked up by all their keys, printed, and joined:
a customer of several orders is printed once, all lines are sorted together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import CHAR, Integer, String, Text, Uuid, any_, func, literal_column, select, table
from sqlalchemy.orm import RelationshipDirection
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression

from verdigris.loading.json.sources import RootRow, clause_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.orm import RelationshipProperty

#: The smallest and the largest page that is read so: below, single look-ups cost less; above, a sort may need the disk.
SMALLEST, LARGEST = 32, 1_000
_ZERO: ColumnElement[int] = literal_column("0")
_COMPARABLE = frozenset({Integer, String, Uuid})


@dataclass(frozen=True, slots=True)
class Beside:
    """A relationship of a page's rows that compares one column with one, and the page that its rows are joined to."""

    page: PageRow
    local: ColumnElement[Any]
    remote: ColumnElement[Any]

    @property
    def condition(self) -> ColumnElement[bool]:
        """Whether a row of the other side belongs to any row of the page."""
        keys = select(self.local).select_from(table(RootRow.name)).correlate(None)
        return self.remote == any_(func.array(keys.scalar_subquery()))

    def one(self, statement: Select[Any], text: ColumnElement[Any]) -> ColumnElement[str]:
        """Join the row that each key leads to, as a text, and return that."""
        found = statement.with_only_columns(self.remote.label("k"), text.label("t"))
        return self.page.join(self, found.offset(_ZERO))  # a fence: else it is looked up row by row after all

    def many(self, statement: Select[Any], aggregated: ColumnElement[Any]) -> ColumnElement[str]:
        """Join what an aggregate makes of the rows of each key, and return that."""
        found = statement.with_only_columns(self.remote.label("k"), aggregated.label("t"))
        return self.page.join(self, found.group_by(self.remote))


class PageRow(RootRow):
    """A row of a page that is read as a whole."""

    def __init__(self, entity: Any) -> None:
        super().__init__(entity)
        self.joins: list[tuple[FromClause, ColumnElement[bool]]] = []

    def beside(self, prop: RelationshipProperty[Any], target: Any) -> Beside | None:
        condition: Any = clause_of(getattr(self.entity, prop.key).of_type(target))
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            return None
        local, remote = condition.left, condition.right
        if getattr(remote, "table", None) in self._tables:
            local, remote = remote, local
        if getattr(remote, "table", None) is None or not _hash_alike(local, remote):
            return None
        if not prop.uselist and not _leads_to_one(prop):
            return None
        found = self._replaced(local)
        return Beside(self, found, remote) if found is not None else None

    def join(self, beside: Beside, found: Select[Any]) -> ColumnElement[str]:
        """Join rows of a key `k` and a text `t`; return the text."""
        name = f"{self.name}{len(self.joins)}"
        self.joins.append((found.subquery(name), literal_column(f"{name}.k") == beside.local))
        return literal_column(f"{name}.t", Text)

    @property
    def place(self) -> ColumnElement[int]:
        """The row's place in the page."""
        return literal_column(f'{self.name}."#"')

    def whole(self, rows: Select[Any]) -> FromClause:
        """Return the page and all that belongs to it; joins keep no order, so its rows are numbered as they come."""
        numbered = func.row_number().over().label("#")
        page = select(literal_column("_.*"), numbered).select_from(rows.subquery("_"))
        found: FromClause = page.cte(self.name).prefix_with("MATERIALIZED")
        for beside, condition in self.joins:
            found = found.outerjoin(beside, condition)
        return found


def _leads_to_one(prop: RelationshipProperty[Any]) -> bool:
    return prop.direction is RelationshipDirection.MANYTOONE and tuple(prop.remote_side) == prop.mapper.primary_key


def _hash_alike(one: Any, other: Any) -> bool:
    """Whether two columns are of one kind, of which equal values are grouped and joined as `=` has it."""
    kinds = {each.type._type_affinity for each in (one, other)}  # noqa: SLF001 - what is behind a decorator
    padded = any(isinstance(getattr(each.type, "impl", each.type), CHAR) for each in (one, other))
    return len(kinds) == 1 and kinds <= _COMPARABLE and not padded
