"""A pool of servers that serve the same models: a request goes to one of them.

1. :mod:`cotguard.upstreams.balancing` chooses. Where all are full the request waits in line, first come, first served.
2. Where there is no connection, nothing was sent: the request goes to another server, as often as ``retries`` says.
   Once a byte was sent it goes nowhere else, whatever happens: the server may be generating already.
3. What became of it is told to the server's breaker. No connection, no answer, none in time, and the statuses 502, 503
   and 504 are failures. A status of 500 is none: a client can bring about one, and would take servers from others.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum

import aiohttp
from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError

from cotguard.http.body import interrupted
from cotguard.http.encodings import Decoder
from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.balancing import Balancer, Slot
from cotguard.upstreams.document import PoolDocument
from cotguard.upstreams.errors import (
    AllDownError,
    AllFullError,
    NoAnswerError,
    NotConnectedError,
    PoolError,
    ServerError,
    TooSlowError,
)
from cotguard.upstreams.outbound import Credentials, Outgoing
from cotguard.upstreams.server import Server

__all__ = ["Answer", "Outcome", "Pool"]

_UNAVAILABLE = frozenset({502, 503, 504})


class Outcome(StrEnum):
    """What became of a request to a server. The value is a metric's label."""

    ANSWERED = "answered"
    UNAVAILABLE = "unavailable"  # it said so
    NOT_CONNECTED = "not_connected"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"  # the client left before the answer


_REASONS: Mapping[type[PoolError], str] = {AllDownError: "down", AllFullError: "full"}
_OUTCOMES: Mapping[type[ServerError], Outcome] = {
    NotConnectedError: Outcome.NOT_CONNECTED,
    NoAnswerError: Outcome.NO_ANSWER,
    TooSlowError: Outcome.TIMEOUT,
}


class Answer:
    """A response whose status line is there. Until it is closed, once, it counts as a request at its server."""

    def __init__(self, response: aiohttp.ClientResponse, slot: Slot[Server], idle_timeout: float) -> None:
        self.response = response
        self.server = slot.member.label
        self.idle_timeout = idle_timeout
        """Longest silence that its body may have, in seconds."""
        self._slot = slot

    async def whole(self, limit: int) -> bytes:
        """The whole body, decoded, of at most ``limit`` bytes.

        Raises ``TimeoutError``, ``aiohttp.ClientError`` and :class:`~cotguard.http.encodings.EncodingError`.
        """
        decoder = Decoder(self.response.headers.get(hdrs.CONTENT_ENCODING, ""), limit)
        body = bytearray()
        while True:
            try:
                async with asyncio.timeout(self.idle_timeout):
                    data = await self.response.content.readany()
            except HttpProcessingError as error:
                raise interrupted(error) from None
            if not data:
                return bytes(body)
            body += decoder.feed(data)

    def close(self) -> None:
        """The request is over. A connection whose body was not read to its end is closed."""
        self.response.close()
        self._slot.end()


class Pool:
    """See the module. ``servers`` have weights; other pools, of older or newer documents, may use them too."""

    def __init__(
        self,
        name: str,
        document: PoolDocument,
        servers: Mapping[Server, int],
        credentials: Credentials,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.credentials = credentials
        self._document = document
        self._servers = servers
        # In any order, so that gateways and workers that start together do not all begin with the same server.
        order = random.sample(list(servers.items()), len(servers))
        self._balancer = Balancer(dict(order), document.concurrency)
        self._metrics = metrics
        self._line: dict[asyncio.Future[Slot[Server]], set[Server]] = {}  # who waits, and what was tried for him

    async def send(self, method: str, make: Callable[[str], Awaitable[Outgoing]]) -> Answer:
        """The answer of one of the servers; ``make`` is given the URL of the one to ask, for each that is tried.

        Raises :class:`~cotguard.upstreams.errors.PoolError`, and what ``make`` raises.
        """
        tried: set[Server] = set()
        deadline = asyncio.get_running_loop().time() + self._document.queue_timeout
        for left in range(self._document.retries, -1, -1):
            slot = await self._slot(tried, deadline)
            try:
                return await self._ask(slot, method, await make(slot.member.base))
            except BaseException as error:
                slot.end()
                if not (isinstance(error, NotConnectedError) and left):
                    raise
            tried.add(slot.member)
            self._metrics.upstream_retries.labels(self.name).inc()
        raise AssertionError  # the last attempt returns or raises

    async def _ask(self, slot: Slot[Server], method: str, outgoing: Outgoing) -> Answer:
        server, loop, outcome = slot.member, asyncio.get_running_loop(), Outcome.CANCELLED
        began = loop.time()
        try:
            response = await server.ask(method, outgoing, self._document.first_byte_timeout)
            outcome = Outcome.UNAVAILABLE if response.status in _UNAVAILABLE else Outcome.ANSWERED
        except ServerError as error:
            outcome = _OUTCOMES[type(error)]
            raise
        finally:
            self._metrics.upstream_requests.labels(self.name, server.label, outcome).inc()
            if outcome is Outcome.ANSWERED:
                slot.succeeded()
            elif outcome is not Outcome.CANCELLED:
                slot.failed(loop.time())
        self._metrics.upstream_first_byte.labels(self.name, server.label).observe(loop.time() - began)
        return Answer(response, slot, self._document.idle_timeout)

    async def _slot(self, tried: set[Server], deadline: float) -> Slot[Server]:
        """A place at a server, when it is this request's turn. Raises :class:`PoolError`."""
        try:
            self._advance()
            with suppress(AllFullError):
                return self._begin(tried)
            return await self._in_line(tried, deadline)
        except (AllDownError, AllFullError) as error:
            self._metrics.upstream_unserved.labels(self.name, _REASONS[type(error)]).inc()
            raise

    def _begin(self, tried: set[Server]) -> Slot[Server]:
        return self._balancer.choose(asyncio.get_running_loop().time(), tried).begin()

    async def _in_line(self, tried: set[Server], deadline: float) -> Slot[Server]:
        if len(self._line) >= self._document.max_waiting:
            raise AllFullError
        turn: asyncio.Future[Slot[Server]] = asyncio.get_running_loop().create_future()
        self._line[turn] = tried
        for server in self._servers:
            server.waiting.add(self._advance)
        self._metrics.upstream_waiting.labels(self.name).inc()
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                turn.result().end()
            if isinstance(error, TimeoutError):
                raise AllFullError from None
            raise
        finally:
            self._metrics.upstream_waiting.labels(self.name).dec()
            self._line.pop(turn, None)
            if not self._line:
                for server in self._servers:
                    server.waiting.discard(self._advance)

    def _advance(self) -> None:
        """Give what has become free to those in front of the line."""
        for turn, tried in tuple(self._line.items()):
            if not turn.done():  # else it is about to leave the line
                try:
                    turn.set_result(self._begin(tried))
                except (AllDownError, AllFullError):
                    return
            del self._line[turn]
