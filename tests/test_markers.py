import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cotguard.moderation
from cotguard.framing.sse import Reader, is_done, parse
from cotguard.moderation.markers import MarkerView, initial_kind
from cotguard.moderation.view import Edit
from cotguard.spans import ChannelKind

OUTPUT = ChannelKind.OUTPUT
REASONING = ChannelKind.REASONING

DATA = yaml.safe_load((Path(cotguard.moderation.__file__).parent / "markers.yaml").read_text("utf-8"))
OPEN = [marker for family in DATA["families"].values() for marker in family.get("open", ())]
CLOSE = [marker for family in DATA["families"].values() for marker in family.get("close", ())]
OPEN_AT_LINE = [marker for family in DATA["families"].values() for marker in family.get("open_at_line", ())]
CLOSE_AT_LINE = [marker for family in DATA["families"].values() for marker in family.get("close_at_line", ())]
OPEN += [f"<{tag}>" for tag in DATA["tags"]]
CLOSE += [f"</{tag}>" for tag in DATA["tags"]]


def feed(view: MarkerView, pieces: Sequence[str]) -> str:
    return "".join([view.feed(piece, final=False) for piece in pieces] + [view.feed("", final=True)])


def marked(pieces: Sequence[str], initial: ChannelKind = OUTPUT) -> str:
    """One letter for each character of the text: ``R`` for reasoning, ``o`` for output."""
    view = MarkerView(initial)
    text = feed(view, pieces)
    assert text == "".join(pieces)
    assert view.settled == len(text)
    return "".join("R" if view.kind_at(offset) is REASONING else "o" for offset in range(len(text)))


def kinds(text: str, initial: ChannelKind = OUTPUT) -> list[tuple[str, str]]:
    """Stretches of one kind."""
    found = marked([text], initial)
    stretches: list[tuple[str, str]] = []
    at = 0
    for kind, group in itertools.groupby(found):
        size = len(list(group))
        stretches.append((kind, text[at : at + size]))
        at += size
    return stretches


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("plain < text & [more] \\ H", [("o", "plain < text & [more] \\ H")]),
        ("<think>a</think>b", [("R", "<think>a</think>"), ("o", "b")]),
        ("x<think>a</think>b", [("o", "x"), ("R", "<think>a</think>"), ("o", "b")]),
        ("a</think>b", [("o", "a"), ("R", "</think>"), ("o", "b")]),
        ("a<think>b", [("o", "a"), ("R", "<think>b")]),
        (
            "<think>a</think>b<think>c</think>d",
            [("R", "<think>a</think>"), ("o", "b"), ("R", "<think>c</think>"), ("o", "d")],
        ),
        (
            "<think>a<think>b</think>c</think>d",
            [("R", "<think>a<think>b</think>"), ("o", "c"), ("R", "</think>"), ("o", "d")],
        ),
        (
            "<think>a<scratchpad>b</scratchpad>c</think>d",
            [("R", "<think>a<scratchpad>b</scratchpad>c</think>"), ("o", "d")],
        ),
        ("<think>a<scratchpad>b</think>c", [("R", "<think>a<scratchpad>b</think>"), ("o", "c")]),
        ("<think>a</scratchpad>b</think>c", [("R", "<think>a</scratchpad>b</think>"), ("o", "c")]),
        ("<think><think>a</think>b", [("R", "<think><think>a</think>"), ("o", "b")]),
        ("<<think>a", [("o", "<"), ("R", "<think>a")]),
        ("<thi<think>a", [("o", "<thi"), ("R", "<think>a")]),
        ("<thinker>a", [("o", "<thinker>a")]),
        ("<think", [("o", "<think")]),
        ("think>a", [("o", "think>a")]),
        ("<answer>a</answer>", [("o", "<answer>a</answer>")]),
        (
            "<think>\na\n</think>\n<answer>\nb\n</answer>",
            [("R", "<think>\na\n</think>"), ("o", "\n<answer>\nb\n</answer>")],
        ),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            [
                ("R", "<|channel|>analysis<|message|>a<|end|>"),
                ("o", "<|start|>assistant"),
                ("R", "<|channel|>final"),
                ("o", "<|message|>b"),
                ("R", "<|return|>"),
            ],
        ),
        (
            " to=self<|message|>a<|eom|><|start|>assistant to=user<|message|>b",
            [("R", " to=self<|message|>a<|eom|><|start|>assistant to=user<|message|>"), ("o", "b")],
        ),
        (
            "Here is my thought process: a\nHere's my response: b",
            [("R", "Here is my thought process: a\nHere's my response:"), ("o", " b")],
        ),
        ("So: Here is my thought process: a", [("o", "So: Here is my thought process: a")]),
        ("a\nHere is my thought process: b", [("o", "a\n"), ("R", "Here is my thought process: b")]),
    ],
)
def test_kinds_between_markers(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a</think>b", [("R", "a</think>"), ("o", "b")]),
        ("a", [("R", "a")]),
        ("<think>a</think>b", [("R", "<think>a</think>"), ("o", "b")]),
        ("a<think>b</think>c", [("R", "a<think>b</think>"), ("o", "c")]),
        ("a<scratchpad>b</scratchpad>c</think>d", [("R", "a<scratchpad>b</scratchpad>c</think>"), ("o", "d")]),
        ("a</scratchpad>b", [("R", "a</scratchpad>"), ("o", "b")]),
        ("a</seed:think>b<think>c", [("R", "a</seed:think>"), ("o", "b"), ("R", "<think>c")]),
    ],
)
def test_kinds_where_the_template_began_to_reason(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text, REASONING) == expected


