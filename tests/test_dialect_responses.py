"""OpenAI Responses: streams and whole responses as servers write them, requests, and what the official SDK makes of it.

Recordings of servers lie outside the repository; without them the tests that read them are skipped.
"""

import copy
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, Moderation, ask, body, exchange, policy, shadow, spellings, spoil, stream
from planted import PLANTED, carried
from responses_kit import (
    BUILT_IN,
    FIXED,
    STREAMED,
    Field,
    coherent,
    documents,
    item_of,
    sdk,
    see,
    server,
    sse,
    whole_response,
)

from cotguard.dialects.contract import ErrorKind, Prepared, Refused, UpstreamFault
from cotguard.dialects.responses.dialect import Responses
from cotguard.dialects.routes import Router

DIALECT = Responses()
MESSAGE, REFUSAL, REASONING, SUMMARY, FUNCTION = STREAMED[:5]
TOOLS = [{"type": "function", "name": "send"}, *BUILT_IN]
MAIL = "ann.lee@example.com"

CARRIED = " ".join(map(carried, PLANTED)) + "\n"
EXPECTED = " ".join(each.carrier.format(f"[{each.entity}]") for each in PLANTED) + "\n"


def prepared(**fields: object) -> Prepared:
    return ask(DIALECT, "create", {"model": "m", "input": "x", "stream": True, "tools": TOOLS, **fields})


def moderated(events: Sequence[Mapping[str, Any]], moderation: Moderation, size: int = 10**9) -> list[dict[str, Any]]:
    found = documents(stream(DIALECT, prepared(), moderation, sse(events), size=size))
    coherent(found)
    return found


def deltas(events: Sequence[Mapping[str, Any]], name: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == f"{name}.delta")


def placed(field: Field, text: str) -> str:
    return json.dumps({"note": text}) if field.form == "json" else text


def found_at(item: Mapping[str, Any], field: Field) -> str:
    value: Any = item
    for step in field.path:
        value = value[step]
    assert isinstance(value, str)
    if field.form == "json":
        value = json.loads(value)["note"]
        assert isinstance(value, str)
    return value


