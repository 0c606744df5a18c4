"""Cohere v2: streams of events and whole documents as the official SDK reads them, requests, cuts and faults."""

import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_checks import CARRIED, LABELLED, check_cuts, documents, events, leaks, pieces
from dialect_kit import CANARY, ask, body, policy, shadow, spellings, spoil, stream

from cotguard.detectors.contract import Detector
from cotguard.dialects.cohere import Cohere
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Prepared, Refused
from cotguard.dialects.routes import Router
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]

DIALECT = Cohere()
FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
ARGUMENTS = json.dumps({"to": "Paris", "days": 3})


def prepared(**fields: object) -> Prepared:
    request = {"model": "command-a", "messages": [{"role": "user", "content": "x"}], "tools": [TOOL], **fields}
    return ask(DIALECT, "chat", request)


def event(kind: str, index: int | None = None, **member: object) -> dict[str, Any]:
    at = {} if index is None else {"index": index}
    return {"type": kind, **at, **({"delta": {"message": member}} if member else {})}


def block(index: int, kind: str, *parts: str) -> list[dict[str, Any]]:
    begin = event("content-start", index, content={"type": kind, kind: ""})
    return [
        begin,
        *(event("content-delta", index, content={kind: part}) for part in parts),
        event("content-end", index),
    ]


def plan(*parts: str) -> list[dict[str, Any]]:
    return [event("tool-plan-delta", tool_plan=part) for part in parts]


def call(index: int, name: str, *parts: str) -> list[dict[str, Any]]:
    about = {"id": f"{name}_1", "type": "function", "function": {"name": name, "arguments": ""}}
    return [
        event("tool-call-start", index, tool_calls=about),
        *(event("tool-call-delta", index, tool_calls={"function": {"arguments": part}}) for part in parts),
        event("tool-call-end", index),
    ]


def cite(index: int, text: str, start: int, end: int, **more: object) -> list[dict[str, Any]]:
    citation = {"start": start, "end": end, "text": text, "sources": [], "type": "TEXT_CONTENT", **more}
    return [event("citation-start", index, citations=citation), event("citation-end", index)]


START = {
    "type": "message-start",
    "id": "m-1",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}},
}
USAGE = {
    "billed_units": {"input_tokens": 8, "output_tokens": 50},
    "tokens": {"input_tokens": 1394, "output_tokens": 54},
    "cached_tokens": 1360,
}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}
SOURCE = {"type": "document", "id": "doc:1"}
OUTPUT = {"type": "tool", "id": "look_1:0", "tool_output": {"size": 12, "of": ["Paris", "France"]}}
TALK = [
    START,
    *block(0, "thinking", "Paris is ", "a town in ", "France."),
    *plan("I will look ", "at Paris."),
    *call(0, "look", *pieces(ARGUMENTS, random.Random(1))),
    *block(1, "text", "The town ", "is large."),
    *cite(0, "town", 4, 8, content_index=1, sources=[SOURCE]),
    *cite(1, "large", 12, 17, content_index=1, sources=[SOURCE, OUTPUT]),
    END,
]
WHOLE = {
    "id": "m-1",
    "message": {
        "role": "assistant",
        "tool_plan": "I will look at Paris.",
        "content": [
            {"type": "thinking", "thinking": "Paris is a town."},
            {"type": "text", "text": "The town is large."},
        ],
        "tool_calls": [{"id": "c-1", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}],
        "citations": [
            {
                "start": 4,
                "end": 8,
                "text": "town",
                "content_index": 1,
                "type": "TEXT_CONTENT",
                "sources": [SOURCE, OUTPUT],
            }
        ],
    },
    "finish_reason": "COMPLETE",
    "usage": USAGE,
}


# --- What the SDK sees -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a user of the SDK has of a response. ``texts``: by kind and index, in the order of their beginnings."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[int, tuple[object, object]] = field(default_factory=dict)
    citations: list[Any] = field(default_factory=list)
    finish: object = None
    usage: object = None
    error: object = None
    identity: object = None

    def add(self, name: str, text: str | None) -> None:
        if text is not None:
            self.texts[name] = self.texts.get(name, "") + text


def sdk(http: httpx.Client, url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=url, httpx_client=http, log_warning_experimental_features=False)


