"""Placeholders: values hidden from the model and put back in what it writes, whatever it makes of them."""

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html import escape
from itertools import groupby, pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_kit import answers
from planted import PLANTED, Planted, carried

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Detector, RequestFacts, Scope, Session
from cotguard.detectors.placeholders import PLACEHOLDER, GivenPlaceholders, PlaceholderShapes
from cotguard.detectors.registry import build
from cotguard.moderation.channel import Channel, Terms
from cotguard.moderation.exchange import Exchange, Outcome
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.placeholders import Placeholders
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, load, parse
from cotguard.spans import Action, ChannelKind, Span
from cotguard.taxonomy import ENTITIES

EGRESS = load("egress")
DETECTORS: tuple[Detector, ...] = build(EGRESS)
INBOUND = [ChannelKind.SYSTEM, ChannelKind.USER, ChannelKind.TOOL_RESULT]
OUTBOUND = [ChannelKind.REASONING, ChannelKind.OUTPUT, ChannelKind.REFUSAL, ChannelKind.OTHER]


class Letters:
    """Finds what stands between two marks, in any place: inside words, side by side, over each other."""

    name = "letters"
    entities = frozenset({"PERSON", "EMAIL_ADDRESS"})

    def open(self, scope: Scope) -> Session:
        return _LettersSession()


class _LettersSession:
    def __init__(self) -> None:
        self._text = ""

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        if not final:
            return (), 0
        spans = []
        for mark, entity, width in (("x", "PERSON", 1), ("4", "EMAIL_ADDRESS", 3)):
            for at, character in enumerate(self._text):
                if character == mark:
                    end = min(at + width, len(self._text))
                    spans.append(Span(at, end, entity, 1.0, "letters/x"))
        return spans, len(self._text)


def make_exchange(detectors: Sequence[Detector] = DETECTORS, policy: Policy = EGRESS) -> Exchange:
    return Exchange(policy, detectors, RequestFacts(), b"k" * 16, exchange_key=b"e" * 16)


def view_of(kind: ChannelKind) -> View:
    return JsonView() if kind is ChannelKind.TOOL_CALL else PlainView(kind)


def cut_up(text: str, cuts: Iterable[int]) -> list[str]:
    offsets = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(offsets)]


def request_terms(exchange: Exchange) -> Terms:
    assert exchange._reader is not None
    return exchange._reader._terms


def mask(exchange: Exchange, text: str, kind: ChannelKind = ChannelKind.USER, cuts: Iterable[int] = ()) -> str:
    """What the upstream gets of a text of the request."""
    view = JsonView() if kind is ChannelKind.TOOL_CALL else PlainView(kind)
    detectors = [*exchange._response.detectors, *request_terms(exchange).detectors[1:]]
    channel = Channel(None, None, view, replace(request_terms(exchange), detectors=detectors))
    channel.open("")
    written = ""
    for piece in cut_up(text, cuts):
        channel.feed(piece)
        written += channel.release()
    channel.feed("", final=True)
    return written + channel.release()


def restore(exchange: Exchange, text: str, kind: ChannelKind = ChannelKind.OUTPUT) -> str:
    return answers(exchange, view_of(kind), [text])[-1]


def with_values(*values: tuple[str, str], policy: Policy = EGRESS) -> Exchange:
    """An exchange whose request had these values, in order."""
    exchange = make_exchange(policy=policy)
    for entity, value in values:
        exchange.placeholders.pseudonym(entity, value)
    return exchange


# Numbering


def test_values_are_numbered_by_entity_in_order_of_appearance() -> None:
    placeholders = Placeholders()
    assert [
        placeholders.pseudonym(entity, value)
        for entity, value in [
            ("PERSON", "Ann"),
            ("EMAIL_ADDRESS", "ann@example.com"),
            ("PERSON", "Bo"),
            ("PERSON", "Ann"),
            ("PERSON", "ann"),
            ("USERNAME", "Ann"),
            ("ACME_TICKET", "T-1"),
        ]
    ] == [
        "[PERSON_1]",
        "[EMAIL_ADDRESS_1]",
        "[PERSON_2]",
        "[PERSON_1]",
        "[PERSON_3]",
        "[PERSON_1]",
        "[PLACEHOLDER_1]",
    ]
    assert placeholders.counts == {"PERSON": 3, "EMAIL_ADDRESS": 1, "PLACEHOLDER": 1}
    assert "Ann" not in repr(placeholders)


