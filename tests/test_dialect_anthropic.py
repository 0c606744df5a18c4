"""Anthropic Messages: streams and whole messages, the requests, and what the SDK makes of them."""

import functools
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, Moderation, ask, body, exchange, policy, shadow, spellings, spoil, stream
from planted import PLANTED, Planted, carried

from cotguard.dialects.anthropic.dialect import Anthropic
from cotguard.dialects.anthropic.format import CUT_NOTICE
from cotguard.dialects.anthropic.stream import MAX_BLOCKS, MAX_PENDING_CHARS, MessagesStream
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import ErrorKind, Prepared, Refused
from cotguard.dialects.routes import Router
from cotguard.framing.ndjson import NDJSON
from cotguard.http.headers import request_headers, response_headers

DIALECT = Anthropic()
MODEL = "claude-opus-5"
TOOLS = [{"name": "send", "input_schema": {"type": "object"}}]


def prepared(**fields: object) -> Prepared:
    request = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
    return ask(DIALECT, "messages", {**request, **fields})


# Recordings by hand.


def sse(*documents: dict[str, Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in documents)


def started(**fields: object) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": usage}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, **fields}}


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    changes = [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
    start = {"type": "content_block_start", "index": index, "content_block": content}
    return [start, *changes, {"type": "content_block_stop", "index": index}]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": each} for each in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def thinking(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": each} for each in pieces]
    deltas.append({"type": "signature_delta", "signature": CANARY})
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def call(index: int, *pieces: str, name: str = "send", kind: str = "tool_use") -> list[dict[str, Any]]:
    deltas = [{"type": "input_json_delta", "partial_json": each} for each in pieces]
    return block(index, {"type": kind, "id": f"toolu_{index}", "name": name, "input": {}}, *deltas)


def ended(reason: str = "end_turn", **fields: object) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None, **fields}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}, {"type": "message_stop"}]


def client(data: bytes, *, streamed: bool) -> anthropic.Anthropic:
    kind = "text/event-stream" if streamed else "application/json"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": kind})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="none", base_url="http://upstream", http_client=transport, max_retries=0)


def sdk_stream(data: bytes) -> dict[str, Any]:
    """The message that the SDK's accumulator makes of a stream."""
    with client(data, streamed=True).beta.messages.stream(model="m", max_tokens=9, messages=[]) as events:
        return events.get_final_message().to_dict(mode="json")


def sdk_body(data: bytes) -> dict[str, Any]:
    """The message that the SDK reads from a whole body."""
    return client(data, streamed=False).beta.messages.create(model="m", max_tokens=9, messages=[]).to_dict(mode="json")


def events(data: bytes) -> list[dict[str, Any]]:
    """The documents of a stream; names are their types, blocks are numbered without gaps and one at a time."""
    found = []
    count, open_ = 0, -1
    for each in data.decode().strip().split("\n\n"):
        name, _, document = each.partition("\n")
        found.append(json.loads(document.removeprefix("data: ")))
        kind = found[-1]["type"]
        assert name == f"event: {kind}"
        if kind == "content_block_start":
            assert (open_, found[-1]["index"]) == (-1, count)
            open_, count = count, count + 1
        elif kind.startswith("content_block"):
            assert found[-1]["index"] == open_
            open_ = -1 if kind == "content_block_stop" else open_
        elif kind != "error":
            assert open_ == -1
    return found


def message(
    documents: Sequence[dict[str, Any]], moderation: Moderation, request: Prepared | None = None, size: int = 10**9
) -> dict[str, Any]:
    """What the SDK has of a stream that was read in pieces of ``size`` bytes."""
    out = stream(DIALECT, request or prepared(), moderation, sse(*documents), size=size)
    events(out)
    return sdk_stream(out)


def whole(blocks: Sequence[dict[str, Any]], **fields: object) -> bytes:
    return json.dumps({**started(content=blocks, stop_reason="end_turn")["message"], **fields}).encode()


def delivered(found: dict[str, Any]) -> list[str]:
    """Every text of a message's blocks."""
    return [each.get("text", each.get("thinking")) for each in found["content"] if each["type"] in ("text", "thinking")]


@functools.cache
def redacting(*values: str) -> Moderation:
    return policy("redact", *values)


# Texts.


@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_texts_are_moderated_across_deltas(balanced: Moderation, size: int) -> None:
    documents = [started(), *thinking(0, "She is ann.le", "e@example.com, so"), {"type": "ping"}]
    documents += [*text(1, "Card 4111 1111 11", "11 1111 it is."), *ended("max_tokens")]
    found = message(documents, balanced, size=size)
    assert delivered(found) == ["She is [EMAIL_ADDRESS], so", "Card [CREDIT_CARD] it is."]
    assert (found["id"], found["stop_reason"]) == ("msg_1", "max_tokens")
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (3, 7)
    assert found["content"][0]["signature"] == ""


def test_a_start_that_holds_text_is_moderated_with_the_deltas(balanced: Moderation) -> None:
    more = {"type": "text_delta", "text": "e@example.com, so"}
    cited = {"type": "char_location", "cited_text": "from bob@example.org ", "document_index": 0}
    content = {"type": "text", "text": "She is ann.le", "citations": [cited]}
    out = stream(DIALECT, prepared(), balanced, sse(started(), *block(0, content, more), *ended()))
    start = next(each for each in events(out) if each["type"] == "content_block_start")
    assert start["content_block"] == {"type": "text", "text": "", "citations": []}
    (found,) = sdk_stream(out)["content"]
    assert found["text"] == "She is [EMAIL_ADDRESS], so"
    assert [each["cited_text"] for each in found["citations"]] == ["from [EMAIL_ADDRESS] "]


def test_a_message_that_starts_with_its_content(balanced: Moderation) -> None:
    called = {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"to": "ann.lee@example.com"}}
    content = [{"type": "text", "text": "To ann.lee@example.com:"}, called]
    found = message([started(content=content, stop_reason="tool_use"), {"type": "message_stop"}], balanced)
    assert found["content"][0]["text"] == "To [EMAIL_ADDRESS]:"
    assert found["content"][1]["input"] == {"to": "[EMAIL_ADDRESS]"}
    assert found["stop_reason"] == "tool_use"


