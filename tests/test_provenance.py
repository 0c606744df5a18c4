"""Provenance: what is recalled, where values stand, and what the policy makes of it, in any cuts."""

import base64
import json
import re
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.classifier.bundle import DEFAULT
from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Detector, RequestFacts, Scope
from cotguard.detectors.recalled import Recalled
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView
from cotguard.moderation.origins import MAX_INSIDE, Origins
from cotguard.moderation.provenance import MAX_CHARS, MAX_VALUES, SOURCES, Provenance
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, PolicyError, load, parse
from cotguard.spans import Action, ChannelKind, Span

DOCS = Path(__file__).resolve().parents[1] / "docs" / "provenance.md"
CONTEXTUAL = load("contextual")
PATTERNS = build(CONTEXTUAL)
USER, TOOL, SYSTEM = ChannelKind.USER, ChannelKind.TOOL_RESULT, ChannelKind.SYSTEM
REASONING, OUTPUT, TOOL_CALL = ChannelKind.REASONING, ChannelKind.OUTPUT, ChannelKind.TOOL_CALL
OWN = frozenset({USER})

Texts = Sequence[tuple[ChannelKind, str]]


def learned(texts: Texts, detectors: Sequence[Detector] = PATTERNS, policy: Policy = CONTEXTUAL) -> Provenance:
    provenance = Provenance(policy)
    for kind, text in texts:
        scope = Scope(kind)
        provenance.origins.add(kind, text)
        provenance.learn(kind, text, [span for detector in detectors for span in find(detector, text, scope)])
    return provenance


def exchange_of(
    provenance: Provenance, detectors: Sequence[Detector] = PATTERNS, policy: Policy = CONTEXTUAL
) -> Exchange:
    exchange = Exchange(policy, detectors, RequestFacts(), b"k" * 16, exchange_key=b"k" * 16)
    exchange._provenance = provenance
    return exchange


def delivered(exchange: Exchange, parts: Sequence[tuple[str, View, Sequence[str]]]) -> list[str]:
    """What each channel delivers; asserts that it was a prefix of the end result all the time."""
    lane = exchange.lane(0)
    got = {key: [""] for key, _, _ in parts}

    def take() -> None:
        for emission in lane.take():
            texts = got[str(emission.key)]
            texts.append(texts[-1] + emission.text)

    for key, view, pieces in parts:
        lane.open(key, view)
        for piece in pieces:
            lane.feed(key, piece)
            take()
    lane.finish()
    take()
    assert all(texts[-1].startswith(text) for texts in got.values() for text in texts)
    return [texts[-1] for texts in got.values()]


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]


def written(exchange: Exchange, text: str, kind: ChannelKind = OUTPUT, cuts: Sequence[int] = ()) -> str:
    if kind is not TOOL_CALL:
        return delivered(exchange, [("text", PlainView(kind), cut(text, [at % (len(text) + 1) for at in cuts]))])[0]
    raw = json.dumps({"note": text})
    (got,) = delivered(exchange, [("text", JsonView(), cut(raw, [at % (len(raw) + 1) for at in cuts]))])
    return str(json.loads(got)["note"])


# --- The table of the docs ---------------------------------------------------------------------------------------


def rows(columns: int) -> list[list[str]]:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == columns][1:]


NAMED = {name: text.strip("`") for name, text in rows(2) if text.startswith("`")}
CASES = rows(6)


@cache
def all_detectors() -> tuple[Detector, ...]:
    return build(CONTEXTUAL, DEFAULT)


@cache
def knowing(user: str, tool: str) -> Provenance:
    texts = [(USER, NAMED.get(text) or text.strip("`")) for text in user.split(" and ")]
    return learned([*texts, (TOOL, NAMED[tool])], all_detectors())


def test_the_table_of_the_docs_is_there() -> None:
    assert len(NAMED) == 3
    assert len(CASES) >= 40
    assert {cell for row in CASES for cell in row[3:]} == {"passes", "redacted"}


