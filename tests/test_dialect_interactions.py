"""Gemini Interactions: streams and whole responses, the requests, and what the official SDK makes of them."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, ask, body, exchange, policy, shadow, spellings, spoil, stream
from genai_kit import elements, events, sdk
from google import genai
from google.genai import types
from planted import PLANTED, carried
from scripted import cut, streaming

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import ErrorKind, Prepared, Refused, UpstreamFault
from cotguard.dialects.gemini.interactions import MAX_CODE, Interactions
from cotguard.policy import Policy

DIALECT = Interactions()
SSE = "text/event-stream"
TOOLS: list[dict[str, Any]] = [{"type": "function", "name": name, "parameters": {}} for name in ("send", "getWeather")]
IDENTIFIER = "v1_ChdYR3NI"
USAGE = {"total_tokens": 9, "total_input_tokens": 3, "total_output_tokens": 4, "total_thought_tokens": 2}
CARRIED = " ".join(carried(planted) for planted in PLANTED)
LABELLED = " ".join(planted.carrier.format(f"[{planted.entity}]") for planted in PLANTED)
Moderation = tuple[Policy, tuple[Detector, ...]]


def prepared(*, streamed: bool = True, **fields: object) -> Prepared:
    return ask(DIALECT, "create", {"model": "m", "input": "x", "stream": streamed, "tools": TOOLS, **fields})


def created(**fields: object) -> dict[str, Any]:
    interaction = {"id": IDENTIFIER, "status": "in_progress", "object": "interaction", "model": "m", **fields}
    return {"interaction": interaction, "event_type": "interaction.created"}


def completed(status: str = "completed", **fields: object) -> dict[str, Any]:
    interaction = {"id": IDENTIFIER, "status": status, "object": "interaction", "model": "m", "usage": USAGE, **fields}
    return {"interaction": interaction, "event_type": "interaction.completed"}


def start(index: int, kind: str, **fields: object) -> dict[str, Any]:
    return {"index": index, "step": {"type": kind, **fields}, "event_type": "step.start"}


def delta(index: int, kind: str, **fields: object) -> dict[str, Any]:
    return {"index": index, "delta": {"type": kind, **fields}, "event_type": "step.delta"}


def stop(index: int) -> dict[str, Any]:
    return {"index": index, "event_type": "step.stop"}


def thought(index: int, *texts: str) -> list[dict[str, Any]]:
    summaries = [delta(index, "thought_summary", content={"type": "text", "text": text}) for text in texts]
    return [start(index, "thought"), *summaries, delta(index, "thought_signature", signature="AAAA"), stop(index)]


def output(index: int, *texts: str) -> list[dict[str, Any]]:
    return [start(index, "model_output"), *(delta(index, "text", text=text) for text in texts), stop(index)]


def call(index: int, name: str, *pieces: str) -> list[dict[str, Any]]:
    begun = start(index, "function_call", id=f"c-{index}", name=name, arguments={}, signature="AAAA")
    return [begun, *(delta(index, "arguments_delta", arguments=piece) for piece in pieces), stop(index)]


def code(index: int, source: str, result: str) -> list[dict[str, Any]]:
    return [
        start(index, "code_execution_call", id="e-1", arguments={}),
        delta(index, "code_execution_call", arguments={"code": source, "language": "python"}, signature="AAAA"),
        stop(index),
        start(index + 1, "code_execution_result", call_id="e-1", result=""),
        delta(index + 1, "code_execution_result", result=result, is_error=False, signature="AAAA"),
        stop(index + 1),
    ]


@dataclass
class Seen:
    """What a user of the SDK has of an interaction."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    status: str | None = None
    usage: int | None = None
    error: tuple[str | None, str | None] | None = None

    def of(self, kind: str) -> str:
        """The texts of all steps of a type."""
        return "".join(text for name, text in self.steps if name == kind)


def read_stream(data: bytes) -> Seen:
    """A stream as the SDK reads it."""
    seen, api = Seen(), sdk(data)
    stream_: Any = api.interactions.create(model="m", input="x", stream=True)
    for event in stream_:
        take(seen, json.loads(event.model_dump_json(exclude_none=True)))
    return seen