def http(data: bytes | None, content_type: str) -> httpx.Client:
    """A client of a real server, or one that gets ``data`` for an answer."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data, headers={"content-type": content_type})

    return httpx.Client(transport=None if data is None else httpx.MockTransport(answer))


def view_stream(data: bytes | None, url: str = "http://upstream") -> Seen:
    """A stream as the SDK reads it: from these bytes or from a server."""
    seen = Seen()
    messages: list[Any] = [cohere.UserChatMessageV2(content="x")]
    tools = [cohere.ToolV2.model_validate(TOOL)]
    with http(data, "text/event-stream") as used:
        for each in sdk(used, url).chat_stream(model="command-a", messages=messages, tools=tools):
            take(seen, each)
    return seen


def take(seen: Seen, each: Any) -> None:
    if each.type == "message-start":
        seen.identity = each.id
    elif each.type in ("content-start", "content-delta"):
        content = each.delta.message.content
        seen.add(f"thinking {each.index}", content.thinking)
        seen.add(f"text {each.index}", content.text)
    elif each.type == "tool-plan-delta":
        seen.add("plan", each.delta.message.tool_plan)
    elif each.type == "tool-call-start":
        made = each.delta.message.tool_calls
        seen.calls[each.index] = (made.id, made.function.name)
        seen.add(f"call {each.index}", made.function.arguments)
    elif each.type == "tool-call-delta":
        seen.add(f"call {each.index}", each.delta.message.tool_calls.function.arguments)
    elif each.type == "citation-start":
        seen.citations.append((each.index, each.delta.message.citations.model_dump()))
    elif each.type == "message-end":
        seen.finish, seen.error = each.delta.finish_reason, each.delta.error
        seen.usage = each.delta.usage and each.delta.usage.model_dump(exclude_none=True)


def view_body(data: bytes | None, url: str = "http://upstream") -> Seen:
    """The same for a whole response."""
    tools = [cohere.ToolV2.model_validate(TOOL)]
    with http(data, "application/json") as used:
        response = sdk(used, url).chat(model="command-a", messages=[cohere.UserChatMessageV2(content="x")], tools=tools)
    seen = Seen(finish=response.finish_reason, identity=response.id)
    seen.usage = response.usage and response.usage.model_dump(exclude_none=True)
    for at, part in enumerate(response.message.content or []):
        seen.add(f"{part.type} {at}", part.text if part.type == "text" else part.thinking)
    seen.add("plan", response.message.tool_plan)
    for at, made in enumerate(response.message.tool_calls or []):
        assert made.function is not None
        seen.calls[at] = (made.id, made.function.name)
        seen.add(f"call {at}", made.function.arguments)
    seen.citations = [each.model_dump() for each in response.message.citations or []]
    return seen


def recorded(name: str) -> bytes:
    data = (FIXTURES / name).read_bytes()
    if name.endswith(".txt"):
        return events([json.loads(line) for line in data.splitlines() if line.strip()])
    return data


recordings = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings beside the repository")
STREAMS = [
    pytest.param("", id="made here"),
    pytest.param("ai__cohere__cohere-reasoning.chunks.txt", marks=recordings, id="reasoning"),
]
BODIES = [
    pytest.param("", id="made here"),
    pytest.param("ai__cohere__cohere-reasoning.json", marks=recordings, id="reasoning"),
]


@pytest.fixture(params=["no detectors", "every detector"])
def altering_nothing(request: pytest.FixtureRequest, balanced: Moderation) -> Moderation:
    return shadow(balanced[1] if request.param == "every detector" else ())


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_stream_looks_the_same(altering_nothing: Moderation, name: str, size: int) -> None:
    data = recorded(name) if name else events(TALK)
    seen = view_stream(data)
    assert seen.texts == joined(data)
    assert seen.finish == "COMPLETE"
    assert view_stream(stream(DIALECT, prepared(), altering_nothing, data, size=size)) == seen


@pytest.mark.parametrize("name", BODIES)
def test_a_body_looks_the_same(altering_nothing: Moderation, name: str) -> None:
    data = recorded(name) if name else json.dumps(WHOLE).encode()
    seen = view_body(data)
    assert seen.texts
    assert view_body(body(DIALECT, prepared(), altering_nothing, data)) == seen


def test_events_come_in_the_order_of_the_upstreams(altering_nothing: Moderation) -> None:
    def order(sent: Sequence[Mapping[str, Any]]) -> list[str]:
        kinds = [str(each["type"]) for each in sent]
        return [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]

    assert order(documents(stream(DIALECT, prepared(), altering_nothing, events(TALK)))) == order(TALK)


# --- Nothing leaks -----------------------------------------------------------------------------------------------


def joined(out: bytes) -> dict[str, str]:
    """The texts of a stream as :func:`view_stream` has them, without the SDK, which takes its time."""
    seen = Seen()
    for each in documents(out):
        message = each.get("delta", {}).get("message", {})
        if each["type"].startswith("content-") and message:
            for kind in ("thinking", "text"):
                seen.add(f"{kind} {each['index']}", message["content"].get(kind))
        elif each["type"] == "tool-plan-delta":
            seen.add("plan", message["tool_plan"])
        elif each["type"].startswith("tool-call-") and message:
            seen.add(f"call {each['index']}", message["tool_calls"]["function"]["arguments"])
    return seen.texts


def long_word(texts: Mapping[str, str]) -> str:
    word = max(re.findall(r"[A-Za-z]+", " ".join(texts.values())), key=len)
    assert len(word) >= 5
    return str(word)


@pytest.mark.parametrize("name", STREAMS)
def test_a_known_word_of_a_stream_is_nowhere(name: str) -> None:
    data = recorded(name) if name else events(TALK)
    texts = view_stream(data).texts
    word = long_word(texts)
    moderation = policy("redact", word)
    for size in (1, 7, 10**9):
        out = stream(DIALECT, prepared(), moderation, data, size=size)
        assert not [each for each in spellings(word) if each in out]
        assert word not in "".join(joined(out).values())
    assert check_cuts(DIALECT, prepared(), moderation, data, joined).keys() == texts.keys()


@pytest.mark.parametrize("name", BODIES)
def test_a_known_word_of_a_body_is_nowhere(name: str) -> None:
    data = recorded(name) if name else json.dumps(WHOLE).encode()
    word = long_word(view_body(data).texts)
    out = body(DIALECT, prepared(), policy("redact", word), data)
    assert not [each for each in spellings(word) if each in out]
    assert view_body(out).texts.keys() == view_body(data).texts.keys()


def without_outputs(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream without what is passed on in any shape: a client's own documents."""
    return [each for each in documents(data) if b"tool_output" not in json.dumps(each).encode()]


