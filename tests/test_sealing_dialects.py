"""Seals in every dialect that has signed reasoning: for every cut, whatever the policy does, and refused when wrong."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import pytest
from aiohttp import web
from bedrock_kit import STREAM, chunks, frames
from conftest import ProxyFactory, Upstream
from dialect_kit import Moderation, body, policy, stream
from sealing_kit import CARD, MAIL, Signing, said, sign, thought
from test_sealing_loops import (
    SSE,
    anthropic_answer,
    anthropic_turn,
    anthropic_turns,
    chat_answer,
    converse_answer,
    gemini_answer,
    responses_answer,
)
from test_sealing_store import message_of
from test_serve import serving

from cotguard.dialects.anthropic.dialect import Anthropic
from cotguard.dialects.bedrock.dialect import Bedrock
from cotguard.dialects.chat.dialect import ChatCompletions
from cotguard.dialects.contract import Dialect, ErrorKind, Incoming, Prepared, Refused, Restored
from cotguard.dialects.gemini.dialect import Gemini
from cotguard.dialects.gemini.interactions import Interactions
from cotguard.dialects.responses.dialect import Responses
from cotguard.framing.aws_event_stream import AwsEventStream
from cotguard.sealing.keyring import KeyRing
from cotguard.sealing.seals import Seals, is_token

KEY = "a:" + base64.b64encode(b"k" * 32).decode()
SEALS = Seals(KeyRing({"a": b"k" * 32}), "caller", lambda _model: "https://models.example", 1_000_000, 3600)
REDACT = policy("redact")
Answer = Callable[[int, bool], tuple[str, Any]]
History = Callable[[bytes, bool], list[Any]]
SIGNATURES = ("signature", "data", "encrypted_content", "thoughtSignature", "redactedContent", "thought_signature")


def strings(value: object, names: tuple[str, ...] = SIGNATURES) -> list[str]:
    """The signatures in a document, in order."""
    found: list[str] = []
    if isinstance(value, dict):
        for name, each in value.items():
            found += [each] if name in names and isinstance(each, str) and each else strings(each, names)
    elif isinstance(value, list):
        for each in value:
            found += strings(each, names)
    return found


class Form(NamedTuple):
    """A dialect: a request's way to it, what its upstream answers, and how a client makes a history of that."""

    dialect: Dialect
    streamed: str  # the action of streams, and of whole responses
    whole: str
    answer: Answer
    history: History
    request: Callable[[list[Any]], dict[str, Any]]
    parameters: Mapping[str, str] = {}


