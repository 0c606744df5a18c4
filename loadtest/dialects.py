"""The wire formats the mock server speaks and the load generator reads: a table, one row for each.

A row says how a stream opens, how one token is written, what stands between reasoning and answer, how a stream closes,
and how a client gets the text back.
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
    """The text that an event, without what stands behind it, brings."""
    between: bytes = b""
    """Goes with the answer's first token."""
    separator: bytes = b"\n\n"
    """What stands behind every event."""
    content_type: str = "text/event-stream"


_MODEL = "mock-reasoner"
_MESSAGES = {"messages": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}]}


def _sse(document: object, name: str = "") -> bytes:
    data = b"data: " + orjson.dumps(document) + b"\n\n"
    return b"event: " + name.encode() + b"\n" + data if name else data


def _document(event: bytes) -> dict[str, object]:
    """What an event of a stream of server-sent events holds; nothing for ``[DONE]``."""
    data = event.rpartition(b"data: ")[2]
    document: dict[str, object] = orjson.loads(data) if data.startswith(b"{") else {}
    return document


def _strings(value: object, names: frozenset[str]) -> str:
    """All strings under ``names``, in order."""
    if isinstance(value, dict):
        return "".join(
            each if name in names and isinstance(each, str) else _strings(each, names) for name, each in value.items()
        )
    return "".join(_strings(each, names) for each in value) if isinstance(value, list) else ""


def _text_of(*names: str) -> Callable[[bytes], str]:
    found = frozenset(names)
    return lambda event: _strings(_document(event), found)


_CHAT_HEAD = {"id": "chatcmpl-0f3c9a", "object": "chat.completion.chunk", "created": 1750000000, "model": _MODEL}
_CHAT_FIELDS: Mapping[Channel, str] = {"reasoning": "reasoning_content", "answer": "content"}
_DONE = b"data: [DONE]\n\n"


def _chat_event(delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _sse({**_CHAT_HEAD, "choices": [choice]})


@cache
def _chat_token(channel: Channel, token: str) -> bytes:
    return _chat_event({_CHAT_FIELDS[channel]: token})


_BLOCKS: Mapping[Channel, tuple[int, str, str]] = {
    "reasoning": (0, "thinking_delta", "thinking"),
    "answer": (1, "text_delta", "text"),
}


def _anthropic(name: str, **fields: object) -> bytes:
    return _sse({"type": name, **fields}, name)


@cache
def _anthropic_token(channel: Channel, token: str) -> bytes:
    index, kind, name = _BLOCKS[channel]
    return _anthropic("content_block_delta", index=index, delta={"type": kind, name: token})


def _block(index: int, **fields: str) -> bytes:
    return _anthropic("content_block_start", index=index, content_block=fields)


_MESSAGE: Mapping[str, object] = {
    "id": "msg_0f3c9a",
    "type": "message",
    "role": "assistant",
    "model": _MODEL,
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 30, "output_tokens": 1},
}
_MESSAGE_STOP = _anthropic("message_stop")

_OLLAMA_FIELDS: Mapping[Channel, str] = {"reasoning": "thinking", "answer": "content"}


def _ollama(*, done: bool, **fields: str) -> bytes:
    message = {"role": "assistant", "content": "", **fields}
    last = {"done_reason": "stop", "eval_count": 1} if done else {}
    head = {"model": _MODEL, "created_at": "2026-01-01T00:00:00.000000Z"}
    return orjson.dumps({**head, "message": message, "done": done, **last}) + b"\n"


@cache
def _ollama_token(channel: Channel, token: str) -> bytes:
    return _ollama(done=False, **{_OLLAMA_FIELDS[channel]: token})


def _ollama_text(line: bytes) -> str:
    message = orjson.loads(line)["message"] if line else {}
    return (message.get("thinking") or "") + (message.get("content") or "")


@cache
def _completion_token(_channel: Channel, token: str) -> bytes:
    choice = {"index": 0, "text": token, "logprobs": None, "finish_reason": None}
    return _sse(
        {"id": "cmpl-0f3c9a", "object": "text_completion", "created": 1750000000, "model": _MODEL, "choices": [choice]}
    )


