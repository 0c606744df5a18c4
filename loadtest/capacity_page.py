"""The page of the capacity model: assumptions, needs, and the simulation beside what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cotguard.classifier.bundle import DEFAULT
from loadtest.bench import medians
from loadtest.capacity import TOLERANCE, Costs, compare, compared_table, loop_seconds, need, predict, tokens
from loadtest.contenders import cotguard
from loadtest.dialects import DIALECTS
from loadtest.report.results import Results
from loadtest.report.scaling import slope
from loadtest.report.sections import schedule
from loadtest.simulation import Profile, simulate
from loadtest.tables import Column, cells, table

__all__ = ["costs", "render", "write"]

_RATE = 50.0
_UTILISATION = 0.6
_STREAMS = (1_000, 100_000, 10_000_000)
_GPU_WINDOWS = (10_000, 30_000, 100_000)
_CURVE = tuple(range(8, 77, 4))
_PATTERNS = "patterns-only"
_QUEUE_PLOT, _CORES_PLOT = "capacity-queue.png", "capacity-cores.png"

_TEXT = """\
# Capacity

Written by `make loadtest` from [the load test's figures](../loadtest/report/README.md), measured on:
{machine}.

## Assumptions

* A stream brings {rate:g} tokens a second all the time, one event each, tokens of about a word. Streams that think
  less or wait cost less in proportion.
* Costs are those of this machine, whose cores the load test shares: {costs}. What the classifier adds to the cost of
  an event is all counted as judging.
* No thread is planned to be busier than {utilisation:.0%}: the rest is for peaks, for what a replica takes over from
  one that is gone, and for what the simulation does not know.
* A worker is one process with one event loop and, with a classifier on the CPU, one thread that judges. Streams are
  spread evenly (least connections); a stream stays where it began; workers share nothing, so that capacity grows with
  their number. That was measured on one machine with one worker, **not** on a fleet.
* Memory is that of an idle worker plus what a busy stream adds.
* Accelerators were **not run**. What one judges in a second is a parameter below, not a result.

## What so many streams need

{needs}

With the classifier on accelerators the event loops need what `patterns-only` needs, and {windows:.3f} windows a token
are judged elsewhere. Accelerators needed, were one of them to judge so many windows a second (parameter):

{accelerators}

Network, in and out each, with events of {event_bytes} bytes: {network}.

![Cores]({cores_plot})

## The queue, simulated

The simulation ([loadtest/simulation.py](../loadtest/simulation.py)) feeds the text of the load to the real detectors
once, to learn which token completes a window and which tokens are released by it; then streams that begin at random
times pass an event loop and a queue with the batch rule of the proxy. It is told how long judging a window took at the
measured point, since with {cores} cores for all processes that depends on what else runs (here {least:.1f} to
{most:.1f} ms), and what an event took the loop; all else follows. Measured and simulated are the same three schedules.

{checked} streams, `balanced`, `{bundle}`, checked to {tolerance:.0%}:

{check}

All measured points, simulated and measured:

{points}

`python -m loadtest.capacity --check` measures such a point again and prints the first table. Near saturation the time
in the queue depends on every disturbance, and the simulation, which knows none, is too friendly.

![Queue]({queue_plot})
"""


def costs(results: Results) -> dict[str, Costs]:
    """What a token costs, by configuration. Raises ``LookupError`` where something was not measured."""
    rows = medians(results["cost"]["paced"])
    busy = results["memory"]["busy"][cotguard(_PATTERNS)]
    stream_bytes = slope({float(count): size for count, size in busy.items()})
    fresh = results["memory"]["fresh"]
    found = {
        name: Costs(rows[cotguard(name)]["cpu"] / 1e6, 0.0, stream_bytes, rows[cotguard(name)]["idle"] * 2**20)
        for name in ("secrets-only", _PATTERNS)
    }
    loop = found[_PATTERNS].loop
    for bundle, figures in results["classifier"].items():
        point = max(figures["points"].values(), key=lambda each: int(each["streams"]))
        whole = point["cpu"] / tokens(point)
        found[f"balanced, {bundle}"] = Costs(loop, max(0.0, whole - loop), stream_bytes, fresh[bundle])
    return found


def render(results: Results, profile: Profile, checked: int) -> str:
    """The page."""
    found = costs(results)
    points = results["classifier"][DEFAULT]["points"]
    machine = results["machine"]["classifier"].partition("; ")[2]
    windows = float(profile.windows.mean())
    event_bytes = len(DIALECTS["chat"].token("reasoning", " word"))
    each = [point["judging"] / point["windows"] * 1e3 for point in points.values()]
    predictions = {streams: predict(profile, point) for streams, point in points.items()}
    return _TEXT.format(
        machine=machine,
        cores=machine.partition(" cores")[0].rpartition(" ")[2],
        rate=_RATE,
        costs="; ".join(f"`{name}` {_cost(cost)}" for name, cost in found.items()),
        utilisation=_UTILISATION,
        needs=_needs(found).strip(),
        windows=windows,
        accelerators=_accelerators(windows).strip(),
        event_bytes=event_bytes,
        network=", ".join(
            f"{count:,} streams {count * _RATE * event_bytes * 8 / 1e9:,.1f} Gbit/s" for count in _STREAMS
        ),
        cores_plot=_CORES_PLOT,
        least=min(each),
        most=max(each),
        checked=checked,
        bundle=DEFAULT,
        tolerance=TOLERANCE,
        check=compared_table(compare(predictions[str(checked)], points[str(checked)])).strip(),
        points=_all_points({streams: compare(predictions[streams], points[streams]) for streams in points}).strip(),
        queue_plot=_QUEUE_PLOT,
    )


def write(results: Results, profile: Profile, checked: int, page: Path) -> None:
    """Write page and plots."""
    page.write_text(render(results, profile, checked), encoding="utf-8")
    _draw_queue(results["classifier"][DEFAULT]["points"], profile).savefig(
        page.with_name(_QUEUE_PLOT), metadata={"Software": ""}
    )
    _draw_cores(costs(results)).savefig(page.with_name(_CORES_PLOT), metadata={"Software": ""})


def _gigabits(streams: int, event_bytes: int) -> float:
    return streams * _RATE * event_bytes * 8 / 1e9


def _cost(cost: Costs) -> str:
    judging = f" and {cost.judging * 1e6:.0f} µs of judging" if cost.judging else ""
    return f"{cost.loop * 1e6:.0f} µs of the event loop{judging} a token"


def _needs(found: Mapping[str, Costs]) -> str:
    rows = []
    for count in _STREAMS:
        for name, cost in found.items():
            needed = need(cost, count, _RATE, _UTILISATION)
            rows.append(
                (
                    f"{count:,}",
                    f"`{name}`",
                    f"{cost.streams(_RATE, _UTILISATION):,}",
                    f"{needed.workers:,}",
                    f"{needed.cores:,.0f}" if needed.cores >= 1 else f"{needed.cores:.1f}",
                    f"{needed.memory / 1e9:,.1f}",
                )
            )
    return cells(("streams", "configuration", "streams a worker", "workers", "cores", "memory, GB"), rows)


def _accelerators(windows: float) -> str:
    rows = {
        f"{count:,} streams": {
            str(speed): max(1.0, -(-count * _RATE * windows // (speed * _UTILISATION))) for speed in _GPU_WINDOWS
        }
        for count in _STREAMS
    }
    return table("", [Column(str(speed), f"{speed:,} windows/s", 0) for speed in _GPU_WINDOWS], rows)


def _all_points(compared: Mapping[str, Sequence[Any]]) -> str:
    names = [row.figure for row in next(iter(compared.values()))]
    rows = (
        (streams, *(f"{row.predicted:,.2f} / {row.measured:,.2f}" for row in found))
        for streams, found in compared.items()
    )
    return cells(("streams", *names), rows, right=True)


def _draw_queue(points: Mapping[str, dict[str, Any]], profile: Profile) -> Figure:
    """Delay and time in the queue against streams: lines simulated, with the busiest point's costs; dots measured."""
    figure = Figure(figsize=(7.2, 3.8), dpi=130, layout="constrained")
    busiest = points[max(points, key=int)]
    curves = {
        streams: simulate(
            profile,
            schedule(streams),
            busiest["rate"],
            event_seconds=loop_seconds(busiest),
            window_seconds=busiest["judging"] / busiest["windows"],
        )
        for streams in _CURVE
    }
    for axes, figures, title in zip(
        figure.subplots(1, 2),
        ({"delay50": "median", "delay99": "99th"}, {"wait50": "median", "wait99": "99th"}),
        ("delay of text", "time of a window in the queue"),
        strict=True,
    ):
        for name, label in figures.items():
            [line] = axes.plot(list(curves), [getattr(each, name) * 1e3 for each in curves.values()], label=label)
            axes.plot(
                [int(streams) for streams in points],
                [point[name] * 1e3 for point in points.values()],
                "o",
                color=line.get_color(),
            )
        axes.set_title(f"{title}, ms", fontsize="medium")
        axes.set_xlabel(f"streams of {busiest['rate']:g} tokens/s (dots: measured)")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _draw_cores(found: Mapping[str, Costs]) -> Figure:
    figure = Figure(figsize=(7.2, 3.8), dpi=130, layout="constrained")
    axes = figure.subplots()
    counts = [10.0**power for power in range(3, 8)]
    for name, cost in found.items():
        cores = [need(cost, int(count), _RATE, _UTILISATION).cores for count in counts]
        axes.plot(counts, cores, marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"streams of {_RATE:g} tokens/s")
    axes.set_ylabel(f"cores, {_UTILISATION:.0%} busy")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