@pytest.mark.parametrize("row", CASES, ids=lambda row: " ".join(row[:3]))
def test_the_docs_say_what_happens(row: list[str]) -> None:
    user, tool, form, *expected = row
    text = f"The record says {form.strip('`')} , noted."
    for kind, outcome in zip((REASONING, OUTPUT, TOOL_CALL), expected, strict=True):
        for cuts in ((), range(0, 150, 5)):
            got = written(exchange_of(knowing(user, tool), all_detectors()), text, kind, cuts)
            if outcome == "passes":
                assert got == text
            else:
                assert re.fullmatch(r"The record says \[[A-Z_]+\]\S* , noted\.", got)


# --- Where a value stands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("call 123456.", "123456"),
        ("call 123 456.", "123456"),
        ("call 123456.", "12-34-56"),
        ("no. 91 123456", "123456"),
        ("Ann.Lee@Example.com", "ANN.LEE@EXAMPLE.COM"),
        ("ann.lee@example.com", "ann.lee%40example.com"),
        ("ann.lee@example.com", "ann.lee&#64;example.com"),
        ("JOSE\u0301 ÑANDÚ", "jose nandu"),
        ("我是山田太郎。", "山田太郎"),
        ("Ann        Lee", "Ann Lee"),
        ("project_bluebird", "Project Bluebird"),
    ],
)
def test_a_value_stands_in_a_text_in_any_spelling(text: str, value: str) -> None:
    origins = Origins()
    origins.add(USER, f"It is so: {text}")
    assert origins.of(value) == OWN


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("call 91234567.", "123456"),
        ("call 123456.", "23456"),
        ("call 1234567.", "123456"),
        ("a91 123456b", "123456"),
        ("annlee", "ann"),
        ("Joann Lee", "Ann Lee"),
        ("Ann Leeds", "Ann Lee"),
        ("Ann\n\n---------\n\nLee", "Ann Lee"),
        ("ann.lee@example", "ann.lee@example.com"),
        ("ann.lee%40example.com", "ann.lee@example.com"),
        ("anything", ""),
        ("anything", "@"),
        ("any @ thing\n", "\n"),
        ("1 " * (MAX_INSIDE + 1) + "x" + "a123456" * (MAX_INSIDE + 1), "123456"),
    ],
)
def test_it_does_not_stand_inside_words_or_in_parts(text: str, value: str) -> None:
    origins = Origins()
    origins.add(USER, text)
    assert origins.of(value) == frozenset()


def test_texts_are_apart_and_kinds_are_told() -> None:
    origins = Origins()
    origins.add(USER, "123")
    origins.add(USER, "456")
    assert origins.of("123456") == frozenset()
    origins.add(SYSTEM, "Keep 123 456 safe.")
    assert origins.of("123456") == {SYSTEM}
    origins.add(USER, "is it 123456?")
    assert origins.of("123456") == {SYSTEM, USER}
    assert Origins().of("123456") == frozenset()


@given(
    st.lists(st.sampled_from(["12", "34", "ann", "Lee", "é", "山", " ", "-", ". ", " " * 9, "_"]), max_size=12),
    st.sampled_from(["12", "1234", "ann", "annlee", "ann12", "lee", "山", "ann山", "34ann", "e12"]),
)
def test_origins_against_a_plain_search(parts: list[str], core: str) -> None:
    text = "".join(parts)
    origins = Origins()
    origins.add(USER, text)
    gap = r"[\W_]{0,8}"
    pattern = re.compile(gap.join(core))
    folded = text.lower().replace("é", "e")

    def glued(at: int) -> bool:
        around = folded[max(at - 1, 0) : at + 1]
        return len(around) == 2 and all(character.isalnum() and character != "山" for character in around)

    starts = [at for at in range(len(folded)) if not glued(at)]
    matches = [match for at in starts if (match := pattern.match(folded, at))]
    assert bool(origins.of(core)) == any(not (m.end() < len(folded) and glued(m.end())) for m in matches)


