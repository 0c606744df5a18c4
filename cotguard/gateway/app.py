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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import aiohttp
from aiohttp import hdrs, web

from cotguard.callers.caller import Caller, models_of
from cotguard.callers.credentials import PARAMETER
from cotguard.callers.denied import Denied
from cotguard.callers.limits import Lease, tokens_in
from cotguard.callers.reception import Reception
from cotguard.classifier.handover import Overloaded, handed_over, pause
from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Dialect, ErrorKind, Incoming, Prepared, Refused, Translator, UpstreamFault
from cotguard.dialects.definitions import Tool
from cotguard.dialects.routes import Match, RefusedRoute, Router, query_of
from cotguard.framing.json import JSONError, dumps
from cotguard.gateway.admission import Admission
from cotguard.gateway.answerers import Staff
from cotguard.gateway.encodings import Decoder, EncodingError, TooLargeError
from cotguard.gateway.form import written_form
from cotguard.gateway.headers import lower, response_headers
from cotguard.gateway.intake import read_incoming, read_json
from cotguard.gateway.moderations import Moderation, load_roles, with_detectors
from cotguard.gateway.outgoing import Outgoing, Unmoderated, moderate
from cotguard.gateway.pinning import Pins, PinsError
from cotguard.gateway.sealing import key_ring, seals_for
from cotguard.gateway.settings import Settings
from cotguard.gateway.signing import Unsigned
from cotguard.gateway.streaming import Pump, Rounds, SlowClientError
from cotguard.gateway.upstream import Upstream
from cotguard.moderation.exchange import Exchange, ExchangeTooLarge, ModerationFault
from cotguard.moderation.request import Findings
from cotguard.policy import Policy, load
from cotguard.sealing.keyring import KeyRing
from cotguard.sealing.seals import Seals
from cotguard.spans import Action, ChannelKind
from cotguard.telemetry.metrics import METRICS, Metrics

__all__ = ["GATEWAY", "Gateway", "create_app"]

_LOG = logging.getLogger("cotguard.gateway")
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_CLIENT_GONE = 499  # as nginx logs it; nobody receives it
_FINAL = {"x-should-retry": "false"}  # a retry would run the same generation again
_MAX_WAIT = 60
"""Seconds after which a client may try a refused request again by itself: its user waits meanwhile."""
_NO_UPGRADES = (
    "WebSocket upgrades are refused: what is tunnelled through a proxy cannot be moderated. Use the HTTP API."
)
_SHUTTING_DOWN = "The gateway is shutting down."
_INTERRUPTED = "The upstream ended the response early."
_Read = TypeVar("_Read")
_BUSY = "The gateway has too much to moderate."
_TOO_LARGE = "The response takes more memory than is allowed; the rest of it is not delivered."
_FAILED = "Moderation failed; the rest of the response is not delivered."


class _Failure(NamedTuple):
    status: int
    kind: ErrorKind
    message: str


