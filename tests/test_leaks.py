"""No character of a planted value leaves: every place that carries text, streamed in small cuts and whole, on sockets.

What is delivered is compared with the carriers in which every value is its label, after every event and in the end,
so a single character that got through, a value's head included, fails the test.
"""

import asyncio
import base64
import json
import random
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from conftest import Handler, Proxy, ProxyFactory, Upstream
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from planted import PLANTED, Planted, carried
from scripted import CHAT_PATH, DONE, chunk, cut, events_of, finish, post, streaming, texts

from cotguard.detectors.registry import build
from cotguard.policy import Policy, load, parse
from cotguard.taxonomy import GROUPS

NOT_BY_RULES = frozenset(
    {*GROUPS["PROMPT"], *GROUPS["HAZARD"], *GROUPS["TOOL"], "STREET_ADDRESS", "USERNAME", "PERSON"}
)
"""What `balanced` acts on but no rule finds: the classifier's entities, and those with a test of their own below."""


def labelled(planted: Planted) -> str:
    """The sentence as it must be delivered."""
    return planted.carrier.format(f"[{planted.entity}]")


CARRIED = " ".join(map(carried, PLANTED)) + "\n"
EXPECTED = " ".join(map(labelled, PLANTED)) + "\n"
ARGUMENTS = json.dumps({"note": CARRIED, "card": 4111111111111111, "deep": [{"ann.lee@example.com": ["203.0.113.77"]}]})
EXPECTED_ARGUMENTS = {"note": EXPECTED, "card": "[CREDIT_CARD]", "deep": [{"[EMAIL_ADDRESS]": ["[IP_ADDRESS]"]}]}
INLINE = f"<think>{CARRIED}</think>{CARRIED}"
EXPECTED_INLINE = f"<think>{EXPECTED}</think>{EXPECTED}"
LOGPROBS = {"content": [{"token": CARRIED, "logprob": 0, "bytes": list(CARRIED.encode()), "top_logprobs": []}]}
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
TOOLS: list[ChatCompletionFunctionToolParam] = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
DECLARED = {"tools": TOOLS}
AFTER = " And that is all there is to say about it here for now."
LABELS = r"(?:\[[A-Z_]+\])+"
RUN = 5
"""Shorter runs of characters stand in the carriers too."""

each_value = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.entity}-{planted.value[:8]}")


def test_there_is_enough_to_leak() -> None:
    balanced = load("balanced")
    entities = {planted.entity for planted in PLANTED}
    assert len(PLANTED) >= 40
    assert len(entities) >= 25
    acted = {entity for names in GROUPS.values() for entity in names if balanced.acts(entity)}
    assert acted - NOT_BY_RULES == entities


def spellings(value: str) -> Iterator[str]:
    """The value as a body could hold it."""
    data = value.encode()
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield base64.b64encode(data).decode().rstrip("=")
    yield data.hex()
    yield ", ".join(map(str, data))
    yield ",".join(map(str, data))


def leaked(body: str, values: Iterable[Planted] = PLANTED) -> list[str]:
    """What of the values is in a raw body: whole in any spelling, or a run that no carrier explains."""
    found = [planted.entity for planted in values for spelling in spellings(planted.value) if spelling in body]
    for planted in values:
        value = planted.value
        runs = {value[at : at + RUN] for at in range(max(1, len(value) - RUN + 1))}
        found += [run for run in runs if run in body and run not in EXPECTED]
    return found


async def watched(url: str, expected: Mapping[tuple[int, str], str], **body: object) -> str:
    """The raw body of a stream, every text of which is at every event the beginning of what is expected."""
    request = {"model": "m", "stream": True, "messages": MESSAGES, **body}
    delivered: dict[tuple[int, str], str] = {}
    raw = ""
    async with aiohttp.ClientSession() as session, session.post(url + CHAT_PATH, json=request) as response:
        async for block in events_of(response):
            raw += block + "\n\n"
            for key, text in texts(block).items():
                delivered[key] = delivered.get(key, "") + text
                if key in expected:
                    assert expected[key].startswith(delivered[key])
    assert {key: delivered[key] for key in expected} == expected
    return raw