def named(fields: Sequence[Field]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", [pytest.param(field, id=field.name) for field in fields])


# Planted values.


@named(STREAMED)
@pytest.mark.parametrize("only", ["", "done", "item", "response"])
def test_planted_values_are_labelled_in_streamed_texts(field: Field, only: str, balanced: Moderation) -> None:
    events = moderated(server((field, placed(field, CARRIED)), only=only), balanced, 997)
    joined = deltas(events, field.event)
    assert (json.loads(joined)["note"] if field.form == "json" else joined) == EXPECTED
    assert found_at(events[-1]["response"]["output"][0], field) == EXPECTED


@named(FIXED)
@pytest.mark.parametrize("only", ["", "response"])
def test_planted_values_are_labelled_in_other_texts(field: Field, only: str, balanced: Moderation) -> None:
    events = moderated(server((field, placed(field, CARRIED)), only=only), balanced)
    assert found_at(events[-1]["response"]["output"][0], field) == EXPECTED
    assert found_at(events[-2]["item"], field) == EXPECTED


@named([*STREAMED, *FIXED])
def test_planted_values_are_labelled_in_whole_responses(field: Field, balanced: Moderation) -> None:
    response = whole_response(item_of(field, placed(field, CARRIED)))
    out = json.loads(body(DIALECT, prepared(), balanced, json.dumps(response).encode()))
    assert found_at(out["output"][0], field) == EXPECTED


@pytest.mark.parametrize("seed", range(6))
def test_values_across_parts_are_found(seed: int, balanced: Moderation) -> None:
    text = f"The mail is {MAIL} , she says, and now we know about it all."
    at = text.index(MAIL) + 3 + seed
    both = [(SUMMARY, text[:at]), (MESSAGE, text[at:])]
    for pair in (both, [(REASONING, text[:at]), (MESSAGE, text[at:])]):
        events = moderated(server(*pair, seed=seed), balanced)
        joined = "".join(event["delta"] for event in events if event["type"].endswith(".delta"))
        assert joined == text.replace(MAIL, "[EMAIL_ADDRESS]" * 2)  # a label on either side
    response = whole_response(*(item_of(field, each) for field, each in both))
    out = json.loads(body(DIALECT, prepared(), balanced, json.dumps(response).encode()))
    joined = out["output"][0]["summary"][0]["text"] + out["output"][1]["content"][0]["text"]
    assert joined == text.replace(MAIL, "[EMAIL_ADDRESS]" * 2)


def test_values_across_the_parts_of_one_message_are_found(balanced: Moderation) -> None:
    events = server((MESSAGE, "So write to ann.le"))
    second = [{**event, "content_index": 1} for event in events if "content_index" in event]
    for event in second:
        for name in ("delta", "text"):
            if name in event:
                event[name] = "e@example.com and tell her all about it, today" if name == "text" else ""
        if event["type"].endswith("part.done"):
            event["part"] = {"type": "output_text", "text": "e@example.com and tell her all about it, today"}
    found = moderated([*events[:-2], *second, *events[-2:]], balanced)
    assert deltas(found, MESSAGE.event) == "So write to [EMAIL_ADDRESS][EMAIL_ADDRESS] and tell her all about it, today"
    assert len(found[-1]["response"]["output"][0]["content"]) == 2


# Order, copies, numbers.

EVERYTHING = [(field, placed(field, f"To {MAIL} , he says.")) for field in (*STREAMED, *FIXED)]


@pytest.mark.parametrize("size", [1, 7, 61, 4093])
def test_cuts_change_nothing(size: int, balanced: Moderation) -> None:
    data = server(*EVERYTHING)
    whole = moderated(data, balanced)
    pieces = moderated(data, balanced, size)
    assert see(sse(pieces)).texts == see(sse(whole)).texts
    assert [event for event in pieces if not event["type"].endswith(".delta")][-1]["response"] == whole[-1]["response"]


def test_what_was_delivered_is_a_beginning_of_the_result(balanced: Moderation) -> None:
    data = sse(server((SUMMARY, CARRIED), (MESSAGE, CARRIED)))
    translator = DIALECT.stream(prepared(), exchange(balanced), "text/event-stream")
    assert translator is not None
    out = b""
    for at in range(0, len(data), 7919):
        out += translator.receive(data[at : at + 7919])
        for field in (SUMMARY, MESSAGE):
            assert EXPECTED.startswith(deltas(documents(out), field.event))
    assert translator.finished


@pytest.mark.parametrize("only", ["", "done", "item", "response"])
def test_nothing_changes_where_the_policy_decides_nothing(only: str, balanced: Moderation) -> None:
    data = server(*EVERYTHING, only=only)
    complete = server(*EVERYTHING)
    for moderation in (shadow(), shadow(balanced[1])):
        found = moderated(data, moderation)
        seen, original = see(sse(found)), see(sse(complete))
        assert seen.texts == original.texts
        assert seen.final == original.final
        if only == "":
            assert seen.kinds == original.kinds


def test_the_stream_helper_accumulates_what_is_delivered(balanced: Moderation) -> None:
    pairs = [(SUMMARY, f"Ask {MAIL} now"), (MESSAGE, f"I ask {MAIL} now"), (FUNCTION, json.dumps({"to": MAIL}))]
    for only in ("", "done", "item", "response"):
        out = stream(DIALECT, prepared(), balanced, sse(server(*pairs, only=only)))
        with sdk(out).responses.stream(model="m", input="x") as events:
            snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
            final = events.get_final_response()
        assert snapshots[-1] == final.output_text == "I ask [EMAIL_ADDRESS] now"
        assert final.usage is not None
        assert final.usage.total_tokens == 7


def test_items_without_rows_leave_no_gap(balanced: Moderation) -> None:
    image = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": CANARY}
    events = server((SUMMARY, "one"), (MESSAGE, "two"))
    for event in events:
        if event.get("output_index") == 1:
            event["output_index"] = 2
    added = [{"type": f"response.output_item.{verb}", "output_index": 1, "item": image} for verb in ("added", "done")]
    partial = {"type": "response.image_generation_call.partial_image", "output_index": 1, "partial_image_b64": CANARY}
    at = next(at for at, event in enumerate(events) if event.get("output_index") == 2)
    events[-1]["response"]["output"].insert(1, image)
    found = moderated([*events[:at], added[0], partial, added[1], *events[at:]], balanced)
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"]
    assert {event["output_index"] for event in found if "output_index" in event} == {0, 1}
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "shell_call", "apply_patch_call"])
def test_calls_of_tools_that_were_not_declared_are_dropped(kind: str, balanced: Moderation) -> None:
    field = next(field for field in STREAMED if field.item["type"] == kind)
    text = placed(field, CANARY)
    for only in ("", "done", "item", "response"):
        data = sse(server((field, text), (MESSAGE, "done"), only=only))
        out = documents(stream(DIALECT, prepared(tools=[{"type": "function", "name": "other"}]), balanced, data))
        coherent(out)
        assert [item["type"] for item in out[-1]["response"]["output"]] == ["message"]
        assert CANARY not in json.dumps(out)
    whole = whole_response(item_of(field, text), item_of(MESSAGE, "done"))
    found = json.loads(body(DIALECT, prepared(tools=[]), balanced, json.dumps(whole).encode()))
    assert [item["type"] for item in found["output"]] == ["message"]