@pytest.mark.parametrize("text", ["[PERSON_2]", "[EMAIL_ADDRESS_1]", "[PERSON_1] ", "Ann", ""])
def test_only_what_was_given_is_restored(text: str) -> None:
    placeholders = Placeholders()
    assert placeholders.pseudonym("PERSON", "Ann") == "[PERSON_1]"
    with pytest.raises(KeyError, match=r"no placeholder|PERSON|EMAIL"):
        placeholders.restored(text)


def test_a_history_that_grows_keeps_its_numbers() -> None:
    turns = [
        "I am ann.lee@example.com.",
        "Noted: ann.lee@example.com.",
        "Write to bo@example.org, not ann.lee@example.com.",
    ]
    sent: list[list[str]] = []
    for turn in range(1, 4):
        exchange = make_exchange()
        sent.append([mask(exchange, text) for text in turns[:turn]])
    assert sent[2] == [
        "I am [EMAIL_ADDRESS_1].",
        "Noted: [EMAIL_ADDRESS_1].",
        "Write to [EMAIL_ADDRESS_2], not [EMAIL_ADDRESS_1].",
    ]
    assert sent[0] == sent[2][:1]
    assert sent[1] == sent[2][:2]


# Shapes

VALUE = 'o\'Brien+"x"\\y\n<é>@example.com'
SHAPES = [
    ("[EMAIL_ADDRESS_1]", VALUE),
    ("[email_address_1]", VALUE),
    ("[Email_Address_1]", VALUE),
    ("EMAIL_ADDRESS_1", VALUE),
    (r"\[EMAIL\_ADDRESS\_1\]", VALUE),
    (r"\[EMAIL_ADDRESS_1\]", VALUE),
    (r"[EMAIL\_ADDRESS\_1]", VALUE),
    (r"[EMAIL_ADDRESS\_1]", VALUE),
    (r"EMAIL\_ADDRESS\_1", VALUE),
    ("**[EMAIL_ADDRESS_1]**", f"**{VALUE}**"),
    ("_[EMAIL_ADDRESS_1]_", f"_{VALUE}_"),
    ("`EMAIL_ADDRESS_1`", f"`{VALUE}`"),
    ("[EMAIL_ADDRESS_1]'s", f"{VALUE}'s"),
    ("EMAIL_ADDRESS_1's", f"{VALUE}'s"),
    ("[EMAIL_ADDRESS_1]s", f"{VALUE}s"),
    ("re:[EMAIL_ADDRESS_1]x", f"re:{VALUE}x"),
    ("[[EMAIL_ADDRESS_1]](mailto:[EMAIL_ADDRESS_1])", f"[{VALUE}](mailto:{VALUE})"),
    ("<EMAIL_ADDRESS_1>", f"<{VALUE}>"),
    ("[EMAIL_ADDRESS_1", f"[{VALUE}"),
    ("[EMAIL_ADDRESS_1][EMAIL_ADDRESS_1]", VALUE + VALUE),
    (r"\[EMAIL_ADDRESS_1]", "\\" + VALUE),
    ("https://e.test/?to=%5BEMAIL_ADDRESS_1%5D&b", f"https://e.test/?to={quote(VALUE, safe='')}&b"),
    ("https://e.test/?to=%5bEMAIL_ADDRESS_1%5d", f"https://e.test/?to={quote(VALUE, safe='')}"),
    ("<b>&#91;EMAIL_ADDRESS_1&#93;</b>", f"<b>{escape(VALUE)}</b>"),
    ("&#x5b;EMAIL_ADDRESS_1&#x5D;", escape(VALUE)),
    ("&lbrack;EMAIL_ADDRESS_1&rsqb;", escape(VALUE)),
    ("[[email_address_1]", f"[{VALUE}"),
]
NOT_SHAPES = [
    "[EMAIL_ADDRESS_12]",
    "[EMAIL_ADDRESS_2]",
    "[EMAIL_ADDRESS_01]",
    "[EMAIL_ADDRESS_0]",
    "[EMAIL_ADDRESS_]",
    "[EMAIL_ADDRESS]",
    "[EMAIL ADDRESS 1]",
    "email address 1",
    "email_address_1 = 4",
    "x[email_address_1",
    "EMAIL_ADDRESS_12",
    "EMAIL_ADDRESS_1_2",
    r"EMAIL\_ADDRESS\_1\_B",
    "MY_EMAIL_ADDRESS_1",
    "XEMAIL_ADDRESS_1",
    "EMAIL_ADDRESS_1é",
    "[PERSON_1]",
    "[ADDRESS_1]",
    "%5BEMAIL_ADDRESS_1",
    "[",
    "100% of [this] & \\that",
]


