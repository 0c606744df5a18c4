"""What cotguard costs beside two minimal aiohttp proxies, in the same run: ``python -m loadtest.bench``.

1. The mock server and every proxy run in processes of their own, each with one worker and uvloop; the load generator
   is this process. All proxies stay up; they are measured one after the other, in turns, and medians are taken.
2. Paced: every stream brings a token at fixed times. Processor time (user and system, of the proxy's process) and
   tokens are counted in a window after the warm-up. Delays are of single tokens, from the mock's writing to the
   client's reading, so they include the mock, the client and the loopback: the row `direct` shows what these take.
3. Unpaced: responses of a thousand tokens, many events a write, one after the other on every stream, until the time is
   over. Processor time and tokens are counted over the whole run, requests included. A client that only reads is
   used, and several events may travel in one write of a proxy.

The classifier is left out: what it costs is told by :mod:`loadtest.classifier`.

Limits: with fewer than three free cores the processes wait for one another, which raises delays, less so processor
times. Processor times come in steps of 10 ms. A quantile of the proxy's own time is interpolated in its histogram.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson
import psutil
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtest.baselines import BASELINES
from loadtest.load import Load, delays, session, stream_paced, stream_unpaced
from loadtest.script import script
from loadtest.serving import Server, started

__all__ = ["Options", "bench", "histogram_quantile", "main"]

Figures = dict[str, float]

_POLICIES = {
    "nothing": str(Path(__file__).with_name("nothing.yaml")),
    "secrets-only": "secrets-only",
    "balanced": "balanced",
}
_REFERENCE = next(iter(BASELINES))
_RESULTS = Path(__file__).with_name("results")
_WARM_SECONDS = 1.0
_TAIL_SECONDS = 0.2
_UNPACED_TOKENS = 1000
_OWN_TIME = "cotguard_event_added_seconds"


class Column(NamedTuple):
    """A column of the report: a figure, its heading and how many decimals it has."""

    figure: str
    heading: str
    decimals: int


_PACED = (
    Column("cpu", "CPU µs/event", 1),
    Column("ratio", "ratio", 2),
    Column("p50", "delay p50 ms", 2),
    Column("p99", "delay p99 ms", 1),
    Column("late", "tokens late, median", 0),
    Column("own", "own time p50 ms", 3),
    Column("idle", "MiB idle", 0),
    Column("busy", "MiB busy", 0),
)
_UNPACED = (
    Column("cpu", "CPU µs/event", 2),
    Column("ratio", "ratio", 2),
    Column("speed", "tokens/s", 0),
    Column("share", "of one core", 2),
)


@dataclass(frozen=True)
class Options:
    """How much is measured. Seconds are those of one paced run; an unpaced run takes half."""

    streams: int = 64
    rate: float = 50.0
    seconds: float = 4.0
    repeat: int = 2
    planted: bool = False
    policies: Sequence[str] = tuple(_POLICIES)


@dataclass
class _Contender:
    """A proxy, or none (``server`` unset), and its figures of every turn."""

    name: str
    url: str
    server: Server | None = None
    admin: str | None = None
    idle: int = 0
    paced: list[Figures] = field(default_factory=list)
    unpaced: list[Figures] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report and keep a copy of it."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=default.streams, help="responses at once (default %(default)s)")
    parser.add_argument("--rate", type=float, default=default.rate, help="tokens/s of a stream (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of a paced run (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=default.repeat, help="turns (default %(default)s)")
    parser.add_argument("--planted", action="store_true", help="text full of values; delays are not told then")
    report = uvloop.run(bench(Options(**vars(parser.parse_args(arguments))), _progress))
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.md"
    path.write_text(report, encoding="utf-8")
    sys.stdout.write(f"{report}\nKept in {path}\n")
    return 0


def _progress(message: str) -> None:
    sys.stderr.write(f"{message}\n")


async def bench(options: Options, progress: Callable[[str], None]) -> str:
    """The report, in Markdown."""
    machine = _machine()
    with ExitStack() as stack:
        progress("starting the servers")
        upstream = stack.enter_context(started("loadtest.upstream")).urls[0]
        contenders = [_Contender("direct", upstream)]
        for name in BASELINES:
            server = stack.enter_context(started("loadtest.baselines", name, upstream))
            contenders.append(_Contender(name, server.urls[0], server))
        for policy in options.policies:
            server = stack.enter_context(_started_cotguard(_POLICIES[policy], upstream))
            contenders.append(_Contender(f"cotguard {policy}", server.urls[0], server, admin=server.urls[-1]))
        for contender in contenders:
            contender.idle = contender.server.memory_bytes if contender.server else 0
        async with session() as client:
            for turn in range(options.repeat):
                for contender in contenders:
                    progress(f"turn {turn + 1} of {options.repeat}: {contender.name}")
                    contender.paced.append(await _paced(client, contender, upstream, options))
                    contender.unpaced.append(await _unpaced(client, contender, options))
    return _report(machine, options, contenders)


def _started_cotguard(policy: str, upstream: str) -> AbstractContextManager[Server]:
    any_port = "127.0.0.1:0"
    arguments = ("--upstream", upstream, "--listen", any_port, "--admin-listen", any_port, "--policy", policy)
    return started("cotguard", "serve", *arguments, "--bundle", "none")


async def _paced(client: aiohttp.ClientSession, contender: _Contender, upstream: str, options: Options) -> Figures:
    tokens = int(options.rate * (_WARM_SECONDS + options.seconds + _TAIL_SECONDS))
    load = Load(options.streams, tokens, options.rate, options.planted)
    server, figures = contender.server, Figures()
    streaming = asyncio.create_task(stream_paced(client, contender.url, load))
    await asyncio.sleep(_WARM_SECONDS)
    own_before = await _own_times(client, contender)
    cpu_before, start = server.cpu_seconds if server else 0.0, time.monotonic()
    await asyncio.sleep(options.seconds)
    cpu_after, end = server.cpu_seconds if server else 0.0, time.monotonic()
    if server:
        figures |= {"idle": contender.idle / 2**20, "busy": server.memory_bytes / 2**20}
    own_after = await _own_times(client, contender)
    streams = await streaming
    async with client.get(f"{upstream}/sent") as response:
        sent: Mapping[str, Sequence[float]] = orjson.loads(await response.read())
    if server:
        events = sum(start <= at < end for times in sent.values() for at in times)
        figures["cpu"] = (cpu_after - cpu_before) / events * 1e6
    if own_after:
        grown = {bound: count - own_before.get(bound, 0) for bound, count in own_after.items()}
        figures["own"] = histogram_quantile(grown, 0.5) * 1e3
    if not load.planted:
        ends = script(load.tokens, planted=False).ends
        found = [
            delay
            for seed, stream in enumerate(streams)
            for delay in delays(ends, sent[str(seed)], stream.arrivals)
            if start <= delay.sent < end
        ]
        percentiles = statistics.quantiles((delay.seconds for delay in found), n=100)
        figures |= {"p50": percentiles[49] * 1e3, "p99": percentiles[98] * 1e3}
        figures["late"] = statistics.median(delay.tokens for delay in found)
    return figures


async def _unpaced(client: aiohttp.ClientSession, contender: _Contender, options: Options) -> Figures:
    load = Load(options.streams, _UNPACED_TOKENS, 0, options.planted)
    server = contender.server
    cpu_before, start = server.cpu_seconds if server else 0.0, time.monotonic()
    responses = await stream_unpaced(client, contender.url, load, options.seconds / 2)
    elapsed = time.monotonic() - start
    tokens = responses * load.tokens
    figures = {"speed": tokens / elapsed}
    if server:
        cpu = server.cpu_seconds - cpu_before
        figures |= {"cpu": cpu / tokens * 1e6, "share": cpu / elapsed}
    return figures


async def _own_times(client: aiohttp.ClientSession, contender: _Contender) -> dict[float, float]:
    """The histogram of the time from a read that decides text to its write: counts up to each bound."""
    if contender.admin is None:
        return {}
    async with client.get(f"{contender.admin}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    samples = (sample for family in families for sample in family.samples if sample.name == f"{_OWN_TIME}_bucket")
    return {float(sample.labels["le"]): sample.value for sample in samples}


def histogram_quantile(counts: Mapping[float, float], share: float) -> float:
    """The quantile of a histogram given as cumulative counts, linear within its bucket; the last bound at most."""
    bounds = sorted(counts)
    wanted = share * counts[bounds[-1]]
    for lower, upper in pairwise((0.0, *bounds)):
        below = counts.get(lower, 0.0)
        if counts[upper] >= wanted > below:
            inside = (wanted - below) / (counts[upper] - below)
            return lower if upper == float("inf") else lower + inside * (upper - lower)
    return 0.0


def _report(machine: str, options: Options, contenders: Sequence[_Contender]) -> str:
    text = "with planted values" if options.planted else "prose without values"
    load = f"{options.streams} streams, {text}, medians of {options.repeat} turns"
    tables = (
        (f"Paced: {options.rate:g} tokens/s a stream, {load}", _PACED, [c.paced for c in contenders]),
        (f"Unpaced: {_UNPACED_TOKENS} tokens a response, {load}", _UNPACED, [c.unpaced for c in contenders]),
    )
    names = [contender.name for contender in contenders]
    parts = [f"# cotguard {version('cotguard')}, cost of moderation\n\n{machine}\n"]
    for title, columns, turns in tables:
        rows = dict(zip(names, map(_medians, turns), strict=True))
        for figures in rows.values():
            if "cpu" in figures:
                figures["ratio"] = figures["cpu"] / rows[_REFERENCE]["cpu"]
        parts.append(f"## {title}\n\n{_table(columns, rows)}")
    return "\n".join(parts)


def _medians(turns: Sequence[Figures]) -> Figures:
    return {figure: statistics.median(turn[figure] for turn in turns) for figure in turns[0]}


def _table(columns: Sequence[Column], rows: Mapping[str, Figures]) -> str:
    lines = [f"| proxy | {' | '.join(column.heading for column in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, figures in rows.items():
        cells = (f"{figures[c.figure]:,.{c.decimals}f}" if c.figure in figures else "–" for c in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _machine() -> str:
    """Where the figures come from, and how busy it was before."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), "unknown CPU")
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "orjson", "hyperscan"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {model}, {len(os.sched_getaffinity(0))} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, load {os.getloadavg()[0]:.2f} before; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}"
    )


if __name__ == "__main__":
    sys.exit(main())
