"""Mistral conversations: streams and whole documents as the official SDK reads them, requests, cuts and faults."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_checks import CARRIED, LABELLED, check_cuts, documents, events, leaks, pieces
from dialect_kit import CANARY, ask, body, policy, shadow, spellings, spoil, stream
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Prepared, Refused
from cotguard.dialects.mistral_conversations import MistralConversations
from cotguard.dialects.routes import Router
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]

DIALECT = MistralConversations()
TIME = "2026-01-01T00:00:00.000000Z"
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {}}}
ARGUMENTS = json.dumps({"to": "Paris", "days": 3})


def prepared(**fields: object) -> Prepared:
    return ask(DIALECT, "start", {"model": "mistral-medium", "inputs": "x", "tools": [TOOL], **fields})


def piece(kind: str, output: int, **fields: object) -> dict[str, Any]:
    return {"type": kind, "created_at": TIME, "output_index": output, "id": f"e_{output}", **fields}


def says(output: int, *contents: object, at: int = 0) -> list[dict[str, Any]]:
    about = {"content_index": at, "model": "mistral-medium", "agent_id": None, "role": "assistant"}
    return [piece("message.output.delta", output, **about, content=content) for content in contents]


def text(told: str) -> dict[str, Any]:
    return {"type": "text", "text": told}


def thought(told: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [text(told)]}


def calls(output: int, name: str, *parts: str) -> list[dict[str, Any]]:
    return [piece("function.call.delta", output, name=name, tool_call_id=f"{name}1", arguments=part) for part in parts]


def executes(output: int, *parts: str, **done: object) -> list[dict[str, Any]]:
    kinds = ["tool.execution.started", *["tool.execution.delta"] * (len(parts) - 1)]
    sent = [piece(kind, output, name="web_search", arguments=part) for kind, part in zip(kinds, parts, strict=True)]
    return [*sent, piece("tool.execution.done", output, name="web_search", **done)]


REFERENCE = {"type": "tool_reference", "tool": "web_search", "title": "Paris", "url": "https://towns.example/paris"}
FILE = {"type": "tool_file", "tool": "code_interpreter", "file_id": "f-1", "file_name": "a.png", "file_type": "png"}
START = {"type": "conversation.response.started", "created_at": TIME, "conversation_id": "conv_1"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "connectors": {"web_search": 1}}
END = {"type": "conversation.response.done", "created_at": TIME, "usage": USAGE}
HANDOFF = [
    piece("agent.handoff.started", 1, previous_agent_id="ag_1", previous_agent_name="The first"),
    piece("agent.handoff.done", 1, next_agent_id="ag_2", next_agent_name="The second"),
]
TALK = [
    START,
    *executes(0, json.dumps({"query": "Paris"}), info={"found": ["a town", 7]}),
    *HANDOFF,
    *executes(2, "", *pieces(json.dumps({"code": "print('France')"}), random.Random(1))),
    *says(3, thought("Paris is a "), thought("town in France.")),
    *says(3, text("The town "), text("is large."), at=1),
    *says(3, REFERENCE, at=2),
    *says(3, FILE, at=3),
    *says(3, text(" Really."), at=4),
    *calls(4, "look", *pieces(ARGUMENTS, random.Random(2))),
    *says(5, "", "So it ", "goes."),
    END,
]
ENTRY = {"object": "entry", "created_at": TIME, "completed_at": TIME, "id": "e_1"}
WHOLE: dict[str, Any] = {
    "conversation_id": "conv_1",
    "object": "conversation.response",
    "outputs": [
        {
            **ENTRY,
            "type": "tool.execution",
            "name": "web_search",
            "arguments": json.dumps({"query": "Paris"}),
            "info": {"found": ["a town", 7]},
        },
        {
            **ENTRY,
            "type": "agent.handoff",
            "previous_agent_id": "ag_1",
            "previous_agent_name": "The first",
            "next_agent_id": "ag_2",
            "next_agent_name": "The second",
        },
        {
            **ENTRY,
            "type": "message.output",
            "role": "assistant",
            "model": "mistral-medium",
            "content": [thought("Paris is a town."), text("The town is large."), REFERENCE, FILE],
        },
        {**ENTRY, "type": "function.call", "tool_call_id": "look1", "name": "look", "arguments": ARGUMENTS},
        {**ENTRY, "type": "message.output", "role": "assistant", "content": "So it goes."},
    ],
    "usage": USAGE,
}


# --- What the SDK sees -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a user of the SDK has of a response. ``texts``: by output and kind, as the SDK joins them."""

    texts: dict[str, str] = field(default_factory=dict)
    others: list[Any] = field(default_factory=list)
    usage: object = None
    error: object = None
    identity: object = None

    def add(self, name: str, told: str) -> None:
        self.texts[name] = self.texts.get(name, "") + told

    def content(self, output: int, content: Any) -> None:
        if isinstance(content, str):
            self.add(f"text {output}", content)
        elif content.type == "text":
            self.add(f"text {output}", content.text)
        elif content.type == "thinking":
            for each in content.thinking:
                self.add(f"thinking {output}", each.text)
        else:
            self.others.append(content.model_dump())


