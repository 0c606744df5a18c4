"""The load generator: many streams at once through one server, and when each token arrived.

1. A token has arrived when the position of the text delivered has reached its end; which event carried it does not
   matter. Times are those of the host's monotonic clock, which the mock server's account uses too.
2. Closed loop (:func:`stream_paced`, :func:`stream_unpaced`): a fixed number of streams, for what an event costs.
3. Open loop (:func:`stream_scheduled`): requests begin at times fixed beforehand, whether or not earlier ones have
   ended, and their latency counts from these times. So a server that stalls delays every request that was due
   meanwhile, as it would delay its users, instead of being spared them (coordinated omission).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import aiohttp

from loadtest.dialects import DIALECTS
from loadtest.script import script

__all__ = [
    "Arrival",
    "Delay",
    "Load",
    "Stream",
    "character_delays",
    "delays",
    "poisson",
    "session",
    "stream_paced",
    "stream_scheduled",
    "stream_unpaced",
]


_SPREAD_SECONDS = 0.5
_STREAMS_PER_SECOND = 256


class Arrival(NamedTuple):
    """At ``time`` the first ``position`` characters had been delivered."""

    time: float
    position: int


class Delay(NamedTuple):
    """How late one token was: seconds from its writing upstream, and how many later tokens had been written by then."""

    sent: float
    seconds: float
    tokens: int


@dataclass(slots=True)
class Stream:
    """One response as the client saw it. ``due``: when its request should begin."""

    due: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    text: str = ""
    ended: float = 0.0
    """When it was whole; 0 for one that failed."""

    @property
    def first_text(self) -> float | None:
        """From ``due`` to the first text."""
        return next((arrival.time - self.due for arrival in self.arrivals if arrival.position), None)


@dataclass(frozen=True)
class Load:
    """What every stream asks for. ``rate``: tokens a second, 0 for as fast as it goes; ``fault``: the mock server's."""

    streams: int
    tokens: int
    rate: float
    planted: bool = False
    fault: str = ""
    dialect: str = "chat"

    @property
    def spread(self) -> float:
        """Seconds over which a closed loop begins its streams, so that their tokens interleave."""
        return max(_SPREAD_SECONDS, self.streams / _STREAMS_PER_SECOND)

    def body(self, seed: int) -> Mapping[str, object]:
        """The request of stream ``seed``."""
        model = f"{'planted' if self.planted else 'prose'}:{self.rate:g}"
        return {
            "model": f"{model}:{self.fault}" if self.fault else model,
            **DIALECTS[self.dialect].prompt,
            "stream": True,
            "max_tokens": self.tokens,
            "seed": seed,
        }


def session() -> aiohttp.ClientSession:
    """A client without limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=30),
        raise_for_status=True,
    )


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrivals of a Poisson process of ``rate`` a second, as seconds from its begin; the same for the same ``seed``."""
    draw, now = random.Random(seed), 0.0  # noqa: S311  # a schedule, no secret
    times = []
    while (now := now + draw.expovariate(rate)) < seconds:
        times.append(now)
    return times


def delays(ends: Sequence[int], sent: Sequence[float], arrivals: Sequence[Arrival]) -> Iterator[Delay]:
    """The delay of each token that arrived. ``ends`` and ``sent``: where each token ends and when it was written."""
    token = written = 0
    for now, position in arrivals:
        while written < len(sent) and sent[written] <= now:
            written += 1
        while token < len(sent) and ends[token] <= position:
            yield Delay(sent[token], now - sent[token], written - 1 - token)
            token += 1


def character_delays(
    ends: Sequence[int], sent: Sequence[float], arrivals: Sequence[Arrival]
) -> Iterator[tuple[float, float, int]]:
    """When a token was written, seconds from then to the arrival of characters of it, and how many these are."""
    token = delivered = 0
    for now, position in arrivals:
        while delivered < position and token < len(sent):
            until = min(position, ends[token])
            if until > delivered:
                yield sent[token], now - sent[token], until - delivered
            delivered = until
            if delivered == ends[token]:
                token += 1


async def stream_paced(client: aiohttp.ClientSession, url: str, load: Load) -> list[Stream]:
    """``load.streams`` responses at once, begun over ``load.spread`` seconds.

    Raises ``ValueError`` when a text without planted values does not arrive as it was written.
    """

    async def one(seed: int) -> Stream:
        await asyncio.sleep(seed / load.streams * load.spread)
        stream = Stream(time.monotonic())
        await _read(client, url, load, seed, stream)
        return stream

    return await asyncio.gather(*map(one, range(load.streams)))


async def stream_scheduled(
    client: aiohttp.ClientSession, url: str, load: Load, offsets: Sequence[float]
) -> list[Stream]:
    """A response for each of ``offsets``, begun that many seconds from now. One that failed has no ``ended``."""
    start = time.monotonic()

    async def one(seed: int, offset: float) -> Stream:
        stream = Stream(start + offset)
        await asyncio.sleep(max(0.0, stream.due - time.monotonic()))
        try:
            await _read(client, url, load, seed, stream)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return stream
        stream.ended = time.monotonic()
        return stream

    return await asyncio.gather(*(one(seed, offset) for seed, offset in enumerate(offsets)))


async def stream_unpaced(client: aiohttp.ClientSession, url: str, load: Load, seconds: float) -> int:
    """Keep ``load.streams`` responses under way for ``seconds``, then let them end. Returns how many there were.

    What arrives is only read to its end, so that the client costs less than any proxy.
    """
    dialect = DIALECTS[load.dialect]
    deadline = time.monotonic() + seconds
    seeds = count()

    async def worker() -> None:
        while time.monotonic() < deadline:
            async with client.post(url + dialect.path, json=load.body(next(seeds))) as response:
                last = b""
                async for data in response.content.iter_any():
                    last = last[-len(dialect.ending) :] + data
                if not last.endswith(dialect.ending):
                    raise ValueError(f"{url} ended a stream early")

    await asyncio.gather(*(worker() for _ in range(load.streams)))
    return next(seeds)


async def _read(client: aiohttp.ClientSession, url: str, load: Load, seed: int, stream: Stream) -> None:
    async for now, text in _texts(client, url, load, seed):
        stream.text += text
        stream.arrivals.append(Arrival(now, len(stream.text)))
    if not load.planted and stream.text != script(load.tokens, planted=False).text:
        raise ValueError(f"{url} altered the text")


async def _texts(client: aiohttp.ClientSession, url: str, load: Load, seed: int) -> AsyncIterator[tuple[float, str]]:
    """The text of each read of the response, reasoning and answer as one, with the time of the read."""
    dialect = DIALECTS[load.dialect]
    async with client.post(url + dialect.path, json=load.body(seed)) as response:
        rest = last = b""
        async for data in response.content.iter_any():
            now = time.monotonic()
            last = last[-len(dialect.ending) :] + data
            *events, rest = (rest + data).split(dialect.separator)
            yield now, "".join(map(dialect.text, events))
        if not last.endswith(dialect.ending):
            raise ValueError(f"{url} ended a stream early")
