"""A Prometheus histogram for observations on every event of every stream.

``prometheus_client.Histogram`` takes a lock and adds to every bucket, which costs more than writing the event does. A
process observes from its event loop alone, into plain :class:`~cotguard.telemetry.buckets.Buckets`; they are summed up
when they are exposed.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from cotguard.telemetry.buckets import Buckets

__all__ = ["EventHistogram"]


class EventHistogram(Collector):
    """Exposes ``buckets``, with the given bounds (ascending), without labels."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self.buckets = Buckets(bounds)
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The one family, as the registry asks for it."""
        labels = (*map(floatToGoString, self.buckets.bounds), "+Inf")
        counts = zip(labels, accumulate(self.buckets.counts), strict=True)
        buckets = [self._bucket(place, *each) for place, each in enumerate(counts)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self.buckets.total)

    def _bucket(self, place: int, label: str, count: int) -> tuple[str, float] | tuple[str, float, Exemplar]:
        exemplar = self.buckets.exemplars.get(place)
        if exemplar is None:
            return label, count
        trace_id, value = exemplar
        return label, count, Exemplar({"trace_id": trace_id}, value)
