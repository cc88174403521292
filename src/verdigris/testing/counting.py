"""Statements counted in a test, with the place that sent each."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris._places import Place
    from verdigris.performance import Queries

# What the sandbox and the dialect send for themselves.
_NOT_COUNTED = re.compile(
    r"SAVEPOINT|RELEASE|ROLLBACK|BEGIN|COMMIT|SET CONSTRAINTS"
    r"|select pg_catalog\.version\(\)|select current_schema\(\)|show standard_conforming_strings",
    re.IGNORECASE,
)


class StatementCountError(AssertionError):
    """Another number of statements ran than a test asks for: too many, or too few."""


class QueryLog:
    """The statements that ran since the test began: `queries.count`, `queries.statements`, `queries.at_most(3)`."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Place | None]] = []

    @property
    def count(self) -> int:
        """How many statements ran."""
        return len(self.statements)

    @contextmanager
    def at_most(self, limit: int) -> Iterator[None]:
        """Fail with the list of statements if more than `limit` run inside the block."""
        before = self.count
        yield
        seen = self.statements[before:]
        if len(seen) > limit:
            raise StatementCountError(f"{len(seen)} statements ran where at most {limit} may{_listed(seen)}")

    @contextmanager
    def exactly(self, number: int) -> Iterator[None]:
        """Fail with the list of statements unless `number` run inside the block."""
        before = self.count
        yield
        seen = self.statements[before:]
        if len(seen) != number:
            raise StatementCountError(f"{len(seen)} statements ran where {number} should{_listed(seen)}")

    @contextmanager
    def listening(self, queries: Queries) -> Iterator[None]:
        """Count what `queries` measures."""
        with queries.listening(self._heard):
            yield

    def _heard(self, fingerprint: str, place: Place | None) -> None:
        if not _NOT_COUNTED.match(fingerprint):
            self.statements.append((fingerprint, place))


def _listed(statements: list[tuple[str, Place | None]]) -> str:
    counted = Counter((text, str(place) if place else "") for text, place in statements)
    lines = (f"\n  {number} x {text}{f'   at {place}' if place else ''}" for (text, place), number in counted.items())
    return f":{''.join(lines)}" if statements else "."