def take(seen: Seen, event: dict[str, Any]) -> None:
    kind = event["event_type"]
    if kind == "step.start":
        assert event["index"] == len(seen.steps)
        seen.steps.append((event["step"]["type"], ""))
        seen.names += [event["step"]["name"]] if "name" in event["step"] else []
    elif kind == "step.delta":
        given = event["delta"]
        text = given.get("text") or given.get("result") or given.get("content", {}).get("text") or ""
        if "arguments" in given:
            text = given["arguments"]["code"] if isinstance(given["arguments"], dict) else given["arguments"]
        step, before = seen.steps[event["index"]]
        seen.steps[event["index"]] = (step, before + text)
    elif kind == "step.stop":
        seen.stopped.append(event["index"])
    elif kind == "error":
        seen.error = (event["error"].get("code"), event["error"].get("message"))
    elif "interaction" in event:
        seen.status = event["interaction"]["status"]
        seen.usage = event["interaction"].get("usage", {}).get("total_tokens")


def read_body(data: bytes) -> Seen:
    """A whole response as the SDK reads it."""
    api = sdk(data, "application/json")
    interaction: Any = api.interactions.create(model="m", input="x")
    document = json.loads(interaction.model_dump_json(exclude_none=True))
    seen = Seen(status=document["status"], usage=document.get("usage", {}).get("total_tokens"))
    for step in document.get("steps", ()):
        texts = step.get("content") or step.get("summary") or []
        text = "".join(each["text"] for each in texts if each["type"] == "text")
        if "arguments" in step:
            text = step["arguments"].get("code") or json.dumps(step["arguments"], separators=(",", ":"))
        result = step.get("result", "")
        text += result if isinstance(result, str) else "".join(each["text"] for each in result)
        seen.steps.append((step["type"], text))
        seen.names += [step["name"]] if "name" in step else []
    return seen


