"""Ollama native: streams of lines and whole documents, the requests, and what the gateway makes of them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from dialect_kit import ask, body, policy, stream

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Prepared, Refused, Route
from cotguard.dialects.ollama import Ollama
from cotguard.policy import Policy

DIALECT = Ollama()
TIME = "2026-01-01T00:00:00.000000Z"


def prepared(action: str = "chat", **fields: object) -> Prepared:
    return ask(DIALECT, action, {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


def line(done: bool = False, **fields: object) -> bytes:
    message = {"role": "assistant", "content": "", **fields}
    return json.dumps({"model": "m", "created_at": TIME, "message": message, "done": done}).encode() + b"\n"


LAST = (
    json.dumps(
        {
            "model": "m",
            "created_at": TIME,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "eval_count": 7,
            "context": [1, 2],
        }
    ).encode()
    + b"\n"
)


def documents(
    lines: Sequence[bytes], moderation: tuple[Policy, tuple[Detector, ...]], request: Prepared, size: int = 10**9
) -> list[dict[str, Any]]:
    out = stream(DIALECT, request, moderation, b"".join(lines), "application/x-ndjson", size)
    return [json.loads(each) for each in out.splitlines()]


def joined(documents: Sequence[dict[str, Any]], name: str) -> str:
    return "".join(each.get("message", {}).get(name) or "" for each in documents)


@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_both_texts_are_moderated_across_lines(balanced: tuple[Policy, tuple[Detector, ...]], size: int) -> None:
    lines = [line(thinking="She is ann.le"), line(thinking="e@example.com, so"), line(content="Card 4111 1111 11")]
    lines += [line(content="11 1111 it is."), LAST]
    found = documents(lines, balanced, prepared(), size)
    assert joined(found, "thinking") == "She is [EMAIL_ADDRESS], so"
    assert joined(found, "content") == "Card [CREDIT_CARD] it is."
    assert (found[-1]["done"], found[-1]["done_reason"], found[-1]["eval_count"]) == (True, "stop", 7)
    assert "context" not in found[-1]
    assert [each["done"] for each in found[:-1]] == [False] * (len(found) - 1)


def test_calls_of_declared_tools_are_moderated_as_values(balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    calls = [
        {"function": {"name": name, "arguments": {"to": "ann.lee@example.com", "n": 4111111111111111}}}
        for name in ("send", "other")
    ]
    request = prepared(tools=[{"type": "function", "function": {"name": "send"}}])
    found = documents([line(content="I write "), line(tool_calls=calls), line(content="now."), LAST], balanced, request)
    made = [call for each in found for call in each["message"].get("tool_calls", ())]
    assert made == [{"function": {"name": "send", "arguments": {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]"}}}]
    assert joined(found, "content") == "I write now."


def test_a_block_ends_the_stream_with_a_notice() -> None:
    found = documents([line(content="so ann.lee@example.com is"), line(content="more")], policy("block"), prepared())
    assert joined(found, "content") == "so " + CUT_NOTICE
    assert found[-1]["done"] is True


def test_a_fault_ends_the_stream_with_an_error(balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    found = documents([line(content="so it goes on and on. 4111"), b"{nonsense\n"], balanced, prepared())
    assert joined(found[:-1], "content") == "so it goes on and on. "
    assert found[-1]["code"] == ErrorKind.UPSTREAM_INVALID
    reported = documents([line(content="a b c"), b'{"error": "secret words"}\n'], balanced, prepared())
    assert reported[-1] == {"error": "The upstream reported an error."}


def test_a_whole_document(balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    document = json.loads(LAST)
    document["message"] |= {
        "thinking": "ann.lee@example.com asks",
        "content": "4111 1111 1111 1111",
        "images": ["AAAA"],
    }
    out = json.loads(body(DIALECT, prepared(), balanced, json.dumps(document).encode()))
    assert out["message"] == {"role": "assistant", "thinking": "[EMAIL_ADDRESS] asks", "content": "[CREDIT_CARD]"}
    assert "context" not in out


def test_requests() -> None:
    assert prepared().stream
    assert not prepared(stream=False).stream
    request = prepared(messages=[{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}])
    assert (request.facts.system_prompts, request.facts.user) == (("be kind",), "hello")
    assert "logprobs" not in prepared(logprobs=True).document
    with pytest.raises(Refused):
        prepared(_debug_render_only=True)


def test_routes() -> None:
    assert Route("POST", "/api/chat", "chat", "/api/chat") in DIALECT.routes
    assert any(route.refused for route in DIALECT.routes)