def test_questions_are_linear_in_long_texts() -> None:
    origins = Origins()
    origins.add(USER, "a a aa 1 " * 120_000)
    began = time.process_time()
    for number in range(100):
        origins.of(f"aaaaaaaaaaaaaaaaaaaaaa{number}@example.com")
        origins.of("a" * (number + 20))
    assert time.process_time() - began < 5


# --- What is learned ---------------------------------------------------------------------------------------------


def known(text: str, span: Span, kind: ChannelKind = TOOL, policy: Policy = CONTEXTUAL) -> bool:
    provenance = Provenance(policy)
    provenance.learn(kind, text, [span])
    return provenance.detector() is not None


def whole(text: str, entity: str = "PERSON", detector: str = "classifier/PERSON", score: float = 0.9) -> Span:
    return Span(0, len(text), entity, score, detector)


@pytest.mark.parametrize("text", ["Bob Ray", "bob.ray", "user84", "山田太郎", "김민수", "Jo Li"])
def test_telling_findings_of_the_classifier_are_known(text: str) -> None:
    assert known(text, whole(text))


@pytest.mark.parametrize("text", ["Bob", "Bluebird", "O", "123", "1-2-3", "J!"])
def test_others_are_not(text: str) -> None:
    assert not known(text, whole(text))


def test_a_pattern_needs_no_second_word() -> None:
    for text, is_known in (("DEUTDEFF", True), ("4711", True), ("471", False), ("ab", False)):
        assert known(text, whole(text, "SWIFT_CODE", "patterns/swift")) is is_known


@pytest.mark.parametrize("kind", ChannelKind)
def test_only_texts_that_are_not_the_users_are_learned_from(kind: ChannelKind) -> None:
    assert known("Bob Ray", whole("Bob Ray"), kind) is (kind in SOURCES)


@pytest.mark.parametrize("entity", ["HATE", "PROMPT_INJECTION", "SYSTEM_PROMPT", "CANARY", "KNOWN_VALUE", "LOCATION"])
def test_what_is_no_value_or_is_allowed_is_not_learned(entity: str) -> None:
    assert not known("some words 77", whole("some words 77", entity))


def test_the_policy_says_what_is_worth_knowing() -> None:
    rule = "{entities: [PERSON], channels: [%s], min_score: 0.5, action: %s%s}"
    cases = [
        (rule % ("reasoning", "redact", ""), 0.5, True),
        (rule % ("reasoning", "redact", ""), 0.4, False),
        (rule % ("tool_result", "redact", ""), 0.5, False),
        (rule % ("output", "redact", ", unless_origin: [tool_result]"), 0.5, True),
        (rule % ("output", "allow", ", unless_origin: [user]"), 0.5, False),
        (rule % ("output", "allow", ", unless_origin: [user]") + ", {entities: [PERSON], action: mask}", 0.5, True),
    ]
    for rules, score, is_known in cases:
        policy = parse(f"version: 1\nname: t\nrules: [{rules}]\n", "t.yaml", None)
        assert known("Bob Ray", whole("Bob Ray", score=score), policy=policy) is is_known