def test_a_namespace_must_be_declared_too(balanced: Moderation) -> None:
    for space, kinds in ((CANARY, []), ("crm", ["function_call"])):
        item = {**item_of(FUNCTION, "{}"), "namespace": space}
        tools = [{"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "send"}]}]
        data = json.dumps(whole_response(item)).encode()
        found = json.loads(body(DIALECT, prepared(tools=tools), balanced, data))
        assert [each["type"] for each in found["output"]] == kinds


def test_a_call_that_changes_its_name_is_a_fault(balanced: Moderation) -> None:
    events = server((FUNCTION, "{}"))
    for event in events:
        if event["type"] == "response.output_item.done":
            event["item"] = {**event["item"], "name": "other"}
    found = documents(stream(DIALECT, prepared(), balanced, sse(events)))
    assert found[-1]["error"]["code"] == ErrorKind.UPSTREAM_INVALID


def test_events_of_vllm_keep_their_names(balanced: Moderation) -> None:
    events = server((REASONING, f"It is {MAIL} , so"), (MESSAGE, "Yes"))
    for event in events:
        if event.get("output_index") == 0:
            event["type"] = event["type"].replace("content_part", "reasoning_part")
    found = moderated(events, balanced)
    parts = [event for event in found if event["type"].startswith("response.reasoning_part.")]
    assert [event["part"]["text"] for event in parts] == ["", "It is [EMAIL_ADDRESS] , so"]


def test_a_whole_text_that_goes_on_behind_the_deltas_brings_the_rest(balanced: Moderation) -> None:
    text = f"It is {MAIL} , so write"
    for kept, expected in ((text, "It is [EMAIL_ADDRESS] , so write"), ("no" + text, "It is ann")):
        events = server((MESSAGE, "It is ann"))
        for event in events:
            if event["type"] == "response.output_text.done":
                event["text"] = kept
        found = moderated(events, balanced)
        assert deltas(found, MESSAGE.event) == expected
        assert found[-1]["response"]["output"][0]["content"][0]["text"] == expected


def test_done_at_the_end_and_what_follows_it_are_not_written(balanced: Moderation) -> None:
    data = sse(server((MESSAGE, "Hi"))) + b"data: [DONE]\n\n" + sse(server((MESSAGE, "again")))
    out = stream(DIALECT, prepared(), balanced, data)
    assert b"DONE" not in out
    assert documents(out)[-1]["type"] == "response.completed"
    assert deltas(documents(out), MESSAGE.event) == "Hi"


# Copies and unknown fields.

ANNOTATION = {"type": "url_citation", "title": CANARY, "url": CANARY, "start_index": 0, "end_index": 1}
ECHOED = ("instructions", "user", "prompt", "previous_response_id", "safety_identifier", "prompt_cache_key")
EXTRA: list[tuple[str, dict[str, Any]]] = [
    *((f"response.{name}", {name: CANARY}) for name in ECHOED),
    ("response.metadata", {"metadata": {"k": CANARY}}),
    ("response.tools", {"tools": [{"type": "function", "name": CANARY, "description": CANARY}]}),
    ("response.text", {"text": {"format": {"type": "json_schema", "name": CANARY, "schema": {"t": CANARY}}}}),
    ("response.conversation", {"conversation": {"id": CANARY}}),
    ("response.moderation", {"moderation": {"input": {"message": CANARY}}}),
    ("response.output_text", {"output_text": CANARY}),
    ("response.input_messages", {"input_messages": [CANARY], "output_messages": [CANARY]}),
    ("response.reasoning", {"reasoning": {"effort": CANARY, "summary": CANARY}}),
    ("response.tool_choice", {"tool_choice": CANARY}),
    ("response.status", {"status": CANARY}),
    ("response.incomplete_details", {"incomplete_details": {"reason": CANARY}}),
]


@pytest.mark.parametrize("extra", [pytest.param(extra, id=name) for name, extra in EXTRA])
def test_copies_in_a_response_vanish(extra: dict[str, Any], balanced: Moderation) -> None:
    events = server((MESSAGE, "Hi"))
    for event in events:
        if "response" in event:
            event["response"] = {**event["response"], **extra}
    found = moderated(events, balanced)
    assert CANARY not in json.dumps(found)
    assert see(sse(found)).final == see(sse(moderated(server((MESSAGE, "Hi")), balanced))).final or "status" in extra
    whole = whole_response(item_of(MESSAGE, "Hi"), **extra)
    assert CANARY.encode() not in body(DIALECT, prepared(), balanced, json.dumps(whole).encode())


UNKNOWN: list[dict[str, Any]] = [
    {"type": "response.output_text.annotation.added", "annotation": ANNOTATION, "content_index": 0},
    {"type": "response.audio.delta", "delta": CANARY},
    {"type": "response.audio.transcript.delta", "delta": CANARY},
    {"type": "response.shell_call_output_content.delta", "delta": {"stdout": CANARY}},
    {"type": "response.shell_call_output_content.done", "output": [{"stdout": CANARY}]},
    {"type": "response.image_generation_call.partial_image", "partial_image_b64": CANARY},
    {"type": "response.steer.created", "steer": {"input": CANARY}},
    {"type": "response.output_text.new", "text": CANARY},
    {"type": "response.output_item.new", "item": {"type": "message", "content": CANARY}},
    {"type": "response.content_part.new", "part": {"type": "output_text", "text": CANARY}},
    {"type": "response.refusal.delta", "delta": CANARY, "content_index": 0},
    {"type": "response.function_call_arguments.delta", "delta": CANARY},
    {"type": "response.web_search_call.searching", "query": CANARY, "item_id": CANARY},
    {"type": CANARY, "delta": CANARY},
    {"delta": CANARY},
]


@pytest.mark.parametrize("event", [pytest.param(event, id=str(event.get("type"))) for event in UNKNOWN])
def test_unknown_events_vanish(event: dict[str, Any], balanced: Moderation) -> None:
    events = server((MESSAGE, "Hi"))
    at = next(at for at, each in enumerate(events) if each["type"] == "response.output_text.done")
    odd = f"data: {json.dumps({**event, 'output_index': 0})}\n\n".encode()
    out = stream(DIALECT, prepared(), balanced, sse(events[:at]) + odd + sse(events[at:]))
    assert CANARY.encode() not in out
    assert see(out).final == see(stream(DIALECT, prepared(), balanced, sse(events))).final


def test_an_event_whose_name_is_not_its_type_vanishes(balanced: Moderation) -> None:
    events = sse(server((MESSAGE, f"It says {CANARY} .")))
    lied = events.replace(b"event: response.output_text.delta", b"event: response.other")
    out = stream(DIALECT, prepared(), balanced, lied)
    assert see(out).final == see(stream(DIALECT, prepared(), balanced, events)).final


COPIES: list[dict[str, Any]] = [
    {"content": [{"type": "output_text", "text": "Hi", "annotations": [ANNOTATION]}]},
    {"content": [{"type": "output_text", "text": "Hi", "logprobs": [{"token": CANARY, "bytes": [*CANARY.encode()]}]}]},
    {"content": [{"type": "output_text", "text": "Hi"}, {"type": "output_audio", "transcript": CANARY}]},
    {"role": CANARY},
    {"phase": CANARY},
    {"status": CANARY},
    {"id": f"{CANARY}\n"},
    {"encrypted_content": CANARY},
]


@pytest.mark.parametrize("fields", COPIES, ids=lambda fields: next(iter(fields)))
def test_copies_in_an_item_vanish(fields: dict[str, Any], balanced: Moderation) -> None:
    for only in ("", "item", "response"):
        events = server((MESSAGE, "Hi"), only=only)
        for event in events:
            if event["type"] == "response.output_item.done":
                event["item"] = {**event["item"], **fields}
            elif event["type"] == "response.completed":
                event["response"]["output"] = [{**event["response"]["output"][0], **fields}]
        found = moderated(events, balanced)
        assert CANARY not in json.dumps(found)
        assert deltas(found, MESSAGE.event) == "Hi"
    whole = whole_response({**item_of(MESSAGE, "Hi"), **fields})
    assert CANARY.encode() not in body(DIALECT, prepared(), balanced, json.dumps(whole).encode())


def test_encrypted_reasoning_vanishes(balanced: Moderation) -> None:
    events = server((SUMMARY, "So"))
    for event in events:
        for item in (event.get("item"), *event.get("response", {}).get("output", ())):
            if item is not None:
                item["encrypted_content"] = CANARY
    assert CANARY not in json.dumps(moderated(events, balanced))


def test_unknown_keys_vanish(balanced: Moderation) -> None:
    opaque = [each.name for each in FIXED if each.path[-1] in ("title", "KEY") or each.path == ("error", "message")]
    values = [pair for pair in EVERYTHING if pair[0].name not in opaque]  # a JSON value may have any key
    spoiled: Any = spoil(server(*values))
    found, expected = moderated(spoiled, balanced), moderated(server(*values), balanced)
    assert CANARY not in json.dumps(found)
    assert found == expected
    whole = whole_response(*(item_of(field, text) for field, text in values))
    out = body(DIALECT, prepared(), balanced, json.dumps(spoil(whole)).encode())
    assert out == body(DIALECT, prepared(), balanced, json.dumps(whole).encode())


@cache
def against_canary(action: str) -> Moderation:
    return policy(action, CANARY)


@named([*STREAMED, *FIXED])
def test_a_known_value_is_in_no_field(field: Field) -> None:
    events = server((field, placed(field, f"so {CANARY} is it")))
    for moderation in map(against_canary, ("redact", "withhold", "block")):
        out = stream(DIALECT, prepared(), moderation, sse(events), size=61)
        assert not any(spelling in out for spelling in spellings(CANARY))
        joined = "".join(event["delta"] for event in documents(out) if event["type"].endswith(".delta"))
        assert CANARY not in joined


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("action", ["redact", "block"])
def test_nothing_leaks_from_streams_out_of_order(seed: int, action: str) -> None:
    chance = random.Random(seed)
    chosen = chance.sample([*STREAMED, *FIXED], 4)
    events = server(*((field, placed(field, f"so {CANARY} is it")) for field in chosen), seed=seed)
    middle = events[1:-1]
    for _ in range(chance.randint(1, 8)):
        at, other = chance.randrange(len(middle)), chance.randrange(len(middle))
        change = chance.choice(("drop", "repeat", "swap", "move"))
        if change == "drop":
            del middle[at]
        elif change == "repeat":
            middle.insert(other, middle[at])
        elif change == "swap":
            middle[at], middle[other] = middle[other], middle[at]
        else:
            middle[at] = {**middle[at], "output_index": chance.randrange(5)}
    out = stream(DIALECT, prepared(), against_canary(action), sse([events[0], *middle, events[-1]]), size=333)
    found = documents(out)
    coherent(found)
    assert found[-1]["type"] in ("response.completed", "response.incomplete", "error")
    assert not any(spelling in out for spelling in spellings(CANARY))
    assert all(CANARY not in text for text in see(out).texts.values())


# Blocks and faults.


def test_a_block_ends_what_is_open_and_the_response() -> None:
    pairs = [(SUMMARY, "I think"), (MESSAGE, f"so {MAIL} is it"), (FUNCTION, "{}")]
    found = moderated(server(*pairs), policy("block"))
    assert deltas(found, MESSAGE.event) == "so "
    kinds = [event["type"] for event in found]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    response = found[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert [item.get("status") for item in response["output"]] == [None, "incomplete"]
    assert response["output"][1]["content"][0]["text"] == "so "
    seen = see(sse(found))
    assert seen.final is not None
    assert seen.error is None
    with sdk(sse(found)).responses.stream(model="m", input="x") as events:
        assert [event.type for event in events][-1] == "response.incomplete"


@pytest.mark.parametrize("only", ["", "done", "item", "response"])
@named([STREAMED[4], STREAMED[8], FIXED[0], FIXED[19]])
def test_a_block_in_a_call_leaves_it_out(field: Field, only: str) -> None:
    found = moderated(server((MESSAGE, "I send it"), (field, placed(field, f"so {MAIL} is"))), policy("block"))
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["message"]
    assert found[-1]["type"] == "response.incomplete"
    ended = [event["item"]["type"] for event in found if event["type"] == "response.output_item.done"]
    assert ended == ["message"]


def test_a_block_at_the_first_character() -> None:
    found = moderated(server((MESSAGE, MAIL)), policy("block"))
    assert deltas(found, MESSAGE.event) == ""
    assert found[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


def test_withheld_text_has_its_notice_in_every_copy() -> None:
    found = moderated(server((SUMMARY, f"I ask {MAIL} now"), (MESSAGE, "All is well")), policy("withhold"))
    response = found[-1]["response"]
    assert found[-1]["type"] == "response.completed"
    assert response["output"][0]["summary"][0]["text"] == deltas(found, SUMMARY.event)
    assert MAIL not in json.dumps(found)
    assert response["output"][1]["content"][0]["text"] == "All is well"


@pytest.mark.parametrize(
    "tail",
    [
        b"data: {nonsense\n\n",
        b"data: 7\n\n",
        b'data: {"type":"response.output_text.delta"}\n\n',
        b"",
        b"data: \xff\n\n",
    ],
)
def test_a_fault_ends_the_stream_with_an_error(tail: bytes, balanced: Moderation) -> None:
    events = server((MESSAGE, "so it goes on and on, she says. 4111"))
    at = next(at for at, event in enumerate(events) if event["type"] == "response.output_text.done")
    out = stream(DIALECT, prepared(), balanced, sse(events[:at]) + tail)
    found = documents(out)
    coherent(found)
    assert deltas(found, MESSAGE.event) == "so it goes on and on, she says. "
    assert found[-1]["type"] == "error"
    kind = ErrorKind.UPSTREAM_INVALID if tail else ErrorKind.UPSTREAM_INTERRUPTED
    assert see(out).error == found[-1]["error"]["code"] == kind


WRONG: list[dict[str, Any]] = [
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": {"text": CANARY}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": CANARY, "delta": CANARY},
    {"type": "response.output_text.delta", "output_index": True, "content_index": 0, "delta": CANARY},
    {"type": "response.output_text.delta", "output_index": 10**6, "content_index": 0, "delta": CANARY},
    {"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": CANARY},
    {"type": "response.output_item.added", "output_index": 5, "item": [CANARY]},
    {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": CANARY}},
    {"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "summary": []}},
    {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": {"a": CANARY}}},
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {"type": "message", "content": {"type": "output_text", "text": CANARY}},
    },
    {"type": "response.completed", "response": CANARY},
    {"type": "response.completed", "response": {"output": CANARY}},
    {"type": "response.completed", "response": {"output": [CANARY]}},
]


@pytest.mark.parametrize("event", WRONG, ids=lambda event: json.dumps(event)[9:70])
def test_a_text_of_the_wrong_type_is_a_fault(event: dict[str, Any], balanced: Moderation) -> None:
    events = server((MESSAGE, "so it goes"))
    at = next(at for at, each in enumerate(events) if each["type"] == "response.output_text.done")
    out = stream(DIALECT, prepared(), balanced, sse([*events[:at], event]))
    assert CANARY.encode() not in out
    assert documents(out)[-1]["error"]["code"] == ErrorKind.UPSTREAM_INVALID


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": CANARY, "param": CANARY}},
        {"code": "insufficient_quota", "message": CANARY, "param": CANARY},
    ],
)
def test_errors_of_the_upstream_are_rebuilt(error: dict[str, Any], balanced: Moderation) -> None:
    out = stream(DIALECT, prepared(), balanced, sse([*server((MESSAGE, "so it goes"))[:5], {"type": "error", **error}]))
    assert CANARY.encode() not in out
    assert see(out).error == "insufficient_quota"


def test_a_failed_response_is_rebuilt(balanced: Moderation) -> None:
    error = {"code": "server_error", "message": CANARY, "misalignment": {"detailed_explanation": CANARY}}
    failed = whole_response(status="failed", error=error)
    events = [
        *server((SUMMARY, "One thing"), (MESSAGE, "and two"))[:-2],
        {"type": "response.failed", "response": failed},
    ]
    found = documents(stream(DIALECT, prepared(), balanced, sse(events)))
    coherent(found)
    assert CANARY not in json.dumps(found)
    assert found[-1]["type"] == "response.failed"
    response = found[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    whole = json.loads(body(DIALECT, prepared(), balanced, json.dumps(failed).encode()))
    assert (whole["status"], whole["error"]) == ("failed", response["error"])
    translator = DIALECT.stream(prepared(), exchange(balanced), "text/event-stream")
    assert translator is not None
    with pytest.raises(UpstreamFault) as raised:
        translator.receive(sse(events))
    assert raised.value.kind is ErrorKind.UPSTREAM_ERROR


def test_a_response_that_ran_out_of_tokens_is_incomplete(balanced: Moderation) -> None:
    events = server((MESSAGE, "so it goes"))
    details = {"reason": "max_output_tokens"}
    response = events[-1]["response"] | {"status": "incomplete", "incomplete_details": details}
    response["output"][0]["status"] = "incomplete"
    found = moderated([*events[:-2], {"type": "response.incomplete", "response": response}], balanced)
    assert found[-1]["response"]["incomplete_details"] == details
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "so it goes"


# Whole responses.


def test_a_block_in_a_whole_response() -> None:
    items = [item_of(SUMMARY, "I think"), item_of(MESSAGE, f"so {MAIL} is it"), item_of(FUNCTION, "{}")]
    data = body(DIALECT, prepared(), policy("block"), json.dumps(whole_response(*items)).encode())
    response = sdk(data, "application/json").responses.create(model="m", input="x")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == "so "
    assert json.loads(data)["output"][1]["status"] == "incomplete"


def test_a_whole_response_looks_the_same(balanced: Moderation) -> None:
    whole = whole_response(*(item_of(field, text) | {"id": "i"} for field, text in EVERYTHING))
    data = json.dumps(whole).encode()
    original = sdk(data, "application/json").responses.create(model="m", input="x")
    for moderation in (shadow(), shadow(balanced[1])):
        out = body(DIALECT, prepared(), moderation, data)
        response = sdk(out, "application/json").responses.create(model="m", input="x")
        assert response.model_dump(warnings=False) == original.model_dump(warnings=False)


def test_a_block_in_a_whole_response_leaves_calls_without_arguments_out() -> None:
    items = [item_of(MESSAGE, f"so {MAIL} is it"), item_of(FUNCTION, ""), item_of(FIXED[-2], "")]
    response = json.loads(body(DIALECT, prepared(), policy("block"), json.dumps(whole_response(*items)).encode()))
    assert [item["type"] for item in response["output"]] == ["message"]


NO_LIST = b'{"output": [{"type": "message", "content": {"type": "output_text", "text": "x"}}]}'


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b"nonsense", b'{"output": 7}', b'{"error": {"message": "no"}}', NO_LIST]
)
def test_a_body_that_is_no_response_is_a_fault(data: bytes, balanced: Moderation) -> None:
    with pytest.raises(UpstreamFault):
        body(DIALECT, prepared(), balanced, data)


# Requests and routes.


def test_requests() -> None:
    request = prepared(
        instructions="be kind",
        input=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "send", "arguments": "{}"},
        ],
        include=["reasoning.encrypted_content", "message.output_text.logprobs", "file_search_call.results"],
        top_logprobs=3,
        stream_options={"include_obfuscation": True, "other": True},
    )
    assert request.stream
    assert (request.facts.system_prompts, request.facts.user) == (("be kind", "be brief"), "hello")
    sent = request.document
    assert sent["store"] is False
    assert sent["include"] == ["file_search_call.results"]
    assert sent["stream_options"] == {"include_obfuscation": False}
    assert "top_logprobs" not in sent
    assert [item.get("id") for item in sent["input"]] == [None, None, "rs_2", None]
    assert prepared(input="hi").facts.user == "hi"
    assert not prepared(stream=False).stream
    spaced = prepared(tools=[{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "inner"}]}])
    assert "inner" in spaced.tools
    odd: list[Any] = [{"type": [], "role": {}, "content": 7}]
    assert prepared(input=odd, include=[{}], tools=[{"type": {}, "name": []}]).document["input"] == odd


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"conversation": "conv_1"},
        {"previous_response_id": "resp_1"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [7]},
        {"chat_template": "x"},
        {"stream": "yes"},
        {"input": 7},
        {"tools": [7]},
        {"stream_options": 7},
    ],
)
def test_requests_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as raised:
        prepared(**fields)
    assert raised.value.status == 400


