"""Rows gathered into chunks of one shape."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql import ClauseElement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from verdigris.bulk.columns import Columns
    from verdigris.bulk.tuning import Tuner

_SAMPLE = 50
_NESTED = dict, list, tuple
_NESTED_SAMPLE = 8  # rows that are looked into: 50 would cost more than their encoding as JSON
_ITEMS = 20  # of a list that are looked at, spread over it
_DEPTH = 12  # a value that holds itself ends somewhere


@dataclass(slots=True)
class Batch:
    """Rows with the same keys, as tuples in the keys' order, from row `first` of the source on."""

    keys: tuple[str, ...]
    first: int
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    kinds: set[type] = field(default_factory=set)

    @property
    def has_expressions(self) -> bool:
        """Whether a value is SQL to be computed by the server."""
        return any(issubclass(kind, ClauseElement) or hasattr(kind, "__clause_element__") for kind in self.kinds)

    @property
    def row_bytes(self) -> float:
        """About how many bytes of memory a row holds, by a sample."""
        wanted = _SAMPLE if self.kinds.isdisjoint(_NESTED) else _NESTED_SAMPLE
        sample = self.rows[:: max(1, len(self.rows) // wanted)]
        return sum(sys.getsizeof(row) + sum(map(_held, row)) for row in sample) / max(len(sample), 1)


class Batches:
    """Takes rows one by one and gives a batch back when the next row no longer fits: it is full, or of another shape.

    A row that leaves out attributes which may be null joins the others, with None; one that brings further such
    attributes starts a batch that has them all: rows of changing shape soon share one.
    """

    def __init__(self, columns: Columns, tuner: Tuner) -> None:
        self._columns = columns
        self._tuner = tuner
        self._batch: Batch | None = None
        self._values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = tuple
        self._count = 0

    def add(self, row: Mapping[str, Any]) -> Batch | None:
        """Take one row; return the batch that is complete without it, if there is one."""
        batch = self._batch
        done = None
        if batch is not None and len(batch.rows) >= self._tuner.size:
            done = batch
            batch = self._batch = Batch(batch.keys, self._count)
        values = self._fitting(batch, row) if batch is not None else None
        if batch is None or values is None:
            self._columns.check(row, self._count)
            done = done or batch
            batch, values = self._start(row)
        batch.rows.append(values)
        batch.kinds.update(map(type, values))
        self._count += 1
        gathered = len(batch.rows)
        if not gathered & (gathered - 1):  # at 1, 2, 4, 8 …: the first chunk keeps within the memory, too
            self._tuner.fit(batch.row_bytes)
        return done

    def rest(self) -> Batch | None:
        """Return the rows that have not been given back yet."""
        return self._batch

    def _fitting(self, batch: Batch, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return a row's values in the order of the batch; None where it is of another shape."""
        if len(row) == len(batch.keys):
            try:
                return self._values(row)
            except KeyError:
                pass
        return self._filled(batch, row)

    def _filled(self, batch: Batch, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        missing = [key for key in batch.keys if key not in row]
        if len(missing) != len(batch.keys) - len(row) or not all(map(self._columns.may_be_null, missing)):
            return None
        return tuple(row.get(key) for key in batch.keys)

    def _start(self, row: Mapping[str, Any]) -> tuple[Batch, tuple[Any, ...]]:
        keys = tuple(row)
        if self._batch is not None:
            missing = [key for key in self._batch.keys if key not in row]
            if all(map(self._columns.may_be_null, missing)):
                keys += tuple(missing)
        self._batch = Batch(keys, self._count)
        self._values = itemgetter(*keys) if len(keys) > 1 else _one(keys)
        return self._batch, tuple(row.get(key) for key in keys)


def _one(keys: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return what itemgetter does for several keys: a tuple, for one key and for none too."""
    return lambda row: tuple(row[key] for key in keys)


def _held(value: Any, depth: int = _DEPTH) -> float:
    """Return about how many bytes a value holds, with all that is in it: JSON is dicts and lists."""
    size: float = sys.getsizeof(value)
    if not depth or not isinstance(value, _NESTED) or not value:
        return size
    if isinstance(value, dict):
        return size + sum(_held(part, depth - 1) for pair in value.items() for part in pair)
    items = value[:: max(1, len(value) // _ITEMS)]
    return size + sum(_held(item, depth - 1) for item in items) / len(items) * len(value)
