"""Counts by size, for observations on every event of every stream: one search and two additions each.

A module of its own, apart from how counts are exposed, because it is compiled with the core.
"""

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Buckets"]


class Buckets:
    """How many values were at most each of ``bounds`` (ascending) and above the one before. For one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        """The last one counts what is above all bounds."""
        self.total = 0.0
        """Sum of the values."""

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
