"""The JavaScript SDKs read moderated streams. ``make test-node`` installs them; without them the tests are skipped."""

import asyncio
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Handler, ProxyFactory, Upstream
from dialect_kit import policy
from scripted import DONE, chunk, cut, finish, streaming

NODE = Path(__file__).with_name("node")
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(not (NODE / "node_modules").is_dir(), reason="`make test-node` installs the SDKs"),
]

REASONING = "She is ann.lee@example.com, so I should write to her now."
ANSWER = "I charge 4111 1111 1111 1111 and write to her."
ARGUMENTS = json.dumps({"to": "ann.lee@example.com", "card": 4111111111111111})
SEEN = {
    "reasoning": "She is [EMAIL_ADDRESS], so I should write to her now.",
    "text": "I charge [CREDIT_CARD] and write to her.",
    "calls": [{"name": "send", "arguments": {"to": "[EMAIL_ADDRESS]", "card": "[CREDIT_CARD]"}}],
}


def chat(*, fault: bool = False) -> Handler:
    rng = random.Random(3)
    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning_content": piece}) for piece in cut(REASONING, rng)]
    events += [chunk({"content": piece}) for piece in cut(ANSWER, rng)]
    if fault:
        return streaming([*events, b"data: {nonsense\n\n"])
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "send", "arguments": ""}}
    events.append(chunk({"tool_calls": [call]}))
    events += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in cut(ARGUMENTS, rng)]
    return streaming([*events, finish(0, "tool_calls"), DONE])


def named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def messages(*, fault: bool = False) -> Handler:
    rng = random.Random(4)
    message: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    message |= {"stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}
    events = [named("message_start", message=message)]
    blocks: list[tuple[dict[str, object], str, str, str]] = [
        ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking", REASONING),
        ({"type": "text", "text": ""}, "text_delta", "text", ANSWER),
        (
            {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {}},
            "input_json_delta",
            "partial_json",
            ARGUMENTS,
        ),
    ]
    for index, (block, delta, name, text) in enumerate(blocks):
        events.append(named("content_block_start", index=index, content_block=block))
        events += [
            named("content_block_delta", index=index, delta={"type": delta, name: piece}) for piece in cut(text, rng)
        ]
        events.append(named("content_block_stop", index=index))
    if fault:
        return streaming([*events, b"event: message_delta\ndata: {nonsense\n\n"])
    stop = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [named("message_delta", delta=stop, usage={"output_tokens": 9}), named("message_stop")]
    return streaming(events)


def responses(*, fault: bool = False) -> Handler:
    rng = random.Random(5)
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
    events = [named("response.created", response={**response, "status": "in_progress"})]
    items: list[tuple[dict[str, object], str, str]] = [
        ({"type": "reasoning", "summary": []}, "response.reasoning_text.delta", REASONING),
        ({"type": "message", "role": "assistant", "content": []}, "response.output_text.delta", ANSWER),
        (
            {"type": "function_call", "call_id": "call_1", "name": "send", "arguments": ""},
            "response.function_call_arguments.delta",
            ARGUMENTS,
        ),
    ]
    for index, (fields, delta, text) in enumerate(items):
        item = {"id": f"item_{index}", **fields}
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        events.append(named("response.output_item.added", output_index=index, item=item))
        events += [named(delta, **place, delta=piece) for piece in cut(text, rng)]
        done = {**item, "arguments": ARGUMENTS} if "arguments" in item else item
        events.append(named("response.output_item.done", output_index=index, item=done))
    if fault:
        return streaming([*events, b"event: response.completed\ndata: {nonsense\n\n"])
    return streaming([*events, named("response.completed", response={**response, "status": "completed"})])


UPSTREAMS = {"openai": chat, "ai": chat, "anthropic": messages, "responses": responses}
FINISHED = {"openai": "tool_calls", "ai": "tool-calls", "anthropic": "tool_use", "responses": "completed"}
CUT = {"openai": "content_filter", "ai": "content-filter", "anthropic": "refusal", "responses": "content_filter"}
each_sdk = pytest.mark.parametrize("sdk", sorted(UPSTREAMS))


async def seen_by(sdk: str, url: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec("node", str(NODE / "client.mjs"), sdk, url, stdout=-1, stderr=-1)
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    found: dict[str, Any] = json.loads(out)
    for call in found["calls"]:
        call["arguments"] = json.loads(call["arguments"])
    return found


@each_sdk
async def test_values_are_gone_and_the_rest_is_there(sdk: str, upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = UPSTREAMS[sdk]()
    found = await seen_by(sdk, (await make_proxy()).url)
    assert found == {**SEEN, "finish": FINISHED[sdk], "error": None}


@each_sdk
async def test_a_block_is_a_finish_reason(sdk: str, upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = UPSTREAMS[sdk]()
    proxy = await make_proxy(*policy("block", entity="CREDIT_CARD"))
    found = await seen_by(sdk, proxy.url)
    assert (found["text"], found["calls"], found["finish"], found["error"]) == ("I charge ", [], CUT[sdk], None)


@each_sdk
async def test_a_fault_is_an_error(sdk: str, upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = UPSTREAMS[sdk](fault=True)
    found = await seen_by(sdk, (await make_proxy()).url)
    assert "could not be read" in found["error"]
    assert "ann.lee" not in json.dumps(found)
