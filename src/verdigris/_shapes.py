"""The shape of a select(): what of it stays the same when only its values change.

SQLAlchemy finds the compiled form of a statement by its cache key, which takes as long to make as the statement itself.
The usual reads consist of columns that live as long as their mapper, compared with values: these are told apart by the
identity of their parts, in a tenth of the time. Everything else keeps SQLAlchemy's own key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, UnaryExpression

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from sqlalchemy import Select

T = TypeVar("T")
_KNOWN = frozenset({
    "_propagate_attrs",
    "_raw_columns",
    "_label_style",
    "_where_criteria",
    "_order_by_clauses",
    "_limit_clause",
    "_offset_clause",
    "_fetch_clause",
    "_fetch_clause_options",
    "_with_options",
    "_generate_cache_key",  # memoized once SQLAlchemy has made its own key, like the two below
    "_memoized_keys",
    "dialect_options",
})  # fmt: skip
_MOST_KEPT = 4096
_kept: dict[int, object] = {}  # loader options that live as long as this process, by their identity
_NOTHING: tuple[Any, ...] = ()


def keep(option: T) -> T:
    """Keep a loader option for good, so that statements with it have a shape."""
    if len(_kept) < _MOST_KEPT:
        _kept[id(option)] = option
    return option


def shape_of(statement: Select[Any]) -> tuple[Hashable, list[BindParameter[Any]]] | None:
    """Return a key of the statement's shape and its bound values in order; None if it has no such simple shape.

    A key holds identities: it means something only as long as a statement of this shape is kept alive.
    """
    parts = vars(statement)
    if not _KNOWN.issuperset(parts) or parts.get("_fetch_clause") is not None or parts.get("dialect_options"):
        return None
    key: list[Hashable] = [parts["_label_style"]]
    binds: list[BindParameter[Any]] = []
    simple = (
        _columns(parts, key)
        and _criteria(parts.get("_where_criteria", _NOTHING), key, binds)
        and _order(parts.get("_order_by_clauses", _NOTHING), key)
        and _limits(parts, key, binds)
    )
    return (tuple(key), binds) if simple else None


def _columns(parts: Mapping[str, Any], key: list[Hashable]) -> bool:
    for column in parts["_raw_columns"]:
        if not isinstance(column, Annotated):  # what mappers give out, and keep
            return False
        key.append(id(column))
    for option in parts.get("_with_options", _NOTHING):
        if id(option) not in _kept:
            return False
        key.append(id(option))
    return True


def _order(clauses: Iterable[Any], key: list[Hashable]) -> bool:
    for clause in clauses:
        element, modifier = clause, None
        if type(clause) is UnaryExpression and clause.operator is None:
            element, modifier = clause.element, clause.modifier
        if not isinstance(element, Annotated):
            return False
        key.extend((id(element), modifier))
    return True


def _limits(parts: Mapping[str, Any], key: list[Hashable], binds: list[BindParameter[Any]]) -> bool:
    for name in ("_limit_clause", "_offset_clause"):
        clause = parts.get(name)
        if clause is not None:
            if not _is_value(clause):
                return False
            key.extend((name, type(clause).__name__, id(clause.type)))
            binds.append(clause)
    return True


def _criteria(criteria: Iterable[Any], key: list[Hashable], binds: list[BindParameter[Any]]) -> bool:
    for criterion in criteria:
        if type(criterion) is not BinaryExpression or criterion.modifiers:
            return False
        left: Any = criterion.left
        right: Any = criterion.right
        if not (isinstance(left, Annotated) and _is_value(right)):
            return False
        key.extend((id(left), criterion.operator, criterion.negate, id(right.type)))
        binds.append(right)
    return True


def _is_value(clause: Any) -> bool:
    """Tell whether a clause is a plain value of this statement's own."""
    return (
        isinstance(clause, BindParameter)
        and clause.unique
        and clause.callable is None
        and not (clause.expanding or clause.literal_execute or clause.isoutparam)
    )