@pytest.mark.parametrize("name", STREAMS)
def test_unknown_fields_of_a_stream_vanish(altering_nothing: Moderation, name: str) -> None:
    data = recorded(name) if name else events(TALK)
    sent = without_outputs(data)
    spoiled = events([spoil(each) for each in sent])  # type: ignore[misc]  # documents stay documents
    out = stream(DIALECT, prepared(), altering_nothing, spoiled)
    assert CANARY.encode() not in out
    assert view_stream(out) == view_stream(events(sent))


def put(value: Any, path: str, new: object) -> Any:
    """A copy of a document with something else in one place."""
    copied = json.loads(json.dumps(value))
    *way, last = path.split(".")
    holder = copied
    for step in way:
        holder = holder[int(step)] if isinstance(holder, list) else holder.setdefault(step, {})
    holder[int(last) if isinstance(holder, list) else last] = new
    return copied


MIRRORS = [
    (0, "id", CANARY + " "),
    (0, "delta.message.content", [{"type": "text", "text": CANARY}]),
    (0, "delta.message.tool_plan", CANARY),
    (0, "delta.message.tool_calls", [{"id": CANARY, "function": {"name": CANARY}}]),
    (0, "delta.message.citations", [{"text": CANARY}]),
    (1, "delta.message.content.type", CANARY),
    (1, "type", CANARY),
    (2, "logprobs", {"text": CANARY, "token_ids": [1], "logprobs": [0.0]}),
    (2, "delta.message.tool_plan", CANARY),
    (2, "delta.message.content.type", CANARY),
    (2, "prompt", CANARY),
    (5, "delta.message.content.text", CANARY),
    (8, "delta.message.tool_calls.type", CANARY),
    (8, "delta.message.tool_calls.id", CANARY + " "),
    (-4, "delta", {"message": {"citations": {"start": 0, "end": 3, "text": CANARY}}}),
    (-3, "delta.message.citations.text", CANARY),
    (-3, "delta.message.citations.type", CANARY),
    (-3, "delta.message.citations.sources", [{"type": "web", "url": CANARY}]),
    (-3, "delta.message.citations.snippet", CANARY),
    (-2, "delta", {"message": {"citations": {"text": CANARY}}}),
    (-1, "delta.finish_reason", CANARY),
    (-1, "delta.usage.note", CANARY),
    (-1, "delta.usage.cached_tokens", CANARY),
    (-1, "delta.message", {"content": {"text": CANARY}}),
    (-1, "id", CANARY + " "),
]