@pytest.mark.parametrize("size", [1, 13, 10**9])
def test_a_value_across_two_blocks(balanced: Moderation, size: int) -> None:
    for rest in ("", ", and that is all there is to say about it."):
        for first in (thinking, text):
            documents = [started(), *first(0, "It is 4111 1111 "), *text(1, "1111 1111" + rest), *ended()]
            found = message(documents, balanced, size=size)
            assert delivered(found) == ["It is [CREDIT_CARD]", "[CREDIT_CARD]" + rest]


def test_a_value_across_two_blocks_of_a_whole_message(balanced: Moderation) -> None:
    for rest in ("", ", and that is all there is to say about it."):
        blocks = [{"type": "thinking", "thinking": "4111 1111 "}, {"type": "text", "text": "1111 1111" + rest}]
        found = sdk_body(body(DIALECT, prepared(), balanced, whole(blocks)))
        assert delivered(found) == ["[CREDIT_CARD]", "[CREDIT_CARD]" + rest]


def test_ciphertext_is_stripped_and_leaves_no_gap() -> None:
    documents = [started(), *block(0, {"type": "redacted_thinking", "data": CANARY}), *thinking(1, "so")]
    documents += [*block(2, {"type": "x_new", "text": CANARY}, {"type": "text_delta", "text": CANARY}), *text(3, "it")]
    out = stream(DIALECT, prepared(), shadow(), sse(*documents, *ended()))
    assert CANARY.encode() not in out
    assert [each["type"] for each in sdk_stream(out)["content"]] == ["thinking", "text"]
    blocks = [
        {"type": "redacted_thinking", "data": CANARY},
        {"type": "thinking", "thinking": "so", "signature": CANARY},
    ]
    out = body(DIALECT, prepared(), shadow(), whole(blocks))
    assert json.loads(out)["content"] == [{"type": "thinking", "thinking": "so", "signature": ""}]


# Calls.


@pytest.mark.parametrize("size", [1, 17, 10**9])
def test_calls_of_declared_tools_come_whole(balanced: Moderation, size: int) -> None:
    documents = [
        started(),
        *text(0, "I write."),
        *call(1, "", '{"to": "ann.l', 'ee@example.com", "n": 4111111', "111111111}"),
    ]
    documents += [*call(2, '{"a": 1}', name="other"), *call(3), *ended("tool_use")]
    found = message(documents, balanced, size=size)
    assert [each["type"] for each in found["content"]] == ["text", "tool_use", "tool_use"]
    assert found["content"][1]["input"] == {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]"}
    assert (found["content"][2]["id"], found["content"][2]["input"]) == ("toolu_3", {})
    assert found["stop_reason"] == "tool_use"


def test_a_stop_for_a_call_that_was_dropped_ends_the_turn() -> None:
    documents = [started(), *call(0, "{}", name="other"), *ended("tool_use")]
    assert message(documents, shadow())["stop_reason"] == "end_turn"
    called = {"type": "tool_use", "id": "toolu_1", "name": "other", "input": {}}
    out = sdk_body(body(DIALECT, prepared(), shadow(), whole([called], stop_reason="tool_use")))
    assert (out["content"], out["stop_reason"]) == ([], "end_turn")


def test_calls_side_by_side(balanced: Moderation) -> None:
    first, second = call(0, '{"a": 1}'), call(1, '{"b": "ann.lee@example.com"}')
    both = [first[0], second[0], first[1], second[1], first[2], second[2]]
    found = message([started(), *both, *ended("tool_use")], balanced)
    assert [each["input"] for each in found["content"]] == [{"a": 1}, {"b": "[EMAIL_ADDRESS]"}]


def test_arguments_that_the_upstream_ended_in_the_middle_stay_as_they_are() -> None:
    found = message([started(), *call(0, '{"to": ["a", "b'), *ended("max_tokens")], shadow())
    assert found["content"][0]["input"] == {"to": ["a"]}


def test_blocks_have_a_limit() -> None:
    many = [each for index in range(MAX_BLOCKS + 1) for each in text(index)]
    out = stream(DIALECT, prepared(), shadow(), sse(started(), *many, *ended()))
    assert events(out)[-1]["error"]["code"] == ErrorKind.UPSTREAM_INVALID


def test_arguments_have_a_limit() -> None:
    pieces = ["x" * (MAX_PENDING_CHARS // 4)] * 5
    last = events(stream(DIALECT, prepared(), shadow(), sse(started(), *call(0, *pieces), *ended())))[-1]
    assert (last["type"], last["error"]["code"]) == ("error", ErrorKind.UPSTREAM_INVALID)


def test_tools_by_other_declarations() -> None:
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "later"}}}
    request = prepared(
        tools=[{"type": "browser_toolset_20260801"}, {"type": "web_search_20250305", "name": "web_search"}],
        messages=[{"role": "user", "content": "x"}, {"role": "system", "content": [added]}],
    )
    assert {"navigate", "web_search", "later"} <= request.tools
    assert "cursor_position" not in request.tools


# What a server's own tools say. Each text that they may hold, and each copy that is to be dropped.

_ID = {"tool_use_id": "srvtoolu_1"}


def result(kind: str, **content: object) -> dict[str, Any]:
    return {"type": f"{kind}_tool_result", **_ID, "content": {"type": f"{kind}_result", **content}}


def fetched(**fields: object) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": "d"}
    return result("web_fetch", url="u", content={"type": "document", "title": "t", "source": source, **fields})


def found_page(**fields: object) -> dict[str, Any]:
    page = {"type": "web_search_result", "title": "t", "url": "u", "page_age": "a", **fields}
    return {"type": "web_search_tool_result", **_ID, "content": [page]}


def edited(kind: str, **fields: object) -> dict[str, Any]:
    content = {"type": f"text_editor_code_execution_{kind}", **fields}
    return {"type": "text_editor_code_execution_tool_result", **_ID, "content": content}


def cited(kind: str, **fields: object) -> dict[str, Any]:
    return {"type": "text", "text": "so", "citations": [{"type": kind, "cited_text": "c", **fields}]}


