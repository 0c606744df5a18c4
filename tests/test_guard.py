"""Guard models: where text is cut, what is asked, how answers are read, and the contract."""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import cycle
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import RequestFacts, Scope
from cotguard.detectors.registry import build
from cotguard.guard.detector import Guard
from cotguard.guard.format import (
    MAX_SEGMENT,
    GuardError,
    GuardFormat,
    GuardFormatError,
    Hazard,
    Passage,
    load_format,
)
from cotguard.guard.segments import Splitter
from cotguard.moderation.channel import MAX_HELD_CHARS
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, load, parse
from cotguard.spans import ChannelKind

READY = sorted(entry.name.removesuffix(".yaml") for entry in (files("cotguard.guard") / "formats").iterdir())

SMALL = """
version: 1
name: small
segment: {least: 8, most: 20}
context: {user: 10, before: 6}
messages: [{role: user, content: "{user}|{before}|{segment}"}]
verdict: {scores: {safe: 0, unsafe: 1}, categories: {}}
categories: {S1: [VIOLENT_CRIMES], S10: [HATE]}
"""


def form(tmp_path: Path, text: str = SMALL) -> GuardFormat:
    path = tmp_path / "format.yaml"
    path.write_text(text, encoding="utf-8")
    return load_format(str(path))


# --- Segments ----------------------------------------------------------------------------------------------------


def segments(text: str, least: int = 8, most: int = 20, widths: Sequence[int] = (10_000,)) -> list[str]:
    splitter, found, start, received, turn = Splitter(least, most), [], 0, 0, 0
    while received < len(text):
        received = min(received + widths[turn % len(widths)], len(text))
        turn += 1
        final = received == len(text)
        while (end := splitter.end(text[:received], start, final=final)) is not None:
            found.append(text[start:end])
            start = end
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Short.", ["Short."]),
        ("First one. Second one. Third", ["First one. ", "Second one. ", "Third"]),
        ("Hi. Yes. No. And so on. More", ["Hi. Yes. ", "No. And so on. ", "More"]),
        ('He said "go on!" Then left.', ['He said "go on!" ', "Then left."]),
        ("a line\nand another\nend", ["a line\nand another\n", "end"]),
        ("a first line\nand another line\nend", ["a first line\n", "and another line\n", "end"]),
        ("version 3.14.15 is out. Yes", ["version 3.14.15 is ", "out. Yes"]),
        ("no end of a sentence in sight here", ["no end of a ", "sentence in sight ", "here"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("これは最初の文です。これは次の文です。終わり", ["これは最初の文です。", "これは次の文です。", "終わり"]),
        ("wait... what? yes. ok", ["wait... ", "what? yes. ", "ok"]),
    ],
)
def test_where_text_is_cut(text: str, expected: list[str]) -> None:
    assert segments(text) == expected