@pytest.mark.parametrize(("at", "path", "value"), MIRRORS)
def test_the_canary_in_a_field_of_an_event_stays_here(at: int, path: str, value: object) -> None:
    sent = list(TALK)
    sent[at] = put(sent[at], path, value)
    out = stream(DIALECT, prepared(), shadow(), events(sent))
    assert CANARY.encode() not in out
    assert documents(out)[-1]["delta"]["finish_reason"] == "COMPLETE"


def test_events_that_are_not_known_or_named_otherwise_are_dropped() -> None:
    unknown: list[dict[str, Any]] = [
        {"type": "debug", "prompt": CANARY},
        {"type": "content-summary", "index": 0, "delta": {"message": {"content": {"text": CANARY}}}},
        {"type": 7, "delta": {"message": {"content": {"text": CANARY}}}},
    ]
    delta = json.dumps(event("content-delta", 0, content={"text": CANARY}))
    misnamed = b"event: content-start\ndata: %b\n\n" % delta.encode()
    out = stream(DIALECT, prepared(), shadow(), events(unknown) + misnamed + events(TALK))
    assert CANARY.encode() not in out
    assert view_stream(out) == view_stream(events(TALK))


BODY_MIRRORS = [
    ("logprobs", [{"text": CANARY, "token_ids": [1]}]),
    ("id", CANARY + " "),
    ("finish_reason", CANARY),
    ("message.role", CANARY),
    ("message.content.1.citations", [CANARY]),
    ("message.content.1.type", CANARY),
    ("message.tool_calls.0.id", CANARY + " "),
    ("message.tool_calls.0.type", CANARY),
    ("message.tool_calls.0.function.name", CANARY),
    ("message.citations.0.text", CANARY),
    ("message.citations.0.type", CANARY),
    ("message.citations.0.sources.0", {"type": "web", "url": CANARY}),
    ("usage.note", CANARY),
    ("prompt", CANARY),
]


@pytest.mark.parametrize(("path", "value"), BODY_MIRRORS)
def test_the_canary_in_a_field_of_a_body_stays_here(path: str, value: object) -> None:
    out = body(DIALECT, prepared(), shadow(), json.dumps(put(WHOLE, path, value)).encode())
    assert CANARY.encode() not in out
    assert json.loads(out)["message"]["tool_plan"] == "I will look at Paris."


@pytest.mark.parametrize("kind", ["thinking", "text", "plan"])
def test_planted_values_of_a_stream_are_labels(balanced: Moderation, kind: str) -> None:
    rng = random.Random(kind)
    parts = list(pieces(CARRIED, rng))
    sent = [START, *(plan(*parts) if kind == "plan" else block(0, kind, *parts)), END]
    found = check_cuts(DIALECT, prepared(), balanced, events(sent), joined)
    assert list(found.values()) == [LABELLED]
    assert leaks(stream(DIALECT, prepared(), balanced, events(sent))) == []


def test_planted_values_of_a_call_are_labels(balanced: Moderation) -> None:
    arguments = json.dumps({"note": CARRIED, "card": 4111111111111111})
    sent = [START, *call(0, "look", *pieces(arguments, random.Random(3))), END]
    found = check_cuts(DIALECT, prepared(), balanced, events(sent), joined)
    assert json.loads(found["call 0"]) == {"note": LABELLED, "card": "[CREDIT_CARD]"}
    assert leaks(stream(DIALECT, prepared(), balanced, events(sent))) == []


def test_planted_values_of_a_source_are_labels(balanced: Moderation) -> None:
    source = {"type": "document", "id": CARRIED, "document": {"text": CARRIED}}
    sent = [START, *block(0, "text", "A town."), *cite(0, "town", 2, 6, sources=[source]), END]
    out = stream(DIALECT, prepared(), balanced, events(sent))
    [(_, citation)] = view_stream(out).citations
    assert citation["sources"][0]["document"] == {"text": LABELLED}
    assert citation["sources"][0]["id"] == LABELLED
    assert leaks(out) == []