def spelt(marker: str) -> list[str]:
    """Spellings of a marker that models and servers use."""
    found = [marker, marker.lower(), marker.upper()]
    for char, escapes in DATA["spellings"].items():
        found += [marker.replace(char, escape) for escape in escapes if char in marker]
    found += [marker.replace("<", "&LT;").replace(">", "&Gt;")]
    if marker[0] in "<[" and marker[-1] in ">]":
        found += [f"{marker[0]} {marker[1:-1]}\t\n{marker[-1]}"]
    return found


@pytest.mark.parametrize("marker", OPEN + OPEN_AT_LINE)
def test_every_opening_marker_is_known_in_every_spelling(marker: str) -> None:
    before = "a\n" if marker in OPEN_AT_LINE else "a"
    for spelling in spelt(marker):
        text = f"{before}{spelling}b"
        assert kinds(text) == [("o", before), ("R", f"{spelling}b")], spelling


@pytest.mark.parametrize("marker", CLOSE + CLOSE_AT_LINE)
def test_every_closing_marker_is_known_in_every_spelling(marker: str) -> None:
    before = "a\n" if marker in CLOSE_AT_LINE else "a"
    for spelling in spelt(marker):
        text = f"{before}{spelling}b"
        assert kinds(text, REASONING) == [("R", f"{before}{spelling}"), ("o", "b")], spelling


@pytest.mark.parametrize("family", DATA["families"])
def test_a_family_closes_what_it_opened(family: str) -> None:
    members = DATA["families"][family]
    for opening in members.get("open", []) + members.get("open_at_line", []):
        for closing in members.get("close", []) + members.get("close_at_line", []):
            text = f"{opening}a\n{closing}"
            assert kinds(f"{text}b") == [("R", text), ("o", "b")]


def test_only_what_may_become_a_marker_waits() -> None:
    view = MarkerView(OUTPUT)
    assert view.feed("He", final=False) == ""
    assert view.feed("llo <", final=False) == "Hello "
    assert view.settled == 6
    assert view.kind_at(6) is OUTPUT
    assert view.feed("thi", final=False) == ""
    assert view.feed("s> [TH", final=False) == "<this> "
    assert view.feed("INK", final=False) == ""
    assert view.feed("]", final=False) == "[THINK]"
    assert view.kind_at(20) is REASONING
    assert view.feed("a\n", final=False) == "a\n"
    assert view.feed("x &lt", final=True) == "x &lt"
    assert view.settled == 27
    assert view.feed("goes on", final=False) == "goes on"


def test_surrogates_are_paired() -> None:
    view = MarkerView(OUTPUT)
    assert feed(view, ["a\ud83d", "\ude00<thi", "nk>", "\ud83d"]) == "a😀<think>�"
    assert view.kind_at(2) is REASONING


@pytest.mark.parametrize(
    ("edits", "written"),
    [
        ([], "ab<think>cd</think>ef"),
        ([(0, 21, "")], "<think></think>"),
        ([(1, 10, "X")], "aX<think>Xd</think>ef"),
        ([(4, 6, "X")], "ab<think>cd</think>ef"),
        ([(0, 3, "X"), (4, 10, "Y"), (20, 21, "Z")], "X<think>Yd</think>eZ"),
        ([(9, 11, "X"), (11, 19, "Y"), (19, 21, "Z")], "ab<think>X</think>Z"),
    ],
)
def test_markers_stay_in_edits(edits: list[Edit], written: str) -> None:
    view = MarkerView(OUTPUT)
    assert feed(view, ["ab<think>cd</think>ef"]) == "ab<think>cd</think>ef"
    assert view.render(0, 21, edits) == written


def test_rendering_in_stretches_keeps_kinds_and_markers() -> None:
    text = "ab<think>cd</think>ef"
    expected = marked([text])
    for stop in range(len(text) + 1):
        view = MarkerView(OUTPUT)
        feed(view, [text])
        first = view.render(0, stop, [(0, stop, "")] if stop else [])
        found = ["R" if view.kind_at(offset) is REASONING else "o" for offset in range(stop, len(text))]
        assert "".join(found) == expected[stop:]
        assert view.slice(stop, len(text)) == text[stop:]
        assert first == "".join(text[at] for at in range(stop) if 2 <= at < 9 or 11 <= at < 19)
        assert view.render(stop, len(text), []) == text[stop:]


