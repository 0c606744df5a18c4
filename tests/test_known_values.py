"""Known values: every form, near misses, borders, what is held, and any cut."""

import base64
import random
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Scope
from cotguard.detectors.known_values import MAX_GAP, KnownValues
from cotguard.detectors.trie import ROOT, Automaton, Cursor
from cotguard.spans import ChannelKind

VALUES = (
    "Project Bluebird",
    "ann",
    "hunter-2",
    "José Ñandú",
    "山田太郎",
    "$ecret!p",
    "a.b@example.org",
    "+49 170 5550199",
)
DETECTOR = KnownValues(VALUES)
BLUEBIRD = b"Project Bluebird"


def found(text: str, detector: KnownValues = DETECTOR) -> list[str]:
    return [text[span.start : span.end] for span in find(detector, text)]


def stable(text: str, detector: KnownValues = DETECTOR) -> int:
    session = detector.open(Scope(ChannelKind.OUTPUT))
    assert session
    return session.advance(text, final=False)[1]


# --- Forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_found_as_it_stands_and_in_any_case(value: str) -> None:
    for written in (value, value.upper(), value.lower(), value.swapcase()):
        assert written in found(f"it is {written}, I think")


@pytest.mark.parametrize(
    "written",
    [
        "project\nbluebird",
        "ProjectBluebird",
        "project_bluebird",
        "Project - Blue.bird",
        "P r o j e c t  B l u e b i r d",
        "p-r-o-j-e-c-t--b-l-u-e-b-i-r-d",
        "Project** `Bluebird",
        "project\u200bblue\u00adbird",
        "ｐｒｏｊｅｃｔ ｂｌｕｅｂｉｒｄ",
        "Рrоjесt Вluеbіrd",
        "Project" + " " * MAX_GAP + "Bluebird",
        "driBeulB tcejorP",
        "d-r-i-b-e-u-l-b t c e j o r p",
        "Project\\nBluebird",
        "\\u0050roject\\u0020Bluebird",
        "Project&nbsp;&#66;luebird",
        "&#x50;roject Bluebird",
        quote("Project Bluebird"),
        "Project+Bluebird",
        "".join(f"%{byte:02x}" for byte in BLUEBIRD),
        "".join(f"\\x{byte:02x}" for byte in BLUEBIRD),
        BLUEBIRD.hex(),
        BLUEBIRD.hex().upper(),
        BLUEBIRD.hex(":"),
        BLUEBIRD.hex(" "),
        BLUEBIRD.hex("-"),
        " ".join(f"0x{byte:02X}" for byte in BLUEBIRD),
        ", ".join(f"0x{byte:02x}" for byte in BLUEBIRD),
    ],
)
def test_changed_forms_are_covered_whole(written: str) -> None:
    assert written in found(written)
    text = f"So ({written}) it is."
    assert written in found(text)
    check_every_cut(DETECTOR, text)


@pytest.mark.parametrize("value", ["José Ñandú", "山田太郎"])
def test_encodings_of_other_scripts(value: str) -> None:
    data = value.encode()
    for written in (quote(value), data.hex(), "".join(f"\\x{byte:02x}" for byte in data), value[::-1]):
        assert written in found(f"= {written} =")
    assert found("JOSE\u0301 nandu") == ["JOSE\u0301 nandu"]
    assert found("私は山 田太郎です") == ["山 田太郎"]


