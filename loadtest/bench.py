"""What cotguard costs beside two minimal aiohttp proxies, in the same run: ``python -m loadtest.bench``.

1. The mock server and every proxy run in processes of their own, each with one worker and uvloop; the load generator
   is this process. All proxies stay up; they are measured one after the other, in turns, and medians are taken.
2. Paced: every stream brings a token at fixed times. Processor time (user and system, of the proxy's process) and
   tokens are counted in a window after the warm-up. Delays are of single tokens, from the mock's writing to the
   client's reading, so they include the mock, the client and the loopback: the row `direct` shows what these take.
   Added is what a proxy adds to the same percentile of `direct`: for characters from the writing of their token, for
   the first text from the request.
3. Unpaced: responses of a thousand tokens, many events a write, one after the other on every stream, until the time is
   over. Processor time and tokens are counted over the whole run, requests included. A client that only reads is
   used, and several events may travel in one write of a proxy.

The classifier is left out: what it costs is told by :mod:`loadtest.classifier`.

Limits: with fewer than three free cores the processes wait for one another, which raises delays, less so processor
times. A quantile of the proxy's own time is interpolated in its histogram.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import uvloop

from loadtest.baselines import BASELINES
from loadtest.contenders import DIRECT, REFERENCE, compiled, cotguard, lineup
from loadtest.load import Load, session
from loadtest.machine import describe
from loadtest.measure import Figures, paced, paced_load, unpaced
from loadtest.serving import started
from loadtest.tables import Column, table

__all__ = ["ADDED", "UNPACED", "Options", "added", "bench", "main", "medians"]

ADDED = ("character50", "character99", "first50", "first99")
"""Figures of which the share that a proxy adds is told: `direct` has them too."""

_POLICIES = ("nothing", "secrets-only", "patterns-only", "balanced")
_RESULTS = Path(__file__).with_name("results")
_UNPACED_TOKENS = 1000

_PACED = (
    Column("cpu", "CPU µs/event", 1),
    Column("ratio", "ratio", 2),
    Column("token50", "delay p50 ms", 2),
    Column("token99", "delay p99 ms", 1),
    Column("late", "tokens late, median", 0),
    Column("own50", "own time p50 ms", 3),
    Column("own99", "own time p99 ms", 2),
    Column("idle", "MiB idle", 0),
    Column("busy", "MiB busy", 0),
)
_DELAYS = (
    Column("character50", "a character, p50 ms", 2),
    Column("character99", "p99 ms", 1),
    Column("first50", "the first text, p50 ms", 1),
    Column("first99", "p99 ms", 1),
)
UNPACED = (
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
    policies: Sequence[str] = _POLICIES


Turns = dict[str, list[Figures]]


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
    machine = describe()
    progress("starting the servers")
    names = (DIRECT, *BASELINES, *map(cotguard, options.policies), *map(compiled, options.policies))
    with started("loadtest.upstream") as upstream, lineup(names, upstream.urls[0]) as contenders:
        slow: Turns = {contender.name: [] for contender in contenders}
        fast: Turns = {contender.name: [] for contender in contenders}
        slow_load = paced_load(options.streams, options.rate, options.seconds, planted=options.planted)
        fast_load = Load(options.streams, _UNPACED_TOKENS, 0, options.planted)
        async with session() as client:
            for turn in range(options.repeat):
                for contender in contenders:
                    progress(f"turn {turn + 1} of {options.repeat}: {contender.name}")
                    slow[contender.name].append(await paced(client, contender, upstream, slow_load))
                    fast[contender.name].append(await unpaced(client, contender, fast_load, options.seconds / 2))
    return _report(machine, options, slow, fast)


def medians(turns: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """Of each contender the medians of its figures over its turns, and the ratio of its cost to the reference's."""
    rows = {
        name: {figure: statistics.median(turn[figure] for turn in found) for figure in found[0]}
        for name, found in turns.items()
    }
    for figures in rows.values():
        if "cpu" in figures:
            figures["ratio"] = figures["cpu"] / rows[REFERENCE]["cpu"]
    return rows


def added(rows: Mapping[str, Figures]) -> dict[str, Figures]:
    """What each proxy adds to the percentiles of :data:`ADDED`."""
    direct = rows[DIRECT]
    return {
        name: {figure: figures[figure] - direct[figure] for figure in ADDED if figure in figures}
        for name, figures in rows.items()
        if name != DIRECT
    }


def _report(machine: str, options: Options, slow: Turns, fast: Turns) -> str:
    text = "with planted values" if options.planted else "prose without values"
    load = f"{options.streams} streams, {text}, medians of {options.repeat} turns"
    rows = medians(slow)
    parts = [
        f"# cotguard {version('cotguard')}, cost of moderation\n\n{machine}\n",
        f"## Paced: {options.rate:g} tokens/s a stream, {load}\n\n{table('proxy', _PACED, rows)}",
        f"## Unpaced: {_UNPACED_TOKENS} tokens a response, {load}\n\n{table('proxy', UNPACED, medians(fast))}",
    ]
    if not options.planted:
        parts.insert(2, f"## Added, paced\n\n{table('proxy', _DELAYS, added(rows))}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