@pytest.mark.parametrize(("written", "got"), SHAPES)
@pytest.mark.parametrize("kind", OUTBOUND)
def test_a_placeholder_is_restored_in_any_shape(written: str, got: str, kind: ChannelKind) -> None:
    exchange = with_values(("EMAIL_ADDRESS", VALUE))
    assert restore(exchange, f"So {written} it is", kind) == f"So {got} it is"
    restored = sum(count for verdict, count in exchange.tally.items() if verdict.outcome is Outcome.RESTORED)
    assert restored == written.lower().replace("\\", "").count("email_address_1")


@pytest.mark.parametrize(("written", "got"), SHAPES)
def test_a_placeholder_is_restored_in_tool_arguments_which_stay_json(written: str, got: str) -> None:
    exchange = with_values(("EMAIL_ADDRESS", VALUE))
    document = {"to": written, "note": [f"a {written} b", 7], f"for {written}": None}
    arguments = json.dumps(document).replace("_", "\\u005f")
    assert json.loads(restore(exchange, arguments, ChannelKind.TOOL_CALL)) == {
        "to": got,
        "note": [f"a {got} b", 7],
        f"for {got}": None,
    }


@pytest.mark.parametrize("written", NOT_SHAPES)
def test_what_is_no_placeholder_of_the_exchange_is_left(written: str) -> None:
    exchange = with_values(("EMAIL_ADDRESS", VALUE))
    assert restore(exchange, f"So {written} it is") == f"So {written} it is"
    assert not exchange.tally


def test_every_entity_can_be_the_name_of_a_placeholder() -> None:
    exchange = with_values(*((entity, f"value of {entity.lower()}") for entity in sorted(ENTITIES)))
    for entity in ENTITIES:
        for written in (f"[{entity}_1]", f"[{entity.lower()}_1]", f"{entity}_1"):
            assert find(GivenPlaceholders(exchange.placeholders.counts), written)[0].entity == entity
            assert exchange.placeholders.restored(written) == f"value of {entity.lower()}"


@pytest.mark.parametrize(("written", "_got"), SHAPES)
def test_every_shape_that_is_restored_is_escaped_in_what_a_client_writes(written: str, _got: str) -> None:
    exchange = make_exchange()
    assert mask(exchange, "x ann.lee@example.com y") == "x [EMAIL_ADDRESS_1] y"
    for text in (written, f"so {written} it is", f"so{written}it is"):
        sent = mask(exchange, text)
        assert "EMAIL_ADDRESS" not in sent.upper()
        assert "[PLACEHOLDER_" in sent
        assert back(exchange, sent, PlainView(ChannelKind.OUTPUT)) == text


def test_what_a_client_writes_in_code_is_left() -> None:
    text = "person_1 = people[0]; age_2 = 3; if MAX_AGE and PERSON: url = '/person/1'"
    assert mask(make_exchange(), text) == text


# Detectors


@pytest.mark.parametrize(("written", "_got"), [*SHAPES, *((text, "") for text in NOT_SHAPES)])
def test_detectors_keep_the_contract(written: str, _got: str) -> None:
    for text in (written, f"So {written} it [EMAIL"):
        for detector in (GivenPlaceholders({"EMAIL_ADDRESS": 1}), PlaceholderShapes()):
            check_every_cut(detector, text)
            check_every_cut(detector, text, Scope(ChannelKind.OUTPUT, context="before [EMAIL_"))


PIECES = st.lists(
    st.sampled_from(
        [*"[]\\_%&;15DBb #xX4", "%5B", "&#91;", "lbrack;", "PERSON", "person", "EMAIL_ADDRESS", "_1", "_12"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=PIECES, data=st.data())
def test_detectors_keep_the_contract_on_any_text(text: str, data: st.DataObject) -> None:
    for detector in (GivenPlaceholders({"EMAIL_ADDRESS": 11, "PERSON": 1}), PlaceholderShapes()):
        if len(text) < 20:
            check_every_cut(detector, text)
        check_cuts(detector, text, data.draw(st.lists(st.integers(0, len(text)), max_size=6)))


@settings(max_examples=400, deadline=None)
@given(text=PIECES)
def test_shapes_are_found_wherever_a_placeholder_could_be(text: str) -> None:
    found = find(PlaceholderShapes(), text)
    for span in find(GivenPlaceholders(dict.fromkeys((*ENTITIES, PLACEHOLDER), 10**6)), text):
        assert any(shape.start <= span.start and span.end <= shape.end for shape in found)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("plain words, as they come", 0),
        ("a list [", 1),
        ("a list [1", 0),
        ("see [P", 2),
        ("see [PA", 0),
        ("see [PERSON_1", 9),
        ("see [PERSON_12", 0),
        ("see [FOO_1", 0),
        ("see PERSON_1", 8),
        ("see person_1", 0),
        ("so P", 1),
        ("so Pa", 0),
        ("for URL", 0),
        ("at 100%", 1),
        ("at 100% ", 0),
        ("[EMAIL_ADDRESS_1] and", 0),
    ],
)
def test_only_the_beginning_of_a_placeholder_that_exists_is_held(text: str, held: int) -> None:
    session = GivenPlaceholders({"PERSON": 1, "EMAIL_ADDRESS": 1}).open(Scope(ChannelKind.OUTPUT))
    assert session is not None
    assert len(text) - session.advance(text, False)[1] == held


