"""How a request that comes to nothing is answered: in its dialect's shape, with constant text."""

from aiohttp import hdrs, web

from cotguard.dialects.contract import Refused
from cotguard.gateway.call import Call
from cotguard.http.answers import FINAL_HEADERS, JSON_HEADERS, Failure

__all__ = ["answer_error", "answer_refused", "later"]

_MAX_WAIT = 60
"""Seconds after which a client may try a refused request again by itself: its user waits meanwhile."""


def answer_refused(call: Call, refused: Refused) -> web.Response:
    """The answer to a request that is refused."""
    response = answer_error(call, Failure(refused.status, refused.kind, refused.message), "refused")
    return response if refused.retry_after is None else later(response, refused.retry_after)


def answer_error(call: Call, failure: Failure, outcome: str) -> web.Response:
    """The answer that tells of ``failure``; the account of the call says ``outcome``."""
    call.end(failure.status, outcome)
    body = call.dialect.error(failure.kind, failure.message)
    return web.Response(status=failure.status, body=body, headers={**JSON_HEADERS, **FINAL_HEADERS})


def later(response: web.Response, seconds: int) -> web.Response:
    """``response``, with when the client may try again: nothing was generated."""
    response.headers[hdrs.RETRY_AFTER] = str(seconds)
    response.headers["x-should-retry"] = "true" if seconds <= _MAX_WAIT else "false"
    return response
