"""Loops of tools in which every turn's reasoning must come back as it was: official SDKs, the real proxy, a socket."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anthropic
import openai
import pytest
from bedrock_kit import STREAM, client, frames
from conftest import ProxyFactory, Upstream
from google import genai
from google.genai import types
from sealing_kit import CARD, MAIL, RESULT, TURNS, Signing, cut, said, sign, sse, thought

JSON = "application/json"
SSE = "text/event-stream"
MODEL = "claude-opus-5"
ARGUMENTS = {"to": MAIL, "n": 1}


def seen(*found: object) -> str:
    """What a client has, checked for what it must not have."""
    text = str(found)
    assert MAIL not in text
    assert CARD not in text
    return text


# Anthropic Messages.


def anthropic_turn(turn: int) -> list[dict[str, Any]]:
    text = thought(turn)
    blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": text, "signature": sign(text)}]
    if turn % 2:
        blocks.append({"type": "redacted_thinking", "data": sign("redacted", text)})
    if turn < TURNS:
        blocks.append({"type": "tool_use", "id": f"toolu_{turn}", "name": "send", "input": {"n": turn}})
    else:
        blocks.append({"type": "text", "text": "Done."})
    return blocks


def anthropic_answer(turn: int, streamed: bool) -> tuple[str, Iterable[bytes]]:
    blocks = anthropic_turn(turn)
    stop = "tool_use" if turn < TURNS else "end_turn"
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL}
    message["content"] = blocks
    message |= {"stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    if not streamed:
        return JSON, [json.dumps(message).encode()]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    ]
    for index, block in enumerate(blocks):
        start, deltas = dict(block), []
        if block["type"] == "thinking":
            start |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": each} for each in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            start["input"] = {}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        elif block["type"] == "text":
            start["text"] = ""
            deltas = [{"type": "text_delta", "text": block["text"]}]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 1}})
    return SSE, sse([*events, {"type": "message_stop"}])


def anthropic_reasoning(turns: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    return [[block for block in turn if "thinking" in block["type"]] for turn in turns]


def anthropic_turns(body: Mapping[str, Any]) -> list[Any]:
    return anthropic_reasoning([each["content"] for each in body["messages"] if each["role"] == "assistant"])


@pytest.mark.parametrize("streamed", [True, False])
async def test_anthropic(upstream: Upstream, make_proxy: ProxyFactory, streamed: bool) -> None:
    upstream.handler = signing = Signing(
        anthropic_turns, lambda turn: anthropic_reasoning([anthropic_turn(turn)])[0], anthropic_answer
    )
    proxy = await make_proxy()
    tools: Any = [{"name": "send", "input_schema": {"type": "object"}}]
    messages: list[Any] = [{"role": "user", "content": "go"}]
    tokens = set()
    async with anthropic.AsyncAnthropic(api_key="key-1", base_url=proxy.url, max_retries=0) as api:
        for turn in range(TURNS + 1):
            asked: Any = {"model": MODEL, "max_tokens": 99, "messages": messages, "tools": tools}
            if streamed:
                async with api.messages.stream(**asked) as events:
                    message = await events.get_final_message()
            else:
                message = await api.messages.create(**asked)
            first = message.content[0]
            assert first.type == "thinking"
            assert first.thinking == said(turn)
            assert first.signature != sign(thought(turn))
            tokens.add(first.signature)
            assert [each.type for each in message.content] == [each["type"] for each in anthropic_turn(turn)]
            messages.append({"role": "assistant", "content": message.content})
            calls = [each for each in message.content if each.type == "tool_use"]
            results = [{"type": "tool_result", "tool_use_id": each.id, "content": RESULT} for each in calls]
            messages.append({"role": "user", "content": results or "thanks"})
    seen(messages)
    assert signing.accepted == TURNS + 1
    assert not signing.unexpected
    assert len(tokens) == TURNS + 1


# Converse.


def converse_turn(turn: int) -> list[dict[str, Any]]:
    text = thought(turn)
    blocks: list[dict[str, Any]] = [
        {"reasoningContent": {"reasoningText": {"text": text, "signature": sign(text)}}},
        {"reasoningContent": {"redactedContent": sign("redacted", text)}},
    ]
    if turn < TURNS:
        blocks.append({"toolUse": {"toolUseId": f"t{turn}", "name": "send", "input": {"n": turn}}})
    else:
        blocks.append({"text": "Done."})
    return blocks


def converse_answer(turn: int, streamed: bool) -> tuple[str, Iterable[bytes]]:
    stop = "tool_use" if turn < TURNS else "end_turn"
    if not streamed:
        message: dict[str, Any] = {"role": "assistant", "content": converse_turn(turn)}
        usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
        answer: dict[str, Any] = {
            "output": {"message": message},
            "stopReason": stop,
            "usage": usage,
            "metrics": {"latencyMs": 1},
        }
        return JSON, [json.dumps(answer).encode()]
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(converse_turn(turn)):
        ((kind, value),) = block.items()
        deltas: list[dict[str, Any]] = [block] if kind == "text" else []
        if kind == "toolUse":
            start = {"toolUseId": value["toolUseId"], "name": value["name"]}
            events.append(("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": start}}))
            deltas = [{"toolUse": {"input": json.dumps(value["input"])}}]
        elif "reasoningText" in value:
            spoken = value["reasoningText"]
            deltas = [{"reasoningContent": {"text": each}} for each in cut(spoken["text"])]
            deltas.append({"reasoningContent": {"signature": spoken["signature"]}})
        elif kind == "reasoningContent":
            deltas = [block]
        events += [("contentBlockDelta", {"contentBlockIndex": index, "delta": each}) for each in deltas]
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    events += [("messageStop", {"stopReason": stop}), ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})]
    return STREAM, [frames(events)]


def put_together(stream: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of a stream, as an application makes them of what boto3 gives."""
    blocks: dict[int, dict[str, Any]] = {}
    for event in stream:
        if "contentBlockStart" in event:
            start = event["contentBlockStart"]
            blocks[start["contentBlockIndex"]] = {"toolUse": {**start["start"]["toolUse"], "input": ""}}
        elif "contentBlockDelta" in event:
            index, delta = event["contentBlockDelta"]["contentBlockIndex"], event["contentBlockDelta"]["delta"]
            ((kind, value),) = delta.items()
            if kind == "text":
                block = blocks.setdefault(index, {"text": ""})
                block["text"] += value
            elif kind == "toolUse":
                blocks[index]["toolUse"]["input"] += value["input"]
            elif "redactedContent" in value:
                blocks[index] = {"reasoningContent": value}
            else:
                block = blocks.setdefault(index, {"reasoningContent": {"reasoningText": {"text": ""}}})
                spoken = block["reasoningContent"]["reasoningText"]
                for name, each in value.items():
                    spoken[name] = spoken.get(name, "") + each
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return [blocks[index] for index in sorted(blocks)]


