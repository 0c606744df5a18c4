"""What the application answers, moderated on its way to the server.

1. Status and content type choose the way, as in the proxy: an error is rebuilt, JSON is moderated whole, an event
   stream message by message. Anything else is a fault.
2. A fault ends the response in the dialect's error shape; nothing on hold is written.
3. When the response is over before the application is done - a block, a fault -, what else it sends raises ``OSError``,
   as when a client has left; the server's ``receive`` says so too.
"""

import logging
from collections.abc import Callable
from functools import partial

from multidict import CIMultiDict

from cotguard.asgi.interface import Message, Send
from cotguard.dialects.contract import Dialect, ErrorKind, Translator, UpstreamFault
from cotguard.framing.json import JSONError
from cotguard.http.answers import CLIENT_GONE, FINAL_HEADERS, JSON_HEADERS, STREAM_HEADERS, failure_of, success
from cotguard.http.encodings import Decoder, EncodingError
from cotguard.http.headers import response_headers
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.moderator import Moderator
from cotguard.telemetry.metrics import Metrics

__all__ = ["Answer", "send_whole"]

_LOG = logging.getLogger("cotguard.asgi")
_ENDLESS = 2**62
_FAULTS = (UpstreamFault, ModerationFault, EncodingError, JSONError)
_UNEXPECTED = "The application's status or content type is not one that is expected."
_INTERRUPTED = "The application ended the response early."


async def send_whole(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Send a response of ours, in JSON."""
    headers = {**headers, **JSON_HEADERS, "content-length": str(len(body))}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Answer:
    """The ``send`` that the application is given, for one request.

    ``stream`` says who translates a response of some content type, if that is a stream; ``whole`` moderates the body of
    any other. Bodies have at most ``limit`` bytes.
    """

    def __init__(
        self,
        dialect: Dialect,
        exchange: Exchange,
        stream: Callable[[str], Translator | None],
        whole: Callable[[bytes], bytes],
        *,
        send: Send,
        limit: int,
        moderator: Moderator,
        metrics: Metrics,
    ) -> None:
        self.over = False
        self._dialect = dialect
        self._exchange = exchange
        self._stream = stream
        self._whole = whole
        self._send = send
        self._limit = limit
        self._moderator = moderator
        self._metrics = metrics
        self._status = 0
        self._headers: dict[str, str] = {}
        self._decoder = Decoder("", limit)
        self._translator: Translator | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Take a message of the application's."""
        if self.over:
            if message.get("body"):
                raise OSError("the response is over")
            return
        try:
            if message["type"] == "http.response.start":
                await self._start(message)
            elif message["type"] == "http.response.body" and self._status:
                await self._take(message.get("body", b""), more=message.get("more_body", False))
            else:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNEXPECTED)
        except _FAULTS as fault:
            await self._fail(fault)

    async def end(self, *, client_gone: bool) -> None:
        """The application has returned, or raised: what it did not complete is a fault, unless nobody wants it."""
        if self.over:
            return
        if client_gone:
            self.over = True
            self._count(CLIENT_GONE, "client_gone")
        else:
            await self._fail(UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, _INTERRUPTED))

    async def _start(self, message: Message) -> None:
        headers = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())
        )
        self._status = message["status"]
        self._headers = response_headers(headers)
        encoding, content_type = headers.get("content-encoding", ""), headers.get("content-type", "")
        content_type = content_type.partition(";")[0].strip().lower()
        self._decoder = Decoder(encoding, self._limit)
        if self._status >= 400:
            return
        if self._status != 200:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNEXPECTED)
        translator = self._stream(content_type)
        if translator is None:
            if content_type != "application/json":
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNEXPECTED)
            return
        self._decoder = Decoder(encoding, _ENDLESS)
        headers_sent = {**self._headers, **STREAM_HEADERS, "Content-Type": translator.content_type}
        await self._send({"type": "http.response.start", "status": 200, "headers": _encoded(headers_sent)})
        self._translator = translator

    async def _take(self, body: bytes, *, more: bool) -> None:
        data = self._decoder.feed(body)
        if self._translator is not None:
            await self._pass_on(self._translator, data, more=more)
            return
        self._body += data
        if not more:
            await self._complete(bytes(self._body))

    async def _pass_on(self, translator: Translator, data: bytes, *, more: bool) -> None:
        written = await self._moderator.carry_out(partial(translator.receive, data))
        if not more and not translator.finished:
            written += await self._moderator.carry_out(translator.end)
        self.over = translator.finished or not more
        if written or self.over:
            await self._send({"type": "http.response.body", "body": written, "more_body": not self.over})
        if self.over:
            self._count(200, success(self._exchange))

    async def _complete(self, body: bytes) -> None:
        if self._status >= 400:
            body, outcome = self._dialect.upstream_error(self._status, body), "upstream_error"
        else:
            body = await self._moderator.carry_out(partial(self._whole, body))
            outcome = success(self._exchange)
        self.over = True
        self._count(self._status, outcome)
        await send_whole(self._send, self._status, body, self._headers)

    async def _fail(self, fault: Exception) -> None:
        status, kind, message = failure_of(fault, "application")
        self.over = True
        self._metrics.failures.labels(kind, "closed").inc()
        _LOG.warning("exchange failed closed", extra={"kind": kind.value})
        if self._translator is None:
            self._count(status, "failed")
            await send_whole(self._send, status, self._dialect.error(kind, message), FINAL_HEADERS)
            return
        self._count(200, "failed")
        body = self._translator.fail(kind, message)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _count(self, status: int, outcome: str) -> None:
        self._metrics.requests.labels(self._dialect.name, str(status), outcome).inc()


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
