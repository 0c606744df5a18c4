"""What scripted upstreams say, on the wire of Chat Completions, and how a plain client reads it."""

import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from conftest import Handler

__all__ = ["DONE", "chunk", "cut", "finish", "post", "streaming", "texts"]

DONE = b"data: [DONE]\n\n"
CHAT_PATH = "/v1/chat/completions"


def cut(text: str, rng: random.Random, longest: int = 6) -> Iterator[str]:
    """``text`` in pieces of 1 to ``longest`` characters."""
    at = 0
    while at < len(text):
        width = rng.randint(1, longest)
        yield text[at : at + width]
        at += width


def chunk(delta: dict[str, object], index: int = 0, reason: str | None = None, **choice: object) -> bytes:
    """One event of a stream."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": reason, **choice}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def finish(index: int = 0, reason: str = "stop") -> bytes:
    """The event that ends a choice."""
    return chunk({}, index, reason)


def streaming(events: Sequence[bytes], headers: dict[str, str] | None = None) -> Handler:
    """An upstream that writes ``events`` and closes the body."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for event in events:
            await response.write(event)
        await response.write_eof()
        return response

    return handler


async def post(url: str, **body: object) -> tuple[int, str]:
    """Status and body of a chat request; ``body`` is added to a minimal one."""
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}], **body}
    async with aiohttp.ClientSession() as session, session.post(url + CHAT_PATH, json=request) as response:
        return response.status, await response.text()


def chunks(body: str) -> Iterator[dict[str, Any]]:
    """The JSON documents of an event stream."""
    for line in body.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def texts(body: str) -> dict[tuple[int, str], str]:
    """All text of a stream by choice and field; of parts and details, the text in them; of calls, their arguments."""
    found: dict[tuple[int, str], str] = {}
    for document in chunks(body):
        for choice in document.get("choices", ()):
            for name, value in choice["delta"].items():
                if name != "role":
                    key = choice["index"], name
                    found[key] = found.get(key, "") + "".join(_strings(value))
    return found


_TEXT_NAMES = frozenset({"text", "thinking", "summary", "arguments"})


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in _TEXT_NAMES or isinstance(each, dict | list):
                yield from _strings(each)


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The blocks of an event stream as they arrive."""
    rest = ""
    async for data in response.content.iter_any():
        *blocks, rest = (rest + data.decode()).split("\n\n")
        for block in blocks:
            yield block
