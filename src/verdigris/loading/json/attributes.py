"""Attributes whose Python side does more than hand out what the database has: such a one is not read by SQL."""

from __future__ import annotations

import dis
import inspect as python
from typing import TYPE_CHECKING, Any

from sqlalchemy import CHAR, BinaryExpression, ColumnClause, Date, DateTime, Enum, Interval, String, TypeDecorator
from sqlalchemy.dialects.postgresql import CITEXT, INTERVAL
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import ColumnProperty, QueryableAttribute
from sqlalchemy.sql import operators, visitors

from verdigris.loading.json.schema import InPython
from verdigris.loading.json.sources import clause_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Mapper, SynonymProperty

#: A hybrid without an expression of its own is run on the class, where a condition, a call or a division is not what it
#: is on an object, and fails or differs in silence. These steps mean the same on both.
_SAME_IN_SQL = (
    "RESUME",
    "LOAD_FAST",
    "LOAD_CONST",
    "LOAD_SMALL_INT",  # Python 3.14
    "LOAD_ATTR",
    "RETURN_VALUE",
    "RETURN_CONST",
    "COMPARE_OP",
    "CACHE",
)
#: Whose listeners leave what an answer holds as it is.
_HARMLESS = ("verdigris.", "sqlalchemy.ext.mutable", "sqlalchemy.orm.descriptor_props")
_OPERATORS = frozenset({"+", "-", "*"})


def refuse_listeners(mapper: Mapper[Any]) -> None:
    """Raise InPython where the application hears of each object that is loaded, and may change it."""
    for each in mapper.self_and_descendants:
        dispatch = each.class_manager.dispatch
        if any(not fn.__module__.startswith(_HARMLESS) for fn in (*dispatch.load, *dispatch.refresh)):
            raise InPython(f"{each.class_.__name__} has a reconstructor, or listeners of 'load' or 'refresh'")


def refuse_overridden(mapper: Mapper[Any], name: str) -> None:
    """Raise InPython where a subclass, whose objects may be among the rows, has another attribute of that name."""
    own = python.getattr_static(mapper.class_, name, None)
    for sub in mapper.self_and_descendants if own is not None else ():
        value = python.getattr_static(sub.class_, name, None)
        if value is own or (isinstance(value, QueryableAttribute) and _is_same_property(mapper, sub, name)):
            continue
        raise InPython(f"{sub.class_.__name__}.{name} is another than {mapper.class_.__name__}.{name}")


def _is_same_property(mapper: Mapper[Any], sub: Mapper[Any], name: str) -> bool:
    """Whether a subclass has a mapped attribute from its base class; a key column it has in its own table, too."""
    own, theirs = mapper.attrs.get(name), sub.attrs.get(name)
    if isinstance(own, ColumnProperty) and isinstance(theirs, ColumnProperty):
        return sub.concrete or set(own.columns) <= set(theirs.columns)
    return own is theirs


def is_plain(synonym: SynonymProperty[Any]) -> bool:
    """Whether a synonym reads its attribute, and not a descriptor that was given to it."""
    getter = getattr(synonym.descriptor, "fget", None)
    return getattr(getter, "__module__", "").startswith("sqlalchemy.")


def expression(mapper: Mapper[Any], name: str) -> Any:
    """Return the SQL expression of an attribute; raises InPython for a hybrid that is none."""
    value = python.getattr_static(mapper.class_, name)
    if isinstance(value, hybrid_property) and value.custom_comparator is not None:
        raise InPython(f"the hybrid {mapper.class_.__name__}.{name} is to SQL what its comparator makes of it")
    if _has_no_expression(value) and not _is_same_in_sql(value.fget):
        raise InPython(f"the hybrid {mapper.class_.__name__}.{name} has no expression of its own, and is no plain sum")
    try:
        found: Any = getattr(mapper.class_, name)
    except Exception as error:
        what = f"{mapper.class_.__name__}.{name}"
        if _has_no_expression(value):
            raise InPython(f"the hybrid {what} has no expression of its own, and its code makes none") from error
        raise InPython(f"{what} is no SQL expression") from error
    if _has_no_expression(value):
        for each in visitors.iterate(clause_of(found)):
            if isinstance(each, BinaryExpression) and _differs_in_sql(each):
                raise InPython(f"the hybrid {mapper.class_.__name__}.{name} means something else to PostgreSQL")
    return found


def may_be_none(mapper: Mapper[Any], name: str) -> bool:
    """Whether NULL is None there: of a hybrid's own sum None is an error in Python, of a comparison true or false."""
    value = python.getattr_static(mapper.class_, name)
    return not _has_no_expression(value) or isinstance(clause_of(getattr(mapper.class_, name)), ColumnClause)


def _has_no_expression(value: object) -> bool:
    return isinstance(value, hybrid_property) and value.expr in {None, value.fget}


def _differs_in_sql(step: BinaryExpression[Any]) -> bool:
    """Whether an operator has another result in SQL than in Python.

    PostgreSQL takes blanks from the end of a CHAR, orders texts by the database's collation, knows an enum by its text,
    makes a moment of a day and a span, and adds a day to a moment by the clock of the session's time zone.
    """
    types = [each for side in (step.left, step.right) for each in _behind(side.type)]
    if any(isinstance(type_, CHAR | Enum | CITEXT) for type_ in types):
        return True
    if operators.is_comparison(step.operator) and step.operator not in {operators.eq, operators.ne}:
        return any(isinstance(type_, String) for type_ in types)
    is_day = any(isinstance(type_, Date) or (isinstance(type_, DateTime) and type_.timezone) for type_ in types)
    return is_day and any(isinstance(type_, Interval | INTERVAL) for type_ in types)


def _behind(type_: Any) -> Iterator[Any]:
    """Yield a type and what it decorates: the server compares and adds the latter."""
    yield type_
    if isinstance(type_, TypeDecorator) and not isinstance(type_, Interval):
        yield from _behind(type_.impl_instance)


def _is_same_in_sql(function: Any) -> bool:
    return all(
        step.opname.startswith(_SAME_IN_SQL) or (step.opname == "BINARY_OP" and step.argrepr in _OPERATORS)
        for step in dis.get_instructions(function)
    )
