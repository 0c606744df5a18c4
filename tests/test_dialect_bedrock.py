"""Amazon Bedrock: streams and answers of Converse and InvokeModel as the official client has them, and the requests."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from bedrock_kit import STREAM, Seen, answered, chunks, frames, see_body, see_stream, told
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from dialect_kit import CANARY, Moderation, ask, body, exchange, policy, shadow, spellings, spoil, stream
from planted import PLANTED, carried
from scripted import cut

from cotguard.detectors.registry import build
from cotguard.dialects.bedrock.dialect import Bedrock
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Prepared, Refused, UpstreamFault
from cotguard.framing.aws_event_stream import EXCEPTION, AwsEventStream
from cotguard.framing.bedrock import Chunks, Padded
from cotguard.framing.contract import Event
from cotguard.policy import parse

DIALECT = Bedrock()
SHARED = Path(__file__).resolve().parents[2] / "shared"
Document = dict[str, Any]
Events = list[tuple[str, Document]]
TOOLS = ("send", "get_current_weather")
WHOLE = 10**9
USAGE = {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12}


def prepared(action: str = "converse-stream", model: str = "anthropic.claude-x-v1:0", **fields: object) -> Prepared:
    tools = {"tools": [{"toolSpec": {"name": name, "inputSchema": {"json": {}}}} for name in TOOLS]}
    request = {"messages": [{"role": "user", "content": [{"text": "x"}]}], "toolConfig": tools, **fields}
    return ask(DIALECT, action, request, {"model": model})


def invoked(action: str, model: str, **fields: object) -> Prepared:
    return ask(DIALECT, action, fields or {"prompt": "x", "inputText": "x"}, {"model": model})


def spoiled(document: Document) -> Document:
    """A document with copies of the canary where no table has a row."""
    found = spoil(document)
    assert isinstance(found, dict)
    return found


# Streams of Converse.


def delta(index: int, **fields: object) -> tuple[str, Document]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": fields}


def reasoning(index: int, text: str) -> tuple[str, Document]:
    return delta(index, reasoningContent={"text": text})


def block(index: int, *deltas: tuple[str, Document], start: Document | None = None) -> Events:
    head = [] if start is None else [("contentBlockStart", {"contentBlockIndex": index, "start": start})]
    return [*head, *deltas, ("contentBlockStop", {"contentBlockIndex": index})]


def tool(index: int, *pieces: str, name: str = "send", **fields: object) -> Events:
    start = {"toolUse": {"toolUseId": f"tooluse_{index}", "name": name, **fields}}
    return block(index, *(delta(index, toolUse={"input": piece}) for piece in pieces), start=start)


def message(*blocks: Events, stop: str = "end_turn") -> Events:
    end: Events = [("messageStop", {"stopReason": stop}), ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 3}})]
    return [("messageStart", {"role": "assistant"}), *(event for each in blocks for event in each), *end]


def seen(data: bytes) -> Seen:
    return see_stream(answered(data, STREAM).converse_stream(modelId="m", messages=[])["stream"])


def run(events: Events | bytes, moderation: Moderation, request: Prepared | None = None, size: int = WHOLE) -> Seen:
    data = events if isinstance(events, bytes) else frames(events)
    return seen(stream(DIALECT, request or prepared(), moderation, data, STREAM, size))


@pytest.mark.parametrize("size", [1, 7, 300, WHOLE])
def test_texts_are_moderated_across_deltas(balanced: Moderation, size: int) -> None:
    events = message(
        block(
            0,
            reasoning(0, "She is ann.le"),
            reasoning(0, "e@example.com, so"),
            delta(0, reasoningContent={"signature": "c2ln"}),
        ),
        block(1, delta(1, text="Card 4111 1111 11"), delta(1, text="11 1111 it is.")),
        tool(2, '{"to": "ann.l', 'ee@example.com", "n": 41111111', "11111111}"),
        stop="tool_use",
    )
    found = run(events, balanced, size=size)
    assert (found.reasoning, found.text) == ("She is [EMAIL_ADDRESS], so", "Card [CREDIT_CARD] it is.")
    assert found.calls == [("send", "tooluse_2", {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]"})]
    assert found.order == ["reasoningContent", "text", "toolUse"]
    assert (found.role, found.stop, found.usage, found.metrics) == ("assistant", "tool_use", USAGE, {"latencyMs": 3})


def test_calls_of_tools_that_were_not_declared_are_dropped_without_a_gap() -> None:
    events = message(
        block(0, delta(0, text="I call.")),
        tool(1, '{"a": 1}', name="other"),
        tool(2, '{"b": 2}', type="server_tool_use"),
        block(3, delta(3, text="Done.")),
        stop="tool_use",
    )
    found = run(events, shadow())
    assert found.calls == [("send", "tooluse_2", {"b": 2})]
    assert (found.text, found.indexes, found.stop) == ("I call.Done.", [0, 1, 2], "tool_use")
    dropped = run(message(tool(0, "{}", name="other"), block(1, delta(1, text="Done.")), stop="tool_use"), shadow())
    assert (dropped.calls, dropped.text, dropped.stop) == ([], "Done.", "end_turn")


def test_results_of_tools_are_moderated(balanced: Moderation) -> None:
    start = {"toolResult": {"toolUseId": "t", "status": "success", "type": "nova_grounding_result"}}
    deltas = [
        delta(0, toolResult=[{"text": "to ann.le"}]),
        delta(0, toolResult=[{"text": "e@example.com, ok"}]),
        delta(0, toolResult=[{"json": {"mail": "ann.lee@example.com", "n": 1}}]),
        delta(0, toolResult=[{"other": CANARY}]),
    ]
    found = run(message(block(0, *deltas, start=start)), balanced)
    assert "".join(each["text"] for each in found.results if isinstance(each, dict) and "text" in each) == (
        "to [EMAIL_ADDRESS], ok"
    )
    assert found.results[-1] == {"json": {"mail": "[EMAIL_ADDRESS]", "n": 1}}


def test_citations_are_moderated_and_keep_their_place(balanced: Moderation) -> None:
    citation = {
        "title": "of ann.lee@example.com",
        "source": "file",
        "sourceContent": [{"text": "mail ann.lee@example.com"}, {"image": CANARY}],
        "location": {"documentChar": {"documentIndex": 0, "start": 1, "end": 9}},
        "words": CANARY,
    }
    odd = {"title": "t", "location": {"elsewhere": {"word": CANARY}}}
    found = run(
        message(block(0, delta(0, text="As it says. "), delta(0, citation=citation), delta(0, citation=odd))), balanced
    )
    assert found.citations == [
        {
            "title": "of [EMAIL_ADDRESS]",
            "source": "file",
            "sourceContent": [{"text": "mail [EMAIL_ADDRESS]"}],
            "location": {"documentChar": {"documentIndex": 0, "start": 1, "end": 9}},
        },
        {"title": "t"},
    ]


def test_a_value_over_blocks_of_a_few_characters_is_found(balanced: Moderation) -> None:
    text = (
        "Write to ann.lee@example.com or pay with 4111 1111 1111 1111, as you like, and tell me when it is done. " * 3
    )
    pieces = list(cut(text, random.Random(1), 3))
    for kind in ("text", "reasoning"):
        blocks = [
            block(at, delta(at, text=piece) if kind == "text" else reasoning(at, piece))
            for at, piece in enumerate(pieces)
        ]
        found = run(message(*blocks), balanced)
        said = (found.text or found.reasoning).replace("[CREDIT_CARD]" * 2, "[CREDIT_CARD]")  # both sides of a seam
        assert said.count("[EMAIL_ADDRESS] or pay with [CREDIT_CARD],") == 3
        assert found.indexes == list(range(len(found.indexes)))
        assert 2 <= len(found.indexes) < 8


def test_blocks_that_are_long_stay_apart() -> None:
    blocks = [block(at, delta(at, text=f"{at} " * 50)) for at in range(3)]
    assert run(message(*blocks), shadow()).indexes == [0, 1, 2]


def test_a_value_over_the_seam_of_reasoning_and_text(balanced: Moderation) -> None:
    found = run(
        message(block(0, reasoning(0, "so it is ann.le")), block(1, delta(1, text="e@example.com then"))), balanced
    )
    assert "ann" not in found.reasoning
    assert "example" not in found.text


def test_a_block_stops_the_message() -> None:
    events = message(
        block(0, reasoning(0, "I think.")), block(1, delta(1, text="so ann.lee@example.com is")), tool(2, "{}")
    )
    data = stream(DIALECT, prepared(), policy("block"), frames(events), STREAM)
    found = seen(data)
    assert (found.reasoning, found.text, found.calls) == ("I think.", "so ", [])
    assert (found.stop, found.error) == ("content_filtered", "")
    names = [event.name for event in read(data)]
    assert names[-2:] == ["contentBlockStop", "messageStop"]
    assert names.count("contentBlockStop") == 2


def test_half_of_an_input_is_not_given_for_the_whole() -> None:
    events = message(tool(0, '{"path": "/tmp/some/where/long/enough/to/be/written", "to": "ann.lee@', 'example.com"}'))
    data = stream(DIALECT, prepared(), policy("block"), frames(events), STREAM)
    assert seen(data).calls == []
    assert seen(data).stop == "content_filtered"
    assert "contentBlockStop" not in [event.name for event in read(data)]


def test_text_that_is_withheld() -> None:
    events = message(block(0, reasoning(0, "It is ann.lee@example.com, I think.")), block(1, delta(1, text="Done.")))
    found = run(events, policy("withhold", entity="EMAIL_ADDRESS"))
    assert "ann" not in found.reasoning
    assert "I think" not in found.reasoning
    assert (found.text, found.stop) == ("Done.", "end_turn")


def test_a_fault_is_an_exception_frame(balanced: Moderation) -> None:
    head = frames(message(block(0, delta(0, text="so it goes on and on. 4111")))[:2])
    unreadable = AwsEventStream().write(Event("contentBlockDelta", b"{words"))
    for broken in (head + b"\0" * 12, head + unreadable):
        found = run(broken, balanced)
        assert found.text == "so it goes on and on. "
        assert found.error == "modelStreamErrorException: The upstream's stream could not be read."
    ended = run(head, balanced)
    assert ended.error == "modelStreamErrorException: The upstream ended the stream early."
    translator = DIALECT.stream(prepared(), exchange(balanced), STREAM)
    assert translator is not None
    failed = seen(translator.receive(head) + translator.fail(ErrorKind.MODERATION_FAILED, "constant"))
    assert (failed.text, failed.error) == ("so it goes on and on. ", "internalServerException: constant")


@pytest.mark.parametrize(
    ("name", "told_as"),
    [("throttlingException", "throttlingException"), ("secretException", "modelStreamErrorException")],
)
def test_an_upstreams_exception_is_told_by_its_name_alone(balanced: Moderation, name: str, told_as: str) -> None:
    head = frames(message(block(0, delta(0, text="so it goes on and on. 4111")))[:2])
    words = {"message": CANARY, "originalMessage": CANARY, "originalStatusCode": 500}
    data = stream(DIALECT, prepared(), balanced, head + frames([(EXCEPTION + name, words)]), STREAM)
    assert CANARY.encode() not in data
    assert seen(data).error == f"{told_as}: The upstream reported an error."


MALFORMED: dict[str, Events] = {
    "no index": [("contentBlockDelta", {"delta": {"text": "x"}})],
    "a negative index": [delta(-1, text="x")],
    "text that is a list": [delta(0, text=["x"])],
    "reasoning that is a text": [delta(0, reasoningContent="x")],
    "text within a tool": [*tool(0, '{"a')[:-1], delta(0, text="x")],
}


@pytest.mark.parametrize("events", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_a_client_could_misread_is_a_fault(events: Events) -> None:
    found = run([*message()[:1], *events], shadow())
    assert found.error.startswith("modelStreamErrorException")
    assert found.text == ""


def test_blocks_are_limited(balanced: Moderation) -> None:
    blocks = [
        block(at, delta(at, text="x" * 64), ("contentBlockStop", {"contentBlockIndex": at})) for at in range(4100)
    ]
    assert run(message(*blocks), shadow()).error == (
        "modelStreamErrorException: The upstream's response has too many content blocks."
    )


# Where copies of a text may stand, each a change of a stream that says nothing else of the canary.

MIRRORS: dict[str, tuple[str, Document]] = {
    "signature": delta(0, reasoningContent={"signature": CANARY}),
    "redacted": delta(0, reasoningContent={"redactedContent": CANARY}),
    "image": delta(0, image={"source": {"bytes": CANARY}}),
    "image's error": delta(0, image={"error": {"message": CANARY}}),
    "unknown delta": delta(0, words={"text": CANARY}),
    "beside a delta": ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}, "text": CANARY}),
    "padding": ("contentBlockDelta", {"contentBlockIndex": 0, "p": CANARY, "delta": {"text": "a"}}),
    "unknown start": ("contentBlockStart", {"contentBlockIndex": 0, "start": {"words": {"text": CANARY}}}),
    "image's start": ("contentBlockStart", {"contentBlockIndex": 0, "start": {"image": {"format": CANARY}}}),
    "undeclared tool": ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"name": CANARY}}}),
    "tool's type": (
        "contentBlockStart",
        {"contentBlockIndex": 9, "start": {"toolUse": {"name": "send", "type": CANARY}}},
    ),
    "input of no tool": delta(0, toolUse={"input": CANARY}),
    "result of no tool": delta(0, toolResult=[{"text": CANARY}, {"json": {"a": CANARY}}]),
    "stop": ("contentBlockStop", {"contentBlockIndex": 0, "text": CANARY}),
    "role": ("messageStart", {"role": CANARY}),
    "reason": ("messageStop", {"stopReason": CANARY}),
    "fields of the model": ("messageStop", {"stopReason": "end_turn", "additionalModelResponseFields": {"a": CANARY}}),
    "trace": ("metadata", {"usage": USAGE, "trace": {"guardrail": {"modelOutput": [CANARY], "actionReason": CANARY}}}),
    "assessments": ("metadata", {"trace": {"guardrail": {"outputAssessments": {CANARY: [{"match": CANARY}]}}}}),
    "router": ("metadata", {"trace": {"promptRouter": {"invokedModelId": CANARY}}}),
    "tier": ("metadata", {"serviceTier": {"type": CANARY}, "performanceConfig": {"latency": CANARY}}),
    "usage": ("metadata", {"usage": {"inputTokens": CANARY, "words": CANARY}, "metrics": {"latencyMs": CANARY}}),
    "unknown event": ("words", {"text": CANARY}),
}


@pytest.mark.parametrize("event", MIRRORS.values(), ids=MIRRORS.keys())
def test_nothing_but_texts_reaches_the_client(event: tuple[str, Document]) -> None:
    rest = message(block(0, delta(0, text="Hello")))
    events = [*(each for each in rest if each[0] != event[0] or event[0].startswith("content")), rest[-1]]
    at = {"messageStart": 0, "messageStop": len(events) - 2, "metadata": len(events) - 2}.get(event[0], 1)
    data = stream(DIALECT, prepared(), shadow(), frames([*events[:at], event, *events[at:]]), STREAM)
    assert not [each for each in spellings(CANARY) if each in data]
    assert len(read(data)) >= 3


def read(data: bytes) -> list[Event]:
    framing = AwsEventStream()
    return [event for each in framing.feed(data) if (event := framing.parse(each)) is not None]


# Planted values in every place of a text.


def planted_events(kind: str, text: str, rng: random.Random) -> tuple[Events, Callable[[Seen], str]]:
    """A stream that says ``text`` in one kind of place, and how to find it."""
    pieces = list(cut(text, rng))
    if kind == "text":
        return block(0, *(delta(0, text=each) for each in pieces)), lambda found: found.text
    if kind == "reasoning":
        return block(0, *(reasoning(0, each) for each in pieces)), lambda found: found.reasoning
    if kind == "input":
        pieces = list(cut(json.dumps({"say": text}), rng))
        return tool(0, *pieces), lambda found: found.calls[0][2]["say"]
    if kind == "result":
        start = {"toolResult": {"toolUseId": "t"}}
        deltas = [delta(0, toolResult=[{"text": each}]) for each in pieces]
        return block(0, *deltas, start=start), lambda found: "".join(each["text"] for each in found.results)
    if kind == "value":
        start = {"toolResult": {"toolUseId": "t"}}
        value = delta(0, toolResult=[{"json": {"say": text}}])
        return block(0, value, start=start), lambda found: found.results[0]["json"]["say"]
    assert kind == "citation"
    return block(0, delta(0, citation={"title": text})), lambda found: found.citations[0]["title"]


@pytest.mark.parametrize("kind", ["text", "reasoning", "input", "result", "value", "citation"])
def test_planted_values_never_leave(balanced: Moderation, kind: str) -> None:
    rng = random.Random(7)
    for planted in PLANTED:
        events, said = planted_events(kind, carried(planted), rng)
        data = stream(DIALECT, prepared(), balanced, frames(message(events)), STREAM, rng.randint(1, 60))
        found = said(seen(data))
        assert planted.value not in found
        assert found == planted.carrier.format(f"[{planted.entity}]"), planted.entity


# Whole answers of Converse.


def answer(*content: Document, **fields: object) -> Document:
    return {
        "output": {"message": {"role": "assistant", "content": list(content)}},
        "stopReason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 4},
        **fields,
    }


def whole(document: Document, moderation: Moderation, request: Prepared | None = None) -> Seen:
    out = body(DIALECT, request or prepared("converse"), moderation, json.dumps(document).encode())
    return see_body(answered(out, "application/json").converse(modelId="m", messages=[]))


CITED = {
    "content": [{"text": "as ann.l"}, {"text": "ee@example.com says"}],
    "citations": [
        {
            "title": "ann.lee@example.com",
            "source": "s",
            "location": {"web": {"url": "https://a.example/", "domain": "d"}},
        },
        {"title": "t", "sourceContent": [{"text": "ann.lee@example.com"}, {"x": CANARY}], "location": {"y": CANARY}},
    ],
}


def test_a_whole_answer(balanced: Moderation) -> None:
    document = answer(
        {"reasoningContent": {"reasoningText": {"text": "ann.lee@example.com asks", "signature": CANARY}}},
        {"reasoningContent": {"redactedContent": CANARY}},
        {"text": "4111 1111 1111 1111"},
        {"toolUse": {"toolUseId": "t1", "name": "send", "input": {"to": "ann.lee@example.com", "n": 4111111111111111}}},
        {"toolUse": {"toolUseId": "t2", "name": "other", "input": {"to": CANARY}}},
        {"toolResult": {"toolUseId": "t1", "content": [{"image": CANARY}, {"json": {"a": "ann.lee@example.com"}}]}},
        {"citationsContent": CITED},
        {"image": {"source": {"bytes": CANARY}}},
        {"words": {"text": CANARY}},
        stopReason="tool_use",
        additionalModelResponseFields={"a": CANARY},
        trace={"guardrail": {"modelOutput": [CANARY]}},
        words=CANARY,
    )
    data = body(DIALECT, prepared("converse"), balanced, json.dumps(document).encode())
    assert not [each for each in spellings(CANARY) if each in data]
    found = whole(document, balanced)
    assert found.reasoning == "[EMAIL_ADDRESS] asks"
    assert found.text == "[CREDIT_CARD]as [EMAIL_ADDRESS] says"
    assert found.calls == [("send", "t1", {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]"})]
    assert found.results == [{"toolUseId": "t1", "content": [{"json": {"a": "[EMAIL_ADDRESS]"}}]}]
    assert found.citations == [
        {"title": "[EMAIL_ADDRESS]", "source": "s", "location": {"web": {"url": "https://a.example/", "domain": "d"}}},
        {"title": "t", "sourceContent": [{"text": "[EMAIL_ADDRESS]"}]},
    ]
    assert (found.stop, found.usage, found.metrics) == ("tool_use", USAGE, {"latencyMs": 4})


def test_a_value_over_the_blocks_of_a_whole_answer(balanced: Moderation) -> None:
    pieces = ("so ann", ".le", "e@exam", "ple.com then")
    assert whole(answer(*({"text": each} for each in pieces)), balanced).text == "so [EMAIL_ADDRESS] then"
    thoughts = ({"reasoningContent": {"reasoningText": {"text": each}}} for each in pieces)
    assert whole(answer(*thoughts), balanced).reasoning == "so [EMAIL_ADDRESS] then"


def test_a_block_in_a_whole_answer() -> None:
    call = {"toolUse": {"toolUseId": "t", "name": "send", "input": {}}}
    found = whole(answer({"text": "so ann.lee@example.com is"}, call), policy("block"))
    assert (found.text, found.calls, found.stop) == ("so ", [], "content_filtered")
    found = whole(
        answer({"text": "so"}, {"toolUse": {**call["toolUse"], "input": "ann.lee@example.com"}}), policy("block")
    )
    assert (found.text, found.calls, found.stop) == ("so", [], "content_filtered")


def test_planted_values_never_leave_a_whole_answer(balanced: Moderation) -> None:
    for planted in PLANTED:
        text, expected = carried(planted), planted.carrier.format(f"[{planted.entity}]")
        use = {"toolUse": {"toolUseId": "t", "name": "send", "input": {"say": text}}}
        thought = {"reasoningContent": {"reasoningText": {"text": text}}}
        found = whole(answer(thought, {"text": text}, use), balanced)
        assert (found.reasoning, found.text, found.calls[0][2]) == (expected, expected, {"say": expected})


@pytest.mark.parametrize("output", [None, {}, {"message": "x"}, {"message": {"content": "x"}}])
def test_answers_that_are_none_are_faults(output: object) -> None:
    with pytest.raises(UpstreamFault, match="could not be read"):
        body(DIALECT, prepared("converse"), shadow(), json.dumps({"output": output}).encode())
    with pytest.raises(UpstreamFault, match="could not be read"):
        body(DIALECT, prepared("converse"), shadow(), b'{"output": {"message": {"content": ["x"]}}}')


# InvokeModel.


def llama(text: str, stop: str | None = None, **fields: object) -> Document:
    return {"generation": text, "prompt_token_count": None, "generation_token_count": 1, "stop_reason": stop, **fields}


def titan(text: str, stop: str | None = None, **fields: object) -> Document:
    return {
        "outputText": text,
        "index": 0,
        "totalOutputTextTokenCount": None,
        "completionReason": stop and {"stop": "FINISH", "length": "LENGTH"}[stop],
        "inputTextTokenCount": 5,
        **fields,
    }


def mistral(text: str, stop: str | None = None, **fields: object) -> Document:
    return {"outputs": [{"text": text, "stop_reason": stop}], **fields}


def deepseek(text: str, stop: str | None = None, **fields: object) -> Document:
    return {"choices": [{"text": text, "stop_reason": stop}], **fields}


METRICS = {"inputTokenCount": 5, "outputTokenCount": 7, "invocationLatency": 90, "firstByteLatency": 30}
FAMILIES: dict[str, tuple[str, Callable[..., Document]]] = {
    "llama": ("us.meta.llama3-3-70b-instruct-v1:0", llama),
    "titan": ("amazon.titan-text-express-v1", titan),
    "mistral": ("arn:aws:bedrock:us-east-1::foundation-model/mistral.mistral-7b-instruct-v0:2", mistral),
    "deepseek": ("us.deepseek.r1-v1:0", deepseek),
}


def text_of(document: Mapping[str, Any]) -> str:
    held = next((document[name][0] for name in ("outputs", "choices", "results") if document.get(name)), document)
    return str(held.get("text") or held.get("generation") or held.get("outputText") or "")


def reason_of(document: Mapping[str, Any]) -> str | None:
    held = next((document[name][0] for name in ("outputs", "choices", "results") if document.get(name)), document)
    found = held.get("stop_reason") or held.get("completionReason")
    return None if found is None else str(found)


def invoke(data: bytes) -> list[Document]:
    events = answered(data, STREAM).invoke_model_with_response_stream(modelId="m", body="{}")["body"]
    return [json.loads(event["chunk"]["bytes"]) for event in events]


@pytest.mark.parametrize(("model", "made"), FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("size", [1, 33, WHOLE])
def test_a_models_own_stream(balanced: Moderation, model: str, made: Callable[..., Document], size: int) -> None:
    texts = ["It is ann.le", "e@example.com or 4111 1111", " 1111 1111, as I said."]
    last = made("", "stop", **{"amazon-bedrock-invocationMetrics": {**METRICS, "words": CANARY}})
    data = chunks(map(spoiled, [*map(made, texts), last]))
    request = invoked("invoke-stream", model)
    out = stream(DIALECT, request, balanced, data, STREAM, size)
    found = invoke(out)
    assert "".join(map(text_of, found)) == "It is [EMAIL_ADDRESS] or [CREDIT_CARD], as I said."
    assert [reason_of(each) for each in found[:-1]] == [None] * (len(found) - 1)
    assert reason_of(found[-1]) == reason_of(last)
    assert found[-1]["amazon-bedrock-invocationMetrics"] == METRICS
    assert CANARY not in json.dumps(found)
    if made is llama:
        assert found[-1]["generation_token_count"] == 1


@pytest.mark.parametrize(("model", "made"), FAMILIES.values(), ids=FAMILIES.keys())
def test_planted_values_never_leave_a_models_own_stream(
    balanced: Moderation, model: str, made: Callable[..., Document]
) -> None:
    rng = random.Random(3)
    for planted in PLANTED:
        data = chunks([*map(made, cut(carried(planted), rng)), made("", "stop")])
        out = stream(DIALECT, invoked("invoke-stream", model), balanced, data, STREAM, rng.randint(1, 90))
        assert "".join(map(text_of, invoke(out))) == planted.carrier.format(f"[{planted.entity}]"), planted.entity


@pytest.mark.parametrize(("model", "made"), FAMILIES.values(), ids=FAMILIES.keys())
def test_a_block_in_a_models_own_stream(model: str, made: Callable[..., Document]) -> None:
    data = chunks([made("so ann.lee@example.com is it"), made(" more"), made("", "stop")])
    found = invoke(stream(DIALECT, invoked("invoke-stream", model), policy("block"), data, STREAM))
    told_cut = ("so ", "CONTENT_FILTERED") if made is titan else ("so " + CUT_NOTICE, "stop")
    assert ("".join(map(text_of, found)), reason_of(found[-1])) == told_cut


@pytest.mark.parametrize(("model", "made"), FAMILIES.values(), ids=FAMILIES.keys())
def test_faults_in_a_models_own_stream(balanced: Moderation, model: str, made: Callable[..., Document]) -> None:
    request, head = invoked("invoke-stream", model), chunks([made("so it goes on and on. 4111")])
    reported = frames([(EXCEPTION + "modelStreamErrorException", {"message": CANARY, "originalMessage": CANARY})])
    for rest, words in ((b"", "ended the stream early"), (reported, "reported an error"), (b"\0" * 12, "could not be")):
        out = stream(DIALECT, request, balanced, head + rest, STREAM)
        with pytest.raises(Exception, match=words) as raised:
            invoke(out)
        assert CANARY not in str(raised.value)
        assert CANARY.encode() not in out


@pytest.mark.parametrize(("model", "made"), FAMILIES.values(), ids=FAMILIES.keys())
def test_a_models_own_answer(balanced: Moderation, model: str, made: Callable[..., Document]) -> None:
    def full(text: str) -> Document:
        document = made(text, "stop")
        if made is titan:
            document = {
                "inputTextTokenCount": 5,
                "results": [{"tokenCount": 3, "outputText": text, "completionReason": "FINISH"}],
            }
        return document

    def said(text: str, moderation: Moderation) -> Document:
        inflated = spoiled({**full(text), "amazon-bedrock-trace": {"words": CANARY}})
        out = body(DIALECT, invoked("invoke", model), moderation, json.dumps(inflated).encode())
        assert CANARY.encode() not in out
        result: Document = json.loads(
            answered(out, "application/json").invoke_model(modelId="m", body="{}")["body"].read()
        )
        return result

    found = said("It is ann.lee@example.com.", balanced)
    assert (text_of(found), reason_of(found)) == ("It is [EMAIL_ADDRESS].", reason_of(full("")))
    assert said("Fine.", shadow()) == full("Fine.")
    for text in ("so ann.lee@example.com is it", "ann.lee@example.com"):
        blocked = said(text, policy("block"))
        rest = "" if made is titan else CUT_NOTICE
        assert text_of(blocked) == ("so " if text.startswith("so") else "") + rest
        assert reason_of(blocked) == ("CONTENT_FILTERED" if made is titan else "stop")


def test_the_reasoning_in_deepseeks_text_is_reasoning() -> None:
    rule = "  - entities: [ALL]\n    channels: [reasoning]\n    action: redact\n"
    parsed = parse(f"version: 1\nname: t\nclassifier: false\nrules:\n{rule}", "t.yaml", None)
    data = chunks([deepseek("ann.lee@example.com</think>\n"), deepseek("ann.lee@example.com"), deepseek("", "stop")])
    request = invoked("invoke-stream", "us.deepseek.r1-v1:0")
    found = invoke(stream(DIALECT, request, (parsed, build(parsed)), data, STREAM))
    assert "".join(map(text_of, found)) == "[EMAIL_ADDRESS]</think>\nann.lee@example.com"


def nova(events: Events) -> bytes:
    documents: list[Document] = [{name: document} for name, document in events]
    documents[-1]["amazon-bedrock-invocationMetrics"] = METRICS
    return chunks(documents)


def nova_seen(data: bytes) -> Seen:
    return see_stream({name: each[name]} for each in invoke(data) for name in each if not name.startswith("amazon"))


@pytest.mark.parametrize("size", [1, 33, WHOLE])
def test_novas_own_stream(balanced: Moderation, size: int) -> None:
    text = "It is ann.lee@example.com or 4111 1111 1111 1111, as I said."
    blocks = [block(at, delta(at, text=piece)) for at, piece in enumerate(cut(text, random.Random(2), 4))]
    request = prepared("invoke-stream", "us.amazon.nova-lite-v1:0")
    out = stream(DIALECT, request, balanced, nova(message(*blocks, tool(99, '{"a": 1}'))), STREAM, size)
    found = nova_seen(out)
    assert found.text == "It is [EMAIL_ADDRESS] or [CREDIT_CARD], as I said."
    assert (found.calls, found.usage) == ([("send", "tooluse_99", {"a": 1})], USAGE)
    assert invoke(out)[-1]["amazon-bedrock-invocationMetrics"] == METRICS
    blocked = nova_seen(stream(DIALECT, request, policy("block"), nova(message(*blocks)), STREAM, size))
    assert (blocked.text, blocked.stop) == ("It is ", "content_filtered")


def test_novas_own_answer(balanced: Moderation) -> None:
    document = answer({"text": "It is ann.lee@example.com."}, words=CANARY)
    request = prepared("invoke", "amazon.nova-pro-v1:0")
    found = json.loads(body(DIALECT, request, balanced, json.dumps(document).encode()))
    assert found["output"]["message"]["content"] == [{"text": "It is [EMAIL_ADDRESS]."}]
    assert "words" not in found


CLAUDE = "us.anthropic.claude-sonnet-4-v1:0"


def claude(*pieces: str) -> list[Document]:
    """The events of Claude's own stream that says these texts."""
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": each}} for each in pieces
    ]
    return [
        {"type": "message_start", "message": {**start, "stop_reason": None, "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {**METRICS, "words": CANARY}},
    ]


def claude_text(found: Sequence[Document]) -> str:
    return "".join(each["delta"]["text"] for each in found if each["type"] == "content_block_delta")


@pytest.mark.parametrize("size", [1, 33, WHOLE])
def test_claudes_own_stream(balanced: Moderation, size: int) -> None:
    request = invoked("invoke-stream", CLAUDE, anthropic_version="bedrock-2023-05-31", messages=[], max_tokens=9)
    data = chunks(map(spoiled, claude("It is ann.le", "e@example.com, as I said.")))
    found = invoke(stream(DIALECT, request, balanced, data, STREAM, size))
    assert claude_text(found) == "It is [EMAIL_ADDRESS], as I said."
    assert found[-1] == {"type": "message_stop", "amazon-bedrock-invocationMetrics": METRICS}
    assert CANARY not in json.dumps(found)
    blocked = invoke(stream(DIALECT, request, policy("block"), data, STREAM, size))
    assert claude_text(blocked) == "It is "
    assert [each["delta"]["stop_reason"] for each in blocked if each["type"] == "message_delta"] == ["refusal"]


def test_faults_in_claudes_own_stream_are_exceptions(balanced: Moderation) -> None:
    request = invoked("invoke-stream", CLAUDE, messages=[])
    head = chunks(claude("so it goes on and on. 4111")[:3])
    error = {"type": "error", "error": {"type": "overloaded_error", "message": CANARY}}
    thrown = frames([(EXCEPTION + "throttlingException", {"message": CANARY})])
    for rest, words in (
        (b"", "modelStreamErrorException.*ended the stream early"),
        (chunks([error]), "modelStreamErrorException.*reported an error"),
        (thrown, "throttlingException.*reported an error"),
    ):
        out = stream(DIALECT, request, balanced, head + rest, STREAM)
        with pytest.raises(Exception, match=words):
            invoke(out)
        assert CANARY.encode() not in out


def test_claudes_own_answer(balanced: Moderation) -> None:
    document = {
        **claude()[0]["message"],
        "content": [{"type": "text", "text": "It is ann.lee@example.com."}],
        "x": CANARY,
    }
    request = invoked("invoke", CLAUDE, messages=[])
    found = json.loads(body(DIALECT, request, balanced, json.dumps(document).encode()))
    assert found["content"] == [{"type": "text", "text": "It is [EMAIL_ADDRESS]."}]
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize(
    "model",
    [
        "amazon.nova-canvas-v1:0",
        "amazon.titan-embed-text-v2:0",
        "cohere.command-r-v1:0",
        "ai21.jamba-1-5-large-v1:0",
        "openai.gpt-oss-120b-1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
        "words",
    ],
)
def test_other_models_are_served_by_converse_only(model: str) -> None:
    for action in ("invoke", "invoke-stream"):
        with pytest.raises(Refused, match="Use Converse"):
            invoked(action, model)
    assert prepared("converse", model).action == "converse"


# Requests and errors.


def test_requests() -> None:
    request = prepared(
        system=[
            {"text": "be kind"},
            {"guardContent": {"text": {"text": "be brief"}}},
            {"cachePoint": {"type": "default"}},
        ],
        messages=[
            {"role": "system", "content": [{"text": "be quick"}]},
            {"role": "user", "content": [{"text": "first"}]},
            {"role": "assistant", "content": [{"text": "second"}]},
            {"role": "user", "content": [{"image": {}}, {"text": "third"}]},
        ],
        additionalModelResponseFieldPaths=["/stop_sequence"],
        additionalModelRequestFields={
            "thinking": {"type": "enabled"},
            "logprobs": True,
            "tools": [{"name": "computer"}],
        },
        guardrailConfig={"guardrailIdentifier": "g", "trace": "disabled"},
    )
    assert request.facts.system_prompts == ("be kind", "be brief", "be quick")
    assert request.facts.user == "third"
    assert request.tools == {*TOOLS, "computer"}
    assert request.stream
    sent = request.document
    assert "additionalModelResponseFieldPaths" not in sent
    assert sent["additionalModelRequestFields"] == {"thinking": {"type": "enabled"}, "tools": [{"name": "computer"}]}
    assert not prepared("converse").stream
    assert invoked("invoke", "meta.llama3-v1:0", prompt="hello", logprobs=1).facts.user == "hello"


@pytest.mark.parametrize("trace", ["enabled", "enabled_full", True, CANARY])
def test_traces_are_refused(trace: object) -> None:
    with pytest.raises(Refused, match="trace") as refused:
        prepared(guardrailConfig={"guardrailIdentifier": "g", "trace": trace})
    assert CANARY not in refused.value.message


@pytest.mark.parametrize("fields", [{"messages": "x"}, {"toolConfig": []}, {"guardrailConfig": 1}, {"system": ["x"]}])
def test_requests_of_another_shape_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="must be"):
        prepared(**fields)


def test_reasoning_without_its_signature_is_not_sent_back_to_claude() -> None:
    unsigned = {"reasoningContent": {"reasoningText": {"text": "I thought"}}}
    signed = {"reasoningContent": {"reasoningText": {"text": "I thought", "signature": "s"}}}
    history = [{"role": "assistant", "content": [unsigned, signed, {"text": "x"}]}]
    assert prepared(messages=history).document["messages"][0]["content"] == [signed, {"text": "x"}]
    other = prepared(model="us.deepseek.r1-v1:0", messages=history)
    assert other.document["messages"] == history


def test_messages_are_refused_where_only_prompts_are_known() -> None:
    with pytest.raises(Refused, match="Use Converse"):
        invoked("invoke", "mistral.mistral-large-2407-v1:0", messages=[])


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ValidationException"), (429, "ThrottlingException"), (418, "ModelErrorException")]
)
def test_upstream_errors_are_told_by_their_status(status: int, code: str) -> None:
    data = DIALECT.upstream_error(status, json.dumps({"message": CANARY, "__type": CANARY}).encode())
    with pytest.raises(ClientError) as raised:
        answered(data, "application/json", status).converse(modelId="m", messages=[])
    assert told(raised.value) == (code, f"The upstream answered with status {status}.")


