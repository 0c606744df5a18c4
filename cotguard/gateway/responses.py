"""The response side: an upstream's answer, on its way to the client.

The answer's own status and content type choose the way: an error is rebuilt, JSON is moderated whole, an event stream
is pumped read by read. Anything else fails closed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import aiohttp
from aiohttp import hdrs, web

from cotguard.classifier.handover import handed_over
from cotguard.config.settings import Settings
from cotguard.dialects.contract import ErrorKind, Prepared, Translator, Undelivered, UpstreamFault
from cotguard.dialects.routes import Match
from cotguard.framing.json import JSONError
from cotguard.gateway.accounts import Accounts
from cotguard.gateway.answerers import Staff
from cotguard.gateway.call import Call
from cotguard.gateway.failures import answer_error
from cotguard.gateway.streaming import Pump, Rounds
from cotguard.http.answers import CLIENT_GONE, JSON_HEADERS, STREAM_HEADERS, Failure, failure_of, success
from cotguard.http.encodings import Decoder, EncodingError
from cotguard.http.headers import response_headers
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.pool import Answer

__all__ = ["FAULTS", "SHUTTING_DOWN", "Responses"]

FAULTS: Final = (UpstreamFault, ModerationFault, EncodingError, TimeoutError, aiohttp.ClientError)
"""What ends a response; whatever else is raised is a fault of ours."""

SHUTTING_DOWN: Final = "The gateway is shutting down."

_LOG = logging.getLogger("cotguard.gateway")
_STATUS = "The upstream's status is not one that is expected."
_TYPE = "The upstream's content type is not one that is expected."


class Responses:
    """See the module."""

    def __init__(self, staff: Staff, accounts: Accounts, metrics: Metrics) -> None:
        self._staff = staff
        self._accounts = accounts
        self._metrics = metrics
        self._rounds = Rounds()
        self._limits: set[asyncio.Timeout] = set()  # of the streams under way
        self._deadline: float | None = None

    def drain(self, timeout: float) -> None:
        """Streams under way, and those that begin, may go on for ``timeout`` seconds."""
        self._deadline = asyncio.get_running_loop().time() + timeout
        for limit in self._limits:
            limit.reschedule(self._deadline)

    async def respond(self, call: Call, prepared: Prepared, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        """The answer to a request for generated text."""
        dialect, upstream, limit = call.dialect, answer.response, call.active.settings.max_response_bytes
        headers = response_headers(upstream.headers)
        try:
            if upstream.status >= 400:
                body = dialect.upstream_error(upstream.status, await answer.whole(limit))
                call.end(upstream.status, "upstream_error")
                return web.Response(status=upstream.status, body=body, headers={**headers, **JSON_HEADERS})
            if upstream.status != 200:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _STATUS)
            translator = dialect.stream(prepared, exchange, upstream.content_type)
            if translator is not None:
                if call.recording is not None:
                    translator = call.recording.take_stream(prepared, upstream.content_type, translator)
                return await self._streamed(call, translator, exchange, answer)
            if upstream.content_type != "application/json":
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _TYPE)
            data = await answer.whole(limit)
            if call.recording is not None:
                call.recording.take_body(prepared, data)
            moderate = partial(dialect.body, data, prepared, exchange)
            body = await handed_over(moderate, self._staff.answerers) if self._staff.answerers else moderate()
            await self._accounts.record(call)
        except FAULTS as error:
            return self.fail(call, failure_of(error))
        call.end(200, success(exchange))
        return web.Response(body=body, headers={**headers, **JSON_HEADERS})

    async def _streamed(
        self, call: Call, translator: Translator, exchange: Exchange, answer: Answer
    ) -> web.StreamResponse:
        upstream, settings = answer.response, call.active.settings
        decoder = Decoder(upstream.headers.get(hdrs.CONTENT_ENCODING, ""), 2**62)
        told = {**response_headers(upstream.headers), "Content-Type": translator.content_type, **STREAM_HEADERS}
        response = web.StreamResponse(headers={**told, **call.headers})
        await response.prepare(call.request)
        await response.write(b"")  # headers now, not with the first text, which may be on hold
        stream = Pump(
            upstream,
            decoder,
            translator,
            exchange,
            call.request,
            response,
            self._metrics,
            call.started,
            self._rounds,
            self._staff.answerers,
            call.journal,
            partial(self._record, call, exchange),
        )
        fault: Exception | None = None
        try:
            async with self._until_drained(settings):
                await stream.run(
                    keep_alive_after=settings.keep_alive_after,
                    idle_timeout=answer.idle_timeout,
                    client_timeout=settings.client_timeout,
                )
        except ConnectionResetError:  # the client's: the upstream's end is a ClientPayloadError
            call.end(CLIENT_GONE, "client_slow" if stream.client_slow else "client_gone")
            return response
        except Exception as error:
            fault = error
        with suppress(ConnectionError):
            if fault is None:
                call.end(200, success(exchange))
            else:
                await self._fail_stream(call, translator, stream, response, fault)
            await response.write_eof()
        return response

    async def _fail_stream(
        self, call: Call, translator: Translator, stream: Pump, response: web.StreamResponse, fault: Exception
    ) -> None:
        """Tell the client of a fault in the dialect's shape, behind what was delivered. Raises ``ConnectionError``."""
        known = isinstance(fault, FAULTS)
        if not known:  # ours, and its message may quote what it was about
            _LOG.error("request failed", exc_info=fault)
        failure = failure_of(fault if known else ModerationFault())
        self._count(call, failure)
        call.end(200, "failed")
        undelivered = await self._unrecorded(call, stream)
        if not known and undelivered is Undelivered.NOTHING:
            undelivered = Undelivered.LAST  # nobody knows how far the translator came
        try:
            written = translator.fail(failure.kind, failure.message, undelivered)
        except Exception as error:
            _LOG.error("request failed", exc_info=error)
            if call.request.transport is not None:
                call.request.transport.abort()  # the client must not take what it has for all
            raise ConnectionResetError("a stream that cannot be ended") from None
        await response.write(written)

    async def _record(self, call: Call, exchange: Exchange, last: bool) -> None:
        """Record what the next bytes of a stream follow from. Raises :class:`ModerationFault`."""
        if last:
            call.end(200, success(exchange))
        await self._accounts.record(call, last=last)

    async def _unrecorded(self, call: Call, stream: Pump) -> Undelivered:
        """What of a stream that failed may not be delivered, as it follows from decisions that are not recorded."""
        undelivered = stream.undelivered
        try:
            await self._accounts.record(call, last=True)
        except ModerationFault:
            undelivered = Undelivered.LAST if undelivered is Undelivered.NOTHING else undelivered
        return undelivered

    @asynccontextmanager
    async def _until_drained(self, settings: Settings) -> AsyncIterator[None]:
        """No limit, until a drain sets one. Raises :class:`UpstreamFault` when it is over."""
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                if self._deadline is not None:
                    limit.reschedule(self._deadline)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamFault(ErrorKind.SHUTTING_DOWN, SHUTTING_DOWN) from None
        finally:
            self._limits.discard(limit)

    async def respond_lookup(self, call: Call, match: Match, answer: Answer) -> web.StreamResponse:
        """The answer to a question that needs no generation."""
        upstream = answer.response
        try:
            body = await answer.whole(call.active.settings.max_response_bytes)
            if upstream.status >= 400:
                call.end(upstream.status, "upstream_error")
                body = match.dialect.upstream_error(upstream.status, body)
                return web.Response(status=upstream.status, body=body, headers=JSON_HEADERS)
            if upstream.status != 200 or upstream.content_type != "application/json":
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream did not answer the lookup.")
            body = match.dialect.lookup(body, match.route.action)
        except (UpstreamFault, JSONError, EncodingError, TimeoutError, aiohttp.ClientError) as error:
            return self.fail(call, failure_of(error))
        call.end(200, "ok")
        return web.Response(body=body, headers=JSON_HEADERS)

    def fail(self, call: Call, failure: Failure) -> web.Response:
        """The answer to a request that a fault ended before anything was delivered."""
        self._count(call, failure)
        return answer_error(call, failure, "failed")

    def _count(self, call: Call, failure: Failure) -> None:
        call.failure = failure.kind
        self._metrics.failures.labels(failure.kind, "closed").inc()
        _LOG.warning("exchange failed closed", extra={"kind": failure.kind.value})