def whole_of(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole response that a stream is."""
    steps: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    for each in documents:
        if each["event_type"] == "step.start":
            steps.append(dict(each["step"]))
        elif each["event_type"] == "step.delta":
            step, given = steps[each["index"]], each["delta"]
            if given["type"] == "text":
                step.setdefault("content", []).append({"type": "text", "text": given["text"]})
            elif given["type"] == "thought_summary":
                step.setdefault("summary", []).append(given["content"])
            elif given["type"] == "arguments_delta":
                arguments[each["index"]] = arguments.get(each["index"], "") + given["arguments"]
                step["arguments"] = arguments[each["index"]]
            else:
                step.update({name: value for name, value in given.items() if name != "type"})
    for index, text in arguments.items():
        steps[index]["arguments"] = json.loads(text)
    return {**documents[-1]["interaction"], "steps": steps}


def moderated(documents: Sequence[object], moderation: Moderation, request: Prepared | None = None) -> bytes:
    return stream(DIALECT, request or prepared(), moderation, events(documents), SSE)


def whole(documents: Sequence[dict[str, Any]], moderation: Moderation) -> bytes:
    return body(DIALECT, prepared(streamed=False), moderation, json.dumps(whole_of(documents)).encode())


SPOKEN = [
    created(),
    {"interaction_id": IDENTIFIER, "status": "in_progress", "event_type": "interaction.status_update"},
    *thought(0, "She is ann.le", "e@example.com, so"),
    *output(1, "Card 4111 1111 11", "11 1111 it is."),
    *code(2, "print('ann.lee@example.com')", "4111 1111 1111 1111\n"),
    *call(4, "send", '{"to": "ann.lee@exam', 'ple.com", "n": 4111111111111111}'),
    completed("requires_action"),
]
EXPECTED = [
    ("thought", "She is [EMAIL_ADDRESS], so"),
    ("model_output", "Card [CREDIT_CARD] it is."),
    ("code_execution_call", "print('[EMAIL_ADDRESS]')"),
    ("code_execution_result", "[CREDIT_CARD]\n"),
    ("function_call", '{"to":"[EMAIL_ADDRESS]","n":"[CREDIT_CARD]"}'),
]


@pytest.mark.parametrize("size", [1, 3, 61, 10**9])
def test_steps_are_moderated_across_events(balanced: Moderation, size: int) -> None:
    out = stream(DIALECT, prepared(), balanced, events(SPOKEN), SSE, size)
    seen = read_stream(out)
    assert [(kind, text.replace('": ', '":').replace(', "', ',"')) for kind, text in seen.steps] == EXPECTED
    assert seen.stopped == [0, 1, 2, 3, 4]
    assert (seen.status, seen.usage, seen.names) == ("requires_action", 9, ["send"])
    assert b"AAAA" not in out
    names = [line.removeprefix("event: ") for line in out.decode().splitlines() if line.startswith("event: ")]
    assert names == [each["event_type"] for each in elements(out)]


def test_a_whole_response(balanced: Moderation) -> None:
    out = whole(SPOKEN, balanced)
    seen = read_body(out)
    assert seen.steps == EXPECTED
    assert (seen.status, seen.usage, seen.names) == ("requires_action", 9, ["send"])
    assert b"AAAA" not in out


def test_text_that_a_step_begins_with(balanced: Moderation) -> None:
    documents = [
        created(),
        start(0, "thought", summary=[{"type": "text", "text": "mail ann.lee@"}]),
        delta(0, "thought_summary", content={"type": "text", "text": "example.com, yes"}),
        stop(0),
        start(
            1, "model_output", content=[{"type": "text", "text": "card 4111 1111 "}, {"type": "image", "data": CANARY}]
        ),
        delta(1, "text", text="1111 1111, no"),
        stop(1),
        start(2, "function_call", id="c-1", name="send", arguments={"to": "ann.lee@example.com"}),
        stop(2),
        start(3, "code_execution_result", call_id="e", result=[{"type": "text", "text": "203.0.113.77"}]),
        stop(3),
        completed(),
    ]
    assert read_stream(moderated(documents, balanced)).steps == [
        ("thought", "mail [EMAIL_ADDRESS], yes"),
        ("model_output", "card [CREDIT_CARD], no"),
        ("function_call", '{"to":"[EMAIL_ADDRESS]"}'),
        ("code_execution_result", "[IP_ADDRESS]"),
    ]


def test_steps_that_are_dropped_leave_no_gap(balanced: Moderation) -> None:
    documents = [
        created(),
        start(0, "google_search_call", id="s", arguments={"queries": [CANARY]}),
        delta(0, "google_search_call", arguments={"queries": [CANARY]}),
        stop(0),
        *call(1, "other", json.dumps({"a": CANARY})),
        start(2, CANARY, text=CANARY),
        stop(2),
        *output(3, "fine"),
        {"event_type": CANARY, "text": CANARY},
        completed(steps=[{"type": "model_output", "content": [{"type": "text", "text": CANARY}]}]),
    ]
    out = moderated(documents, balanced)
    assert read_stream(out).steps == [("model_output", "fine")]
    assert CANARY.encode() not in out
    served = [each for each in documents if each["event_type"] != CANARY]
    out = whole([*served[:1], *(each for each in served[1:])], balanced)
    assert read_body(out).steps == [("model_output", "fine")]
    assert CANARY.encode() not in out


def test_an_event_whose_name_is_another_is_dropped(balanced: Moderation) -> None:
    data = events([created(), start(0, "model_output")])
    data += b"event: step.stop\r\ndata: " + json.dumps(delta(0, "text", text=CANARY)).encode() + b"\r\n\r\n"
    data += b"event: step.delta\r\ndata: " + json.dumps(delta(0, "text", text="fine")).encode() + b"\r\n\r\n"
    data += events([stop(0), completed()]) + b"event: done\r\ndata: [DONE]\r\n\r\n"
    out = stream(DIALECT, prepared(), balanced, data, SSE)
    assert read_stream(out).steps == [("model_output", "fine")]
    assert CANARY.encode() not in out


@pytest.mark.parametrize("after", ["", " now and then.", " now and then, or so it says in the record that I have."])
def test_a_value_across_two_steps(balanced: Moderation, after: str) -> None:
    documents = [created(), *thought(0, "mail ann.lee@exam"), *output(1, "ple.com" + after), completed()]
    for seen in (read_stream(moderated(documents, balanced)), read_body(whole(documents, balanced))):
        assert seen.steps == [("thought", "mail [EMAIL_ADDRESS]"), ("model_output", "[EMAIL_ADDRESS]" + after)]


@pytest.mark.parametrize("seed", range(3))
def test_planted_values_in_cuts(balanced: Moderation, seed: int) -> None:
    rng = random.Random(seed)
    arguments = json.dumps({"note": CARRIED})
    documents = [
        created(),
        *thought(0, *cut(CARRIED, rng)),
        *output(1, *cut(CARRIED, rng)),
        *call(2, "send", *cut(arguments, rng)),
        *code(3, CARRIED, CARRIED),
        completed(),
    ]
    out = stream(DIALECT, prepared(), balanced, events(documents), SSE, [37, 1009, 10**9][seed])
    for seen in (read_stream(out), read_body(whole(documents, balanced))):
        assert [kind for kind, _ in seen.steps] == [
            "thought",
            "model_output",
            "function_call",
            "code_execution_call",
            "code_execution_result",
        ]
        texts = [json.loads(text)["note"] if kind == "function_call" else text for kind, text in seen.steps]
        assert texts == [LABELLED] * 5


def test_code_in_pieces_is_one_text_and_limited(balanced: Moderation) -> None:
    pieces = [delta(0, "code_execution_call", arguments={"code": text}) for text in ("ann.lee@", "example.com")]
    documents = [created(), start(0, "code_execution_call", id="e"), *pieces, stop(0), completed()]
    assert read_stream(moderated(documents, balanced)).steps == [("code_execution_call", "[EMAIL_ADDRESS]")]
    long = delta(0, "code_execution_call", arguments={"code": "x" * (MAX_CODE // 2 + 1)})
    out = moderated([created(), start(0, "code_execution_call", id="e"), long, long, stop(0), completed()], balanced)
    assert read_stream(out).error is not None


ANNOTATIONS = [{"type": "url_citation", "url": CANARY, "title": CANARY, "start_index": 0, "end_index": 2}]
STEP_FIELDS: list[dict[str, Any]] = [
    {"signature": CANARY},
    {"error": {"code": 3, "message": CANARY, "details": [{"x": CANARY}]}},
    {"id": f"{CANARY} as a text"},
    {"content": [{"type": "image", "data": CANARY}, {"type": "text", "text": "", "annotations": ANNOTATIONS}]},
    {"summary": [{"type": "image", "data": CANARY}]},
    {"title": CANARY, "text": CANARY, "name": "x"},
]
DELTAS: list[dict[str, Any]] = [
    {"type": "text_annotation_delta", "annotations": ANNOTATIONS},
    {"type": "thought_signature", "signature": CANARY},
    {"type": "image", "data": CANARY, "uri": CANARY},
    {"type": "audio", "data": CANARY},
    {"type": "video", "data": CANARY},
    {"type": "document", "data": CANARY},
    {"type": "google_search_call", "arguments": {"queries": [CANARY]}},
    {"type": "google_search_result", "result": [{"search_suggestions": CANARY}]},
    {"type": "google_maps_result", "result": [{"places": [{"name": CANARY}]}]},
    {"type": "url_context_call", "arguments": {"urls": [CANARY]}},
    {"type": "url_context_result", "result": [{"url": CANARY}]},
    {"type": "file_search_result", "result": [{"text": CANARY}]},
    {"type": "retrieval_result", "result": [{"text": CANARY}]},
    {"type": "tool_search_result", "result": CANARY},
    {"type": "mcp_server_tool_call", "name": CANARY, "server_name": CANARY, "arguments": {"a": CANARY}},
    {"type": "mcp_server_tool_result", "result": CANARY},
    {"type": "function_result", "result": CANARY},
    {"type": "processing_result", "result": CANARY},
    {"type": "code_execution_result", "result": CANARY},
    {"type": "arguments_delta", "arguments": CANARY},
    {"type": CANARY, "text": CANARY},
    {"text": CANARY},
]
INTERACTION_FIELDS: list[dict[str, Any]] = [
    {"input": CANARY, "system_instruction": CANARY, "tools": [{"type": "function", "name": CANARY}]},
    {"output_text": CANARY, "output_image": {"data": CANARY}, "output_audio": {"data": CANARY}},
    {"errors": [{"code": CANARY, "message": CANARY}]},
    {"continuation_token": CANARY, "continuation_ids": [CANARY], "previous_interaction_id": CANARY},
    {"labels": {CANARY: CANARY}, "environment": {"x": CANARY}, "environment_id": CANARY},
    {"model": f"{CANARY}\n", "created": CANARY, "updated": CANARY, "service_tier": CANARY, "object": CANARY},
    {"usage": {**USAGE, "input_tokens_by_modality": [{"modality": CANARY, "tokens": CANARY}], "x": CANARY}},
]
PLAIN = [created(), *thought(0, "It is so."), *output(1, "Yes."), completed()]


def is_plain(seen: Seen) -> bool:
    return seen.steps == [("thought", "It is so."), ("model_output", "Yes.")] and seen.status == "completed"


@pytest.mark.parametrize("fields", DELTAS, ids=lambda each: each.get("type", "untyped"))
def test_deltas_that_do_not_belong_to_their_step_vanish(balanced: Moderation, fields: dict[str, Any]) -> None:
    documents = []
    for each in PLAIN:
        documents.append(each)
        if each["event_type"] == "step.start":
            documents.append({"index": each["index"], "delta": fields, "event_type": "step.delta"})
    out = moderated(documents, balanced)
    assert is_plain(read_stream(out))
    assert not any(spelling in out for spelling in spellings(CANARY))


@pytest.mark.parametrize("fields", [*STEP_FIELDS, *INTERACTION_FIELDS], ids=lambda each: next(iter(each)))
def test_fields_that_carry_text_without_a_row_vanish(balanced: Moderation, fields: dict[str, Any]) -> None:
    documents: list[dict[str, Any]] = []
    name = "step" if fields in STEP_FIELDS else "interaction"
    for each in PLAIN:
        changed = {**each, "event_id": CANARY, "metadata": {"total_usage": {"x": CANARY}}}
        documents.append({**changed, name: {**each[name], **fields}} if name in each else changed)
    outs = [moderated(documents, balanced), whole([*PLAIN[:-1], {**PLAIN[-1], **documents[-1]}], balanced)]
    assert is_plain(read_stream(outs[0]))
    assert is_plain(read_body(outs[1]))
    assert not any(spelling in out for spelling in spellings(CANARY) for out in outs)


@pytest.mark.parametrize("status", [CANARY, "requires_continuation", None])
def test_a_status_that_is_not_known_is_incomplete(balanced: Moderation, status: Any) -> None:
    documents = [created(), completed(status)]
    assert read_stream(moderated(documents, balanced)).status == "incomplete"
    assert read_body(whole(documents, balanced)).status == "incomplete"


# Blocks, withheld text, faults.


def test_a_block_stops_the_step_and_completes() -> None:
    documents = [created(), *output(0, "so ann.lee@example.com is", " more"), completed()]
    out = moderated(documents, policy("block"))
    assert read_stream(out) == Seen([("model_output", "so ")], [], [0], "incomplete")
    seen = read_body(whole(documents, policy("block")))
    assert (seen.steps, seen.status) == ([("model_output", "so ")], "incomplete")


def test_a_block_in_a_call_leaves_it_open() -> None:
    documents = [created(), *output(0, "I write."), *call(1, "send", '{"a": "ann.lee@exa', 'mple.com"}'), completed()]
    seen = read_stream(moderated(documents, policy("block")))
    assert seen.steps[0] == ("model_output", "I write.")
    assert seen.stopped == [0]
    assert seen.status == "incomplete"
    assert not any("ann" in text for _, text in seen.steps)
    body_ = read_body(whole(documents, policy("block")))
    assert (body_.of("function_call"), body_.status) == ("", "incomplete")


def test_a_block_in_code_completes() -> None:
    documents = [created(), *output(0, "I run."), *code(1, "ann.lee@example.com", ""), completed()]
    seen = read_stream(moderated(documents, policy("block")))
    assert [kind for kind, _ in seen.steps] == ["model_output"]
    assert seen.status == "incomplete"


def test_withheld_text() -> None:
    documents = [created(), *thought(0, "so ann.lee@example.com is it, I think."), *output(1, "Yes."), completed()]
    for seen in (
        read_stream(moderated(documents, policy("withhold"))),
        read_body(whole(documents, policy("withhold"))),
    ):
        assert "ann.lee" not in seen.of("thought")
        assert (seen.of("model_output"), seen.status) == ("Yes.", "completed")


def test_a_fault_ends_the_stream_with_an_error(balanced: Moderation) -> None:
    data = events([created(), *output(0, "so it goes on and on. 4111")[:-1]])
    seen = read_stream(stream(DIALECT, prepared(), balanced, data + b"data: {nonsense\r\n\r\n", SSE))
    assert seen.steps == [("model_output", "so it goes on and on. ")]
    assert seen.error is not None
    assert seen.error[0] == ErrorKind.UPSTREAM_INVALID
    early = read_stream(stream(DIALECT, prepared(), balanced, data, SSE))
    assert early.error is not None
    assert early.error[0] == ErrorKind.UPSTREAM_INTERRUPTED


@pytest.mark.parametrize(
    ("code_", "read"), [("rate_limit_exceeded", "rate_limit_exceeded"), (CANARY, "upstream_error")]
)
def test_an_upstream_error_keeps_its_code_and_loses_its_text(balanced: Moderation, code_: str, read: str) -> None:
    failed = {"event_type": "error", "error": {"code": code_, "message": CANARY}, "event_id": CANARY}
    out = moderated([created(), *output(0, "so it is. "), failed], balanced)
    assert read_stream(out).error == (read, "The upstream reported an error.")
    assert CANARY.encode() not in out
    whole_ = json.dumps({"error": failed["error"]}).encode()
    assert json.loads(DIALECT.upstream_error(429, whole_))["error"]["code"] == read
    with pytest.raises(UpstreamFault):
        body(DIALECT, prepared(streamed=False), balanced, whole_)


def test_our_own_errors() -> None:
    assert json.loads(DIALECT.error(ErrorKind.OVERLOADED, "why")) == {"error": {"code": "overloaded", "message": "why"}}


@pytest.mark.parametrize(
    "documents",
    [
        [delta(0, "text", text="x")],
        [stop(0)],
        [*output(0, "x"), delta(0, "text", text="y")],
        [*output(0, "x"), stop(0)],
        [*output(0, "x"), start(0, "model_output")],
        [start("0", "model_output")],  # type: ignore[arg-type]
        [{"index": 0, "event_type": "step.start"}],
        [start(0, "model_output"), {"index": 0, "event_type": "step.delta", "delta": "x"}],
        [start(0, "model_output"), delta(0, "text", text=["x"])],
        [start(0, "thought"), delta(0, "thought_summary", content="x")],
    ],
)
def test_other_orders_and_shapes_are_faults(balanced: Moderation, documents: list[dict[str, Any]]) -> None:
    out = moderated([created(), *documents, completed()], balanced)
    error = read_stream(out).error
    assert error is not None
    assert error[0] == ErrorKind.UPSTREAM_INVALID


def test_whole_responses_of_other_shapes_are_faults(balanced: Moderation) -> None:
    for document in (b"[]", b"x", b'{"steps": {}}', b'{"steps": ["x"]}'):
        with pytest.raises(UpstreamFault):
            body(DIALECT, prepared(streamed=False), balanced, document)


def test_content_types_that_contradict_the_request_are_refused() -> None:
    moderation = policy("redact")
    for request, content_type in ((prepared(streamed=False), SSE), (prepared(), "application/json")):
        assert DIALECT.stream(request, exchange(moderation, request.facts), content_type) is None


# Requests.


@pytest.mark.parametrize(
    ("asked", "user"),
    [
        ("hello", "hello"),
        ({"type": "text", "text": "hello"}, "hello"),
        ([{"type": "text", "text": "hello"}, {"type": "image", "uri": "x"}], "hello"),
        (
            [
                {"type": "user_input", "content": [{"type": "text", "text": "first"}]},
                {"type": "model_output", "content": [{"type": "text", "text": "second"}]},
                {"type": "user_input", "content": [{"type": "text", "text": "third"}]},
                {"type": "function_result", "call_id": "c", "result": "x"},
            ],
            "third",
        ),
        ([{"role": "user", "content": "first"}, {"role": "model", "content": "second"}], "first"),
        (None, ""),
    ],
)
def test_requests(asked: object, user: str) -> None:
    request = prepared(input=asked, system_instruction="be kind", store=True)
    assert (request.facts.system_prompts, request.facts.user) == (("be kind",), user)
    assert (request.model, request.stream, sorted(request.tools)) == ("m", True, ["getWeather", "send"])
    assert request.document["store"] is False


def test_either_spelling() -> None:
    request = prepared(systemInstruction="be kind")
    assert request.facts.system_prompts == ("be kind",)
    assert request.document["system_instruction"] == "be kind"
    assert prepared().document["store"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_interaction_id": "v1_x"},
        {"previousInteractionId": "v1_x"},
        {"background": True},
        {"agent": "deep-research"},
        {"continuation_token": "x"},
        {"cached_content": "x"},
        {"webhook_config": {"uris": ["x"]}},
        {"environment": {"x": 1}},
        {"response_modalities": ["text", "image"]},
        {"response_modalities": "audio"},
        {"system_instruction": "be kind", "systemInstruction": "be kind"},
        {"stream": "yes"},
        {"tools": ["x"]},
    ],
)
def test_requests_that_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Refused):
        ask(DIALECT, "create", {"model": "m", "input": "x", **fields})


# On sockets, with the official SDK.


def client(url: str, version: str) -> genai.Client:
    return genai.Client(api_key="key-1", http_options=types.HttpOptions(base_url=url, api_version=version))


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_sdk_reads_a_stream(upstream: Upstream, make_proxy: ProxyFactory, version: str) -> None:
    upstream.handler = streaming([events([each]) for each in SPOKEN])
    proxy = await make_proxy()

    def read() -> Seen:
        seen, api = Seen(), client(proxy.url, version)
        tools: Any = TOOLS
        stream_: Any = api.interactions.create(model="m", input="hello", stream=True, tools=tools)
        for event in stream_:
            take(seen, json.loads(event.model_dump_json(exclude_none=True)))
        return seen

    seen = await asyncio.to_thread(read)
    assert seen.steps[:4] == EXPECTED[:4]
    assert json.loads(seen.steps[4][1]) == {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]"}
    assert upstream.paths == [f"/{version}/interactions"]
    assert json.loads(upstream.bodies[0])["store"] is False


async def test_the_sdk_reads_a_whole_response(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(whole_of([created(), *output(0, "mail ann.lee@exam", "ple.com"), completed()]))

    upstream.handler = handler
    proxy = await make_proxy()
    api = client(proxy.url, "v1beta")
    interaction: Any = await asyncio.to_thread(lambda: api.interactions.create(model="m", input="hello"))
    assert interaction.output_text == "mail [EMAIL_ADDRESS]"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_stored_interactions_are_refused(
    upstream: Upstream, make_proxy: ProxyFactory, method: str, version: str
) -> None:
    proxy = await make_proxy()
    url = f"{proxy.url}/{version}/interactions/{IDENTIFIER}" + ("/cancel" if method == "POST" else "")
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        assert answer.status == 404
        assert "not moderated" in (await answer.json())["error"]["message"]
    assert upstream.paths == []


# Recordings of real servers, which lie outside the repository.

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
RECORDED = {
    "ai__google-gemini__multi-turn-stateful-turn2.chunks.txt": ["landmark", "Sagrada", "construction"],
    "ai__google-gemini__tool-call-step1.chunks.txt": ["Francisco"],
}
recorded = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings beside the repository")
each_recording = pytest.mark.parametrize("name", RECORDED)


def recording(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / name).read_bytes().splitlines() if line.strip()]


@recorded
@each_recording
@pytest.mark.parametrize("with_detectors", [False, True])
@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_recorded_stream_looks_the_same(balanced: Moderation, name: str, with_detectors: bool, size: int) -> None:
    data = events(recording(name))
    moderation = shadow(balanced[1] if with_detectors else ())
    assert read_stream(stream(DIALECT, prepared(), moderation, data, SSE, size)) == read_stream(data)
    out = whole(recording(name), moderation)
    assert read_body(out) == read_body(json.dumps(whole_of(recording(name))).encode())


@recorded
@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in RECORDED.items() for word in words])
def test_a_word_of_a_recording_that_is_known_does_not_leave(name: str, word: str) -> None:
    documents = recording(name)
    assert any(word in text for _, text in read_stream(events(documents)).steps)
    outs = [moderated(documents, policy("redact", word)), whole(documents, policy("redact", word))]
    assert not any(spelling in out for spelling in spellings(word) for out in outs)
    assert not any(word in text for _, text in read_stream(outs[0]).steps)


@recorded
@each_recording
def test_unknown_keys_in_a_recording_vanish(balanced: Moderation, name: str) -> None:
    def spoiled(value: dict[str, Any]) -> Any:
        found: Any = spoil(value)
        if "arguments" in value.get("step", {}):
            found["step"]["arguments"] = value["step"]["arguments"]  # a call's own values
        return found

    documents = recording(name)
    outs = [moderated(each, balanced) for each in (documents, [spoiled(document) for document in documents])]
    assert outs[0] == outs[1]
    assert CANARY.encode() not in outs[1]
