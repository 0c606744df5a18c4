"""Targets of links: found as structure, and rewritten as a whole with what stands in them."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_kit import answers

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Detector, RequestFacts, Scope
from cotguard.detectors.links import MAX_TARGET, LinkTargets
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, load, parse
from cotguard.spans import Action, ChannelKind

DETECTOR = LinkTargets()
MAIL = "ann.lee@example.com"
CODED = base64.b64encode(MAIL.encode()).decode()

TARGETS = [
    ("[site](https://a.example/x) more", ["https://a.example/x"]),
    ('![chart](https://a.example/p?d=1 "a (fine) title") more', ['https://a.example/p?d=1 "a (fine) title"']),
    ("[a](<https://a.example/b c>) [d](/e(f)g) h", ["<https://a.example/b c>", "/e(f)g"]),
    ("[outer ![inner](https://a.example/i)](https://b.example/o)", ["https://a.example/i", "https://b.example/o"]),
    ("[https://a.example](https://b.example/?q)", ["https://a.example", "https://b.example/?q"]),
    ("see https://a.example/x(y), or (www.b.example/z).", ["https://a.example/x(y)", "www.b.example/z"]),
    ("<https://a.example/b c> and <mailto:a@b.example>", ["<https://a.example/b c>", "<mailto:a@b.example>"]),
    ("[ref]: //a.example/b?c 'title'\n", ["//a.example/b?c"]),
    ("<a href='https://a.example/x>y' id=b>text</a>", ["<a href='https://a.example/x>y' id=b>"]),
    ('<img alt="x" src="https://a.example/i.png">', ['<img alt="x" src="https://a.example/i.png">']),
    ("http://[::1]:80/x] y", ["http://[::1]:80/x]"]),
    ("[open](https://a.example/ and on\n\nnew", ["https://a.example/ and on\n"]),
    ("[a] (https://a.example)", ["https://a.example"]),
    ("if a[0] < b(c): x = d[e] // 2 \\](f)", ["//", "f"]),
    ("plain words, [brackets] and (parentheses)", []),
]


@pytest.mark.parametrize(("text", "targets"), TARGETS)
def test_targets(text: str, targets: list[str]) -> None:
    assert [text[span.start : span.end] for span in find(DETECTOR, text)] == targets
    check_every_cut(DETECTOR, text)


def test_a_long_target_comes_in_pieces() -> None:
    text = "](" + "x" * (2 * MAX_TARGET + 5) + ")"
    sizes = [span.end - span.start for span in find(DETECTOR, text)]
    assert sizes == [MAX_TARGET, MAX_TARGET, 5]


@pytest.mark.parametrize("kind", list(ChannelKind))
def test_targets_are_looked_for_in_prose_that_the_model_writes(kind: ChannelKind) -> None:
    prose = {ChannelKind.REASONING, ChannelKind.OUTPUT, ChannelKind.REFUSAL, ChannelKind.OTHER}
    assert (DETECTOR.open(Scope(kind)) is not None) is (kind in prose)


SYNTAX = [
    "](",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    "<a href=",
    "<img ",
    "https://",
    "www.",
    "//",
    ":",
    "h",
    '"',
    "'",
    "\\",
    "\n",
]


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(st.sampled_from([*SYNTAX, " ", "x", "/?d="]), max_size=14).map("".join),
    context=st.lists(st.sampled_from([*SYNTAX, "x"]), max_size=4).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_contract(text: str, context: str, cuts: list[int]) -> None:
    check_cuts(DETECTOR, text, [min(cut, len(text)) for cut in cuts], Scope(ChannelKind.OUTPUT, context))


def policy(action: Action, links: str = "widen") -> Policy:
    rules = f"version: 1\nname: t\nlinks: {links}\nrules:\n  - entities: [ALL]\n    action: {action}\n"
    return parse(rules, "t.yaml", None)


DETECTORS: tuple[Detector, ...] = build(load("patterns-only"))


def moderate(policy: Policy, view: View, parts: list[str]) -> list[str]:
    """What has been delivered after each piece, and in the end."""
    return answers(Exchange(policy, DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16), view, parts)


def redacted(text: str, action: Action = Action.REDACT) -> str:
    return moderate(policy(action), PlainView(ChannelKind.OUTPUT), [text])[-1]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (f"![x](https://c.example/?m={MAIL}&d={CODED}) end", "![x]([EMAIL_ADDRESS]) end"),
        (f"![x](https://c.example/{CODED}/{MAIL}/y) end", "![x]([EMAIL_ADDRESS]) end"),
        (f"[x](https://c.example/#{MAIL} 'or {CODED}') end", "[x]([EMAIL_ADDRESS]) end"),
        (f"go to https://c.example/?m={MAIL}&d={CODED}, now", "go to [EMAIL_ADDRESS], now"),
        (f"<https://c.example/ {CODED} {MAIL}> end", "[EMAIL_ADDRESS] end"),
        (f'<img src="https://c.example/?{MAIL}&{CODED}"> end', "[EMAIL_ADDRESS] end"),
        (f"[r]: https://c.example/?{MAIL}&{CODED}\nend", "[r]: [EMAIL_ADDRESS]\nend"),
        (f"[{MAIL}](https://c.example/contact) end", "[[EMAIL_ADDRESS]](https://c.example/contact) end"),
        (f"{MAIL} and [x](https://c.example/) end", "[EMAIL_ADDRESS] and [x](https://c.example/) end"),
        (f"![x](https://c.example/?m={MAIL}&d={CODED}", "![x]([EMAIL_ADDRESS]"),
    ],
)
def test_a_target_with_a_value_goes_as_a_whole(text: str, written: str) -> None:
    assert redacted(text) == written


def test_two_values_in_one_target_are_one() -> None:
    text = f"![x](https://c.example/?m={MAIL}&d={CODED}&n=bob@example.org) {MAIL}"
    assert redacted(text) == "![x]([EMAIL_ADDRESS]) [EMAIL_ADDRESS]"


def test_a_pseudonym_in_a_target_is_that_of_the_value() -> None:
    text = f"{MAIL} ![x](https://c.example/?m={MAIL}&d={CODED})"
    label = redacted(MAIL, Action.PSEUDONYMIZE)
    assert redacted(text, Action.PSEUDONYMIZE) == f"{label} ![x]({label})"


def test_what_is_only_flagged_widens_nothing() -> None:
    text = f"![x](https://c.example/?m={MAIL}&d={CODED})"
    assert redacted(text, Action.FLAG) == text


def test_a_policy_may_keep_the_rest() -> None:
    found = build(policy(Action.REDACT, "keep"))
    assert all(detector.name != DETECTOR.name for detector in found)
    assert any(detector.name == DETECTOR.name for detector in build(policy(Action.REDACT)))


def test_a_target_waits_for_its_end_and_no_longer() -> None:
    parts = ["see [x](https://c.exa", "mple/one", "/two", ") and", " more", " words"]
    delivered = moderate(policy(Action.REDACT), PlainView(ChannelKind.OUTPUT), parts)
    assert delivered[3] == "see [x]("
    assert delivered[4].startswith("see [x](https://c.example/one/two)")


PLANTED = [MAIL, "4111 1111 1111 1111", "4111111111111111", "AKIAIOSFODNN7EXAMPLE", quote(MAIL, safe=""), CODED]
PARTS = [
    *PLANTED,
    *(f"![a](https://c.example/{value}/x)" for value in PLANTED),
    *(f"[b](https://c.example/?q={value}&r={CODED} 'ti)tle')" for value in PLANTED),
    *(f"<https://c.example/#{value}>" for value in PLANTED),
    *(f"https://{value}.c.example/" for value in PLANTED),
    f"<a href='https://c.example/?{MAIL}'>x</a>",
    f"<img src=https://c.example/?{MAIL}>",
    f"[r]: //c.example/{MAIL}",
    f"[[n [e [s]](t)](https://c.example/{MAIL})]({CODED})",
    f"](https://c.example/{MAIL} unclosed",
    "[fine](https://c.example/)",
    "www.c.example",
    "](",
    ")",
    "<",
    "\n\n",
    "<think>",
    "</think>",
    "words",
    "\U0001f600",
]
TEXTS = st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from([" ", "", ".\n"])), max_size=6).map(
    lambda parts: "".join(map("".join, parts))
)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=40)
POLICIES: dict[Action, Policy] = {action: policy(action) for action in Action if action is not Action.ALLOW}


def pieces(text: str, widths: list[int]) -> list[str]:
    found, at, turn = [], 0, 0
    while at < len(text):
        width = widths[turn % len(widths)]
        found.append(text[at : at + width])
        at, turn = at + width, turn + 1
    return found


def check(text: str, widths: list[int], action: Action, markers: bool) -> None:
    def view() -> View:
        return MarkerView(ChannelKind.OUTPUT) if markers else PlainView(ChannelKind.OUTPUT)

    whole = moderate(POLICIES[action], view(), [text])[-1]
    delivered = moderate(POLICIES[action], view(), pieces(text, widths))
    assert delivered[-1] == whole
    assert all(whole.startswith(part) for part in delivered)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)), markers=st.booleans())
def test_g1_and_g2(text: str, widths: list[int], action: Action, markers: bool) -> None:
    check(text, widths, action, markers)


@pytest.mark.long
@settings(max_examples=20_000, deadline=None)
@given(text=TEXTS, widths=CUTS, action=st.sampled_from(list(POLICIES)), markers=st.booleans())
def test_g1_and_g2_in_many_cases(text: str, widths: list[int], action: Action, markers: bool) -> None:
    check(text, widths, action, markers)


@settings(max_examples=100, deadline=None)
@given(
    value=st.sampled_from(PLANTED[:4]),
    place=st.sampled_from(["/{}/{}", "?a={}&b={}", "#{}.{}", "?b={1}&a={0}", " '{} {}'"]),
    coding=st.sampled_from(
        [lambda v: base64.b64encode(v.encode()).decode(), lambda v: v[::-1], lambda v: v.encode().hex()]
    ),
    widths=CUTS,
)
def test_no_remainder_of_a_target_gets_out(value, place, coding, widths) -> None:  # type: ignore[no-untyped-def]
    remainder = coding(value)
    text = f"Here: ![chart](https://c.example/x{place.format(value.replace(' ', '-'), remainder)}) and so on."
    delivered = moderate(POLICIES[Action.REDACT], PlainView(ChannelKind.OUTPUT), pieces(text, widths))
    assert all(remainder not in part and "c.example" not in part for part in delivered)
    assert delivered[-1].endswith(") and so on.")


def test_a_link_across_the_seam_of_two_channels() -> None:
    exchange = Exchange(POLICIES[Action.REDACT], DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16)
    lane = exchange.lane(0)
    lane.open("reasoning", PlainView(ChannelKind.REASONING))
    lane.open("answer", PlainView(ChannelKind.OUTPUT))
    lane.feed("reasoning", "I show ![x](https://c.example/?d=")
    lane.feed("answer", f"{CODED}&m={MAIL}) and that is all there is to say about it.")
    lane.finish()
    assert CODED not in "".join(emission.text for emission in lane.take())