def test_nothing_stored_is_asked_for_by_fields_that_say_so() -> None:
    assert prepared(background=False, conversation=None, previous_response_id=None).stream


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/responses", "/openai/v1/responses", "/openai/responses", "/api/v1/responses"]
)
def test_routes(path: str) -> None:
    router = Router([DIALECT])
    assert router.find("POST", path).route.action == "create"
    for method, below in itertools.product(("GET", "POST", "DELETE"), ("/resp_1", "/resp_1/input_items", "/compact")):
        with pytest.raises(Refused, match="not moderated"):
            router.find(method, path + below)
    with pytest.raises(Refused):
        router.find("GET", path)


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/conversations/conv_1/items"])
def test_conversations_are_refused(path: str) -> None:
    with pytest.raises(Refused, match="Conversations"):
        Router([DIALECT]).find("GET", path)


# Through the gateway.


async def test_the_sdk_reads_a_moderated_stream_from_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    pairs = [(SUMMARY, f"Ask {MAIL} now"), (MESSAGE, f"I ask {MAIL} now"), (FUNCTION, json.dumps({"to": MAIL}))]
    data = sse(server(*pairs))

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(data), 701):
            await response.write(data[at : at + 701])
        return response

    upstream.handler = answer
    proxy = await make_proxy()
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{proxy.url}/v1", max_retries=0) as client:
        tools: Any = [{"type": "function", "name": "send", "parameters": {}, "strict": False}]
        async with client.responses.stream(model="m", input="x", tools=tools) as events:
            kinds = [event.type async for event in events]
            final = await events.get_final_response()
    assert final.output_text == "I ask [EMAIL_ADDRESS] now"
    assert kinds[-1] == "response.completed"
    dumped = final.model_dump()
    assert dumped["output"][0]["summary"][0]["text"] == "Ask [EMAIL_ADDRESS] now"
    assert json.loads(dumped["output"][2]["arguments"]) == {"to": "[EMAIL_ADDRESS]"}
    assert upstream.paths == ["/v1/responses"]
    assert json.loads(upstream.bodies[0])["store"] is False