def mcp_call(**fields: object) -> dict[str, Any]:
    return {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "n", "server_name": "s", "input": {}, **fields}


def searched(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_search_tool_result", **_ID, "content": content}


def listing(**fields: object) -> dict[str, Any]:
    return {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": [{"name": "n", "input_schema": {}, **fields}]}


SAID = f"so {CANARY} is"
MODERATED: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": SAID},
    "thinking": {"type": "thinking", "thinking": SAID, "signature": ""},
    "tool_use.input": {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"a": [SAID]}},
    "tool_use.input key": {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {SAID: 1}},
    "server_tool_use.input": {"type": "server_tool_use", "id": "s_1", "name": "web_search", "input": {"query": SAID}},
    "mcp_tool_use.input": mcp_call(input={"a": SAID}),
    "mcp_tool_use.name": mcp_call(name=SAID),
    "mcp_tool_use.server_name": mcp_call(server_name=SAID),
    "mcp_tool_result string": {"type": "mcp_tool_result", **_ID, "is_error": False, "content": SAID},
    "mcp_tool_result text": {"type": "mcp_tool_result", **_ID, "content": [{"type": "text", "text": SAID}]},
    "mcp_tool_listing.name": listing(name=SAID),
    "mcp_tool_listing.description": listing(description=SAID),
    "mcp_tool_listing.input_schema": listing(input_schema={"description": SAID}),
    "web_search.title": found_page(title=SAID),
    "web_search.url": found_page(url=SAID),
    "web_search.page_age": found_page(page_age=SAID),
    "web_fetch.url": result("web_fetch", url=SAID),
    "web_fetch.title": fetched(title=SAID),
    "web_fetch.data": fetched(source={"type": "text", "media_type": "text/plain", "data": SAID}),
    "code_execution.stdout": result("code_execution", stdout=SAID, stderr="", return_code=0, content=[]),
    "code_execution.stderr": result("code_execution", stdout="", stderr=SAID, return_code=0, content=[]),
    "encrypted_code_execution.stderr": {
        "type": "code_execution_tool_result",
        **_ID,
        "content": {"type": "encrypted_code_execution_result", "stderr": SAID, "return_code": 0},
    },
    "bash.stdout": result("bash_code_execution", stdout=SAID, stderr="", return_code=0),
    "bash.stderr": result("bash_code_execution", stdout="", stderr=SAID, return_code=0),
    "text_editor.view": edited("view_result", content=SAID, file_type="text"),
    "text_editor.lines": edited("str_replace_result", lines=["-a", SAID]),
    "text_editor.error": edited("tool_result_error", error_code="unavailable", error_message=SAID),
    "tool_search.tool_name": searched(
        {"type": "tool_search_tool_search_result", "tool_references": [{"type": "tool_reference", "tool_name": SAID}]}
    ),
    "tool_search.error": searched({"type": "tool_search_tool_result_error", "error_message": SAID}),
    "advisor": {"type": "advisor_tool_result", **_ID, "content": {"type": "advisor_result", "text": SAID}},
    "compaction": {"type": "compaction", "content": SAID},
    "char_location.cited_text": cited("char_location", cited_text=SAID, document_index=0),
    "char_location.document_title": cited("char_location", document_title=SAID),
    "page_location.cited_text": cited("page_location", cited_text=SAID),
    "page_location.document_title": cited("page_location", document_title=SAID),
    "content_block_location.cited_text": cited("content_block_location", cited_text=SAID),
    "content_block_location.document_title": cited("content_block_location", document_title=SAID),
    "search_result_location.cited_text": cited("search_result_location", cited_text=SAID),
    "search_result_location.source": cited("search_result_location", source=SAID),
    "search_result_location.title": cited("search_result_location", title=SAID),
    "web_search_result_location.cited_text": cited("web_search_result_location", cited_text=SAID),
    "web_search_result_location.url": cited("web_search_result_location", url=SAID),
    "web_search_result_location.title": cited("web_search_result_location", title=SAID),
}
DROPPED: dict[str, dict[str, Any]] = {
    "thinking.signature": {"type": "thinking", "thinking": "so", "signature": CANARY},
    "redacted_thinking": {"type": "redacted_thinking", "data": CANARY},
    "server_tool_use.name": {"type": "server_tool_use", "id": "s_1", "name": CANARY, "input": {}},
    "tool_use.name list": {"type": "tool_use", "id": "toolu_1", "name": [CANARY], "input": {}},
    "tool_use.name": {"type": "tool_use", "id": "toolu_1", "name": CANARY, "input": {}},
    "tool_use.caller": {"type": "tool_use", "id": "t", "name": "send", "input": {}, "caller": {"type": CANARY}},
    "tool_use.toolset_name": {"type": "tool_use", "id": "t", "name": "send", "input": {}, "toolset_name": CANARY},
    "web_search.encrypted_content": found_page(encrypted_content=CANARY),
    "web_search.error": {
        "type": "web_search_tool_result",
        **_ID,
        "content": {"type": "web_search_tool_result_error", "error_code": CANARY},
    },
    "web_fetch.pdf": fetched(source={"type": "base64", "media_type": "application/pdf", "data": CANARY}),
    "web_fetch.media_type": fetched(source={"type": "text", "media_type": CANARY, "data": "d"}),
    "web_fetch.retrieved_at": result("web_fetch", url="u", retrieved_at=CANARY),
    "code_execution.content": result(
        "code_execution", stdout="", stderr="", content=[{"type": "code_execution_output", "text": CANARY}]
    ),
    "encrypted_stdout": {
        "type": "code_execution_tool_result",
        **_ID,
        "content": {"type": "encrypted_code_execution_result", "stderr": "", "encrypted_stdout": CANARY},
    },
    "text_editor.file_type": edited("view_result", content="c", file_type=CANARY),
    "advisor.stop_reason": {
        "type": "advisor_tool_result",
        **_ID,
        "content": {"type": "advisor_result", "text": "a", "stop_reason": CANARY},
    },
    "advisor.encrypted": {
        "type": "advisor_tool_result",
        **_ID,
        "content": {"type": "advisor_redacted_result", "encrypted_content": CANARY},
    },
    "container_upload.name": {"type": "container_upload", "file_id": "f", "name": CANARY},
    "compaction.encrypted_content": {"type": "compaction", "content": "c", "encrypted_content": CANARY},
    "compaction.signature": {"type": "compaction", "content": "c", "signature": CANARY},
    "compaction.tool_changes": {"type": "compaction", "content": "c", "tool_changes": [{"type": CANARY}]},
    "fallback.trigger": {
        "type": "fallback",
        "from": {"model": "a"},
        "to": {"model": "b"},
        "trigger": {"type": "refusal", "category": CANARY},
    },
    "citation.encrypted_index": cited("web_search_result_location", url="u", encrypted_index=CANARY),
    "citation.file_id": cited("char_location", file_id=CANARY + " "),
    "citation type": cited("x_new", title=CANARY),
    "result type": result("x_new", text=CANARY),
}


