"""What the classifier costs in the proxy: ``python -m loadtest.classifier [BUNDLE ...]``.

For every bundle and number of streams ``cotguard serve --policy balanced`` is measured with one inference thread.

1. Unpaced: responses of a thousand tokens, one after the other on every stream. Tokens of the wire (words, mostly) per
   second, and per second of the process's processor time, inference and the overlap of windows included.
2. Paced: every stream brings 50 tokens a second. How many tokens later text arrives, and how much later the first
   token does. With more text than the classifier can judge the queue grows: such rows say so.

The row ``none`` is the same policy without a classifier.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import aiohttp
import orjson
import uvloop

from cotguard.classifier.bundle import NONE, ready_bundles
from loadtest.load import Load, delays, session, stream_paced, stream_unpaced
from loadtest.script import script
from loadtest.serving import Server, started

__all__ = ["Figures", "main", "measure"]

_STREAMS = (1, 16, 64)
_TOKENS = 1000
_RATE = 50.0
_PACED_TOKENS = 400
_MISSED_DEADLINE = "over capacity"


class Figures(NamedTuple):
    """Of one bundle at one number of streams. Tokens late and first token are of paced streams; seconds."""

    speed: float
    per_core: float
    late_median: float
    late_p99: float
    first_token: float
    memory_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.classifier", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("bundles", nargs="*", default=[NONE, *ready_bundles()], help="names or directories")
    parser.add_argument("--streams", type=int, nargs="*", default=_STREAMS, help="(default %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of an unpaced run (default %(default)s)")
    options = parser.parse_args(arguments)
    sys.stdout.write(
        "| bundle | streams | tokens/s | tokens/s and core | tokens late p50 | p99 | first token s | MiB |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    for bundle in options.bundles:
        for streams in options.streams:
            found = uvloop.run(measure(bundle, streams, options.seconds))
            late = (
                f"{found.late_median:.0f} | {found.late_p99:.0f} | {found.first_token:.2f}"
                if found.first_token >= 0
                else f"{_MISSED_DEADLINE} | – | –"
            )
            sys.stdout.write(
                f"| {bundle} | {streams} | {found.speed:,.0f} | {found.per_core:,.0f} | {late} "
                f"| {found.memory_bytes / 2**20:.0f} |\n"
            )
            sys.stdout.flush()
    return 0


async def measure(bundle: str, streams: int, seconds: float) -> Figures:
    """Start a proxy with ``bundle`` and measure it."""
    any_port = "127.0.0.1:0"
    with started("loadtest.upstream") as upstream:
        arguments = ("--upstream", upstream.urls[0], "--listen", any_port, "--admin-listen", any_port)
        with started("cotguard", "serve", *arguments, "--bundle", bundle, "--classifier-deadline", "60") as server:
            async with session() as client:
                speed, per_core = await _unpaced(client, server, Load(streams, _TOKENS, 0, planted=False), seconds)
                late: tuple[float, float, float] = (0, 0, -1)
                if streams * _RATE < speed:
                    late = await _paced(client, server, upstream, Load(streams, _PACED_TOKENS, _RATE, planted=False))
                return Figures(speed, per_core, *late, server.memory_bytes)


async def _unpaced(client: aiohttp.ClientSession, server: Server, load: Load, seconds: float) -> tuple[float, float]:
    before, since = server.cpu_seconds, time.monotonic()
    tokens = await stream_unpaced(client, server.urls[0], load, seconds) * load.tokens
    return tokens / (time.monotonic() - since), tokens / (server.cpu_seconds - before)


async def _paced(
    client: aiohttp.ClientSession, server: Server, upstream: Server, load: Load
) -> tuple[float, float, float]:
    streams = await stream_paced(client, server.urls[0], load)
    async with client.get(f"{upstream.urls[0]}/sent") as response:
        sent = orjson.loads(await response.read())
    ends = script(load.tokens, planted=False).ends
    found = [each for seed, stream in enumerate(streams) for each in delays(ends, sent[str(seed)], stream.arrivals)]
    late = statistics.quantiles((delay.tokens for delay in found), n=100)
    first = statistics.median(
        next(arrival.time for arrival in stream.arrivals if arrival.position) - sent[str(seed)][0]
        for seed, stream in enumerate(streams)
    )
    return late[49], late[98], first


if __name__ == "__main__":
    sys.exit(main())
