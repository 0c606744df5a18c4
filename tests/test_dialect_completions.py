"""OpenAI's legacy completions, as the official SDK sees them; what is alike in all raw text has tests of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, ask, body, policy, shadow, spellings, spoil, stream
from openai.types import Completion
from raw_text_kit import events, sse

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import Prepared, Refused, Route
from cotguard.dialects.raw_text.completions import Completions
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]
DIALECT = Completions()
SHARED = Path(__file__).resolve().parents[2] / "shared"


def prepared(**fields: object) -> Prepared:
    return ask(DIALECT, "complete", {"model": "m", "prompt": "Go on:", "stream": True, **fields})


def chunk(text: str, index: int = 0, reason: str | None = None, **fields: object) -> dict[str, Any]:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
    return {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [choice], **fields}


def usage(tokens: int = 5, **fields: object) -> dict[str, Any]:
    counted = {"prompt_tokens": 2, "completion_tokens": tokens - 2, "total_tokens": tokens}
    return {**chunk(""), "choices": [], "usage": counted, **fields}


# --- What the SDK sees -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a user of the SDK has in the end."""

    texts: dict[int, str]
    reasons: dict[int, str | None]
    usage: object
    around: tuple[str, str, int]
    failed: bool = False


def sdk(data: bytes, *, streamed: bool = True) -> openai.OpenAI:
    content_type = "text/event-stream" if streamed else "application/json"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": content_type})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="none", base_url="http://upstream", http_client=client, max_retries=0)


def look(seen: Seen, part: Completion) -> None:
    seen.around = (part.id, part.model, part.created) if part.choices else seen.around
    seen.usage = part.usage.model_dump(exclude_none=True) if part.usage else seen.usage
    for choice in part.choices:
        seen.texts[choice.index] = seen.texts.get(choice.index, "") + choice.text
        seen.reasons[choice.index] = choice.finish_reason or seen.reasons.get(choice.index)


def view(data: bytes, *, streamed: bool = True) -> Seen:
    seen = Seen({}, {}, None, ("", "", 0))
    client = sdk(data, streamed=streamed).completions
    if not streamed:
        look(seen, client.create(model="m", prompt="x"))
        return seen
    try:
        for part in client.create(model="m", prompt="x", stream=True):
            look(seen, part)
    except openai.APIError:
        seen.failed = True
    return seen


def test_the_sdk_sees_the_same(balanced: Moderation) -> None:
    data = sse([chunk(" one"), chunk(" two"), chunk("", reason="length"), usage()], done=True)
    expected = Seen({0: " one two"}, {0: "length"}, usage()["usage"], ("cmpl-1", "m", 7))
    assert view(data) == expected
    request = prepared(stream_options={"include_usage": True})
    for moderation in (shadow(), shadow(balanced[1])):
        assert view(stream(DIALECT, request, moderation, data)) == expected
    whole = json.dumps({**chunk(" one two", reason="length"), "usage": usage()["usage"]}).encode()
    assert view(whole, streamed=False) == expected
    assert view(body(DIALECT, prepared(), shadow(), whole), streamed=False) == expected


def test_several_prompts_with_several_completions_each(balanced: Moderation) -> None:
    """As llama.cpp writes them, with `null` between the prompts; and the choices of one prompt interleaved."""
    request = prepared(prompt=["Hello", "Bye"], n=2)
    assert request.choices == 4
    chunks = [chunk(f"{index} is ann.lee@exa", index) for index in (1, 0)]
    chunks += [chunk("mple.com.", 0), chunk("mple.com.", 1), chunk("", 0, "stop"), chunk("", 1, "stop")]
    later = [chunk(f"{index} has 4111 1111 1111 1111.", index, "length") for index in (3, 2)]
    out = stream(DIALECT, request, balanced, sse([*chunks, None, *later], done=True), size=11)
    seen = view(out)
    expected = {0: "0 is [EMAIL_ADDRESS].", 1: "1 is [EMAIL_ADDRESS]."}
    assert seen.texts == expected | {2: "2 has [CREDIT_CARD].", 3: "3 has [CREDIT_CARD]."}
    assert seen.reasons == {0: "stop", 1: "stop", 2: "length", 3: "length"}


