"""End to end over loopback sockets: the real openai client, the real gateway, a scripted upstream."""

import asyncio
import gzip
import json
import random
from collections.abc import Iterator, Sequence

import aiohttp
import openai
import pytest
from aiohttp import web
from conftest import Handler, ProxyFactory, Upstream

from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.policy import parse
from cotguard.spans import Span

SECRETS = {
    "EMAIL_ADDRESS": "ann.lee@example.com",
    "PHONE_NUMBER": "+1 415 555 2671",
    "CREDIT_CARD": "4111 1111 1111 1111",
    "IBAN_CODE": "DE89 3704 0044 0532 0130 00",
    "US_SSN": "536-22-8145",
    "SECRET_API_KEY": "AKIAIOSFODNN7EXAMPLE",
    "IP_ADDRESS": "203.0.113.77",
    "MAC_ADDRESS": "3c:22:fb:9a:10:7e",
    "CRYPTO": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
}
MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


def carrier() -> str:
    return " ".join(f"The record says {value} , noted." for value in SECRETS.values())


def cut(text: str, rng: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        width = rng.randint(1, 6)
        yield text[at : at + width]
        at += width


def chunk(delta: dict[str, object], index: int = 0, finish: str | None = None, **choice: object) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish, **choice}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def streaming(events: Sequence[bytes], headers: dict[str, str] | None = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for event in events:
            await response.write(event)
        await response.write_eof()
        return response

    return handler


def leaked(text: str) -> list[str]:
    """Planted values of which a run of five characters got through (placeholders have none)."""
    return [value for value in SECRETS.values() if any(value[at : at + 5] in text for at in range(len(value) - 4))]


async def post(url: str, **body: object) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url + "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "x"}], **body}
        ) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_planted_leaves_in_any_field_of_a_stream(
    upstream: Upstream, make_proxy: ProxyFactory, seed: int
) -> None:
    rng = random.Random(seed)
    events = [chunk({"role": "assistant"})]
    events += [chunk({"reasoning_content": piece}) for piece in cut(carrier(), rng)]
    inline = f"<think>{carrier()}</think>{carrier()}"
    logprobs: dict[str, object] = {"content": [{"token": carrier(), "logprob": 0, "bytes": list(carrier().encode())}]}
    events += [chunk({"content": piece}, logprobs=logprobs) for piece in cut(inline, rng)]
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    events.append(chunk({"tool_calls": [head]}))
    arguments = json.dumps({"q": carrier(), "card": 4111111111111111})
    events += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in cut(arguments, rng)]
    events.append(chunk({}, finish="tool_calls"))
    events += [chunk({"content": piece}, index=1) for piece in cut(carrier(), rng)]
    events += [chunk({}, index=1, finish="stop"), b"data: [DONE]\n\n"]
    upstream.handler = streaming(events)
    proxy = await make_proxy()
    tools: list[openai.types.chat.ChatCompletionFunctionToolParam] = [
        {"type": "function", "function": {"name": "look", "parameters": {}}}
    ]
    reasoning, content, written = "", ["", ""], ""
    async with openai.AsyncOpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2, tools=tools)
        async for event in stream:
            for choice in event.choices:
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                content[choice.index] += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    written += (call.function.arguments if call.function else "") or ""
    for text in (reasoning, *content, written):
        assert leaked(text) == []
        for entity in SECRETS:
            assert f"[{entity}]" in text
    assert "<think>" in content[0]
    assert json.loads(written)["card"] == "[CREDIT_CARD]"


async def test_a_whole_response_goes_through_the_same_channels(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": carrier()}], "reasoning": carrier()}

    async def handler(request: web.Request) -> web.StreamResponse:
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})

    upstream.handler = handler
    status, text = await post((await make_proxy()).url)
    assert status == 200
    assert leaked(text) == []
    assert text.count("[EMAIL_ADDRESS]") == 2
    assert json.loads(text)["usage"]["total_tokens"] == 3


@pytest.mark.parametrize("seed", range(4))
async def test_values_across_the_seam_and_in_interleaved_channels(
    upstream: Upstream, make_proxy: ProxyFactory, seed: int
) -> None:
    rng = random.Random(seed)
    value = rng.choice(list(SECRETS.values()))
    at = rng.randint(1, len(value) - 1)
    seam = [chunk({"reasoning_content": p}) for p in cut(f"So it is {value[:at]}", rng)]
    seam += [chunk({"content": p}) for p in cut(f"{value[at:]} and that is all there is to say here.", rng)]
    single = [
        piece
        for character in f"it is {value} ok. "
        for piece in (chunk({"reasoning_content": character}), chunk({"content": character}))
    ]
    proxy = await make_proxy()
    for events in (seam, single):
        upstream.handler = streaming([*events, chunk({}, finish="stop"), b"data: [DONE]\n\n"])
        _, text = await post(proxy.url, stream=True)
        channels = {"reasoning_content": "", "content": ""}
        for line in text.splitlines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    for name in channels:
                        channels[name] += choice["delta"].get(name) or ""
        joined = channels["reasoning_content"] + channels["content"]
        assert leaked(joined) == []
        if events is seam:
            assert channels["reasoning_content"].startswith("So it is [")
            assert channels["content"].endswith("] and that is all there is to say here.")


