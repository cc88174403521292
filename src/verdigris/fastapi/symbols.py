"""Standing in for a value: what an endpoint that builds a select() is called with, once, when nobody has asked yet.

A symbol is a bound parameter with a name. SQLAlchemy takes it wherever it would take the value; Python code that looks
at the value gets an error instead of an answer, so that a statement whose shape depends on it is never mistaken for one
whose shape does not.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.sql.elements import BindParameter, ClauseElement

from verdigris.loading.code import closed_over, function_of, names_of, reached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LookedAtError(Exception):
    """Code asked for a value that is not known yet."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"it looks at the value of {name!r} ({how})")


class _Tracing:
    """Whether an endpoint is being called with symbols: only then do they refuse to be looked at."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = True


class Symbol(BindParameter[Any]):
    """A bound parameter that refuses to be looked at while an endpoint is called with it."""

    inherit_cache = True

    def __init__(self, name: str, tracing: _Tracing) -> None:
        super().__init__(name, required=True)
        self._tracing = tracing

    def _looked_at(self, how: str) -> None:
        if self._tracing.on:
            raise LookedAtError(self.key, how)

    def __str__(self) -> str:
        self._looked_at("as text")
        return super().__str__()

    def __repr__(self) -> str:
        self._looked_at("as text")
        return f"<symbol {self.key}>"

    def __format__(self, specification: str) -> str:
        self._looked_at("as text")
        return super().__format__(specification)

    def __bool__(self) -> NoReturn:
        raise LookedAtError(self.key, "as true or false")

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, ClauseElement):
            self._looked_at("compared with another value")
        return super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        if not isinstance(other, ClauseElement):
            self._looked_at("compared with another value")
        return super().__ne__(other)

    def __hash__(self) -> int:
        if self._tracing.on and not _within_sqlalchemy(sys._getframe(1)):  # noqa: SLF001 - who asks decides
            self._looked_at("as a key")
        return super().__hash__()

    def _refuse(self, *_: object) -> NoReturn:
        raise LookedAtError(self.key, "as a number or a sequence")

    __int__ = __index__ = __float__ = __len__ = __iter__ = _refuse


def _within_sqlalchemy(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(("sqlalchemy.", "verdigris."))


def traced(endpoint: Callable[..., Any], symbols: set[str], values: Mapping[str, Any]) -> Any:
    """Call an endpoint with symbols for some parameters and values for the others, and return what it returns.

    Raises LookedAtError if it looks at a symbol, and whatever else it raises.
    """
    tracing = _Tracing()
    given = {name: Symbol(name, tracing) for name in symbols}
    try:
        return endpoint(**values, **given)
    except TypeError as error:
        if "Boolean value of this clause is not defined" in str(error):
            raise LookedAtError(", ".join(sorted(symbols)), "compared, as true or false") from error
        raise
    finally:
        tracing.on = False


def says_more_than_its_parameters(endpoint: Callable[..., Any]) -> str | None:
    """Say what an endpoint reads that may be another in each request, as far as its code and its package name it.

    What was compiled for one tenant, or yesterday, would serve the others for a while: only some requests are compared.
    """
    function = function_of(endpoint)
    for each in reached(function) if function is not None else ():
        names = set(names_of(each.__code__))
        known = {**each.__globals__, **closed_over(each)}
        read = [(name, known.get(name)) for name in names]
        modules = [value for _, value in read if isinstance(value, ModuleType)]
        read += [(name, getattr(module, name, None)) for module in modules for name in names]
        found = sorted(name for name, value in read if isinstance(value, ContextVar))
        if found:
            return f"it reads the context variable {found[0]}"
        if "today" in names:
            return "it asks which day it is"
    return None