def test_planted_values_of_a_body_are_labels(balanced: Moderation) -> None:
    document = put(put(WHOLE, "message.tool_plan", CARRIED), "message.content.0.thinking", CARRIED)
    document = put(document, "message.content.1.text", CARRIED)
    document = put(document, "message.tool_calls.0.function.arguments", json.dumps({"note": CARRIED}))
    document = put(document, "message.citations.0", {"start": 0, "end": len(CARRIED), "text": CARRIED, "sources": []})
    out = body(DIALECT, prepared(), balanced, json.dumps(document).encode())
    texts = view_body(out).texts
    assert [texts[name] for name in ("plan", "thinking 0", "text 1")] == [LABELLED] * 3
    assert json.loads(texts["call 0"]) == {"note": LABELLED}
    assert view_body(out).citations == []
    assert leaks(out) == []


@pytest.mark.parametrize("first", ["thinking", "text", "plan"])
@pytest.mark.parametrize("at", [1, 6, 12, 18])
def test_a_value_over_two_blocks_is_a_label(balanced: Moderation, first: str, at: int) -> None:
    value = "ann.lee@example.com"
    head, tail = "Write to " + value[:at], value[at:] + " about the matter, and then some more words."
    before = plan(head) if first == "plan" else block(0, first, head)
    out = stream(DIALECT, prepared(), balanced, events([START, *before, *block(1, "text", tail), END]))
    text = "".join(joined(out).values())
    assert "[EMAIL_ADDRESS]" in text
    assert not any(value[cut : cut + 5] in text for cut in range(len(value) - 4))
    whole = put(WHOLE, "message.tool_plan" if first == "plan" else "message.content.0", head)
    if first != "plan":
        whole = put(whole, "message.content.0", {"type": first, first: head})
    else:
        whole = put(whole, "message.content", [{"type": "text", "text": ""}] * 2)
    whole = put(put(whole, "message.content.1.text", tail), "message.citations", [])
    told = view_body(body(DIALECT, prepared(), balanced, json.dumps(whole).encode())).texts
    assert "[EMAIL_ADDRESS]" in "".join(told.values())


# --- Indexes, calls, citations -----------------------------------------------------------------------------------


def test_calls_of_other_tools_leave_no_gap(altering_nothing: Moderation) -> None:
    sent = [START, *call(0, CANARY, '{"a": 1}'), *call(1, "look", ARGUMENTS), END]
    out = stream(DIALECT, prepared(), altering_nothing, events(sent))
    seen = view_stream(out)
    assert CANARY.encode() not in out
    assert (seen.calls, seen.texts) == ({0: ("look_1", "look")}, {"call 0": ARGUMENTS})
    orphan = events([START, event("tool-call-delta", 4, tool_calls={"function": {"arguments": CANARY}}), END])
    assert CANARY.encode() not in stream(DIALECT, prepared(), altering_nothing, orphan)


def test_blocks_are_numbered_anew(altering_nothing: Moderation) -> None:
    sent = [START, *block(3, "thinking", "a b"), *block(7, "text", "c d"), *cite(5, "c", 0, 1, content_index=7), END]
    seen = view_stream(stream(DIALECT, prepared(), altering_nothing, events(sent)))
    assert seen.texts == {"thinking 0": "a b", "text 1": "c d"}
    assert [(index, each["content_index"]) for index, each in seen.citations] == [(0, 1)]


def test_pieces_without_a_beginning_begin_a_block(altering_nothing: Moderation) -> None:
    sent = [
        event("content-delta", content={"thinking": "so "}),
        event("content-delta", content={"thinking": "so"}),
        event("content-delta", content={"text": "yes"}),
        event("content-delta", content={"thinking": "hm", "text": "no"}),
        END,
    ]
    out = stream(DIALECT, prepared(), altering_nothing, events(sent, named=False))
    assert joined(out) == {"thinking 0": "so so", "text 1": "yes", "thinking 2": "hm", "text 3": "no"}
    kinds = [each["type"] for each in documents(out)]
    assert kinds.count("content-start") == kinds.count("content-end") == 4


