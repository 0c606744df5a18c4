"""Google Gemini: streams in both forms and whole responses, the requests, and what the official SDK makes of them."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, ask, body, exchange, policy, shadow, spellings, spoil, stream
from genai_kit import Response, Seen, array, elements, events, read_body, read_stream
from google import genai
from google.genai import types
from planted import PLANTED, carried
from scripted import cut, streaming

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import ErrorKind, Prepared, Refused, UpstreamFault
from cotguard.dialects.gemini.call import PartialCall
from cotguard.dialects.gemini.dialect import Gemini
from cotguard.policy import Policy

DIALECT = Gemini()
MODEL = {"model": "gemini-3-pro"}
SSE, ARRAY = "text/event-stream", "application/json"
FORMS = pytest.mark.parametrize(("form", "content_type"), [(events, SSE), (array, ARRAY)], ids=["sse", "array"])
CONTENTS = [{"role": "user", "parts": [{"text": "x"}]}]
TOOLS = [{"functionDeclarations": [{"name": "send"}, {"name": "getWeather"}, {"name": "get_country"}]}]
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 9, "thoughtsTokenCount": 2}
CARRIED = " ".join(carried(planted) for planted in PLANTED)
LABELLED = " ".join(planted.carrier.format(f"[{planted.entity}]") for planted in PLANTED)
Moderation = tuple[Policy, tuple[Detector, ...]]
Form = Callable[[Sequence[object]], bytes]


def prepared(action: str = "stream", query: Mapping[str, str] | None = None, **fields: object) -> Prepared:
    return ask(DIALECT, action, {"contents": CONTENTS, "tools": TOOLS, **fields}, MODEL, query)


def part(**fields: object) -> dict[str, Any]:
    """A response of one part, as a stream has many."""
    return response({"content": {"parts": [fields], "role": "model"}})


def response(*candidates: dict[str, Any], **fields: object) -> dict[str, Any]:
    return {"candidates": list(candidates), "modelVersion": "gemini-3-pro", "responseId": "r-1", **fields}


def last(reason: str = "STOP", **fields: object) -> dict[str, Any]:
    content = {"parts": [{"text": "", "thoughtSignature": "c2lnbmF0dXJl"}], "role": "model"}
    return response({"content": content, "finishReason": reason, **fields}, usageMetadata=USAGE)


def moderated(
    documents: Sequence[object], moderation: Moderation, request: Prepared | None = None, form: Form = events
) -> bytes:
    content_type = SSE if form is events else ARRAY
    return stream(DIALECT, request or prepared(), moderation, form(documents), content_type)


# What a stream says.


@FORMS
@pytest.mark.parametrize("size", [1, 3, 7, 61, 10**9])
def test_texts_are_moderated_across_elements(balanced: Moderation, form: Form, content_type: str, size: int) -> None:
    data = form(
        [
            part(text="She is ann.le", thought=True),
            part(text="e@example.com, so", thought=True),
            part(text="Card 4111 1111 11"),
            part(text="11 1111 it is."),
            last(),
        ]
    )
    out = stream(DIALECT, prepared(), balanced, data, content_type, size)
    seen = read_stream(out, content_type)
    assert seen.candidates == {0: Seen("She is [EMAIL_ADDRESS], so", "Card [CREDIT_CARD] it is.", finish="STOP")}
    assert seen.usage is not None
    assert seen.usage["total_token_count"] == 9
    found = elements(out, content_type)
    assert {each["modelVersion"] for each in found} == {"gemini-3-pro"}
    assert b"signature" not in out.lower()
    assert b"c2lnbmF0dXJl" not in out


def joined(found: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Thoughts and answer of a stream's documents."""
    parts = [each for document in found for each in document["candidates"][0]["content"]["parts"]]
    return tuple(
        "".join(each["text"] for each in parts if each.get("thought", False) is kind) for kind in (True, False)
    )  # type: ignore[return-value]


@FORMS
def test_what_is_delivered_is_a_prefix_of_the_end(balanced: Moderation, form: Form, content_type: str) -> None:
    rng = random.Random(7)
    texts = [("thought", each) for each in cut(CARRIED, rng)] + [("answer", each) for each in cut(CARRIED, rng)]
    data = form(
        [part(text=text, **({"thought": True} if kind == "thought" else {})) for kind, text in texts] + [last()]
    )
    request = prepared()
    translator = DIALECT.stream(request, exchange(balanced, request.facts), content_type)
    assert translator is not None
    out, states = b"", []
    for at in range(0, len(data), 4099):
        out += translator.receive(data[at : at + 4099])
        states.append(joined(elements(out if content_type == SSE else (out or b"[") + b"]", content_type)))
    out += translator.end()
    thought, answer = joined(elements(out, content_type))
    assert (thought, answer) == (LABELLED, LABELLED)
    assert len(set(states)) > 20
    assert all(thought.startswith(said) and answer.startswith(then) for said, then in states)


@pytest.mark.parametrize("after", ["", " now and then.", " now and then, or so it says in the record that I have."])
def test_a_value_across_two_kinds_of_parts(balanced: Moderation, after: str) -> None:
    documents = [part(text="mail ann.lee@exam", thought=True), part(text="ple.com" + after), last()]
    whole = body(DIALECT, prepared("generate"), balanced, json.dumps(whole_of(documents)).encode())
    for seen in (read_stream(moderated(documents, balanced)).candidates[0], read_body(whole).candidates[0]):
        assert (seen.thought, seen.answer) == ("mail [EMAIL_ADDRESS]", "[EMAIL_ADDRESS]" + after)


