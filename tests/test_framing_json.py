import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.framing.json import MAX_DEPTH, JSONError, dumps, dumps_ascii, loads

SECRET = "hunter2"


def nested(depth: int, inside: str = "") -> bytes:
    return ("[" * depth + inside + "]" * depth).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": [1, 2.5, true, null, "x"]}', {"a": [1, 2.5, True, None, "x"]}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a": "\\uDE00", "b": 18446744073709551615}', {"a": "\ude00", "b": 2**64 - 1}),
        (b'["\\ud83d", 123456789012345678901234567890]', ["\ud83d", 123456789012345678901234567890.0]),
        (b'["\\ud83d", -1.5e3]', ["\ud83d", -1500.0]),
        (nested(MAX_DEPTH), json.loads(nested(MAX_DEPTH))),
        (nested(MAX_DEPTH, '"[[[{{{"'), json.loads(nested(MAX_DEPTH, '"[[[{{{"'))),
        (b"[" + b"[],{}," * MAX_DEPTH + b"0]", [[], {}] * MAX_DEPTH + [0]),
    ],
)
def test_documents_are_read(data: bytes, expected: object) -> None:
    assert loads(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"hunter2",
        b"NaN",
        b"[Infinity]",
        b"[1e400]",
        b"[01]",
        b"{'a': 1}",
        b'["hunter2\n"]',
        b'"\xff hunter2"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf[]",
        b'["\\ud83d hunter2", NaN]',
        b'["\\ud83d hunter2", -Infinity]',
        b'["\\ud83d hunter2", 1e400]',
        b'["\\ud83d hunter2", ' + b"9" * 400 + b"]",
        b'["\\ud83d hunter2", ' + b"9" * 5000 + b"]",
        b'["\\ud83d hunter2\xff"]',
        b'["\\ud83d hunter2"',
        b'["\\ud83d", ' + nested(5000) + b"]",
        nested(MAX_DEPTH + 1),
        nested(MAX_DEPTH + 1, "1"),
        nested(MAX_DEPTH + 1, '"\\ud83d"'),
        nested(1200),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    ],
)
def test_other_documents_are_refused_without_quoting_them(data: bytes) -> None:
    with pytest.raises(JSONError) as caught:
        loads(data)
    assert str(caught.value) == "Not valid JSON."
    assert caught.value.__context__ is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_reads_back(value: object) -> None:
    assert loads(dumps(value)) == value == json.loads(dumps(value))


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from("\x85\u2028\u2029\x0b\x0c\x1c\x1e\ud83d\ude00")))
def test_what_is_written_is_one_line_for_every_client(text: str) -> None:
    for written in (dumps({text: [text]}), dumps(text), dumps_ascii(text)):
        assert len(written.decode().splitlines()) == 1
    # Two halves in a row are one character to every reader of JSON.
    assert json.loads(dumps(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_unpaired_surrogates_stay_escapes() -> None:
    assert dumps("a\ud83d") == b'"a\\ud83d"'
    assert dumps({"k": "\u2028é\ude00"}) == b'{"k":"\\u2028\\u00e9\\ude00"}'


def test_only_what_needs_it_is_escaped() -> None:
    assert dumps("é\u2028\u2029\x85€😀") == "é\\u2028\\u2029\\u0085€😀".join('""').encode()


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, b"hunter2", ["\ud83d", object()]])
def test_other_values_are_not_written(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        dumps(value)
    assert SECRET not in str(caught.value)


def test_reading_is_the_inverse_of_other_writers() -> None:
    value = cast("object", {"é\u2028": "\x00\x7f", "n": [0, -0.5, 1e-9]})
    assert loads(json.dumps(value).encode()) == value
    assert loads(json.dumps(value, ensure_ascii=False).encode()) == value