_RESPONSE = {
    "id": "resp_0f3c9a",
    "object": "response",
    "created_at": 1750000000,
    "model": _MODEL,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
_TEXTS: Mapping[Channel, tuple[str, int]] = {
    "reasoning": ("response.reasoning_text.delta", 0),
    "answer": ("response.output_text.delta", 1),
}


def _responses(kind: str, **fields: object) -> bytes:
    return _sse({"type": kind, "sequence_number": 0, **fields}, kind)


@cache
def _responses_token(channel: Channel, token: str) -> bytes:
    kind, output = _TEXTS[channel]
    return _responses(kind, item_id=f"item_{output}", output_index=output, content_index=0, delta=token)


def _responses_text(event: bytes) -> str:
    document = _document(event)
    delta = document.get("delta")
    return delta if isinstance(delta, str) else ""


def _item(output: int, *, done: bool) -> bytes:
    """An item without its texts: they are those of its deltas."""
    status = "completed" if done else "in_progress"
    kind = {"type": "message", "role": "assistant"} if output else {"type": "reasoning", "summary": []}
    item = {"id": f"item_{output}", "status": status, "content": [], **kind}
    return _responses(f"response.output_item.{'done' if done else 'added'}", output_index=output, item=item)


_RESPONSE_DONE = _responses("response.completed", response={**_RESPONSE, "status": "completed", "output": []})
_THOUGHT: Mapping[Channel, dict[str, bool]] = {"reasoning": {"thought": True}, "answer": {}}


def _gemini(part: Mapping[str, object], **candidate: object) -> bytes:
    content = {"parts": [part], "role": "model"}
    return _sse({"candidates": [{"content": content, "index": 0, **candidate}], "modelVersion": _MODEL})


@cache
def _gemini_token(channel: Channel, token: str) -> bytes:
    return _gemini({"text": token, **_THOUGHT[channel]})


DIALECTS: Mapping[str, Dialect] = {
    "chat": Dialect(
        path="/v1/chat/completions",
        prompt=_MESSAGES,
        opening=_chat_event({"role": "assistant", "content": ""}),
        token=_chat_token,
        closing=_chat_event({}, "stop") + _DONE,
        ending=_DONE,
        text=_text_of("reasoning_content", "content"),
    ),
    "anthropic": Dialect(
        path="/v1/messages",
        prompt={"system": SYSTEM_PROMPT, "messages": [{"role": "user", "content": QUESTION}]},
        opening=_anthropic("message_start", message=_MESSAGE) + _block(0, type="thinking", thinking="", signature=""),
        token=_anthropic_token,
        between=_anthropic("content_block_stop", index=0) + _block(1, type="text", text=""),
        closing=_anthropic("content_block_stop", index=1)
        + _anthropic(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 9}
        )
        + _MESSAGE_STOP,
        ending=_MESSAGE_STOP,
        text=_text_of("thinking", "text"),
    ),
    "responses": Dialect(
        path="/v1/responses",
        prompt={"instructions": SYSTEM_PROMPT, "input": QUESTION},
        opening=_responses("response.created", response={**_RESPONSE, "status": "in_progress", "output": []})
        + _item(0, done=False),
        token=_responses_token,
        between=_item(0, done=True) + _item(1, done=False),
        closing=_item(1, done=True) + _RESPONSE_DONE,
        ending=b"\n\n",
        text=_responses_text,
    ),
    "gemini": Dialect(
        path="/v1beta/models/mock-reasoner:streamGenerateContent",
        prompt={
            "systemInstruction": {"parts": [{"text": SYSTEM_PROMPT}]},
            "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
        },
        opening=b"",
        token=_gemini_token,
        closing=_gemini({"text": ""}, finishReason="STOP"),
        ending=b"\n\n",
        text=_text_of("text"),
    ),
    "ollama": Dialect(
        path="/api/chat",
        prompt=_MESSAGES,
        opening=b"",
        token=_ollama_token,
        closing=_ollama(done=True),
        ending=b"}\n",
        text=_ollama_text,
        separator=b"\n",
        content_type="application/x-ndjson",
    ),
    "completions": Dialect(
        path="/v1/completions",
        prompt={"prompt": QUESTION},
        opening=b"",
        token=_completion_token,
        closing=_completion_token("answer", "").replace(b'"finish_reason":null', b'"finish_reason":"stop"') + _DONE,
        ending=_DONE,
        text=_text_of("text"),
    ),
}
"""Chat Completions as vLLM shapes it; the others as their own servers do."""
