"""Attributes whose Python side does more than hand out what the database has: such a one is not read by SQL."""

from __future__ import annotations

import dis
import inspect as python
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import QueryableAttribute

from verdigris.loading.json.schema import InPython

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper, SynonymProperty

#: A hybrid without an expression of its own is run on the class, where a condition, a call or a division is not what it
#: is on an object, and fails or differs in silence. These steps mean the same on both.
_SAME_IN_SQL = ("RESUME", "LOAD_FAST", "LOAD_CONST", "LOAD_ATTR", "RETURN_VALUE", "RETURN_CONST", "COMPARE_OP", "CACHE")
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
    """Raise InPython where a subclass, whose objects may be among the rows, reads an attribute in its own way."""
    for sub in mapper.self_and_descendants:
        value = python.getattr_static(sub.class_, name, None)
        if sub is not mapper and not isinstance(value, QueryableAttribute | hybrid_property):
            raise InPython(f"{sub.class_.__name__}.{name} is read in Python")


def is_plain(synonym: SynonymProperty[Any]) -> bool:
    """Whether a synonym reads its attribute, and not a descriptor that was given to it."""
    getter = getattr(synonym.descriptor, "fget", None)
    return getattr(getter, "__module__", "").startswith("sqlalchemy.")


def expression(mapper: Mapper[Any], name: str) -> Any:
    """Return the SQL expression of an attribute; raises InPython for a hybrid that is none."""
    value = python.getattr_static(mapper.class_, name)
    if isinstance(value, hybrid_property) and value.expr in {None, value.fget} and not _is_same_in_sql(value.fget):
        raise InPython(f"the hybrid {mapper.class_.__name__}.{name} has no expression of its own, and is no plain sum")
    try:
        found: Any = getattr(mapper.class_, name)
    except Exception as error:
        raise InPython(f"{mapper.class_.__name__}.{name} is no SQL expression") from error
    return found


def _is_same_in_sql(function: Any) -> bool:
    return all(
        step.opname.startswith(_SAME_IN_SQL) or (step.opname == "BINARY_OP" and step.argrepr in _OPERATORS)
        for step in dis.get_instructions(function)
    )