def test_work_is_linear() -> None:
    for text in (
        "A" * 200_000,
        "A_" * 100_000,
        "[A\\_" * 50_000,
        "[PERSON_1" * 20_000,
        "\\[" * 100_000,
        "&#x5b;" * 40_000,
    ):
        for detector in (GivenPlaceholders({"PERSON": 1}), PlaceholderShapes()):
            assert len(find(detector, text)) <= 20_000


# There and back

SHAPED = [
    "[PERSON_1]",
    "PERSON_1",
    "EMAIL_ADDRESS_2",
    "[placeholder_1]",
    r"\[PERSON\_1\]",
    "%5BPERSON_1%5D",
    "&#91;PERSON_1&#93;",
]
VALUES = [planted.value for planted in PLANTED if planted.entity in ("EMAIL_ADDRESS", "CREDIT_CARD", "SECRET_API_KEY")]
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.one_of(
            st.sampled_from([*SHAPED, *VALUES]),
            st.sampled_from(
                [*"[]\\_%&;1x4 \n", "PERSON", "PERSON_", "_1", "%5", "5B", "5D", "&#9", "1;", "\U0001f600é"]
            ),
        ),
        max_size=12,
    ).map("".join),
)
DOCUMENTS = st.recursive(
    st.one_of(TEXTS, st.booleans(), st.none(), st.integers(), st.just(4111111111111111)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
EVERYWHERE = (Letters(), *DETECTORS)
CUTS = st.lists(st.integers(0, 1000), max_size=10)


REVERSIBLE = parse(
    "version: 1\nname: t\nrequest: {texts: moderate}\nrules: []\ndefault: pseudonymize\n", "reversible.yaml", None
)


def back(exchange: Exchange, text: str, view: View) -> str:
    """``text`` with its placeholders restored; nothing else is looked for."""
    counts = exchange.placeholders.counts
    detectors = (GivenPlaceholders(counts),) if counts else ()
    channel = Channel(None, None, view, replace(exchange._response, detectors=detectors))
    channel.open("")
    channel.feed(text, final=True)
    return channel.release()


@pytest.mark.parametrize("detectors", [DETECTORS, EVERYWHERE], ids=["ours", "everywhere"])
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), cuts=CUTS)
def test_every_text_comes_back_as_it_was(detectors: tuple[Detector, ...], texts: list[str], cuts: list[int]) -> None:
    exchange, another = make_exchange(detectors, REVERSIBLE), make_exchange(detectors, REVERSIBLE)
    sent = [mask(exchange, text) for text in texts]
    assert [mask(another, text, cuts=cuts) for text in texts] == sent
    assert [back(exchange, masked, PlainView(ChannelKind.OUTPUT)) for masked in sent] == texts


