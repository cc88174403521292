"""What code reads: the names that a property, a method or a validator mentions, with the code that it calls."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.hybrid import hybrid_property

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Code that mentions one of these may read any attribute.
_ANYTHING = frozenset({"__dict__", "asdict", "attrgetter", "getattr", "vars"})


def reads_anything(names: frozenset[str]) -> bool:
    """Return whether the code that mentions `names` can read attributes that it does not name."""
    return bool(names & _ANYTHING)


def function_of(value: object) -> types.FunctionType | None:
    """Return the Python function behind a property, a hybrid, a method, a decorated or a partial function."""
    if isinstance(value, property | hybrid_property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    while not isinstance(value, types.FunctionType):
        inner = getattr(value, "__func__", None) or getattr(value, "func", None) or getattr(value, "wrapped", None)
        if inner is None or inner is value:
            return None
        value = inner
    plain = inspect.unwrap(value)
    return plain if isinstance(plain, types.FunctionType) else None


@functools.lru_cache(maxsize=4096)
def names_in(function: types.FunctionType) -> frozenset[str]:
    """Return every name that a function mentions, and the functions of its own package that it calls by name."""
    return frozenset(name for each in reached(function) for name in names_of(each.__code__))


def reached(function: types.FunctionType) -> tuple[types.FunctionType, ...]:
    """Return a function and those of its own package that it, or one of them, calls by name."""
    seen: dict[types.FunctionType, None] = {}
    waiting = [function]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen[current] = None
            waiting += _called(current, set(names_of(current.__code__)))
    return tuple(seen)


def closure(cls: type, names: Iterable[str]) -> frozenset[str]:
    """Return the names with those that the properties and methods of `cls` mention which the names stand for."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        function = function_of(inspect.getattr_static(cls, name, None))
        if function is not None and not function.__module__.startswith("sqlalchemy."):
            waiting += names_in(function)
    return frozenset(found)


def _called(function: types.FunctionType, names: set[str]) -> Iterator[types.FunctionType]:
    """Yield the functions among names: globals, and what an inner function closes over."""
    cells = closed_over(function)
    package = function.__module__.partition(".")[0]
    for name in names | cells.keys():
        value = cells.get(name, function.__globals__.get(name))
        if isinstance(value, types.FunctionType) and value.__module__.partition(".")[0] == package:
            yield value


def closed_over(function: types.FunctionType) -> dict[str, Any]:
    """Return the values that an inner function takes from the one around it."""
    cells: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not yet assigned
            cells[name] = cell.cell_contents
    return cells


def names_of(code: types.CodeType) -> Iterator[str]:
    """Yield the names that code mentions, that of inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_of(constant)
