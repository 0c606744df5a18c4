from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cotguard.dialects.memo import remembered
from cotguard.dialects.table import HOLE
from cotguard.framing.json import JSONError, dumps, dumps_ascii, loads
from cotguard.framing.ndjson import NDJSON
from cotguard.framing.sse import parse

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


def document(text: str, *, copies: int) -> dict[str, Any]:
    return {"id": "a", "choices": [{"delta": {f"field{number}": text for number in range(copies)}, "finish": None}]}


def block(text: str, copies: int, *, ascii_only: bool = False) -> bytes:
    return b"data: " + (dumps_ascii if ascii_only else dumps)(document(text, copies=copies))


@example(":", "0", 1, False)
@given(TEXTS, TEXTS, st.integers(1, 3), st.booleans())
def test_another_text_in_the_same_place_is_told(first: str, second: str, copies: int, ascii_only: bool) -> None:
    memo = remembered(block(first, copies, ascii_only=ascii_only), first, "", document(HOLE, copies=copies), parse)
    if memo is None:  # its JSON string stands elsewhere too: as a key, or, of punctuation, between strings
        written = (dumps_ascii if ascii_only else dumps)(first)
        assert block(first, copies, ascii_only=ascii_only).count(written) > copies
    else:
        for escaped in (False, True):
            assert memo.text(block(second, copies, ascii_only=escaped)) == second


@given(st.data(), st.integers(1, 3))
def test_what_differs_elsewhere_is_never_taken_for_the_same(data: st.DataObject, copies: int) -> None:
    memo = remembered(block("word", copies), "word", "", document(HOLE, copies=copies), parse)
    assert memo is not None
    other = bytearray(block("other", copies))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(other)))
        other[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([b'"', b"\\", b"x", b",", b"{", b""]))
    text = memo.text(bytes(other))
    if text is not None:
        assert loads(bytes(other).removeprefix(b"data: ")) == document(text, copies=copies)


@example('","role":"system')
@example('"}},{"delta":{"field0":"')
@given(TEXTS)
def test_a_text_that_would_close_its_string_is_not_told(text: str) -> None:
    memo = remembered(block("word", 1), "word", "", document(HOLE, copies=1), parse)
    assert memo is not None
    crafted = block("word", 1).replace(b"word", text.encode())
    told = memo.text(crafted)
    if told is not None:
        assert loads(crafted.removeprefix(b"data: ")) == document(told, copies=1)


def test_a_text_that_stands_elsewhere_too_is_not_learned() -> None:
    assert remembered(block("delta", 1), "delta", "", document(HOLE, copies=1), parse) is None
    assert remembered(block("word", 2), "word", "", document(HOLE, copies=1), parse) is None


def test_a_shorter_event_is_another() -> None:
    memo = remembered(block("word", 1), "word", "", document(HOLE, copies=1), parse)
    assert memo is not None
    whole = block("word", 1)
    assert [memo.text(whole[:length]) for length in range(len(whole))] == [None] * len(whole)


def test_what_is_no_json_is_not_told() -> None:
    memo = remembered(block("word", 1), "word", "", document(HOLE, copies=1), parse)
    assert memo is not None
    for text in (b'"\xff"', b'"\n"', b'"\\x"', b"null", b'""', b'"'):
        whole = block("word", 1).replace(b'"word"', text)
        assert memo.text(whole) is None
        if text not in (b"null", b'""'):
            try:
                loads(whole.removeprefix(b"data: "))
            except JSONError:
                continue
            raise AssertionError(text)


@given(TEXTS, TEXTS)
def test_a_name_is_part_of_an_event(first: str, second: str) -> None:
    named = b"event: one\n" + block(first, 1)
    assert remembered(named, first, "two", document(HOLE, copies=1), parse) is None
    memo = remembered(named, first, "one", document(HOLE, copies=1), parse)
    if memo is not None:
        assert memo.text(b"event: one\n" + block(second, 1)) == second
        assert memo.text(b"event: two\n" + block(second, 1)) is None
        assert memo.text(block(second, 1)) is None


@given(TEXTS, TEXTS)
def test_a_line_of_json_is_an_event(first: str, second: str) -> None:
    memo = remembered(dumps(document(first, copies=1)), first, "", document(HOLE, copies=1), NDJSON().parse)
    if memo is not None:
        assert memo.text(dumps(document(second, copies=1))) == second
        assert memo.text(dumps(document(second, copies=2))) is None
