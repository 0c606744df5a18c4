"""The policy `egress` as applications see it: official SDKs, conversations with tools, the real proxy, a socket.

The upstream knows nothing but placeholders, and uses them in reasoning, answers and arguments; it signs what it thinks.
"""

import asyncio
import json
import random
import re
from collections.abc import Mapping
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from sealing_kit import cut, sign, sse

from cotguard.detectors.registry import build
from cotguard.policy import load

EGRESS = load("egress")
DETECTORS = build(EGRESS)
OWN = "ann.lee@example.com"
CARD = "4111 1111 1111 1111"
FOREIGN = "bob.ray@example.org"
TURNS = 4
PLACEHOLDER = re.compile(r"\[(?:EMAIL_ADDRESS|CREDIT_CARD)_[0-9]+\]")
ASKED = f"Write to {OWN}, charge {CARD}. I write [EMAIL_ADDRESS_9] myself."
RESULT = json.dumps({"sent": True, "to": OWN, "balance": 120})


def thought(used: str) -> str:
    return f"The user gives {used}; I recall {FOREIGN} from elsewhere."


def answered(used: str) -> str:
    return f"**{used.lower()}**'s mail is sent, not {FOREIGN}'s."


class Model:
    """Speaks in placeholders that it saw, the last of them first; checks its own signatures."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.thoughts: list[str] = []

    async def stream(self, request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        rng = random.Random(len(data))
        while data:
            size = rng.randint(1, 60)
            await response.write(data[:size])
            data = data[size:]
        await response.write_eof()
        return response

    async def messages(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        body = json.loads(self.bodies[-1])
        turn = sum(each["role"] == "assistant" for each in body["messages"])
        spoken = [block for each in body["messages"] if each["role"] == "assistant" for block in each["content"]]
        sent = [block for block in spoken if block["type"] == "thinking"]
        assert [block["thinking"] for block in sent] == self.thoughts
        assert all(block["signature"] == sign(block["thinking"]) for block in sent)
        used = PLACEHOLDER.findall(self.bodies[-1].decode())[0]
        self.thoughts.append(thought(used))
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message()}]
        deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": each} for each in cut(thought(used), 3)]
        deltas.append({"type": "signature_delta", "signature": sign(thought(used))})
        events += block(0, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        if turn < TURNS - 1:
            call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "send", "input": {}}
            arguments = json.dumps({"to": used, "note": f"for {used}, not {FOREIGN}"})
            deltas = [{"type": "input_json_delta", "partial_json": each} for each in cut(arguments, 4)]
            events += block(1, call, deltas)
        else:
            deltas = [{"type": "text_delta", "text": each} for each in cut(answered(used), 2)]
            events += block(1, {"type": "text", "text": ""}, deltas)
        stop = "tool_use" if turn < TURNS - 1 else "end_turn"
        events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 1}})
        return await self.stream(request, b"".join(sse([*events, {"type": "message_stop"}])))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        body = json.loads(self.bodies[-1])
        turn = sum(each["role"] == "assistant" for each in body["messages"])
        used = PLACEHOLDER.findall(self.bodies[-1].decode())[0]
        deltas: list[dict[str, Any]] = [{"reasoning_content": each} for each in cut(thought(used), 3)]
        if turn < TURNS - 1:
            arguments = cut(json.dumps({"to": used, "note": f"for {used}, not {FOREIGN}"}), 4)
            call = {"index": 0, "id": f"call_{turn}", "type": "function"}
            deltas.append({"tool_calls": [{**call, "function": {"name": "send", "arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": each}}]} for each in arguments]
        else:
            deltas += [{"content": each} for each in cut(answered(used), 2)]
        chunks: list[Mapping[str, Any]] = [chunk(delta, None) for delta in deltas]
        chunks.append(chunk({}, "tool_calls" if turn < TURNS - 1 else "stop"))
        return await self.stream(request, b"".join(sse(chunks, named=False)) + b"data: [DONE]\n\n")


def message() -> dict[str, Any]:
    fields = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    return {**fields, "stop_reason": None, "usage": {"input_tokens": 1, "output_tokens": 1}}


def block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    events = [{"type": "content_block_start", "index": index, "content_block": start}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [*events, {"type": "content_block_stop", "index": index}]


def chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def check(model: Model) -> None:
    """No value of the client's reached the upstream, and what it wrote as a placeholder was escaped."""
    assert len(model.bodies) == TURNS
    for body in model.bodies:
        assert OWN.encode() not in body
        assert CARD.encode() not in body
        assert b"EMAIL_ADDRESS_9" not in body
        assert b"[PLACEHOLDER_1]" in body


