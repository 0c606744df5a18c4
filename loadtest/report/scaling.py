"""How cost grows: straight lines, powers, and whether there is a square in it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Growth", "growth", "slope"]

_LARGE = 0.01


class Growth(NamedTuple):
    """How ``y`` grows with ``x``.

    ``power``: of the power law through the points whose ``x`` is at least a hundredth of the largest; 1 is linear.
    ``ratio``: cost of one more ``x`` in the upper half of these points over that in the lower half; 1 is linear.
    ``square``: share of the square term at the largest ``x``, where ``y`` is fitted by a parabola over all points.
    """

    power: float
    ratio: float
    square: float


def growth(points: Mapping[float, float]) -> Growth:
    """The growth through three points or more, positive ones."""
    x, y = _arrays(points)
    large = x >= x[-1] * _LARGE
    far_x, far_y = x[large], y[large]
    power = float(np.polyfit(np.log(far_x), np.log(far_y), 1)[0])
    middle = len(far_x) // 2
    lower = (far_y[middle] - far_y[0]) / (far_x[middle] - far_x[0])
    upper = (far_y[-1] - far_y[middle]) / (far_x[-1] - far_x[middle])
    # In units of the largest x, weighted by 1/y: a point counts by its relative error.
    square, _, _ = np.polyfit(x / x[-1], y, 2, w=1 / y)
    return Growth(power, float(upper / lower), float(square / y[-1]))


def slope(points: Mapping[float, float]) -> float:
    """``y`` for one more ``x``, by least squares."""
    return float(np.polyfit(*_arrays(points), 1)[0])


def _arrays(points: Mapping[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.array(sorted(points), dtype=np.float64)
    return x, np.array([points[each] for each in sorted(points)], dtype=np.float64)