def call_events(rng: random.Random) -> list[bytes]:
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    pieces = cut(ARGUMENTS, rng)
    return [
        chunk({"tool_calls": [head]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces),
    ]


# --- As the SDK reads it -----------------------------------------------------------------------------------------


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
            assert EXPECTED.startswith(reasoning)
            assert EXPECTED_INLINE.startswith(content[0])
            assert EXPECTED.startswith(content[1])
    assert reasoning == EXPECTED
    assert content == [EXPECTED_INLINE, EXPECTED]
    assert json.loads(arguments) == EXPECTED_ARGUMENTS


def whole(*choices: dict[str, object]) -> Handler:
    """An upstream that answers with these choices at once."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "c", "object": "chat.completion", "choices": choices, "usage": {}})

    return handler


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}


async def test_a_whole_response_as_the_sdk_reads_it(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    first = {"role": "assistant", "reasoning_content": CARRIED, "content": CARRIED, "tool_calls": [CALL]}
    second = {"role": "assistant", "content": INLINE, "refusal": CARRIED}
    upstream.handler = whole(
        {"index": 0, "message": first, "finish_reason": "tool_calls", "logprobs": LOGPROBS},
        {"index": 1, "message": second, "finish_reason": "stop"},
    )
    url = (await make_proxy()).url
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, tools=TOOLS, logprobs=True)
    one, two = answer.choices
    assert one.logprobs is None
    assert (getattr(one.message, "reasoning_content", None), one.message.content) == (EXPECTED, EXPECTED)
    assert (two.message.content, two.message.refusal) == (EXPECTED_INLINE, EXPECTED)
    calls = [call for call in one.message.tool_calls or () if call.type == "function"]
    assert [json.loads(call.function.arguments) for call in calls] == [EXPECTED_ARGUMENTS]


# --- Every field -------------------------------------------------------------------------------------------------


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
UNKNOWN = frozenset({"inner_monologue", "extra"})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("form", FORMS)
async def test_every_field_of_a_stream(upstream: Upstream, make_proxy: ProxyFactory, form: str, seed: int) -> None:
    rng = random.Random(f"{form} {seed}")
    make = FORMS[form]
    first, *rest = cut(CARRIED, rng)
    mirrored = chunk(make(first), logprobs=LOGPROBS, token_ids=[1, 2])
    events = [mirrored, *(chunk(make(piece)) for piece in rest)]
    upstream.handler = streaming([*events, finish(), DONE])
    names = make("").keys() - UNKNOWN
    body = await watched((await make_proxy()).url, {(0, name): EXPECTED for name in names})
    assert texts(body).keys() == {(0, name) for name in names}
    assert not leaked(body)


@pytest.mark.parametrize("form", FORMS)
async def test_every_field_of_a_whole_response(upstream: Upstream, make_proxy: ProxyFactory, form: str) -> None:
    make = FORMS[form]
    message = {"role": "assistant", **make(CARRIED)}
    second = {"role": "assistant", "content": INLINE, "tool_calls": [CALL]}
    upstream.handler = whole(
        {"index": 0, "message": message, "finish_reason": "stop", "logprobs": LOGPROBS},
        {"index": 1, "message": second, "finish_reason": "tool_calls"},
    )
    status, body = await post((await make_proxy()).url, n=2, **DECLARED)
    assert status == 200
    assert not leaked(body)
    got: list[dict[str, Any]] = [choice["message"] for choice in json.loads(body)["choices"]]
    for name in make("").keys() - UNKNOWN:
        assert got[0][name] == make(EXPECTED)[name]
    assert not got[0].keys() & UNKNOWN
    assert got[1]["content"] == EXPECTED_INLINE
    assert json.loads(got[1]["tool_calls"][0]["function"]["arguments"]) == EXPECTED_ARGUMENTS


# --- Channels that take turns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3])
async def test_channels_interleaved(upstream: Upstream, make_proxy: ProxyFactory, width: int) -> None:
    """Reasoning, answer, arguments and a second answer take turns, ``width`` characters each."""
    rng = random.Random(width)
    head, *calls = call_events(rng)
    events = [head]
    for at in range(0, len(CARRIED), width):
        piece = CARRIED[at : at + width]
        events += [chunk({"reasoning_content": piece}), chunk({"content": piece}), chunk({"content": piece}, index=1)]
        events += calls[at // width : at // width + 1]
    events += calls[-(-len(CARRIED) // width) :]
    upstream.handler = streaming([*events, finish(reason="tool_calls"), finish(1), DONE])
    expected = {(0, "reasoning_content"): EXPECTED, (0, "content"): EXPECTED, (1, "content"): EXPECTED}
    body = await watched((await make_proxy()).url, expected, n=2, **DECLARED)
    assert json.loads(texts(body)[0, "tool_calls"]) == EXPECTED_ARGUMENTS


async def across_the_seam(proxy: Proxy, upstream: Upstream, planted: Planted, at: int, rng: random.Random) -> None:
    """Both halves become labels; what stands around them is delivered as it is."""
    before, _, after = planted.carrier.partition("{}")
    value = planted.value
    events = [chunk({"reasoning_content": piece}) for piece in cut(before + value[:at], rng)]
    events += [chunk({"content": piece}) for piece in cut(value[at:] + after + AFTER, rng)]
    upstream.handler = streaming([*events, finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    found = texts(body)
    where = f"{planted.entity} cut at {at}"
    assert re.fullmatch(re.escape(before) + LABELS, found[0, "reasoning_content"]), where
    assert re.fullmatch(LABELS + re.escape(after + AFTER), found[0, "content"]), where


@each_value
async def test_values_across_the_seam(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    rng = random.Random(planted.value)
    proxy = await make_proxy()
    for at in rng.sample(range(1, len(planted.value)), 3):
        await across_the_seam(proxy, upstream, planted, at, rng)


@pytest.mark.long
@each_value
async def test_every_place_of_the_seam(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    proxy = await make_proxy()
    for at in range(1, len(planted.value)):
        await across_the_seam(proxy, upstream, planted, at, random.Random(at))


async def across_a_marker(proxy: Proxy, upstream: Upstream, planted: Planted, at: int, rng: random.Random) -> None:
    """A client that splits the thought off joins nothing; a person reads both."""
    before, _, after = planted.carrier.partition("{}")
    thought, answer = before + planted.value[:at], planted.value[at:] + after + AFTER
    text = f"<think>{thought}</think>{answer}"
    upstream.handler = streaming([*(chunk({"content": piece}) for piece in cut(text, rng)), finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    wanted = f"<think>{re.escape(before)}{LABELS}</think>{LABELS}{re.escape(after + AFTER)}"
    assert re.fullmatch(wanted, texts(body)[0, "content"]), f"{planted.entity} cut at {at}"


@each_value
async def test_values_across_an_inline_marker(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    rng = random.Random(planted.value)
    proxy = await make_proxy()
    for at in rng.sample(range(1, len(planted.value.partition("-----END")[0])), 3):
        await across_a_marker(proxy, upstream, planted, at, rng)


@pytest.mark.long
@each_value
async def test_every_place_of_an_inline_marker(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    """A footer that a marker breaks is none: the block then hides the rest, so no key is cut in its footer here."""
    proxy = await make_proxy()
    for at in range(1, len(planted.value.partition("-----END")[0])):
        await across_a_marker(proxy, upstream, planted, at, random.Random(at))


# --- Streams that stop inside a value ----------------------------------------------------------------------------


async def broken_off(proxy: Proxy, upstream: Upstream, planted: Planted, at: int, rng: random.Random) -> None:
    """However the value would have gone on, what was delivered is the beginning of the right result (G2)."""
    text = planted.carrier.partition("{}")[0] + planted.value[:at]
    fields = ("reasoning_content", "content")
    events = [chunk({name: piece}, index) for index, name in enumerate(fields) for piece in cut(text, rng)]
    upstream.handler = streaming(events)
    _, body = await post(proxy.url, stream=True, n=2)
    assert "upstream_interrupted" in body
    for text in texts(body.partition('data: {"error"')[0]).values():
        assert labelled(planted).startswith(text), f"{planted.entity} stopped at {at}"


@each_value
async def test_streams_that_stop_inside_a_value(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    rng = random.Random(planted.value)
    proxy = await make_proxy()
    for at in rng.sample(range(1, len(planted.value)), 3):
        await broken_off(proxy, upstream, planted, at, rng)


@pytest.mark.long
@each_value
async def test_every_place_to_stop(upstream: Upstream, make_proxy: ProxyFactory, planted: Planted) -> None:
    proxy = await make_proxy()
    for at in range(1, len(planted.value) + 1):
        await broken_off(proxy, upstream, planted, at, random.Random(at))


# --- What only the exchange knows --------------------------------------------------------------------------------

CODENAME = "Project Bluebird 4711"
PROMPT = (
    "You are Orla, the booking clerk of the Harbour Hotel. Never tell guests that rooms on the fourth floor are being "
    "rebuilt until March. Offer them the garden wing instead, at the winter rate, and ask for half the price at once"
)
KNOWN = (
    CODENAME,
    CODENAME.upper(),
    CODENAME.replace(" ", ""),
    CODENAME.replace(" ", "-"),
    " ".join(CODENAME),
    CODENAME[::-1],
    CODENAME.encode().hex(),
    urllib.parse.quote(CODENAME),
    base64.b64encode(CODENAME.encode()).decode(),
)


@pytest.fixture(scope="module")
def exchange_policy() -> Policy:
    source = "version: 1\nname: t\nrules:\n  - entities: [KNOWN_VALUE, SYSTEM_PROMPT]\n    action: redact\n"
    return parse(f"{source}known_values:\n  values: ['{CODENAME}']\n", "t.yaml", None)


@pytest.mark.parametrize("seed", range(3))
async def test_known_values_and_the_system_prompt(
    upstream: Upstream, make_proxy: ProxyFactory, exchange_policy: Policy, seed: int
) -> None:
    carrier = "The notes say {} , among other things. "
    text = "".join(map(carrier.format, KNOWN)) + f"And I was told: {PROMPT}. So I obey."
    expected = carrier.format("[KNOWN_VALUE]") * len(KNOWN) + "And I was told: [SYSTEM_PROMPT]. So I obey."
    rng = random.Random(seed)
    fields = ("reasoning_content", "content")
    events = [chunk({name: piece}, index) for index, name in enumerate(fields) for piece in cut(text, rng)]
    upstream.handler = streaming([*events, finish(0), finish(1), DONE])
    proxy = await make_proxy(exchange_policy, build(exchange_policy))
    messages = [{"role": "system", "content": PROMPT}, *MESSAGES]
    wanted = dict.fromkeys(enumerate(fields), expected)
    body = await watched(proxy.url, wanted, n=2, messages=messages)
    assert not any(spelling in body for known in (*KNOWN, PROMPT) for spelling in spellings(known))


async def test_many_clients_at_once_get_their_own(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Each asks for another value, by its place in the list."""

    async def handler(request: web.Request) -> web.StreamResponse:
        at = json.loads(await request.read())["messages"][0]["content"]
        pieces = cut(carried(PLANTED[int(at)]), random.Random(at))
        return await streaming([*(chunk({"content": piece}) for piece in pieces), finish(), DONE])(request)

    upstream.handler = handler
    url = (await make_proxy()).url
    expected = [{(0, "content"): labelled(planted)} for planted in PLANTED]
    await asyncio.gather(
        *(watched(url, each, messages=[{"role": "user", "content": str(at)}]) for at, each in enumerate(expected))
    )
