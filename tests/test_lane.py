"""Lanes of blocks: what stands before, between and behind texts is written in its place, however texts were cut."""

from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Emission, Exchange
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.lane import PATIENCE, Lane
from cotguard.moderation.observer import Recorder
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, load, parse
from cotguard.spans import ChannelKind

DETECTORS: tuple[Detector, ...] = build(load("balanced"))
REDACT = parse("version: 1\nname: t\nrules:\n  - entities: [ALL]\n    action: redact\n", "t.yaml", None)
BLOCK = parse("version: 1\nname: t\nrules:\n  - entities: [CREDIT_CARD]\n    action: block\n", "t.yaml", None)
FRAGMENTS = [
    "ann.lee@example.com",
    "4111 1111",
    " 1111 1111",
    "so ",
    "an",
    "and that is it, then. ",
    "536-22-",
    "8145",
    "",
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=4).map("".join)
REASONING, OUTPUT, CALL = ChannelKind.REASONING, ChannelKind.OUTPUT, ChannelKind.TOOL_CALL
BLOCKS = st.lists(
    st.one_of(st.tuples(st.sampled_from([REASONING, OUTPUT, CALL]), TEXTS), st.just("mark")), min_size=1, max_size=6
)
Blocks = Sequence[tuple[ChannelKind, str] | str]
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


def new_lane(policy: Policy = REDACT) -> Lane:
    return Exchange(policy, DETECTORS, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16).lane(0)


def flat(emissions: Sequence[Emission]) -> list[tuple[str, Hashable, str]]:
    """What a client gets, in order: heads, texts, tails and marks; texts of one channel beside each other as one."""
    found: list[tuple[str, Hashable, str]] = []
    for each in emissions:
        if each.key is None:
            found.append(("mark", each.head, ""))
            continue
        if each.head is not None:
            found.append(("head", each.key, ""))
        if each.text:
            if found and found[-1][:2] == ("text", each.key):
                found[-1] = ("text", each.key, found[-1][2] + each.text)
            else:
                found.append(("text", each.key, each.text))
        if each.tail is not None:
            found.append(("tail", each.key, ""))
    return found


def run(blocks: Blocks, widths: Sequence[int], policy: Policy = REDACT) -> list[list[Emission]]:
    """Everything that was to be written, after every step."""
    lane, seen, turn = new_lane(policy), [], 0
    taken: list[Emission] = []

    def note() -> None:
        taken.extend(lane.take())
        seen.append(list(taken))

    for number, block in enumerate(blocks):
        if isinstance(block, str):
            lane.mark(number)
            note()
            continue
        kind, text = block
        if kind is CALL:
            text = f'{{"a": "{text}"}}'
        lane.open(number, JsonView() if kind is CALL else PlainView(kind), "head")
        at = 0
        while at < len(text):
            width = widths[turn % len(widths)]
            lane.feed(number, text[at : at + width])
            note()
            at, turn = at + width, turn + 1
        lane.end(number, "tail")
        note()
    lane.finish()
    note()
    return seen


def starts(part: Sequence[tuple[str, Hashable, str]], whole: Sequence[tuple[str, Hashable, str]]) -> bool:
    """Whether what was written is the beginning of all there is in the end."""
    if not part:
        return True
    *before, (what, key, text) = part
    if len(part) > len(whole) or before != list(whole[: len(before)]):
        return False
    last = whole[len(before)]
    return last[:2] == (what, key) and last[2].startswith(text)


def check(blocks: Blocks, widths: Sequence[int], policy: Policy) -> None:
    whole = flat(run(blocks, [10**6], policy)[-1])
    steps = run(blocks, widths, policy)
    assert flat(steps[-1]) == whole
    assert all(starts(flat(step), whole) for step in steps)
    if policy is REDACT:
        expected: list[tuple[str, Hashable]] = []
        for number, block in enumerate(blocks):
            expected += [("mark", number)] if isinstance(block, str) else [("head", number), ("tail", number)]
        assert [(what, key) for what, key, _ in whole if what != "text"] == expected


@pytest.mark.parametrize("policy", [REDACT, BLOCK], ids=["redact", "block"])
@settings(max_examples=150, deadline=None)
@given(blocks=BLOCKS, widths=CUTS)
def test_blocks_are_written_in_order_however_they_were_cut(
    policy: Policy, blocks: Blocks, widths: Sequence[int]
) -> None:
    check(blocks, widths, policy)