def converse_reasoning(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [block for block in blocks if "reasoningContent" in block]


@pytest.mark.parametrize("streamed", [True, False])
async def test_converse(
    upstream: Upstream, make_proxy: ProxyFactory, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "proxy")
    upstream.handler = signing = Signing(
        lambda body: [converse_reasoning(each["content"]) for each in body["messages"] if each["role"] == "assistant"],
        lambda turn: converse_reasoning(converse_turn(turn)),
        converse_answer,
    )
    proxy = await make_proxy()
    spec = {"toolSpec": {"name": "send", "inputSchema": {"json": {"type": "object"}}}}

    def loop() -> list[Any]:
        api = client(proxy.url)
        messages: list[Any] = [{"role": "user", "content": [{"text": "go"}]}]
        for turn in range(TURNS + 1):
            asked: Any = {"modelId": "us.anthropic.claude-sonnet-4-v1:0", "messages": messages}
            asked["toolConfig"] = {"tools": [spec]}
            if streamed:
                blocks = put_together(api.converse_stream(**asked)["stream"])
            else:
                blocks = api.converse(**asked)["output"]["message"]["content"]
            assert blocks[0]["reasoningContent"]["reasoningText"]["text"] == said(turn)
            assert len(blocks) == 3
            messages.append({"role": "assistant", "content": blocks})
            calls = [block["toolUse"] for block in blocks if "toolUse" in block]
            told: Any = {"content": [{"text": RESULT}]}
            results: list[Any] = [{"toolResult": {"toolUseId": each["toolUseId"], **told}} for each in calls]
            messages.append({"role": "user", "content": results or [{"text": "thanks"}]})
        return messages

    seen(await asyncio.to_thread(loop))
    assert not signing.unexpected
    assert signing.accepted == TURNS + 1


# Responses.


def responses_turn(turn: int) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": thought(turn)}, {"type": "summary_text", "text": "And so on."}]
    return {"type": "reasoning", "id": f"rs_{turn}", "summary": summary, "encrypted_content": sign(thought(turn))}


def responses_items(turn: int) -> list[dict[str, Any]]:
    if turn < TURNS:
        call = {"type": "function_call", "id": f"fc_{turn}", "call_id": f"call_{turn}", "name": "send"}
        return [responses_turn(turn), {**call, "arguments": json.dumps({"n": turn}), "status": "completed"}]
    part = {"type": "output_text", "text": "Done.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return [responses_turn(turn), message]


def responses_answer(turn: int, streamed: bool) -> tuple[str, Iterable[bytes]]:
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-6",
        "status": "completed",
    }
    response |= {"output": responses_items(turn), "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    if not streamed:
        return JSON, [json.dumps(response).encode()]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "output": [], "status": "in_progress"}}
    ]
    for index, item in enumerate(responses_items(turn)):
        begun = {**item, "summary": [], "encrypted_content": "early"} if item["type"] == "reasoning" else item
        if item["type"] == "function_call":
            begun = {**item, "arguments": ""}
        elif item["type"] == "message":
            begun = {**item, "content": []}
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        for number, part in enumerate(item.get("summary", ())):
            place = {"item_id": item["id"], "output_index": index, "summary_index": number}
            kind = "response.reasoning_summary_"
            events.append({"type": kind + "part.added", **place, "part": {**part, "text": ""}})
            events += [{"type": kind + "text.delta", **place, "delta": each} for each in cut(part["text"])]
            events.append({"type": kind + "text.done", **place, "text": part["text"]})
            events.append({"type": kind + "part.done", **place, "part": part})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": response})
    return SSE, sse({**each, "sequence_number": number} for number, each in enumerate(events))


