"""No character of a planted value leaves: every place that carries text, streamed in small cuts and whole, on sockets.

What is delivered is compared with the carriers in which every value is its label, so a single character that got
through, a value's head included, fails the test.
"""

import asyncio
import json
import random
from collections.abc import Callable

import openai
import pytest
from aiohttp import web
from conftest import Proxy, ProxyFactory, Upstream
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from planted import PLANTED, Planted, carried
from scripted import DONE, chunk, cut, finish, post, streaming, texts

CARRIED = " ".join(map(carried, PLANTED)) + "\n"
EXPECTED = " ".join(planted.carrier.format(f"[{planted.entity}]") for planted in PLANTED) + "\n"
ARGUMENTS = json.dumps({"note": CARRIED, "card": 4111111111111111, "deep": [{"ann.lee@example.com": ["203.0.113.77"]}]})
EXPECTED_ARGUMENTS = {"note": EXPECTED, "card": "[CREDIT_CARD]", "deep": [{"[EMAIL_ADDRESS]": ["[IP_ADDRESS]"]}]}
INLINE = f"<think>{CARRIED}</think>{CARRIED}"
EXPECTED_INLINE = f"<think>{EXPECTED}</think>{EXPECTED}"
LOGPROBS = {"content": [{"token": CARRIED, "logprob": 0, "bytes": list(CARRIED.encode()), "top_logprobs": []}]}
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
TOOLS: list[ChatCompletionFunctionToolParam] = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
DECLARED = {"tools": TOOLS}
RUN = 5
"""Shorter runs of characters stand in the carriers too."""


def test_there_is_enough_to_leak() -> None:
    assert len(PLANTED) >= 40
    assert len({planted.entity for planted in PLANTED}) >= 25


def leaked(planted: Planted, text: str) -> list[str]:
    """Runs of the value's characters in ``text`` that neither its carrier nor its label accounts for."""
    value = planted.value
    innocent = planted.carrier + f"[{planted.entity}]"
    runs = {value[at : at + RUN] for at in range(max(1, len(value) - RUN + 1))}
    return [run for run in runs if run in text and run not in innocent]


def call_events(rng: random.Random) -> list[bytes]:
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    pieces = cut(ARGUMENTS, rng)
    return [
        chunk({"tool_calls": [head]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces),
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_streams_as_the_sdk_reads_them(upstream: Upstream, make_proxy: ProxyFactory, seed: int) -> None:
    rng = random.Random(seed)
    upstream.handler = streaming(
        [
            chunk({"role": "assistant"}),
            *(chunk({"reasoning_content": piece}) for piece in cut(CARRIED, rng)),
            *(chunk({"content": piece}, logprobs=LOGPROBS) for piece in cut(INLINE, rng)),
            *call_events(rng),
            finish(reason="tool_calls"),
            *(chunk({"content": piece}, index=1) for piece in cut(CARRIED, rng)),
            finish(1),
            DONE,
        ]
    )
    reasoning, content, arguments = "", ["", ""], ""
    url = (await make_proxy()).url
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, n=2, tools=TOOLS, logprobs=True
        )
        async for event in stream:
            for choice in event.choices:
                assert choice.logprobs is None
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                content[choice.index] += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    arguments += (call.function.arguments if call.function else "") or ""
    assert reasoning == EXPECTED
    assert content == [EXPECTED_INLINE, EXPECTED]
    assert json.loads(arguments) == EXPECTED_ARGUMENTS


def part(text: str) -> object:
    return [{"type": "text", "text": text}]


def thinking_part(text: str) -> object:
    return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]


def detail(text: str) -> object:
    return [{"type": "reasoning.text", "text": text, "index": 0, "format": "unknown"}]


