"""The memory of one exchange has a limit, whatever the model writes; beyond it the exchange fails closed."""

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from conftest import ProxyFactory, Upstream, error_of
from scripted import chunk, post, streaming

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Prepared
from cotguard.moderation.exchange import Exchange, ExchangeTooLarge
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, parse
from cotguard.spans import ChannelKind

SEEDS = "abandon ability able about " * 60
"""Seed phrases that overlap, so that all of it stays on hold."""


RULES = "version: 1\nname: t\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: redact\n"
EMAIL = parse(RULES, "t.yaml", None)


def of_lines(*events: dict[str, object]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), json.dumps(event).encode()) for event in events
    )


def calls(number: int) -> bytes:
    function = {"name": "f", "arguments": '{"a": "some words '}
    call = {"index": number % 1000, "id": f"call_{number}", "type": "function", "function": function}
    return chunk({"tool_calls": [call]}, index=number // 1000)


def words_on_hold(number: int) -> bytes:
    return chunk({"content": SEEDS}, index=number % 16)


def items(number: int) -> bytes:
    item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": "f", "arguments": ""}
    delta = {"output_index": number, "item_id": f"fc_{number}", "delta": '{"a": "some words '}
    return of_lines(
        {"type": "response.output_item.added", "output_index": number, "item": {**item, "status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", **delta},
    )


def text_that_is_repeated(number: int) -> bytes:
    begin = {"type": "message", "id": "m", "role": "assistant", "content": [], "status": "in_progress"}
    text = {"output_index": 0, "content_index": 0, "item_id": "m", "delta": "plain words and more of them. " * 100}
    opening = of_lines({"type": "response.output_item.added", "output_index": 0, "item": begin}) if not number else b""
    return opening + of_lines({"type": "response.output_text.delta", **text})


CASES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "tool calls": ("chat_completions", calls),
    "words on hold in many choices": ("chat_completions", words_on_hold),
    "items": ("responses", items),
    "a text that the end repeats": ("responses", text_that_is_repeated),
}
LIMIT = 2**20


@pytest.mark.parametrize("name", CASES)
def test_what_is_held_is_what_is_accounted(name: str, balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    """Measured when the limit is reached: about as much, and never much more."""
    dialect_name, event = CASES[name]
    policy, detectors = balanced if event in (calls, words_on_hold) else (EMAIL, build(EMAIL))
    dialect = next(each for each in dialects() if each.name == dialect_name)
    exchange = Exchange(policy, detectors, RequestFacts(), b"k" * 16, max_bytes=LIMIT)
    prepared = Prepared({}, "m", stream=True, facts=RequestFacts(), tools=frozenset({"f"}), choices=16)
    translator = dialect.stream(prepared, exchange, "text/event-stream")
    assert translator is not None
    translator.receive(event(0))

    def receive_on() -> None:
        for number in range(1, 100_000):
            translator.receive(event(number))

    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(ExchangeTooLarge):
            receive_on()
        gc.collect()
        assert LIMIT / 4 < tracemalloc.get_traced_memory()[0] < LIMIT * 1.1
    finally:
        tracemalloc.stop()


async def test_it_fails_closed(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Also where the policy lets text through when moderating fails: memory is not a matter of policy."""
    policy = parse(RULES + "on_error: open\n", "t.yaml", None)
    proxy = await make_proxy(policy, build(policy), max_exchange_bytes=2**20)
    upstream.handler = streaming([calls(number) for number in range(1000)])
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    status, body = await post(proxy.url, stream=True, tools=tools)
    assert (status, error_of(body)["code"]) == (200, "too_large")
    assert "[DONE]" not in body
    assert proxy.accounts.closed == {"too_large": 1}


def test_what_comes_and_goes_is_not_counted() -> None:
    """Long streams, and requests of many texts: nothing of them stays."""
    exchange = Exchange(EMAIL, build(EMAIL), RequestFacts(), b"k" * 16, max_bytes=20_000)
    for number in range(100):
        exchange.read(PlainView(ChannelKind.USER), f"text {number}")
    lane = exchange.lane(0)
    lane.open("a", PlainView(ChannelKind.OUTPUT))
    lane.open("b", PlainView(ChannelKind.REASONING))

    def texts() -> Iterator[str]:
        for number in range(1000):
            lane.feed("ab"[number // 10 % 2], "plain words and more of them. ")
            yield from (emission.text for emission in lane.take())
            yield lane.whole(PlainView(ChannelKind.OTHER), "by itself")

    assert sum(map(len, texts())) > 30_000