@pytest.mark.parametrize("about", [{"content_index": 0}, {}], ids=["with its block", "without"])
def test_a_citation_follows_its_text(balanced: Moderation, about: dict[str, object]) -> None:
    told = "Ask ann.lee@example.com in the town of Paris."
    sent = [START, *block(0, "text", *pieces(told, random.Random(2)))[:-1]]
    for number, word in enumerate(("Ask", "ann.lee@example.com", "Paris")):
        start = told.index(word)
        sent += cite(number, word, start, start + len(word), **about)
    sent += [event("content-end", 0), END]
    seen = view_stream(stream(DIALECT, prepared(), balanced, events(sent)))
    assert seen.texts == {"text 0": "Ask [EMAIL_ADDRESS] in the town of Paris."}
    assert [(index, each["text"]) for index, each in seen.citations] == [(0, "Ask")]
    assert all(each["end"] <= len(told) for _, each in seen.citations)
    untouched = view_stream(stream(DIALECT, prepared(), shadow(balanced[1]), events(sent)))
    assert [each["text"] for _, each in untouched.citations] == ["Ask", "ann.lee@example.com", "Paris"]


@pytest.mark.parametrize(("kind", "start"), [("PLAN", 7), ("THINKING_CONTENT", 0)])
def test_citations_of_reasoning(altering_nothing: Moderation, kind: str, start: int) -> None:
    word = "look" if kind == "PLAN" else "Paris"
    extra = cite(0, word, start, start + len(word), type=kind, content_index=0)
    seen = view_stream(stream(DIALECT, prepared(), altering_nothing, events([*TALK[:-1], *extra, END])))
    assert [each["text"] for _, each in seen.citations] == ["town", "large", word]


@pytest.mark.parametrize("path", ["start", "end", "text", "sources", "type"])
def test_a_citation_without_a_field_harms_nothing(path: str) -> None:
    [citation, end] = cite(0, "town", 4, 8, content_index=1)
    del citation["delta"]["message"]["citations"][path]
    seen = view_stream(stream(DIALECT, prepared(), shadow(), events([*TALK[:-5], citation, end, END])))
    assert len(seen.citations) == (path in ("sources", "type"))


# --- Cuts and faults ---------------------------------------------------------------------------------------------

MAIL = "so ann.lee@example.com is it"
CUTS = {
    "text": (block(0, "text", MAIL, " and more"), {"text 0": "so " + CUT_NOTICE}),
    "thinking": (block(0, "thinking", MAIL), {"thinking 0": "so ", "text 1": CUT_NOTICE}),
    "plan": (plan(MAIL), {"plan": "so ", "text 0": CUT_NOTICE}),
    "call": (call(0, "look", json.dumps({"to": MAIL})), {"call 0": '{"to": "so ', "text 0": CUT_NOTICE}),
    "source": (
        [*block(0, "text", "A town."), *cite(0, "town", 2, 6, sources=[{"type": "tool", "tool_output": {"a": MAIL}}])],
        {"text 0": "A " + CUT_NOTICE},
    ),
}


@pytest.mark.parametrize("kind", CUTS)
def test_a_block_ends_the_stream_with_a_notice(kind: str) -> None:
    sent, expected = CUTS[kind]
    data = events([START, *sent, *block(9, "text", CANARY), END])
    out = stream(DIALECT, prepared(), policy("block"), data)
    seen = view_stream(out)
    assert (seen.texts, seen.finish, seen.error) == (expected, "COMPLETE", None)
    assert CANARY.encode() not in out
    kinds = [each["type"] for each in documents(out)]
    assert kinds.count("content-start") == kinds.count("content-end")
    assert check_cuts(DIALECT, prepared(), policy("block"), data, joined) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("message.tool_plan", {"plan": "so ", "text 0": CUT_NOTICE}),
        ("message.content.0.thinking", {"plan": "I will look at Paris.", "thinking 0": "so ", "text 1": CUT_NOTICE}),
    ],
)
def test_a_block_ends_a_body_with_a_notice(path: str, expected: dict[str, str]) -> None:
    out = body(DIALECT, prepared(), policy("block"), json.dumps(put(WHOLE, path, MAIL)).encode())
    seen = view_body(out)
    assert (seen.texts, seen.calls, seen.citations) == (expected, {}, [])
    assert b"large" not in out


