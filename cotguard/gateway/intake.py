"""A client's request as dialects see it: its body checked, decoded within limits, and read if it is a form."""

import asyncio
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from cotguard.dialects.contract import ErrorKind, Incoming, Refused
from cotguard.dialects.routes import Match
from cotguard.gateway.encodings import Decoder
from cotguard.gateway.form import read_form

__all__ = ["read_incoming", "read_json"]


async def read_incoming(
    request: web.Request, match: Match, query: Mapping[str, str], limit: int, silence: float
) -> Incoming:
    """The request on the route of ``match``, of at most ``limit`` bytes when decoded.

    A client that sends nothing of its body for ``silence`` seconds is refused.
    Raises :class:`Refused` and :class:`~cotguard.gateway.encodings.EncodingError`, as :func:`read_json` does.
    """
    route, parameters = match.route, match.parameters
    if not route.multipart:
        body = await read_json(request, limit, silence, untyped=bool(route.signed))
        return Incoming(route, parameters, query, body)
    if request.content_type != "multipart/form-data":
        raise Refused(415, ErrorKind.UNSUPPORTED, "Send multipart/form-data.")
    fields, file = await read_form(request.headers[hdrs.CONTENT_TYPE], await _decoded(request, limit, silence))
    return Incoming(route, parameters, query, b"", fields, file)


async def read_json(request: web.Request, limit: int, silence: float, *, untyped: bool = False) -> bytes:
    """The decoded body, which the client says is JSON. ``untyped``: clients of this path may leave that out."""
    charset = request.charset or "utf-8"
    typed = hdrs.CONTENT_TYPE in request.headers or not untyped
    if (typed and request.content_type != "application/json") or charset.lower() not in ("utf-8", "utf8"):
        raise Refused(415, ErrorKind.UNSUPPORTED, "Send application/json in UTF-8.")
    return await _decoded(request, limit, silence)


async def _decoded(request: web.Request, limit: int, silence: float) -> bytes:
    if "x-body-compressed" in request.headers:
        raise Refused(415, ErrorKind.UNSUPPORTED, "x-body-compressed is not accepted; use Content-Encoding.")
    decoder = Decoder(request.headers.get(hdrs.CONTENT_ENCODING, ""), limit)
    body = bytearray()
    try:
        while True:
            # Where a chunk cannot be read, aiohttp's compiled parser does not say so to who waits for it.
            async with asyncio.timeout(silence):
                data = await request.content.readany()
            if not data:
                return bytes(body)
            body += decoder.feed(data)
    except TimeoutError:
        raise Refused(408, ErrorKind.BAD_REQUEST, "The request's body did not arrive in time.") from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise Refused(400, ErrorKind.BAD_REQUEST, "The body's chunks cannot be read.") from None