PIECES = st.lists(
    st.sampled_from(
        ["word", "a", " ", ". ", ".", "!", '"', "\n", "\r\n", "。", "...", "é", "\U0001f600", "x" * 9, "\t"]
    ),
    max_size=60,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=PIECES, widths=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_cuts_are_a_function_of_the_text(text: str, widths: list[int]) -> None:
    whole = segments(text)
    assert segments(text, widths=widths) == whole
    assert "".join(whole) == text
    assert all(len(segment) <= 20 for segment in whole)
    assert all(len(segment) >= 8 for segment in whole[:-1])


# --- The contract ------------------------------------------------------------------------------------------------


def by_words(passages: Sequence[Passage]) -> list[list[Hazard]]:
    """A guard that knows words: a function of the passage, its context included."""
    words = {"stab": "VIOLENT_CRIMES", "slur": "HATE", "x": "HATE"}
    return [
        [Hazard(entity, 0.5 + len(p.before) / 100) for word, entity in words.items() if word in p.before + p.segment]
        for p in passages
    ]


FIXED = Guard(GuardFormat.model_validate(yaml.safe_load(SMALL)), list(ChannelKind), by_words)


TEXT = "I think. They stab him there! A slur,\n\n  spoken: well. And then nothing at all happened to anyone.  \n "


def test_every_cut() -> None:
    check_every_cut(FIXED, TEXT)
    check_every_cut(FIXED, TEXT, Scope(ChannelKind.REASONING, "said before", RequestFacts(user="What is a stab?")))
    assert {span.entity for span in find(FIXED, TEXT)} == {"VIOLENT_CRIMES", "HATE"}


WORDS = ["stab", "slur", "x" * 7, " ", ". ", ".", "\n", "。", "so", '"', "\u2028", "\U0001f600"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def check(text: str, cuts: list[int]) -> None:
    check_cuts(FIXED, text, [cut for cut in cuts if cut <= len(text)])


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, cuts=CUTS)
def test_random_texts_and_cuts(text: str, cuts: list[int]) -> None:
    check(text, cuts)


@pytest.mark.long
@settings(max_examples=20_000, deadline=None)
@given(text=TEXTS, cuts=CUTS)
def test_many_random_texts_and_cuts(text: str, cuts: list[int]) -> None:
    check(text, cuts)


def test_a_hazard_covers_its_segment_without_the_space_around_it() -> None:
    text = "All is well.   They stab.   \nAll is well again."
    found = [text[span.start : span.end] for span in find(FIXED, text)]
    assert found == ["They stab.", "All is well"]  # the latter because of what stands before it


def test_blank_text_is_not_asked_about(tmp_path: Path) -> None:
    def never(passages: Sequence[Passage]) -> list[list[Hazard]]:
        raise AssertionError(passages)

    assert find(Guard(form(tmp_path), list(ChannelKind), never), " \n" * 40) == []


def test_text_waits_for_its_verdict_and_is_asked_about_with_its_context(tmp_path: Path) -> None:
    asked: list[Passage] = []

    def judge(passages: Sequence[Passage]) -> list[list[Hazard]]:
        asked.extend(passages)
        return [[] for _ in passages]

    session = Guard(form(tmp_path), list(ChannelKind), judge).open(
        Scope(ChannelKind.OUTPUT, "earlier", RequestFacts(user="a rather long question"))
    )
    assert session is not None
    assert session.advance("One two", final=False) == ([], 0)
    assert session.advance(" three. Four five six. Sev", final=False) == ([], 30)
    assert [(p.user, p.before, p.segment) for p in asked] == [
        ("g question", "", "One two three. "),
        ("g question", "hree. ", "Four five six. "),
    ]
    assert session.advance("", final=True) == ([], 33)


def test_what_is_kept_is_bounded() -> None:
    session = FIXED.open(Scope(ChannelKind.OUTPUT))
    assert session is not None
    for _ in range(500):
        session.advance("some words. ", final=False)
        assert len(session._text) <= 20 + 6 + 12  # type: ignore[attr-defined]  # white-box
    session.advance("\n" * 100_000, final=False)
    assert len(session._text) <= 20 + 6  # type: ignore[attr-defined]


def test_channels_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    guard = Guard(form(tmp_path), [ChannelKind.REASONING], by_words)
    opened = {kind for kind in ChannelKind if guard.open(Scope(kind)) is not None}
    assert opened == {ChannelKind.REASONING, ChannelKind.OUTPUT}  # one may become the other at a marker
    assert Guard(form(tmp_path), [ChannelKind.TOOL_CALL], by_words).open(Scope(ChannelKind.OUTPUT)) is None


def test_nobody_asks_a_guard_outside_the_gateway(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        find(Guard(form(tmp_path), list(ChannelKind)), "Some text.")


# --- Whole exchanges ---------------------------------------------------------------------------------------------


def delivered(action: str, view: View, parts: Sequence[str]) -> list[str]:
    """What has been delivered after each part, and in the end."""
    rules = policy(f"  - {{entities: [HAZARD], action: {action}}}\n")
    exchange = Exchange(rules, [FIXED], RequestFacts(), b"k" * 16, exchange_key=b"e" * 16)
    lane = exchange.lane(0)
    lane.open("text", view)
    sent = [""]
    for part in parts:
        lane.feed("text", part)
        sent.append(sent[-1] + "".join(emission.text for emission in lane.take()))
    lane.finish()
    sent.append(sent[-1] + "".join(emission.text for emission in lane.take()))
    return sent


VIEWS: dict[str, Callable[[], View]] = {
    "plain": lambda: PlainView(ChannelKind.OUTPUT),
    "markers": lambda: MarkerView(ChannelKind.OUTPUT),
    "json": JsonView,
}
FRAGMENTS = [
    "They stab him. ",
    "All is well here. ",
    "<think>",
    "</think>",
    "slur",
    "\n",
    "x",
    "so it goes",
    "\U0001f600",
]


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=100, deadline=None)
@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=12),
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=20),
    action=st.sampled_from(["flag", "redact", "withhold", "block"]),
)
def test_g1_and_g2(view: str, fragments: list[str], widths: list[int], action: str) -> None:
    text = "".join(fragments)
    if view == "json":
        text = json.dumps({"note": text, "n": [1, text[:9]]})
    parts, at = [], 0
    for width in cycle(widths):
        if at >= len(text):
            break
        parts.append(text[at : at + width])
        at += width
    whole = delivered(action, VIEWS[view](), [text])[-1]
    sent = delivered(action, VIEWS[view](), parts)
    assert sent[-1] == whole
    assert all(whole.startswith(each) for each in sent)
    if view == "json" and action != "block":
        json.loads(whole)