@pytest.mark.parametrize("detectors", [DETECTORS, EVERYWHERE], ids=["ours", "everywhere"])
@settings(max_examples=300, deadline=None)
@given(document=DOCUMENTS, cuts=CUTS, ascii_only=st.booleans())
def test_every_json_document_comes_back_with_its_values(
    detectors: tuple[Detector, ...], document: object, cuts: list[int], ascii_only: bool
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    exchange, another = make_exchange(detectors, REVERSIBLE), make_exchange(detectors, REVERSIBLE)
    sent = mask(exchange, text, ChannelKind.TOOL_CALL)
    json.loads(sent)
    assert mask(another, text, ChannelKind.TOOL_CALL, cuts) == sent
    assert as_strings(json.loads(back(exchange, sent, JsonView()))) == as_strings(document)


def as_strings(value: object) -> object:
    """``value`` with its numbers as strings, which they become where they are replaced."""
    if isinstance(value, dict):
        return {key: as_strings(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_strings(each) for each in value]
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@pytest.mark.parametrize("kind", INBOUND)
def test_planted_values_are_hidden_and_come_back(kind: ChannelKind) -> None:
    exchange = make_exchange()
    for planted in PLANTED:
        text = carried(planted)
        sent = mask(exchange, text, kind)
        assert planted.value not in sent
        assert back(exchange, sent, PlainView(ChannelKind.OUTPUT)) == text


def test_where_requests_are_only_read_no_placeholder_is_given() -> None:
    exchange = make_exchange(policy=parse("version: 1\nname: t\nrules: []\ndefault: pseudonymize\n", "t.yaml", None))
    text = "[PERSON_1] ann.lee@example.com"
    assert exchange.read(PlainView(ChannelKind.USER), text) == text
    assert not exchange.placeholders.counts
    assert re.fullmatch(r"\[PERSON_1\] \[EMAIL_ADDRESS_[A-Z2-7]{5}\]", restore(exchange, text))


def test_where_a_policy_pseudonymizes_nothing_shapes_are_left() -> None:
    rules = "version: 1\nname: t\nrequest: {texts: moderate}\nrules:\n  - entities: [ALL]\n    action: redact\n"
    exchange = make_exchange(policy=parse(rules, "t.yaml", None))
    assert mask(exchange, "[PERSON_1] ann.lee@example.com") == "[PERSON_1] [EMAIL_ADDRESS]"
    assert restore(exchange, "[PERSON_1] [EMAIL_ADDRESS_1]") == "[PERSON_1] [EMAIL_ADDRESS_1]"


# What a model writes

WRITTEN = st.lists(
    st.one_of(
        st.sampled_from([written for written, _ in SHAPES]),
        st.sampled_from(
            ["[PERSON_1]", "PERSON_12", "[PERSON_11]'s", "[EMAIL_ADDR", "[", "password: [SECRET_PASSWORD_1]"]
        ),
        st.sampled_from([planted.value for planted in PLANTED if "\n" not in planted.value]),
        st.sampled_from(
            ["<think>", "</think>", " ", ", ", ".\n", "and then", "it is (", ")", "a\u200bb", "\U0001f600é"]
        ),
    ),
    max_size=8,
).map("".join)
GIVEN = (
    ("EMAIL_ADDRESS", VALUE),
    *(("PERSON", f"P{number:x}") for number in range(10, 22)),
    ("SECRET_PASSWORD", "hunter2!Blue"),
)
ACTIONS: dict[Action, Policy] = {
    action: parse(f"version: 1\nname: t\nrequest: {{texts: moderate}}\nrules: []\ndefault: {action}\n", "t.yaml", None)
    for action in Action
    if action is not Action.ALLOW
}


@pytest.mark.parametrize("view", ["plain", "markers", "json"])
@settings(max_examples=150, deadline=None)
@given(text=WRITTEN, cuts=CUTS, action=st.sampled_from(list(ACTIONS)))
def test_g1_and_g2_hold_with_placeholders(view: str, text: str, cuts: list[int], action: Action) -> None:
    check_guarantees(view, text, cuts, action)


@pytest.mark.long
@pytest.mark.parametrize("view", ["plain", "markers", "json"])
@settings(max_examples=10_000, deadline=None)
@given(text=WRITTEN, cuts=CUTS, action=st.sampled_from(list(ACTIONS)))
def test_g1_and_g2_hold_with_placeholders_in_many_cases(view: str, text: str, cuts: list[int], action: Action) -> None:
    check_guarantees(view, text, cuts, action)


def check_guarantees(view: str, text: str, cuts: list[int], action: Action) -> None:
    def made() -> View:
        if view == "json":
            return JsonView()
        return MarkerView(ChannelKind.OUTPUT) if view == "markers" else PlainView(ChannelKind.OUTPUT)

    if view == "json":
        text = json.dumps({"note": text, "n": [4111111111111111, text[:9]]})
    whole = answers(with_values(*GIVEN, policy=ACTIONS[action]), made(), [text])[-1]
    delivered = answers(with_values(*GIVEN, policy=ACTIONS[action]), made(), cut_up(text, cuts))
    assert delivered[-1] == whole
    assert all(whole.startswith(part) for part in delivered)
    if view == "json" and action is not Action.BLOCK:
        json.loads(whole)


@pytest.mark.parametrize(("written", "_got"), SHAPES)
def test_every_cut_of_a_shape_gives_the_same(written: str, _got: str) -> None:
    text = f"So {written} ann@example.org [EMAIL_ADDRESS_12]"
    whole = restore(with_values(*GIVEN), text)
    for cut in range(len(text) + 1):
        delivered = answers(with_values(*GIVEN), PlainView(ChannelKind.OUTPUT), [text[:cut], text[cut:]])
        assert delivered[-1] == whole
        assert all(whole.startswith(part) for part in delivered)
    assert answers(with_values(*GIVEN), PlainView(ChannelKind.OUTPUT), list(text))[-1] == whole


MODEL_KINDS = [*OUTBOUND, ChannelKind.TOOL_CALL]


@pytest.mark.parametrize("kind", MODEL_KINDS)
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.entity}-{planted.value[:8]!r}")
def test_foreign_values_around_placeholders_are_redacted(planted: Planted, kind: ChannelKind) -> None:
    """Before, behind and around: both happen to each, the value and the placeholder."""
    mine = "m1ne@example.net"
    before, behind = planted.carrier.split("{}")
    for text in (
        f"[EMAIL_ADDRESS_1] {carried(planted)} [EMAIL_ADDRESS_1]",
        f"{before}{planted.value} [EMAIL_ADDRESS_1]{behind}",
        f"{before}{planted.value}, EMAIL_ADDRESS_1{behind}",
        f"({before}{planted.value})[EMAIL_ADDRESS_1]{behind}",
        f"\\[EMAIL\\_ADDRESS\\_1\\]: {carried(planted)}",
    ):
        exchange = with_values(("EMAIL_ADDRESS", mine))
        wire = json.dumps({"text": text}) if kind is ChannelKind.TOOL_CALL else text
        shown = restore(exchange, wire, kind)
        if kind is ChannelKind.TOOL_CALL:
            shown = json.loads(shown)["text"]
        assert planted.value not in shown
        assert re.search(r"\[[A-Z_]+\]", shown)
        assert shown.count(mine) == text.replace("\\", "").count("EMAIL_ADDRESS_1")


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("password: [SECRET_PASSWORD_1]", "password: pw!9"),
        ("password: [SECRET_PASSWORD_1], ok", "password: pw!9, ok"),
        ("password=SECRET_PASSWORD_1", "password=pw!9"),
        ("DB_PASSWORD=[SECRET_PASSWORD_1]", "DB_PASSWORD=pw!9"),
        ("postgres://app:[SECRET_PASSWORD_1]@db.example.net:5432/prod", None),
        ("user [PERSON_1] at [EMAIL_ADDRESS_1]", "user Ann at a@b.example"),
        ("a [EMAIL_ADDRESS_1]@example.com b", None),
        ("ann.[PERSON_1]@example.com", None),
    ],
)
def test_what_is_found_around_a_placeholder_leaves_it_alone(written: str, got: str | None) -> None:
    exchange = with_values(("SECRET_PASSWORD", "pw!9"), ("PERSON", "Ann"), ("EMAIL_ADDRESS", "a@b.example"))
    shown = restore(exchange, written)
    if got is not None:
        assert shown == got
        assert {verdict.outcome for verdict in exchange.tally} == {Outcome.RESTORED}
    else:
        assert any(value in shown for value in ("pw!9", "Ann", "a@b.example"))
        assert "_1" not in shown


