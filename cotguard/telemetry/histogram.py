"""A Prometheus histogram for observations on every event of every stream.

``prometheus_client.Histogram`` takes a lock and adds to every bucket, which costs more than writing the event does. A
process observes from its event loop alone, so here an observation is one search and two additions; buckets are summed
up when they are exposed.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["EventHistogram"]


class EventHistogram(Collector):
    """Counts of values up to each of ``bounds`` (ascending), without labels. For one thread."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The one family, as the registry asks for it."""
        labels = (*map(floatToGoString, self._bounds), "+Inf")
        buckets = list(zip(labels, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)
