"""The data port: one request in, one exchange, one coroutine.

1. Path, method, query, content type and encoding are checked against small tables; everything else is refused.
2. The dialect reads and rewrites the request; only what it wrote goes upstream.
3. The response's own status and content type choose the way: an error is rebuilt, JSON is moderated whole, an
   event stream is pumped read by read. Anything else fails closed.
4. A client that leaves cancels the handler, which closes the upstream connection.
5. A fault ends the exchange in the dialect's error shape; nothing on hold is written.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from cotguard.classifier.handover import handed_over
from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Dialect, ErrorKind, Incoming, Prepared, Refused, Translator, UpstreamFault
from cotguard.dialects.routes import Match, RefusedRoute, Router, query_of
from cotguard.framing.json import JSONError, dumps
from cotguard.gateway.encodings import Decoder, EncodingError, TooLargeError
from cotguard.gateway.form import written_form
from cotguard.gateway.headers import request_headers, response_headers
from cotguard.gateway.intake import read_incoming, read_json
from cotguard.gateway.sealing import caller_of, key_ring, seals_for, store_of
from cotguard.gateway.settings import Settings
from cotguard.gateway.signing import Signer, Unsigned
from cotguard.gateway.streaming import Pump, Rounds
from cotguard.guard.client import GuardClient
from cotguard.guard.detector import Guard
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.policy import Policy, load
from cotguard.sealing.keyring import KeyRing
from cotguard.sealing.seals import Seals
from cotguard.sealing.store import STORE
from cotguard.telemetry.metrics import METRICS, Metrics

if TYPE_CHECKING:  # and with it numpy, which a gateway without a classifier need not load
    from cotguard.classifier.detector import Classifier
    from cotguard.classifier.inference import Inference
    from cotguard.sealing.redis_store import RedisStore

__all__ = ["GATEWAY", "Gateway", "create_app"]

_LOG = logging.getLogger("cotguard.gateway")
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_CLIENT_GONE = 499  # as nginx logs it; nobody receives it
_FINAL = {"x-should-retry": "false"}  # a retry would run the same generation again
_NO_UPGRADES = (
    "WebSocket upgrades are refused: what is tunnelled through a proxy cannot be moderated. Use the HTTP API."
)
_SHUTTING_DOWN = "The gateway is shutting down."
_INTERRUPTED = "The upstream ended the response early."
_Read = TypeVar("_Read")
_FAILED = "Moderation failed; the rest of the response is not delivered."


class _Failure(NamedTuple):
    status: int
    kind: ErrorKind
    message: str


@dataclass(slots=True)
class _Outgoing:
    """A request to the upstream. ``data`` is emptied once it is sent: a stream lasts longer."""

    url: URL
    headers: dict[str, str] = field(repr=False)
    data: bytes | aiohttp.FormData = field(repr=False)


class Gateway:
    """The handlers and what they share. ``policy``, ``detectors`` and ``keys`` default to what the settings name."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy | None = None,
        detectors: tuple[Detector, ...] | None = None,
        metrics: Metrics = METRICS,
        keys: KeyRing | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy or load(settings.policy)
        self.detectors = (
            build(self.policy, settings.bundle, settings.served, settings.guard) if detectors is None else detectors
        )
        self.metrics = metrics
        self.draining = asyncio.Event()
        served = dialects()
        self._router = Router(served)
        self._default = served[0]  # in whose shape an unknown path is refused
        self._key = settings.hash_key.encode() or secrets.token_bytes(32)
        self._keys = keys or key_ring(settings)
        self._store: RedisStore | None = None
        self._client: aiohttp.ClientSession | None = None
        self._classifier = _classifier(self.detectors)
        self._guard = next((each for each in self.detectors if isinstance(each, Guard)), None)
        self._answerers: dict[str, Inference | GuardClient | RedisStore] = {}
        self._rounds = Rounds()
        self._signer = Signer()
        self._limits: set[asyncio.Timeout] = set()  # of the streams under way
        self._drain_deadline = 0.0
        metrics.policy.labels(self.policy.name, self.policy.digest).set(1)

    @property
    def classifier(self) -> str:
        """Which classifier is in use, in words."""
        if self._classifier is None:
            return "no classifier"
        engine = self._classifier.engine
        return f"classifier {engine.bundle.manifest.name} on {engine.provider.removesuffix('ExecutionProvider')}"

    @property
    def guard(self) -> str:
        """Which guard is in use, in words that follow the classifier's."""
        return "" if self._guard is None else f" and guard {self._guard.form.name}"

    async def start(self) -> None:
        """What needs the running loop: the classifier's threads, connections to its replicas, the guard, the store."""
        settings = self.settings
        if self._classifier is not None:
            self._answerers[self._classifier.name] = _inference(self._classifier, settings, self.metrics)
            engine = self._classifier.engine
            bundle = engine.bundle
            self.metrics.classifier.labels(bundle.manifest.name, bundle.digest, engine.provider).set(1)
        if self._guard is not None:
            self._answerers[self._guard.name] = GuardClient(
                self._guard.form,
                settings.guard_url,
                model=settings.guard_model,
                api_key=settings.guard_api_key,
                deadline=settings.guard_deadline,
                concurrency=settings.guard_concurrency,
                metrics=self.metrics,
            )
        self._store = store_of(settings)
        if self._store is not None:
            self._answerers[STORE] = self._store

    async def ready(self) -> bool:
        """Whether requests can be moderated now."""
        return all(await asyncio.gather(*(answerer.check() for answerer in self._answerers.values())))

    async def client(self) -> aiohttp.ClientSession:
        """The session to the upstream, made in the running loop."""
        if self._client is None:
            settings = self.settings
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                # The limit of silence is the pump's: aiohttp's would set a timer for every read.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._client

    async def close(self) -> None:
        """Close the connections to the upstream; stop what ``start`` started."""
        if self._client is not None:
            await self._client.close()
        for answerer in self._answerers.values():
            await answerer.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request of the data port."""
        dialect = self._default
        try:
            if request.headers.get(hdrs.UPGRADE):
                raise Refused(400, ErrorKind.UNSUPPORTED, _NO_UPGRADES)
            match = self._router.find(request.method, request.rel_url.raw_path)
            dialect = match.dialect
            return await self._route(request, match)
        except Refused as refused:
            if isinstance(refused, RefusedRoute):
                dialect = refused.dialect
            return self._error(dialect, _Failure(refused.status, refused.kind, refused.message), "refused")
        except TooLargeError as error:
            return self._error(dialect, _Failure(413, ErrorKind.TOO_LARGE, str(error)), "refused")
        except EncodingError as error:
            return self._error(dialect, _Failure(415, ErrorKind.UNSUPPORTED, str(error)), "refused")

    async def _route(self, request: web.Request, match: Match) -> web.StreamResponse:
        query = query_of(match.route, request.query)
        if match.route.lookup:
            return await self._lookup(request, match, query)
        if self.draining.is_set():
            raise Refused(503, ErrorKind.SHUTTING_DOWN, _SHUTTING_DOWN)
        incoming = await read_incoming(request, match, query, self.settings.max_request_bytes)
        incoming = replace(incoming, seals=self._seals(request, query))
        try:
            prepared = await self._opened(partial(match.dialect.prepare, incoming))
        except ModerationFault as error:
            return self._error(match.dialect, _failure(error), "failed")
        url = self._url(prepared.upstream or match.upstream, query if prepared.query is None else prepared.query)
        outgoing = await self._outgoing(request, match, url, prepared, incoming.body)
        del incoming  # its body, as the prepared one's: a stream lasts longer
        exchange = Exchange(self.policy, self.detectors, prepared.facts, self._key)
        self.metrics.active.inc()
        try:
            return await self._exchange(request, match.dialect, outgoing, prepared, exchange)
        except asyncio.CancelledError:  # the client left, and took the handler with it
            self._finish(match.dialect, _CLIENT_GONE, "client_gone")
            raise
        finally:
            self.metrics.active.dec()
            self.metrics.account(exchange)

    def _seals(self, request: web.Request, query: Mapping[str, str]) -> Seals | None:
        """Those of the exchange that begins now."""
        if self._keys is None:
            return None
        return seals_for(self._keys, caller_of(request.headers, query), self.settings)

    async def _opened(self, read: Callable[[], _Read]) -> _Read:
        """What ``read`` returns, which may open seals."""
        return read() if self._store is None else await handed_over(read, self._answerers)

    def _url(self, path: str, query: Mapping[str, str]) -> URL:
        return URL(self.settings.upstream + path + ("?" + urlencode(query) if query else ""), encoded=True)

    async def _outgoing(
        self, request: web.Request, match: Match, url: URL, prepared: Prepared, received: bytes
    ) -> _Outgoing:
        """What goes upstream; nothing of it stays in ``prepared``. Raises :class:`Refused`."""
        body = dumps(prepared.document)
        headers = await self._headers(request, match, url, body, received)
        data: bytes | aiohttp.FormData = body
        if prepared.fields is not None:
            data = written_form(prepared.fields, prepared.file)
            del headers[hdrs.CONTENT_TYPE]  # the form has its own, with its boundary
        prepared.document, prepared.file = {}, None
        return _Outgoing(url, headers, data)

    async def _headers(
        self, request: web.Request, match: Match, url: URL, body: bytes, received: bytes
    ) -> dict[str, str]:
        """What goes upstream beside ``body``; ``received`` is what the client sent. Raises :class:`Refused`."""
        headers = request_headers(request.headers)
        if not match.route.signed:
            return headers
        unsigned = Unsigned(match.route.signed, request.method, url, headers, body, body == received)
        client = {name.lower(): value for name, value in request.headers.items()}
        return await asyncio.to_thread(self._signer.headers_of, unsigned, client, request.rel_url.raw_path_qs)

    async def _exchange(
        self,
        request: web.Request,
        dialect: Dialect,
        outgoing: _Outgoing,
        prepared: Prepared,
        exchange: Exchange,
    ) -> web.StreamResponse:
        started = time.monotonic()
        client = await self.client()
        try:
            async with asyncio.timeout(self.settings.first_byte_timeout):
                upstream = await client.post(
                    outgoing.url, data=outgoing.data, headers=outgoing.headers, allow_redirects=False
                )
        except TimeoutError:
            failure = _Failure(504, ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.")
            return self._error(dialect, failure, "failed")
        except aiohttp.ClientError:
            failure = _Failure(502, ErrorKind.UPSTREAM_ERROR, "The upstream cannot be reached.")
            return self._error(dialect, failure, "failed")
        outgoing.data = b""
        try:
            return await self._respond(request, dialect, prepared, exchange, upstream, started)
        finally:
            upstream.close()

    async def _respond(
        self,
        request: web.Request,
        dialect: Dialect,
        prepared: Prepared,
        exchange: Exchange,
        upstream: aiohttp.ClientResponse,
        started: float,
    ) -> web.StreamResponse:
        headers = response_headers(upstream.headers)
        try:
            if upstream.status >= 400:
                body = dialect.upstream_error(upstream.status, await self._whole(upstream))
                self._finish(dialect, upstream.status, "upstream_error")
                return web.Response(status=upstream.status, body=body, headers={**headers, **_json()})
            if upstream.status != 200:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's status is not one that is expected.")
            translator = dialect.stream(prepared, exchange, upstream.content_type)
            if translator is not None:
                return await self._stream(request, dialect, translator, exchange, upstream, started)
            if upstream.content_type != "application/json":
                raise UpstreamFault(
                    ErrorKind.UPSTREAM_INVALID, "The upstream's content type is not one that is expected."
                )
            moderate = partial(dialect.body, await self._whole(upstream), prepared, exchange)
            body = await handed_over(moderate, self._answerers) if self._answerers else moderate()
        except (UpstreamFault, ModerationFault, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            return self._error(dialect, _failure(error), "failed")
        self._finish(dialect, 200, _success(exchange))
        return web.Response(body=body, headers={**headers, **_json()})

    async def _whole(self, upstream: aiohttp.ClientResponse) -> bytes:
        decoder = Decoder(upstream.headers.get(hdrs.CONTENT_ENCODING, ""), self.settings.max_response_bytes)
        body = bytearray()
        while True:
            async with asyncio.timeout(self.settings.idle_timeout):
                data = await upstream.content.readany()
            if not data:
                return bytes(body)
            body += decoder.feed(data)

    async def _stream(
        self,
        request: web.Request,
        dialect: Dialect,
        translator: Translator,
        exchange: Exchange,
        upstream: aiohttp.ClientResponse,
        started: float,
    ) -> web.StreamResponse:
        decoder = Decoder(upstream.headers.get(hdrs.CONTENT_ENCODING, ""), 2**62)
        headers = {**response_headers(upstream.headers), "Content-Type": translator.content_type, **_STREAM_HEADERS}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b"")  # headers now, not with the first text, which may be on hold
        stream = Pump(
            upstream,
            decoder,
            translator,
            exchange,
            request,
            response,
            self.metrics,
            started,
            self._rounds,
            self._answerers,
        )
        failed = False
        try:
            async with self._until_drained():
                await stream.run(
                    keep_alive_after=self.settings.keep_alive_after, idle_timeout=self.settings.idle_timeout
                )
        except ConnectionResetError:  # the client's: the upstream's end is a ClientPayloadError
            self._finish(dialect, _CLIENT_GONE, "client_gone")
            return response
        except (UpstreamFault, ModerationFault, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            failure, failed = _failure(error), True
            self._count_failure(failure)
            await response.write(translator.fail(failure.kind, failure.message))
        self._finish(dialect, 200, "failed" if failed else _success(exchange))
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _lookup(self, request: web.Request, match: Match, query: Mapping[str, str]) -> web.Response:
        """A question whose answer holds no generated text."""
        dialect, client = match.dialect, await self.client()
        posted = request.method == hdrs.METH_POST
        received = await read_json(request, self.settings.max_request_bytes) if posted else None
        data: bytes | None = None
        if received is not None:
            asked = Incoming(match.route, match.parameters, query, received, seals=self._seals(request, query))
            try:
                data = dumps(await self._opened(partial(dialect.question, asked)))
            except ModerationFault as error:
                return self._error(dialect, _failure(error), "failed")
        url = self._url(match.upstream, query)
        headers = await self._headers(request, match, url, data or b"", received or b"")
        try:
            async with asyncio.timeout(self.settings.first_byte_timeout):
                async with client.request(
                    request.method,
                    url,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                ) as upstream:
                    body = await self._whole(upstream)
                    if upstream.status >= 400:
                        self._finish(dialect, upstream.status, "upstream_error")
                        body = dialect.upstream_error(upstream.status, body)
                        return web.Response(status=upstream.status, body=body, headers=_json())
                    if upstream.status != 200 or upstream.content_type != "application/json":
                        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream did not answer the lookup.")
                    body = dialect.lookup(body, match.route.action)
        except (UpstreamFault, JSONError, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            return self._error(dialect, _failure(error), "failed")
        self._finish(dialect, 200, "ok")
        return web.Response(body=body, headers=_json())

    @asynccontextmanager
    async def _until_drained(self) -> AsyncIterator[None]:
        """No limit, until a drain sets one. Raises :class:`UpstreamFault` when it is over."""
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                if self.draining.is_set():
                    limit.reschedule(self._drain_deadline)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamFault(ErrorKind.SHUTTING_DOWN, _SHUTTING_DOWN) from None
        finally:
            self._limits.discard(limit)

    def drain(self) -> None:
        """Take no more requests; streams under way may go on until the drain timeout."""
        self._drain_deadline = asyncio.get_running_loop().time() + self.settings.drain_timeout
        self.draining.set()
        for limit in self._limits:
            limit.reschedule(self._drain_deadline)

    def _error(self, dialect: Dialect, failure: _Failure, outcome: str) -> web.Response:
        if outcome == "failed":
            self._count_failure(failure)
        self._finish(dialect, failure.status, outcome)
        body = dialect.error(failure.kind, failure.message)
        return web.Response(status=failure.status, body=body, headers={**_json(), **_FINAL})

    def _count_failure(self, failure: _Failure) -> None:
        self.metrics.failures.labels(failure.kind, "closed").inc()
        _LOG.warning("exchange failed closed kind=%s", failure.kind)

    def _finish(self, dialect: Dialect, status: int, outcome: str) -> None:
        self.metrics.requests.labels(dialect.name, str(status), outcome).inc()


def _inference(classifier: "Classifier", settings: Settings, metrics: Metrics) -> "Inference":
    """Who answers the classifier: threads of this process, or replicas elsewhere."""
    from cotguard.classifier.inference import Inference, Threads
    from cotguard.classifier.remote.replicas import Replicas

    judge = (
        Threads(classifier.engine, settings.classifier_threads)
        if settings.served is None
        else Replicas(classifier, settings.served, metrics)
    )
    return Inference(judge, deadline=settings.classifier_deadline, metrics=metrics)


def _classifier(detectors: tuple[Detector, ...]) -> "Classifier | None":
    """The classifier among them. Its module is loaded only if it is there."""
    if all(each.name != "classifier" for each in detectors):
        return None
    from cotguard.classifier.detector import Classifier

    return next((each for each in detectors if isinstance(each, Classifier)), None)


def _json() -> dict[str, str]:
    return {"Content-Type": "application/json", "Cache-Control": "no-store"}


def _success(exchange: Exchange) -> str:
    """The outcome of an exchange that went on to its end: that of one that was not all moderated has its own name."""
    return "failed_open" if exchange.bypassed else "ok"


def _failure(error: Exception) -> _Failure:
    """How a fault is told to the client: constant text only."""
    if isinstance(error, UpstreamFault):
        return _Failure(502, error.kind, error.message)
    if isinstance(error, ModerationFault):
        return _Failure(500, ErrorKind.MODERATION_FAILED, _FAILED)
    if isinstance(error, TimeoutError):
        return _Failure(504, ErrorKind.UPSTREAM_TIMEOUT, "The upstream was silent for too long.")
    if isinstance(error, EncodingError | JSONError):
        return _Failure(502, ErrorKind.UPSTREAM_INVALID, "The upstream's body could not be decoded.")
    return _Failure(502, ErrorKind.UPSTREAM_INTERRUPTED, _INTERRUPTED)


GATEWAY = web.AppKey("gateway", Gateway)


def create_app(settings: Settings, gateway: Gateway | None = None) -> web.Application:
    """The data port as an application; ``app[GATEWAY]`` is the gateway."""
    gateway = gateway or Gateway(settings)
    # Bodies are limited by Gateway._body, decoded; the framework's limit would apply to encoded ones.
    app = web.Application(client_max_size=0)
    app[GATEWAY] = gateway
    app.router.add_route("*", "/{path:.*}", gateway.handle)

    async def on_startup(_app: web.Application) -> None:
        await gateway.start()

    async def on_cleanup(_app: web.Application) -> None:
        await gateway.close()

    app.on_startup.append(on_startup)
    app.on_cleanup.append(on_cleanup)
    return app