async def test_the_sdk_reads_a_moderated_response_from_the_gateway(
    upstream: Upstream, make_proxy: ProxyFactory
) -> None:
    whole = whole_response(item_of(SUMMARY, f"Ask {MAIL} now"), item_of(MESSAGE, f"I ask {MAIL} now"))

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(whole)

    upstream.handler = answer
    proxy = await make_proxy()
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{proxy.url}/v1", max_retries=0) as client:
        response = await client.responses.create(model="m", input="x")
        assert response.output_text == "I ask [EMAIL_ADDRESS] now"
        with pytest.raises(openai.NotFoundError, match="none are stored"):
            await client.responses.retrieve("resp_1")
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            await client.responses.create(model="m", input="x", previous_response_id="resp_1")


# Recordings.

SHARED = Path(__file__).resolve().parents[2] / "shared"
recorded = pytest.mark.skipif(not SHARED.is_dir(), reason="no recordings beside the repository")


def recordings() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Streams, each of one response, as their events; bodies as a single response."""
    manifest = SHARED / "fixtures" / "MANIFEST.tsv"
    for line in manifest.read_text("utf-8").splitlines()[1:] if manifest.is_file() else ():
        name, _, kind = line.split("\t")[:3]
        if not kind.startswith("responses-"):
            continue
        for path in sorted((SHARED / "fixtures").rglob(name)):
            data = path.read_bytes().replace(b"\r", b"")
            if path.suffix == ".json":
                yield path.name, [json.loads(data)]
                continue
            lines = (line.removeprefix(b"data:").strip() for line in data.split(b"\n"))
            events = [json.loads(line) for line in lines if line.startswith(b"{")]
            starts = [at for at, event in enumerate(events) if event["type"] == "response.created"] or [0]
            for start, end in itertools.pairwise([*starts, len(events)]):
                yield f"{path.name}:{start}", events[start:end]


RECORDINGS = list(recordings())
STREAMS = [pytest.param(events, id=name) for name, events in RECORDINGS if "type" in events[0]]
BODIES = [pytest.param(events[0], id=name) for name, events in RECORDINGS if "type" not in events[0]]


def declared(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools that the request must have declared."""
    items = [event["item"] for event in events if "item" in event]
    names = {item["name"] for item in items if item["type"] == "function_call"}
    return [*({"type": "function", "name": name} for name in sorted(names)), *BUILT_IN]


