"""An observer sees what the core does and changes nothing; whoever asks why a text is held is told who holds it."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_kit import answers
from test_guarantees import CUTS, DETECTORS, POLICIES, TEXTS, pieces

from cotguard.detectors.contract import Detector, RequestFacts, Scope, Session
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange, Lane, ModerationFault, Outcome
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.observer import REQUEST, Recorder
from cotguard.moderation.view import Edit, PlainView, View
from cotguard.policy import Policy, parse
from cotguard.spans import Action, ChannelKind, Span

REASONING, OUTPUT = ChannelKind.REASONING, ChannelKind.OUTPUT
VIEWS: Mapping[str, Callable[[], View]] = {
    "plain": lambda: PlainView(REASONING),
    "markers": lambda: MarkerView(OUTPUT),
    "json": lambda: JsonView(),
}


class Watch:
    """Notes what it is told of one channel."""

    def __init__(self) -> None:
        self.raw = ""
        self.kinds: list[ChannelKind] = []
        self.decided_: list[tuple[Span, ChannelKind, Action, Outcome, int]] = []
        self.passed_: list[Span] = []
        self.written = ""
        self.released = 0
        self.edits: list[Edit] = []
        self.end_of_block: int | None = None

    def received(self, text: str, kind: ChannelKind) -> None:
        self.raw += text
        self.kinds += [kind] * len(text)

    def decided(self, span: Span, kind: ChannelKind, action: Action, outcome: Outcome, rule: int) -> None:
        self.decided_.append((span, kind, action, outcome, rule))

    def passed(self, span: Span) -> None:
        self.passed_.append(span)

    def wrote(self, start: int, end: int, edits: Sequence[Edit], text: str) -> None:
        assert start == self.released <= end <= len(self.raw)
        assert edited(self.raw, start, end, edits) == text
        self.released = end
        self.written += text
        self.edits += edits

    def blocked(self, end: int) -> None:
        self.end_of_block = end


def edited(raw: str, start: int, end: int, edits: Sequence[Edit]) -> str:
    """The text of a range with the edits applied, which must be in order and inside."""
    out, at = "", start
    for edit_start, edit_end, text in edits:
        assert at <= edit_start < edit_end <= end
        out += raw[at:edit_start] + text
        at = edit_end
    return out + raw[at:end]


class Watches:
    """Follows all channels, by lane and key."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, Hashable], Watch] = {}

    def channel(self, lane: int, key: Hashable, kind: ChannelKind) -> Watch:
        watch = self.found[lane, key] = Watch()
        return watch


def moderated(policy: Policy, view: View, parts: Sequence[str], observer: Watches | None, hides: bool) -> list[str]:
    """What has been delivered after each piece, and in the end."""
    hidden = frozenset({REASONING}) if hides else frozenset()
    exchange = Exchange(
        policy, DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16, hidden=hidden, observer=observer
    )

    def look(lane: Lane) -> None:
        if observer is not None and not lane.cut:
            watch = observer.found[0, "text"]
            why = lane.why("text")
            assert bool(why) >= (watch.released < len(watch.raw)), "nobody holds what is on hold"
            assert lane.why("text") == why, "asking changed something"
            assert set(why) <= {each.name for each in DETECTORS} | {"marker", "token", "link", "value"}

    delivered = answers(exchange, view, parts, look)
    assert exchange.lane(0).why("text") == []
    return delivered


def as_document(text: str) -> str:
    return json.dumps({"to": [text, "and \\ more"], "n": 4111111111111111, text[:9]: None})


@settings(max_examples=60, deadline=None)
@given(
    text=TEXTS,
    widths=CUTS,
    action=st.sampled_from(list(POLICIES)),
    name=st.sampled_from(list(VIEWS)),
    hides=st.booleans(),
)
def test_an_observer_changes_nothing_and_can_follow_every_character(
    text: str, widths: list[int], action: Action, name: str, hides: bool
) -> None:
    parts = pieces(as_document(text) if name == "json" else text, widths)
    observer = Watches()
    seen = moderated(POLICIES[action], VIEWS[name](), parts, observer, hides)
    assert seen == moderated(POLICIES[action], VIEWS[name](), parts, None, hides)
    watch = observer.found[0, "text"]
    assert watch.written == seen[-1]
    assert (watch.end_of_block is None) == (watch.released == len(watch.raw))
    if action is not Action.BLOCK:
        view = VIEWS[name]()
        assert watch.raw == view.feed("".join(parts), final=True)
        assert watch.kinds == [view.kind_at(at) for at in range(len(watch.raw))]