FORMS: dict[str, Callable[[str], dict[str, object]]] = {
    "reasoning": lambda text: {"reasoning": text},
    "reasoning_content": lambda text: {"reasoning_content": text},
    "both reasonings": lambda text: {"reasoning": text, "reasoning_content": text},
    "reasoning_details": lambda text: {"reasoning_details": detail(text)},
    "details and text": lambda text: {"reasoning": text, "reasoning_details": detail(text)},
    "content": lambda text: {"content": text},
    "content parts": lambda text: {"content": part(text)},
    "thinking parts": lambda text: {"content": thinking_part(text)},
    "refusal": lambda text: {"refusal": text},
    "unknown field": lambda text: {"content": text, "inner_monologue": text, "extra": {"deep": [text]}},
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_field_of_a_stream(upstream: Upstream, make_proxy: ProxyFactory, form: str) -> None:
    rng = random.Random(form)
    events = [chunk(FORMS[form](piece), logprobs=LOGPROBS, token_ids=[1, 2]) for piece in cut(CARRIED, rng)]
    upstream.handler = streaming([*events, finish(), DONE])
    _, body = await post((await make_proxy()).url, stream=True)
    found = texts(body)
    assert found
    assert set(found.values()) == {EXPECTED}
    assert not [run for planted in PLANTED for run in leaked(planted, body)]


@pytest.mark.parametrize("form", FORMS)
async def test_every_field_of_a_whole_response(upstream: Upstream, make_proxy: ProxyFactory, form: str) -> None:
    message = {"role": "assistant", **FORMS[form](CARRIED)}
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}
    second = {"role": "assistant", "content": INLINE, "tool_calls": [call]}
    choices = [
        {"index": 0, "message": message, "finish_reason": "stop", "logprobs": LOGPROBS},
        {"index": 1, "message": second, "finish_reason": "tool_calls"},
    ]

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "c", "object": "chat.completion", "choices": choices, "usage": {}})

    upstream.handler = handler
    status, body = await post((await make_proxy()).url, n=2, **DECLARED)
    assert status == 200
    assert not [run for planted in PLANTED for run in leaked(planted, body)]
    first, second = (choice["message"] for choice in json.loads(body)["choices"])
    assert json.dumps(EXPECTED)[1:-1] in json.dumps(first)
    assert second["content"] == EXPECTED_INLINE
    assert json.loads(second["tool_calls"][0]["function"]["arguments"]) == EXPECTED_ARGUMENTS


@pytest.mark.parametrize("width", [1, 3])
async def test_channels_interleaved(upstream: Upstream, make_proxy: ProxyFactory, width: int) -> None:
    """Reasoning, answer and arguments take turns, ``width`` characters each."""
    rng = random.Random(width)
    head, *calls = call_events(rng)
    events = [head]
    for at in range(0, len(CARRIED), width):
        events += [chunk({name: CARRIED[at : at + width]}) for name in ("reasoning_content", "content")]
        events += calls[at // width : at // width + 1]
    events += calls[-(-len(CARRIED) // width) :]
    upstream.handler = streaming([*events, finish(reason="tool_calls"), DONE])
    _, body = await post((await make_proxy()).url, stream=True, **DECLARED)
    found = texts(body)
    assert found[0, "reasoning_content"] == found[0, "content"] == EXPECTED
    assert json.loads(found[0, "tool_calls"]) == EXPECTED_ARGUMENTS


async def across_the_seam(proxy: Proxy, upstream: Upstream, planted: Planted, at: int, rng: random.Random) -> None:
    before, _, after = planted.carrier.partition("{}")
    value = planted.value
    after += " And that is all there is to say about it here for now."
    events = [chunk({"reasoning_content": piece}) for piece in cut(before + value[:at], rng)]
    events += [chunk({"content": piece}) for piece in cut(value[at:] + after, rng)]
    upstream.handler = streaming([*events, finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    found = texts(body)
    joined = found.get((0, "reasoning_content"), "") + found.get((0, "content"), "")
    assert not leaked(planted, joined), f"{planted.entity} cut at {at}"
    assert found[0, "content"].endswith(after)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.entity}-{planted.value[:8]}")
async def test_values_across_the_seam(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    rng = random.Random(planted.value)
    proxy = await make_proxy()
    for at in rng.sample(range(1, len(planted.value)), 2):
        await across_the_seam(proxy, upstream, planted, at, rng)


@pytest.mark.long
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.entity}-{planted.value[:8]}")
async def test_every_place_of_the_seam(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    proxy = await make_proxy()
    for at in range(1, len(planted.value)):
        await across_the_seam(proxy, upstream, planted, at, random.Random(at))


async def test_many_clients_at_once_get_their_own(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    rng = random.Random(7)
    upstream.handler = streaming([*(chunk({"content": piece}) for piece in cut(CARRIED, rng)), finish(), DONE])
    url = (await make_proxy()).url
    answers = await asyncio.gather(*(post(url, stream=True) for _ in range(8)))
    assert {texts(body)[0, "content"] for _, body in answers} == {EXPECTED}