async def test_anthropic(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    model = Model()
    upstream.handler = model.messages
    proxy = await make_proxy(EGRESS, DETECTORS)
    tools: Any = [{"name": "send", "description": "Sends.", "input_schema": {"type": "object"}}]
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    async with anthropic.AsyncAnthropic(api_key="key-1", base_url=proxy.url, max_retries=0) as api:
        for turn in range(TURNS):
            async with api.messages.stream(model="m", max_tokens=99, messages=messages, tools=tools) as events:
                said = await events.get_final_message()
            first, second = said.content
            assert first.type == "thinking"
            assert first.thinking == f"The user gives {OWN}; I recall [EMAIL_ADDRESS] from elsewhere."
            messages.append({"role": "assistant", "content": said.content})
            if turn == TURNS - 1:
                assert second.type == "text"
                assert second.text == f"**{OWN}**'s mail is sent, not [EMAIL_ADDRESS]'s."
                break
            assert second.type == "tool_use"
            assert second.input == {"to": OWN, "note": f"for {OWN}, not [EMAIL_ADDRESS]"}
            result = {"type": "tool_result", "tool_use_id": second.id, "content": RESULT}
            messages.append({"role": "user", "content": [result]})
    check(model)


@pytest.mark.parametrize("role", ["user", "system"])
async def test_openai(upstream: Upstream, make_proxy: ProxyFactory, role: str) -> None:
    model = Model()
    upstream.handler = model.chat
    proxy = await make_proxy(EGRESS, DETECTORS)
    tools: Any = [{"type": "function", "function": {"name": "send", "parameters": {"type": "object"}}}]
    messages: list[Any] = [{"role": role, "content": ASKED}]
    async with openai.AsyncOpenAI(api_key="key-1", base_url=proxy.url + "/v1", max_retries=0) as api:
        for turn in range(TURNS):
            thinking, text, name, arguments = "", "", "", ""
            async for part in await api.chat.completions.create(
                model="m", messages=messages, tools=tools, stream=True, user=OWN
            ):
                delta = part.choices[0].delta
                thinking += getattr(delta, "reasoning_content", None) or ""
                text += delta.content or ""
                for call in delta.tool_calls or ():
                    assert call.function is not None
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
            assert thinking == f"The user gives {OWN}; I recall [EMAIL_ADDRESS] from elsewhere."
            if turn == TURNS - 1:
                assert text == f"**{OWN}**'s mail is sent, not [EMAIL_ADDRESS]'s."
                break
            assert json.loads(arguments) == {"to": OWN, "note": f"for {OWN}, not [EMAIL_ADDRESS]"}
            function = {"name": name, "arguments": arguments}
            called = {"id": f"call_{turn}", "type": "function", "function": function}
            messages += [
                {"role": "assistant", "content": None, "reasoning_content": thinking, "tool_calls": [called]},
                {"role": "tool", "tool_call_id": f"call_{turn}", "content": RESULT},
            ]
    check(model)


@pytest.mark.parametrize("seed", range(5))
async def test_no_caller_sees_the_values_of_another(upstream: Upstream, make_proxy: ProxyFactory, seed: int) -> None:
    """All of them are the first of their exchange, and all streams are under way at the same time."""
    rng = random.Random(seed)

    async def echo(request: web.Request) -> web.StreamResponse:
        used = PLACEHOLDER.findall((await request.read()).decode())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for each in cut(" ".join(used) + " [EMAIL_ADDRESS_2] [EMAIL_ADDRESS_3]", rng.randint(1, 5)):
            await response.write(b"".join(sse([chunk({"content": each}, None)], named=False)))
            await asyncio.sleep(rng.random() / 500)
        await response.write(b"".join(sse([chunk({}, "stop")], named=False)) + b"data: [DONE]\n\n")
        return response

    upstream.handler = echo
    proxy = await make_proxy(EGRESS, DETECTORS)

    async def caller(number: int) -> None:
        own = f"user{number}.{rng.randint(100, 999)}@mail{number}.example.com"
        async with openai.AsyncOpenAI(api_key=f"key-{number}", base_url=proxy.url + "/v1", max_retries=0) as api:
            messages: Any = [{"role": "user", "content": f"I am {own}."}]
            parts = await api.chat.completions.create(model="m", messages=messages, stream=True)
            text = "".join([part.choices[0].delta.content or "" async for part in parts])
        assert text == f"{own} [EMAIL_ADDRESS_2] [EMAIL_ADDRESS_3]"

    await asyncio.gather(*map(caller, range(30)))