@pytest.mark.parametrize("streamed", [True, False])
async def test_responses(upstream: Upstream, make_proxy: ProxyFactory, streamed: bool) -> None:
    upstream.handler = signing = Signing(
        lambda body: [each for each in body["input"] if each.get("type") == "reasoning"],
        responses_turn,
        responses_answer,
    )
    proxy = await make_proxy()
    tools: Any = [{"type": "function", "name": "send", "parameters": {}, "strict": False}]
    history: list[Any] = [{"role": "user", "content": "go"}]
    async with openai.AsyncOpenAI(api_key="key-1", base_url=f"{proxy.url}/v1", max_retries=0) as api:
        for turn in range(TURNS + 1):
            include: Any = ["reasoning.encrypted_content", "message.output_text.logprobs"]
            asked: Any = {"model": "gpt-6", "input": history, "tools": tools, "include": include, "store": False}
            if streamed:
                async with api.responses.stream(**asked) as events:
                    response = await events.get_final_response()
            else:
                response = await api.responses.create(**asked)
            reasoning = response.output[0]
            assert reasoning.type == "reasoning"
            assert [each.text for each in reasoning.summary] == [said(turn), "And so on."]
            assert reasoning.encrypted_content
            assert reasoning.encrypted_content != sign(thought(turn))
            history += response.output
            calls = [each for each in response.output if each.type == "function_call"]
            assert len(calls) == (turn < TURNS)
            history += [{"type": "function_call_output", "call_id": each.call_id, "output": RESULT} for each in calls]
    seen(history)
    assert not signing.unexpected
    assert signing.accepted == TURNS + 1
    assert json.loads(upstream.bodies[0])["include"] == ["reasoning.encrypted_content"]


# Gemini.


def gemini_parts(turn: int) -> list[dict[str, Any]]:
    text = thought(turn)
    if turn == TURNS:
        return [{"text": "Done. ", "thought": True}, {"text": "Her mail is secret.", "thoughtSignature": sign(text)}]
    arguments = {"n": turn, "of": 1.0, "to": MAIL}
    return [
        {"text": text, "thought": True},
        {"functionCall": {"name": "send", "args": arguments}, "thoughtSignature": sign(text)},
        {"functionCall": {"name": "send", "args": {}}},
    ]


