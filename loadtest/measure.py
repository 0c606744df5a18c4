"""Single measurements of one contender. What is measured of a process is told by the operating system."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
import psutil

from loadtest.contenders import Contender
from loadtest.exposition import Histogram, histograms
from loadtest.load import (
    Load,
    Stream,
    character_delays,
    delays,
    poisson,
    stream_paced,
    stream_scheduled,
    stream_unpaced,
)
from loadtest.percentiles import Percentiles
from loadtest.script import script
from loadtest.serving import Server

__all__ = ["OWN_TIME", "Figures", "Latencies", "account", "memory", "open_loop", "paced", "paced_load", "unpaced"]

Figures = dict[str, float]

OWN_TIME = "cotguard_event_added_seconds"

_WARM_SECONDS = 0.5
_TAIL_SECONDS = 0.2


@dataclass
class Latencies:
    """Of an open loop, in seconds. ``first`` and ``whole`` count from the time a request was due."""

    first: Percentiles = field(default_factory=Percentiles)
    """To the first text."""
    whole: Percentiles = field(default_factory=Percentiles)
    """To the end, beyond the time its tokens take."""
    characters: Percentiles = field(default_factory=Percentiles)
    """Of each character, from the writing of its token."""
    failed: int = 0
    own: Histogram | None = None
    """From a read that decides text to its write, as cotguard tells."""


async def paced(client: aiohttp.ClientSession, contender: Contender, upstream: Server, load: Load) -> Figures:
    """A closed loop of paced streams; what comes while streams begin or end does not count.

    ``cpu``, ``mock`` and ``client`` are microseconds an event of the proxy, the mock server and this process; memory in
    MiB.
    """
    server, figures = contender.server, Figures()
    streaming = asyncio.create_task(stream_paced(client, contender.url, load))
    await asyncio.sleep(load.spread + _WARM_SECONDS)
    own_before = await _own_times(client, contender)
    before, start = _clocks(server, upstream), time.monotonic()
    await asyncio.sleep(load.tokens / load.rate - load.spread - _WARM_SECONDS - _TAIL_SECONDS)
    after, end = _clocks(server, upstream), time.monotonic()
    resident = {"mock_busy": upstream.memory_bytes, "client_busy": psutil.Process().memory_info().rss}
    if server:
        resident |= {"idle": contender.idle_bytes, "busy": server.memory_bytes}
    figures |= {name: size / 2**20 for name, size in resident.items()}
    own_after = await _own_times(client, contender)
    streams = await streaming
    sent = await account(client, upstream)
    events = sum(start <= at < end for times in sent for at in times)
    spent = {name: (after[name] - before[name]) / events * 1e6 for name in after}
    figures |= spent if server else {name: spent[name] for name in ("mock", "client")}
    if own_after and own_before:
        own = own_after - own_before
        figures |= {"own50": own.quantile(0.5) * 1e3, "own99": own.quantile(0.99) * 1e3}
    if not load.planted:
        figures |= _delays(load, streams, sent, start, end)
    return figures


def paced_load(streams: int, rate: float, seconds: float, *, planted: bool = False) -> Load:
    """Streams long enough for ``paced`` to count ``seconds``."""
    spread = Load(streams, 0, rate).spread
    return Load(streams, int(rate * (spread + _WARM_SECONDS + seconds + _TAIL_SECONDS)), rate, planted)


def _delays(
    load: Load, streams: Sequence[Stream], sent: Sequence[Sequence[float]], start: float, end: float
) -> Figures:
    """Milliseconds of tokens, of characters, of first texts; and how many tokens late tokens are, at the median."""
    ends = script(load.tokens, planted=False).ends
    tokens, characters, late = Percentiles(), Percentiles(), list[int]()
    for stream, times in zip(streams, sent, strict=True):
        for delay in delays(ends, times, stream.arrivals):
            if start <= delay.sent < end:
                tokens.add(delay.seconds)
                late.append(delay.tokens)
        for at, seconds, count in character_delays(ends, times, stream.arrivals):
            if start <= at < end:
                characters.add(seconds, count)
    first = Percentiles(stream.first_text for stream in streams if stream.first_text is not None)
    late.sort()
    found = Figures(late=late[len(late) // 2], late99=late[len(late) * 99 // 100])
    for name, percentiles in (("token", tokens), ("character", characters), ("first", first)):
        found |= {f"{name}50": percentiles.at(50) * 1e3, f"{name}99": percentiles.at(99) * 1e3}
    return found


async def unpaced(client: aiohttp.ClientSession, contender: Contender, load: Load, seconds: float) -> Figures:
    """A closed loop as fast as it goes: tokens a second, and processor time of everything, requests included."""
    server = contender.server
    cpu_before, start = server.cpu_seconds if server else 0.0, time.monotonic()
    responses = await stream_unpaced(client, contender.url, load, seconds)
    elapsed = time.monotonic() - start
    tokens = responses * load.tokens
    figures = {"speed": tokens / elapsed, "tokens": tokens}
    if server:
        cpu = server.cpu_seconds - cpu_before
        figures |= {"cpu": cpu / tokens * 1e6, "share": cpu / elapsed}
    return figures


async def open_loop(
    client: aiohttp.ClientSession, contender: Contender, upstream: Server, load: Load, seconds: float, seed: int
) -> Latencies:
    """Paced streams that begin at random times, so many that ``load.streams`` are under way on average."""
    lasts = load.tokens / load.rate
    offsets = poisson(load.streams / lasts, seconds, seed)
    own_before = await _own_times(client, contender)
    streams = await stream_scheduled(client, contender.url, load, offsets)
    own_after = await _own_times(client, contender)
    sent = await account(client, upstream)
    found = Latencies(failed=sum(not stream.ended for stream in streams))
    if own_before and own_after:
        found.own = own_after - own_before
    ends = script(load.tokens, planted=False).ends
    for stream, times in zip(streams, sent, strict=True):
        if stream.first_text is not None:
            found.first.add(stream.first_text)
        if stream.ended:
            found.whole.add(stream.ended - stream.due - lasts)
        for _, delay, count in character_delays(ends, times, stream.arrivals):
            found.characters.add(delay, count)
    return found


async def memory(client: aiohttp.ClientSession, contender: Contender, load: Load, seconds: float) -> int:
    """Resident bytes of the proxy ``seconds`` after ``load`` began; its streams are left then."""
    streaming = asyncio.create_task(stream_paced(client, contender.url, load))
    await asyncio.sleep(seconds)
    found = contender.server.memory_bytes if contender.server else 0
    if not streaming.done():
        streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)
    return found


async def account(client: aiohttp.ClientSession, upstream: Server) -> list[list[float]]:
    """When the mock server wrote each token, by stream."""
    async with client.get(f"{upstream.urls[0]}/sent") as response:
        sent: Mapping[str, list[float]] = orjson.loads(await response.read())
    return [sent[seed] for seed in sorted(sent, key=int)]


async def _own_times(client: aiohttp.ClientSession, contender: Contender) -> Histogram | None:
    """The time from a read that decides text to its write."""
    return (await histograms(client, contender.admin))[OWN_TIME] if contender.admin else None


def _clocks(server: Server | None, upstream: Server) -> Figures:
    """Processor seconds of everybody so far."""
    return {
        "cpu": server.cpu_seconds if server else 0.0,
        "mock": upstream.cpu_seconds,
        "client": time.process_time(),
    }
