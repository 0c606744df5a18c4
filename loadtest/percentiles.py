"""Percentiles over every sample, by an HDR histogram: three significant digits, whatever the number of samples."""

from collections.abc import Iterable, Mapping, Sequence

from hdrh.histogram import HdrHistogram

__all__ = ["CURVE", "Percentiles"]

CURVE = (25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)
"""Percentiles that a report draws."""

_MICROSECOND = 1e-6
_LONGEST_SECONDS = 600
_DIGITS = 3


class Percentiles:
    """Durations, in seconds, of a microsecond to ten minutes; longer and shorter ones count as these."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._histogram = HdrHistogram(1, int(_LONGEST_SECONDS / _MICROSECOND), _DIGITS)
        for each in seconds:
            self.add(each)

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a sample, ``times`` times."""
        self._histogram.record_value(
            int(min(max(round(seconds / _MICROSECOND), 1), _LONGEST_SECONDS / _MICROSECOND)), times
        )

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def at(self, percentile: float) -> float:
        """Seconds that ``percentile`` per cent of the samples do not exceed; 0 without samples."""
        return float(self._histogram.get_value_at_percentile(percentile)) * _MICROSECOND if len(self) else 0.0

    def curve(self, percentiles: Sequence[float] = CURVE) -> Mapping[str, float]:
        """Milliseconds at each of ``percentiles``, as a report keeps them."""
        return {f"{each:g}": round(self.at(each) * 1e3, 4) for each in percentiles}