class Phrase:
    """Finds one phrase, as ``entity``."""

    name = "phrase"

    def __init__(self, phrase: str, entity: str) -> None:
        self.entities = frozenset({entity})
        self._phrase, self._entity = phrase, entity

    def open(self, scope: Scope) -> Session:
        return _PhraseSession(self._phrase, self._entity)


class _PhraseSession:
    def __init__(self, phrase: str, entity: str) -> None:
        self._phrase, self._entity, self._text = phrase, entity, ""

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        if not final:
            return (), 0
        at = self._text.find(self._phrase)
        found = [] if at < 0 else [Span(at, at + len(self._phrase), self._entity, 0.9, "classifier/tagger")]
        return found, len(self._text)


ANN = ("PERSON", "Ann")


@pytest.mark.parametrize(
    ("phrase", "got"),
    [
        ("PERSON_1]'s", "to Ann's house, Anns or Ann Smith"),
        ("PERSON_1]'s house", "to Ann's [PERSON], Anns or Ann Smith"),
        ("[PERSON_1]s", "to Ann's house, Anns or Ann Smith"),
        ("[PERSON_1] S", "to Ann's house, Anns or Ann [PERSON]mith"),
    ],
)
def test_a_possessive_keeps_its_ending_whatever_is_found_over_it(phrase: str, got: str) -> None:
    exchange = make_exchange((Phrase(phrase, "PERSON"),))
    exchange.placeholders.pseudonym(*ANN)
    assert restore(exchange, "to [PERSON_1]'s house, [PERSON_1]s or [PERSON_1] Smith") == got