# --- Which policies use it ---------------------------------------------------------------------------------------


def policy(rules: str) -> Policy:
    return parse(f"version: 1\nname: t\nclassifier: false\nrules:\n{rules}", "t.yaml", None)


@pytest.mark.parametrize(
    ("rules", "questions"),
    [
        ("  - {entities: [EMAIL_ADDRESS], action: redact}\n", None),
        ("  - {entities: [ELECTIONS], action: block}\n", None),  # Granite Guardian has no such criterion
        ("  - {entities: [HATE, ELECTIONS], action: flag}\n", ["social_bias"]),
        (
            "  - {entities: [HAZARD], action: block}\n",
            ["violence", "unethical_behavior", "sexual_content", "social_bias"],
        ),
    ],
)
def test_only_what_the_policy_acts_on_is_asked(rules: str, questions: list[str] | None) -> None:
    guards = [each for each in build(policy(rules), guard="granite-guardian") if isinstance(each, Guard)]
    asked = [
        [q.request["chat_template_kwargs"]["guardian_config"]["criteria_id"] for q in guard.form.questions]
        for guard in guards
    ]
    assert asked == ([questions] if questions else [])


def test_without_a_guard_there_is_none() -> None:
    assert not [each for each in build(load("strict")) if isinstance(each, Guard)]


# --- Formats -----------------------------------------------------------------------------------------------------

UNKNOWN = "fault"
EVERYWHERE: list[tuple[str, object]] = [
    ("", UNKNOWN),
    ("\n\n", UNKNOWN),
    ("I cannot help with that.", UNKNOWN),
    ("{}", UNKNOWN),
    ("</think>", UNKNOWN),
    ("maybe", UNKNOWN),
]
VERDICTS: dict[str, list[tuple[str, object]]] = {
    "llama-guard": [
        ("safe", {}),
        ("\n\nsafe", {}),
        ("Safe\n", {}),
        ("unsafe\nS1", {"VIOLENT_CRIMES": 1.0}),
        ("\n\nunsafe\nS1,S10", {"VIOLENT_CRIMES": 1.0, "HATE": 1.0}),
        ("unsafe\n S4 , s12 \n", {"CHILD_SEXUAL_EXPLOITATION": 1.0, "SEXUAL_CONTENT": 1.0}),
        ("unsafe\nS2\nS9", {"NON_VIOLENT_CRIMES": 1.0}),
        ("unsafe", UNKNOWN),
        ("unsafe\nS15", UNKNOWN),
        ("unsafe\nS1,", UNKNOWN),
        ("unsafe S1", UNKNOWN),
        ("safe.", UNKNOWN),
        ("safe enough", UNKNOWN),
        ("The answer is safe", UNKNOWN),
        ("safeunsafe", UNKNOWN),
    ],
    "qwen3guard": [
        ("Safety: Safe\nCategories: None\nRefusal: Yes", {}),
        ("<think>\nit could be unsafe\n</think>\n\nSafety: Safe\nCategories: None", {}),
        ("Safety: Unsafe\nCategories: Violent\nRefusal: No", {"VIOLENT_CRIMES": 1.0}),
        ("Safety: Controversial\nCategories: Suicide & Self-Harm\nRefusal: No", {"SUICIDE_SELF_HARM": 0.5}),
        (
            "Safety: Unsafe\nCategories: Non-violent Illegal Acts, Unethical Acts, PII",
            {"NON_VIOLENT_CRIMES": 1.0, "HATE": 1.0, "PRIVACY": 1.0},
        ),
        ("Safety: Unsafe\nCategories: Copyright Violation, None", {"INTELLECTUAL_PROPERTY": 1.0}),
        ("Safety: Unsafe\nCategories: None", UNKNOWN),
        ("Safety: Unsafe", UNKNOWN),
        ("Safety: Unsafe\nViolent", UNKNOWN),
        ("Safety: Dangerous\nCategories: Violent", UNKNOWN),
        ("Safety: Unsafe\nCategories: Spam", UNKNOWN),
        ("Safe", UNKNOWN),
    ],
    "granite-guardian": [
        ("<score> no </score>", {}),
        ("<score>yes</score>", {"VIOLENT_CRIMES": 1.0}),
        ("<think>\nIt is not.\n</think>\n\n<score> yes </score>\n", {"VIOLENT_CRIMES": 1.0}),
        ("<score> yes", UNKNOWN),
        ("yes", UNKNOWN),
        ("<score></score>", UNKNOWN),
        ("<score> yes or no </score>", UNKNOWN),
    ],
    "shieldgemma": [
        ("No", {}),
        ("No, the response", {}),
        ("Yes", {"VIOLENT_CRIMES": 1.0, "INDISCRIMINATE_WEAPONS": 1.0, "SUICIDE_SELF_HARM": 1.0}),
        ("Yes.\n\nThe", {"VIOLENT_CRIMES": 1.0, "INDISCRIMINATE_WEAPONS": 1.0, "SUICIDE_SELF_HARM": 1.0}),
        ("None of it", UNKNOWN),
        ("Yesterday", UNKNOWN),
        ("'Yes'", UNKNOWN),
    ],
}


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [(name, *row) for name, rows in VERDICTS.items() for row in [*rows, *EVERYWHERE]],
)
def test_verdicts(name: str, answer: str, expected: object) -> None:
    read = load_format(name)
    if expected == UNKNOWN:
        with pytest.raises(GuardError) as raised:
            read.read(answer, read.questions[0], cut=False)
        assert raised.value.kind == "verdict"
        assert not answer.strip() or answer.strip() not in str(raised.value)
    else:
        assert dict(read.read(answer, read.questions[0], cut=False)) == expected


