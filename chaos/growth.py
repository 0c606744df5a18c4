"""Whether a figure that was sampled over time grows: the slope of the straight line that fits it best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["WARM_SHARE", "Growth", "growth"]

WARM_SHARE: Final = 0.2
"""Of the samples, which do not count: what is made once is made then."""


@dataclass(frozen=True)
class Growth:
    """``mean`` of the samples that count, and how much the line rises over them."""

    mean: float
    rise: float

    def within(self, share: float, slack: float) -> bool:
        """Whether it rises by no more than a share of the mean and ``slack``. What falls does not grow."""
        return self.rise <= self.mean * share + slack


def growth(times: Sequence[float], values: Sequence[float]) -> Growth:
    """By linear regression over the samples after the warm-up, of which there must be two."""
    first = int(len(times) * WARM_SHARE)
    at, found = np.asarray(times[first:]), np.asarray(values[first:])
    slope, _ = np.polyfit(at, found, 1)
    return Growth(float(found.mean()), float(slope * (at[-1] - at[0])))
