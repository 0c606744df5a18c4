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
        counts = zip(labels, accumulate(self.buckets.counts), self._exemplars(), strict=True)
        yield HistogramMetricFamily(self._name, self._documentation, buckets=list(counts), sum_value=self.buckets.total)

    def _exemplars(self) -> Iterator[Exemplar | None]:
        found = self.buckets.exemplars
        for place in range(len(self.buckets.counts)):
            trace_id, value = found.get(place, ("", 0.0))
            yield Exemplar({"trace_id": trace_id}, value) if trace_id else None