@pytest.mark.parametrize(
    ("phrase", "action", "got"),
    [
        ("PERSON_1", "redact", "Dr. Ann Lee, (Ann)"),
        ("[PERSON_1]", "redact", "Dr. Ann Lee, (Ann)"),
        ("[PERSON_1]", "block", "Dr. Ann Lee, (Ann)"),
        (", (", "block", "Dr. Ann Lee"),
        ("[PERSON_1] Le", "redact", "Dr. Ann [PERSON]e, (Ann)"),
        ("([PERSON_1])", "withhold", "Dr. Ann Lee, (Ann)"),
        ("1] Lee", "redact", "Dr. Ann [PERSON], (Ann)"),
        ("1] Lee", "mask", "Dr. Ann ***, (Ann)"),
        ("Dr. [PERSON", "redact", "[PERSON] Ann Lee, (Ann)"),
        ("Dr. [PERSON_1] Lee", "redact", "[PERSON] Ann [PERSON], (Ann)"),
        ("[PERSON_1] Lee, ([PERSON_1])", "redact", "Dr. Ann [PERSON]Ann)"),
        ("Dr. [PERSON_1] Lee", "flag", "Dr. Ann Lee, (Ann)"),
        ("1] Lee", "withhold", "Dr. [withheld]"),
        ("1] Lee", "block", "Dr. "),
        ("Lee", "withhold", "Dr. Ann [withheld]"),
    ],
)
def test_other_findings_do_not_swallow_a_placeholder(phrase: str, action: str, got: str) -> None:
    exchange = make_exchange((Phrase(phrase, "PERSON"),), ACTIONS[Action(action)])
    assert exchange.placeholders.pseudonym(*ANN) == "[PERSON_1]"
    assert restore(exchange, "Dr. [PERSON_1] Lee, ([PERSON_1])") == got
    restored = sum(count for verdict, count in exchange.tally.items() if verdict.outcome is Outcome.RESTORED)
    assert restored == got.count("Ann")


def test_only_an_ending_right_behind_a_placeholder_goes_with_it() -> None:
    exchange = make_exchange((Phrase("1] x s, Lee", "PERSON"), Phrase("s", "USERNAME")), ACTIONS[Action.REDACT])
    exchange.placeholders.pseudonym(*ANN)
    assert restore(exchange, "[PERSON_1] x s, Lee") == "Ann [PERSON]"
    assert {verdict.entity for verdict in exchange.tally} == {"PERSON", "USERNAME"}


def test_shadow_mode_restores_and_alters_nothing_else() -> None:
    rules = "version: 1\nname: t\nmode: shadow\nrules: []\ndefault: redact\n"
    exchange = make_exchange(policy=parse(rules, "t.yaml", None))
    exchange.placeholders.pseudonym(*ANN)
    assert restore(exchange, "[PERSON_1]'s mail: bo@example.com") == "Ann's mail: bo@example.com"
    assert {(verdict.entity, verdict.outcome) for verdict in exchange.tally} == {
        ("PERSON", Outcome.RESTORED),
        ("EMAIL_ADDRESS", Outcome.WOULD_HAVE),
    }