def http(data: bytes | None, content_type: str) -> httpx2.Client:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": content_type})

    return httpx2.Client(transport=None if data is None else httpx2.MockTransport(answer))


def view_stream(data: bytes | None, url: str = "http://upstream") -> Seen:
    """A stream as the SDK reads it: from these bytes or from a server."""
    seen = Seen()
    with (
        http(data, "text/event-stream") as used,
        Mistral(api_key="none", server_url=url, client=used) as sdk,
        sdk.beta.conversations.start_stream(inputs="x", model="mistral-medium", tools=[TOOL]) as sent,
    ):
        for each in sent:
            take(seen, each.data)
    return seen


def take(seen: Seen, each: Any) -> None:
    match each.type:
        case "conversation.response.started":
            seen.identity = each.conversation_id
        case "conversation.response.done":
            seen.usage = each.usage.model_dump(exclude_unset=True)
        case "conversation.response.error":
            seen.error = each.message
        case "message.output.delta":
            seen.content(each.output_index, each.content)
        case "function.call.delta":
            seen.add(f"call {each.output_index} {each.name} {each.tool_call_id}", each.arguments)
        case "tool.execution.started" | "tool.execution.delta":
            seen.add(f"execution {each.output_index} {each.name}", each.arguments)
        case _:
            seen.others.append(each.model_dump(exclude_unset=True))


def view_body(data: bytes | None, url: str = "http://upstream") -> Seen:
    """The same for a whole response."""
    seen = Seen()
    with http(data, "application/json") as used, Mistral(api_key="none", server_url=url, client=used) as sdk:
        response = sdk.beta.conversations.start(inputs="x", model="mistral-medium", tools=[TOOL])
    seen.identity = response.conversation_id
    seen.usage = response.usage.model_dump(exclude_unset=True)
    for at, each in enumerate(response.outputs):
        entry: Any = each
        match entry.type:
            case "message.output":
                for content in [entry.content] if isinstance(entry.content, str) else entry.content:
                    seen.content(at, content)
            case "function.call":
                seen.add(f"call {at} {entry.name} {entry.tool_call_id}", entry.arguments)
            case "tool.execution":
                seen.add(f"execution {at} {entry.name}", entry.arguments)
                seen.others.append(entry.info)
            case _:
                seen.others.append(entry.model_dump(exclude_unset=True))
    return seen


def joined(out: bytes) -> dict[str, str]:
    """The texts of a stream as :func:`view_stream` has them, without the SDK, which takes its time."""
    seen = Seen()
    for each in documents(out):
        kind, output, told = each["type"], each.get("output_index"), each.get("content")
        if kind == "message.output.delta" and isinstance(told, str):
            seen.add(f"text {output}", told)
        elif kind == "message.output.delta" and isinstance(told, dict) and told["type"] == "text":
            seen.add(f"text {output}", told["text"])
        elif kind == "message.output.delta" and isinstance(told, dict) and told["type"] == "thinking":
            seen.add(f"thinking {output}", "".join(part["text"] for part in told["thinking"]))
        elif kind == "function.call.delta":
            seen.add(f"call {output} {each['name']} {each['tool_call_id']}", each["arguments"])
        elif kind in ("tool.execution.started", "tool.execution.delta"):
            seen.add(f"execution {output} {each['name']}", each["arguments"])
    return seen.texts


@pytest.fixture(params=["no detectors", "every detector"])
def altering_nothing(request: pytest.FixtureRequest, balanced: Moderation) -> Moderation:
    return shadow(balanced[1] if request.param == "every detector" else ())