@pytest.mark.parametrize("kind", ErrorKind)
def test_errors_are_told_in_the_clients_shape(kind: ErrorKind) -> None:
    with pytest.raises(ClientError) as raised:
        answered(DIALECT.error(kind, "constant"), "application/json", 400).converse(modelId="m", messages=[])
    code, words = told(raised.value)
    assert (code[-9:], words) == ("Exception", "constant")


# Recordings, which lie outside the repository.


def recordings() -> Iterator[tuple[str, bytes, str]]:
    """Name, data and form of each: ``stream``, ``body`` or ``nova``."""
    for path in sorted((SHARED / "fixtures").glob("*aws-bedrock*")):
        data = path.read_bytes()
        if path.suffix == ".txt":
            lines = [json.loads(line) for line in data.splitlines() if line.strip()]
            yield path.name, frames([next(iter(line.items())) for line in lines]), "stream"
        elif path.suffix == ".json":
            yield path.name, data, "body"
        else:
            yield path.name, data, "nova" if "invoke_model" in path.name else "stream"


RECORDED = list(recordings())
EACH = pytest.mark.parametrize(("data", "form"), [pytest.param(*each[1:], id=each[0]) for each in RECORDED])
REQUESTS = {
    "stream": prepared(),
    "body": prepared("converse"),
    "nova": prepared("invoke-stream", "amazon.nova-micro-v1:0"),
}


