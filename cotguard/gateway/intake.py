"""A client's request as dialects see it: its body checked, decoded within limits, and read if it is a form.

A body must come as a whole within the client's timeout and a second more for every ``_LEAST_RATE`` bytes of it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from cotguard.dialects.contract import ErrorKind, Incoming, Refused
from cotguard.dialects.routes import Match
from cotguard.http.encodings import Decoder
from cotguard.http.form import read_form

__all__ = ["Content", "Received", "read_incoming", "read_json"]

_LEAST_RATE = 16 * 1024
"""Bytes a second that a client sends at least."""

_TOO_SLOW = "The request's body came too slowly."


class Content(Protocol):
    """A body as it arrives."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Its pieces."""
        ...


class Received(Protocol):
    """A request, whoever serves it (aiohttp's class is one): what is read of it here."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_type(self) -> str: ...

    @property
    def charset(self) -> str | None: ...

    @property
    def content(self) -> Content: ...


async def read_incoming(
    request: Received, match: Match, query: Mapping[str, str], limit: int, client_timeout: float
) -> Incoming:
    """The request on the route of ``match``, of at most ``limit`` bytes when decoded.

    A client that sends nothing of its body for ``silence`` seconds is refused.
    Raises :class:`Refused` and :class:`~cotguard.http.encodings.EncodingError`, as :func:`read_json` does.
    """
    route, parameters = match.route, match.parameters
    if not route.multipart:
        body = await read_json(request, limit, client_timeout, untyped=bool(route.signed))
        return Incoming(route, parameters, query, body)
    if request.content_type != "multipart/form-data":
        raise Refused(415, ErrorKind.UNSUPPORTED, "Send multipart/form-data.")
    body = await _decoded(request, limit, client_timeout)
    fields, file = await read_form(request.headers[hdrs.CONTENT_TYPE], body)
    return Incoming(route, parameters, query, b"", fields, file)


async def read_json(request: Received, limit: int, client_timeout: float, *, untyped: bool = False) -> bytes:
    """The decoded body, which the client says is JSON. ``untyped``: clients of this path may leave that out."""
    charset = request.charset or "utf-8"
    typed = hdrs.CONTENT_TYPE in request.headers or not untyped
    if (typed and request.content_type != "application/json") or charset.lower() not in ("utf-8", "utf8"):
        raise Refused(415, ErrorKind.UNSUPPORTED, "Send application/json in UTF-8.")
    return await _decoded(request, limit, client_timeout)


async def _decoded(request: Received, limit: int, client_timeout: float) -> bytes:
    if "x-body-compressed" in request.headers:
        raise Refused(415, ErrorKind.UNSUPPORTED, "x-body-compressed is not accepted; use Content-Encoding.")
    decoder = Decoder(request.headers.get(hdrs.CONTENT_ENCODING, ""), limit)
    body = bytearray()
    until = asyncio.get_running_loop().time() + client_timeout
    try:
        async with asyncio.timeout_at(until) as deadline:
            async for chunk in request.content.iter_any():
                body += decoder.feed(chunk)
                until += len(chunk) / _LEAST_RATE
                deadline.reschedule(until)
    except TimeoutError:
        # Where a chunk cannot be read, aiohttp's compiled parser does not say so to who waits for it.
        raise Refused(408, ErrorKind.BAD_REQUEST, _TOO_SLOW) from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise Refused(400, ErrorKind.BAD_REQUEST, "The body's chunks cannot be read.") from None
    return bytes(body)