@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_stream_looks_the_same(altering_nothing: Moderation, size: int) -> None:
    seen = view_stream(events(TALK))
    assert len(seen.texts) == 6
    assert joined(events(TALK)) == seen.texts
    assert len(seen.others) == 6
    assert view_stream(stream(DIALECT, prepared(), altering_nothing, events(TALK), size=size)) == seen
    ended = stream(DIALECT, prepared(), altering_nothing, events(TALK) + b"data: [DONE]\n\n", size=size)
    assert view_stream(ended) == seen


def test_a_body_looks_the_same(altering_nothing: Moderation) -> None:
    data = json.dumps(WHOLE).encode()
    seen = view_body(data)
    assert (len(seen.texts), len(seen.others)) == (5, 4)
    assert view_body(body(DIALECT, prepared(), altering_nothing, data)) == seen


def test_events_come_in_the_order_of_the_upstreams(altering_nothing: Moderation) -> None:
    def order(sent: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
        kinds = [(str(each["type"]), each.get("output_index", -1)) for each in sent]
        return [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]

    assert order(documents(stream(DIALECT, prepared(), altering_nothing, events(TALK)))) == order(TALK)


# --- Nothing leaks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["Paris", "France", "Really", "second", "look1", "paris"])
def test_a_known_word_is_nowhere(word: str) -> None:
    moderation, names = policy("redact", word), word == "look1"  # an identifier is structure
    for size in (1, 7, 10**9):
        out = stream(DIALECT, prepared(), moderation, events(TALK), size=size)
        assert names or not [each for each in spellings(word) if each in out]
        assert names or word not in "".join(joined(out).values())
    whole = body(DIALECT, prepared(), moderation, json.dumps(WHOLE).encode())
    assert names or not [each for each in spellings(word) if each in whole]
    assert check_cuts(DIALECT, prepared(), moderation, events(TALK), joined).keys() == joined(events(TALK)).keys()


def spoilable(sent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is passed on in any shape: a tool's report."""
    return [{name: value for name, value in each.items() if name != "info"} for each in sent]


def test_unknown_fields_vanish(altering_nothing: Moderation) -> None:
    sent = spoilable(TALK)
    spoiled: list[Any] = [spoil(each) for each in sent]
    out = stream(DIALECT, prepared(), altering_nothing, events(spoiled))
    assert CANARY.encode() not in out
    assert view_stream(out) == view_stream(events(sent))
    whole = {**WHOLE, "outputs": spoilable(WHOLE["outputs"])}
    told = body(DIALECT, prepared(), altering_nothing, json.dumps(spoil(whole)).encode())
    assert CANARY.encode() not in told
    assert view_body(told) == view_body(json.dumps(whole).encode())


MESSAGE = says(0, "so")[0]
EXECUTION = executes(0, "{}")[0]
MIRRORS = [
    {**START, "conversation_id": CANARY + " "},
    {**START, "prompt": CANARY},
    {**END, "type": "conversation.response.completed", "text": CANARY},
    {"type": "guardrail.report", "text": CANARY},
    {"type": 7, "content": CANARY},
    {**MESSAGE, "role": CANARY},
    {**MESSAGE, "model": CANARY + "\n"},
    {**MESSAGE, "agent_id": CANARY + " "},
    {**MESSAGE, "created_at": CANARY},
    {**MESSAGE, "id": CANARY + " "},
    {**MESSAGE, "logprobs": [{"token": CANARY}]},
    {**MESSAGE, "metadata": {"text": CANARY}},
    {**MESSAGE, "content": {"type": "image_url", "image_url": CANARY}},
    {**MESSAGE, "content": {"type": "document_url", "document_url": CANARY, "document_name": CANARY}},
    {**MESSAGE, "content": {"type": CANARY, "text": CANARY}},
    {**MESSAGE, "content": {**REFERENCE, "tool": CANARY + " "}},
    {**MESSAGE, "content": {**REFERENCE, "snippet": CANARY}},
    {**MESSAGE, "content": {**FILE, "file_id": CANARY + " "}},
    {**MESSAGE, "content": {**thought("so"), "signature": CANARY}},
    {**MESSAGE, "content": {"type": "thinking", "thinking": [{"type": "reference", "reference_ids": [CANARY]}]}},
    {**MESSAGE, "content": {"type": "thinking", "thinking": [REFERENCE | {"title": CANARY}]}},
    {**calls(0, "look", "{}")[0], "name": CANARY},
    {**calls(0, "look", "{}")[0], "tool_call_id": CANARY + " "},
    {**calls(0, "look", "{}")[0], "confirmation_status": CANARY},
    {**EXECUTION, "name": CANARY + " "},
    {**EXECUTION, "info": {"text": CANARY}},
    {**EXECUTION, "output": CANARY},
    {**HANDOFF[0], "previous_agent_id": CANARY + " "},
    {**HANDOFF[0], "reason": CANARY},
]


@pytest.mark.parametrize("mirror", MIRRORS)
def test_the_canary_in_a_field_of_an_event_stays_here(mirror: dict[str, Any]) -> None:
    named, unnamed = events([START, mirror, *says(9, "so"), END]), events([mirror, *says(9, "so"), END], named=False)
    for data in (named, unnamed):
        out = stream(DIALECT, prepared(), shadow(), data)
        assert CANARY.encode() not in out
        assert documents(out)[-1]["usage"] == USAGE


def test_events_named_otherwise_are_dropped() -> None:
    misnamed = b"event: tool.execution.delta\ndata: %b\n\n" % json.dumps(says(0, CANARY)[0]).encode()
    out = stream(DIALECT, prepared(), shadow(), misnamed + events(TALK))
    assert view_stream(out) == view_stream(events(TALK))


BODY_MIRRORS = [
    ("prompt", CANARY),
    ("guardrails", [{"text": CANARY}]),
    ("conversation_id", CANARY + " "),
    ("usage", {"note": CANARY, "connectors": {CANARY: 1}}),
    ("outputs", [{"type": CANARY, "content": CANARY, "id": CANARY}]),
    ("outputs", [{"content": CANARY}]),
    ("outputs", [{**ENTRY, "type": "function.call", "name": CANARY, "arguments": CANARY}]),
    ("outputs", [{**ENTRY, "type": "tool.execution", "name": CANARY + " ", "arguments": "{}"}]),
    ("outputs", [{**ENTRY, "type": "message.output", "content": [{"type": "image_url", "image_url": CANARY}]}]),
    ("outputs", [{**ENTRY, "type": "message.output", "content": "so", "object": CANARY + " "}]),
]


@pytest.mark.parametrize(("name", "value"), BODY_MIRRORS)
def test_the_canary_in_a_field_of_a_body_stays_here(name: str, value: object) -> None:
    out = body(DIALECT, prepared(), shadow(), json.dumps({**WHOLE, name: value}).encode())
    assert CANARY.encode() not in out
    assert {"outputs", "usage"} <= json.loads(out).keys()


NOTE = json.dumps({"note": CARRIED, "card": 4111111111111111})
LABELLED_NOTE = {"note": LABELLED, "card": "[CREDIT_CARD]"}


@pytest.mark.parametrize("form", ["string", "text", "thinking"])
def test_planted_values_of_a_message_are_labels(balanced: Moderation, form: str) -> None:
    chunk: Any = {"string": str, "text": text, "thinking": thought}[form]
    sent = events([START, *says(0, *map(chunk, pieces(CARRIED, random.Random(form)))), END])
    found = check_cuts(DIALECT, prepared(), balanced, sent, joined)
    assert list(found.values()) == [LABELLED]
    assert leaks(stream(DIALECT, prepared(), balanced, sent)) == []


@pytest.mark.parametrize("kind", ["call", "execution", "execution at once"])
def test_planted_values_of_arguments_are_labels(balanced: Moderation, kind: str) -> None:
    parts = list(pieces(NOTE, random.Random(kind)))
    made = {"call": calls(0, "look", *parts), "execution": executes(0, *parts)}.get(kind, executes(0, NOTE))
    sent = events([START, *made, END])
    [found] = check_cuts(DIALECT, prepared(), balanced, sent, joined).values()
    assert json.loads(found) == LABELLED_NOTE
    assert leaks(stream(DIALECT, prepared(), balanced, sent)) == []


def test_planted_values_elsewhere_are_labels(balanced: Moderation) -> None:
    sent = [
        START,
        *executes(0, "{}", info={"text": CARRIED}),
        {**HANDOFF[0], "previous_agent_name": CARRIED},
        {**HANDOFF[1], "next_agent_name": CARRIED},
        *says(2, {**REFERENCE, "title": CARRIED, "url": CARRIED, "favicon": CARRIED, "description": CARRIED}),
        *says(2, {**FILE, "file_name": CARRIED, "file_type": "png"}, at=1),
        END,
    ]
    out = stream(DIALECT, prepared(), balanced, events(sent))
    assert out.count(json.dumps(LABELLED, ensure_ascii=False)[1:-1].encode()) == 8
    assert leaks(out) == []


def test_planted_values_of_a_body_are_labels(balanced: Moderation) -> None:
    execution, handoff, message, call, last = WHOLE["outputs"]
    reference = {**REFERENCE, "title": CARRIED}
    outputs = [
        {**execution, "arguments": NOTE, "info": {"text": CARRIED}},
        {**handoff, "next_agent_name": CARRIED},
        {**message, "content": [thought(CARRIED), text(CARRIED), reference]},
        {**call, "arguments": NOTE},
        {**last, "content": CARRIED},
    ]
    out = body(DIALECT, prepared(), balanced, json.dumps({**WHOLE, "outputs": outputs}).encode())
    found = view_body(out).texts
    assert [json.loads(found[name]) for name in found if name.startswith(("call", "exec"))] == [LABELLED_NOTE] * 2
    assert [found[name] for name in ("thinking 2", "text 2", "text 4")] == [LABELLED] * 3
    assert leaks(out) == []


@pytest.mark.parametrize("at", [1, 6, 12, 18])
@pytest.mark.parametrize("forms", [(thought, text), (text, str), (str, thought)])
def test_a_value_over_two_chunks_is_a_label(balanced: Moderation, at: int, forms: tuple[Any, Any]) -> None:
    value = "ann.lee@example.com"
    first, second = forms
    head, tail = "Write to " + value[:at], value[at:] + " about the matter, and then some more words."
    out = stream(DIALECT, prepared(), balanced, events([START, *says(0, first(head)), *says(1, second(tail)), END]))
    told = "".join(joined(out).values())
    assert "[EMAIL_ADDRESS]" in told
    assert not any(value[cut : cut + 5] in told for cut in range(len(value) - 4))


# --- Calls, cuts and faults --------------------------------------------------------------------------------------


def test_calls_of_other_functions_are_dropped(altering_nothing: Moderation) -> None:
    sent = [START, *calls(0, CANARY, "{}"), *calls(1, "look", ""), *says(2, "so"), END]
    out = stream(DIALECT, prepared(), altering_nothing, events(sent))
    assert CANARY.encode() not in out
    assert joined(out) == {"call 1 look look1": "", "text 2": "so"}


def test_two_calls_in_turn_are_kept_apart(altering_nothing: Moderation) -> None:
    first, second = calls(0, "look", '{"a":', "1}"), calls(1, "look", '{"b":', "2}")
    sent = [START, first[0], second[0], first[1], second[1], END]
    out = stream(DIALECT, prepared(), altering_nothing, events(sent))
    assert joined(out) == {"call 0 look look1": '{"a":1}', "call 1 look look1": '{"b":2}'}


@pytest.mark.parametrize("first", ["{}", '{"a":'])
def test_what_follows_the_arguments_is_dropped(first: str) -> None:
    started, delta, done = executes(0, first, CANARY)
    late = [delta, done] if first == "{}" else [done, delta]
    out = stream(DIALECT, prepared(), shadow(), events([START, started, *late, done, END]))
    assert CANARY.encode() not in out
    assert joined(out) == {"execution 0 web_search": first}
    assert [each["type"] for each in documents(out)].count("conversation.response.done") == 1


MAIL = "so ann.lee@example.com is it"
CUTS = {
    "string": (says(0, MAIL), {"text 0": "so " + CUT_NOTICE}),
    "text": (says(0, text(MAIL)), {"text 0": "so " + CUT_NOTICE}),
    "thinking": (says(0, thought(MAIL)), {"thinking 0": "so ", "text 0": CUT_NOTICE}),
    "call": (calls(0, "look", json.dumps({"a": MAIL})), {"call 0 look look1": '{"a": "so ', "text 1": CUT_NOTICE}),
    "execution": (executes(0, json.dumps({"a": MAIL})), {"text 0": CUT_NOTICE}),
    "handoff": ([{**HANDOFF[0], "previous_agent_name": MAIL}], {"text 0": CUT_NOTICE}),
    "reference": (
        [*says(0, "so it goes on and on. "), *says(0, {**REFERENCE, "title": MAIL})],
        {"text 0": "so it goes on and " + CUT_NOTICE},
    ),
}


@pytest.mark.parametrize("kind", CUTS)
def test_a_block_ends_the_stream_with_a_notice(kind: str) -> None:
    sent, expected = CUTS[kind]
    data = events([START, *sent, *says(9, CANARY), END])
    out = stream(DIALECT, prepared(), policy("block"), data)
    seen = view_stream(out)
    assert (seen.texts, seen.error, seen.usage) == (expected, None, {})
    assert CANARY.encode() not in out
    assert check_cuts(DIALECT, prepared(), policy("block"), data, joined) == expected


def test_a_block_ends_a_body_with_a_notice() -> None:
    execution, _, message, _, last = WHOLE["outputs"]
    outputs = [execution, {**message, "content": [thought(MAIL), text(CANARY)]}, {**last, "content": CANARY}]
    out = body(DIALECT, prepared(), policy("block"), json.dumps({**WHOLE, "outputs": outputs}).encode())
    seen = view_body(out)
    assert seen.texts == {
        "execution 0 web_search": execution["arguments"],
        "thinking 1": "so ",
        "text 2": CUT_NOTICE,
    }
    assert CANARY.encode() not in out


def test_withheld_text_leaves_the_rest() -> None:
    sent = [START, *says(0, thought(MAIL)), *says(0, text("All is well.")), END]
    seen = view_stream(stream(DIALECT, prepared(), policy("withhold"), events(sent)))
    assert "example" not in seen.texts["thinking 0"]
    assert (seen.texts["text 0"], seen.usage) == ("All is well.", USAGE)


@pytest.mark.parametrize(
    ("last", "error", "code"),
    [
        (b"data: {nonsense\n\n", "The upstream's stream could not be read.", 500),
        (events([{**MESSAGE, "content": 7}]), "wrong type", 500),
        (events([piece("conversation.response.error", 0, message=CANARY, code=429)]), "reported an error", 429),
        (events([piece("conversation.response.error", 0, message=CANARY, code=4111)]), "reported an error", 500),
        (b"", "ended the stream early", 500),
        (b"data: [DONE]\n\n", "ended the stream early", 500),
    ],
)
def test_a_fault_is_told_in_the_last_event(balanced: Moderation, last: bytes, error: str, code: int) -> None:
    data = events([START, *says(0, "so it goes on and on. ", "4111")]) + last
    for size in (1, 10**9):
        out = stream(DIALECT, prepared(), balanced, data, size=size)
        seen = view_stream(out)
        assert error in str(seen.error)
        assert documents(out)[-1]["code"] == code
        assert seen.texts == {"text 0": "so it goes on and on. "}
        assert CANARY.encode() not in out


def test_errors_have_the_dialects_shape() -> None:
    sent = {"object": "error", "message": "secret words", "type": "rate_limited", "param": "x", "code": "1300"}
    told = json.loads(DIALECT.upstream_error(429, json.dumps(sent).encode()))
    assert (told["message"], told["type"]) == ("The upstream answered with status 429.", "rate_limited")
    assert json.loads(DIALECT.upstream_error(422, b'{"detail": [{"msg": "secret"}]}'))["type"] == "upstream_error"
    assert json.loads(DIALECT.error(ErrorKind.NOT_FOUND, "No."))["code"] == "not_found"


# --- Requests and the gateway ------------------------------------------------------------------------------------


def test_requests() -> None:
    assert not prepared().stream
    request = prepared(stream=True, store=True, instructions="be kind", inputs="hello")
    assert request.stream
    assert request.document["store"] is False
    assert (request.facts.system_prompts, request.facts.user) == (("be kind",), "hello")
    assert request.tools == {"look"}
    inputs = [{"role": "user", "content": "first"}, {"role": "user", "content": [text("last")]}, {"object": "entry"}]
    assert prepared(inputs=inputs).facts.user == "last"
    for wrong in ({"inputs": 7}, {"inputs": [7]}, {"stream": "yes"}, {"instructions": 7}):
        with pytest.raises(Refused):
            prepared(**wrong)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/conversations"),
        ("GET", "/v1/conversations/c1"),
        ("POST", "/v1/conversations/c1"),
        ("DELETE", "/v1/conversations/c1"),
        ("POST", "/v1/conversations/c1/restart"),
        ("GET", "/v1/conversations/c1/messages"),
        ("GET", "/v1/conversations/c1/history"),
        ("POST", "/v1/ocr"),
    ],
)
def test_stored_conversations_are_refused(method: str, path: str) -> None:
    with pytest.raises(Refused) as refused:
        Router([DIALECT]).find(method, path)
    assert refused.value.kind is ErrorKind.UNSUPPORTED