def documents(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def anthropic_history(data: bytes, streamed: bool) -> list[Any]:
    blocks = message_of(data)
    return [{"role": "assistant", "content": [each for each in blocks if "thinking" in each["type"]]}]


def converse_history(data: bytes, streamed: bool) -> list[Any]:
    if not streamed:
        return [json.loads(data)["output"]["message"]]
    blocks: dict[int, dict[str, Any]] = {}
    framing = AwsEventStream()
    for block in framing.feed(data):
        event = framing.parse(block)
        assert event is not None
        delta = json.loads(event.data).get("delta", {}).get("reasoningContent", {})
        index = json.loads(event.data).get("contentBlockIndex")
        if "redactedContent" in delta:
            blocks[index] = delta
        elif delta:
            spoken = blocks.setdefault(index, {"reasoningText": {"text": ""}})["reasoningText"]
            spoken["text"] += delta.get("text", "")
            spoken |= {name: delta[name] for name in ("signature",) if name in delta}
    return [{"role": "assistant", "content": [{"reasoningContent": each} for each in blocks.values()]}]


def responses_history(data: bytes, streamed: bool) -> list[Any]:
    found = [each["response"] for each in documents(data) if "response" in each] if streamed else [json.loads(data)]
    done = [each["item"] for each in documents(data) if each["type"] == "response.output_item.done"]
    items = [item for item in found[-1]["output"] if item["type"] == "reasoning"]
    assert not streamed or [item for item in done if item["type"] == "reasoning"] == items
    return items


def gemini_history(data: bytes, streamed: bool) -> list[Any]:
    found = list(documents(data)) if streamed else [json.loads(data)]
    parts = [part for each in found for part in each["candidates"][0]["content"]["parts"]]
    return [{"role": "model", "parts": [part for part in parts if "thoughtSignature" in part]}]


def chat_history(data: bytes, streamed: bool) -> list[Any]:
    if not streamed:
        return [json.loads(data)["choices"][0]["message"]]
    message: dict[str, Any] = {"role": "assistant"}
    calls: list[dict[str, Any]] = []
    for delta in [choice["delta"] for each in documents(data) for choice in each["choices"]]:
        for name in ("reasoning_details", "thinking_blocks"):
            message[name] = message.get(name, []) + delta.get(name, [])
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({**call, "function": {**call["function"], "arguments": ""}})
            calls[call["index"]]["function"]["arguments"] += call.get("function", {}).get("arguments", "")
            calls[call["index"]] |= {name: call[name] for name in ("extra_content",) if name in call}
    return [{**message, "tool_calls": calls}]


def interactions_steps() -> list[dict[str, Any]]:
    summary = [{"type": "text", "text": thought(0)}]
    return [
        {"type": "thought", "summary": summary, "signature": sign(thought(0))},
        {"type": "function_call", "id": "f1", "name": "send", "arguments": {"n": 0}},
    ]


def interactions_answer(_turn: int, streamed: bool) -> tuple[str, Any]:
    whole = {"id": "i1", "object": "interaction", "status": "requires_action", "model": "m"}
    if not streamed:
        return "application/json", [json.dumps({**whole, "steps": interactions_steps()}).encode()]
    events: list[dict[str, Any]] = [{"event_type": "interaction.created", "interaction": whole}]
    for index, step in enumerate(interactions_steps()):
        begun: dict[str, Any] = {name: each for name, each in step.items() if name not in ("summary", "signature")}
        events.append({"event_type": "step.start", "index": index, "step": begun})
        deltas: list[dict[str, Any]] = []
        for at in range(0, len(thought(0)) if step["type"] == "thought" else 0, 5):
            content = {"type": "text", "text": thought(0)[at : at + 5]}
            deltas.append({"type": "thought_summary", "content": content})
        if step["type"] == "thought":
            deltas.append({"type": "thought_signature", "signature": step["signature"]})
        events += [{"event_type": "step.delta", "index": index, "delta": each} for each in deltas]
        events.append({"event_type": "step.stop", "index": index})
    events.append({"event_type": "interaction.completed", "interaction": whole})
    return SSE, [
        b"event: %b\ndata: %b\n\n" % (each["event_type"].encode(), json.dumps(each).encode()) for each in events
    ]


def interactions_history(data: bytes, streamed: bool) -> list[Any]:
    if not streamed:
        return [each for each in json.loads(data)["steps"] if each["type"] == "thought"]
    step: dict[str, Any] = {"type": "thought", "summary": [{"type": "text", "text": ""}]}
    for each in documents(data):
        delta = each.get("delta", {})
        if delta.get("type") == "thought_summary":
            step["summary"][0]["text"] += delta["content"]["text"]
        elif delta.get("type") == "thought_signature":
            step["signature"] = delta["signature"]
    return [step]


TOOL = {"name": "send", "input_schema": {}, "parameters": {}}
FORMS = {
    "anthropic": Form(
        Anthropic(),
        "messages",
        "messages",
        anthropic_answer,
        anthropic_history,
        lambda history: {"model": "m", "messages": history, "tools": [TOOL]},
    ),
    "converse": Form(
        Bedrock(),
        "converse-stream",
        "converse",
        converse_answer,
        converse_history,
        lambda history: {"messages": history, "toolConfig": {"tools": [{"toolSpec": TOOL}]}},
        {"model": "anthropic.claude-x"},
    ),
    "responses": Form(
        Responses(),
        "create",
        "create",
        responses_answer,
        responses_history,
        lambda history: {"model": "m", "input": history, "tools": [{**TOOL, "type": "function"}]},
    ),
    "gemini": Form(
        Gemini(),
        "stream",
        "generate",
        gemini_answer,
        gemini_history,
        lambda history: {"contents": history, "tools": [{"functionDeclarations": [TOOL]}]},
        {"model": "m"},
    ),
    "interactions": Form(
        Interactions(),
        "create",
        "create",
        interactions_answer,
        interactions_history,
        lambda history: {"model": "m", "input": history, "tools": [{**TOOL, "type": "function"}]},
    ),
    **{
        name: Form(
            ChatCompletions(),
            "chat",
            "chat",
            lambda turn, streamed, form=name: chat_answer(form, turn, streamed),  # type: ignore[misc]
            chat_history,
            lambda history: {"model": "m", "messages": history, "tools": [{"type": "function", "function": TOOL}]},
        )
        for name in ("reasoning_details", "thinking_blocks", "extra_content")
    },
}


def ask(form: Form, history: list[Any], streamed: bool = False, seals: Seals | None = SEALS) -> Prepared:
    route = next(route for route in form.dialect.routes if route.action == (form.streamed if streamed else form.whole))
    asked = form.request(history)
    if form.streamed == form.whole:
        asked["stream"] = streamed
    return form.dialect.prepare(Incoming(route, form.parameters, {}, json.dumps(asked).encode(), seals=seals))


def answered(
    form: Form,
    streamed: bool,
    moderation: Moderation = REDACT,
    size: int = 10**9,
    seals: Seals | None = SEALS,
    turn: int = 1,
) -> bytes:
    kind, sent = form.answer(turn, streamed)
    prepared, data = ask(form, [], streamed, seals), b"".join(sent)
    if streamed:
        return stream(form.dialect, prepared, moderation, data, kind, size)
    return body(form.dialect, prepared, moderation, data)


def originals(form: Form, turn: int = 1) -> list[str]:
    return strings(json.loads(b"".join(form.answer(turn, False)[1])))


each_form = pytest.mark.parametrize("name", FORMS)
each_way = pytest.mark.parametrize("streamed", [True, False])


@each_form
@each_way
def test_what_was_signed_comes_back_for_every_cut(name: str, streamed: bool) -> None:
    form = FORMS[name]
    for size in (1, 2, 7, 61, 10**9) if streamed else (10**9,):
        data = answered(form, streamed, size=size)
        assert MAIL.encode() not in data
        history = form.history(data, streamed)
        tokens = strings(history)
        assert len(tokens) == len(originals(form))
        restored = ask(form, history).document
        assert strings(restored) == originals(form)
        assert "cotguard" not in json.dumps(restored)
        if name not in ("extra_content", "gemini"):
            assert thought(1 if name != "interactions" else 0) in str(restored)
        assert any(isinstance(each, Restored) for each in objects(restored))


def objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from objects(each)


@each_form
@each_way
def test_without_seals_nothing_that_is_signed_leaves(name: str, streamed: bool) -> None:
    form = FORMS[name]
    data = answered(form, streamed, seals=None)
    assert not strings(form.history(data, streamed))
    assert not [each for each in originals(form) if each.encode() in data]


@each_form
@each_way
@pytest.mark.parametrize("action", ["withhold", "mask", "hash", "allow"])
def test_whatever_became_of_the_text_the_original_comes_back(name: str, streamed: bool, action: str) -> None:
    form = FORMS[name]
    data = answered(form, streamed, policy(action))
    history = form.history(data, streamed)
    assert strings(ask(form, history).document) == originals(form)


@each_form
@each_way
def test_what_a_block_cut_has_no_seal(name: str, streamed: bool) -> None:
    data = answered(FORMS[name], streamed, policy("block"))
    assert b"cotguard" not in data.replace(b'"cotguard"', b"")
    assert not [each for each in originals(FORMS[name]) if each.encode() in data]


@each_form
def test_a_signature_of_the_clients_own_passes(name: str) -> None:
    form = FORMS[name]
    history = form.history(answered(form, False), False)
    for holder in objects(history):
        for field in SIGNATURES:
            if field in holder:
                holder[field] = "cmF3"
    restored = ask(form, history).document
    assert set(strings(restored)) == {"cmF3"}
    assert not any(isinstance(each, Restored) for each in objects(restored))


@each_form
def test_a_seal_that_is_wrong_is_refused(name: str) -> None:
    form = FORMS[name]
    history = form.history(answered(form, False), False)
    wrong = {
        "another caller": (history, replace(SEALS, caller="another")),
        "another upstream": (history, replace(SEALS, upstream=lambda _model: "https://other.example")),
        "a key that was rotated out": (history, replace(SEALS, keys=KeyRing({"b": b"k" * 32}))),
        "too late": (history, replace(SEALS, now=SEALS.now + 3601)),
    }
    for count, token in enumerate(strings(history)):
        for at in range(0, len(token), 9):
            swapped = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            spoiled = json.dumps(history).replace(token, swapped)
            wrong[f"token {count} changed at {at}"] = (json.loads(spoiled), SEALS)
    for what, (sent, seals) in wrong.items():
        with pytest.raises(Refused) as caught:
            ask(form, sent, seals=seals)
        assert (caught.value.status, caught.value.kind) == (400, ErrorKind.BAD_REQUEST), what
        assert ("expired" if what == "too late" else "not valid here") in caught.value.message
        assert "The field '" in caught.value.message or "The seal in the field '" in caught.value.message
        assert not any(each in caught.value.message for each in (MAIL, CARD, "EMAIL", *strings(history)))


@each_form
def test_another_model_is_refused(name: str) -> None:
    form = FORMS[name]
    history = form.history(answered(form, False), False)
    parameters = dict.fromkeys(form.parameters, "anthropic.other")
    other = form._replace(
        parameters=parameters,
        request=lambda sent: {**form.request(sent), **({} if parameters else {"model": "other"})},
    )
    with pytest.raises(Refused, match="not valid here"):
        ask(other, history)


@pytest.mark.parametrize(
    "name", ["anthropic", "converse", "responses", "interactions", "reasoning_details", "thinking_blocks"]
)
def test_another_text_is_refused(name: str) -> None:
    form = FORMS[name]
    history = form.history(answered(form, True), True)
    spoiled = json.loads(json.dumps(history).replace("[EMAIL_ADDRESS]", "bob@example.com"))
    assert spoiled != history
    with pytest.raises(Refused, match="not valid here"):
        ask(form, spoiled)


def test_a_call_with_other_arguments_is_refused() -> None:
    for name in ("gemini", "extra_content"):
        form = FORMS[name]
        history = form.history(answered(form, True), True)
        spoiled = json.loads(json.dumps(history).replace("[EMAIL_ADDRESS]", "bob@example.com"))
        with pytest.raises(Refused, match="not valid here"):
            ask(form, spoiled)


def test_a_call_may_come_back_in_other_spelling() -> None:
    form = FORMS["gemini"]
    (content,) = form.history(answered(form, True), True)
    call = content["parts"][0]
    token = call["thoughtSignature"].replace("+", "-").replace("/", "_")
    arguments = dict(reversed(list(call["functionCall"]["args"].items())))
    arguments["of"] = int(arguments["of"])
    spelt = {"thought_signature": token, "function_call": {"name": "send", "args": arguments, "id": None}}
    restored = ask(form, [{"role": "model", "parts": spelt}]).document
    original = json.loads(b"".join(gemini_answer(1, False)[1]))["candidates"][0]["content"]["parts"][1]
    assert restored["contents"][0]["parts"] == [original]


def test_a_text_of_gemini_comes_back_with_the_signature_or_as_it_was() -> None:
    form = FORMS["gemini"]
    moderation = policy("redact", "secret")
    data = answered(form, False, moderation, turn=5)
    (content,) = form.history(data, False)
    assert content["parts"][0]["text"] == "Her mail is [KNOWN_VALUE]."
    assert ask(form, [content]).document["contents"][0]["parts"] == [
        {"text": "Her mail is secret.", "thoughtSignature": sign(thought(5))}
    ]
    content["parts"][0]["text"] = "Something else"
    (part,) = ask(form, [content]).document["contents"][0]["parts"]
    assert part == {"text": "Something else", "thoughtSignature": sign(thought(5))}
    assert not isinstance(part, Restored)
    streamed = form.history(answered(form, True, moderation, turn=5), True)
    assert ask(form, streamed).document["contents"][0]["parts"] == [{"text": "", "thoughtSignature": sign(thought(5))}]


def test_every_byte_of_a_token_counts_in_a_request() -> None:
    form = FORMS["anthropic"]
    (message,) = form.history(answered(form, False), False)
    token = message["content"][0]["signature"]
    for at in range(len(token)):
        message["content"][0]["signature"] = token[:at] + ("x" if token[at] != "x" else "y") + token[at + 1 :]
        with pytest.raises(Refused, match="signature' holds a seal"):
            ask(form, [message])


def test_claude_by_invoke_model() -> None:
    dialect, identifier = Bedrock(), {"model": "eu.anthropic.claude-opus-5-v1:0"}
    _, sent = anthropic_answer(1, True)
    events = list(documents(b"".join(sent)))
    route = next(each for each in dialect.routes if each.action == "invoke-stream")
    asked = {"messages": [], "max_tokens": 9, "tools": [TOOL]}

    def prepared(history: list[Any]) -> Prepared:
        request = json.dumps({**asked, "messages": history}).encode()
        return dialect.prepare(Incoming(route, identifier, {}, request, seals=SEALS))

    data = stream(dialect, prepared([]), REDACT, chunks(events), STREAM)
    framing = AwsEventStream()
    found = [json.loads(event.data) for event in map(framing.parse, framing.feed(data)) if event is not None]
    inner = [base64.b64decode(each["bytes"]) for each in found]
    blocks = message_of(b"".join(b"data: " + each + b"\n" for each in inner))
    assert blocks[0]["thinking"] == said(1)
    restored = prepared([{"role": "assistant", "content": blocks[:2]}]).document
    assert restored["messages"][0]["content"] == anthropic_turn(1)[:2]


def test_redacted_content_in_pieces_is_one() -> None:
    form = FORMS["converse"]
    pieces = [base64.b64encode(each).decode() for each in (b"red", b"acted")]
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    events += [
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": each}}})
        for each in pieces
    ]
    events += [("contentBlockStop", {"contentBlockIndex": 0}), ("messageStop", {"stopReason": "end_turn"})]
    data = stream(form.dialect, ask(form, [], True), REDACT, frames(events), STREAM)
    restored = ask(form, form.history(data, True)).document
    assert strings(restored) == [base64.b64encode(b"redacted").decode()]


def test_signed_reasoning_without_text_keeps_its_signature() -> None:
    events = [
        {"type": "message_start", "message": {"id": "m", "content": [], "model": "m", "role": "assistant"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    ]
    form = FORMS["anthropic"]
    sent = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)
    data = stream(form.dialect, ask(form, [], True), REDACT, sent)
    (message,) = ask(form, form.history(data, True)).document["messages"]
    assert message["content"] == [{"type": "thinking", "thinking": "", "signature": "c2ln"}]


def test_what_a_client_adds_to_a_sealed_block_does_not_pass() -> None:
    form = FORMS["anthropic"]
    (message,) = form.history(answered(form, False), False)
    message["content"][0]["text"] = "smuggled"
    assert "smuggled" not in json.dumps(ask(form, [message]).document)


SWITCHES = {"echo": True, "prompt_logprobs": 5, "logprobs": True, "return_prompt_text": True, "top_logprobs": 3}
SWITCHES |= {"return_token_ids": True, "return_prompt_token_ids": True, "debug": True, "verbose": True}


@pytest.mark.parametrize("name", ["anthropic", "responses", "extra_content"])
def test_a_request_with_originals_asks_for_no_echo(name: str) -> None:
    form = FORMS[name]
    history = form.history(answered(form, False), False)
    echoing = form._replace(request=lambda sent: {**form.request(sent), **SWITCHES})
    document = ask(echoing, history).document
    assert strings(document) == originals(form)
    assert not document.keys() & SWITCHES.keys()


def test_originals_are_asked_of_no_google_or_bedrock_echo() -> None:
    gemini = FORMS["gemini"]
    config = {"responseLogprobs": True, "logprobs": 3, "temperature": 1}
    asked = gemini._replace(request=lambda sent: {**gemini.request(sent), "generationConfig": config})
    assert ask(asked, []).document["generationConfig"] == {"temperature": 1}
    converse = FORMS["converse"]
    extra = {"additionalModelRequestFields": {"echo": True, "return_prompt": True, "top_k": 1}}
    extra |= {"additionalModelResponseFieldPaths": ["/prompt"]}  # type: ignore[dict-item]
    asked = converse._replace(request=lambda sent: {**converse.request(sent), **extra})
    document = ask(asked, []).document
    assert document["additionalModelRequestFields"] == {"top_k": 1}
    assert "additionalModelResponseFieldPaths" not in document


# Through the gateway.


USER: Any = {"role": "user", "content": "go"}


async def test_a_wrong_seal_never_reaches_the_upstream(
    upstream: Upstream, make_proxy: ProxyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.handler = handler = Signing(anthropic_turns, lambda turn: None, anthropic_answer)
    proxy = await make_proxy(seal_keys=KEY)
    rotated = await make_proxy(seal_keys="b:" + base64.b64encode(b"n" * 32).decode())
    older = await make_proxy(seal_keys="b:" + base64.b64encode(b"n" * 32).decode() + "," + KEY)
    tools: Any = [{"name": "send", "input_schema": {"type": "object"}}]

    async def turn(url: str, messages: list[Any], key: str = "key-1", model: str = "m") -> Any:
        async with anthropic.AsyncAnthropic(api_key=key, base_url=url) as api:  # retries are on
            return await api.messages.create(model=model, max_tokens=9, messages=messages, tools=tools)

    first = (await turn(proxy.url, [USER])).content
    history: list[Any] = [USER, {"role": "assistant", "content": [each.to_dict() for each in first]}, USER]
    token = history[1]["content"][0]["signature"]
    assert is_token(token)
    spoiled = json.loads(json.dumps(history).replace(token, token[:40] + token[41:]))
    retold = json.loads(json.dumps(history).replace("[EMAIL_ADDRESS]", "x@example.com"))
    attempts = [
        turn(proxy.url, spoiled),
        turn(proxy.url, retold),
        turn(proxy.url, history, key="key-2"),
        turn(proxy.url, history, model="other"),
        turn(rotated.url, history),
    ]
    for attempt in attempts:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await attempt
        assert caught.value.response.headers["x-should-retry"] == "false"
        text = caught.value.response.text
        assert "The field 'messages[].content[].signature' holds a seal that is not valid here" in text
        assert not any(each in text for each in (MAIL, CARD, token[:60], sign(thought(0))))
    assert len(upstream.bodies) == handler.accepted == 1
    assert proxy.accounts.requests["400", "refused"] == 4
    with pytest.raises(anthropic.BadRequestError):  # restored, and told by the upstream that no turn is expected
        await turn(older.url, history)
    assert handler.unexpected[0][0] == anthropic_turn(0)[0]
    assert not [each for each in caplog.messages if MAIL in each or token in each]


async def test_tokens_are_counted_of_originals(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = Signing(anthropic_turns, lambda turn: None, anthropic_answer)
    proxy = await make_proxy()
    async with anthropic.AsyncAnthropic(api_key="key-1", base_url=proxy.url, max_retries=0) as api:
        message = await api.messages.create(model="m", max_tokens=9, messages=[USER])

        async def count(request: web.Request) -> web.StreamResponse:
            return web.json_response({"input_tokens": 7})

        upstream.handler = count
        history: Any = [USER, {"role": "assistant", "content": message.content[:1]}, USER]
        assert (await api.messages.count_tokens(model="m", messages=history)).input_tokens == 7
        with pytest.raises(anthropic.BadRequestError, match="not valid here"):
            await api.messages.count_tokens(model="other", messages=history)
    assert json.loads(upstream.bodies[-1])["messages"][1]["content"] == anthropic_turn(0)[:1]
    assert len(upstream.bodies) == 2


def test_tokens_of_gemini_are_counted_of_originals() -> None:
    form = FORMS["gemini"]
    history = form.history(answered(form, False), False)
    route = next(each for each in form.dialect.routes if each.action == "count")
    asked = json.dumps({"contents": history}).encode()
    question = form.dialect.question(Incoming(route, form.parameters, {}, asked, seals=SEALS))
    assert strings(question) == originals(form)


async def test_a_seal_expires(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = Signing(anthropic_turns, lambda turn: None, anthropic_answer)
    proxy = await make_proxy(seal_max_age=0.000001)
    async with anthropic.AsyncAnthropic(api_key="key-1", base_url=proxy.url) as api:
        tools: Any = [{"name": "send", "input_schema": {"type": "object"}}]
        asked: Any = {"model": "m", "max_tokens": 9, "tools": tools}
        message = await api.messages.create(**asked, messages=[USER])
        with pytest.raises(anthropic.BadRequestError, match="has expired"):
            await api.messages.create(**asked, messages=[USER, {"role": "assistant", "content": message.content}, USER])
    assert len(upstream.bodies) == 1


async def test_workers_share_a_key_that_nobody_configured(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = handler = Signing(anthropic_turns, lambda turn: None, anthropic_answer)
    async with serving(upstream.url, tmp_path, workers=2) as served:

        async def turn(messages: list[Any]) -> Any:  # on a connection of its own, to any of the workers
            async with anthropic.AsyncAnthropic(api_key="key-1", base_url=served.url, max_retries=0) as api:
                return await api.messages.create(model="m", max_tokens=9, messages=messages)

        message = await turn([USER])
        history = [USER, {"role": "assistant", "content": message.content[:1]}, USER]
        for _ in range(15):
            with pytest.raises(anthropic.BadRequestError, match="status 400"):  # the upstream expects nothing
                await turn(history)
        assert handler.unexpected == [anthropic_turn(0)[:1]] * 15
        assert await served.end() == 0


async def test_sealing_can_be_switched_off(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = Signing(anthropic_turns, lambda turn: None, anthropic_answer)
    proxy = await make_proxy(seal=False)
    async with anthropic.AsyncAnthropic(api_key="key-1", base_url=proxy.url) as api:
        message = await api.messages.create(model="m", max_tokens=9, messages=[USER])
    assert message.content[0].type == "thinking"
    assert message.content[0].signature == ""


# Recordings.

SHARED = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
recorded = pytest.mark.skipif(not SHARED.is_dir(), reason="no recordings beside the repository")


def lines(name: str) -> bytes:
    """A recording of a stream, as its bytes."""
    data = (SHARED / name).read_bytes()
    return data if not name.endswith(".txt") else b"".join(b"data: %b\n\n" % each for each in data.splitlines() if each)


ANTHROPIC = (
    "pydantic-ai__anthropic__test_anthropic_model_thinking_part_stream.0.sse",
    "pydantic-ai__anthropic__test_anthropic_model_thinking_part_redacted_stream.0.sse",
    "pydantic-ai__anthropic__test_anthropic_mcp_servers_stream.0.sse",
    "llm-anthropic__anthropic__test_stream_events_thinking.0.sse",
    "ai__anthropic__anthropic-clear-thinking.1.chunks.txt",
    "ai__anthropic__anthropic-claude-opus-5-reasoning-high.1.json",
    "pydantic-ai__anthropic__test_anthropic_model_thinking_part_redacted.0.json",
)


@recorded
@pytest.mark.parametrize("name", ANTHROPIC)
def test_recorded_thinking_of_claude_comes_back_byte_for_byte(name: str) -> None:
    form, data = FORMS["anthropic"], lines(name)
    streamed = not name.endswith(".json")
    blocks = [block for block in message_of(data) if "thinking" in block["type"]]
    assert blocks
    word = next(
        (each for block in blocks for each in block.get("thinking", "").split() if len(each) > 6 and each.isalpha()), ""
    )
    moderation = policy("redact", *filter(None, [word]))
    request = ask(form, [], streamed)
    if streamed:
        out = stream(form.dialect, request, moderation, data, size=13)
    else:
        out = body(form.dialect, request, moderation, data)
    history = form.history(out, streamed)
    assert word == "" or word not in json.dumps(history)
    (message,) = ask(form, history).document["messages"]
    assert message["content"] == blocks


@recorded
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ai__aws-bedrock__amazon-bedrock-reasoning.json", "converse"),
        ("pydantic-ai__aws-bedrock__test_bedrock_model_thinking_part_redacted.0.json", "converse"),
        ("pydantic-ai__aws-bedrock__test_bedrock_model_thinking_part_stream.0.bin", "converse"),
        ("ai__openai__openai-reasoning-encrypted-content.1.chunks.txt", "responses"),
        ("pydantic-ai__openai__test_openai_responses_thinking_part_iter.0.sse", "responses"),
        ("pydantic-ai__google-gemini__test_google_streaming_tool_call_thought_signature.0.sse", "gemini"),
        ("ai__google-gemini__tool-call-step1.chunks.txt", "interactions"),
        ("pydantic-ai__openrouter__test_openrouter_preserve_reasoning_block.1.json", "reasoning_details"),
        ("pydantic-ai__openrouter__test_openrouter_streaming_reasoning.0.sse", "reasoning_details"),
    ],
)
def test_recorded_signatures_come_back(name: str, form: str) -> None:
    used, data, streamed = FORMS[form], lines(name), not name.endswith(".json")
    declared = sorted({"send", *strings(list(documents(data)), ("name",))})
    tools: dict[str, Any] = {
        "gemini": [{"functionDeclarations": [{"name": each} for each in declared]}],
        "responses": [{"type": "function", "name": each} for each in declared],
        "interactions": [{"type": "function", "name": each} for each in declared],
    }
    if form in tools:
        used = used._replace(request=lambda sent: {**FORMS[form].request(sent), "tools": tools[form]})
    request = ask(used, [], streamed)
    if streamed:
        kind = STREAM if form == "converse" else SSE
        out = stream(used.dialect, request, REDACT, data, kind, 17)
        assert stream(used.dialect, request, REDACT, data, kind)
    else:
        out = body(used.dialect, request, REDACT, data)
    history = used.history(out, streamed)
    sealed = strings(history)
    assert sealed
    assert all(is_token(each.translate(str.maketrans("+/", "-_"))) for each in sealed)
    restored = strings(ask(used, history).document)
    raw = b"".join(_payloads(data)) if form == "converse" and streamed else data
    assert restored
    for each in restored:
        assert json.dumps(each).encode() in raw or each.encode() in raw


def _payloads(data: bytes) -> Iterator[bytes]:
    framing = AwsEventStream()
    for block in framing.feed(data):
        event = framing.parse(block)
        if event is not None:
            yield event.data
