"""A mock reasoning server for load: Chat Completions streams shaped as vLLM's, paced exactly or as fast as they go.

The request says what to stream: ``model`` is ``prose`` or ``planted``, a colon, and the tokens a second (0: unpaced,
many events a write); ``max_tokens``; and ``seed``, the stream's number in the account of times.
``GET /sent`` gives, and forgets, the times at which each token was written, on the host's monotonic clock.
"""

import asyncio
import time
from functools import cache

import orjson
from aiohttp import web

from loadtest.script import script
from loadtest.serving import serve

__all__ = ["create_upstream"]

_EVENTS_PER_WRITE = 16
_HEAD = {"id": "chatcmpl-0f3c9a", "object": "chat.completion.chunk", "created": 1750000000, "model": "mock-reasoner"}
_DONE = b"data: [DONE]\n\n"


def create_upstream() -> web.Application:
    """The server as an application."""
    sent: dict[int, list[float]] = {}

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        text, _, pace = body["model"].partition(":")
        first, events, last = _events(body["max_tokens"], planted=text == "planted")
        rate = float(pace)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(first)
        if rate:
            await _paced(response, events, 1 / rate, sent.setdefault(body["seed"], []))
        else:
            for start in range(0, len(events), _EVENTS_PER_WRITE):
                await response.write(b"".join(events[start : start + _EVENTS_PER_WRITE]))
        await response.write(last)
        return response

    async def account(_request: web.Request) -> web.Response:
        response = web.Response(body=orjson.dumps(sent, option=orjson.OPT_NON_STR_KEYS))
        sent.clear()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/sent", account)
    return app


async def _paced(response: web.StreamResponse, events: list[bytes], pause: float, sent: list[float]) -> None:
    start = time.monotonic()
    for number, event in enumerate(events):
        # Against the clock, so that delays do not add up.
        await asyncio.sleep(max(0.0, start + number * pause - time.monotonic()))
        sent.append(time.monotonic())
        await response.write(event)


@cache
def _events(count: int, *, planted: bool) -> tuple[bytes, list[bytes], bytes]:
    """The role event, one event for each token, and the end of a stream."""
    events = [_event(delta) for delta in script(count, planted=planted).deltas]
    return _event({"role": "assistant", "content": ""}), events, _event({}, "stop") + _DONE


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({**_HEAD, "choices": [choice]}) + b"\n\n"


if __name__ == "__main__":
    serve(create_upstream())