@pytest.mark.parametrize("before", [b"", b"\xfb", b"\xfb\xfb", b"user:", b"key=\xff\xff"])
@pytest.mark.parametrize("after", [b"", b"\x00", b";x", b"\xff\xff\xff"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_covers_every_character_that_depends_on_the_value(before: bytes, after: bytes, encode: object) -> None:
    assert callable(encode)
    whole = encode(before + BLUEBIRD + after).decode().rstrip("=")
    first, last = 8 * len(before) // 6, -(-8 * (len(before) + len(BLUEBIRD)) // 6)
    text = f"see {whole}= there"
    spans = find(DETECTOR, text)
    assert [span.detector for span in spans] == ["known-values/base64"]
    start, end = spans[0].start - 4, spans[0].end - 4
    assert start <= first
    assert end >= min(last, len(whole))
    assert first - start <= 1
    assert end - last <= 1
    check_every_cut(DETECTOR, text)


def test_base64_with_line_breaks_and_escaped_slashes() -> None:
    whole = base64.b64encode(b"\xff\xef" + BLUEBIRD).decode()
    assert len(found("\n".join((whole[:9], whole[9:17], whole[17:])))) == 1
    value = "\u00ff\u00fe\u00fd?>~~~"
    encoded = base64.b64encode(value.encode()).decode()
    detector = KnownValues([value + "abc"])
    encoded = base64.b64encode((value + "abc").encode()).decode()
    assert "/" in encoded
    assert len(found(encoded.replace("/", "\\/"), detector)) == 1


def test_an_escape_may_be_meant_or_not() -> None:
    detector = KnownValues(["nora jones", "tools"])
    assert found("C:\\nora jones\\tools", detector) == ["nora jones", "tools"]
    assert found('"\\nNora Jones\\ttools"', detector) == ["Nora Jones", "tools"]
    check_every_cut(detector, "C:\\nora jones\\tools\\nNora%20Jones&nbsp;tools")


# --- Near misses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Nobody can announce it, Joann and anna",
        "Projects Bluebird, Project Bluebirds, aProject Bluebird",
        "Project" + " " * (MAX_GAP + 1) + "Bluebird",
        "Project the Bluebird",
        "a n n",
        "a-nn",
        BLUEBIRD.hex()[:-1],
        base64.b64encode(BLUEBIRD[:-1]).decode(),
        base64.b64encode(BLUEBIRD).decode().swapcase(),
        quote("Project Bluebir"),
        "AT&T is 100% \\ fine",
    ],
)
def test_near_misses(text: str) -> None:
    assert found(text) == []
    check_every_cut(DETECTOR, text)


def test_short_values_are_found_exactly_only() -> None:
    detector = KnownValues(["ann", "x-9z"])
    assert found("Ann, x-9z, nna, z9-x, x9z, x 9 z, 616e6e, YW5u", detector) == ["Ann", "x-9z"]


def test_longer_forms_that_share_a_beginning() -> None:
    detector = KnownValues(["blue bird", "blue bird house", "bird seed"])
    assert found("a blue bird house.", detector) == ["blue bird", "blue bird house"]
    assert found("a blue bird seed.", detector) == ["blue bird", "bird seed"]


@pytest.mark.parametrize("value", ["", "ab", "  ab ", "a-b", "!!!!!!", "\u200b\u200b\u200b"])
def test_too_short_a_value_is_refused_without_quoting_it(value: str) -> None:
    with pytest.raises(ValueError, match="known value 2 needs at least 3 letters or digits") as error:
        KnownValues(["long enough", value])
    assert not value or value not in str(error.value)


def test_nothing_to_look_for() -> None:
    assert KnownValues([]).open(Scope(ChannelKind.OUTPUT)) is None


# --- Hold --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("nothing here. ", ""),
        ("a p", "p"),
        ("xP", ""),
        ("xp", "p"),  # the first bits of a value in base64
        ("so a project b", "project b"),
        ("a project by", ""),
        ("a project \n\n b", "project \n\n b"),
        ("blue birD", ""),
        ("drib eul", "drib eul"),
        ("Project Bluebird", "Project Bluebird"),
        ("Project Bluebird.", ""),
        ("Project Bluebirds", ""),
        ("see UHJv", "UHJv"),
        ("see 5072", "5072"),
        ("see 50:72:", "50:72:"),
        ("see &#80;roject", "&#80;roject"),
        ("see &#8", "&#8"),
        ("\\pro", "pro"),
    ],
)
def test_only_what_may_become_a_form_is_held(text: str, held: str) -> None:
    at = stable(text, KnownValues(["Project Bluebird"]))
    assert text[at:] == held


def test_memory_is_bounded_on_endless_beginnings() -> None:
    detector = KnownValues(["a" * 40])
    session = detector.open(Scope(ChannelKind.OUTPUT))
    assert session
    for step in range(1, 200):
        _, at = session.advance("a-" * 20, final=False)
        assert 40 * step - at <= 80
        assert len(session._literal._scanners[0].cursor._origins) <= 80  # type: ignore[attr-defined]  # white box


