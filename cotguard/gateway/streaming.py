"""A stream under way: read, moderate, write, one read at a time.

1. What one read brought is moderated together and written in one piece. Writing waits for the client (back-pressure);
   while it waits nothing more is read from the upstream.
2. While text is on hold and the upstream is silent, the client gets keep-alive comments; an upstream that is silent for
   too long ends the stream. One sleeping task per stream looks after both: a timeout around every read would cost as
   much as the moderation of an event.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import aiohttp
from aiohttp import web

from cotguard.classifier.handover import handed_over
from cotguard.classifier.inference import Inference
from cotguard.dialects.contract import Translator
from cotguard.gateway.encodings import Decoder
from cotguard.moderation.exchange import Exchange
from cotguard.telemetry.metrics import Metrics

__all__ = ["Pump"]


@dataclass(slots=True)
class Pump:
    """Moves one stream. ``started``: when the request came, on the monotonic clock; ``inference`` answers detectors."""

    upstream: aiohttp.ClientResponse
    decoder: Decoder
    translator: Translator
    exchange: Exchange
    response: web.StreamResponse
    metrics: Metrics
    started: float
    inference: Inference | None = None
    _received: bool = field(default=False, init=False)
    _delivered: bool = field(default=False, init=False)
    _held_since: float | None = field(default=None, init=False)
    _reading_since: float | None = field(default=None, init=False)  # unset while something is written

    async def run(self, *, keep_alive_after: float, idle_timeout: float) -> None:
        """Run until the translator is finished or the upstream's body ends.

        Raises what reading, decoding, moderating and writing raise; ``TimeoutError`` when nothing is read for
        ``idle_timeout`` seconds.
        """
        async with asyncio.timeout(None) as idle:
            watch = asyncio.create_task(self._watch(idle, keep_alive_after, idle_timeout))
            try:
                await self._move()
            finally:
                watch.cancel()

    async def _move(self) -> None:
        translator, exchange, metrics, inference = self.translator, self.exchange, self.metrics, self.inference
        read, write, clock = self.upstream.content.readany, self.response.write, time.monotonic
        now = clock()
        while not translator.finished:
            self._reading_since = now
            data = await read()
            self._reading_since = None
            now = clock()
            if inference is None:
                written = translator.receive(self.decoder.feed(data)) if data else translator.end()
            else:
                moderate = partial(translator.receive, self.decoder.feed(data)) if data else translator.end
                written = await handed_over(moderate, inference)
            if written:
                await write(written)
                read_at, now = now, clock()
                metrics.added.observe(now - read_at)
            if not self._delivered:
                self._note_first(now)
            held = exchange.held
            metrics.held.observe(held)
            if (self._held_since is None) is (held > 0):
                self._note_held(now, held=held > 0)
            if not data:
                return

    def _note_first(self, now: float) -> None:
        """Times to the first text, received and delivered."""
        first_token = self.metrics.first_token
        if not self._received and self.exchange.received:
            self._received = True
            first_token.labels("upstream").observe(now - self.started)
        if self.exchange.delivered:
            self._delivered = True
            first_token.labels("delivered").observe(now - self.started)

    def _note_held(self, now: float, *, held: bool) -> None:
        if self._held_since is not None:
            self.metrics.held_seconds.observe(now - self._held_since)
        self._held_since = now if held else None

    async def _watch(self, idle: asyncio.Timeout, keep_alive_after: float, idle_timeout: float) -> None:
        """Write a comment for every ``keep_alive_after`` seconds of silence with text on hold; let ``idle`` expire."""
        wrote = 0.0
        with suppress(ConnectionError):  # the client is gone: the pump learns it too
            while True:
                now = time.monotonic()
                pause = min(keep_alive_after, idle_timeout)
                if (reading_since := self._reading_since) is not None:
                    left = reading_since + idle_timeout - now
                    if left <= 0:
                        idle.reschedule(asyncio.get_running_loop().time())
                        return
                    pause = min(pause, left)
                    if self.exchange.held:
                        due = max(reading_since, wrote) + keep_alive_after - now
                        if due <= 0:
                            wrote, due = now, keep_alive_after
                            await self.response.write(self.translator.keep_alive())
                        pause = min(pause, due)
                await asyncio.sleep(pause)