def test_limits() -> None:
    values = [f"bob{number}@example.org" for number in range(MAX_VALUES + 1)]
    provenance = Provenance(CONTEXTUAL)
    for value in values[:-1] * 2:
        provenance.learn(TOOL, value, [whole(value, "EMAIL_ADDRESS", "patterns/email")])
    with pytest.raises(ModerationFault, match="more than 2000 values") as fault:
        provenance.learn(TOOL, values[-1], [whole(values[-1], "EMAIL_ADDRESS", "patterns/email")])
    assert "bob" not in str(fault.value)
    long = "x1" * (MAX_CHARS // 2)
    assert known(long, whole(long, "SECRET", "patterns/key"))
    assert not known(long + "y", whole(long + "y", "SECRET", "patterns/key"))


def test_nothing_shows_what_was_learned() -> None:
    provenance = learned([(TOOL, "bob.ray@example.org"), (USER, "ann.lee@example.com")])
    detector = provenance.detector()
    assert detector
    (span,) = find(detector, "bob.ray@example.org")
    for thing in (provenance, provenance.origins, detector, span):
        assert "bob" not in repr(thing)
        assert "ann" not in repr(thing)


# --- The detector ------------------------------------------------------------------------------------------------

VALUES = (
    ("EMAIL_ADDRESS", "bob.ray@example.org"),
    ("PERSON", "Bob Ray"),
    ("USERNAME", "bob.ray"),
    ("GOVERNMENT_ID", "54321"),
    ("CUSTOMER_ID", "12345"),
    ("PHONE_NUMBER", "+1 415 555 2671"),
    ("SECRET", "$p4x!"),
)
DETECTOR = Recalled(VALUES)


def forms(value: str) -> list[str]:
    data = value.encode()
    return [
        value,
        value.swapcase(),
        "-".join(filter(str.isalnum, value)),
        value[::-1],
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(b"id" + data).decode(),
        data.hex(),
        data.hex(" "),
        quote(value, safe=""),
        "".join(f"%{byte:02X}" for byte in data),
        "".join(f"\\x{byte:02x}" for byte in data),
        "".join(f"&#{ord(character)};" for character in value),
    ]


def test_each_form_is_reported_as_what_its_value_was_found_as() -> None:
    assert DETECTOR.entities == {entity for entity, _ in VALUES}
    for form in forms("bob.ray@example.org"):
        spans = [span for span in find(DETECTOR, f"see {form} .") if span.entity == "EMAIL_ADDRESS"]
        assert {(span.score, span.value) for span in spans} == {(1.0, "bobrayexampleorg")}
        assert {span.detector for span in spans} <= {"recalled/text", "recalled/base64", "recalled/hex"}


def test_values_that_share_a_form_or_end_another_are_all_reported() -> None:
    assert {(s.entity, s.value) for s in find(DETECTOR, "12345")} == {
        ("GOVERNMENT_ID", "54321"),
        ("CUSTOMER_ID", "12345"),
    }
    assert {s.entity for s in find(DETECTOR, "bob ray")} == {"PERSON", "USERNAME"}
    ending = Recalled([("CUSTOMER_ID", "91123456"), ("GOVERNMENT_ID", "123456")])
    assert [s.value for s in find(ending, "91 123456")] == ["91123456", "123456"]


def test_too_short_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="known value 2 needs at least 3"):
        Recalled([("PERSON", "Bob Ray"), ("PERSON", "B.")])


@pytest.mark.parametrize("value", [value for _, value in VALUES])
def test_the_contract(value: str) -> None:
    for form in forms(value):
        check_every_cut(DETECTOR, f"a {form}, b")


@given(
    st.lists(st.sampled_from([form for _, value in VALUES for form in forms(value)] + [" ", "\\", "b", "1"])), st.data()
)
@settings(max_examples=100, deadline=None)
def test_the_contract_in_any_text(parts: list[str], data: st.DataObject) -> None:
    text = " ".join(parts)
    check_cuts(DETECTOR, text, data.draw(st.lists(st.integers(0, len(text)), max_size=10)), Scope(OUTPUT, "12"))


# --- Exchanges ---------------------------------------------------------------------------------------------------

REQUEST: Texts = (
    (USER, "I am ann.lee@example.com, card 4111 1111 1111 1111, phone +1 415 555 0132."),
    (TOOL, "Customer bob.ray@example.org, IBAN GB82 WEST 1234 5698 7654 32, also ann.lee@example.com"),
    (SYSTEM, "The line of the office is +44 20 7946 0958."),
)
OWNED = ("ann.lee@example.com", "4111 1111 1111 1111", "+1 415 555 0132")
OTHERS = ("bob.ray@example.org", "GB82 WEST 1234 5698 7654 32", "+44 20 7946 0958")
KNOWING = learned(REQUEST)


