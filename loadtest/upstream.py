"""A mock reasoning server for load: streams of every dialect of the table, paced exactly or as fast as they go.

The request says what to stream: ``model`` is ``prose`` or ``planted``, a colon, and the tokens a second (0: unpaced,
many events a write), and, after another colon, a fault if there shall be one; ``max_tokens``; and ``seed``, the
stream's number in the account of times.

A token is due at a time counted from the request's, never from the token before, so that delays do not add up; it is
written when the event loop's timer, which counts milliseconds, has run out. ``GET /sent`` gives, and forgets, the times
at which each token was really written, on the host's monotonic clock.
"""

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum
from functools import cache, partial

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from loadtest.dialects import DIALECTS, Dialect
from loadtest.script import script
from loadtest.serving import serve

__all__ = ["SLOW_START_SECONDS", "Fault", "create_upstream"]

SLOW_START_SECONDS = 1.0
_STALL_SECONDS = 3600.0
_EVENTS_PER_WRITE = 16


class Fault(StrEnum):
    """What goes wrong, half-way through the tokens unless it says otherwise."""

    SLOW_START = "slow-start"
    """Nothing comes for ``SLOW_START_SECONDS``, not even the status."""
    STALL = "stall"
    """Nothing more comes, and the connection stays."""
    CUT = "cut"
    """The connection is reset."""
    MALFORMED = "malformed"
    """One event is half a JSON document."""


def create_upstream() -> web.Application:
    """The server as an application."""
    sent: dict[int, list[float]] = {}

    async def answer(dialect: Dialect, request: web.Request) -> web.StreamResponse:
        asked_at = time.monotonic()
        body = await request.json(loads=orjson.loads)
        text, _, how = body["model"].partition(":")
        rate, _, name = how.partition(":")
        fault = Fault(name) if name else None
        tokens = body.get("max_tokens") or body["maxTokens"]  # as a proxy may have spelt it for Gemini
        events = _events(dialect, tokens, planted=text == "planted")
        if fault is Fault.SLOW_START:
            await asyncio.sleep(SLOW_START_SECONDS)
            asked_at += SLOW_START_SECONDS
        response = web.StreamResponse(headers={"Content-Type": dialect.content_type})
        await response.prepare(request)
        await response.write(dialect.opening)
        half = len(events) // 2 if fault else len(events)
        pause = 1 / float(rate) if float(rate) else 0.0
        times = sent.setdefault(body["seed"], []) if pause else []
        await _write(response, events[:half], asked_at, pause, times)
        match fault:
            case Fault.STALL:
                await asyncio.sleep(_STALL_SECONDS)
            case Fault.CUT:
                if request.transport is not None:
                    request.transport.abort()
                return response
            case Fault.MALFORMED:
                whole = dialect.token("reasoning", "...")
                await response.write(whole[: len(whole) // 2] + dialect.separator)
            case Fault.SLOW_START | None:
                pass
        await _write(response, events[half:], asked_at + half * pause, pause, times)
        await response.write(dialect.closing)
        return response

    async def account(_request: web.Request) -> web.Response:
        response = web.Response(
            body=orjson.dumps(sent, option=orjson.OPT_NON_STR_KEYS), content_type="application/json"
        )
        sent.clear()
        return response

    app = web.Application(middlewares=[_until_left])
    for dialect in DIALECTS.values():
        app.router.add_post(dialect.path, partial(answer, dialect))
    app.router.add_get("/sent", account)
    return app


@web.middleware
async def _until_left(request: web.Request, handler: Handler) -> web.StreamResponse:
    """That a client has left while something was written is no fault."""
    try:
        return await handler(request)
    except ConnectionResetError:
        raise asyncio.CancelledError from None


async def _write(
    response: web.StreamResponse, events: Sequence[bytes], start: float, pause: float, sent: list[float]
) -> None:
    if pause:
        for number, event in enumerate(events):
            await asyncio.sleep(max(0.0, start + number * pause - time.monotonic()))
            sent.append(time.monotonic())
            await response.write(event)
    else:
        for at in range(0, len(events), _EVENTS_PER_WRITE):
            await response.write(b"".join(events[at : at + _EVENTS_PER_WRITE]))


@cache
def _events(dialect: Dialect, count: int, *, planted: bool) -> list[bytes]:
    """One event for each token, with what stands between the channels before it."""
    deltas = script(count, planted=planted).deltas
    answer = next((at for at, (channel, _) in enumerate(deltas) if channel == "answer"), None)
    return [(dialect.between if at == answer else b"") + dialect.token(*delta) for at, delta in enumerate(deltas)]


if __name__ == "__main__":
    serve(create_upstream())
