"""The shape of a select(): what of it stays the same when only its values change.

SQLAlchemy finds the compiled form of a statement by its cache key, which takes as long to make as the statement itself.
The usual reads consist of columns that live as long as their mapper, compared with values: these are told apart by the
identity of their parts, in a tenth of the time. Everything else keeps SQLAlchemy's own key, which is the same for each
`aliased()` of a class, while their parts are new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from sqlalchemy import Select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import sqltypes
from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, UnaryExpression

from verdigris.lean.theirs import theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

T = TypeVar("T")
_type_of_value = theirs(sqltypes, "_resolve_value_to_type")
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
_selects: dict[type, bool] = {Select: True}


class _Ref(ref[Any]):
    """Knows the identity of what it was made for, also when that is gone."""

    __slots__ = ("place",)
    place: int


_lasting: dict[int, _Ref] = {}  # by their identity: parts that mappers and types give out, and keep


def keep(option: T) -> T:
    """Keep a loader option for good, so that statements with it have a shape."""
    if len(_kept) < _MOST_KEPT:
        _kept[id(option)] = option
    return option


def is_select(kind: type) -> bool:
    """Tell whether a class of statements is `Select`, or only adds methods to it, as those of SQLModel do."""
    known = _selects.get(kind)
    if known is None:
        known = _selects[kind] = _adds_methods_only(kind)
    return known


def _adds_methods_only(kind: type) -> bool:
    """Tell what `inherit_cache` tells SQLAlchemy; a class that is compiled in its own way has private names."""
    own = vars(kind)
    return (
        issubclass(kind, Select)
        and own.get("inherit_cache") is True
        and "__visit_name__" not in own
        and all(name.endswith("__") for name in own if name.startswith("_"))
        and all(base is Generic or is_select(base) for base in kind.__bases__)
    )


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
        place = id(column)
        if place not in _lasting and not _lasts(column):
            return False
        key.append(place)
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
        place = id(element)
        if place not in _lasting and not _lasts(element):
            return False
        key.extend((place, modifier))
    return True


def _limits(parts: Mapping[str, Any], key: list[Hashable], binds: list[BindParameter[Any]]) -> bool:
    for name in ("_limit_clause", "_offset_clause"):
        clause = parts.get(name)
        if clause is not None:
            if not _is_value(clause) or not _type_lasts(clause):
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
        place = id(left)
        if (place not in _lasting and not _lasts(left)) or not _is_value(right):
            return False
        if right.type is not left.type and not _type_lasts(right):
            return False
        key.extend((place, criterion.operator, criterion.negate, id(right.type)))
        binds.append(right)
    return True


def _lasts(part: Any) -> bool:
    """Tell whether a part of a statement is its mapper's own: a hybrid, or an `aliased()`, gives new ones each time."""
    if not isinstance(part, Annotated):
        return False
    known = part._annotations
    mapper, name = known.get("parententity"), known.get("proxy_key")
    if not isinstance(mapper, Mapper) or not (name is None or name in mapper.attrs):
        return False
    _remember(part)
    return True


def _type_lasts(bind: BindParameter[Any]) -> bool:
    """Tell whether a value's type is the one that SQLAlchemy gives to all such values, and not made for this one."""
    kind: Any = bind.type
    if id(kind) in _lasting:
        return True
    if _type_of_value(bind.value) is not kind:
        return False
    _remember(kind)
    return True


def _remember(part: Any) -> None:
    known = _Ref(part, _forget)
    known.place = id(part)
    _lasting[known.place] = known


def _forget(known: _Ref, forget: Callable[..., object] = _lasting.pop) -> None:  # bound: globals go first at exit
    forget(known.place, None)


def _is_value(clause: Any) -> bool:
    """Tell whether a clause is a plain value of this statement's own."""
    return (
        isinstance(clause, BindParameter)
        and clause.unique
        and clause.callable is None
        and not (clause.expanding or clause.literal_execute or clause.isoutparam)
    )