@pytest.mark.parametrize("content", [pytest.param(each, id=name) for name, each in MODERATED.items()])
def test_every_text_of_a_block_is_moderated(content: dict[str, Any]) -> None:
    moderation = redacting(CANARY)
    documents = [started(), *block(0, content), *text(1, "ok"), *ended()]
    for size in (1, 10**9):
        out = stream(DIALECT, prepared(), moderation, sse(*documents), size=size)
        events(out)
        assert CANARY not in out.decode()
        assert "so [" in json.dumps(sdk_stream(out))
        assert sdk_stream(out)["content"][1]["text"] == "ok"
    out = body(DIALECT, prepared(), moderation, whole([content, {"type": "text", "text": "ok"}]))
    assert CANARY not in out.decode()
    assert b"so [" in out
    assert sdk_body(out)["content"][1]["text"] == "ok"


@pytest.mark.parametrize("content", [pytest.param(each, id=name) for name, each in DROPPED.items()])
def test_what_is_no_text_is_dropped(content: dict[str, Any]) -> None:
    out = stream(DIALECT, prepared(), shadow(), sse(started(), *block(0, content), *text(1, "ok"), *ended()))
    events(out)
    assert CANARY not in out.decode()
    assert sdk_stream(out)["content"][-1]["text"] == "ok"
    out = body(DIALECT, prepared(), shadow(), whole([content, {"type": "text", "text": "ok"}]))
    assert CANARY not in out.decode()
    assert sdk_body(out)["content"][-1]["text"] == "ok"


AROUND: dict[str, dict[str, Any]] = {
    "id": {"id": CANARY + " "},
    "model": {"model": CANARY + "\n"},
    "role": {"role": CANARY},
    "stop_reason": {"stop_reason": CANARY},
    "stop_sequence": {"stop_sequence": CANARY},
    "stop_details": {"stop_details": {"type": CANARY, "category": CANARY, "fallback_credit_token": CANARY}},
    "container": {"container": {"id": "c", "expires_at": CANARY, "skills": [{"skill_id": CANARY}]}},
    "diagnostics": {"diagnostics": {"cache_miss_reason": {"type": CANARY}}},
    "context_management": {"context_management": {"applied_edits": [{"type": CANARY, "text": CANARY}]}},
    "input_transformations": {"input_transformations": [{"type": CANARY, "path": CANARY}]},
    "usage": {"usage": {"output_tokens": 1, "service_tier": CANARY, "iterations": [{"type": CANARY}], "speed": CANARY}},
}


@pytest.mark.parametrize("fields", [pytest.param(each, id=name) for name, each in AROUND.items()])
def test_what_surrounds_blocks_holds_no_text(fields: dict[str, Any]) -> None:
    last, stop = ended(**fields)
    outer: dict[str, Any] = {
        name: fields[name] for name in ("usage", "context_management", "input_transformations") if name in fields
    }
    out = stream(DIALECT, prepared(), shadow(), sse(started(**fields), *text(0, "ok"), {**last, **outer}, stop))
    assert CANARY not in out.decode()
    assert delivered(sdk_stream(out)) == ["ok"]
    out = body(DIALECT, prepared(), shadow(), whole([{"type": "text", "text": "ok"}], **fields))
    assert CANARY not in out.decode()
    assert delivered(sdk_body(out)) == ["ok"]


def test_deltas_hold_no_other_text() -> None:
    deltas: list[dict[str, Any]] = [
        {"type": "text_delta", "text": "ok", "x": CANARY},
        {"type": "x_delta", "text": CANARY},
    ]
    deltas += [{"type": "thinking_delta", "thinking": CANARY}, {"type": "input_json_delta", "partial_json": CANARY}]
    documents = [started(), *block(0, {"type": "text", "text": ""}, *deltas), {"type": "x_event", "text": CANARY}]
    named = b"event: x\ndata: " + json.dumps(documents[2]).encode().replace(b"ok", CANARY.encode()) + b"\n\n"
    commented = b": " + CANARY.encode() + b"\n\n"
    data = sse(*documents[:3]) + named + commented + sse(*documents[3:], *ended()) + sse(*text(0, CANARY))
    out = stream(DIALECT, prepared(), shadow(), data)
    assert CANARY not in out.decode()
    assert delivered(sdk_stream(out)) == ["ok"]


def test_a_summary_comes_whole(balanced: Moderation) -> None:
    deltas = [
        {"type": "compaction_delta", "content": "She is ann.le"},
        {"type": "compaction_delta", "content": "e@example.com.", "encrypted_content": CANARY},
    ]
    documents = [started(), *block(0, {"type": "compaction", "content": None}, *deltas), *ended("compaction")]
    found = message(documents, balanced, size=1)
    (summary,) = found["content"]
    assert (summary["type"], summary["content"]) == ("compaction", "She is [EMAIL_ADDRESS].")
    assert found["stop_reason"] == "compaction"


