"""What a client is told of how its exchange ended, whoever serves it: constant text, headers that no cache keeps."""

from typing import Final, NamedTuple

from cotguard.classifier.handover import Overloaded
from cotguard.dialects.contract import ErrorKind, UpstreamFault
from cotguard.framing.json import JSONError
from cotguard.http.encodings import EncodingError
from cotguard.moderation.exchange import Exchange, ExchangeTooLarge, ModerationFault

__all__ = ["CLIENT_GONE", "FINAL_HEADERS", "JSON_HEADERS", "STREAM_HEADERS", "Failure", "failure_of", "success"]

CLIENT_GONE: Final = 499  # as nginx logs it; nobody receives it

JSON_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}
STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
FINAL_HEADERS: Final = {"x-should-retry": "false"}  # a retry would run the same generation again

_BUSY = "The gateway has too much to moderate."
_TOO_LARGE = "The response takes more memory than is allowed; the rest of it is not delivered."
_FAILED = "Moderation failed; the rest of the response is not delivered."


class Failure(NamedTuple):
    """What a client is told of a fault."""

    status: int
    kind: ErrorKind
    message: str


def failure_of(error: Exception, answering: str = "upstream") -> Failure:
    """How a fault is told to the client. ``answering`` says in a word who answers the request."""
    if isinstance(error, UpstreamFault):
        return Failure(502, error.kind, error.message)
    if isinstance(error, ModerationFault):
        if isinstance(error.__cause__, Overloaded):
            return Failure(503, ErrorKind.OVERLOADED, _BUSY)
        if isinstance(error, ExchangeTooLarge):
            return Failure(502, ErrorKind.TOO_LARGE, _TOO_LARGE)
        return Failure(500, ErrorKind.MODERATION_FAILED, _FAILED)
    if isinstance(error, TimeoutError):
        return Failure(504, ErrorKind.UPSTREAM_TIMEOUT, f"The {answering} was silent for too long.")
    if isinstance(error, EncodingError | JSONError):
        return Failure(502, ErrorKind.UPSTREAM_INVALID, f"The {answering}'s body could not be decoded.")
    return Failure(502, ErrorKind.UPSTREAM_INTERRUPTED, f"The {answering} ended the response early.")


def success(exchange: Exchange) -> str:
    """The outcome of an exchange that went on to its end: that of one that was not all moderated has its own name."""
    return "failed_open" if exchange.bypassed else "ok"
