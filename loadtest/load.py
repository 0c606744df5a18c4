"""The load generator: many streams at once through one server, and when each token arrived.

A token has arrived when the position of the text delivered has reached its end; which event carried it does not
matter. Times are those of the host's monotonic clock, which the mock server's account uses too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import aiohttp
import orjson

from cotguard.demo.server import QUESTION, SYSTEM_PROMPT
from loadtest.script import script

__all__ = ["Arrival", "Delay", "Load", "Stream", "delays", "session", "stream_paced", "stream_unpaced"]

_MESSAGES = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}]


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
    """One response as the client saw it."""

    arrivals: list[Arrival] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True)
class Load:
    """What every stream asks for. ``rate``: tokens a second, 0 for as fast as it goes."""

    streams: int
    tokens: int
    rate: float
    planted: bool

    def body(self, seed: int) -> Mapping[str, object]:
        """The request of stream ``seed``."""
        return {
            "model": f"{'planted' if self.planted else 'prose'}:{self.rate:g}",
            "messages": _MESSAGES,
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


def delays(ends: Sequence[int], sent: Sequence[float], arrivals: Sequence[Arrival]) -> Iterator[Delay]:
    """The delay of each token that arrived. ``ends`` and ``sent``: where each token ends and when it was written."""
    token = written = 0
    for now, position in arrivals:
        while written < len(sent) and sent[written] <= now:
            written += 1
        while token < len(sent) and ends[token] <= position:
            yield Delay(sent[token], now - sent[token], written - 1 - token)
            token += 1


async def stream_paced(client: aiohttp.ClientSession, url: str, load: Load) -> list[Stream]:
    """``load.streams`` responses at once, begun over half a second so that their tokens interleave.

    Raises ``ValueError`` when a text without planted values does not arrive as it was written.
    """

    async def one(seed: int) -> Stream:
        await asyncio.sleep(seed / load.streams / 2)
        stream = Stream()
        async for now, text in _texts(client, url, load.body(seed)):
            stream.text += text
            stream.arrivals.append(Arrival(now, len(stream.text)))
        if not load.planted and stream.text != script(load.tokens, planted=False).text:
            raise ValueError(f"{url} altered the text")
        return stream

    return await asyncio.gather(*map(one, range(load.streams)))


async def stream_unpaced(client: aiohttp.ClientSession, url: str, load: Load, seconds: float) -> int:
    """Keep ``load.streams`` responses under way for ``seconds``, then let them end. Returns how many there were.

    What arrives is only read to its end, so that the client costs less than any proxy.
    """
    deadline = time.monotonic() + seconds
    seeds = count()

    async def worker() -> None:
        while time.monotonic() < deadline:
            async with client.post(f"{url}/v1/chat/completions", json=load.body(next(seeds))) as response:
                last = b""
                async for data in response.content.iter_any():
                    last = last[-16:] + data
                if not last.endswith(b"data: [DONE]\n\n"):
                    raise ValueError(f"{url} ended a stream early")

    await asyncio.gather(*(worker() for _ in range(load.streams)))
    return next(seeds)


async def _texts(
    client: aiohttp.ClientSession, url: str, body: Mapping[str, object]
) -> AsyncIterator[tuple[float, str]]:
    """The text of each read of the response, reasoning and answer as one, with the time of the read."""
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        rest = last = b""
        async for data in response.content.iter_any():
            now = time.monotonic()
            *events, rest = (rest + data).split(b"\n\n")
            last = events[-1] if events else last
            yield now, "".join(map(_text, events))
        if last != b"data: [DONE]":
            raise ValueError(f"{url} ended a stream early")


def _text(event: bytes) -> str:
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return ""
    [choice] = orjson.loads(data)["choices"]
    delta = choice["delta"]
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "")