def test_withheld_text_leaves_the_rest() -> None:
    sent = [START, *block(0, "thinking", MAIL), *block(1, "text", "All is well.", " Good."), END]
    seen = view_stream(stream(DIALECT, prepared(), policy("withhold"), events(sent)))
    assert seen.texts["thinking 0"].startswith("so ")
    assert "example" not in seen.texts["thinking 0"]
    assert (seen.texts["text 1"], seen.finish, seen.usage) == ("All is well. Good.", "COMPLETE", USAGE)
    whole = put(WHOLE, "message.content.0.thinking", MAIL)
    told = view_body(body(DIALECT, prepared(), policy("withhold"), json.dumps(whole).encode())).texts
    assert told["text 1"] == "The town is large."
    assert "example" not in told["thinking 0"]


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"data: {nonsense\n\n", "The upstream's stream could not be read."),
        (b'data: {"type": "content-delta", "delta": {"message": {"content": {"text": 7}}}}\n\n', "wrong type"),
        (events([put(END, "delta.error", CANARY)]), "The upstream reported an error."),
        (events([put(END, "delta.finish_reason", "ERROR")]), "The upstream reported an error."),
        (b"", "ended the stream early"),
        (b"data: [DONE]\n\n", "ended the stream early"),
    ],
)
def test_a_fault_is_told_in_the_last_event(balanced: Moderation, last: bytes, error: str) -> None:
    data = events([START, *block(0, "text", "so it goes on and on. ", "4111")[:-1]]) + last
    for size in (1, 10**9):
        out = stream(DIALECT, prepared(), balanced, data, size=size)
        seen = view_stream(out)
        assert error in str(seen.error)
        assert (seen.finish, seen.texts) == ("ERROR", {"text 0": "so it goes on and on. "})
        assert CANARY.encode() not in out


def test_timeouts_keep_their_reason() -> None:
    sent = [START, *block(0, "text", "so"), put(END, "delta.finish_reason", "TIMEOUT")]
    assert view_stream(stream(DIALECT, prepared(), shadow(), events(sent))).finish == "TIMEOUT"


def test_errors_have_the_dialects_shape() -> None:
    assert json.loads(DIALECT.error(ErrorKind.NOT_FOUND, "No.")) == {"message": "No.", "code": "not_found"}
    assert json.loads(DIALECT.upstream_error(429, b'{"id": "a", "message": "secret words"}')) == {
        "message": "The upstream answered with status 429."
    }


# --- Requests and the gateway ------------------------------------------------------------------------------------


def test_requests() -> None:
    assert not prepared().stream
    assert prepared(stream=True).stream
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    request = prepared(messages=messages, logprobs=True)
    assert (request.facts.system_prompts, request.facts.user) == (("be kind",), "hello")
    assert request.tools == {"look"}
    assert "logprobs" not in request.document
    for wrong in ({"raw_prompting": True}, {"messages": "x"}, {"stream": "yes"}, {"tools": [7]}):
        with pytest.raises(Refused):
            prepared(**wrong)


@pytest.mark.parametrize("path", ["/v1/chat", "/v2/embed", "/v2/chat/x"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        Router([DIALECT]).find("POST", path)
    assert refused.value.kind is ErrorKind.UNSUPPORTED


async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    told = [
        START,
        *block(0, "thinking", "Ask ann.lee", "@example.com first. "),
        *block(1, "text", "Card 4111 1111 1111 1111"),
    ]

    async def handler(request: web.Request) -> web.StreamResponse:
        if json.loads(upstream.bodies[-1]).get("stream"):
            return web.Response(body=events([*told, END]), content_type="text/event-stream")
        return web.json_response(put(WHOLE, "message.content.1.text", "Card 4111 1111 1111 1111"))

    upstream.handler = handler
    url = (await make_proxy()).url
    seen = await asyncio.to_thread(view_stream, None, url)
    assert seen.texts == {"thinking 0": "Ask [EMAIL_ADDRESS] first. ", "text 1": "Card [CREDIT_CARD]"}
    assert (seen.finish, seen.usage) == ("COMPLETE", USAGE)
    whole = await asyncio.to_thread(view_body, None, url)
    assert whole.texts["text 1"] == "Card [CREDIT_CARD]"
    assert set(upstream.paths) == {"/v2/chat"}


async def test_an_upstreams_error_reaches_the_sdk_without_its_text(
    upstream: Upstream, make_proxy: ProxyFactory
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": CANARY}, status=401)

    upstream.handler = handler
    url = (await make_proxy()).url
    with pytest.raises(cohere.UnauthorizedError) as raised:
        await asyncio.to_thread(view_body, None, url)
    assert raised.value.body == {"message": "The upstream answered with status 401."}
