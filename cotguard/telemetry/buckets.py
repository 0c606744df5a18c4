"""Counts by size, for observations on every event of every stream: one search and two additions each.

A module of its own, apart from how counts are exposed, because it is compiled with the core.
"""

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Buckets"]


class Buckets:
    """How many values were at most each of ``bounds`` (ascending) and above the one before. For one thread."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        """The last one counts what is above all bounds."""
        self.total = 0.0
        """Sum of the values."""
        self.exemplars: dict[int, tuple[str, float]] = {}
        """By place in ``counts``: the trace that had the last such value, and the value."""

    def observe(self, value: float, trace_id: str = "") -> None:
        """Count one value. It is an exemplar if there is a trace to look at."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        if trace_id:
            self.exemplars[place] = (trace_id, value)