def test_the_reasoning_s_tail_does_not_become_a_placeholder_with_the_answer_s_head() -> None:
    exchange = with_values(ANN)
    lane = exchange.lane(0)
    for key, kind, text in (
        ("r", ChannelKind.REASONING, "I ask [PERSON_1], or [PERS"),
        ("o", ChannelKind.OUTPUT, "ON_1] or [PERSON_1]. PERSON_1 it is, so much is clear."),
    ):
        lane.open(key, PlainView(kind))
        for character in text:
            lane.feed(key, character)
    lane.finish()
    shown: dict[object, str] = {"r": "", "o": ""}
    for emission in lane.take():
        shown[emission.key] += emission.text
    assert shown == {"r": "I ask Ann, or [PERS", "o": "ON_1] or Ann. Ann it is, so much is clear."}
    assert exchange.tally.total() == 3


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(st.tuples(st.sampled_from("roa"), st.integers(1, 9)), min_size=1, max_size=60))
def test_channels_that_take_turns_restore_what_each_of_them_wrote(turns: list[tuple[str, int]]) -> None:
    text = "So [PERSON_1] and \\[PERSON\\_2\\], [person_1]'s friend, mail EMAIL_ADDRESS_1. "
    exchange = with_values(*GIVEN)
    lane = exchange.lane(0)
    kinds = {"r": ChannelKind.REASONING, "o": ChannelKind.OUTPUT, "a": ChannelKind.REFUSAL}
    fed = dict.fromkeys(kinds, "")
    shown: dict[object, str] = dict.fromkeys(kinds, "")
    for key, length in turns:
        if not lane.is_open(key):
            lane.open(key, PlainView(kinds[key]))
        at = len(fed[key])
        piece = (text * (at // len(text) + 2))[at : at + length]
        fed[key] += piece
        lane.feed(key, piece)
    lane.finish()
    for emission in lane.take():
        shown[emission.key] += emission.text
    runs = [key for key, _ in groupby(key for key, _ in turns)]
    for key, written in fed.items():
        if runs.count(key) == 1:  # one that resumes may have been closed in the middle of a placeholder
            assert shown[key] == back(exchange, written, PlainView(kinds[key]))
        assert shown[key].count(VALUE) <= written.count("EMAIL")


# Exchanges


@settings(max_examples=100, deadline=None)
@given(order=st.lists(st.booleans(), min_size=2, max_size=12), cuts=CUTS)
def test_exchanges_never_see_each_other_s_values(order: list[bool], cuts: list[int]) -> None:
    mine, theirs = make_exchange(), make_exchange()
    for is_mine in order:
        name, exchange = ("mine", mine) if is_mine else ("theirs", theirs)
        count = sum(each is is_mine for each in order)
        mask(exchange, " ".join(f"{name}{number}@example.com" for number in range(count)))
    echo = " ".join(f"[EMAIL_ADDRESS_{number}] email_address_{number}" for number in range(1, 14))
    for exchange, name, other in ((mine, "mine", "theirs"), (theirs, "theirs", "mine")):
        shown = answers(exchange, PlainView(ChannelKind.OUTPUT), cut_up(echo, cuts))[-1]
        assert other not in shown
        assert shown.count(f"{name}0@example.com") == (name in shown)


# An upstream that echoes

VARIANTS: list[Callable[[str], str]] = [
    str,
    str.lower,
    str.title,
    lambda text: text.replace("[", "\\[").replace("]", "\\]").replace("_", "\\_"),
    lambda text: text.replace("_", "\\_"),
    lambda text: f"**{text}**",
    lambda text: f"`{text}`",
    lambda text: f"{text}'s",
    lambda text: text.strip("[]"),
    lambda text: f"({text})",
]


@pytest.mark.parametrize("seed", range(30))
def test_an_upstream_that_echoes_in_every_variant_is_restored_through_all_lanes(seed: int) -> None:
    turn = random.Random(seed)
    exchange = make_exchange()
    own = turn.sample([planted for planted in PLANTED if planted.entity != "SYSTEM_PROMPT"], 12)
    placeholders: dict[str, str] = {}
    for planted in own:
        before, behind = planted.carrier.split("{}")
        sent = mask(exchange, carried(planted))
        placeholder = sent[len(before) : len(sent) - len(behind)] if behind else sent[len(before) :]
        if placeholder.startswith("[") and placeholder.endswith("]") and placeholder[-2].isdigit():
            placeholders[placeholder] = exchange.placeholders.restored(placeholder)
    assert len(placeholders) > 8
    for index, kind in enumerate(MODEL_KINDS):
        written, expected = "", ""
        for placeholder, value in placeholders.items():
            variant = turn.choice(VARIANTS)
            marked = variant(placeholder)
            written += f" and {marked} "
            bare = placeholder.strip("[]")
            shape = next(
                each
                for each in (marked[at:end] for at in range(len(marked)) for end in range(len(marked), at, -1))
                if each.replace("\\", "").strip("[]").upper() == bare
            )
            expected += f" and {marked.replace(shape, value)} "
        lane = exchange.lane(index)
        lane.open("text", view_of(kind))
        wire = json.dumps({"text": written}) if kind is ChannelKind.TOOL_CALL else written
        at = 0
        while at < len(wire):
            width = turn.randint(1, 9)
            lane.feed("text", wire[at : at + width])
            at += width
        lane.finish()
        shown = "".join(emission.text for emission in lane.take())
        assert (json.loads(shown)["text"] if kind is ChannelKind.TOOL_CALL else shown) == expected
