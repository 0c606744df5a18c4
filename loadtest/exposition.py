"""What a proxy tells about itself: histograms of its metrics page, and their growth."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Histogram", "histograms"]


@dataclass(frozen=True)
class Histogram:
    """Cumulative counts by upper bound, and the sum of what was observed."""

    counts: Mapping[float, float]
    total: float

    def __sub__(self, before: Self) -> "Histogram":
        counts = {bound: count - before.counts[bound] for bound, count in self.counts.items()}
        return Histogram(counts, self.total - before.total)

    @property
    def count(self) -> float:
        """How often something was observed."""
        return max(self.counts.values(), default=0.0)

    @property
    def mean(self) -> float:
        """0 without observations."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Linear within its bucket; the last bound at most; 0 without observations."""
        wanted = share * self.count
        for lower, upper in pairwise((0.0, *sorted(self.counts))):
            below = self.counts.get(lower, 0.0)
            if self.counts[upper] >= wanted > below:
                inside = (wanted - below) / (self.counts[upper] - below)
                return lower if upper == float("inf") else lower + inside * (upper - lower)
        return 0.0


async def histograms(client: aiohttp.ClientSession, admin: str) -> Mapping[str, Histogram]:
    """The histograms without labels of the page at ``admin``, by name."""
    async with client.get(f"{admin}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    found = {}
    for family in families:
        if family.type == "histogram":
            plain = [sample for sample in family.samples if sample.labels.keys() <= {"le"}]
            found[family.name] = Histogram(
                {float(each.labels["le"]): each.value for each in plain if each.name.endswith("_bucket")},
                sum(each.value for each in plain if each.name.endswith("_sum")),
            )
    return found