@pytest.mark.parametrize("kind", [REASONING, OUTPUT, TOOL_CALL, ChannelKind.REFUSAL, ChannelKind.OTHER])
def test_own_values_pass_in_any_spelling(kind: ChannelKind) -> None:
    for value in OWNED:
        for spelling in (value, value.upper(), value.replace(" ", "-"), value.replace("@", "%40")):
            text = f"So it is {spelling} , I think."
            assert written(exchange_of(KNOWING), text, kind) == text


@pytest.mark.parametrize("kind", [REASONING, OUTPUT, TOOL_CALL, ChannelKind.REFUSAL, ChannelKind.OTHER])
def test_others_never_pass_in_any_form(kind: ChannelKind) -> None:
    for value in OTHERS:
        for form in forms(value):
            got = written(exchange_of(KNOWING), f"So it is {form} , I think.", kind)
            assert re.fullmatch(r"So it is (aW)?\[[A-Z_]+\]=* , I think\.", got)


def test_an_own_value_recalled_in_base64_passes_and_another_does_not() -> None:
    own, other = (base64.b64encode(value.encode()).decode() for value in ("ann.lee@example.com", OTHERS[0]))
    assert written(exchange_of(KNOWING), f"{own} or {other}") == f"{own} or [EMAIL_ADDRESS]=="


PIECES = st.sampled_from(
    [form for value in (*OWNED, *OTHERS) for form in forms(value)]
    + ["and so", "ann.lee", "bob.ray", "4111 1111", "</think>", "<think>", "\\n", "é", "91", "-"]
)


