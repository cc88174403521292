"""What evidence can say of a value: it is known, it is not there, or nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Known:
    """The value, and where it was settled when that is not the place that uses it."""

    value: Any
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing was given: what holds is the default of whoever receives it."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something was given that this evidence cannot read; `reason` says what, in one clause.

    `variable` names the environment variable it comes from, where it is known to come from one.
    """

    reason: str
    variable: str | None = None


Value: TypeAlias = Known | Missing | Unknown


def agree(values: list[Value]) -> Value:
    """Return the one value that all alternatives have, or Unknown when they differ."""
    if not values:
        return Missing()
    first = values[0]
    for value in values:
        if isinstance(value, Unknown):
            return value
    if all(type(value) is type(first) and _content(value) == _content(first) for value in values):
        return first
    return Unknown("its value depends on a condition")


def _content(value: Value) -> Any:
    return value.value if isinstance(value, Known) else None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A span of a file: `path` is relative to the checked directory, lines count from 1, columns from 0."""

    path: str
    line: int
    end_line: int = 0
    column: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    def covers(self, other: Place) -> bool:
        """Tell whether the other place starts within these lines of the same file."""
        return self.path == other.path and self.line <= other.line <= max(self.end_line, self.line)

    @classmethod
    def parse(cls, site: str) -> Place:
        """Read `path:line` as recordings write it; a text without a line is line 1."""
        path, _, line = site.rpartition(":")
        return cls(path, int(line)) if path and line.isdigit() else cls(site, 1)
