"""Annotations as they are written, also where a name in them is imported for type checkers only."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def annotations_of(annotated: type | Callable[..., Any]) -> Mapping[str, Any]:
    """Return the own annotations of a class or function, unresolved: none where it can have none.

    From Python 3.14 on they are made when they are asked for, and `__annotations__` raises NameError for such a name.
    """
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(annotated, format=annotationlib.Format.FORWARDREF)
        return inspect.get_annotations(annotated)
    except TypeError:  # an instance that can be called
        return {}