def test_candidates_are_kept_apart(balanced: Moderation) -> None:
    def of(index: int, text: str) -> dict[str, Any]:
        return {"content": {"parts": [{"text": text}]}, "index": index}

    documents = [
        response(of(0, "mail ann.lee"), of(1, "card 4111 1111 ")),
        response(of(1, "1111 1111."), of(0, "@example.com.")),
        response({"finishReason": "STOP"}, usageMetadata=USAGE),
        response({"finishReason": "MAX_TOKENS", "index": 1}, usageMetadata=USAGE),
        {"usageMetadata": {**USAGE, "totalTokenCount": 11}},
    ]
    request = prepared(generationConfig={"candidateCount": 2})
    seen = read_stream(moderated(documents, balanced, request))
    assert seen.candidates == {
        0: Seen(answer="mail [EMAIL_ADDRESS].", finish="STOP"),
        1: Seen(answer="card [CREDIT_CARD].", finish="MAX_TOKENS"),
    }
    assert seen.usage is not None
    assert seen.usage["total_token_count"] == 11
    out = moderated([response(of(1, "x")), last()], balanced)
    assert elements(out)[-1]["error"]["details"][0]["reason"] == "UPSTREAM_INVALID"


def test_calls_are_moderated_as_values_and_in_their_place(balanced: Moderation) -> None:
    arguments = {"to": "ann.lee@example.com", "n": 4111111111111111, "deep": [{"203.0.113.77": None}]}
    documents = [
        part(text="I write "),
        part(functionCall={"name": "send", "args": arguments, "id": "c-1"}, thoughtSignature="AAAA"),
        part(functionCall={"name": "other", "args": {}}),
        part(functionCall={"name": "get_country"}),
        part(text="now."),
        last(),
    ]
    out = moderated(documents, balanced)
    seen = read_stream(out).candidates[0]
    moderated_ = {"to": "[EMAIL_ADDRESS]", "n": "[CREDIT_CARD]", "deep": [{"[IP_ADDRESS]": None}]}
    assert seen.calls == [("send", moderated_), ("get_country", None)]
    assert seen.answer == "I write now."
    kinds = [next(iter(each["candidates"][0]["content"]["parts"][0])) for each in elements(out)]
    assert kinds == ["text", "functionCall", "functionCall", "text", "text"]
    assert b"AAAA" not in out


PIECES: list[dict[str, Any]] = [
    {"name": "send", "willContinue": True},
    {
        "partialArgs": [{"jsonPath": "$.to[0].mail", "stringValue": "ann.lee@", "willContinue": True}],
        "willContinue": True,
    },
    {"partialArgs": [{"jsonPath": "$.to[0].mail", "stringValue": "example.com"}], "willContinue": True},
    {
        "partialArgs": [
            {"jsonPath": "$['card no']", "numberValue": 4111111111111111},
            {"jsonPath": "$.to[1]", "boolValue": True},
            {"jsonPath": '$["none"]', "nullValue": "NULL_VALUE"},
        ],
        "willContinue": True,
    },
    {},
]


@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_call_in_pieces_is_written_as_one(balanced: Moderation, size: int) -> None:
    data = events([part(functionCall=each) for each in (*PIECES, *PIECES)] + [last()])
    out = stream(DIALECT, prepared(), balanced, data, SSE, size)
    call = ("send", {"to": [{"mail": "[EMAIL_ADDRESS]"}, True], "card no": "[CREDIT_CARD]", "none": None})
    assert read_stream(out).candidates[0].calls == [call, call]
    assert b"partialArgs" not in out


def test_a_call_in_pieces_that_was_not_declared_or_did_not_end_is_dropped(balanced: Moderation) -> None:
    undeclared = [{**PIECES[0], "name": "other"}, *PIECES[1:]]
    out = moderated([part(functionCall=each) for each in undeclared + PIECES[:3]] + [last("MAX_TOKENS")], balanced)
    assert read_stream(out).candidates == {0: Seen(finish="MAX_TOKENS")}