class Gateway:
    """The handlers and what they share. Not to be forked.

    ``policy``, ``detectors``, ``roles`` (policies by the name that roles give them) and ``keys`` (of seals) default to
    what the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy | None = None,
        detectors: tuple[Detector, ...] | None = None,
        metrics: Metrics = METRICS,
        *,
        roles: Mapping[str, Moderation] | None = None,
        keys: KeyRing | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy or load(settings.policy)
        self.detectors = with_detectors(self.policy, settings).detectors if detectors is None else detectors
        roles = load_roles(settings, self.detectors) if roles is None else roles
        self._moderations = {"": Moderation(self.policy, self.detectors), **roles}  # by what callers' scopes name
        self.metrics = metrics
        self._findings = {name: Findings(*each, pause) for name, each in self._moderations.items()}
        self.leaving = False
        self._draining = False
        self._admission = Admission(settings.max_exchanges, settings.max_waiting, settings.queue_timeout, metrics)
        served = dialects()
        self._router = Router(served)
        self._default = served[0]  # in whose shape an unknown path is refused
        self._key = settings.hash_key.encode() or secrets.token_bytes(32)
        self._keys = keys or key_ring(settings)
        self._upstream = Upstream(settings)
        self._reception = Reception(settings.callers, settings.keys, settings.limits_url)
        all_detectors = [detector for each in self._moderations.values() for detector in each.detectors]
        self.staff = Staff(settings, all_detectors, metrics)
        self._rounds = Rounds()
        self._pins = Pins(settings.pins_file)
        self._limits: set[asyncio.Timeout] = set()  # of the streams under way
        self._drain_deadline = 0.0
        for each in self._moderations.values():
            metrics.policy.labels(each.policy.name, each.policy.digest).set(1)

    async def start(self) -> None:
        """What needs the running loop."""
        await self.staff.start()

    async def close(self) -> None:
        """Close the connections to the upstream; stop what ``start`` started."""
        await self._upstream.close()
        await self.staff.close()
        await self._reception.close()
        self._pins.close()

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
            return self._refuse(dialect, refused)
        except Denied as denied:
            self.metrics.denied.labels(denied.reason).inc()
            return self._refuse(dialect, denied.refused)
        except ModerationFault as fault:  # before the upstream was asked
            return self._error(dialect, _failure(fault), "failed")
        except TooLargeError as error:
            return self._error(dialect, _Failure(413, ErrorKind.TOO_LARGE, str(error)), "refused")
        except EncodingError as error:
            return self._error(dialect, _Failure(415, ErrorKind.UNSUPPORTED, str(error)), "refused")

    async def _route(self, request: web.Request, match: Match) -> web.StreamResponse:
        told = lower(request.headers)
        if PARAMETER in request.query:
            told.setdefault("x-goog-api-key", request.query[PARAMETER])
        caller = await self._reception.caller(told)
        caller.scope.check_route(match.path, match.dialect.name)
        query = query_of(match.route, request.query)
        if self.settings.replaces_credentials:
            query = {name: value for name, value in query.items() if name != PARAMETER}
        if match.route.lookup:
            lease = await self._admitted(caller, 0)
            try:
                async with self._place(caller):
                    return await self._lookup(request, match, query, caller)
            finally:
                if lease is not None:
                    await lease.end(0)
        settings = self.settings
        incoming = await read_incoming(request, match, query, settings.max_request_bytes, settings.client_timeout)
        incoming = replace(incoming, seals=self._seals(caller))
        prepared = await self._opened(partial(match.dialect.prepare, incoming))
        caller.scope.check_models(models_of(match.parameters, prepared.document) or {prepared.model})
        sent = tokens_in(len(incoming.body) or sum(len(value) for _, value in incoming.fields))
        asked = query if prepared.query is None else prepared.query
        exchange = self._new_exchange(caller, prepared.facts)
        lease = await self._admitted(caller, sent)
        try:
            async with self._place(caller):
                changed = await self._changed(caller, match.dialect, prepared.document, exchange.policy)
                outgoing = await self._outgoing(request, match, asked, prepared, changed, incoming.body, exchange)
                del incoming  # its body, as the prepared one's: a stream lasts longer
                return await self._exchange(request, match.dialect, outgoing, prepared, exchange)
        except asyncio.CancelledError:  # the client left, and took the handler with it
            self._finish(match.dialect, _CLIENT_GONE, "client_gone")
            raise
        finally:
            self.metrics.account(exchange)
            if lease is not None:
                await lease.end(tokens_in(exchange.received))

    def _new_exchange(self, caller: Caller, facts: RequestFacts) -> Exchange:
        scope = caller.scope
        policy, detectors = self._moderations[scope.policy]
        findings = self._findings[scope.policy]
        most = self.settings.max_exchange_bytes
        return Exchange(policy, detectors, facts, self._key, findings=findings, hidden=scope.hidden, max_bytes=most)

    async def _admitted(self, caller: Caller, sent: int) -> Lease | None:
        lease = await self._reception.admit(caller, sent)
        self.metrics.admitted.labels(caller.role).inc()
        return lease

    @asynccontextmanager
    async def _place(self, caller: Caller) -> AsyncIterator[None]:
        """One of the places of exchanges under way. Raises :class:`Refused`."""
        await self._admission.admit(caller.scope.priority)
        self.metrics.active.inc()
        try:
            yield
        finally:
            self.metrics.active.dec()
            self._admission.end()

    def _seals(self, caller: Caller) -> Seals | None:
        """Those of the exchange that begins now."""
        return None if self._keys is None else seals_for(self._keys, caller.id, self.settings)

    async def _opened(self, read: Callable[[], _Read]) -> _Read:
        """What ``read`` returns, which may open seals."""
        return read() if not self.staff.keeps_originals else await handed_over(read, self.staff.answerers)

    async def _outgoing(
        self,
        request: web.Request,
        match: Match,
        query: Mapping[str, str],
        prepared: Prepared,
        changed: Sequence[Tool],
        received: bytes,
        exchange: Exchange,
    ) -> Outgoing:
        """What goes upstream; nothing of it stays in ``prepared``. Raises :class:`Refused`."""
        fields = prepared.fields
        headers = self._upstream.passed(request.headers)
        file = prepared.file is not None
        strings = Unmoderated(prepared.document, fields or [], headers, match.parameters, query, changed, file)
        await self._moderate(strings, match, exchange)
        url = self._upstream.url(prepared.upstream or match.upstream, query)
        body = dumps(prepared.document)
        unsigned = Unsigned(match.route.signed, request.method, url, headers, body, body == received)
        headers = await self._upstream.signed(unsigned, match, request.headers, request.rel_url.raw_path_qs)
        data: bytes | aiohttp.FormData = body
        if fields is not None:
            data = written_form(fields, prepared.file)
            del headers[hdrs.CONTENT_TYPE]  # the form has its own, with its boundary
        prepared.document, prepared.file = {}, None
        return Outgoing(url, headers, data)

    async def _changed(
        self, caller: Caller, dialect: Dialect, document: dict[str, Any], policy: Policy
    ) -> Sequence[Tool]:
        """Tools of the request that are not defined as they were at first, if ``policy`` cares."""
        if policy.decide("TOOL_CHANGED", ChannelKind.TOOL_DESCRIPTION, 1.0) is Action.ALLOW:
            return ()
        tools = dialect.tools(document)
        if not tools:
            return ()
        described = [(tool.name, tool.definition) for tool in tools]
        try:
            if self.settings.pins_file:
                changed = await asyncio.to_thread(self._pins.changed, caller.id, described)
            else:
                changed = self._pins.changed(caller.id, described)
        except PinsError as error:
            raise ModerationFault(str(error)) from error
        return [tool for tool in tools if tool.name in changed]

    async def _moderate(self, unmoderated: Unmoderated, match: Match, exchange: Exchange) -> None:
        """Carry out the policy on a request."""
        await handed_over(partial(moderate, unmoderated, match.dialect, exchange), self.staff.answerers)

    async def _exchange(
        self,
        request: web.Request,
        dialect: Dialect,
        outgoing: Outgoing,
        prepared: Prepared,
        exchange: Exchange,
    ) -> web.StreamResponse:
        started = time.monotonic()
        try:
            upstream = await self._upstream.send(hdrs.METH_POST, outgoing)
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
                body = dialect.upstream_error(upstream.status, await self._upstream.whole(upstream))
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
            moderate = partial(dialect.body, await self._upstream.whole(upstream), prepared, exchange)
            body = await handed_over(moderate, self.staff.answerers) if self.staff.answerers else moderate()
        except (UpstreamFault, ModerationFault, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            return self._error(dialect, _failure(error), "failed")
        self._finish(dialect, 200, _success(exchange))
        return web.Response(body=body, headers={**headers, **_json()})

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
            self.staff.answerers,
        )
        failed = False
        try:
            async with self._until_drained():
                await stream.run(
                    keep_alive_after=self.settings.keep_alive_after,
                    idle_timeout=self.settings.idle_timeout,
                    client_timeout=self.settings.client_timeout,
                )
        except ConnectionResetError as error:  # the client's: the upstream's end is a ClientPayloadError
            self._finish(dialect, _CLIENT_GONE, "client_slow" if isinstance(error, SlowClientError) else "client_gone")
            return response
        except (UpstreamFault, ModerationFault, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            failure, failed = _failure(error), True
            self._count_failure(failure)
            await response.write(translator.fail(failure.kind, failure.message))
        self._finish(dialect, 200, "failed" if failed else _success(exchange))
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _lookup(
        self, request: web.Request, match: Match, query: Mapping[str, str], caller: Caller
    ) -> web.Response:
        """A question whose answer holds no generated text."""
        dialect = match.dialect
        posted = request.method == hdrs.METH_POST
        received = None
        if posted:
            received = await read_json(request, self.settings.max_request_bytes, self.settings.client_timeout)
        exchange = self._new_exchange(caller, RequestFacts())
        headers = self._upstream.passed(request.headers)
        try:
            asked = Incoming(match.route, match.parameters, query, received or b"{}", seals=self._seals(caller))
            document = await self._opened(partial(dialect.question, asked))
            if named := models_of(match.parameters, document):
                caller.scope.check_models(named)
            await self._moderate(Unmoderated(document, [], headers, match.parameters, query), match, exchange)
        finally:
            self.metrics.account(exchange)
        data = dumps(document) if posted else None
        url = self._upstream.url(match.upstream, query)
        unsigned = Unsigned(match.route.signed, request.method, url, headers, data or b"", data == received)
        headers = await self._upstream.signed(unsigned, match, request.headers, request.rel_url.raw_path_qs)
        try:
            async with await self._upstream.send(request.method, Outgoing(url, headers, data)) as upstream:
                body = await self._upstream.whole(upstream)
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
                if self._draining:
                    limit.reschedule(self._drain_deadline)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamFault(ErrorKind.SHUTTING_DOWN, _SHUTTING_DOWN) from None
        finally:
            self._limits.discard(limit)

    def leave(self) -> None:
        """Ask for no more requests: those that come are answered, and their connections closed."""
        self.leaving = True

    def drain(self) -> None:
        """No more requests come; streams under way may go on until the drain timeout."""
        self._drain_deadline = asyncio.get_running_loop().time() + self.settings.drain_timeout
        self.leaving = self._draining = True
        for limit in self._limits:
            limit.reschedule(self._drain_deadline)

    def _refuse(self, dialect: Dialect, refused: Refused) -> web.Response:
        response = self._error(dialect, _Failure(refused.status, refused.kind, refused.message), "refused")
        if refused.retry_after is not None:  # nothing was generated
            response.headers[hdrs.RETRY_AFTER] = str(refused.retry_after)
            response.headers["x-should-retry"] = "true" if refused.retry_after <= _MAX_WAIT else "false"
        return response

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
        if isinstance(error.__cause__, Overloaded):
            return _Failure(503, ErrorKind.OVERLOADED, _BUSY)
        if isinstance(error, ExchangeTooLarge):
            return _Failure(502, ErrorKind.TOO_LARGE, _TOO_LARGE)
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

    async def on_response_prepare(_request: web.Request, response: web.StreamResponse) -> None:
        if gateway.leaving:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

    async def on_startup(_app: web.Application) -> None:
        await gateway.start()

    async def on_cleanup(_app: web.Application) -> None:
        await gateway.close()

    app.on_response_prepare.append(on_response_prepare)
    app.on_startup.append(on_startup)
    app.on_cleanup.append(on_cleanup)
    return app
