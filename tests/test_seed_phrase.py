"""Seed phrases: every length, layouts, checksums, long runs, what is held, and any cut."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Scope
from cotguard.detectors.seed_phrase import HINT_CHARS, MAX_GAP, SeedPhrases, word_list
from cotguard.spans import ChannelKind

DETECTOR = SeedPhrases()
COUNTS = (12, 15, 18, 21, 24)
WORDS = word_list()


def phrase(count: int, seed: int) -> list[str]:
    """A valid phrase, by the BIP's own steps: entropy, checksum appended, cut into 11 bits."""
    entropy = random.Random(seed).randbytes(count * 4 // 3)
    bits = "".join(f"{byte:08b}" for byte in entropy) + f"{hashlib.sha256(entropy).digest()[0]:08b}"[: count // 3]
    return [WORDS[int(bits[at : at + 11], 2)] for at in range(0, len(bits), 11)]


def found(text: str, context: str = "") -> list[str]:
    return [text[max(span.start, 0) : span.end] for span in find(DETECTOR, text, Scope(ChannelKind.OUTPUT, context))]


def test_the_list_is_the_official_one() -> None:
    assert hashlib.sha256("".join(f"{word}\n" for word in WORDS).encode()).hexdigest() == (
        "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    )


def test_the_published_example() -> None:
    """The first test vector of the BIP: entropy of zeros."""
    text = "abandon " * 11 + "about"
    assert text in found(f"It is {text}.")
    assert found("abandon " * 11 + "able") == []


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", range(3))
def test_every_length(count: int, seed: int) -> None:
    written = " ".join(phrase(count, seed))
    assert written in found(f"The wallet: {written}. Keep it!")


@pytest.mark.parametrize(
    ("glue", "prefix"),
    [
        (" ", ""),
        ("\n", ""),
        (", ", ""),
        ('", "', ""),
        (" | ", ""),
        ("\\n", ""),
        ("\r\n\r\n", ""),
        ("\n", "{number}. "),
        (" ", "{number}) "),
        ("\n", "- #{number}: "),
        (" ", "({number})"),
    ],
)
def test_layouts(glue: str, prefix: str) -> None:
    words = phrase(12, 42)
    written = glue.join(prefix.format(number=number) + word.title() for number, word in enumerate(words, 1))
    text = f"Restore it with\n{written}\nand nothing else"
    assert [part.lower().endswith(words[-1]) for part in found(text)] == [True]
    assert found(text)[0].startswith(words[0].title())
    check_every_cut(DETECTOR, text)


@pytest.mark.parametrize(
    "text",
    [
        " ".join(phrase(12, 1)[:11]),
        " ".join([*phrase(12, 1)[:6], "the", *phrase(12, 1)[6:]]),
        " ".join([*phrase(12, 1)[:11], phrase(12, 1)[11] + "s"]),
        " ".join([*phrase(12, 1)[:11], "x" + phrase(12, 1)[11]]),
        " ".join([*phrase(12, 1)[:11], phrase(12, 1)[11] + "é"]),
        "".join(phrase(12, 1)),
        " ".join(phrase(12, 1)[:6]) + "-" * (MAX_GAP + 1) + " ".join(phrase(12, 1)[6:]),
    ],
)
def test_near_misses(text: str) -> None:
    assert found(text) == []
    check_every_cut(DETECTOR, text)


def test_a_wrong_checksum_is_no_phrase() -> None:
    words = phrase(12, 5)
    wrong = [word for word in WORDS[:64] if not found(" ".join([*words[:11], word]))]
    assert 50 <= len(wrong) < 64  # one in sixteen is right by chance


def test_a_phrase_anywhere_in_a_longer_run() -> None:
    words = phrase(24, 6)
    run = ["zoo", "zebra", *words, "abandon", "ability"] * 2
    text = " ".join(run)
    assert found(text).count(" ".join(words)) == 2
    check_cuts(DETECTOR, text, range(1, len(text), 3))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("This is mine", ""),
        ("This is ab", "ab"),
        ("This is abx", ""),
        ("ab", "ab"),
        ("We spoke: about", "about"),
        ("We spoke: about ", "about "),
        ("We spoke: about th", "about th"),
        ("We spoke: about thus", ""),
        ("We spoke: about" + " " * (MAX_GAP + 1), ""),
        ("We spoke\nab", "ab"),
        ("We spoke (ab", "ab"),
        ("We spoke 1. ab", "ab"),
        ("We spoke about", ""),
        ("We spoke about ability", ""),
        ("We spoke about ability able abs", "able abs"),
        ("The wallet we spoke about", "about"),
        ("The wallet" + " mine" * (HINT_CHARS // 4) + " about", ""),
        ("zoo " * 40 + "z", "zoo " * 23 + "z"),
        ("zoo " * 40, "zoo " * 23),
        ("internationalisation", ""),
        ("zoo &#9", "zoo &#9"),
    ],
)
def test_only_a_run_of_list_words_is_held(text: str, held: str) -> None:
    session = DETECTOR.open(Scope(ChannelKind.OUTPUT))
    assert session
    _, stable = session.advance(text, final=False)
    assert text[stable:] == held


def test_of_a_phrase_that_nothing_announces_all_but_two_words_are_found() -> None:
    words = phrase(12, 3)
    text = f"perhaps {' '.join(words)} perhaps"
    assert found(text) == [" ".join(words[2:])]
    check_every_cut(DETECTOR, text)


def test_a_phrase_across_the_seam_starts_in_the_context() -> None:
    written = " ".join(phrase(12, 7))
    context, text = f"it is {written[:30]}", f"{written[30:]} it is"
    scope = Scope(ChannelKind.OUTPUT, context)
    assert [(span.start, span.end) for span in find(DETECTOR, text, scope)] == [(-30, len(written) - 30)]
    check_every_cut(DETECTOR, text, scope)
    assert found(" it is", context=written) == []


@st.composite
def texts_and_cuts(draw: st.DrawFn) -> tuple[str, str, list[int]]:
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        words = phrase(draw(st.sampled_from(COUNTS)), draw(st.integers(0, 9)))
        words = words[draw(st.sampled_from((0, 0, 1, 5))) :]
        pieces.append(draw(st.sampled_from((" ", "\n", ", ", "\\n", "1. ", "\u200b "))).join(words))
        ends = (" ", ". ", " the ", " that ", " wallet ", "", "s", "é", "&", "\\", "." * 15)
        pieces.append(draw(st.sampled_from(ends)))
    text = "".join(pieces)
    context = text[: draw(st.sampled_from((0, 0, 7, 40)))]
    text = text[len(context) :]
    return text, context, draw(st.lists(st.integers(0, len(text)), max_size=12))


@given(texts_and_cuts())
@settings(max_examples=200, deadline=None)
def test_spans_do_not_depend_on_the_cuts(case: tuple[str, str, list[int]]) -> None:
    text, context, cuts = case
    check_cuts(DETECTOR, text, cuts, Scope(ChannelKind.REASONING, context))
    check_cuts(DETECTOR, text, range(len(text)), Scope(ChannelKind.REASONING, context))