def played(data: bytes, form: str, moderation: Moderation, size: int = WHOLE) -> bytes:
    if form == "body":
        return body(DIALECT, REQUESTS[form], moderation, data)
    return stream(DIALECT, REQUESTS[form], moderation, data, STREAM, size)


def viewed(data: bytes, form: str) -> Seen:
    if form == "body":
        return see_body(answered(data, "application/json").converse(modelId="m", messages=[]))
    return nova_seen(data) if form == "nova" else seen(data)


def same(found: Seen, original: Seen) -> None:
    """Equal but for how blocks are numbered, where short ones were joined."""
    assert (found.text, found.reasoning, found.calls) == (original.text, original.reasoning, original.calls)
    assert (found.order, found.role, found.stop, found.error) == (original.order, original.role, original.stop, "")
    assert (found.usage, found.metrics) == (original.usage, original.metrics)


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@EACH
@pytest.mark.parametrize("detecting", [False, True])
def test_recordings_are_seen_as_without_the_proxy(
    balanced: Moderation, data: bytes, form: str, detecting: bool
) -> None:
    original = viewed(data, form)
    if isinstance(original.usage, dict):
        original.usage.pop("serverToolUsage", None)
    moderation = shadow(balanced[1] if detecting else ())
    same(viewed(played(data, form, moderation), form), original)


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@EACH
def test_a_known_value_of_a_recording_is_nowhere(data: bytes, form: str) -> None:
    original = viewed(data, form)
    said = f"{original.reasoning} {original.text} {json.dumps([call[2] for call in original.calls])}"
    counted = Counter(re.findall(r"\w{7,}", said)).items()
    # A value is a whole word. A marker stays, so do names of tools.
    words = [word for word, count in counted if said.count(word) == count and word not in ("thinking", *TOOLS)]
    assert words
    for word in words[:4]:
        for size in (1, WHOLE):
            out = played(data, form, policy("redact", word), size)
            raw = out if form == "body" else b"".join(event.data for event in read(out))
            assert not [each for each in spellings(word) if each in raw], word
            found = viewed(out, form)
            assert word not in f"{found.reasoning} {found.text} {found.calls}"


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@EACH
def test_recordings_cut_anywhere_give_the_same(balanced: Moderation, data: bytes, form: str) -> None:
    if form == "body":
        pytest.skip("whole bodies are not cut")
    at_once = viewed(played(data, form, balanced), form)
    for size in (1, 3, 17, 129, 1023):
        same(viewed(played(data, form, balanced, size), form), at_once)
    translator = DIALECT.stream(REQUESTS[form], exchange(balanced), STREAM)
    assert translator is not None
    delivered = b""
    for at in range(0, len(data), 41):
        delivered += translator.receive(data[at : at + 41])
        so_far = joined(delivered, form)
        assert all(final.startswith(part) for part, final in zip(so_far, joined_of(at_once), strict=True))