@pytest.mark.parametrize(
    "pieces",
    [
        [{"stringValue": "x"}],
        [{"jsonPath": "a", "stringValue": "x"}],
        [{"jsonPath": "$", "stringValue": "x"}],
        [{"jsonPath": "$.a..b", "stringValue": "x"}],
        [{"jsonPath": "$.a[1]", "stringValue": "x"}],
        [{"jsonPath": "$[0]", "stringValue": "x"}],
        [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a.b", "stringValue": "y"}],
        [{"jsonPath": "$.a.b", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"}],
        [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "numberValue": 1}],
        [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "stringValue": "x"}],
        [{"jsonPath": "$.a"}],
        [{"jsonPath": "$" + ".a" * 100, "stringValue": "x"}],
        ["x"],
        "x",
    ],
)
def test_pieces_that_make_no_call_are_a_fault(balanced: Moderation, pieces: object) -> None:
    out = moderated([part(functionCall={"name": "send", "partialArgs": pieces}), last()], balanced)
    assert elements(out)[-1]["error"]["details"][0]["reason"] == "UPSTREAM_INVALID"


def test_calls_in_pieces_are_limited() -> None:
    call = PartialCall(max_chars=40)
    call.take({"name": "send"}, None, [{"jsonPath": "$.a", "stringValue": "x" * 30}])
    with pytest.raises(UpstreamFault):
        call.take({}, None, [{"jsonPath": "$.a", "stringValue": "x" * 10}])
    with pytest.raises(UpstreamFault):
        PartialCall(max_chars=40).take({}, {"a": "x" * 40}, None)
    with pytest.raises(UpstreamFault):
        call.take({"name": "other"}, None, None)


def test_code_and_its_output_are_moderated(balanced: Moderation) -> None:
    documents = [
        part(text="So: "),
        part(executableCode={"language": "PYTHON", "code": "print('ann.lee@example.com')", "id": "e1"}),
        part(codeExecutionResult={"outcome": "OUTCOME_OK", "output": "4111 1111 1111 1111\n", "id": "e1"}),
        part(text="done."),
        last(),
    ]
    expected: list[tuple[str | None, str | None]] = [
        ("PYTHON", "print('[EMAIL_ADDRESS]')"),
        ("OUTCOME_OK", "[CREDIT_CARD]\n"),
    ]
    for seen in (
        read_stream(moderated(documents, balanced)),
        read_body(body(DIALECT, prepared("generate"), balanced, json.dumps(whole_of(documents)).encode())),
    ):
        assert seen.candidates == {0: Seen(answer="So: done.", code=expected, finish="STOP")}


def whole_of(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole response that a stream of one candidate is."""
    parts = [each for document in documents for each in document["candidates"][0].get("content", {}).get("parts", ())]
    end = documents[-1]["candidates"][0]
    return {**documents[-1], "candidates": [{**end, "content": {"parts": parts, "role": "model"}}]}


# Every value, in every place.


@FORMS
@pytest.mark.parametrize("seed", range(3))
def test_planted_values_in_cuts(balanced: Moderation, form: Form, content_type: str, seed: int) -> None:
    rng = random.Random(seed)
    documents = [part(text=text, thought=True) for text in cut(CARRIED, rng)]
    documents += [part(text=text) for text in cut(CARRIED, rng)]
    pieces: list[dict[str, object]] = [{"name": "send", "willContinue": True}]
    pieces += [
        {"partialArgs": [{"jsonPath": "$.note", "stringValue": text}], "willContinue": True}
        for text in cut(CARRIED, rng)
    ]
    documents += [part(functionCall=each) for each in (*pieces, {})]
    documents += [
        part(functionCall={"name": "send", "args": {"deep": [CARRIED]}}),
        part(executableCode={"language": "PYTHON", "code": CARRIED}),
        part(codeExecutionResult={"outcome": "OUTCOME_OK", "output": CARRIED}),
    ]
    calls = [("send", {"note": LABELLED}), ("send", {"deep": [LABELLED]})]
    expected = Seen(LABELLED, LABELLED, calls, [("PYTHON", LABELLED), ("OUTCOME_OK", LABELLED)], "STOP")  # type: ignore[arg-type]
    out = stream(DIALECT, prepared(), balanced, form([*documents, last()]), content_type, [37, 1009, 10**9][seed])
    assert read_stream(out, content_type).candidates == {0: expected}


@pytest.mark.parametrize("seed", range(3))
def test_planted_values_in_a_whole_response(balanced: Moderation, seed: int) -> None:
    rng = random.Random(seed)
    documents = [part(text=text, thought=True) for text in cut(CARRIED, rng)]
    documents += [part(text=text) for text in cut(CARRIED, rng)]
    documents += [
        part(functionCall={"name": "send", "args": {"deep": [CARRIED]}}),
        part(functionCall={"name": "other", "args": {"deep": [CARRIED]}}),
        part(executableCode={"language": "PYTHON", "code": CARRIED}),
        part(codeExecutionResult={"outcome": "OUTCOME_OK", "output": CARRIED}),
    ]
    data = json.dumps(whole_of([*documents, last()])).encode()
    seen = read_body(body(DIALECT, prepared("generate"), balanced, data))
    code = [("PYTHON", LABELLED), ("OUTCOME_OK", LABELLED)]
    assert seen.candidates == {0: Seen(LABELLED, LABELLED, [("send", {"deep": [LABELLED]})], code, "STOP")}  # type: ignore[arg-type]
    assert seen.usage == {
        "prompt_token_count": 3,
        "candidates_token_count": 4,
        "total_token_count": 9,
        "thoughts_token_count": 2,
    }


CITED = {"startIndex": 0, "endIndex": 5, "uri": CANARY, "title": CANARY, "license": CANARY}
PART_FIELDS: list[dict[str, Any]] = [
    {"thoughtSignature": CANARY},
    {"inlineData": {"mimeType": "text/plain", "data": CANARY, "displayName": CANARY}},
    {"fileData": {"fileUri": CANARY, "mimeType": CANARY}},
    {"toolCall": {"id": "t", "toolType": "GOOGLE_SEARCH", "args": {"q": CANARY}}},
    {"toolResponse": {"id": "t", "toolType": "GOOGLE_SEARCH", "response": {"r": CANARY}}},
    {"functionResponse": {"name": "send", "response": {"r": CANARY}}},
    {"audioTranscription": {"text": CANARY, "words": [{"word": CANARY}]}},
    {"partMetadata": {"m": CANARY}},
    {"videoMetadata": {"startOffset": CANARY}},
    {"speechMetadata": {"speaker": CANARY}},
    {"functionCall": {"name": CANARY, "args": {"a": CANARY}}},
    {"functionCall": {"name": "send", "args": {}, "id": f"{CANARY} as a text", "x": CANARY}},
    {"executableCode": {"language": CANARY, "code": "1"}},
    {"codeExecutionResult": {"outcome": CANARY, "output": "1", "id": [CANARY]}},
    {"text": "1", "thought": CANARY, "type": CANARY},
    {"function_call": {"name": "send", "args": {"a": CANARY}}},
    {CANARY: "1"},
]
CANDIDATE_FIELDS: list[dict[str, Any]] = [
    {"finishMessage": CANARY},
    {"citationMetadata": {"citations": [CITED], "citationSources": [CITED]}},
    {
        "groundingMetadata": {
            "webSearchQueries": [CANARY],
            "retrievalQueries": [CANARY],
            "imageSearchQueries": [CANARY],
            "searchEntryPoint": {"renderedContent": CANARY, "sdkBlob": CANARY},
            "groundingChunks": [{"web": {"title": CANARY, "uri": CANARY}, "retrievedContext": {"text": CANARY}}],
            "groundingSupports": [{"segment": {"text": CANARY, "startIndex": 0, "endIndex": 4, "partIndex": 0}}],
        }
    },
    {"urlContextMetadata": {"urlMetadata": [{"retrievedUrl": CANARY, "urlRetrievalStatus": CANARY}]}},
    {
        "logprobsResult": {
            "chosenCandidates": [{"token": CANARY, "tokenId": 1, "logProbability": -0.1}],
            "topCandidates": [{"candidates": [{"token": CANARY, "tokenId": 1}]}],
        },
        "avgLogprobs": CANARY,
    },
    {"continuationToken": CANARY},
    {"safetyRatings": [{"category": CANARY, "probability": CANARY, "severity": CANARY, "blocked": CANARY}]},
    {"groundingAttributions": [{"content": {"parts": [{"text": CANARY}]}}]},
    {"tokenCount": CANARY, "output": CANARY, "finish_message": CANARY},
]
RESPONSE_FIELDS: list[dict[str, Any]] = [
    {"modelStatus": {"message": CANARY, "modelStage": CANARY}},
    {"promptFeedback": {"blockReasonMessage": CANARY, "safetyRatings": [{"category": CANARY}]}},
    {"usageMetadata": {"trafficType": CANARY, "promptTokensDetails": [{"modality": CANARY, "tokenCount": CANARY}]}},
    {"automaticFunctionCallingHistory": [{"parts": [{"text": CANARY}]}]},
    {"modelVersion": f"{CANARY}\n", "responseId": f"{CANARY} {CANARY}", "createTime": CANARY},
    {"parsed": CANARY, "text": CANARY, "sdkHttpResponse": {"body": CANARY}},
]


@pytest.mark.parametrize(
    "fields", [*PART_FIELDS, *CANDIDATE_FIELDS, *RESPONSE_FIELDS], ids=lambda each: next(iter(each))
)
def test_fields_that_carry_text_without_a_row_vanish(balanced: Moderation, fields: dict[str, Any]) -> None:
    def copy(document: dict[str, Any]) -> dict[str, Any]:
        candidate = document["candidates"][0]
        if fields in PART_FIELDS:
            content = {"role": CANARY, "parts": [fields, *candidate["content"]["parts"], fields]}
            return {**document, "candidates": [{**candidate, "content": content}]}
        if fields in CANDIDATE_FIELDS:
            return {**document, "candidates": [{**candidate, **fields}]}
        return {**document, **fields}

    documents = [copy(each) for each in (part(text="It is so.", thought=True), part(text="Yes."), last())]
    outs = [
        moderated(documents, balanced, form=events),
        moderated(documents, balanced, form=array),
        body(DIALECT, prepared("generate"), balanced, json.dumps(whole_of(documents)).encode()),
    ]
    for out, seen in zip(outs, (read_stream(outs[0]), read_stream(outs[1], ARRAY), read_body(outs[2])), strict=True):
        assert not any(spelling in out for spelling in spellings(CANARY))
        assert seen.candidates[0].thought == "It is so."
        assert seen.candidates[0].answer.replace("1", "") == "Yes."
        assert seen.candidates[0].finish == "STOP"


def test_parts_that_are_dropped_leave_nothing(balanced: Moderation) -> None:
    parts = [{"inlineData": {"data": "AAAA"}}, {"text": "x"}, {"toolCall": {"id": "x"}}, {"thought": True}]
    document = response({"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"})
    out = json.loads(body(DIALECT, prepared("generate"), balanced, json.dumps(document).encode()))
    assert out["candidates"][0]["content"]["parts"] == [{"text": "x"}]


@pytest.mark.parametrize("sent", ["CONTINUATION", "made up", 7, {"a": CANARY}])
def test_reasons_that_are_not_known_are_other(balanced: Moderation, sent: object) -> None:
    documents = [part(text="so"), last(sent)]  # type: ignore[arg-type]
    assert read_stream(moderated(documents, balanced)).candidates[0].finish == "OTHER"
    out = body(DIALECT, prepared("generate"), balanced, json.dumps(whole_of(documents)).encode())
    assert read_body(out).candidates[0].finish == "OTHER"


@pytest.mark.parametrize(("sent", "read"), [("SAFETY", "SAFETY"), ("made up", "OTHER")])
def test_a_prompt_that_was_refused(balanced: Moderation, sent: str, read: str) -> None:
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}]
    feedback = {"blockReason": sent, "blockReasonMessage": CANARY, "safetyRatings": ratings}
    document = {"promptFeedback": feedback, "usageMetadata": USAGE, "modelVersion": "m"}
    outs = [
        moderated([document], balanced),
        body(DIALECT, prepared("generate"), balanced, json.dumps(document).encode()),
    ]
    for seen in (read_stream(outs[0]), read_body(outs[1])):
        assert (seen.blocked, seen.candidates, seen.error) == (read, {}, None)
        assert seen.usage is not None
    assert not any(CANARY.encode() in out for out in outs)


# Blocks, withheld text, faults.


@FORMS
def test_a_block_ends_the_candidate(form: Form, content_type: str) -> None:
    documents = [part(text="so ann.lee@example.com is"), part(text=" more"), last()]
    for request in (prepared(), prepared(generationConfig={"candidateCount": 2})):
        out = moderated(documents, policy("block"), request, form)
        seen = read_stream(out, content_type)
        assert seen.candidates == {0: Seen(answer="so ", finish="SPII")}
        assert seen.error is None


def test_a_block_in_a_call_or_in_code_ends_the_candidate() -> None:
    for fields in (
        {"functionCall": {"name": "send", "args": {"to": "ann.lee@example.com"}}},
        {"executableCode": {"language": "PYTHON", "code": "ann.lee@example.com"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "ann.lee@example.com"}},
    ):
        documents = [part(text="I write "), part(**fields), part(text="now"), last()]
        seen = read_stream(moderated(documents, policy("block"))).candidates[0]
        assert "I write ".startswith(seen.answer)  # what is on hold is dropped
        assert (seen.calls, seen.code, seen.finish) == ([], [], "SPII")


def test_a_block_ends_a_whole_candidate_and_no_other() -> None:
    blocked = {"content": {"parts": [{"text": "so ann.lee@example.com is"}, {"functionCall": {"name": "send"}}]}}
    other = {"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP", "index": 1}
    request = prepared("generate", generationConfig={"candidateCount": 2})
    data = json.dumps(response({**blocked, "finishReason": "STOP"}, other)).encode()
    assert read_body(body(DIALECT, request, policy("block"), data)).candidates == {
        0: Seen(answer="so ", finish="SPII"),
        1: Seen(answer="fine", finish="STOP"),
    }
    all_of_it = json.dumps(response({"content": {"parts": [{"text": "ann.lee@example.com"}]}})).encode()
    assert read_body(body(DIALECT, request, policy("block"), all_of_it)).candidates == {0: Seen(finish="SPII")}


def test_withheld_text() -> None:
    documents = [part(text="so ann.lee@example.com is it, I think.", thought=True), part(text="Yes."), last()]
    for seen in (
        read_stream(moderated(documents, policy("withhold"))),
        read_body(body(DIALECT, prepared("generate"), policy("withhold"), json.dumps(whole_of(documents)).encode())),
    ):
        assert "ann.lee" not in seen.candidates[0].thought
        assert seen.candidates[0].answer == "Yes."
        assert seen.candidates[0].finish == "STOP"


@FORMS
def test_a_fault_ends_the_stream_with_an_error(balanced: Moderation, form: Form, content_type: str) -> None:
    documents = form([part(text="so it goes on and on. 4111")])
    broken = documents + b"data: {nonsense\r\n\r\n" if content_type == SSE else documents[:-1] + b",nonsense"
    out = stream(DIALECT, prepared(), balanced, broken, content_type)
    seen = read_stream(out, content_type)
    assert seen.candidates[0].answer == "so it goes on and on. "
    assert seen.error is not None
    assert (seen.error.code, seen.error.status) == (502, "UNAVAILABLE")
    assert b"nonsense" not in out
    if content_type == ARRAY:
        assert "error" in json.loads(out)[-1]


@FORMS
@pytest.mark.parametrize("end", [[], [part(text=" on.")]])
def test_a_stream_that_ends_early_is_a_fault(
    balanced: Moderation, form: Form, content_type: str, end: list[Any]
) -> None:
    out = stream(DIALECT, prepared(), balanced, form([part(text="so it goes"), *end]), content_type)
    seen = read_stream(out, content_type)
    assert seen.error is not None
    assert seen.error.details["error"]["details"][0]["reason"] == "UPSTREAM_INTERRUPTED"


@FORMS
@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [
        ({"code": 429, "message": CANARY, "status": "RESOURCE_EXHAUSTED"}, 429, "RESOURCE_EXHAUSTED"),
        ({"code": CANARY, "message": CANARY, "status": CANARY, "details": [{"x": CANARY}]}, 502, "UNKNOWN"),
        (CANARY, 502, "UNKNOWN"),
    ],
)
def test_an_upstream_error_keeps_its_code_and_loses_its_text(
    balanced: Moderation, form: Form, content_type: str, sent: object, code: int, status: str
) -> None:
    out = stream(DIALECT, prepared(), balanced, form([part(text="so it is. "), {"error": sent}]), content_type)
    seen = read_stream(out, content_type)
    assert seen.error is not None
    assert (seen.error.code, seen.error.status) == (code, status)
    assert CANARY.encode() not in out
    whole = json.dumps({"error": sent}).encode()
    assert json.loads(DIALECT.upstream_error(429, whole))["error"]["code"] == code
    assert json.loads(DIALECT.upstream_error(429, b"[" + whole + b"]"))[0]["error"]["status"] == status
    assert CANARY.encode() not in DIALECT.upstream_error(429, whole)
    assert json.loads(DIALECT.upstream_error(500, b"no JSON"))["error"]["message"].endswith("500.")
    with pytest.raises(UpstreamFault):
        body(DIALECT, prepared("generate"), balanced, whole)


def test_our_own_errors() -> None:
    for kind in ErrorKind:
        error = json.loads(DIALECT.error(kind, "why"))["error"]
        assert 400 <= error["code"] < 600
        assert error["details"][0]["reason"] == kind.value.upper()


@pytest.mark.parametrize(
    "document",
    [
        {"candidates": {}},
        {"candidates": ["x"]},
        response({"content": "x"}),
        response({"content": {"parts": {"text": "x"}}}),
        response({"content": {"parts": ["x"]}}),
        response({"content": {"parts": [{"text": ["x"]}]}}),
        response({"content": {"parts": [{"functionCall": "x"}]}}),
        response({"index": -1}),
        response({"index": "0"}),
        response({"index": 1}),
    ],
)
def test_other_shapes_are_faults(balanced: Moderation, document: object) -> None:
    out = moderated([document, last()], balanced)
    assert elements(out)[-1]["error"]["details"][0]["reason"] == "UPSTREAM_INVALID"
    with pytest.raises(UpstreamFault):
        body(DIALECT, prepared("generate"), balanced, json.dumps(document).encode())


def test_one_candidate_twice_in_a_whole_response_is_a_fault(balanced: Moderation) -> None:
    with pytest.raises(UpstreamFault):
        body(DIALECT, prepared("generate"), balanced, json.dumps(response({}, {})).encode())


def test_nothing_follows_the_end_of_a_candidate(balanced: Moderation) -> None:
    out = moderated([part(text="so"), last(), part(text=CANARY), last()], balanced)
    assert read_stream(out).candidates == {0: Seen(answer="so", finish="STOP")}
    assert CANARY.encode() not in out


def test_content_types_that_contradict_the_request_are_refused() -> None:
    moderation = policy("redact")
    for request, content_type in (
        (prepared("generate"), SSE),
        (prepared("generate"), ARRAY),
        (prepared(), "text/plain"),
        (prepared(), "application/x-ndjson"),
    ):
        assert DIALECT.stream(request, exchange(moderation, request.facts), content_type) is None


# Requests.


def test_requests() -> None:
    request = prepared(
        systemInstruction={"parts": [{"text": "be"}, {"text": "kind"}]},
        contents=[
            {"role": "user", "parts": [{"text": "first"}]},
            {"role": "model", "parts": [{"text": "second"}]},
            {"role": "user", "parts": [{"text": "third"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "send", "response": {}}}]},
        ],
    )
    assert (request.facts.system_prompts, request.facts.user) == (("be\nkind",), "third")
    assert (request.model, request.stream, request.choices) == ("gemini-3-pro", True, 1)
    assert request.tools == {"send", "getWeather", "get_country"}
    assert not prepared("generate").stream


def test_either_spelling_and_single_objects() -> None:
    request = ask(
        DIALECT,
        "generate",
        {
            "system_instruction": {"parts": {"text": "be kind"}},
            "contents": {"parts": {"text": "hello"}},
            "tools": {"function_declarations": {"name": "send"}},
            "generation_config": {"candidate_count": 3, "response_logprobs": True, "logprobs": 5, "top_p": 1},
            "store": True,
        },
        MODEL,
    )
    assert (request.facts.system_prompts, request.facts.user) == (("be kind",), "hello")
    assert request.tools == {"send"}
    assert request.choices == 3
    sent = request.document
    assert sent["generationConfig"] == {"candidateCount": 3, "topP": 1}
    assert sent["store"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"cachedContent": "cachedContents/x"},
        {"cached_content": "cachedContents/x"},
        {"continuationToken": "AAAA"},
        {"generationConfig": {"outputConfig": {"outputUriPrefix": "gs://x"}}},
        {"generationConfig": {"responseModalities": ["TEXT", "AUDIO"]}},
        {"generationConfig": {"response_modalities": "IMAGE"}},
        {"generationConfig": {"candidateCount": 100}},
        {"generationConfig": [1]},
        {"generationConfig": {}, "generation_config": {}},
        {"contents": ["x"]},
        {"tools": ["x"]},
    ],
)
def test_requests_that_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        ask(DIALECT, "stream", {"contents": CONTENTS, **fields}, MODEL)
    assert refused.value.status == 400


def test_paths_and_queries() -> None:
    assert prepared(query={"alt": "sse", "key": "k"}).stream
    assert prepared(query={"alt": "json"}).stream
    for action, query in (("stream", {"alt": "proto"}), ("generate", {"alt": "sse"})):
        with pytest.raises(Refused):
            prepared(action, query)
    for model in ("m:streamGenerateContent", "../m", "a/b"):
        with pytest.raises(Refused):
            ask(DIALECT, "generate", {"contents": CONTENTS}, {"model": model})


def test_lookups() -> None:
    counted = {"totalTokens": 7, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7, "tokens": [CANARY]}]}
    assert json.loads(DIALECT.lookup(json.dumps(counted).encode(), "count")) == {
        "totalTokens": 7,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
    }
    listed = {"models": [{"name": "models/m", "description": CANARY, "displayName": "A model", "thinking": True}]}
    assert json.loads(DIALECT.lookup(json.dumps(listed).encode(), "models")) == {
        "models": [{"name": "models/m", "displayName": "A model", "thinking": True}]
    }


# On sockets, with the official SDK.

VERTEX = "/v1/projects/p/locations/global/publishers/google/models/m:"


def client(url: str, version: str) -> genai.Client:
    return genai.Client(api_key="key-1", http_options=types.HttpOptions(base_url=url, api_version=version))


CONFIG = types.GenerateContentConfig(
    system_instruction="be kind",
    tools=[types.Tool(function_declarations=[types.FunctionDeclaration(name="send")])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_sdk_reads_a_stream(upstream: Upstream, make_proxy: ProxyFactory, version: str) -> None:
    documents = [part(text="Hm, ann.lee@exam", thought=True), part(text="ple.com, yes.", thought=True)]
    documents += [part(text="Card 4111 1111 1111 1111."), part(functionCall={"name": "send", "args": {}}), last()]
    upstream.handler = streaming([events([each]) for each in documents])
    proxy = await make_proxy()

    def read() -> Response:
        seen, api = Response(), client(proxy.url, version)
        for chunk in api.models.generate_content_stream(model="gemini-3-pro", contents="hello", config=CONFIG):
            seen.add(chunk)
        return seen

    seen = await asyncio.to_thread(read)
    expected = Seen("Hm, [EMAIL_ADDRESS], yes.", "Card [CREDIT_CARD].", [("send", {})], finish="STOP")
    assert seen.candidates == {0: expected}
    assert upstream.paths == [f"/{version}/models/gemini-3-pro:streamGenerateContent"]


async def test_the_sdk_reads_a_whole_response(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    keys = []

    async def handler(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("x-goog-api-key"))
        if request.path.endswith(":countTokens"):
            return web.json_response({"totalTokens": 7, "text": CANARY})
        return web.json_response(whole_of([part(text="mail ann.lee@exam"), part(text="ple.com"), last()]))

    upstream.handler = handler
    proxy = await make_proxy()
    api = client(proxy.url, "v1beta")
    response_ = await asyncio.to_thread(
        lambda: api.models.generate_content(model="gemini-3-pro", contents="hello", config=CONFIG)
    )
    assert response_.text == "mail [EMAIL_ADDRESS]"
    assert response_.candidates is not None
    assert response_.candidates[0].finish_reason is types.FinishReason.STOP
    counted = await asyncio.to_thread(lambda: api.models.count_tokens(model="gemini-3-pro", contents="hello"))
    assert counted.total_tokens == 7
    assert keys == ["key-1", "key-1"]


async def test_an_array_is_moderated_as_it_comes(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    documents = [part(text="mail ann.lee@exam"), part(text="ple.com and so on and on, until it ends."), last()]
    data = array(documents)
    upstream.handler = streaming(
        [data[at : at + 50] for at in range(0, len(data), 50)], {"Content-Type": "application/json; charset=UTF-8"}
    )
    proxy = await make_proxy()
    url = proxy.url + VERTEX + "streamGenerateContent?key=k"
    async with aiohttp.ClientSession() as session, session.post(url, json={"contents": CONTENTS}) as answer:
        assert answer.content_type == "application/json"
        found = read_stream(await answer.read(), ARRAY)
    assert found.candidates[0].answer == "mail [EMAIL_ADDRESS] and so on and on, until it ends."
    assert upstream.paths == [VERTEX + "streamGenerateContent"]


async def test_an_object_where_an_array_was_due_fails_closed(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(whole_of([part(text=CANARY), last()]))

    upstream.handler = handler
    proxy = await make_proxy()
    url = proxy.url + "/v1beta/models/m:streamGenerateContent"
    async with aiohttp.ClientSession() as session, session.post(url, json={"contents": CONTENTS}) as answer:
        found = await answer.json()
    assert [list(each) for each in found] == [["error"]]
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/m:computeTokens",
        "/v1beta/models/m:batchGenerateContent",
        "/v1beta/models/m:embedContent",
        "/v1beta/models/m:streamRawPredict",
        VERTEX + "rawPredict",
        VERTEX.replace("google", "meta") + "rawPredict",
        "/v1beta/cachedContents",
        "/v1beta/cachedContents/x",
        "/v1beta/files/x",
        "/v1beta/batches/x",
        "/upload/v1beta/files",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    ],
)
async def test_other_methods_are_refused_with_a_reason(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json={}) as answer:
        error = (await answer.json())["error"]
        assert answer.status == 404
    assert error["details"][0]["reason"] == "UNSUPPORTED"
    assert upstream.paths == []


# Recordings of real servers, which lie outside the repository.

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
RECORDED = {
    "ai__google-gemini-vertex__google-stream-tool-call-arguments.chunks.txt": [],
    "llm-gemini__google-gemini__test_prompt.0.json": ["focusing", "paramount", "Scoop"],
    "pydantic-ai__google-gemini__test_google_model_stream.0.sse": ["capital", "Paris"],
    "pydantic-ai__google-gemini__test_google_model_web_search_tool_stream.0.sse": ["Francisco", "partly", "humidity"],
    "pydantic-ai__google-gemini__test_google_streaming_tool_call_thought_signature.0.sse": [],
    "pydantic-ai__google-gemini__test_google_streaming_tool_call_thought_signature.1.sse": ["capital", "Mexico"],
}
RECORDED_BODY = "pydantic-ai__google-gemini__test_google_model_web_search_tool_stream.1.json"
recorded = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings beside the repository")
each_recording = pytest.mark.parametrize("name", RECORDED)


def recording(name: str) -> tuple[list[dict[str, Any]], str]:
    """The documents of a recorded stream, and the content type it came with."""
    data = (FIXTURES / name).read_bytes()
    if name.endswith(".txt"):
        return [json.loads(line) for line in data.splitlines() if line.strip()], SSE
    if name.endswith(".json"):
        return elements(data, ARRAY), ARRAY
    return elements(data), SSE


def as_sent(documents: Sequence[object], content_type: str) -> bytes:
    return (events if content_type == SSE else array)(documents)


def unaltered(original: Response) -> Response:
    """What a client sees without the fields that are dropped: calls in pieces are whole instead."""
    for seen in original.candidates.values():
        if ("getWeather", None) in seen.calls:
            seen.calls = [("getWeather", {"location": "Boston"}), ("getWeather", {"location": "San Francisco"})]
    return original


@recorded
@each_recording
@pytest.mark.parametrize("with_detectors", [False, True])
@pytest.mark.parametrize("size", [1, 97, 997, 10**9])
def test_a_recorded_stream_looks_the_same(balanced: Moderation, name: str, with_detectors: bool, size: int) -> None:
    documents, content_type = recording(name)
    data = as_sent(documents, content_type)
    if size == 1 and len(data) > 20_000:
        size = 13
    out = stream(DIALECT, prepared(), shadow(balanced[1] if with_detectors else ()), data, content_type, size)
    found = read_stream(out, content_type)
    assert found == unaltered(read_stream(data, content_type))
    assert found.candidates[0].finish == "STOP"


@recorded
def test_a_recorded_body_looks_the_same(balanced: Moderation) -> None:
    data = (FIXTURES / RECORDED_BODY).read_bytes()
    out = body(DIALECT, prepared("generate"), shadow(balanced[1]), data)
    assert read_body(out) == read_body(data)
    assert b"grounding" not in out


@recorded
@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in RECORDED.items() for word in words])
@pytest.mark.parametrize("size", [53, 10**9])
def test_a_word_of_a_recording_that_is_known_does_not_leave(name: str, word: str, size: int) -> None:
    documents, content_type = recording(name)
    data = as_sent(documents, content_type)
    before = read_stream(data, content_type).candidates[0]
    assert word in before.thought + before.answer
    out = stream(DIALECT, prepared(), policy("redact", word), data, content_type, size)
    seen = read_stream(out, content_type).candidates[0]
    assert word not in seen.thought + seen.answer
    assert not any(spelling in out for spelling in spellings(word))


@recorded
@pytest.mark.parametrize("word", ["Thunderstorms", "precipitation", "wunderground"])
def test_a_word_of_a_recorded_body_that_is_known_does_not_leave(word: str) -> None:
    data = (FIXTURES / RECORDED_BODY).read_bytes()
    assert word.encode() in data
    out = body(DIALECT, prepared("generate"), policy("redact", word), data)
    assert not any(spelling in out for spelling in spellings(word))


def spoiled(document: dict[str, Any]) -> object:
    """The document with the canary in every object but those that are a call's values."""
    found: Any = spoil(document)
    for candidate, original in zip(found["candidates"], document["candidates"], strict=True):
        for each, before in zip(
            candidate.get("content", {}).get("parts", ()), original.get("content", {}).get("parts", ()), strict=True
        ):
            if "args" in before.get("functionCall", {}):
                each["functionCall"]["args"] = before["functionCall"]["args"]
    return found


@recorded
@each_recording
def test_unknown_keys_in_a_recorded_stream_vanish(balanced: Moderation, name: str) -> None:
    documents, content_type = recording(name)
    outs = [
        stream(DIALECT, prepared(), balanced, as_sent(each, content_type), content_type)
        for each in (documents, [spoiled(document) for document in documents])
    ]
    assert outs[0] == outs[1]
    assert CANARY.encode() not in outs[1]


@recorded
def test_unknown_keys_in_a_recorded_body_vanish(balanced: Moderation) -> None:
    document = json.loads((FIXTURES / RECORDED_BODY).read_bytes())
    outs = [
        body(DIALECT, prepared("generate"), balanced, json.dumps(each).encode())
        for each in (document, spoiled(document))
    ]
    assert outs[0] == outs[1]