DROPPED = ("image_generation_call",)


def without_copies(value: Any) -> Any:
    """A response's output as the SDK has it, without the fields that are documented as stripped."""
    if isinstance(value, list):
        return [without_copies(each) for each in value]
    if isinstance(value, dict):
        stripped = ("annotations", "logprobs", "encrypted_content", "id", "sources")
        return {name: without_copies(each) for name, each in value.items() if name not in stripped}
    return value


def kept(output: Sequence[Mapping[str, Any]]) -> Any:
    return without_copies([item for item in output if item["type"] not in DROPPED])


def run(events: Sequence[Mapping[str, Any]], moderation: Moderation, size: int = 10**9) -> bytes:
    return stream(DIALECT, prepared(tools=declared(events)), moderation, sse(events), size=size)


@recorded
@pytest.mark.parametrize("events", STREAMS)
@pytest.mark.parametrize("detectors", ["none", "every"])
def test_a_recorded_stream_looks_the_same(events: list[dict[str, Any]], detectors: str, balanced: Moderation) -> None:
    original = see(sse(events))
    found = [see(run(events, shadow(balanced[1] if detectors == "every" else ()), size)) for size in (97, 10**9)]
    coherent(documents(run(events, shadow(balanced[1]))))
    added = [event for event in events if event["type"] == "response.output_item.added"]
    passed = [event["output_index"] for event in added if event["item"]["type"] not in DROPPED]
    dense = {index: position for position, index in enumerate(passed)}
    for seen in found:
        assert seen.error == original.error
        if original.final is None:
            continue
        assert seen.final is not None
        for (kind, index, part), text in original.texts.items():
            assert seen.texts[kind, dense[index], part].startswith(text)
        assert kept(seen.final["output"]) == kept(original.final["output"])
        for name in ("usage", "status", "incomplete_details", "model"):
            assert without_copies(seen.final[name]) == without_copies(original.final[name])


