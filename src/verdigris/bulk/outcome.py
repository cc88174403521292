"""What a bulk insert did, and where it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Method = Literal["copy", "insert"]
_POSITION = "_verdigris_position"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One statement: how many rows it carried, in how many seconds, by which method."""

    rows: int
    seconds: float
    method: Method

    @property
    def rows_per_second(self) -> float:
        """Rows a second, of the statement alone: reading the source is not counted."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Inserted:
    """What `insert` did: rows, seconds in all, and each chunk with its size and speed."""

    rows: int
    seconds: float
    chunks: tuple[Chunk, ...]
    #: "copy", "insert", or "mixed" where some chunks could not go by COPY; "none" where there were no rows.
    method: Literal["copy", "insert", "mixed", "none"]
    #: Why rows did not go by COPY; None where all did.
    reason: str | None

    @classmethod
    def of(cls, chunks: Sequence[Chunk], seconds: float, reason: str | None) -> Inserted:
        """Sum up the chunks."""
        methods = {chunk.method for chunk in chunks}
        method: Literal["copy", "insert", "mixed", "none"] = "none"
        if methods:
            method = methods.pop() if len(methods) == 1 else "mixed"
        return cls(sum(chunk.rows for chunk in chunks), seconds, tuple(chunks), method, reason)

    @property
    def rates(self) -> dict[int, float]:
        """Rows a second by chunk size, over all chunks of that size: the evidence for the size that was chosen."""
        rows: dict[int, int] = {}
        seconds: dict[int, float] = {}
        for chunk in self.chunks:
            rows[chunk.rows] = rows.get(chunk.rows, 0) + chunk.rows
            seconds[chunk.rows] = seconds.get(chunk.rows, 0.0) + chunk.seconds
        return {size: rows[size] / seconds[size] for size in sorted(rows) if seconds[size]}

    def __str__(self) -> str:
        by = f" by {self.method.upper()}" if self.method in {"copy", "insert"} else ""
        count = "1 chunk" if len(self.chunks) == 1 else f"{len(self.chunks)} chunks"
        return f"{self.rows:,} rows in {self.seconds:.1f} s, {count}{by}"


@dataclass(frozen=True, slots=True)
class Position:
    """Where an insert failed: the table, the chunk's first and last row, and the row itself where it is known.

    Rows are counted from 0, as they came from the source.
    """

    table: str
    first: int
    last: int
    row: int | None

    def __str__(self) -> str:
        place = f"row {self.row}" if self.row is not None else f"one of the rows {self.first} to {self.last}"
        return f"bulk.insert into {self.table}: {place}, counted from 0"


def position(error: BaseException) -> Position | None:
    """Return where the insert that raised `error` failed; None for an error of anything else."""
    found = error.__dict__.get(_POSITION)
    return found if isinstance(found, Position) else None


def mark(error: BaseException, where: Position) -> None:
    """Record on an error where the insert failed."""
    error.__dict__[_POSITION] = where