@given(st.lists(st.tuples(PIECES, st.sampled_from([" ", ", ", "", "\n"])), max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_g1_and_g2_with_recalled_values_and_origins(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    text = "".join(map("".join, parts))
    seam = data.draw(st.integers(0, len(text)))
    cuts = st.lists(st.integers(0, len(text)), max_size=12)
    halves = text[:seam], text[seam:]
    raw = json.dumps({"a": text, "b": [text[:9]]})

    def results(first: Sequence[int], second: Sequence[int], third: Sequence[int]) -> list[list[str]]:
        views = (PlainView(REASONING), PlainView(OUTPUT))
        seen = [
            (str(at), views[at], cut(halves[at], [c % (len(halves[at]) + 1) for c in (first, second)[at]]))
            for at in (0, 1)
        ]
        return [
            delivered(exchange_of(KNOWING), seen),
            delivered(exchange_of(KNOWING), [("text", MarkerView(OUTPUT), cut(text, third))]),
            delivered(exchange_of(KNOWING), [("text", JsonView(), cut(raw, [c % (len(raw) + 1) for c in third]))]),
        ]

    uncut = results((), (), ())
    assert results(data.draw(cuts), data.draw(cuts), data.draw(cuts)) == uncut


def test_a_value_across_the_seam_has_the_origins_of_what_was_recalled() -> None:
    own, other = (base64.b64encode(value.encode()).decode() for value in ("ann.lee@example.com", OTHERS[0]))
    for value, out in ((own, [own[:9], own[9:]]), (other, ["[EMAIL_ADDRESS]", "[EMAIL_ADDRESS]=="])):
        parts = [("a", PlainView(REASONING), [value[:9]]), ("b", PlainView(OUTPUT), [value[9:]])]
        assert delivered(exchange_of(KNOWING), parts) == out


def test_a_part_of_a_value_has_no_origin() -> None:
    # The user's own address ends another's, which the seam cuts right there.
    provenance = learned([(USER, "I am lee@example.com"), (TOOL, "x")])
    parts = [("a", PlainView(REASONING), ["it is ann."]), ("b", PlainView(OUTPUT), ["lee@example.com"])]
    assert delivered(exchange_of(provenance), parts) == ["it is [EMAIL_ADDRESS]", "[EMAIL_ADDRESS]"]


def test_what_always_goes_goes_also_from_the_user() -> None:
    policy = parse(
        "version: 1\nname: t\nknown_values: {values: [Bluebird]}\nrules:\n"
        "  - {entities: [KNOWN_VALUE], action: redact}\n"
        "  - {entities: [EMAIL_ADDRESS], unless_origin: [user, system], action: redact}\n",
        "t.yaml",
        None,
    )
    detectors = build(policy)
    texts = [(USER, "Bluebird, a@b.example.com"), (SYSTEM, "c@d.example.com"), (TOOL, "e@f.example.com")]
    got = written(
        exchange_of(learned(texts, detectors, policy), detectors, policy),
        "Bluebird: a@b.example.com c@d.example.com e@f.example.com ",
    )
    assert got == "[KNOWN_VALUE]: a@b.example.com c@d.example.com [EMAIL_ADDRESS] "


def test_what_the_classifier_finds_inside_an_own_value_is_that_value() -> None:
    class Noise:
        """Reads a text that is fed at once."""

        name = "classifier"
        entities = frozenset({"CUSTOMER_ID", "SECRET_OTP"})

        def __init__(self, found: str, entity: str) -> None:
            self.found, self.entity, self.read = found, entity, 0

        def open(self, scope: Scope) -> "Noise":
            return self

        def advance(self, text: str, final: bool) -> tuple[list[Span], int]:
            self.read += len(text)
            at = text.find(self.found)
            spans = [Span(at, at + len(self.found), self.entity, 0.9, f"classifier/{self.entity}")] if at >= 0 else []
            return spans, self.read

    def result(text: str, found: str, entity: str = "CUSTOMER_ID") -> str:
        detectors = [*PATTERNS, Noise(found, entity)]
        return written(exchange_of(KNOWING, detectors), text)

    own = "card 4111-1111-1111-1111."
    assert result(own, "1-1") == own
    assert result(own, "d 4111") == "car[CUSTOMER_ID]-1111-1111-1111."
    assert result(own, "1-1", "SECRET_OTP") != own
    assert result("IBAN GB82 WEST 1234 5698 7654 32 ", "WEST") == "IBAN [IBAN_CODE] "


def test_two_exchanges_share_nothing() -> None:
    first = learned([(TOOL, "bob.ray@example.org"), (USER, "ann.lee@example.com")])
    second = learned([(TOOL, "ann.lee@example.com"), (USER, "bob.ray@example.org")])
    encoded = base64.b64encode(b"bob.ray@example.org").decode()
    text = f"bob.ray@example.org ann.lee@example.com {encoded} "
    assert written(exchange_of(first), text) == "[EMAIL_ADDRESS] ann.lee@example.com [EMAIL_ADDRESS]== "
    assert written(exchange_of(second), text) == f"bob.ray@example.org [EMAIL_ADDRESS] {encoded} "
    nothing = learned([])
    assert nothing.detector() is None
    assert written(exchange_of(nothing), text) == f"[EMAIL_ADDRESS] [EMAIL_ADDRESS] {encoded} "


def test_origins_need_texts_that_are_read() -> None:
    rules = "rules:\n  - {entities: [PERSON], unless_origin: [user], action: mask}\n"
    with pytest.raises(PolicyError, match="texts of requests are ignored") as error:
        parse(f"version: 1\nname: t\nrequest: {{texts: ignore}}\n{rules}", "t.yaml", None)
    assert "t.yaml:5:" in str(error.value)
    assert parse(f"version: 1\nname: t\n{rules}", "t.yaml", None).decide("PERSON", OUTPUT, 1, OWN) is Action.ALLOW
