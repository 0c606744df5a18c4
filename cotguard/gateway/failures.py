"""How a request that comes to nothing is answered: in its dialect's shape, with constant text."""

from typing import NamedTuple

from aiohttp import hdrs, web

from cotguard.classifier.handover import Overloaded
from cotguard.dialects.contract import ErrorKind, Refused, UpstreamFault
from cotguard.framing.json import JSONError
from cotguard.gateway.call import Call
from cotguard.http.encodings import EncodingError
from cotguard.moderation.exchange import ExchangeTooLarge, ModerationFault

__all__ = ["JSON_HEADERS", "Failure", "answer_error", "answer_refused", "failure_of", "later"]

JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}

_FINAL = {"x-should-retry": "false"}  # a retry would run the same generation again
_MAX_WAIT = 60
"""Seconds after which a client may try a refused request again by itself: its user waits meanwhile."""
_INTERRUPTED = "The upstream ended the response early."
_BUSY = "The gateway has too much to moderate."
_TOO_LARGE = "The response takes more memory than is allowed; the rest of it is not delivered."
_FAILED = "Moderation failed; the rest of the response is not delivered."


class Failure(NamedTuple):
    """What a client is told of a fault."""

    status: int
    kind: ErrorKind
    message: str


def failure_of(error: Exception) -> Failure:
    """How a fault is told to the client."""
    if isinstance(error, UpstreamFault):
        return Failure(502, error.kind, error.message)
    if isinstance(error, ModerationFault):
        if isinstance(error.__cause__, Overloaded):
            return Failure(503, ErrorKind.OVERLOADED, _BUSY)
        if isinstance(error, ExchangeTooLarge):
            return Failure(502, ErrorKind.TOO_LARGE, _TOO_LARGE)
        return Failure(500, ErrorKind.MODERATION_FAILED, _FAILED)
    if isinstance(error, TimeoutError):
        return Failure(504, ErrorKind.UPSTREAM_TIMEOUT, "The upstream was silent for too long.")
    if isinstance(error, EncodingError | JSONError):
        return Failure(502, ErrorKind.UPSTREAM_INVALID, "The upstream's body could not be decoded.")
    return Failure(502, ErrorKind.UPSTREAM_INTERRUPTED, _INTERRUPTED)


def answer_refused(call: Call, refused: Refused) -> web.Response:
    """The answer to a request that is refused."""
    response = answer_error(call, Failure(refused.status, refused.kind, refused.message), "refused")
    return response if refused.retry_after is None else later(response, refused.retry_after)


def answer_error(call: Call, failure: Failure, outcome: str) -> web.Response:
    """The answer that tells of ``failure``; the account of the call says ``outcome``."""
    call.end(failure.status, outcome)
    body = call.dialect.error(failure.kind, failure.message)
    return web.Response(status=failure.status, body=body, headers={**JSON_HEADERS, **_FINAL})


def later(response: web.Response, seconds: int) -> web.Response:
    """``response``, with when the client may try again: nothing was generated."""
    response.headers[hdrs.RETRY_AFTER] = str(seconds)
    response.headers["x-should-retry"] = "true" if seconds <= _MAX_WAIT else "false"
    return response
