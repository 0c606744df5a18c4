"""The wire formats the mock server speaks and the load generator reads: a table, one row for each.

A row says how a stream opens, how one token is written, how a stream closes, and how a client gets the text back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import orjson

from cotguard.demo.server import QUESTION, SYSTEM_PROMPT
from loadtest.script import Channel

__all__ = ["DIALECTS", "Dialect"]


@dataclass(frozen=True, eq=False)
class Dialect:
    """One wire format, as bytes of whole events."""

    path: str
    prompt: Mapping[str, object]
    """What a request has besides ``model``, ``stream``, ``max_tokens`` and ``seed``."""
    opening: bytes
    token: Callable[[Channel, str], bytes]
    closing: bytes
    ending: bytes
    """The last bytes of every stream that is whole."""
    text: Callable[[bytes], str]
    """The text that an event, without the blank line behind it, brings."""
    separator: bytes = b"\n\n"
    """What stands behind every event."""


_HEAD = {"id": "chatcmpl-0f3c9a", "object": "chat.completion.chunk", "created": 1750000000, "model": "mock-reasoner"}
_FIELDS: Mapping[Channel, str] = {"reasoning": "reasoning_content", "answer": "content"}
_CHAT_DONE = b"data: [DONE]"


def _chat_event(delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({**_HEAD, "choices": [choice]}) + b"\n\n"


@cache
def _chat_token(channel: Channel, token: str) -> bytes:
    return _chat_event({_FIELDS[channel]: token})


def _chat_text(event: bytes) -> str:
    if event == _CHAT_DONE:
        return ""
    [choice] = orjson.loads(event.removeprefix(b"data: "))["choices"]
    delta = choice["delta"]
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "")


DIALECTS: Mapping[str, Dialect] = {
    "chat": Dialect(
        path="/v1/chat/completions",
        prompt={
            "messages": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}],
        },
        opening=_chat_event({"role": "assistant", "content": ""}),
        token=_chat_token,
        closing=_chat_event({}, "stop") + _CHAT_DONE + b"\n\n",
        ending=_CHAT_DONE + b"\n\n",
        text=_chat_text,
    ),
}
"""Chat Completions as vLLM shapes it."""