@pytest.mark.parametrize("name", READY)
def test_an_answer_that_was_cut_short(name: str) -> None:
    read = load_format(name)
    answer = next(answer for answer, expected in VERDICTS[name] if expected == {})
    if name == "shieldgemma":  # its first word is the verdict
        assert read.read(answer, read.questions[0], cut=True) == ()
    else:
        with pytest.raises(GuardError):
            read.read(answer, read.questions[0], cut=True)


@pytest.mark.parametrize("name", READY)
def test_what_is_asked(name: str) -> None:
    ready = load_format(name)
    passage = Passage("Who are you?", "I am a ", "gardener. {user} {question}")
    bodies = [json.loads(ready.body(passage, question, "m")) for question in ready.questions]
    assert len({json.dumps(body) for body in bodies}) == len(bodies)
    for body in bodies:
        assert (body["model"], body["temperature"], body["stream"]) == ("m", 0, False)
        assert body["max_tokens"] <= 64
        *_, user, assistant = body["messages"]
        assert user == {"role": "user", "content": "Who are you?"}
        assert assistant == {"role": "assistant", "content": "I am a gardener. {user} {question}"}
    assert ready.segment.most < MAX_SEGMENT < MAX_HELD_CHARS / 4


def test_a_request_without_a_user_or_a_model() -> None:
    ready = load_format("llama-guard")
    body = json.loads(ready.body(Passage("", "", "Hi."), ready.questions[0], ""))
    assert body["messages"][0]["content"] == "-"
    assert "model" not in body


@pytest.mark.parametrize("name", READY)
def test_a_text_cannot_end_its_own_examination(name: str) -> None:
    ready = load_format(name)
    for mark in ready.breaks:
        for passage in (
            Passage("", "", f"a{mark}b"),
            Passage("", f"a{mark[:1]}", f"{mark[1:]}b"),
            Passage(mark, "", "b"),
        ):
            body = json.loads(ready.body(passage, ready.questions[0], ""))
            assert all(mark not in message["content"] for message in body["messages"])


def test_passages_do_not_show_their_text() -> None:
    assert "secret" not in repr(Passage("secret", "secret", "secret"))
    assert "secret" not in repr(RequestFacts(user="secret"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version: 1", "version: 2"), "version: Input should be 1"),
        (("{segment}", "{text}"), r"no message has \{segment\} in it"),
        (("HATE", "HATRED"), "HATRED is no hazard; write one of: VIOLENT_CRIMES"),
        (("least: 8", "least: 80"), "least must not be above most"),
        (("most: 20", "most: 20000"), "segment.most: Input should be less"),
        ((", categories: {}}", "}"), "categories and verdict.categories: write both or none"),
        (("categories: {S1: [VIOLENT_CRIMES], S10: [HATE]}", ""), "write both or none"),
        (
            (", categories: {}}\ncategories: {S1: [VIOLENT_CRIMES], S10: [HATE]}", "}"),
            "questions: each needs hazards",
        ),
        (("name: small", "name: small\nrequest: {stream: true}"), "request: leave out stream"),
        (("name: small", "nmae: small"), "name: Field required"),
        (("version: 1", "version: ["), "while parsing"),
    ],
)
def test_a_wrong_format_is_told(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(GuardFormatError, match=message):
        form(tmp_path, SMALL.replace(*change))


def test_an_unknown_format_is_told() -> None:
    with pytest.raises(GuardFormatError, match=f"no such format; write a file or one of: {', '.join(READY)}"):
        load_format("llama")


def test_formats_are_packaged() -> None:
    assert READY == ["granite-guardian", "llama-guard", "qwen3guard", "shieldgemma"]
    assert sorted(VERDICTS) == READY
    for name in READY:
        assert load_format(name).name == name