@recorded
@pytest.mark.parametrize("response", BODIES)
def test_a_recorded_body_looks_the_same(response: dict[str, Any], balanced: Moderation) -> None:
    data = json.dumps(response).encode()
    original = sdk(data, "application/json").responses.create(model="m", input="x").model_dump(warnings=False)
    for moderation in (shadow(), shadow(balanced[1])):
        out = body(DIALECT, prepared(), moderation, data)
        found = sdk(out, "application/json").responses.create(model="m", input="x").model_dump(warnings=False)
        assert kept(found["output"]) == kept(original["output"])
        assert found["usage"] == original["usage"]


def words(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Long words of strings, with the names of their fields."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from words(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from words(each, name)
    elif isinstance(value, str):
        for word in re.findall(r"[A-Za-z]{6,}", value):
            yield name, word


TEXTS = {"text", "refusal", "arguments", "input", "code", "diff", "commands", "query", "queries", "output"}


def canaries(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Two long words of a recording that stand in its texts and nowhere else."""
    items = [event["item"] for event in events if "item" in event and event["item"]["type"] not in DROPPED]
    found = list(words(items))
    structure = json.dumps([[name for name, _ in found], [word for name, word in found if name not in TEXTS]])
    known = (structure + json.dumps(documents(run(server((MESSAGE, "")), shadow())))).lower()
    return sorted({word for name, word in found if name in TEXTS and word.lower() not in known}, key=len)[-2:]


@cache
def against_canaries(action: str) -> Moderation:
    return policy(action, *{word for _, events in RECORDINGS if "type" in events[0] for word in canaries(events)})


@recorded
@pytest.mark.parametrize("events", STREAMS)
@pytest.mark.parametrize("action", ["redact", "withhold", "block"])
def test_a_word_of_a_recording_is_nowhere(events: list[dict[str, Any]], action: str) -> None:
    for size in (101, 10**9):
        out = run(events, against_canaries(action), size)
        joined = "".join(see(out).texts.values())
        coherent(documents(out))
        for word in canaries(events):
            assert word not in joined
            assert not any(spelling in out for spelling in spellings(word))


@recorded
@pytest.mark.parametrize("events", STREAMS)
def test_unknown_keys_in_a_recorded_stream_vanish(events: list[dict[str, Any]], balanced: Moderation) -> None:
    opaque = ("mcp_list_tools",)  # schemas of tools may have any key
    clean = [copy.deepcopy(event) for event in events if (event.get("item") or {"type": ""})["type"] not in opaque]
    if clean[-1].get("response", {}).get("output"):
        clean[-1]["response"]["output"] = [
            item for item in clean[-1]["response"]["output"] if item["type"] not in opaque
        ]
    spoiled: Any = spoil(clean)
    out = run(spoiled, balanced)
    assert CANARY.encode() not in out
    assert out == run(clean, balanced)


@recorded
def test_there_are_recordings_of_both_kinds() -> None:
    assert len(STREAMS) >= 20
    assert len(BODIES) >= 2


@recorded
@pytest.mark.parametrize("events", STREAMS[:8])
@pytest.mark.parametrize("seed", range(3))
def test_random_cuts_of_a_recording_change_nothing(
    events: list[dict[str, Any]], seed: int, balanced: Moderation
) -> None:
    data = sse(events)
    whole = see(run(events, balanced))
    chance = random.Random(seed)
    request = prepared(tools=declared(events))
    translator = DIALECT.stream(request, exchange(balanced, request.facts), "text/event-stream")
    assert translator is not None
    out = b""
    at = 0
    while at < len(data) and not translator.finished:
        size = chance.choice((1, 2, 3, 50, 400))
        try:
            out += translator.receive(data[at : at + size])
        except UpstreamFault as fault:
            out += translator.fail(fault.kind, fault.message)
        at += size
    seen = see(out)
    assert (seen.texts, seen.final, seen.error) == (whole.texts, whole.final, whole.error)