def joined(data: bytes, form: str) -> tuple[str, str]:
    framing = Chunks() if form == "nova" else Padded()
    texts = ["", ""]
    for block_ in framing.feed(data):
        event = framing.parse(block_)
        assert event is not None
        document = json.loads(event.data)
        inner = document.get("contentBlockDelta", {}) if form == "nova" else document
        said = inner.get("delta", {})
        texts[0] += said.get("text", "")
        texts[1] += said.get("reasoningContent", {}).get("text", "")
    return texts[0], texts[1]


def joined_of(found: Seen) -> Sequence[str]:
    return found.text, found.reasoning


@pytest.mark.skipif(not RECORDED, reason="no recordings beside the repository")
@EACH
def test_recordings_inflated_with_copies_give_the_same(data: bytes, form: str) -> None:
    if form == "body":
        inflated = json.dumps(spoil(json.loads(data))).encode()
    elif form == "nova":
        framing = Chunks()
        events = [framing.parse(each) for each in framing.feed(data)]
        inflated = chunks(spoiled(json.loads(each.data)) for each in events if each)
    else:
        inflated = frames([(each.name, spoiled(json.loads(each.data))) for each in read(data)])
    out = played(inflated, form, shadow())
    raw = out if form == "body" else b"".join(event.data for event in read(out))
    assert not [each for each in spellings(CANARY) if each in raw]
    same(viewed(out, form), viewed(played(data, form, shadow()), form))