@pytest.mark.parametrize(
    "path", ["/", "/v1/embeddings", "/slots", "/metrics", "/v1/chat/completions/x", "/v1/../slots"]
)
async def test_unknown_paths_never_reach_the_upstream(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json={}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"
    assert upstream.paths == []


def _gzipped() -> tuple[list[bytes], dict[str, str]]:
    text = chunk({"content": "mail ann.lee@example.com now"}) + chunk({}, finish="stop") + b"data: [DONE]\n\n"
    packed = gzip.compress(text)
    return [packed[:20], packed[20:]], {"Content-Encoding": "gzip"}


async def test_gzip_streams_are_decoded(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming(*_gzipped())
    status, text = await post((await make_proxy()).url, stream=True)
    assert status == 200
    assert "[EMAIL_ADDRESS] now" in text


@pytest.mark.parametrize(
    ("events", "headers", "code"),
    [
        ([chunk({"content": "mail ann.le"})], None, "upstream_interrupted"),
        ([chunk({"content": "mail ann.le"}), b"data: {oops\n\n"], None, "upstream_invalid"),
        ([chunk({"content": "mail ann.le"}), b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'], None, None),
        ([chunk({"content": "mail ann.le"})], {"Content-Encoding": "snappy"}, "upstream_invalid"),
        ([chunk({"content": "mail ann.le"}), b"data: " + b"a" * (40 * 2**20)], None, "upstream_invalid"),
    ],
    ids=["cut mid-value", "malformed JSON", "wrong type", "unknown encoding", "huge line"],
)
async def test_faults_end_in_the_error_shape_and_flush_nothing(
    upstream: Upstream,
    make_proxy: ProxyFactory,
    events: list[bytes],
    headers: dict[str, str] | None,
    code: str | None,
) -> None:
    upstream.handler = streaming(events, headers)
    proxy = await make_proxy()
    _, text = await post(proxy.url, stream=True)
    assert "ann" not in text
    assert '"error"' in text
    assert "[DONE]" not in text
    if code:
        assert code in text
    assert b'cotguard_failures_total{kind="' in proxy.gateway.metrics.expose()


async def test_an_upstream_error_is_rebuilt(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        echo = {"error": {"message": "bad prompt: my card is 4111 1111 1111 1111", "type": "invalid_request_error"}}
        return web.json_response(echo, status=400)

    upstream.handler = handler
    status, text = await post((await make_proxy()).url)
    assert status == 400
    assert "4111" not in text


async def test_an_upstream_that_never_answers(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    upstream.handler = handler
    status, text = await post((await make_proxy(first_byte_timeout=0.2)).url)
    assert (status, json.loads(text)["error"]["code"]) == (504, "upstream_timeout")


class _Raising:
    """A detector that fails on the word 'boom'."""

    name = "raising"
    entities = frozenset({"PERSON"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        raise RuntimeError("choked on " + text)


@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_detector_that_raises(upstream: Upstream, make_proxy: ProxyFactory, on_error: str) -> None:
    text = f"version: 1\nname: t\non_error: {on_error}\nrules:\n  - entities: [ALL]\n    action: redact\n"
    detector: Detector = _Raising()
    upstream.handler = streaming([chunk({"content": "boom text"}), chunk({}, finish="stop"), b"data: [DONE]\n\n"])
    proxy = await make_proxy(parse(text, "t.yaml", None), (detector,))
    _, answer = await post(proxy.url, stream=True)
    exposed = proxy.gateway.metrics.expose().decode()
    if on_error == "closed":
        assert "boom" not in answer
        assert "moderation_failed" in answer
        assert 'outcome="failed_closed"' in exposed
    else:
        assert "boom text" in answer
        assert 'outcome="bypassed"' in exposed


async def test_a_client_that_leaves_cancels_the_upstream(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "Hello there, "}))
        await asyncio.sleep(30)
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    session = aiohttp.ClientSession()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    response = await session.post(proxy.url + "/v1/chat/completions", json=body)
    await response.content.readany()
    response.close()
    await session.close()
    await asyncio.wait_for(upstream.cancelled.wait(), 1.0)


async def test_many_connections_at_once(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming(
        [chunk({"content": "ann.lee@example.com ok"}), chunk({}, finish="stop"), b"data: [DONE]\n\n"]
    )
    proxy = await make_proxy()
    answers = await asyncio.gather(*(post(proxy.url, stream=True) for _ in range(200)))
    assert all(status == 200 and "[EMAIL_ADDRESS] ok" in text for status, text in answers)