def policy_of(*rules: str, **more: str) -> Policy:
    text = "version: 1\nname: t\nclassifier: false\n" + "".join(f"{name}: {each}\n" for name, each in more.items())
    return parse(text + "rules:\n" + "".join(f"  - {rule}\n" for rule in rules), "t.yaml", None)


EMAIL = "{entities: [EMAIL_ADDRESS], action: redact}"


def test_a_decision_is_told_with_its_rule_and_outcome() -> None:
    text = "mail ann.lee@example.com from 203.0.113.77 now"
    rules = ("{entities: [EMAIL_ADDRESS], channels: [output], action: mask}", EMAIL, "{entities: [ALL], action: flag}")
    for mode, outcome in (("enforce", Outcome.REDACTED), ("shadow", Outcome.WOULD_HAVE)):
        observer = Watches()
        exchange = Exchange(policy_of(*rules, mode=mode), DETECTORS, RequestFacts(), b"k" * 16, observer=observer)
        lane = exchange.lane(3)
        lane.open("a", PlainView(REASONING))
        lane.feed("a", text)
        lane.finish()
        told = [(text[s.start : s.end], kind, *rest) for s, kind, *rest in observer.found[3, "a"].decided_]
        assert sorted(told) == [
            ("203.0.113.77", REASONING, Action.FLAG, Outcome.FLAGGED, 2),
            ("ann.lee@example.com", REASONING, Action.REDACT, outcome, 1),
        ]


def test_texts_of_the_request_are_told_as_such() -> None:
    policy = policy_of("{entities: [EMAIL_ADDRESS], action: pseudonymize}", request="{texts: moderate}")
    observer, recorder = Watches(), Recorder()
    for each in (observer, recorder):
        exchange = Exchange(policy, DETECTORS, RequestFacts(), b"k" * 16, observer=each)
        assert exchange.read(PlainView(ChannelKind.USER), "I am ann.lee@example.com") == "I am [EMAIL_ADDRESS_1]"
        lane = exchange.lane(0)
        lane.open("a", PlainView(OUTPUT))
        lane.feed("a", "So you are [EMAIL_ADDRESS_1], and she is bo@example.com. ")
        lane.finish()
    sent, answer = observer.found[REQUEST, None], observer.found[0, "a"]
    assert (sent.raw, sent.written) == ("I am ann.lee@example.com", "I am [EMAIL_ADDRESS_1]")
    assert sent.edits == [(5, 24, "[EMAIL_ADDRESS_1]")]
    outcomes = [(span.start, action, outcome) for span, _, action, outcome, _ in answer.decided_]
    assert (11, Action.ALLOW, Outcome.RESTORED) in outcomes
    assert (11, 28, "ann.lee@example.com") in answer.edits
    assert sorted(span.start for span, _ in recorder.spans) == [11, 41]  # those of the answer


def test_a_part_of_a_value_that_may_pass_is_told_to_pass() -> None:
    rule = "{entities: [ALL], channels: [output], unless_origin: [user], action: redact}"
    policy = policy_of(rule)
    whole, part = Span(5, 24, "EMAIL_ADDRESS", 1, "fixed/email"), Span(10, 16, "PERSON", 1, "classifier/PERSON")
    observer = Watches()
    exchange = Exchange(policy, [Fixed([whole, part])], RequestFacts(), b"k" * 16, observer=observer)
    exchange.note(PlainView(ChannelKind.USER), "I am ann.lee@example.com")
    lane = exchange.lane(0)
    lane.open("a", PlainView(OUTPUT))
    lane.feed("a", "mail ann.lee@example.com now")
    lane.finish()
    watch = observer.found[0, "a"]
    assert watch.written == watch.raw
    assert [(span, action) for span, _, action, _, _ in watch.decided_] == [
        (whole, Action.ALLOW),
        (part, Action.REDACT),
    ]
    assert set(watch.passed_) == {part}


# --- Why a text is held ----------------------------------------------------------------------------------------------


class Fixed:
    """Finds given spans as soon as their text is there, and is sure of what is further back than ``late``."""

    entities: Final = frozenset({"EMAIL_ADDRESS", "PERSON"})

    def __init__(self, spans: Sequence[Span] = (), late: int = 0, name: str = "fixed") -> None:
        self.name = name
        self.spans = spans
        self.late = late

    def open(self, scope: Scope) -> Session:
        return _Fixed(self)


