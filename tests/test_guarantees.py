"""G1 and G2 of whole exchanges: any cuts give the whole text's result, and what was sent is always its prefix."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_kit import answers

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange, Outcome
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, load, parse
from cotguard.spans import Action, ChannelKind

FRAGMENTS = [
    "ann.lee@example.com",
    "+1 415 555 2671",
    "4111 1111 1111 1111",
    "4111-1111-11",
    "DE89 3704 0044 0532 0130 00",
    "ssn 536-22-8145",
    "AKIAIOSFODNN7EXAMPLE",
    "AKIAIOS",
    "password is hunter2!x",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----",
    "203.0.113.77",
    "a\u200bnn&#64;example.org",
    "born 12 March 1984",
    "abandon " * 11 + "about",
    "<think>",
    "</think>",
    "ann.lee</think>@example.com",
    "4111 1111<think></think> 1111 1111",
    "ssn 536-2</think>2-8145",
    "bo<thi",
    "plain words",
    "and then",
    "100% of 48/2 = 24",
    "\U0001f600é",
]
TEXTS = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from([" ", ", ", "", ".\n"])), max_size=6).map(
    lambda parts: "".join(map("".join, parts))
)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=40)
DETECTORS: tuple[Detector, ...] = build(load("balanced"))
POLICIES: dict[Action, Policy] = {
    action: parse(f"version: 1\nname: t\nrules:\n  - entities: [ALL]\n    action: {action}\n", "t.yaml", None)
    for action in Action
    if action is not Action.ALLOW
}


def pieces(text: str, widths: list[int]) -> list[str]:
    found, at, turn = [], 0, 0
    while at < len(text):
        width = widths[turn % len(widths)]
        found.append(text[at : at + width])
        at, turn = at + width, turn + 1
    return found


def moderate(policy: Policy, view: View, parts: list[str]) -> list[str]:
    """What has been delivered after each piece, and in the end."""
    return answers(Exchange(policy, DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16), view, parts)


def make_view(name: str) -> View:
    if name == "json":
        return JsonView()
    return MarkerView(ChannelKind.OUTPUT) if name == "markers" else PlainView(ChannelKind.OUTPUT)


def check(text: str, widths: list[int], action: Action, view: str) -> None:
    if view == "json":
        text = json.dumps({"note": text, "n": [4111111111111111, text[:9]]})
    policy = POLICIES[action]
    whole = moderate(policy, make_view(view), [text])[-1]
    delivered = moderate(policy, make_view(view), pieces(text, widths))
    assert delivered[-1] == whole
    assert all(whole.startswith(part) for part in delivered)
    if view == "json" and action is not Action.BLOCK:
        json.loads(whole)


@pytest.mark.parametrize("view", ["plain", "markers", "json"])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)))
def test_g1_and_g2(view: str, text: str, widths: list[int], action: Action) -> None:
    check(text, widths, action, view)


@pytest.mark.long
@pytest.mark.parametrize("view", ["plain", "markers", "json"])
@settings(max_examples=20_000, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)))
def test_g1_and_g2_in_many_cases(view: str, text: str, widths: list[int], action: Action) -> None:
    check(text, widths, action, view)


def test_what_is_withheld_twice_in_one_read_does_not_get_through() -> None:
    text = "ann.lee@example.com <think> ann.lee@example.com ann.lee@example.com "
    assert moderate(POLICIES[Action.WITHHOLD], MarkerView(ChannelKind.OUTPUT), [text])[-1] == (
        "[withheld]<think> [withheld]"
    )


def test_withheld_reasoning_keeps_its_closing_marker_and_the_answer() -> None:
    text = "<think>mail ann.lee@example.com and much more</think>The answer is 4."
    assert moderate(POLICIES[Action.WITHHOLD], MarkerView(ChannelKind.OUTPUT), [text])[-1] == (
        "<think>mail [withheld]</think>The answer is 4."
    )


def test_shadow_mode_delivers_unchanged_and_counts() -> None:
    rules = "version: 1\nname: t\nmode: shadow\nrules:\n  - entities: [ALL]\n    action: redact\n"
    exchange = Exchange(parse(rules, "t.yaml", None), DETECTORS, RequestFacts(), b"k" * 16)
    lane = exchange.lane(0)
    lane.open("text", PlainView(ChannelKind.OUTPUT))
    lane.feed("text", "mail ann.lee@example.com now")
    lane.finish()
    assert "".join(emission.text for emission in lane.take()) == "mail ann.lee@example.com now"
    assert {verdict.outcome for verdict in exchange.tally} == {Outcome.WOULD_HAVE}
