"""Upstreams that sign what they think and verify what comes back, and a conversation of several turns with each."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

__all__ = ["MAIL", "RESULT", "TURNS", "Signing", "said", "sign", "thought"]

MAIL = "ann.lee@example.com"
CARD = "4111 1111 1111 1111"
TURNS = 5
RESULT = "sent"


def thought(turn: int) -> str:
    """What the model thinks in a turn; it has values that no client may see."""
    return f"Turn {turn}: her mail is {MAIL}, her card {CARD} — so I call send."


def said(turn: int) -> str:
    """The same as a client may see it."""
    return f"Turn {turn}: her mail is [EMAIL_ADDRESS], her card [CREDIT_CARD] — so I call send."


def sign(*texts: str) -> str:
    """A signature that nobody else can make, in base64."""
    return base64.b64encode(hmac.digest(b"upstream", "\0".join(texts).encode(), hashlib.sha256)).decode()


class Signing:
    """A model server: ``turns`` reads the turns of the model from a request, ``expected`` and ``answer`` make them.

    A request whose turns are not exactly those that were written is refused, as Anthropic and Google do.
    """

    def __init__(
        self,
        turns: Callable[[Mapping[str, Any]], list[Any]],
        expected: Callable[[int], Any],
        answer: Callable[[int, bool], tuple[str, Iterable[bytes]]],
    ) -> None:
        self._turns = turns
        self._expected = expected
        self._answer = answer
        self.accepted = 0
        self.unexpected: list[Any] = []
        self.sent = b""  # to the proxy, in all

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        turns = self._turns(body)
        for number, turn in enumerate(turns):
            if turn != self._expected(number):
                self.unexpected.append(turn)
                return web.json_response({"error": {"message": "signature"}}, status=400)
        self.accepted += 1
        streamed = bool(body.get("stream")) or "stream" in request.path
        kind, pieces = self._answer(len(turns), streamed)
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        rng = random.Random(len(turns))
        data = b"".join(pieces)
        self.sent += data
        while data:
            size = rng.randint(1, 80)
            await response.write(data[:size])
            data = data[size:]
        await response.write_eof()
        return response


def sse(documents: Iterable[Mapping[str, Any]], *, named: bool = True) -> Iterable[bytes]:
    """Documents as server-sent events."""
    for each in documents:
        name = f"event: {each['type']}\n" if named else ""
        yield f"{name}data: {json.dumps(each)}\n\n".encode()


def cut(text: str, size: int = 5) -> list[str]:
    """A text in pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]
