"""A stream under way: what one turn of the event loop brought is moderated together and written in one piece.

1. What is read goes to the moderation in the same turn of the event loop, and what is decided to the client's
   connection, without a task in between: waking one for every event would cost as much as the rest. What several
   streams brought in one turn is first moderated, then written: behind a system call the caches hold the kernel's
   code and data, and the next stream's moderation takes twice its time.
2. Where somebody must be waited for - the client takes nothing more, a detector asks a model -, the stream's
   task goes on with the matter. What is read meanwhile queues up, and nothing more is read than ``MAX_QUEUED_BYTES``.
3. While text is on hold and the upstream is silent, the client gets keep-alive comments; an upstream that is silent for
   too long ends the stream, and so does a client that takes nothing for too long while output waits for it. One
   sleeping task per stream looks after all of it: a timeout around every read would cost as much as the moderation of
   an event.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import aiohttp
from aiohttp import web

from cotguard.classifier.handover import Answerers, Handover
from cotguard.dialects.contract import Translator, Undelivered
from cotguard.http.body import Body
from cotguard.http.encodings import Decoder
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.verdict import Journal
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import current

__all__ = ["MAX_QUEUED_BYTES", "Pump", "Rounds"]

MAX_QUEUED_BYTES = 64 * 1024
"""Bytes of a stream that wait to be moderated before the upstream is no longer read; one read may go beyond."""

_ROUND_SECONDS = 0.001
"""How long streams are moderated before what they released is written."""

_TURN_SECONDS = 0.02
"""How long they go on before the event loop has its turn."""


class Rounds:
    """The streams of one event loop that have something to moderate: moderated together, then written together.

    They take ``_TURN_SECONDS`` at a time: timers, and who else waits for the loop, have their turn in between.
    """

    __slots__ = ("_due", "_running")

    def __init__(self) -> None:
        self._due: deque[Pump] = deque()
        self._running = False

    def add(self, pump: "Pump") -> None:
        """Moderate ``pump`` behind what else this turn of the loop reads."""
        self._due.append(pump)
        self._go_on()

    def _go_on(self) -> None:
        if self._due and not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        began = now = time.monotonic()
        moderated: list[Pump] = []
        for _ in range(len(self._due)):  # those that are added meanwhile are of the next turn
            pump = self._due.popleft()
            pump.moderate(began)
            moderated.append(pump)
            if time.monotonic() - now > _ROUND_SECONDS:
                now = self._write(moderated)
                if now - began > _TURN_SECONDS:
                    break
        self._write(moderated)
        self._running = False
        self._go_on()

    def _write(self, moderated: "list[Pump]") -> float:
        for pump in moderated:
            pump.deliver()
        moderated.clear()
        return time.monotonic()


class Pump:
    """Moves one stream. ``started``: when the request came, on the monotonic clock; ``answerers`` answer detectors.

    ``response`` is the prepared response to ``request``, its headers written. Pumps of one event loop share ``rounds``.
    ``record`` is awaited before what follows from decisions in ``journal`` is written, and before a stream's last bytes
    are, which it is told: a client that has them must be able to rely on the record of its exchange.
    """

    def __init__(
        self,
        upstream: aiohttp.ClientResponse,
        decoder: Decoder,
        translator: Translator,
        exchange: Exchange,
        request: web.Request,
        response: web.StreamResponse,
        metrics: Metrics,
        started: float,
        rounds: Rounds,
        answerers: Answerers,
        journal: Journal | None,
        record: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._decoder = decoder
        self._translator = translator
        self._exchange = exchange
        self._transport = request.transport
        self._protocol = request.protocol
        self._writer = request.writer
        self._response = response
        self._metrics = metrics
        self._trace = current()
        self._started = started
        self._rounds = rounds
        self._answerers = answerers
        self._journal = journal
        self._record = record
        self._body = Body(upstream, self._arrived, self._upstream_ended)
        self._chunked: bool = self._writer.chunked  # type: ignore[attr-defined]  # of the one writer there is
        self._queue: list[bytes] = []  # read, not yet moderated
        self._queued = 0
        self._due = False  # in the rounds, or waited for
        self._written: bytes | None = None  # moderated, not yet delivered
        self._unrecorded = False  # what it follows from
        self._ended = False  # the upstream's body, by `_end`
        self._end: BaseException | None = None
        self._over = False
        self._fault: Exception | None = None
        self._asking: Handover[bytes] | None = None  # stopped where a detector asks
        self._waiting = asyncio.Event()  # for `_wait` to go on with
        self._read_at = 0.0  # of what is moderated
        self._received = False
        self._delivered = False
        self._began = False  # something was written, if only an event without text
        self._held_since: float | None = None
        self._untaken = 0  # bytes that waited for the client when the watch last looked
        self._taken_at = 0.0  # when they were seen to become fewer
        self.client_slow = False
        """Whether the client took nothing for too long, and its connection was aborted."""

    @property
    def undelivered(self) -> Undelivered:
        """What of the translator's bytes the client did not get, when ``run`` has raised."""
        if self._written is None:
            return Undelivered.NOTHING
        return Undelivered.LAST if self._began else Undelivered.ALL

    @property
    def _last(self) -> bool:
        """Whether what is written next ends the stream."""
        return self._over or self._translator.finished

    async def run(self, *, keep_alive_after: float, idle_timeout: float, client_timeout: float) -> None:
        """Run until the translator is finished or the upstream's body ends.

        Raises what reading, decoding, moderating and writing raise; ``TimeoutError`` when nothing is read for
        ``idle_timeout`` seconds; ``ConnectionResetError`` when the client takes nothing for ``client_timeout`` seconds
        while output waits, at most ``keep_alive_after`` later.
        """
        self._read_at = time.monotonic()
        try:
            async with asyncio.timeout(None) as limit:
                patience = partial(self._patience, idle_timeout, client_timeout)
                watch = asyncio.create_task(self._watch(limit, patience, keep_alive_after))
                try:
                    self._body.start()
                    await self._wait()
                finally:
                    self._over = True
                    self._body.close()
                    watch.cancel()
                    if self._asking is not None:
                        self._asking.close()
        except TimeoutError:
            if not self.client_slow:
                raise
            if self._transport is not None:
                self._transport.abort()  # to close it would wait for the client
            raise ConnectionResetError("the client took nothing for too long") from None

    def _arrived(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)
        if not self._due:
            self._due = True
            self._rounds.add(self)
        elif self._queued > MAX_QUEUED_BYTES:
            self._body.pause()

    def _upstream_ended(self, error: BaseException | None) -> None:
        self._ended, self._end = True, error
        if not self._due:
            self._due = True
            self._rounds.add(self)

    def moderate(self, now: float) -> None:
        """Moderate what is queued, or else the end. What must be waited for, and faults, are left to ``run``."""
        if self._over:
            return
        self._read_at = now
        try:
            self._moderate()
        except Exception as fault:
            self._fault = fault
            self._waiting.set()
        else:
            if self._written is not None and self._journal is not None and (self._journal.decisions or self._last):
                self._unrecorded = True
                self._waiting.set()

    def _moderate(self) -> None:
        moderate: Callable[[], bytes]
        if self._queue:
            data = self._queue[0] if len(self._queue) == 1 else b"".join(self._queue)
            self._queue.clear()
            self._queued = 0
            if not self._decoder.identity:
                data = self._decoder.feed(data)
            if not self._answerers:
                self._written = self._translator.receive(data)
                return
            moderate = partial(self._translator.receive, data)
        elif self._end is not None:
            raise self._end
        else:
            self._over = True
            moderate = self._translator.end
        if not self._answerers:
            self._written = moderate()
            return
        call = Handover(moderate)
        if call.waits:
            self._asking = call
            self._waiting.set()
        else:
            self._written = call.result

    def deliver(self) -> None:
        """Write what was moderated, unless something must be waited for; then go on with what came meanwhile."""
        if self._unrecorded:
            return
        written, self._written = self._written, None
        if written is None:
            return
        try:
            goes_on = self._deliver(written)
        except Exception as fault:
            self._fault = fault
            self._waiting.set()
            return
        if goes_on:
            self._go_on()

    def _go_on(self) -> None:
        if self._queue or self._ended:
            self._rounds.add(self)
        else:
            self._due = False
            self._body.resume()

    def _deliver(self, written: bytes) -> bool:
        """Returns whether the stream goes on without waiting for anybody."""
        if written:
            transport = self._transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            self._began = True
            transport.write(b"%x\r\n%b\r\n" % (len(written), written) if self._chunked else written)
            self._metrics.added.observe(time.monotonic() - self._read_at, self._trace.trace_id)
        if not self._delivered:
            self._note_first(self._read_at)
        held = self._exchange.held
        self._metrics.held.observe(held)
        if (self._held_since is None) is (held > 0):
            self._note_held(self._read_at, held=held > 0)
        self._over = self._over or self._translator.finished
        if self._over or self._protocol.writing_paused:
            self._waiting.set()
            return False
        return True

    async def _wait(self) -> None:
        """Go on with what must be waited for, until the stream is over."""
        while True:
            await self._waiting.wait()
            if self._fault is not None:
                raise self._fault
            if self._asking is not None:
                asking, self._asking = self._asking, None
                self._written = await asking.finish(self._answerers)
            if self._written is not None:
                await self._record(self._last)
                self._unrecorded = False
                written, self._written = self._written, None
                self._deliver(written)
            await self._writer.drain()
            self._untaken = 0
            if self._over:
                return
            self._waiting.clear()
            self._go_on()

    def _note_first(self, now: float) -> None:
        """Times to the first text, received and delivered."""
        first_token = self._metrics.first_token
        if not self._received and self._exchange.received:
            self._received = True
            first_token.labels("upstream").observe(now - self._started, self._trace.exemplar)
        if self._exchange.delivered:
            self._delivered = True
            first_token.labels("delivered").observe(now - self._started, self._trace.exemplar)

    def _note_held(self, now: float, *, held: bool) -> None:
        if self._held_since is not None:
            self._metrics.held_seconds.observe(now - self._held_since, self._trace.exemplar)
        self._held_since = now if held else None

    async def _watch(self, limit: asyncio.Timeout, patience: Callable[[float], float], keep_alive_after: float) -> None:
        """Write a comment for every ``keep_alive_after`` seconds of silence with text on hold; let ``limit`` expire."""
        wrote = 0.0
        with suppress(ConnectionError):  # the client is gone: the pump learns it too
            while True:
                now = time.monotonic()
                left = patience(now)
                if left <= 0:
                    limit.reschedule(asyncio.get_running_loop().time())
                    return
                pause = min(keep_alive_after, left)
                if self._exchange.held and not self._due:
                    due = max(self._read_at, wrote) + keep_alive_after - now
                    if due <= 0:
                        wrote, due = now, keep_alive_after
                        await self._response.write(self._translator.keep_alive())
                    pause = min(pause, due)
                await asyncio.sleep(pause)

    def _patience(self, idle_timeout: float, client_timeout: float, now: float) -> float:
        """Seconds to wait on for whom is waited for: the client, if it takes nothing, or else the upstream."""
        if self._transport is not None and self._protocol.writing_paused:
            waits = self._transport.get_write_buffer_size()
            if not 0 < self._untaken <= waits:
                self._taken_at = now
            self._untaken = waits
            left = self._taken_at + client_timeout - now
            self.client_slow = left <= 0
            return left
        return idle_timeout if self._due else self._read_at + idle_timeout - now