class _Fixed:
    def __init__(self, fixed: Fixed) -> None:
        self._fixed = fixed
        self._read = 0

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        before, self._read = self._read, self._read + len(text)
        spans = [span for span in self._fixed.spans if before < span.end <= self._read]
        return spans, self._read if final else max(self._read - self._fixed.late, 0)


ALL = policy_of("{entities: [ALL], action: redact}")


def held(detectors: Sequence[Detector], view: View, *parts: str) -> list[str]:
    lane = Exchange(ALL, detectors, RequestFacts(), b"k" * 16, observer=Watches()).lane(0)
    lane.open("a", view)
    for part in parts:
        lane.feed("a", part)
    return lane.why("a")


def test_detectors_are_named_that_are_not_sure() -> None:
    detectors = (Fixed(late=3, name="one"), Fixed(name="two"), Fixed(late=5, name="three"))
    assert held(detectors, PlainView(OUTPUT), "a text") == ["one", "three"]
    assert held((Fixed(),), PlainView(OUTPUT), "a text") == []
    assert held((), PlainView(OUTPUT), "a text") == []


def test_a_value_that_reaches_behind_what_is_sure_is_named() -> None:
    value = Fixed([Span(2, 6, "PERSON", 1, "fixed/person")])
    assert held((value, Fixed(late=1, name="late")), PlainView(OUTPUT), "a text") == ["late", "value"]


def test_the_target_of_a_link_is_named() -> None:
    found = held(build(policy_of(EMAIL)), PlainView(OUTPUT), "see ![](https://a.example/?q=")
    assert "links" in found
    link = Fixed([Span(2, 9, "LINK", 1, "links")])
    assert held((link, Fixed(late=1, name="late")), PlainView(OUTPUT), "a //text.") == ["late", "link"]


@pytest.mark.parametrize("begun", ['"\\u00', '"\\ud83d\\u', "12", "-"])
def test_what_a_view_cannot_read_yet_is_named(begun: str) -> None:
    assert held((Fixed(),), JsonView(), begun) == ["token"]
    assert held((Fixed(),), JsonView(), "[", begun) == ["token"]


def test_the_beginning_of_a_marker_and_half_a_character_are_named() -> None:
    assert held((Fixed(),), MarkerView(OUTPUT), "so <thi") == ["token"]
    assert held((Fixed(),), PlainView(OUTPUT), "so \ud83d") == ["token"]


def test_a_value_across_a_marker_is_named() -> None:
    assert "marker" in held(DETECTORS, MarkerView(OUTPUT), "<think>mail ann.lee</think>@exam")


def test_the_seam_is_named_where_a_later_text_waits_for_an_earlier_one() -> None:
    observer = Watches()
    lane = Exchange(ALL, [Fixed(late=4)], RequestFacts(), b"k" * 16, observer=observer).lane(0)
    for key, kind, text in (("a", REASONING, "a thought"), ("b", OUTPUT, "an answer")):
        lane.open(key, PlainView(kind))
        lane.feed(key, text)
    assert lane.why("a") == ["fixed"]
    assert lane.why("b") == ["fixed", "seam"]
    assert (observer.found[0, "a"].released, observer.found[0, "b"].released) == (5, 0)
    lane.feed("b", " that is long enough")
    lane.feed("b", ", and goes on")
    assert lane.why("a") == []
    assert lane.why("b") == ["fixed"]
    lane.finish()
    assert lane.why("b") == []


def test_nobody_holds_what_goes_on_unmoderated() -> None:
    class Broken(Fixed):
        def open(self, scope: Scope) -> Session:
            return _Broken()

    class _Broken:
        def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
            raise RuntimeError("ann.lee@example.com")

    open_ = policy_of(EMAIL, on_error="open")
    lane = Exchange(open_, [Broken()], RequestFacts(), b"k" * 16, observer=Watches()).lane(0)
    lane.open("a", PlainView(OUTPUT))
    lane.feed("a", "a text")
    assert lane.why("a") == []
    lane = Exchange(policy_of(EMAIL), [Broken()], RequestFacts(), b"k" * 16, observer=Watches()).lane(0)
    lane.open("a", PlainView(OUTPUT))
    with pytest.raises(ModerationFault, match="RuntimeError"):
        lane.feed("a", "a text")