def gemini_answer(turn: int, streamed: bool) -> tuple[str, Iterable[bytes]]:
    def answer(parts: list[dict[str, Any]], **fields: object) -> dict[str, Any]:
        return {"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0, **fields}]}

    if not streamed:
        return JSON, [json.dumps(answer(gemini_parts(turn), finishReason="STOP")).encode()]
    events = []
    for part in gemini_parts(turn):
        if part.get("thought"):
            events += [answer([{"text": each, "thought": True}]) for each in cut(part["text"])]
        else:
            events.append(answer([part]))
    return SSE, sse([*events, answer([], finishReason="STOP")], named=False)


def gemini_calls(body: Mapping[str, Any]) -> list[Any]:
    found = [part for each in body["contents"] if each.get("role") == "model" for part in each["parts"]]
    calls = [part for part in found if "functionCall" in part]
    return [calls[at : at + 2] for at in range(0, len(calls), 2)]


@pytest.mark.parametrize("streamed", [True, False])
async def test_gemini(upstream: Upstream, make_proxy: ProxyFactory, streamed: bool) -> None:
    upstream.handler = signing = Signing(gemini_calls, lambda turn: gemini_parts(turn)[1:], gemini_answer)
    proxy = await make_proxy()
    declared = types.FunctionDeclaration(name="send", parameters_json_schema={"type": "object"})
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])

    def loop() -> list[Any]:
        api = genai.Client(api_key="key-1", http_options=types.HttpOptions(base_url=proxy.url))
        chat = api.chats.create(model="gemini-3-pro", config=config)
        message: Any = "go"
        for turn in range(TURNS + 1):
            if streamed:
                parts = []
                for chunk in chat.send_message_stream(message):
                    assert chunk.candidates is not None
                    content = chunk.candidates[0].content
                    parts += (content.parts if content else None) or []
            else:
                answer = chat.send_message(message)
                assert answer.candidates is not None
                assert answer.candidates[0].content is not None
                parts = answer.candidates[0].content.parts or []
            calls = [part for part in parts if part.function_call]
            thoughts = "".join(part.text or "" for part in parts if part.thought)
            assert thoughts == (said(turn) if turn < TURNS else "Done. ")
            if turn < TURNS:
                assert [bool(part.thought_signature) for part in calls] == [True, False]
            else:
                assert any(part.thought_signature for part in parts)
            message = [types.Part.from_function_response(name="send", response={"result": RESULT}) for _ in calls]
        chat.send_message("thanks")
        return chat.get_history()

    history = await asyncio.to_thread(loop)
    seen([each.model_dump() for each in history])
    assert not signing.unexpected
    assert signing.accepted == TURNS + 2


# Chat Completions.


def chat_details(turn: int) -> list[dict[str, Any]]:
    text = thought(turn)
    beside = {"format": "anthropic-claude-v1", "index": 0}
    details: list[dict[str, Any]] = [
        {"type": "reasoning.text", "text": text, "signature": sign(text), **beside},
    ]
    if turn % 2:
        beside["index"] = 1
        details.append({"type": "reasoning.encrypted", "data": sign("redacted", text), "id": "r1", **beside})
    return details


def chat_blocks(turn: int) -> list[dict[str, Any]]:
    text = thought(turn)
    blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": text, "signature": sign(text)}]
    if turn % 2:
        blocks.append({"type": "redacted_thinking", "data": sign("redacted", text)})
    return blocks


def chat_calls(turn: int) -> list[dict[str, Any]]:
    function = {"name": "send", "arguments": json.dumps({**ARGUMENTS, "n": turn})}
    signature = {"google": {"thought_signature": sign(thought(turn))}}
    return [{"id": f"call_{turn}", "type": "function", "function": function, "extra_content": signature}]


FORMS: Mapping[str, Callable[[int], list[dict[str, Any]]]] = {
    "reasoning_details": chat_details,
    "thinking_blocks": chat_blocks,
    "extra_content": lambda _: [],
}


