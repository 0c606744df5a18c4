"""How many workers, cores and accelerators so many streams need: ``python -m loadtest.capacity``.

From the report's figures and a simulation of the classifier's queue it writes ``docs/capacity.md``. With ``--check`` it
measures one operating point now and compares it with what the simulation says of it; the exit status tells whether
every figure is within :data:`TOLERANCE`.
"""

import argparse
import asyncio
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from cotguard.classifier.bundle import DEFAULT
from loadtest.contenders import started_cotguard
from loadtest.load import session
from loadtest.report.plan import FULL
from loadtest.report.results import read
from loadtest.report.sections import Site, classifier_point, schedule
from loadtest.serving import started
from loadtest.simulation import Prediction, Profile, replay, simulate
from loadtest.tables import cells

__all__ = [
    "POLICY",
    "TOLERANCE",
    "Compared",
    "Costs",
    "Need",
    "compare",
    "compared_table",
    "loop_seconds",
    "main",
    "need",
    "predict",
    "tokens",
]

POLICY = "balanced"
TOLERANCE = 0.2

_CHECKED_STREAMS = 48
_REPORT = Path(__file__).with_name("report")
_PAGE = Path(__file__).parents[1] / "docs" / "capacity.md"


@dataclass(frozen=True)
class Costs:
    """What one token costs a worker, in seconds of one core, and what a stream and an idle worker hold, in bytes."""

    loop: float
    judging: float = 0.0
    """By the classifier, on the CPU."""
    stream_bytes: float = 0.0
    worker_bytes: float = 0.0

    def streams(self, rate: float, utilisation: float) -> int:
        """Streams of ``rate`` tokens a second that keep neither of a worker's threads busier than ``utilisation``."""
        return max(1, int(utilisation / (rate * max(self.loop, self.judging))))


@dataclass(frozen=True)
class Need:
    """For so many streams: workers, cores at the utilisation asked for, bytes of memory."""

    workers: int
    cores: float
    memory: float


def need(costs: Costs, streams: int, rate: float, utilisation: float) -> Need:
    """What ``streams`` of ``rate`` tokens a second need, spread evenly over workers."""
    workers = math.ceil(streams / costs.streams(rate, utilisation))
    return Need(
        workers,
        streams * rate * (costs.loop + costs.judging) / utilisation,
        workers * costs.worker_bytes + streams * costs.stream_bytes,
    )


@dataclass(frozen=True)
class Compared:
    """A figure, as the simulation has it and as it was measured."""

    figure: str
    predicted: float
    measured: float

    @property
    def deviation(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else math.inf

    @property
    def within(self) -> bool:
        """Whether the prediction is good enough."""
        return abs(self.deviation) <= TOLERANCE


def predict(profile: Profile, point: dict[str, Any]) -> Prediction:
    """The simulation of a measured point, the mean of its turns.

    Of the point it is told what was offered, and what an event and judging a window took.
    """
    turns = [
        simulate(
            profile,
            schedule(point["streams"], turn),
            point["rate"],
            event_seconds=loop_seconds(point),
            window_seconds=point["judging"] / point["windows"],
        )
        for turn in range(point["turns"])
    ]
    return Prediction(*map(statistics.fmean, zip(*turns, strict=True)))


def compare(prediction: Prediction, point: dict[str, Any]) -> list[Compared]:
    """The figures of a measured point that the simulation predicts; milliseconds, shares and windows."""
    return [
        Compared("judging, share of the time", prediction.judging, point["judging"] / point["seconds"]),
        Compared("windows a batch", prediction.batch_mean, point["windows"] / point["batches"]),
        Compared("delay of text, mean ms", prediction.delay_mean * 1e3, point["delay_mean"] * 1e3),
        Compared("delay of text, p50 ms", prediction.delay50 * 1e3, point["delay50"] * 1e3),
        Compared("delay of text, p99 ms", prediction.delay99 * 1e3, point["delay99"] * 1e3),
        Compared("time in the queue, mean ms", prediction.wait_mean * 1e3, point["wait_mean"] * 1e3),
    ]


def compared_table(rows: Sequence[Compared]) -> str:
    """In Markdown."""
    lines = (
        (
            row.figure,
            f"{row.predicted:,.2f}",
            f"{row.measured:,.2f}",
            f"{row.deviation:+.0%}",
            "yes" if row.within else "no",
        )
        for row in rows
    )
    return cells(("figure", "simulated", "measured", "deviation", f"within {TOLERANCE:.0%}"), lines, right=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check one point."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.capacity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="measure a point now, and compare; writes nothing")
    parser.add_argument("--streams", type=int, default=_CHECKED_STREAMS, help="of that point (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.check:
        rows = uvloop.run(_check(options.streams))
        sys.stdout.write(compared_table(rows))
        return int(not all(row.within for row in rows))
    from loadtest.capacity_page import write  # and with it the plots' library, which a check can do without

    results = read(_REPORT)
    try:
        profile = asyncio.run(replay(POLICY, DEFAULT, FULL.classifier_tokens))
        write(results, profile, _CHECKED_STREAMS, _PAGE)
    except LookupError as missing:
        sys.stderr.write(f"not measured: {missing}; run python -m loadtest.report first\n")
        return 1
    sys.stdout.write(f"{_PAGE}\n")
    return 0


async def _check(streams: int) -> list[Compared]:
    profile = await replay(POLICY, DEFAULT, FULL.classifier_tokens)
    with started("loadtest.upstream") as upstream, started_cotguard(POLICY, upstream.urls[0], bundle=DEFAULT) as proxy:
        async with session() as client:
            site = Site(FULL, client, upstream, (proxy,), _note)
            point = await classifier_point(site, proxy, streams)
    return compare(predict(profile, point), point)


def loop_seconds(point: dict[str, Any]) -> float:
    """What a token takes the event loop at a measured point: processor time that is not judging."""
    return max(0.0, float(point["cpu"] - point["judging"])) / tokens(point)


def tokens(point: dict[str, Any]) -> int:
    """All that were streamed at a measured point."""
    return int(point["streams"] * point["tokens"] * point["turns"])


def _note(said: str) -> None:
    sys.stderr.write(f"{said}\n")


if __name__ == "__main__":
    sys.exit(main())