# --- Context -----------------------------------------------------------------------------------------------------


def test_a_value_across_the_seam_starts_in_the_context() -> None:
    scope = Scope(ChannelKind.OUTPUT, "it is Project Blue")
    spans = find(DETECTOR, "bird.", scope)
    assert [(span.start, span.end) for span in spans] == [(-12, 4)]
    check_every_cut(DETECTOR, "bird. Project Bluebird", scope)
    assert find(DETECTOR, "bird", Scope(ChannelKind.OUTPUT, "Project Bluebird ")) == []
    assert find(DETECTOR, " on", Scope(ChannelKind.OUTPUT, "Project Bluebird")) == []
    assert find(DETECTOR, "ann", Scope(ChannelKind.OUTPUT, "Jo")) == []


# --- Any text, any cut -------------------------------------------------------------------------------------------

_FORMS = (
    *VALUES,
    *(value[::-1] for value in VALUES),
    *(base64.b64encode(b"x" * k + value.encode()).decode() for value in VALUES for k in range(3)),
    *(value.encode().hex() for value in VALUES),
    *(quote(value) for value in VALUES),
    "project\\u0020bluebird",
    "&#80;roject bluebird",
    "\\xc3\\xb1andu",
)
_NOISE = (
    "\\",
    "&",
    "%",
    "&#6",
    "\\u00",
    "\\xc3",
    "%C3",
    " ",
    "\n",
    ".",
    "-",
    "\u200b",
    "é",
    "ß",
    "山",
    "x",
    "0",
    "=",
    "!",
)


@st.composite
def texts_and_cuts(draw: st.DrawFn) -> tuple[str, str, list[int]]:
    pieces = []
    for _ in range(draw(st.integers(1, 5))):
        form = draw(st.sampled_from(_FORMS))
        low = draw(st.sampled_from((0, 0, 0, 1, 3)))
        high = draw(st.sampled_from((0, 0, 0, 1, 4)))
        pieces.append(form[low : len(form) - high])
        pieces.append("".join(draw(st.lists(st.sampled_from(_NOISE), max_size=3))))
    text = "".join(pieces)
    context = text[: draw(st.sampled_from((0, 0, 2, 9)))]
    text = text[len(context) :]
    return text, context, draw(st.lists(st.integers(0, len(text)), max_size=12))


@given(texts_and_cuts())
@settings(max_examples=250, deadline=None)
def test_spans_do_not_depend_on_the_cuts(case: tuple[str, str, list[int]]) -> None:
    text, context, cuts = case
    check_cuts(DETECTOR, text, cuts, Scope(ChannelKind.REASONING, context))


@given(texts_and_cuts())
@settings(max_examples=60, deadline=None)
def test_every_single_character_as_a_piece(case: tuple[str, str, list[int]]) -> None:
    text, context, _ = case
    check_cuts(DETECTOR, text, range(len(text)), Scope(ChannelKind.REASONING, context))


# --- The automaton -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=8),
    st.text("abc", max_size=40),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_the_automaton_against_brute_force(forms: list[str], text: str, rng: random.Random) -> None:
    allowed = [rng.random() < 0.7 for _ in text]
    cursor = Cursor(Automaton(forms))
    for at in range(1, len(text) + 1):
        if rng.random() < 0.1:
            cursor = cursor.copy()
        ended = cursor.step(text[at - 1], at - 1 if allowed[at - 1] else None)
        starts = [start for start in range(at) if allowed[start]]
        assert list(ended) == [(start, text[start:at]) for start in starts if text[start:at] in forms]
        assert cursor.hold == next(
            (start for start in starts if any(form[:-1].startswith(text[start:at]) for form in forms)), None
        )


def test_the_automaton_grows_only_where_texts_go() -> None:
    automaton = Automaton(["x" * 50_000, "yz"])
    assert len(automaton.depths) == 3
    cursor = Cursor(automaton)
    assert [cursor.step("x", at) for at in range(50_000)][-1] == [(0, "x" * 50_000)]
    assert len(automaton.depths) <= 50_003
    cursor.reset()
    assert cursor.node == ROOT
    assert cursor.hold is None
