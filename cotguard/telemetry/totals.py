"""Metrics of several processes as if they were one.

A process describes its metrics by a *snapshot*. Counters and histograms are summed over all processes that ever were,
so that they never fall when one is replaced; gauges over those that live. Gauges whose name ends in ``_info`` say what
is in use: they are 1 where any process says so. Of those that are a time or say yes or no (``_timestamp_seconds``,
``_start_time_seconds``, ``_success``, ``_up``) the least is told: the process that is behind the others is the one to
know of. Exemplars stay with their process.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

__all__ = ["Snapshot", "Totals", "snapshot"]

Snapshot = list[Any]
"""Made of what JSON has: for each family its name, type, documentation and samples (name, labels, value)."""

_Key = tuple[str, tuple[tuple[str, str], ...]]
_OWN = 0
"""The number of this process, which serves no exchanges, beside those of the workers."""

_LEAST = ("_timestamp_seconds", "_start_time_seconds", "_success", "_up")


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """What the registry's metrics are now, without the time of their creation, which cannot be summed."""
    return [
        [
            family.name,
            family.type,
            family.documentation,
            [
                [sample.name, list(sample.labels.items()), sample.value]
                for sample in family.samples
                if not sample.name.endswith("_created")
            ],
        ]
        for family in registry.collect()
    ]


class _Family:
    """One metric of all processes; samples stay in the order in which a process gave them."""

    def __init__(self, name: str, kind: str, documentation: str) -> None:
        self._name = name
        self._kind = kind
        self._documentation = documentation
        self._join: Callable[[float, float], float] = min if name.endswith(_LEAST) else add
        self._ended: dict[_Key, float] = {}
        self._live: dict[int, dict[_Key, float]] = {}

    def update(self, process: int, samples: Iterable[Any]) -> None:
        self._live[process] = {(name, tuple(map(tuple, labels))): value for name, labels, value in samples}

    def end(self, process: int) -> None:
        last = self._live.pop(process, {})
        if self._kind != "gauge":
            self._add(self._ended, last)

    def metric(self) -> Metric:
        total = dict(self._ended)
        for samples in self._live.values():
            self._add(total, samples)
        metric = Metric(self._name, self._documentation, self._kind)
        for (name, labels), value in total.items():
            metric.add_sample(name, dict(labels), min(value, 1) if self._name.endswith("_info") else value)
        return metric

    def _add(self, total: dict[_Key, float], samples: dict[_Key, float]) -> None:
        for key, value in samples.items():
            total[key] = self._join(total[key], value) if key in total else value


class Totals(Collector):
    """Sums of what processes, told apart by a number from 1 that is never used again, last said.

    ``own``: metrics of this process itself.
    """

    def __init__(self, own: CollectorRegistry | None = None) -> None:
        self._own = own
        self._families: dict[str, _Family] = {}
        self._live: set[int] = set()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def update(self, process: int, said: Snapshot) -> None:
        """Note what a process says of itself."""
        self._live.add(process)
        self._note(process, said)

    def _note(self, process: int, said: Snapshot) -> None:
        for name, kind, documentation, samples in said:
            if name not in self._families:
                self._families[name] = _Family(name, kind, documentation)
            self._families[name].update(process, samples)

    def end(self, process: int) -> None:
        """Note that a process has ended; what it counted stays."""
        self._live.discard(process)
        for family in self._families.values():
            family.end(process)

    def collect(self) -> Iterator[Metric]:
        """All families, as the registry asks for them."""
        if self._own is not None:
            self._note(_OWN, snapshot(self._own))
        for family in self._families.values():
            yield family.metric()
        yield GaugeMetricFamily("cotguard_workers", "Worker processes that serve.", len(self._live))

    def snapshot(self) -> Snapshot:
        """A snapshot of the sums."""
        return snapshot(self._registry)

    def expose(self, accept: str = "") -> bytes:
        """The exposition in the format that an ``Accept`` header asks for, else the text format."""
        return choose_encoder(accept)[0](self._registry)
