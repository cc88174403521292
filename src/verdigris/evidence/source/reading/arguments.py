"""What is handed about between calls: expressions with the place to read them in, and the options made of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.nodes import leaf_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdigris.evidence.source.reading.modules import Scope

CACHES = frozenset(
    ("alru_cache", "async_cache", "cache", "cached", "cached_property", "lru_cache", "memoize", "once", "singleton")
)


@dataclass(frozen=True, slots=True)
class Argument:
    """An expression with the scope and the call in which it is to be read."""

    node: ast.expr
    scope: Scope
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Keyword arguments of one way through the code; `open` says what else may be among them.

    `sqlite` says that a condition leads this way for SQLite alone.
    """

    values: Mapping[str, Argument] = field(default_factory=dict)
    open: str | None = None
    sqlite: bool = False

    def with_(self, **more: Argument) -> Options:
        """Add or replace arguments."""
        return replace(self, values={**self.values, **more})

    def without(self, name: str) -> Options:
        """Take an argument away."""
        return replace(self, values={key: value for key, value in self.values.items() if key != name})

    def merged(self, other: Options) -> Options:
        """Add the other's arguments; either's openness stays."""
        return Options({**self.values, **other.values}, self.open or other.open, self.sqlite or other.sqlite)


@dataclass(frozen=True, slots=True)
class Frame:
    """A call of a function of the tree: which argument each parameter got, and what went into `**kwargs`."""

    function: Scope
    arguments: Mapping[str, Argument]
    extra: Options = Options()
    call: ast.Call | None = None
    caller: Scope | None = None
    outer: Frame | None = None


def is_generator(function: Scope) -> bool:
    """Tell whether a function yields."""
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in function.nodes())


def is_kept(function: Scope) -> bool:
    """Tell whether a decorator keeps what a function returns."""
    return any(leaf_of(decorator, ast.Call) in CACHES for decorator in function.decorators)


def short(node: ast.AST) -> str:
    """Return the source of a node as one clause of a sentence."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 50 else f"{text[:47]}..."


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a keyword argument as it is written."""
    return next((given.value for given in call.keywords if given.arg == name), None)
