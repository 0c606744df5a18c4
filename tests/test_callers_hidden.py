"""Hidden reasoning: moderated and not written, in every dialect; the rest is as before, and SDKs still read it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import anthropic
import httpx2
import pytest
from bedrock_kit import STREAM, answered, frames, see_body, see_stream
from dialect_kit import ask, policy
from genai_kit import sdk as gemini_sdk
from hypothesis import given, settings
from hypothesis import strategies as st
from responses_kit import sdk as openai_sdk
from test_guarantees import CUTS, DETECTORS, POLICIES, TEXTS, pieces

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Dialect, Prepared
from cotguard.moderation.exchange import Exchange, Outcome
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy
from cotguard.spans import Action, ChannelKind

HIDDEN = frozenset({ChannelKind.REASONING})
KINDS = st.sampled_from([ChannelKind.REASONING, ChannelKind.OUTPUT])


def delivered(rules: Policy, view: View, parts: Sequence[str], hidden: frozenset[ChannelKind] = HIDDEN) -> list[str]:
    """What has been delivered after each piece, and in the end."""
    exchange = Exchange(rules, DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16, hidden=hidden)
    lane = exchange.lane(0)
    lane.open("text", view)
    found = [""]
    for part in parts:
        lane.feed("text", part)
        found.append(found[-1] + "".join(emission.text for emission in lane.take()))
    lane.finish()
    return [*found, found[-1] + "".join(emission.text for emission in lane.take())]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)), initial=KINDS)
def test_g1_and_g2_hold_for_what_is_left(text: str, widths: list[int], action: Action, initial: ChannelKind) -> None:
    whole = delivered(POLICIES[action], MarkerView(initial), [text])[-1]
    found = delivered(POLICIES[action], MarkerView(initial), pieces(text, widths))
    assert found[-1] == whole
    assert all(whole.startswith(part) for part in found)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, widths=CUTS, initial=KINDS)
def test_what_is_left_is_the_answer_and_the_markers(text: str, widths: list[int], initial: ChannelKind) -> None:
    view = MarkerView(initial)
    read = view.feed(text, final=True)
    marked = {at for start, end in view.markers for at in range(start, end)}
    visible = (at for at in range(len(read)) if at in marked or view.kind_at(at) is not ChannelKind.REASONING)
    expected = "".join(read[at] for at in visible)
    nothing = policy("flag")[0]
    assert delivered(nothing, MarkerView(initial), pieces(text, widths))[-1] == expected


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)))
def test_of_a_channel_of_reasoning_nothing_is_left(text: str, widths: list[int], action: Action) -> None:
    assert set(delivered(POLICIES[action], PlainView(ChannelKind.REASONING), pieces(text, widths))) == {""}


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)))
def test_a_text_without_reasoning_is_as_before(text: str, widths: list[int], action: Action) -> None:
    parts = pieces(text, widths)
    shown = delivered(POLICIES[action], PlainView(ChannelKind.OUTPUT), parts, frozenset())
    assert delivered(POLICIES[action], PlainView(ChannelKind.OUTPUT), parts) == shown


def test_values_across_the_end_of_a_thought_are_rewritten_behind_it() -> None:
    text = "<think>mail ann.lee</think>@example.com now"
    assert delivered(POLICIES[Action.REDACT], MarkerView(ChannelKind.OUTPUT), [text])[-1] == (
        "<think></think>[EMAIL_ADDRESS] now"
    )


def test_a_notice_of_hidden_reasoning_is_hidden_too() -> None:
    text = "<think>mail ann.lee@example.com and more</think>The answer is 4."
    assert delivered(POLICIES[Action.WITHHOLD], MarkerView(ChannelKind.OUTPUT), [text])[-1] == (
        "<think></think>The answer is 4."
    )


def test_hidden_reasoning_is_moderated_all_the_same() -> None:
    exchange = Exchange(POLICIES[Action.BLOCK], DETECTORS, RequestFacts(), b"k" * 16, hidden=HIDDEN)
    lane = exchange.lane(0)
    lane.open("thought", PlainView(ChannelKind.REASONING))
    lane.open("answer", PlainView(ChannelKind.OUTPUT))
    lane.feed("thought", "mail ann.lee@example.com now and then, or not at all")
    lane.feed("answer", "The answer")
    lane.finish()
    assert lane.cut
    assert [emission.text for emission in lane.take()] == []
    assert {verdict.outcome for verdict in exchange.tally} == {Outcome.BLOCKED}


# --- Every dialect ---------------------------------------------------------------------------------------------------

THOUGHT = "The quokka thinks that two and two make four. "
ANSWER = "So the wombat says it is 4."
INLINE = f"<think>{THOUGHT}</think>{ANSWER}"


class Sample(NamedTuple):
    """A response of one dialect, streamed or whole."""

    dialect: str
    action: str
    request: dict[str, Any]
    data: bytes
    content_type: str = "text/event-stream"
    parameters: Mapping[str, str] = MappingProxyType({})


def sse(*documents: dict[str, Any], named: bool = False, done: bool = False) -> bytes:
    out = b""
    for document in documents:
        out += b"event: %b\n" % document["type"].encode() if named else b""
        out += b"data: %b\n\n" % json.dumps(document).encode()
    return out + (b"data: [DONE]\n\n" if done else b"")


def chat(*deltas: dict[str, Any]) -> bytes:
    ending = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return sse(*chunks, {"id": "c", "choices": ending}, done=True)


def chat_body(**message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


def block(index: int, kind: str, delta: str, text: str) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}},
        {"type": "content_block_delta", "index": index, "delta": {"type": delta, kind: text}},
        {"type": "content_block_stop", "index": index},
    ]


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
USAGE = {"input_tokens": 1, "output_tokens": 2}
ANTHROPIC = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": USAGE}},
    *block(0, "thinking", "thinking_delta", THOUGHT),
    *block(1, "text", "text_delta", ANSWER),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
    {"type": "message_stop"},
]
ANTHROPIC_CONTENT = [{"type": "thinking", "thinking": THOUGHT, "signature": "AAAA"}, {"type": "text", "text": ANSWER}]
GEMINI_PARTS: list[dict[str, Any]] = [{"text": THOUGHT, "thought": True}, {"text": ANSWER}]
CONVERSE: list[tuple[str, dict[str, Any]]] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": THOUGHT}}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": ANSWER}}),
    ("contentBlockStop", {"contentBlockIndex": 1}),
    ("messageStop", {"stopReason": "end_turn"}),
]
CONVERSE_CONTENT = [{"reasoningContent": {"reasoningText": {"text": THOUGHT}}}, {"text": ANSWER}]
CHAT = {"model": "m", "messages": []}
STREAMED = {"stream": True}
PROMPT = {"model": "m", "prompt": "x"}


def gemini(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, **more}]}


def interaction(kind: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": kind, **fields}


def responses() -> tuple[bytes, bytes]:
    """The Responses API's stream of a reasoning item and a message, and its last document."""
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": THOUGHT}],
        "content": [{"type": "reasoning_text", "text": THOUGHT}],
    }
    part = {"type": "output_text", "text": ANSWER, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    about = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": [], "tool_choice": "auto"}
    whole = {**about, "parallel_tool_calls": True, "status": "completed", "output": [reasoning, message]}
    at = {"item_id": "rs_1", "output_index": 0}
    to = {"item_id": "msg_1", "output_index": 1}
    empty = {**reasoning, "summary": [], "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.reasoning_summary_part.added", **at, "summary_index": 0,
         "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "summary_index": 0, "delta": THOUGHT},
        {"type": "response.reasoning_summary_text.done", **at, "summary_index": 0, "text": THOUGHT},
        {"type": "response.reasoning_summary_part.done", **at, "summary_index": 0,
         "part": {"type": "summary_text", "text": THOUGHT}},
        {"type": "response.reasoning_text.delta", **at, "content_index": 0, "delta": THOUGHT},
        {"type": "response.reasoning_text.done", **at, "content_index": 0, "text": THOUGHT},
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
        {"type": "response.output_item.added", "output_index": 1, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **to, "content_index": 0, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **to, "content_index": 0, "delta": ANSWER, "logprobs": []},
        {"type": "response.output_text.done", **to, "content_index": 0, "text": ANSWER, "logprobs": []},
        {"type": "response.content_part.done", **to, "content_index": 0, "part": part},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.completed", "response": whole},
    ]  # fmt: skip
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return sse(*numbered, named=True), json.dumps(whole).encode()


RESPONSES, RESPONSE = responses()
STEPS = [
    {"type": "thought", "summary": [{"type": "text", "text": THOUGHT}]},
    {"type": "model_output", "content": [{"type": "text", "text": ANSWER}]},
]
COHERE: list[dict[str, Any]] = [
    {"type": "message-start", "id": "m-1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": THOUGHT}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": THOUGHT}}}},
    {"type": "content-end", "index": 0},
    {"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": ANSWER}}}},
    {"type": "content-end", "index": 1},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
]
COHERE_CONTENT = [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}]
MISTRAL_CONTENT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
    {"type": "text", "text": ANSWER},
]
ENTRY = {"object": "entry", "id": "e_1", "type": "message.output", "role": "assistant", "model": "m"}


