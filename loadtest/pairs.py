"""Ratios of pairs that were measured side by side: their median, and where it lies."""

import statistics
from collections.abc import Sequence
from itertools import accumulate
from math import comb
from typing import NamedTuple, Self

__all__ = ["Ratio"]

_CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """The median, and an interval that holds it with 95 % confidence, whatever the ratios' distribution.

    With fewer than six pairs there is no such interval: it spans all of them then.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float], baseline: Sequence[float]) -> Self:
        """The ratios of ``figures`` to ``baseline``, pair by pair."""
        found = sorted(one / other for one, other in zip(figures, baseline, strict=True))
        left_out = _left_out(len(found))
        return cls(statistics.median(found), found[left_out], found[-1 - left_out])

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def _left_out(count: int) -> int:
    """How many of ``count`` sorted samples the interval leaves out at each end: the sign test's bound."""
    outside = accumulate(2.0 * comb(count, at) / (1 << count) for at in range(count // 2))
    return max(0, sum(share <= 1 - _CONFIDENCE for share in outside) - 1)
