"""What the library promises by construction: data for the checker, each promise with its opt-out and its proof.

A box never holds because a name comes from `verdigris`. It holds because one of these guarantees covers the subject
and the code does not use the opt-out; the named test runs the guarantee against a real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One promise: `symbol` called without the opt-out behaves as if `option` were `value`."""

    symbol: str
    option: str
    value: Any
    boxes: tuple[str, ...]
    promise: str
    opt_out: str
    proved_by: str

    @property
    def reason(self) -> str:
        """The sentence a proof quotes."""
        return f"{self.symbol} {self.promise}"


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "verdigris.Database",
        "pool_pre_ping",
        True,
        ("engine/pre-ping",),
        "validates a connection before handing it out",
        "pool_pre_ping=False",
        "tests/library/test_engine.py",
    ),
    Guarantee(
        "verdigris.load",
        "collections",
        "selectin",
        ("loading/selectin-collections",),
        "loads every collection by selectinload",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
    Guarantee(
        "verdigris.load",
        "singles",
        "joined",
        ("loading/joined-single",),
        "joins single objects, by an outer join where there may be none",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
    Guarantee(
        "verdigris.load",
        "needed",
        "loaded",
        ("loading/all-loaded",),
        "loads every relationship that the response model reads",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
)


def guaranteed(symbol: str, option: str) -> Guarantee | None:
    """Find the promise about an option of a symbol of the library."""
    for guarantee in GUARANTEES:
        if guarantee.symbol == symbol and guarantee.option == option:
            return guarantee
    return None
