"""Lines of JSON: the same lines for every cut, limits, and what is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.framing.contract import Event, FramingError
from cotguard.framing.ndjson import NDJSON

LINES = st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"").strip()), max_size=6)


def read(data: bytes, cuts: list[int], limit: int = 100) -> list[bytes]:
    framing, found, at = NDJSON(limit), list[bytes](), 0
    for size in [*cuts, len(data)]:
        found += framing.feed(data[at : at + size])
        at += size
    return found + framing.end()


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.lists(st.integers(0, 7)), st.booleans())
def test_lines_do_not_depend_on_cuts(lines: list[bytes], ending: bytes, cuts: list[int], ended: bool) -> None:
    data = ending.join(lines) + (ending if ended else b"")
    assert read(data, cuts) == [line for line in lines if line]


@pytest.mark.parametrize("cuts", [[], [1] * 20, [5, 5, 5]])
@pytest.mark.parametrize("data", [b"x" * 11, b"x" * 11 + b"\n", b"a\n" + b"x" * 11, b"a\n" + b"x" * 11 + b"\nb"])
def test_a_line_over_the_limit_is_refused(data: bytes, cuts: list[int]) -> None:
    with pytest.raises(FramingError):
        read(data, cuts, limit=10)
    assert read(b"x" * 10 + b"\n" + b"y" * 10, cuts, limit=10) == [b"x" * 10, b"y" * 10]


def test_an_event_is_a_line() -> None:
    framing = NDJSON()
    assert framing.parse(b'{"a":1}') == Event("", b'{"a":1}')
    assert framing.write(Event("", b'{"a":1}')) + framing.close() == b'{"a":1}\n'