def test_citations_follow_their_text(balanced: Moderation) -> None:
    citation = {"type": "page_location", "cited_text": "ann.lee@example.com", "document_index": 0}
    deltas: list[dict[str, Any]] = [{"type": "citations_delta", "citation": citation}]
    deltas += [{"type": "text_delta", "text": "It says 4111 1111"}]
    documents = [started(), *block(0, {"type": "text", "text": "", "citations": []}, *deltas)]
    found = message([*documents, *text(1, " 1111 1111, and that is all there is to say."), *ended()], balanced, size=3)
    assert found["content"][0]["citations"] == [{**citation, "cited_text": "[EMAIL_ADDRESS]"}]
    assert "".join(delivered(found)) == "It says [CREDIT_CARD][CREDIT_CARD], and that is all there is to say."


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.entity)
def test_planted_values_however_they_are_cut(balanced: Moderation, planted: Planted) -> None:
    said = carried(planted)
    label = planted.carrier.format(f"[{planted.entity}]")
    cuts = random.Random(planted.value)
    for _ in range(3):
        pieces: list[str] = []
        while "".join(pieces) != said:
            at = len("".join(pieces))
            pieces.append(said[at : at + cuts.randint(1, 6)])
        arguments = json.dumps({"a": said})
        halves = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
        documents = [started(), *thinking(0, *pieces), *call(1, *halves), *text(2, *pieces), *ended("tool_use")]
        found = message(documents, balanced)
        assert delivered(found) == [label, label]
        assert found["content"][1]["input"] == {"a": label}
    result_block = result("code_execution", stdout=said, stderr=said, return_code=0, content=[])
    blocks = [{"type": "thinking", "thinking": said}, result_block, {"type": "text", "text": said}]
    out = sdk_body(body(DIALECT, prepared(), balanced, whole(blocks)))
    assert delivered(out) == [label, label]
    assert (out["content"][1]["content"]["stdout"], out["content"][1]["content"]["stderr"]) == (label, label)


def random_blocks(random_: random.Random) -> list[dict[str, Any]]:
    """Blocks of all kinds, some with values, whole ones and such as are cut anywhere."""
    documents: list[dict[str, Any]] = []
    for index in range(random_.randint(1, 6)):
        said = "".join(
            random_.choice((carried(random_.choice(PLANTED)), "so it goes ", "4111 1111 ")) for _ in range(2)
        )
        arguments = json.dumps({"a": said})
        at = random_.randint(0, len(said))
        kinds = [
            text(index, said[:at], said[at:]),
            text(index),
            thinking(index, said[:at], said[at:]),
            call(index, arguments[:at], arguments[at:]),
            block(index, result("code_execution", stdout=said)),
            block(index, {"type": "redacted_thinking", "data": said}),
            block(index, {"type": "text", "text": said[:at]}, {"type": "text_delta", "text": said[at:]}),
            block(index, {"type": "compaction", "content": said}),
            block(index, cited("page_location", cited_text=said)),
        ]
        documents += random_.choice(kinds)
    return documents


@pytest.mark.parametrize("seed", range(8))
def test_the_result_does_not_depend_on_how_the_bytes_were_cut(balanced: Moderation, seed: int) -> None:
    random_ = random.Random(seed)
    moderations = [
        balanced,
        policy("withhold"),
        policy("block", entity="CREDIT_CARD"),
        policy("block", entity="US_SSN"),
    ]
    for moderation in moderations * 2:
        documents = [started(), *random_blocks(random_), *ended("tool_use")]
        final = message(documents, moderation)
        for size in (1, random_.randint(2, 300)):
            assert message(documents, moderation, size=size) == final


# Order.


def test_a_second_start_begins_no_second_message() -> None:
    twice = [started(), started(), *text(0, "Hello"), *ended()]
    assert delivered(message(twice, shadow())) == ["Hello"]
    first, unfinished = thinking(0, "I call."), call(1, '{"value": "Spark')[:-1]
    second = [started(id="msg_2"), *thinking(0, "Let me."), *call(1, '{"value": "Sparkle"}'), *ended("tool_use")]
    found = message([started(), *first, *unfinished, *second], shadow(), size=11)
    assert (found["id"], delivered(found)) == ("msg_1", ["I call.", "Let me."])
    assert [each.get("input") for each in found["content"]] == [None, None, {"value": "Sparkle"}]


def test_blocks_that_are_not_ended() -> None:
    finished, unfinished = call(1, '{"a": 1}')[:-1], call(2, '{"a": ')[:-1]
    found = message([started(), *text(0, "ok")[:-1], *finished, *unfinished, *ended("tool_use")], shadow())
    assert [each["type"] for each in found["content"]] == ["text", "tool_use"]


@pytest.mark.parametrize(
    "documents",
    [
        text(0, "a"),
        ended(),
        [started(), {"type": "content_block_delta", "index": 4, "delta": {"type": "text_delta", "text": "a"}}],
        [started(), {"type": "content_block_start", "index": "0", "content_block": {"type": "text", "text": "a"}}],
        [started(), {"type": "content_block_start", "index": 0, "content_block": "a"}],
        [started(), *block(0, {"type": "text", "text": ["a"]})],
        [started(), *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": 7})],
        [{"type": "message_start", "message": None}],
        [started(), {"type": "message_delta", "delta": None}],
    ],
)
def test_a_stream_out_of_order_is_a_fault(documents: list[dict[str, Any]]) -> None:
    out = stream(DIALECT, prepared(), shadow(), sse(*documents))
    assert events(out)[-1]["error"]["code"] == ErrorKind.UPSTREAM_INVALID


def test_other_events_that_end_a_stream() -> None:
    documents = [started(), *text(0, "ok"), ended()[0]]
    assert delivered(message(documents, shadow())) == ["ok"]
    done = sse(*documents, *ended()[1:]) + b"data: [DONE]\n\n"
    assert delivered(sdk_stream(stream(DIALECT, prepared(), shadow(), done))) == ["ok"]
    unnamed = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in [*documents, *ended()[1:]])
    assert delivered(sdk_stream(stream(DIALECT, prepared(), shadow(), unnamed))) == ["ok"]


# Ends.


