"""Every verdict that is counted is recorded, with what an auditor asks, and nothing of the text."""

import hashlib
import re
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.verdict import Decision, Journal, Outcome, Verdict
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, parse
from cotguard.spans import Action, ChannelKind, Span

POLICY = parse(
    """
version: 1
name: recorded
classifier: false
request: {texts: moderate}
rules:
  - {entities: [PHONE_NUMBER], channels: [reasoning], action: flag}
  - {entities: [EMAIL_ADDRESS], unless_origin: [user], action: redact}
  - {entities: [CREDIT_CARD], action: block}
  - {entities: [PHONE_NUMBER], action: pseudonymize}
  - {entities: [IP_ADDRESS], action: withhold}
""",
    "recorded.yaml",
    None,
)
DETECTORS = build(POLICY)
PIECES = st.lists(
    st.sampled_from(
        [
            "mail ann.lee@example.com ",
            "or bob@example.org ",
            "call +1 415 555 2671 ",
            "card 4111 1111 1111 1111 ",
            "host 10.1.2.3 ",
            "and words ",
            "https://example.com/?q=bob@example.org ",
        ]
    ),
    max_size=6,
)


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]


def run(policy: Policy, detectors: tuple[Detector, ...], asked: str, pieces: list[str]) -> tuple[Exchange, Journal]:
    journal = Journal(hashed)
    exchange = Exchange(policy, detectors, RequestFacts(), b"k" * 16, journal=journal)
    exchange.note(PlainView(ChannelKind.USER), asked)
    exchange.read(PlainView(ChannelKind.USER), asked)
    lane = exchange.lane(0)
    lane.open("r", PlainView(ChannelKind.REASONING))
    for piece in pieces:
        lane.feed("r", piece)
    lane.finish()
    return exchange, journal


@given(asked=st.sampled_from(["hello", "I am ann.lee@example.com", "call +1 415 555 2671"]), pieces=PIECES)
def test_what_is_counted_is_recorded(asked: str, pieces: list[str]) -> None:
    exchange, journal = run(POLICY, DETECTORS, asked, pieces)
    taken = journal.take()
    recorded = Counter(Verdict(each.entity, each.kind, each.action, each.outcome) for each in taken)
    assert recorded == exchange.tally
    assert journal.take() == []


def test_a_record_says_which_rule_where_and_what_recurs() -> None:
    asked = "I am ann.lee@example.com"
    text = "it was Bob@example.org, not ann.lee@example.com, bob@example.org"
    _, journal = run(POLICY, DETECTORS, asked, [text])
    found = [each for each in journal.take() if each.kind is ChannelKind.REASONING]
    redacted = [each for each in found if each.action is Action.REDACT]
    assert [(each.start, each.length, each.rule, each.entity) for each in redacted] == [
        (text.index("Bob"), 15, 1, "EMAIL_ADDRESS"),
        (text.index("bob"), 15, 1, "EMAIL_ADDRESS"),
    ]
    assert redacted[0].detector.startswith("patterns/")
    own = [each for each in found if each.action is Action.ALLOW]
    assert [(each.outcome, each.rule, each.value) for each in own] == [
        (Outcome.ALLOWED, -1, hashed("ann.lee@example.com"))
    ]
    assert redacted[1].value == hashed("bob@example.org")


class Late:
    """Finds addresses again, and says so forty characters later: as the classifier does."""

    name = "late"
    entities = frozenset({"EMAIL_ADDRESS"})

    def __init__(self) -> None:
        self._text = ""
        self._stable = 0

    def open(self, _scope: object) -> "Late":
        return Late()

    def advance(self, text: str, final: bool) -> tuple[list[Span], int]:
        self._text += text
        before, self._stable = self._stable, len(self._text) - 40 * (not final)
        if self._stable <= before:
            self._stable = before
            return [], before
        found = [match.span() for match in re.finditer(r"[a-z.]{3,12}@example", self._text)]
        spans = [
            Span(start, end, "EMAIL_ADDRESS", 0.4, "late") for start, end in found if before <= start < self._stable
        ]
        return spans, self._stable


@given(pieces=PIECES, data=st.data())
def test_what_is_recorded_does_not_depend_on_the_cuts(pieces: list[str], data: st.DataObject) -> None:
    """Nor on who finds a value first, nor on what was read behind a block."""
    text = "".join(pieces)
    detectors = (*DETECTORS, Late())
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=12)))
    whole, journal = run(POLICY, detectors, "I am ann.lee@example.com", [text])
    parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    again, other = run(POLICY, detectors, "I am ann.lee@example.com", parts)
    assert again.tally == whole.tally
    assert other.take() == journal.take()


def test_a_value_that_passes_is_counted_once() -> None:
    asked = "I am ann.lee@example.com"
    exchange, _ = run(POLICY, (*DETECTORS, Late()), asked, ["your mail is ann.lee@example.com, and that is all"])
    passed = Verdict("EMAIL_ADDRESS", ChannelKind.REASONING, Action.ALLOW, Outcome.ALLOWED)
    assert {each: count for each, count in exchange.tally.items() if each.kind is ChannelKind.REASONING} == {passed: 1}


class Broken:
    name = "broken"
    entities = frozenset({"EMAIL_ADDRESS"})

    def open(self, scope: object) -> "Broken":
        return self

    def advance(self, text: str, final: bool) -> tuple[list[object], int]:
        raise ValueError(text)


def test_a_fault_is_recorded_without_a_value() -> None:
    policy = parse("version: 1\nname: open\non_error: open\nclassifier: false\nrules: []\n", "open.yaml", None)
    journal = Journal(hashed)
    exchange = Exchange(policy, (Broken(),), RequestFacts(), b"k" * 16, journal=journal)  # type: ignore[arg-type]
    lane = exchange.lane(0)
    lane.open("r", PlainView(ChannelKind.REASONING))
    lane.feed("r", "a text")
    assert journal.take() == [
        Decision("", ChannelKind.REASONING, Action.ALLOW, Outcome.BYPASSED, 0.0, "", -1, 0, 0, "")
    ]
