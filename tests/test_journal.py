"""Every verdict that is counted is recorded, with what an auditor asks, and nothing of the text."""

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.verdict import Decision, Journal, Outcome, Verdict
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, parse
from cotguard.spans import Action, ChannelKind

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