@pytest.mark.parametrize("size", [1, 10**9])
def test_a_block_ends_the_message_with_a_refusal(size: int) -> None:
    bad = "so ann.lee@example.com is"
    cases = {
        "text": (text(0, bad), ["so "]),
        "thinking": ([*thinking(0, bad), *text(1, "more")], ["so "]),
        # What is on hold when a block is found elsewhere is not written.
        "call": ([*text(0, "I write. "), *call(1, json.dumps({"to": bad})), *text(2, "more")], ["I "]),
        "result": ([*text(0, "I look. "), *block(1, result("code_execution", stdout=bad))], ["I "]),
        "citation": (block(0, cited("char_location", cited_text=bad)), None),
    }
    moderation = policy("block")
    for blocks, said in cases.values():
        out = stream(DIALECT, prepared(), moderation, sse(started(), *blocks, *ended("tool_use")), size=size)
        events(out)
        found = sdk_stream(out)
        assert (found["stop_reason"], found["stop_details"]["explanation"]) == ("refusal", CUT_NOTICE)
        assert found["usage"]["output_tokens"] == 1
        assert {each["type"] for each in found["content"]} <= {"text", "thinking"}
        assert said is None or delivered(found) == said


def test_a_block_ends_a_whole_message_with_a_refusal() -> None:
    called = {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"a": "x", "to": "ann.lee@example.com"}}
    for bad in (called, {"type": "text", "text": "ann.lee@example.com is"}):
        blocks = [{"type": "text", "text": "I write. "}, bad, {"type": "text", "text": "more"}]
        found = sdk_body(body(DIALECT, prepared(), policy("block"), whole(blocks, stop_reason="tool_use")))
        assert (delivered(found), found["stop_reason"]) == (["I write. "], "refusal")


@pytest.mark.parametrize("size", [1, 10**9])
def test_withheld_text_leaves_whole_blocks(size: int) -> None:
    moderation = policy("withhold")
    notice = moderation[0].notice
    said = "so ann.lee@example.com is"
    found = message([started(), *thinking(0, said), *text(1, "ok"), *ended()], moderation, size=size)
    assert delivered(found) == [f"so {notice}", "ok"]
    found = message([started(), *call(0, json.dumps({"to": said})), *ended("tool_use")], moderation)
    assert found["content"][0]["input"] == {"to": f"so {notice}"}


def test_a_fault_ends_the_stream_with_an_error(balanced: Moderation) -> None:
    begun = sse(started(), *text(0, "so it goes on and on. 4111")[:-1])
    ends = {b"data: {nonsense\n\n": ErrorKind.UPSTREAM_INVALID, b"": ErrorKind.UPSTREAM_INTERRUPTED}
    for end, kind in ends.items():
        out = stream(DIALECT, prepared(), balanced, begun + end)
        assert events(out)[-1]["error"] == {**events(out)[-1]["error"], "type": "api_error", "code": kind}
        assert "".join(each["delta"]["text"] for each in events(out)[2:-1]) == "so it goes on and on. "
        with pytest.raises(anthropic.APIStatusError):
            sdk_stream(out)


def test_an_upstreams_error_is_told_by_its_type(balanced: Moderation) -> None:
    begun = sse(started(), *text(0, "so it goes on")[:-1])
    for kind, told in (("overloaded_error", "overloaded_error"), (CANARY, "api_error")):
        error = {"type": "error", "error": {"type": kind, "message": CANARY, "details": {"a": CANARY}}}
        for data in (sse(error), b"data: " + json.dumps(error).encode() + b"\n\n"):
            out = stream(DIALECT, prepared(), balanced, begun + data)
            assert CANARY not in out.decode()
            assert events(out)[-1] == {
                "type": "error",
                "error": {"type": told, "message": "The upstream reported an error."},
            }
            with pytest.raises(anthropic.APIStatusError):
                sdk_stream(out)
        found = json.loads(DIALECT.upstream_error(529, json.dumps(error).encode()))
        assert found["error"] == {"type": told, "message": "The upstream answered with status 529."}
    assert json.loads(DIALECT.upstream_error(500, b"<html>"))["error"]["type"] == "api_error"
    unnamed = stream(DIALECT, prepared(), balanced, begun + b'data: {"error": "' + CANARY.encode() + b'"}\n\n')
    assert events(unnamed)[-1]["error"]["type"] == "api_error"


def test_our_errors_have_the_dialects_shape() -> None:
    for kind, told in ((ErrorKind.BAD_REQUEST, "invalid_request_error"), (ErrorKind.MODERATION_FAILED, "api_error")):
        assert json.loads(DIALECT.error(kind, "No.")) == {
            "type": "error",
            "error": {"type": told, "message": "No.", "code": kind.value},
        }


def test_stop_details_and_sequences() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": SAID}
    request = prepared(stop_sequences=["END"])
    for sequence, told in (("END", "END"), (CANARY, None)):
        documents = [started(), *text(0, "ok"), *ended("stop_sequence", stop_sequence=sequence, stop_details=details)]
        found = message(documents, redacting(CANARY), request)
        assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", told)
        assert found["stop_details"] == {
            **details,
            "explanation": SAID.replace(CANARY, found["stop_details"]["explanation"][3:-3]),
        }
        assert CANARY not in found["stop_details"]["explanation"]
    assert message([started(), *text(0, "ok"), *ended("x_new")], shadow())["stop_reason"] == "end_turn"


# Requests.