# Any order of events, cut anywhere.


def random_events(rng: random.Random) -> Events:
    """Blocks of any kind and length, now and then one without its end, twice, or within another."""
    words = "ann.lee@example.com said 4111 1111 1111 1111 and nothing more of it to bob.ray@example.org then "
    events: Events = [("messageStart", {"role": "assistant"})]
    for index in range(rng.randint(1, 9)):
        at = rng.randrange(len(words))
        text = (words * 2)[at : at + rng.choice((3, 12, 90))]
        kind = rng.choice(("text", "text", "reasoning", "tool", "citation", "other"))
        pieces = list(cut(text, rng, 9))
        if kind in ("text", "reasoning"):
            made = block(index, *(delta(index, text=p) if kind == "text" else reasoning(index, p) for p in pieces))
        elif kind == "citation":
            made = block(index, delta(index, text=text), delta(index, citation={"title": text}))
        else:
            made = tool(index, *cut(json.dumps({"say": text}), rng), name="send" if kind == "tool" else "other")
        if rng.random() < 0.1:
            made.pop()
        if rng.random() < 0.1:
            made.append(made[-1])
        events += made
    return [*events, *message()[-2:]] if rng.random() < 0.9 else events


@pytest.mark.parametrize("seed", range(20))
def test_any_stream_gives_the_same_however_it_is_cut(balanced: Moderation, seed: int) -> None:
    rng = random.Random(seed)
    data = frames(random_events(rng))
    moderation = policy("block") if seed % 5 == 0 else balanced
    at_once = run(data, moderation)
    for size in (1, 7, rng.randint(20, 400)):
        found = run(data, moderation, size=size)
        assert found == at_once
    said = f"{at_once.text} {at_once.reasoning} {at_once.calls} {at_once.citations}"
    assert "ann.lee@example.com" not in said
    assert "4111 1111 1111 1111" not in said
