"""One model server: connections to it, what it makes of a request, and whether it is well.

It is made by a document and lives until a document no longer has it; then it is retired: what is under way there goes
on, and its connections are closed when the last of it is over.

Nothing is ever sent twice. aiohttp repeats a GET where a connection that was kept open turns out to be closed; the
server may have read it, so that is turned off here. Only what its connector raises says that nothing was sent:
``ClientConnectorError`` (name, socket, TLS) and ``ConnectionTimeoutError``.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import Callable
from functools import partial

import aiohttp
from yarl import URL

from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.balancing import Member
from cotguard.upstreams.breaker import Breaker, State
from cotguard.upstreams.connections import TCPConnections, UnixConnections
from cotguard.upstreams.document import Connecting, HealthDocument, ServerDocument
from cotguard.upstreams.errors import NoAnswerError, NotConnectedError, TooSlowError
from cotguard.upstreams.health import watch
from cotguard.upstreams.outbound import Outgoing

__all__ = ["Server"]

_LOG = logging.getLogger("cotguard.upstreams")
_KEEP_ALIVE = 30


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide from aiohttp's client that a request may have been sent in vain, so that it sends none again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise NoAnswerError from None


class Server(Member):
    """See the module. ``connecting``: what it is made by; ``context``: of TLS, aiohttp's own where there is none."""

    def __init__(
        self,
        pool: str,
        document: ServerDocument,
        connecting: Connecting,
        context: ssl.SSLContext | None,
        metrics: Metrics,
    ) -> None:
        breaker = connecting.breaker
        super().__init__(Breaker(breaker.failures, breaker.pause) if breaker else Breaker(math.inf, 0))
        self.pool = pool
        self.label = document.label
        self.base = document.base
        self.waiting = set[Callable[[], None]]()  # called when it may have become free
        self._origin = URL(self.base).origin()
        self._socket = document.socket
        self._connecting = connecting
        self._context = context
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._retired = False
        self._breaker_closed = True  # as was logged last

    def start(self) -> None:
        """Begin health checks, if there are to be any."""
        health = self._connecting.health
        if health is not None and self._watch is None:
            self._watch = asyncio.create_task(watch(partial(self._check, health), self._judged, health.every))

    def retire(self) -> None:
        """Take leave of it: no checks, no more gauges; connections are closed when nothing is under way."""
        self._retired = True
        if self._watch is not None:
            self._watch.cancel()
        self.changed()

    async def close(self) -> None:
        """Stop everything."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._closing is not None:
            await self._closing
        if self._session is not None:
            await self._session.close()

    def changed(self) -> None:
        for advance in self.waiting:  # soon: they may be those who change it
            asyncio.get_running_loop().call_soon(advance)
        if self._retired:
            if not self.outstanding and self._session is not None:
                self._closing = asyncio.create_task(self._session.close())
                self._session = None
            return
        self._log_breaker()
        self._metrics.upstream_up.labels(self.pool, self.label).set(self.healthy)
        self._metrics.upstream_outstanding.labels(self.pool, self.label).set(self.outstanding)
        for state in State:
            self._metrics.upstream_breaker.labels(self.pool, self.label, state).set(state is self.breaker.state)

    async def ask(self, method: str, outgoing: Outgoing, seconds: float) -> aiohttp.ClientResponse:
        """The response, when its status line is there.

        Raises :class:`NotConnectedError`, after which nothing was sent, :class:`NoAnswerError` and, after ``seconds``,
        :class:`TooSlowError`.
        """
        if outgoing.url.origin() != self._origin:
            raise ValueError("a request goes to the server that was chosen, and to no other")
        try:
            async with asyncio.timeout(seconds):
                return await self._opened().request(
                    method, outgoing.url, data=outgoing.data, headers=outgoing.headers, allow_redirects=False
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self._metrics.upstream_connect_failures.labels(self.pool, self.label, _kind(error)).inc()
            raise NotConnectedError from None
        except TimeoutError:
            raise TooSlowError from None
        except (aiohttp.ClientError, OSError):
            raise NoAnswerError from None

    async def _check(self, health: HealthDocument) -> str:
        """What is wrong with it."""
        try:
            async with asyncio.timeout(health.timeout):
                url = URL(self.base + health.path, encoded=True)
                async with self._opened().get(url, allow_redirects=False) as response:
                    return "" if 200 <= response.status < 300 else f"status {response.status}"
        except Exception as error:  # whatever it is, it is not well
            return type(error).__name__

    def _judged(self, wrong: str) -> None:
        if self.healthy == (not wrong):
            return
        self.healthy = not wrong
        if wrong:
            _LOG.warning("server out", extra={"pool": self.pool, "server": self.label, "reason": wrong})
        else:
            _LOG.info("server in", extra={"pool": self.pool, "server": self.label})
        self.changed()

    def _log_breaker(self) -> None:
        closed = self.breaker.state is State.CLOSED
        if closed != self._breaker_closed:
            self._breaker_closed = closed
            if closed:
                _LOG.info("breaker closed", extra={"pool": self.pool, "server": self.label})
            else:
                _LOG.warning("breaker open", extra={"pool": self.pool, "server": self.label})

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made in the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                # The limit of silence is the pump's: aiohttp's would set a timer for every read.
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connecting.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                middlewares=(_once,),
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket:
            return UnixConnections(self._socket, limit=0, keepalive_timeout=_KEEP_ALIVE)
        return TCPConnections(limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=self._context or True)


def _kind(error: aiohttp.ClientError) -> str:
    """Why there was no connection, as the metric tells it."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "timeout"
    return "socket"