def test_requests() -> None:
    request = prepared(
        system=[{"type": "text", "text": "be kind"}],
        stream=True,
        messages=[
            {"role": "system", "content": "and brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        logprobs=True,
        diagnostics={"previous_message_id": None},
    )
    assert (request.facts.system_prompts, request.facts.user) == (("be kind", "and brief"), "hi")
    assert (request.stream, request.tools, request.model) == (True, frozenset({"send"}), MODEL)
    assert request.document.keys() == {"model", "max_tokens", "messages", "tools", "system", "stream"}
    assert prepared(system="be kind").facts.system_prompts == ("be kind",)
    for field in ("api_base", "thread", "mock_response"):
        with pytest.raises(Refused):
            prepared(**{field: {"a": 1}})
    for fields in ({"messages": "x"}, {"tools": [1]}, {"stream": "yes"}):
        with pytest.raises(Refused):
            prepared(**fields)


def test_routes() -> None:
    router = Router(dialects())
    project = "/v1/projects/p/locations/global/publishers/anthropic/models"
    served = {
        "/v1/messages": "messages",
        "/anthropic/v1/messages": "messages",
        "/api/v1/messages": "messages",
        "/v1/messages/count_tokens": "count_tokens",
        f"{project}/claude-sonnet-4@20250514:streamRawPredict": "messages",
        f"{project}/claude-sonnet-4@20250514:rawPredict": "messages",
        f"{project}/count-tokens:rawPredict": "count_tokens",
    }
    for path, action in served.items():
        match = router.find("POST", path)
        assert (match.dialect.name, match.route.action, match.upstream) == ("anthropic", action, path)
    assert "beta" in router.find("POST", "/v1/messages").route.query
    for path in ("/v1/messages/batches", "/v1/messages/batches/b_1/results", "/v1/complete", "/v1/sessions/s_1"):
        with pytest.raises(Refused, match="moderated"):
            router.find("POST", path)
    vertex = router.find("POST", f"{project}/claude-sonnet-4@20250514:rawPredict")
    assert ask(DIALECT, "messages", {"messages": []}, vertex.parameters).model == "claude-sonnet-4@20250514"


def test_headers() -> None:
    sent = {"Anthropic-Version": "2023-06-01", "anthropic-beta": "a", "anthropic-dangerous": "b"}
    assert request_headers(sent).keys() & {"anthropic-version", "anthropic-beta", "anthropic-dangerous"} == {
        "anthropic-version",
        "anthropic-beta",
    }
    told = {"anthropic-ratelimit-tokens-remaining": "1", "anthropic-organization-id": "o"}
    assert response_headers(told) == {"anthropic-ratelimit-tokens-remaining": "1"}


def test_counts() -> None:
    data = json.dumps({"input_tokens": 5, "text": CANARY, "context_management": {"original_input_tokens": 9}}).encode()
    found = json.loads(DIALECT.lookup(data, "count_tokens"))
    assert found == {"input_tokens": 5, "context_management": {"original_input_tokens": 9}}


def test_any_framing_will_do(balanced: Moderation) -> None:
    documents = [started(), *text(0, "It is ann.lee@example.com."), *ended()]
    translator = MessagesStream(NDJSON(), DIALECT.form, prepared(), exchange(balanced))
    out = translator.receive(b"".join(json.dumps(each).encode() + b"\n" for each in documents))
    assert translator.finished
    assert [json.loads(line)["type"] for line in out.splitlines()] == [each["type"] for each in documents]
    assert b"It is [EMAIL_ADDRESS]." in out


# Through the gateway.


async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy()
    async with anthropic.AsyncAnthropic(api_key="none", base_url=proxy.url, max_retries=0) as asking:
        await ask_through_the_gateway(asking, upstream)


async def ask_through_the_gateway(client_: anthropic.AsyncAnthropic, upstream: Upstream) -> None:
    said = "It is ann.lee@example.com, I think."
    data = sse(started(), *thinking(0, said), *call(1, json.dumps({"to": said})), *text(2, said), *ended("tool_use"))
    headers: dict[str, str] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        headers.update(request.headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for at in range(0, len(data), 100):
            await response.write(data[at : at + 100])
        return response

    upstream.handler = answer
    asked: Any = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
    async with client_.beta.messages.stream(**asked, betas=["some-beta"]) as events_:
        found: dict[str, Any] = (await events_.get_final_message()).to_dict(mode="json")
    assert delivered(found) == ["It is [EMAIL_ADDRESS], I think."] * 2
    assert found["content"][1]["input"] == {"to": "It is [EMAIL_ADDRESS], I think."}
    assert headers["anthropic-version"]
    assert headers["anthropic-beta"] == "some-beta"

    async def answer_whole(_: web.Request) -> web.Response:
        return web.Response(body=whole([{"type": "text", "text": said}]), content_type="application/json")

    upstream.handler = answer_whole
    found = (await client_.messages.create(**asked)).to_dict(mode="json")
    assert delivered(found) == ["It is [EMAIL_ADDRESS], I think."]

    async def answer_count(_: web.Request) -> web.Response:
        return web.json_response({"input_tokens": 5})

    upstream.handler = answer_count
    counted = await client_.messages.count_tokens(model=MODEL, messages=asked["messages"], tools=asked["tools"])
    assert counted.input_tokens == 5

    async def overloaded(_: web.Request) -> web.Response:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": CANARY}}
        return web.json_response(error, status=529)

    upstream.handler = overloaded
    with pytest.raises(anthropic.APIStatusError) as raised:
        await client_.messages.create(**asked)
    assert CANARY not in str(raised.value)
    assert raised.value.status_code == 529


# Recordings of others, beside the repository.

FORM = Path(__file__).resolve().parents[1] / "cotguard" / "dialects" / "anthropic" / "anthropic.yaml"
FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
recorded = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings beside the repository")


def recordings(suffixes: tuple[str, ...]) -> Iterator[Path]:
    manifest = FIXTURES / "MANIFEST.tsv"
    if manifest.is_file():
        for line in manifest.read_text("utf-8").splitlines()[1:]:
            name, _, kind = line.split("\t")[:3]
            if kind.startswith("anthropic-messages") and name.endswith(suffixes):
                yield FIXTURES / name


def parts(path: Path) -> list[bytes]:
    """The streams of a recording, which may be several behind one another."""
    lines = path.read_text("utf-8").splitlines()
    documents = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith(("{", "data:"))]
    streams: list[bytes] = [b""]
    for each in documents:
        streams[-1] += sse(each)
        if each["type"] == "message_stop":
            streams.append(b"")
    return [each for each in streams if each]


STREAMS = [
    pytest.param(data, id=f"{path.name.removesuffix('.chunks.txt')}-{number}")
    for path in recordings((".txt", ".sse"))
    for number, data in enumerate(parts(path))
    if "spliced" not in path.name  # the SDK itself gets lost in it
]
BODIES = [pytest.param(path.read_bytes(), id=path.name) for path in recordings((".json",))]
_STRIPPED = ("encrypted_content", "encrypted_index", "encrypted_stdout", "input_transformations")


def documented(value: Any) -> Any:
    """What the SDK sees of a recording, without what is stripped on purpose."""
    if isinstance(value, list):
        return [documented(each) for each in value if not _is_opaque(each)]
    if isinstance(value, dict):
        kept = {name: documented(each) for name, each in value.items() if name not in _STRIPPED and each is not None}
        return {**kept, "signature": ""} if value.get("type") == "thinking" else kept
    return value


def _is_opaque(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "redacted_thinking"


def request_for(found: dict[str, Any]) -> Prepared:
    names = sorted({each["name"] for each in found["content"] if each["type"] == "tool_use"})
    return prepared(tools=[{"name": name} for name in names])


def views(balanced: Moderation) -> list[Moderation]:
    return [shadow(), shadow(balanced[1])]


_STRUCTURE = (*_STRIPPED, "type", "id", "data", "tool_use_id", "tool_id", "caller", "signature", "model", "from", "to")


def leaves(value: Any) -> Iterator[str]:
    """The texts in a block: strings that are no structure."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in _STRUCTURE:
                yield from leaves(each)


def words(found: dict[str, Any]) -> list[str]:
    """Long words that stand in a message's texts and nowhere else: the longest of some blocks, of every type."""
    structure = FORM.read_text("utf-8") + json.dumps(request_for(found).tools, default=sorted)
    tokens = set(re.findall(r"\w+", " ".join(leaves(found["content"]))))
    by_type: dict[str, str] = {}
    for each in found["content"]:
        kept = re.findall(r"\b[A-Za-z0-9]{5,}\b", " ".join(leaves(each)))
        kept = [word for word in kept if word.lower() not in structure.lower()]
        alone = [word for word in kept if not any(word in token for token in tokens - {word})]
        by_type.setdefault(each["type"], max(alone, key=len, default=""))
    return [word for word in by_type.values() if word]


@recorded
@pytest.mark.parametrize("data", STREAMS)
def test_a_recorded_stream_looks_the_same(data: bytes, balanced: Moderation) -> None:
    seen = sdk_stream(data)
    for moderation in views(balanced):
        joined = set()
        for size in (97, 997, 10**9):
            out = stream(DIALECT, request_for(seen), moderation, data, size=size)
            events(out)
            found = sdk_stream(out)
            assert documented(found) == documented(seen)
            joined.add(json.dumps(found))
        assert len(joined) == 1


@recorded
@pytest.mark.parametrize("data", BODIES)
def test_a_recorded_body_looks_the_same(data: bytes, balanced: Moderation) -> None:
    seen = sdk_body(data)
    for moderation in views(balanced):
        assert documented(sdk_body(body(DIALECT, request_for(seen), moderation, data))) == documented(seen)


@recorded
@pytest.mark.parametrize("data", STREAMS)
def test_a_word_of_a_recording_is_nowhere_in_the_output(data: bytes) -> None:
    seen = sdk_stream(data)
    chosen = words(seen)
    assert chosen or not list(leaves(seen["content"]))
    out = stream(DIALECT, request_for(seen), policy("redact", *chosen), data, size=997)
    assert_gone(chosen, out, sdk_stream(out))


@recorded
@pytest.mark.parametrize("data", BODIES)
def test_a_word_of_a_recorded_body_is_nowhere_in_the_output(data: bytes) -> None:
    seen = sdk_body(data)
    chosen = words(seen)
    out = body(DIALECT, request_for(seen), policy("redact", *chosen), data)
    assert chosen
    assert_gone(chosen, out, sdk_body(out))
    spoiled = json.dumps(spoil(json.loads(data))).encode()
    assert body(DIALECT, request_for(seen), shadow(), spoiled) == body(DIALECT, request_for(seen), shadow(), data)


def assert_gone(chosen: list[str], out: bytes, found: dict[str, Any]) -> None:
    for word in chosen:
        assert not any(spelling in out for spelling in spellings(word))
        assert word not in json.dumps(found)
        assert word not in "".join(delivered(found))


@recorded
@pytest.mark.parametrize("data", STREAMS)
def test_a_recorded_stream_in_any_pieces(data: bytes, balanced: Moderation) -> None:
    request = request_for(sdk_stream(data))
    final = sdk_stream(stream(DIALECT, request, balanced, data))
    if len(data) < 20_000:
        assert sdk_stream(stream(DIALECT, request, balanced, data, size=1)) == final
    translator = DIALECT.stream(request, exchange(balanced), "text/event-stream")
    assert translator is not None
    out, said = b"", ["".join(delivered(final))]
    for at in range(0, len(data), 211):
        out += translator.receive(data[at : at + 211])
        texts = [each["delta"] for each in events(out) if each["type"] == "content_block_delta"] if out else []
        so_far = "".join(each.get("text", each.get("thinking", "")) for each in texts)
        assert said[0].startswith(so_far)


@recorded
@pytest.mark.parametrize("data", STREAMS)
def test_unknown_fields_of_a_recording_vanish(data: bytes) -> None:
    documents = [json.loads(each.split(b"data: ")[1]) for each in data.strip().split(b"\n\n")]
    spoiled = [
        each if "input" in json.dumps(each) and "tool_use" in json.dumps(each) else spoil(each) for each in documents
    ]
    request = request_for(sdk_stream(data))
    out = stream(DIALECT, request, shadow(), sse(*spoiled))  # type: ignore[arg-type]
    assert CANARY.encode() not in out
    assert out == stream(DIALECT, request, shadow(), data)


@recorded
def test_a_recording_of_two_messages_in_one_stream() -> None:
    path = next(each for each in recordings((".txt",)) if "spliced" in each.name)
    request = prepared(tools=[{"name": "test-tool"}])
    out = stream(DIALECT, request, shadow(), b"".join(parts(path)), size=97)
    events(out)
    found = sdk_stream(out)
    assert (found["id"], found["stop_reason"]) == ("msg_first", "tool_use")
    assert delivered(found) == ["I will call the tool.", "Let me call the tool."]
    assert [each["input"] for each in found["content"] if each["type"] == "tool_use"] == [{"value": "Sparkle Day"}]


@recorded
def test_there_are_recordings_of_both_kinds() -> None:
    assert len(STREAMS) >= 10
    assert len(BODIES) >= 3
