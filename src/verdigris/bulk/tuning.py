"""How many rows a chunk carries: measured while it runs, within a bound on memory."""

from __future__ import annotations

#: Bytes of rows that are held at once by default.
MEMORY = 16 * 1024 * 1024

FIRST = 1_000
FLOOR = 500
CEILING = 10_000
_GAIN = 1.05  # a larger chunk has to be this much faster to be worth its memory
_SETTLED = 32  # chunks between two looks at whether another size has become better


class Tuner:
    """Climbs from 1,000 rows: doubles while that pays, halves where that is no slower, looks again now and then.

    Between 500 and 10,000 rows; less where rows are so wide that memory asks for it. Measured: beyond 10,000 the gain
    is within the noise, while the event loop is held longer between two writes.
    """

    def __init__(self, *, memory: int = MEMORY, first: int = FIRST, ceiling: int = CEILING) -> None:
        self.size = first
        self._memory = memory
        self._ceiling = ceiling
        self._rates: dict[int, float] = {}
        self._since = 0
        self._fixed = False

    @classmethod
    def fixed(cls, size: int) -> Tuner:
        """Return a tuner that keeps one size."""
        tuner = cls(first=size, ceiling=size)
        tuner._fixed = True
        return tuner

    def fit(self, row_bytes: float) -> None:
        """Keep the chunk that is being gathered within the memory, its rows being so wide."""
        if not self._fixed:
            self.size = min(self.size, self._bound(row_bytes))

    def learn(self, rows: int, seconds: float, row_bytes: float) -> None:
        """Take in what a chunk of `rows` took, and choose the next size."""
        if self._fixed or rows < self.size or seconds <= 0:
            return  # a last or a cut chunk says nothing about the size
        rate = rows / seconds
        before = self._rates.get(rows)
        self._rates[rows] = rate if before is None else (before + rate) / 2
        self.size = self._next(self._bound(row_bytes))

    def _bound(self, row_bytes: float) -> int:
        return max(1, min(self._ceiling, int(self._memory / max(row_bytes, 1.0))))

    def _next(self, bound: int) -> int:
        best = max(self._rates, key=lambda size: self._rates[size])
        smaller = [size for size in self._rates if size < best and self._rates[size] * _GAIN >= self._rates[best]]
        best = min([best, *smaller])
        self._since += 1
        if self._since >= _SETTLED:
            self._since = 0
            self._rates = {best: self._rates[best]}  # neighbours are measured anew
        if best < FLOOR < bound:
            return FLOOR  # so small by the width of rows that have passed
        for candidate in (best * 2, best // 2):
            if FLOOR <= candidate <= bound and candidate not in self._rates:
                return candidate
        return min(best, bound)