@pytest.mark.long
@pytest.mark.parametrize("policy", [REDACT, BLOCK], ids=["redact", "block"])
@settings(max_examples=20_000, deadline=None)
@given(blocks=BLOCKS, widths=CUTS)
def test_blocks_in_many_cases(policy: Policy, blocks: Blocks, widths: Sequence[int]) -> None:
    check(blocks, widths, policy)


def test_a_value_across_two_blocks_is_found_and_what_stands_between_waits() -> None:
    blocks: Blocks = [(REASONING, "The card is 4111 1111"), "mark", (OUTPUT, " 1111 1111, as they say.")]
    found = flat(run(blocks, [3])[-1])
    assert [each for each in found if each[0] != "text"] == [
        ("head", 0, ""),
        ("tail", 0, ""),
        ("mark", 1, ""),
        ("head", 2, ""),
        ("tail", 2, ""),
    ]
    texts = "".join(text for _, _, text in found)
    assert "4111" not in texts
    assert "1111" not in texts
    assert "[CREDIT_CARD]" in texts


def test_short_blocks_behind_a_held_tail_count_together() -> None:
    lane = new_lane()
    lane.open(0, PlainView(REASONING))
    lane.feed(0, "mail ann")
    lane.end(0)
    for number in range(1, 4):
        lane.open(number, JsonView(), "head")
        lane.feed(number, '{"a": "b and c"}')
        lane.end(number, "tail")
    assert len('{"a": "b and c"}') * 2 >= PATIENCE
    written = flat(lane.take())
    assert written[0] == ("text", 0, "mail ann")
    assert written[-1] == ("tail", 3, "")


def test_what_is_over_is_not_looked_at_again() -> None:
    lane = new_lane()
    for number in range(50):
        lane.open(number, PlainView(OUTPUT))
        lane.feed(number, "done. ")
        lane.end(number)
        lane.mark("m")
    lane.finish()
    assert lane._pending == []
    assert len(flat(lane.take())) == 100


def test_a_whole_text_is_moderated_by_itself() -> None:
    lane = new_lane()
    assert lane.whole(PlainView(OUTPUT), "to ann.lee@example.com") == "to [EMAIL_ADDRESS]"
    assert not lane.cut
    blocked = new_lane(BLOCK)
    assert blocked.whole(PlainView(OUTPUT), "card 4111 1111 1111 1111 is") == "card "
    assert blocked.cut


def test_a_value_across_three_blocks_is_found() -> None:
    for rest in ("", ", as they say, and there is no more to it."):
        blocks: Blocks = [(OUTPUT, "It is 4111 "), "mark", (OUTPUT, "1111 "), "mark", (OUTPUT, "1111 1111" + rest)]
        for width in (1, 5, 100):
            texts = [text for _, _, text in flat(run(blocks, [width])[-1]) if text]
            assert "".join(texts).replace("[CREDIT_CARD]", "") == "It is " + rest


def test_short_blocks_with_held_tails_do_not_hold_what_follows() -> None:
    blocks: Blocks = [(OUTPUT, "mail ann"), (OUTPUT, "and bob"), (OUTPUT, "so it goes on and on. " * 9)]
    before_the_end = run(blocks, [7])[-3]
    assert "so it goes on" in "".join(text for _, _, text in flat(before_the_end))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("it ends in 5", "4111 1111 1111 1111 is it.", "[CREDIT_CARD] is it."),
        ("it ends in 5 ", "4111 1111 1111 1111 is it.", "[CREDIT_CARD] is it."),
        ("so xAB", "AKIAIOSFODNN7EXAMPLE is it.", "[SECRET_API_KEY] is it."),
        ("the card", "536-22-8145 it is, her ssn", "[US_SSN] it is, her ssn"),
    ],
)
@pytest.mark.parametrize("width", [1, 5, 100])
def test_what_is_before_a_text_hides_nothing_in_it(before: str, after: str, expected: str, width: int) -> None:
    found = flat(run([(REASONING, before), (OUTPUT, after)], [width])[-1])
    assert [text for what, key, text in found if (what, key) == ("text", 1)] == [expected]


def test_a_value_is_counted_once_where_a_text_is_read_twice() -> None:
    recorder = Recorder()
    exchange = Exchange(REDACT, DETECTORS, RequestFacts(), b"k" * 16, observer=recorder)
    lane = exchange.lane(0)
    for number, text in enumerate(["I say. ", "To ann.lee@example.com, and so on and on it goes."]):
        lane.open(number, PlainView(OUTPUT))
        lane.feed(number, text)
    lane.finish()
    assert [(span.start, span.end) for span, _ in recorder.spans] == [(3, 22)]
