"""How types and attributes are named to a reader: as the code that is read has them, without their modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import MapperProperty

_QUALIFIED = re.compile(r"(?:\w+\.|<locals>\.)+(?=\w)")


def type_name(type_: Any) -> str:
    """Return a type as it is written: `OrderOut`, `list[OrderOut]`, `OrderOut | None`."""
    return type_.__name__ if isinstance(type_, type) else _QUALIFIED.sub("", str(type_))


def dotted(prop: MapperProperty[Any]) -> str:
    """Return a mapped attribute as it is written: `Order.lines`."""
    return f"{prop.parent.class_.__name__}.{prop.key}"
