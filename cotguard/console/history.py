"""Live numbers: what the metrics say now, and how they moved in the last hour.

A *sample* is made of two snapshots of all metrics (:mod:`cotguard.telemetry.totals`): rates and quantiles are those of
the time between them, gauges those of the second. Quantiles are interpolated within a histogram's bucket; those of
whole numbers are rounded up, as there are no halves of them.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NoReturn

from cotguard.telemetry.totals import Snapshot

__all__ = ["INTERVAL", "Figures", "History", "sample", "totals"]

INTERVAL: Final = 2
"""Seconds between samples."""

_KEPT: Final = 3600 // INTERVAL
_QUANTILES: Final = ((0.5, "p50"), (0.99, "p99"))
_HISTOGRAMS: Final = {
    "added": ("cotguard_event_added_seconds", ()),
    "held": ("cotguard_held_characters", ()),
    "held_seconds": ("cotguard_held_seconds", ()),
    "first_upstream": ("cotguard_first_token_seconds", (("side", "upstream"),)),
    "first_delivered": ("cotguard_first_token_seconds", (("side", "delivered"),)),
    "classifier_batch": ("cotguard_classifier_batch_windows", ()),
    "loop_lag": ("cotguard_event_loop_lag_seconds", ()),
}
_WHOLE: Final = frozenset({"held", "classifier_batch"})
_GAUGES: Final = {
    "active": "cotguard_active_streams",
    "workers": "cotguard_workers",
    "classifier_queue": "cotguard_classifier_queue_windows",
    "guard_queue": "cotguard_guard_queue_requests",
    "waiting": "cotguard_overload_waiting_requests",
}
_COUNTERS: Final = {
    "requests": "cotguard_requests_total",
    "events": "cotguard_held_characters_count",
    "decisions": "cotguard_decisions_total",
}

Labels = tuple[tuple[str, str], ...]


class Figures:
    """A snapshot, by the samples' names. ``at``: seconds since 1970."""

    def __init__(self, told: Snapshot, at: float) -> None:
        self.at = at
        self._samples: dict[str, list[tuple[Labels, float]]] = {}
        for _, _, _, samples in told:
            for name, labels, value in samples:
                self._samples.setdefault(name, []).append((tuple(map(tuple, labels)), value))

    def of(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        """All samples of ``name`` with their labels."""
        return [(dict(labels), value) for labels, value in self._samples.get(name, ())]

    def sum(self, name: str, *wanted: tuple[str, str]) -> float:
        """The sum over all that have the labels ``wanted``."""
        return sum(value for labels, value in self._samples.get(name, ()) if set(wanted) <= set(labels))

    def buckets(self, name: str, wanted: Labels) -> dict[float, float]:
        """Counts by upper bound, each with those of the bounds before it."""
        found: dict[float, float] = {}
        for labels, value in self._samples.get(f"{name}_bucket", ()):
            if set(wanted) <= set(labels):
                bound = float(dict(labels)["le"])
                found[bound] = found.get(bound, 0.0) + value
        return found


def sample(before: Figures, now: Figures) -> dict[str, float | None]:
    """What happened between two snapshots."""
    seconds = max(now.at - before.at, 1e-3)
    told: dict[str, float | None] = {"time": round(now.at, 1)}
    for name, counter in _COUNTERS.items():
        told[name] = _short((now.sum(counter) - before.sum(counter)) / seconds)
    for name, mode in (("failed_closed", ("mode", "closed")), ("failed_open", ("mode", "open"))):
        moved = now.sum("cotguard_failures_total", mode) - before.sum("cotguard_failures_total", mode)
        told[name] = _short(moved / seconds)
    for name, gauge in _GAUGES.items():
        told[name] = now.sum(gauge)
    told["workers"] = told["workers"] or 1  # a gateway of one process has no such metric
    for name, (histogram, labels) in _HISTOGRAMS.items():
        earlier = before.buckets(histogram, labels)
        moved_by = {bound: count - earlier.get(bound, 0.0) for bound, count in now.buckets(histogram, labels).items()}
        for share, suffix in _QUANTILES:
            value = _quantile(moved_by, share)
            told[f"{name}_{suffix}"] = float(math.ceil(value)) if value is not None and name in _WHOLE else value
    return told


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    bounds = sorted(buckets)
    most = buckets[bounds[-1]] if bounds else 0.0
    if most <= 0:
        return None
    rank = share * most
    steps: Iterator[tuple[tuple[float, float], tuple[float, float]]]
    steps = pairwise([(0.0, 0.0), *((bound, buckets[bound]) for bound in bounds)])
    for (low, below), (high, up_to) in steps:
        if up_to >= rank:
            if high == float("inf"):
                return _short(low)
            return _short(low + (high - low) * (rank - below) / (up_to - below) if up_to > below else high)
    return None


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def totals(now: Figures) -> dict[str, Any]:
    """Counts since the start, as the metrics have them."""
    return {
        "requests": _rows(now, "cotguard_requests_total", "dialect", "status", "outcome"),
        "decisions": _rows(now, "cotguard_decisions_total", "entity", "channel", "action", "outcome"),
        "failures": _rows(now, "cotguard_failures_total", "kind", "mode"),
        "events": now.sum("cotguard_held_characters_count"),
        "active": now.sum("cotguard_active_streams"),
        "upstreams": list(_upstreams(now)),
    }


def _rows(now: Figures, name: str, *labels: str) -> list[list[Any]]:
    return sorted([*(told[label] for label in labels), value] for told, value in now.of(name))


def _upstreams(now: Figures) -> Iterator[dict[str, Any]]:
    for told, outstanding in now.of("cotguard_upstream_outstanding_requests"):
        place = ("pool", told["pool"]), ("server", told["server"])

        def mine(labels: Mapping[str, str], place: Labels = place) -> bool:
            return set(place) <= set(labels.items())

        up = [value for labels, value in now.of("cotguard_upstream_up") if mine(labels)]
        states = [labels["state"] for labels, value in now.of("cotguard_upstream_breaker") if value and mine(labels)]
        outcomes = now.of("cotguard_upstream_requests_total")
        yield {
            "pool": told["pool"],
            "server": told["server"],
            "up": bool(min(up)) if up else None,
            "breaker": states[0] if states else None,
            "outstanding": outstanding,
            "requests": {labels["outcome"]: value for labels, value in outcomes if mine(labels)},
        }


class History:
    """The samples of the last hour. ``figures`` gives all metrics, ``hindrance`` why no requests can be taken."""

    def __init__(self, figures: Callable[[], Awaitable[Snapshot]], hindrance: Callable[[], Awaitable[str]]) -> None:
        self._figures = figures
        self._hindrance = hindrance
        self._samples: deque[dict[str, float | None]] = deque(maxlen=_KEPT)
        self._awaited: asyncio.Future[dict[str, Any] | None] | None = None  # what viewers wait for
        self._over = False

    async def follow(self) -> NoReturn:
        """Take samples until cancelled."""
        before: Figures | None = None
        while True:
            now = Figures(await self._figures(), time.time())
            if before is not None:
                self._samples.append(sample(before, now))
                if self._awaited is not None:
                    told = {**totals(now), "hindrance": await self._hindrance()}
                    self._tell({"sample": self._samples[-1], "totals": told})
            before = now
            await asyncio.sleep(INTERVAL)

    def columns(self) -> dict[str, list[float | None]]:
        """All samples, by name."""
        names = self._samples[-1] if self._samples else ()
        return {name: [each.get(name) for each in self._samples] for name in names}

    async def next(self) -> dict[str, Any] | None:
        """The next sample, with the totals; None when there is none to come."""
        if self._over:
            return None
        if self._awaited is None:
            self._awaited = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._awaited)

    def end(self) -> None:
        """No viewer gets anything more."""
        self._over = True
        self._tell(None)

    def _tell(self, told: dict[str, Any] | None) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.set_result(told)