def mistral(output: int, content: Any) -> dict[str, Any]:
    about = {"output_index": output, "id": f"e_{output}", "content_index": 0, "model": "m", "role": "assistant"}
    return {"type": "message.output.delta", **about, "content": content}


def lines(*documents: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


JSON = "application/json"
SAMPLES: dict[str, Sample] = {
    "chat": Sample("chat_completions", "chat", CHAT | STREAMED, chat(
        {"role": "assistant", "reasoning_content": THOUGHT},
        {"reasoning": THOUGHT},
        {"reasoning_details": [{"type": "reasoning.text", "text": THOUGHT, "index": 0}]},
        {"content": ANSWER},
    )),
    "chat, inline": Sample("chat_completions", "chat", CHAT | STREAMED, chat({"content": INLINE})),
    "chat, opened by the template": Sample(
        "chat_completions", "chat", CHAT | STREAMED | {"model": "deepseek-r1"},
        chat({"content": f"{THOUGHT}</think>{ANSWER}"}),
    ),
    "chat, whole": Sample("chat_completions", "chat", CHAT, chat_body(
        reasoning_content=THOUGHT, content=[{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
                                            {"type": "text", "text": ANSWER}]), JSON),
    "chat, whole and inline": Sample("chat_completions", "chat", CHAT, chat_body(content=INLINE), JSON),
    "completions": Sample("completions", "complete", PROMPT | STREAMED, sse(
        {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": INLINE, "finish_reason": "stop"}]},
        done=True)),
    "completions, whole": Sample("completions", "complete", PROMPT, json.dumps(
        {"id": "c", "object": "text_completion", "created": 1, "model": "m",
         "choices": [{"index": 0, "text": INLINE, "finish_reason": "stop"}]}).encode(), JSON),
    "responses": Sample("responses", "create", {"model": "m", "input": "x"} | STREAMED, RESPONSES),
    "responses, whole": Sample("responses", "create", {"model": "m", "input": "x"}, RESPONSE, JSON),
    "anthropic": Sample("anthropic", "messages", CHAT | STREAMED, sse(*ANTHROPIC, named=True)),
    "anthropic, whole": Sample("anthropic", "messages", CHAT, json.dumps(
        {**MESSAGE, "content": ANTHROPIC_CONTENT, "stop_reason": "end_turn", "usage": USAGE}).encode(), JSON),
    "gemini": Sample("gemini", "stream", {"contents": []}, sse(
        gemini(GEMINI_PARTS[0]), gemini(GEMINI_PARTS[1], finishReason="STOP")), parameters={"model": "m"}),
    "gemini, whole": Sample("gemini", "generate", {"contents": []}, json.dumps(
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": GEMINI_PARTS}, "finishReason": "STOP"}]}
    ).encode(), JSON, {"model": "m"}),
    "interactions": Sample("interactions", "create", {"model": "m", "input": "x"} | STREAMED, sse(
        interaction("interaction.created", interaction={"id": "i", "status": "in_progress", "model": "m"}),
        interaction("step.start", index=0, step={"type": "thought"}),
        interaction("step.delta", index=0, delta={
            "type": "thought_summary", "content": {"type": "text", "text": THOUGHT}}),
        interaction("step.stop", index=0),
        interaction("step.start", index=1, step={"type": "model_output"}),
        interaction("step.delta", index=1, delta={"type": "text", "text": ANSWER}),
        interaction("step.stop", index=1),
        interaction("interaction.completed", interaction={"id": "i", "status": "completed", "model": "m"}),
    )),
    "interactions, whole": Sample("interactions", "create", {"model": "m", "input": "x"}, json.dumps(
        {"id": "i", "status": "completed", "model": "m", "steps": STEPS}).encode(), JSON),
    "ollama": Sample("ollama", "chat", CHAT | STREAMED, lines(
        {"model": "m", "message": {"role": "assistant", "content": "", "thinking": THOUGHT}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ANSWER}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
    ), "application/x-ndjson"),
    "ollama, whole": Sample("ollama", "generate", PROMPT | {"stream": False}, json.dumps(
        {"model": "m", "response": ANSWER, "thinking": THOUGHT, "done": True, "done_reason": "stop"}).encode(), JSON),
    "bedrock": Sample("bedrock", "converse-stream", {"messages": []}, frames(CONVERSE), STREAM, {"model": "m"}),
    "bedrock, whole": Sample("bedrock", "converse", {"messages": []}, json.dumps(
        {"output": {"message": {"role": "assistant", "content": CONVERSE_CONTENT}}, "stopReason": "end_turn"}
    ).encode(), JSON, {"model": "m"}),
    "llamacpp": Sample("llamacpp", "complete", {"prompt": "x"} | STREAMED, sse(
        {"index": 0, "content": INLINE, "stop": False}, {"index": 0, "content": "", "stop": True})),
    "tgi, whole": Sample("generate", "generate", {"inputs": "x"}, json.dumps(
        {"generated_text": INLINE}).encode(), JSON),
    "cohere": Sample("cohere", "chat", CHAT | STREAMED, sse(*COHERE, named=True)),
    "cohere, whole": Sample("cohere", "chat", CHAT | {"stream": False}, json.dumps(
        {"id": "m-1", "message": {"role": "assistant", "tool_plan": THOUGHT, "content": COHERE_CONTENT},
         "finish_reason": "COMPLETE"}).encode(), JSON),
    "mistral": Sample("mistral_conversations", "start", {"model": "m", "inputs": "x"} | STREAMED, sse(
        {"type": "conversation.response.started", "conversation_id": "conv_1"},
        mistral(0, MISTRAL_CONTENT[0]), mistral(1, MISTRAL_CONTENT[1]),
        {"type": "conversation.response.done", "usage": {"prompt_tokens": 5, "completion_tokens": 9}}, named=True)),
    "mistral, whole": Sample("mistral_conversations", "start", {"model": "m", "inputs": "x"}, json.dumps(
        {"conversation_id": "conv_1", "object": "conversation.response", "outputs": [
            {**ENTRY, "content": MISTRAL_CONTENT}]}).encode(), JSON),
}  # fmt: skip
DIALECTS = {dialect.name: dialect for dialect in dialects()}
LACKING = {"transcription"}
"""Dialects without reasoning."""


def test_there_is_a_sample_of_every_dialect() -> None:
    assert {sample.dialect for sample in SAMPLES.values()} | LACKING == set(DIALECTS)


def moderated(name: str, hidden: frozenset[ChannelKind], size: int = 10**9) -> bytes:
    """What the client gets of a sample that is read in pieces of ``size`` bytes."""
    sample = SAMPLES[name]
    dialect = DIALECTS[sample.dialect]
    prepared = ask(
        dialect, sample.action, sample.request, sample.parameters, {"alt": "sse"} if name == "gemini" else {}
    )
    return written(
        dialect, prepared, sample, Exchange(*policy("redact"), prepared.facts, b"k" * 16, hidden=hidden), size
    )


def written(dialect: Dialect, prepared: Prepared, sample: Sample, exchange: Exchange, size: int) -> bytes:
    translator = dialect.stream(prepared, exchange, sample.content_type)
    if translator is None:
        return dialect.body(sample.data, prepared, exchange)
    out = b"".join(translator.receive(sample.data[at : at + size]) for at in range(0, len(sample.data), size))
    return out if translator.finished else out + translator.end()


@pytest.mark.parametrize("name", SAMPLES)
def test_reasoning_is_hidden_in_every_dialect(name: str) -> None:
    shown = moderated(name, frozenset())
    assert b"quokka" in shown
    assert b"wombat" in shown
    for size in (1, 7, 10**9):
        out = moderated(name, HIDDEN, size)
        assert b"quokka" not in out
        assert b"wombat" in out


def texts(value: object) -> Iterator[str]:
    """All texts in a JSON document."""
    if isinstance(value, dict):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


def test_sdks_read_what_is_left() -> None:
    with openai_sdk(moderated("chat", HIDDEN)).chat.completions.create(model="m", messages=[], stream=True) as chunks:
        assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == ANSWER
    stream: Any = openai_sdk(moderated("responses", HIDDEN)).responses.create(model="m", input="x", stream=True)
    *_, last = stream
    assert last.type == "response.completed"
    assert last.response.output_text == ANSWER
    assert not any("quokka" in text for text in texts(last.response.to_dict()))
    with anthropic_sdk(moderated("anthropic", HIDDEN)).messages.stream(model="m", max_tokens=9, messages=[]) as events:
        thought, answer = events.get_final_message().content
    assert thought.type == "thinking"
    assert thought.thinking == ""
    assert answer.type == "text"
    assert answer.text == ANSWER
    with gemini_sdk(moderated("gemini", HIDDEN)) as client:
        answers = client.models.generate_content_stream(model="m", contents="x")
        assert "".join(each.text or "" for each in answers) == ANSWER
    converse = answered(moderated("bedrock", HIDDEN), STREAM).converse_stream(modelId="m", messages=[])
    seen = see_stream(converse["stream"])
    assert (seen.text, seen.reasoning) == (ANSWER, "")
    whole = see_body(answered(moderated("bedrock, whole", HIDDEN), JSON).converse(modelId="m", messages=[]))
    assert (whole.text, whole.reasoning) == (ANSWER, "")


def anthropic_sdk(data: bytes) -> anthropic.Anthropic:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": "text/event-stream"})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="none", base_url="http://upstream", http_client=client, max_retries=0)