USAGES = {
    "behind the last choice": [chunk("a b"), chunk("", reason="stop"), usage()],
    "with the finish reason": [chunk("a b"), chunk("", reason="stop", usage=usage()["usage"])],
    "before the finish reason": [chunk("a b"), usage(), chunk("", reason="stop")],
    "all along": [chunk("a ", usage=usage(3)["usage"]), chunk("b", reason="stop", usage=usage()["usage"])],
    "null all along": [chunk("a ", usage=None), chunk("b", reason="stop", usage=None), usage()],
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_comes_where_it_may(name: str) -> None:
    out = stream(DIALECT, prepared(), shadow(), sse(USAGES[name], done=True))
    seen = view(out)
    assert (seen.texts, seen.reasons, seen.usage) == ({0: "a b"}, {0: "stop"}, usage()["usage"])
    assert not [each for each in events(out)[:-2] if "usage" in each]


def test_finish_reasons() -> None:
    for reason, expected in (("length", "length"), ("abort", "abort"), ("tool_calls", "stop"), (CANARY, "stop")):
        data = sse([chunk("a b", reason=reason)], done=True)
        assert view(stream(DIALECT, prepared(), shadow(), data)).reasons == {0: expected}
        whole = json.dumps(chunk("a b", reason=reason)).encode()
        assert view(body(DIALECT, prepared(), shadow(), whole), streamed=False).reasons == {0: expected}


def test_the_first_good_fields_are_those_of_the_response() -> None:
    """Azure's first chunk has no choice, and names that are empty."""
    data = sse([{**usage(), "id": "", "model": "", "usage": None}, chunk("a b", reason="stop")], done=True)
    seen = view(stream(DIALECT, prepared(), shadow(), data))
    assert seen.around == ("cmpl-1", "m", 7)
    out = stream(DIALECT, prepared(), shadow(), sse([chunk("a b", reason="stop", model="/my/model.gguf")], done=True))
    assert events(out)[0]["model"] == ""


def test_a_stream_without_its_mark_of_the_end() -> None:
    ended = sse([chunk("a b", reason="stop")])
    assert stream(DIALECT, prepared(), shadow(), ended).endswith(b"data: [DONE]\n\n")
    assert view(stream(DIALECT, prepared(), shadow(), sse([chunk("a b ")]))).failed
    assert view(stream(DIALECT, prepared(), shadow(), b"")).failed
    unended = view(stream(DIALECT, prepared(), shadow(), sse([chunk("a b")], done=True)))
    assert (unended.texts, unended.reasons, unended.failed) == ({0: "a b"}, {0: None}, False)


def test_the_sdk_sees_a_block() -> None:
    text = "so ann.lee@example.com is at home"
    seen = view(stream(DIALECT, prepared(), policy("block"), sse([chunk(text), chunk("", reason="stop")], done=True)))
    assert (seen.texts, seen.reasons, seen.failed) == ({0: "so "}, {0: "content_filter"}, False)
    whole = body(DIALECT, prepared(), policy("block"), json.dumps(chunk(text, reason="stop")).encode())
    seen = view(whole, streamed=False)
    assert (seen.texts, seen.reasons) == ({0: "so "}, {0: "content_filter"})


def test_the_sdk_raises_what_the_upstream_reports() -> None:
    error = {"message": CANARY, "type": "server_error", "param": CANARY, "code": "internal_error", "x": CANARY}
    for data in (
        sse([chunk("a b c "), {"error": error}], done=True),
        sse([chunk("a b c ")]) + b"event: error\ndata: {}\n\n",
    ):
        out = stream(DIALECT, prepared(), shadow(), data)
        assert CANARY.encode() not in out
        assert view(out).failed
    told = json.loads(DIALECT.upstream_error(429, json.dumps({"error": error}).encode()))["error"]
    expected = {"type": "server_error", "code": "internal_error", "param": None}
    assert told == {"message": "The upstream answered with status 429.", **expected}
    assert CANARY not in DIALECT.upstream_error(500, CANARY.encode()).decode()


# --- Requests ----------------------------------------------------------------------------------------------------


def test_what_a_request_asks_for() -> None:
    request = prepared(n=2, stop=["END"], stream_options={"include_usage": True, "include_obfuscation": True})
    assert (request.model, request.stream, request.choices, request.stops) == ("m", True, 2, frozenset({"END"}))
    assert (request.facts.system_prompts, request.facts.user, request.usage_requested) == ((), "Go on:", True)
    assert request.document["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert not prepared(stream=False).stream


PROMPTS: Sequence[tuple[object, int, str]] = [
    ("a", 1, "a"),
    (["a", "b"], 2, "a\nb"),
    ([1, 2, 3], 1, ""),
    ([[1, 2], [3]], 2, ""),
    ([], 1, ""),
    (None, 1, ""),
]


@pytest.mark.parametrize(("prompt", "count", "text"), PROMPTS)
def test_prompts(prompt: object, count: int, text: str) -> None:
    request = prepared(prompt=prompt)
    assert (request.choices, request.facts.user) == (count, text)
    assert request.document["prompt"] == prompt


def test_switches_that_widen_the_answer_are_stripped() -> None:
    copies = ("logprobs", "prompt_logprobs", "return_token_ids", "return_hidden_states", "n_probs", "return_tokens")
    switches = (*copies, "include_stop_str_in_output", "skip_special_tokens", "store", "metadata")
    sent = prepared(**dict.fromkeys(switches, 1), best_of=2, suffix="end").document
    assert sent == {"model": "m", "prompt": "Go on:", "stream": True, "best_of": 2, "suffix": "end"}


@pytest.mark.parametrize(
    "fields",
    [
        {"echo": True},
        {"prompt_embeds": "AAAA"},
        {"response_fields": ["content"]},
        {"api_base": "http://elsewhere"},
        {"n": 17},
        {"n": 0},
        {"prompt": ["a"] * 40, "n": 2},
        {"stream": "yes"},
        {"stream_options": 1},
    ],
)
def test_requests_that_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Refused):
        prepared(**fields)


def test_routes() -> None:
    query = frozenset({"api-version"})
    for path in ("/v1/completions", "/completions"):
        assert Route("POST", path, "complete", "/v1/completions", query) in DIALECT.routes
    azure = "/openai/deployments/{deployment}/completions"
    assert Route("POST", azure, "complete", azure, query) in DIALECT.routes


# --- The gateway -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory, streamed: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not streamed:
            return web.json_response(chunk("She is ann.lee@example.com.", reason="stop"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for each in (chunk("She is ann.l"), chunk("ee@example.com."), chunk("", reason="stop")):
            await response.write(sse([each]))
        await response.write(b"data: [DONE]\n\n")
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    async with openai.AsyncOpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0) as client:
        if streamed:
            parts = [part async for part in await client.completions.create(model="m", prompt="Who?", stream=True)]
        else:
            parts = [await client.completions.create(model="m", prompt="Who?", logprobs=3)]
    seen = Seen({}, {}, None, ("", "", 0))
    for part in parts:
        look(seen, part)
    assert (seen.texts, seen.reasons) == ({0: "She is [EMAIL_ADDRESS]."}, {0: "stop"})
    assert upstream.paths == ["/v1/completions"]
    assert "logprobs" not in json.loads(upstream.bodies[0])


# --- Recordings --------------------------------------------------------------------------------------------------

RECORDINGS = [
    pytest.param(path.read_bytes(), id=path.name)
    for path in sorted((SHARED / "fixtures").glob("openllmetry__openai__test_async_completion_streaming.*.sse"))
]
RECORDED = pytest.mark.parametrize("data", RECORDINGS)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no recordings beside the repository")
def test_there_are_recordings() -> None:
    assert len(RECORDINGS) == 3


@RECORDED
@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_recorded_stream_looks_the_same(data: bytes, balanced: Moderation, size: int) -> None:
    for moderation in (shadow(), shadow(balanced[1])):
        assert view(stream(DIALECT, prepared(), moderation, data, size=size)) == view(data)


@RECORDED
def test_a_word_of_a_recorded_stream_appears_nowhere(data: bytes) -> None:
    word = max(view(data).texts[0].split(), key=len)
    assert len(word) > 5
    for size in (1, 61, 10**9):
        out = stream(DIALECT, prepared(), policy("redact", word), data, size=size)
        assert not [each for each in spellings(word) if each in out]
        assert word not in view(out).texts[0]
        assert "[KNOWN_VALUE]" in view(out).texts[0]


@RECORDED
def test_unknown_keys_in_a_recorded_stream_vanish(data: bytes) -> None:
    spoiled = sse([spoil(each) for each in events(data)], done=True)
    out = stream(DIALECT, prepared(), shadow(), spoiled)
    assert CANARY.encode() not in out
    assert view(out) == view(data)
