"""Normalisation for rules: what becomes of each character and escape, the map back to the text, and any cut."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.normalize import Normalizer, fold
from cotguard.detectors.rule import LETTER, SYMBOL


def normalized(text: str) -> str:
    return Normalizer().feed(text, final=True).decode("latin-1")


@pytest.mark.parametrize(
    ("characters", "folded"),
    [
        ("aZ09 @\n\x00\x7f", "aZ09 @\n\x00\x7f"),
        ("аеорсух", "aeopcyx"),  # Cyrillic
        ("ΑΒΕΗΙΚΜ", "ABEHIKM"),  # Greek
        ("ａＺ０９＠．", "aZ09@."),
        ("𝟎𝟗𝐀𝗓ⓐ", "09Aza"),
        ("éÑüÅ", "eNuA"),
        ("٣۳३๓", "3333"),
        ("‐–—−⁃－", "------"),
        ("‘’“”«»", '\'\'""""'),
        ("\xa0\u2002\u3000\u202f", "    "),
        ("\x85\u2028\u2029", "\n\n\n"),
        ("дλßæ", LETTER * 4),
        ("山あ한ع\U0001f600€\ud83d", SYMBOL * 7),
    ],
)
def test_one_character_stands_for_each(characters: str, folded: str) -> None:
    assert "".join(map(fold, characters)) == folded
    assert normalized(characters) == folded


@pytest.mark.parametrize("invisible", "\u200b\u200d\u2060\ufeff\xad\u202e\u0301\u20dd\u115f\u3164\ufe0f\U000e0041")
def test_invisible_characters_vanish(invisible: str) -> None:
    assert normalized(f"a{invisible}b{invisible}") == "ab"


def test_every_code_point_is_one_latin_1_character_or_none() -> None:
    folded = [fold(chr(code_point)) for code_point in range(sys.maxunicode + 1)]
    assert {len(character) for character in folded} == {0, 1}
    assert max(folded) <= "\xff"
    assert {character for character in folded if character > "\x7f"} == {LETTER, SYMBOL}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a&#64;b", "a@b"),
        ("a&#x40;b&#X40;c", "a@b@c"),
        ("a&commat;b&period;c", "a@b.c"),
        ("&lt;&amp;&nbsp;&quot;", '<& "'),
        (r"a\u0040b\x40c", "a@b@c"),
        (r"a\nb\tc\\d\"e\/f", 'a\nb\tc\\d"e/f'),
        (r"\uff14&#65297;", "41"),  # full-width digits, escaped
        (r"a\u200bb&shy;c", "abc"),
        # What is no escape stays as it stands.
        ("AT&T; a & b &nosuchname; &#; &#x;", "AT&T; a & b &nosuchname; &#; &#x;"),
        ("&#99999999; &#x110000; &toolonganame;", "&#99999999; &#x110000; &toolonganame;"),
        (r"C:\dir \u00 \u00zz \x4 \q", r"C:\dir \u00 \u00zz \x4 \q"),
        ("&amp;#64;", "&#64;"),  # one level
        (r"\\u0040", r"\u0040"),
        ("%40", "%40"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert normalized(text) == expected


@pytest.mark.parametrize("begun", ["&", "&#", "&#6", "&#x4", "&comma", "\\", r"\u", r"\u004", r"\x", r"\x4"])
def test_an_unfinished_escape_waits(begun: str) -> None:
    normalizer = Normalizer()
    assert normalizer.feed(f"ab{begun}", final=False) == b"ab"
    assert normalizer.start(2) == 2
    assert normalizer.feed("", final=True).decode("latin-1") == begun
    assert normalizer.start(2 + len(begun)) == 2 + len(begun)


def test_waiting_is_bounded() -> None:
    normalizer = Normalizer()
    normal = 0
    for received, character in enumerate("&" + "a" * 50 + r"\x" + "&#" + "1" * 50, 1):
        normal += len(normalizer.feed(character, final=False))
        assert received - normalizer.start(normal) <= 12


def test_ranges_of_the_text() -> None:
    text = "a\u200b\u200b&#64;bc\u200bd"
    normalizer = Normalizer(-3)
    assert normalizer.feed(text, final=True) == b"a@bcd"
    ranges = [text[normalizer.start(at) + 3 : normalizer.end(at + 1) + 3] for at in range(5)]
    assert ranges == ["a", "&#64;", "b", "c", "d"]
    assert (normalizer.start(0), normalizer.end(0), normalizer.start(5)) == (-3, -3, len(text) - 3)


PIECES = st.sampled_from(
    [
        *("a", "Z", "0 9", "\n", "plain words ", "аb", "é", "１", "山", "ﬁ", "\U0001f600", "\ud83d"),
        *("\u200b", "\u0301", "\xad", "&#64;", "&#x40;", "&commat;", "&shy;", "&nosuch;", r"\u0040", r"\x40", r"\n"),
        *("&", "#", "x", "4", ";", "\\", "u", "00", r"\u200b", "comma", "99999"),
    ]
)
Read = tuple[bytes, list[tuple[int, int]]]


def read(pieces: list[str], *, forgetful: bool) -> Read:
    """The normalised text and the text range of each of its characters, asked for as soon as it is there."""
    normalizer = Normalizer(-5)
    out = b""
    ranges: list[tuple[int, int]] = []
    for index, piece in enumerate(pieces):
        settled = len(out)
        out += normalizer.feed(piece, index == len(pieces) - 1)
        ranges += [(normalizer.start(at), normalizer.end(at + 1)) for at in range(settled, len(out))]
        if forgetful:
            normalizer.forget(len(out))
    assert normalizer.start(len(out)) == len("".join(pieces)) - 5
    return out, ranges


def check(parts: list[str], widths: list[int]) -> None:
    text = "".join(parts)
    whole, ranges = read([text], forgetful=False)
    assert all(start < end for start, end in ranges)
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    pieces = []
    at = turn = 0
    while at < len(text):
        pieces.append(text[at : at + widths[turn % len(widths)]])
        at, turn = at + len(pieces[-1]), turn + 1
    assert read([*pieces, ""], forgetful=False) == (whole, ranges)
    assert read([*pieces, ""], forgetful=True) == (whole, ranges)


PARTS = st.lists(PIECES, max_size=12)
WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(PARTS, WIDTHS)
def test_cuts_do_not_matter(parts: list[str], widths: list[int]) -> None:
    check(parts, widths)


@pytest.mark.long
@settings(max_examples=20_000, deadline=None, database=None)
@given(PARTS, WIDTHS)
def test_cuts_do_not_matter_in_many_cases(parts: list[str], widths: list[int]) -> None:
    check(parts, widths)
