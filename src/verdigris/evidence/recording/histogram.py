"""Times in buckets of a quarter of an octave: small, mergeable, and right to a fifth."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Histogram:
    """Counts of nanoseconds by bucket, with their sum and maximum."""

    __slots__ = ("buckets", "count", "longest", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.longest = 0

    def add(self, nanoseconds: int) -> None:
        """Count one time."""
        bucket = int(log2(nanoseconds) * 4) if nanoseconds > 1000 else 0
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += nanoseconds
        self.longest = max(self.longest, nanoseconds)

    def counts(self) -> dict[str, int]:
        """Return the counts by upper bound in milliseconds."""
        bounds = {bucket: 0.001 if bucket == 0 else 2 ** ((bucket + 1) / 4) / 1e6 for bucket in self.buckets}
        return {f"{bounds[bucket]:.4g}": count for bucket, count in sorted(self.buckets.items())}


def quantile(counts: Mapping[str, int], share: float, longest: float) -> float:
    """Return the time below which this share lies, as its bucket's upper bound, never above the longest."""
    wanted = share * sum(counts.values())
    seen = 0
    for bound in sorted(counts, key=float):
        seen += counts[bound]
        if seen >= wanted:
            return min(float(bound), longest)
    return 0.0
