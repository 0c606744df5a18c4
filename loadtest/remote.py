"""What it costs to have the classifier's model elsewhere: ``python -m loadtest.remote [URL ...]``.

Without a URL a server of the protocol with nothing around it is started on this machine. Every way is measured in
turns, in one run, with one thread for the model:

1. One window at a time: the median and the 99th percentile of the time until its answer is there.
2. ``--streams`` at the same time, each with a window under way: windows a second.

The first row is the model in this process, which others are compared with. ``--client`` names a Python that has
``tritonclient[grpc]``: the engines' own client is measured then, too, on the first URL that is ``grpc://``. ``--json``
keeps what the report of :mod:`loadtest.report` tells of the first URL.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import uvloop

from cotguard.classifier.bundle import DEFAULT, Bundle, load
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Engine
from cotguard.classifier.inference import Inference, Threads
from cotguard.classifier.remote.address import Served, addresses
from cotguard.classifier.remote.model import RemoteModel
from cotguard.classifier.remote.replicas import Replicas
from cotguard.classifier.tensors import Judge, Tensors, Window
from cotguard.telemetry.metrics import Metrics
from loadtest.script import PROSE
from loadtest.serving import started

__all__ = ["Figures", "main"]

_HERE = "in process"
_THEIRS = "tritonclient"
_ALONE = 300
_READY_SECONDS = 20


class Figures(NamedTuple):
    """Of one way: seconds per window, one at a time; windows a second, many at a time."""

    alone: Sequence[float]
    speed: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.remote", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", nargs="*", help="grpc://HOST:PORT or http://HOST:PORT of servers with the model")
    parser.add_argument("--bundle", default=DEFAULT, help="(default %(default)s)")
    parser.add_argument("--streams", type=int, default=16, help="(default %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a run with streams (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="all ways in turns; medians count (default %(default)s)")
    parser.add_argument("--client", default="", help="a Python that has tritonclient[grpc]", metavar="PYTHON")
    parser.add_argument("--json", type=Path, help="keep the first URL's figures there", metavar="FILE")
    options = parser.parse_args(arguments)
    bundle = load(options.bundle)
    windows = _windows(bundle)
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        urls = options.urls or [
            stack.enter_context(started("loadtest.oip_server", options.bundle)).urls[0].replace("http://", "grpc://")
        ]
        for _ in range(options.rounds):
            for way in (_HERE, *urls):
                figures = uvloop.run(_measure(way, bundle, windows, options.streams, options.seconds))
                found.setdefault(way, []).append(figures)
            for url in [url for url in urls if options.client and url.startswith("grpc://")][:1]:
                theirs = _theirs(options.client, url, bundle, windows, options.streams, options.seconds)
                found.setdefault(f"{_THEIRS}, {url}", []).append(theirs)
    _print(found, options.streams)
    if options.json:
        options.json.write_text(json.dumps(_summary(found, urls[0], ours=not options.urls)) + "\n", encoding="utf-8")
    return 0


def _summary(found: dict[str, list[Figures]], url: str, *, ours: bool) -> dict[str, object]:
    """The figures of ``url``, beside those of the model in this process and of the engines' own client.

    ``ours``: the server is the one that has nothing around the model.
    """
    server = "the protocol alone, no engine around the model" if ours else url
    here, there = _medians(found[_HERE]), _medians(found[url])
    summary: dict[str, object] = {
        "added50_ms": (there[0] - here[0]) * 1e3,
        "baseline": f"in process {here[0] * 1e3:.2f} ms, {here[2]:,.0f} windows/s; server: {server}",
    }
    if theirs := found.get(f"{_THEIRS}, {url}"):
        summary["throughput_ratio"] = there[2] / _medians(theirs)[2]
    return summary


def _windows(bundle: Bundle) -> list[Window]:
    geometry, pieces = bundle.manifest.window, bundle.tokenizer(PROSE * 2)
    length = geometry.left + geometry.core + geometry.right
    starts = range(0, len(pieces.ids) - length, geometry.core)
    return [Window(pieces.ids[start : start + length], pieces.types[start : start + length]) for start in starts]


async def _measure(way: str, bundle: Bundle, windows: Sequence[Window], streams: int, seconds: float) -> Figures:
    metrics, judge = Metrics(), _judge(way, bundle)
    inference = Inference(judge(metrics), deadline=30, metrics=metrics)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while not await inference.check():  # noqa: ASYNC110  # what it waits for is on another machine
                await asyncio.sleep(0.05)
        for window in windows[:20]:
            await inference([window])
        alone = []
        for index in range(_ALONE):
            began = time.perf_counter()
            await inference([windows[index % len(windows)]])
            alone.append(time.perf_counter() - began)
        return Figures(alone, await _speed(inference, windows, streams, seconds))
    finally:
        await inference.close()


def _judge(way: str, bundle: Bundle) -> Callable[[Metrics], Judge]:
    if way == _HERE:
        engine = Engine(bundle)
        return lambda _metrics: Threads(engine, 1)
    served = Served(addresses(way))
    return lambda metrics: Replicas(Classifier(RemoteModel(bundle, served)), served, metrics)


async def _speed(inference: Inference, windows: Sequence[Window], streams: int, seconds: float) -> float:
    done, began = 0, time.perf_counter()

    async def stream(index: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await inference([windows[index % len(windows)]])
            done += 1

    await asyncio.gather(*(stream(index) for index in range(streams)))
    return done / (time.perf_counter() - began)


def _theirs(python: str, url: str, bundle: Bundle, windows: Sequence[Window], streams: int, seconds: float) -> Figures:
    script = Path(__file__).with_name("engine_client.py")
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **Tensors(bundle).given(windows))  # type: ignore[arg-type]  # names are those of arrays
        file.flush()
        command = [python, str(script), url.removeprefix("grpc://"), bundle.manifest.name, file.name]
        done = subprocess.run(  # noqa: S603  # our own script
            [*command, str(streams), str(seconds)], capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout)
    return Figures(found["alone"], found["speed"])


def _print(found: dict[str, list[Figures]], streams: int) -> None:
    sys.stdout.write(
        f"| model | alone p50 ms | p99 | above {_HERE} p50 | {streams} streams, windows/s | ratio |\n"
        "|---|---:|---:|---:|---:|---:|\n"
    )
    here = _medians(found[_HERE])
    for way, rounds in found.items():
        median, last, speed = _medians(rounds)
        sys.stdout.write(
            f"| {way} | {median * 1e3:.2f} | {last * 1e3:.2f} | {(median - here[0]) * 1e3:+.2f} "
            f"| {speed:,.0f} | {speed / here[2]:.2f} |\n"
        )


def _medians(rounds: Sequence[Figures]) -> tuple[float, float, float]:
    medians = [statistics.median(figures.alone) for figures in rounds]
    lasts = [statistics.quantiles(figures.alone, n=100)[98] for figures in rounds]
    return statistics.median(medians), statistics.median(lasts), statistics.median(each.speed for each in rounds)


if __name__ == "__main__":
    sys.exit(main())
