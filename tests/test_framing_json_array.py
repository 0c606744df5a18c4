"""JSON arrays that grow: whatever the cuts, the same elements; nothing but an array of objects."""

import itertools
import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.framing.contract import Event, FramingError
from cotguard.framing.json_array import JSONArray

MAX = 64
TEXTS = st.text(alphabet='"\\{}[],: \t\r\n/aé\u2028😀', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4)
SPACES = st.text(alphabet=" \t\r\n", max_size=3)


def read(pieces: Sequence[bytes], framing: JSONArray | None = None) -> list[bytes]:
    framing = framing or JSONArray()
    return [block for piece in pieces for block in framing.feed(piece)] + framing.end()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in itertools.pairwise([0, *places, len(data)])]


@given(OBJECTS, SPACES, SPACES, st.sampled_from([None, 1]), st.booleans(), st.lists(st.integers(0, 4000), max_size=8))
def test_elements_are_what_a_parser_finds_however_they_are_cut(
    values: list[object], before: str, between: str, indent: int | None, ascii_: bool, places: list[int]
) -> None:
    elements = [json.dumps(each, indent=indent, ensure_ascii=ascii_) for each in values]
    data = f"{before}[{before}{f'{between},{before}'.join(elements)}{between}]{before}".encode()
    assert json.loads(data) == values
    expected = [element.encode() for element in elements]
    assert read([data]) == expected
    assert read(cut(data, places)) == expected
    assert read([data[at : at + 1] for at in range(len(data))]) == expected


@given(OBJECTS, st.lists(st.integers(0, 4000), max_size=8))
def test_what_is_written_is_an_array_that_reads_the_same(values: list[object], places: list[int]) -> None:
    framing = JSONArray()
    elements = [json.dumps(each).encode() for each in values]
    data = b"".join(framing.write(Event("", each)) + framing.keep_alive() for each in elements) + framing.close()
    assert json.loads(data) == values
    assert read(cut(data, places)) == elements


def test_an_element_is_there_with_its_last_brace() -> None:
    framing = JSONArray()
    assert framing.feed(b'[{"a":"}"') == []
    assert framing.feed(b"}") == [b'{"a":"}"}']
    assert framing.feed(b"\r\n,\r\n") == []
    assert framing.feed(b'{"b":[{}]}') == [b'{"b":[{}]}']
    assert framing.parse(b"{}") == Event("", b"{}")


@pytest.mark.parametrize(
    "data",
    [
        *(b"{}", b'"x"', b"x", b"[1]", b'["x"]', b"[[]]", b"[,]", b"[{},]", b"[{},,{}]", b"[{}{}]", b"[{};{}]"),
        *(b"[]]", b"[][]", b"[{}]x", b"[{}]\n{}", b"[{}],"),
        *(b"\xef\xbb\xbf[]", b"[{}\0]", b"data: {}\n\n", b"[}]", b"[{]}]x"),
    ],
)
def test_anything_else_is_an_error_however_it_is_cut(data: bytes) -> None:
    for size in (1, len(data)):
        with pytest.raises(FramingError):
            read([data[at : at + size] for at in range(0, len(data), size)])


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_what_is_complete_before_an_error_is_returned_first(size: int) -> None:
    data = b'[{"a":1} , {}\n, nonsense {}]'
    blocks: list[bytes] = []

    def keep() -> None:
        framing = JSONArray()
        for at in range(0, len(data), size):
            blocks.extend(framing.feed(data[at : at + size]))
        framing.end()

    with pytest.raises(FramingError):
        keep()
    assert blocks == [b'{"a":1}', b"{}"]


@pytest.mark.parametrize("data", [b"", b" ", b"[", b"[{}", b"[{},", b"[{} "])
def test_an_array_that_was_not_closed_is_the_dialects_to_judge(data: bytes) -> None:
    assert read([data]) == ([b"{}"] if b"{}" in data else [])


@pytest.mark.parametrize("left", [b"{", b'{"a', b'{"a\\', b'{"a":[1'])
def test_an_element_that_did_not_end_is_what_is_left(left: bytes) -> None:
    assert read([b"[{},", left]) == [b"{}", left]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_elements_are_limited_and_arrays_are_not(size: int) -> None:
    element = b'{"a":"' + b"x" * (MAX - 8) + b'"}'
    assert len(element) == MAX
    whole = b"[" + b" , ".join([element] * 50) + b"]"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert read(pieces, JSONArray(MAX)) == [element] * 50
    large = b'[{"a":"x' + element[6:] + b"]"
    with pytest.raises(FramingError):
        read([large[at : at + size] for at in range(0, len(large), size)], JSONArray(MAX))


def test_an_element_that_does_not_end_is_refused_at_the_limit() -> None:
    framing = JSONArray(MAX)
    framing.feed(b"[{" + b"x" * (MAX - 1))
    with pytest.raises(FramingError):
        framing.feed(b"x")


def test_work_is_linear() -> None:
    def seconds(elements: int) -> float:
        data = b"[" + b",".join([b'{"a":"' + b"x" * 50 + b'","b":[1,{}]}'] * elements) + b"]"
        started = time.process_time()
        assert len(read([data[at : at + 1] for at in range(len(data))])) == elements
        return time.process_time() - started

    assert min(seconds(2000) for _ in range(3)) < 12 * min(seconds(500) for _ in range(3))