MARKERS = [
    "<|start|>assistant to=self<|message|>",
    "&lt;think&gt;",
    "<scratchpad>",
    "</scratchpad>",
    "<|channel|>final",
]
MARKERS += ["<|start|>assistant", "\\<think\\>", "</THINK >", *OPEN[:4], *CLOSE[:4], *OPEN_AT_LINE, *CLOSE_AT_LINE]
PIECES = st.sampled_from([*MARKERS, "a", "\n", " ", "<", "</", "Here", "&lt;", "\\", "[", "◁", "😀", "x = y < z"])
TEXTS = st.lists(PIECES, max_size=10).map("".join)


def cut(text: str, places: Sequence[int]) -> list[str]:
    at = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(at)]


def outcome(pieces: Sequence[str], initial: ChannelKind) -> tuple[str, str]:
    view = MarkerView(initial)
    size = len(feed(view, pieces))
    edits = [(at, min(at + 5, size), "X") for at in range(1, size, 7)]
    return marked(pieces, initial), view.render(0, size, edits)


@given(TEXTS, st.sampled_from([OUTPUT, REASONING]), st.lists(st.integers(0, 150), max_size=6))
def test_nothing_depends_on_cuts(text: str, initial: ChannelKind, places: list[int]) -> None:
    whole = outcome([text], initial)
    assert outcome(cut(text, places), initial) == whole
    assert outcome(list(text), initial) == whole


@given(TEXTS, st.sampled_from([OUTPUT, REASONING]))
def test_the_kind_of_text_that_was_seen_is_final(text: str, initial: ChannelKind) -> None:
    expected = marked([text], initial)
    view = MarkerView(initial)
    seen = ""
    for char in text:
        added = view.feed(char, final=False)
        for offset in range(len(seen), len(seen) + len(added)):
            assert (view.kind_at(offset) is REASONING) == (expected[offset] == "R")
        seen += added
    assert text.startswith(seen)
    assert len(text) - len(seen) <= 120


@pytest.mark.parametrize(
    "text", ["<think>a</think>b", "<|start|>assistant to=self<|message|>a<|eom|>b", "a\nHere's my response: b"]
)
def test_every_cut_in_two(text: str) -> None:
    whole = outcome([text], OUTPUT)
    for place in range(len(text) + 1):
        assert outcome([text[:place], text[place:]], OUTPUT) == whole


def test_what_is_replaced_has_a_part_between_any_two_markers() -> None:
    view = MarkerView(OUTPUT)
    text = view.feed("a<think>b</think><think>cd</think>e", final=True)
    assert [text[first:last] for first, last in view.parts(0, len(text))] == ["a", "b", "cd", "e"]
    assert list(view.parts(text.index("think"), text.index("d"))) == [(8, 9), (24, 25)]
    assert list(view.parts(2, 4)) == []


@pytest.mark.parametrize("unit", ["<", "< ", "&lt; ", "<|", "\n ", "\\\\", "[/", "<think", "<think>", "word "])
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        best = float("inf")
        for _ in range(3):
            view = MarkerView(OUTPUT)
            begun = time.process_time()
            at = 0
            for place in range(0, len(text), 3):
                view.feed(text[place : place + 3], final=False)
                if view.settled > at:
                    view.render(at, view.settled, ())
                    at = view.settled
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(24_000) < 10 * max(seconds(6_000), 0.001)


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-r1",
        "deepseek-ai/DeepSeek-R1-0528",
        "Qwen/Qwen3-235B-A22B-Thinking-2507",
        "qwq:32b",
        "a/b/MiniMax-M2",
        "step-3",
    ],
)
def test_models_whose_template_opens_the_thought(model: str) -> None:
    assert initial_kind(model) is REASONING


@pytest.mark.parametrize(
    "model",
    ["", "gpt-oss-120b", "qwen3-8b", "deepseek-chat", "my-deepseek-r1", "deepseek-r1/other", "\n", "x" * 10_000],
)
def test_other_models_begin_with_their_answer(model: str) -> None:
    assert initial_kind(model) is OUTPUT


CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the recordings are not part of the repository")
@pytest.mark.parametrize(
    ("name", "initial"), [("qwen15-inline-think.sse", OUTPUT), ("qwen15-inline-think-forced.sse", REASONING)]
)
def test_recorded_thoughts_are_told_from_answers(name: str, initial: ChannelKind) -> None:
    deltas: list[str] = []
    for block in Reader().feed((CAPTURES / name).read_bytes()):
        each = parse(block)
        if each is not None and not is_done(each.data):
            choices = json.loads(each.data)["choices"]
            deltas += [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
    text = "".join(deltas)
    thought_end = text.index("</think>") + len("</think>")
    found = marked(deltas, initial)
    assert found[:thought_end] == "R" * thought_end
    assert found[thought_end:].count("R") == len("</think>") * (text.count("</think>") - 1)
    assert "o" in found