async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    told = [
        START,
        *says(0, thought("Ask ann.lee"), thought("@example.com first. ")),
        *says(1, "Card 4111 1111 1111 1111"),
    ]

    async def handler(request: web.Request) -> web.StreamResponse:
        if json.loads(upstream.bodies[-1]).get("stream"):
            return web.Response(body=events([*told, END]), content_type="text/event-stream")
        return web.json_response(
            {**WHOLE, "outputs": [{**WHOLE["outputs"][-1], "content": "Card 4111 1111 1111 1111"}]}
        )

    upstream.handler = handler
    url = (await make_proxy()).url
    seen = await asyncio.to_thread(view_stream, None, url)
    assert seen.texts == {"thinking 0": "Ask [EMAIL_ADDRESS] first. ", "text 1": "Card [CREDIT_CARD]"}
    assert seen.usage == USAGE
    whole = await asyncio.to_thread(view_body, None, url)
    assert whole.texts == {"text 0": "Card [CREDIT_CARD]"}
    assert set(upstream.paths) == {"/v1/conversations"}
    assert all(json.loads(each)["store"] is False for each in upstream.bodies)


async def test_a_stored_conversation_is_refused_to_the_sdk(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    url = (await make_proxy()).url

    def append() -> None:
        with Mistral(api_key="none", server_url=url) as sdk:
            sdk.beta.conversations.append(conversation_id="c1", inputs="more")

    with pytest.raises(SDKError, match="onversations"):
        await asyncio.to_thread(append)
    assert upstream.paths == []


@pytest.mark.parametrize("path", ["/v1/fim/completions", "/v1/agents/completions"])
async def test_mistrals_other_completions_are_chat_completions(
    upstream: Upstream, make_proxy: ProxyFactory, path: str
) -> None:
    choice = {"index": 0, "finish_reason": "stop"}
    about = {"id": "c-1", "created": 1, "model": "codestral"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

    async def handler(request: web.Request) -> web.StreamResponse:
        if json.loads(upstream.bodies[-1]).get("stream"):
            deltas = [{"role": "assistant", "content": "to ann.lee@exam"}, {"content": "ple.com now"}]
            chunks = [
                {**about, "object": "chat.completion.chunk", "choices": [{**choice, "delta": delta}]}
                for delta in deltas[:-1]
            ]
            chunks[0]["choices"][0]["finish_reason"] = None  # type: ignore[index]
            chunks.append({**about, "object": "chat.completion.chunk", "choices": [{**choice, "delta": deltas[-1]}]})
            lines = [b"data: %b\n\n" % json.dumps(each).encode() for each in chunks]
            return web.Response(body=b"".join(lines) + b"data: [DONE]\n\n", content_type="text/event-stream")
        message = {"role": "assistant", "content": "to ann.lee@example.com now"}
        answer = {**about, "object": "chat.completion", "choices": [{**choice, "message": message}], "usage": usage}
        return web.json_response(answer)

    upstream.handler = handler
    url = (await make_proxy()).url

    def use() -> tuple[Any, str]:
        with Mistral(api_key="none", server_url=url) as sdk:
            if "fim" in path:
                whole: Any = sdk.fim.complete(model="codestral", prompt="def f")
                sent: Any = sdk.fim.stream(model="codestral", prompt="def f")
            else:
                messages: list[Any] = [{"role": "user", "content": "x"}]
                whole = sdk.agents.complete(agent_id="a", messages=messages)
                sent = sdk.agents.stream(agent_id="a", messages=messages)
            with sent as opened:
                told = "".join(each.data.choices[0].delta.content or "" for each in opened)
            return whole.choices[0].message.content, told

    assert await asyncio.to_thread(use) == ("to [EMAIL_ADDRESS] now", "to [EMAIL_ADDRESS] now")
    assert upstream.paths == [path] * 2