def chat_answer(form: str, turn: int, streamed: bool) -> tuple[str, Iterable[bytes]]:
    items, calls = FORMS[form](turn), chat_calls(turn) if turn < TURNS else []
    finish = "tool_calls" if calls else "stop"
    envelope = {"id": "c1", "created": 1, "model": "m", "object": "chat.completion"}
    if not streamed:
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else "Done."}
        if items:
            message |= {form: items, "reasoning_content": thought(turn)}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return JSON, [json.dumps({**envelope, "choices": [choice]}).encode()]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for item in items:
        name = next((name for name in ("text", "thinking") if name in item), "")
        if name:
            beside = {each: item[each] for each in item if each not in (name, "signature")}
            deltas += [{"reasoning_content": each, form: [{**beside, name: each}]} for each in cut(item[name])]
            deltas.append({form: [{**beside, name: "", "signature": item["signature"]}]})
        else:
            deltas.append({form: [item]})
    deltas += [{"tool_calls": [{**call, "index": at}]} for at, call in enumerate(calls)] or [{"content": "Done."}]
    ended: list[tuple[dict[str, Any], str | None]] = [*((each, None) for each in deltas), ({}, finish)]
    chunks = [
        {**envelope, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": each, "finish_reason": why}]}
        for each, why in ended
    ]
    return SSE, [*sse(chunks, named=False), b"data: [DONE]\n\n"]


async def chat_message(stream: Any) -> dict[str, Any]:
    """A message as OpenRouter and LiteLLM tell clients to keep it: items one behind the other, other texts joined."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    async for chunk in stream:
        delta = chunk.choices[0].delta.model_dump(exclude_unset=True)
        message["content"] += delta.get("content") or ""
        for form in FORMS:
            if form in delta:
                message[form] = message.get(form, []) + delta[form]
        for call in delta.get("tool_calls") or ():
            if call["index"] == len(message["tool_calls"]):
                message["tool_calls"].append({"function": {"name": "", "arguments": ""}})
            into = message["tool_calls"][call["index"]]
            into |= {name: call[name] for name in ("id", "type", "extra_content") if name in call}
            for name, text in (call.get("function") or {}).items():
                into["function"][name] += text
    return message if message["tool_calls"] else {**message, "tool_calls": None}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_chat_completions(
    upstream: Upstream, make_proxy: ProxyFactory, form: str, streamed: bool, merged: bool
) -> None:
    def turns(body: Mapping[str, Any]) -> list[Any]:
        found = [each for each in body["messages"] if each["role"] == "assistant"]
        return [(each.get(form, []), each.get("tool_calls") or []) for each in found]

    upstream.handler = signing = Signing(
        turns,
        lambda turn: (FORMS[form](turn), chat_calls(turn) if turn < TURNS else []),
        lambda turn, streamed: chat_answer(form, turn, streamed),
    )
    proxy = await make_proxy()
    tools: Any = [{"type": "function", "function": {"name": "send", "parameters": {}}}]
    messages: list[Any] = [{"role": "user", "content": "go"}]
    async with openai.AsyncOpenAI(api_key="key-1", base_url=f"{proxy.url}/v1", max_retries=0) as api:
        for _ in range(TURNS + 1):
            asked: Any = {"model": "m", "messages": messages, "tools": tools}
            if streamed:
                message = await chat_message(await api.chat.completions.create(**asked, stream=True))
            else:
                answer = await api.chat.completions.create(**asked)
                message = answer.choices[0].message.model_dump(exclude_unset=True)
            if merged and form in message:
                message[form] = as_one(message[form])
            messages.append(message)
            calls = message.get("tool_calls") or ()
            messages += [{"role": "tool", "tool_call_id": each["id"], "content": RESULT} for each in calls]
    seen(messages)
    assert not signing.unexpected
    assert signing.accepted == TURNS + 1


def as_one(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of one type that follow one another as one, as other clients keep them."""
    joined: list[dict[str, Any]] = []
    for item in items:
        if joined and joined[-1]["type"] == item["type"]:
            for name, value in item.items():
                if name in ("text", "thinking"):
                    joined[-1][name] = joined[-1].get(name, "") + value
                else:
                    joined[-1][name] = value
        else:
            joined.append(dict(item))
    return joined
