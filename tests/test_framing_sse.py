import itertools
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.framing.sse import KEEP_ALIVE, Event, FramingError, Reader, event, is_done, parse

MAX = 64


def read(pieces: Sequence[bytes], reader: Reader | None = None) -> list[Event]:
    reader = reader or Reader()
    blocks = [block for piece in pieces for block in reader.feed(piece)]
    return [each for block in (*blocks, *reader.end()) if (each := parse(block)) is not None]


def reference(stream: bytes) -> list[Event]:
    """The standard's line-by-line algorithm, for a whole stream, with an unterminated block dispatched."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    name, data = "", b""
    for line in [*text.split(b"\n"), b""]:
        if not line:
            if data:
                events.append(Event(name, data[:-1]))
            name, data = "", b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value.decode()
    return events


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: x\n\n", [Event("", b"x")]),
        (b"data:x\n\n", [Event("", b"x")]),
        (b"data:  x\n\n", [Event("", b" x")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [Event("", b"a"), Event("", b"b"), Event("", b"c")]),
        (b"data: a\r\ndata: b\rdata: c\n\r\n", [Event("", b"a\nb\nc")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [Event("", b"a"), Event("", b"b")]),
        (b"event: ping\ndata: {}\n\n", [Event("ping", b"{}")]),
        (b"event: a\nevent: b\ndata: {}\n\n", [Event("b", b"{}")]),
        (b"event: a\n\ndata: {}\n\n", [Event("", b"{}")]),
        (b": comment\ndata: x\n:data: y\nid: 7\nretry: 9\nunknown: z\ndata\n\n", [Event("", b"x\n")]),
        (b"data\n\n", [Event("", b"")]),
        (b"data:\n\n", [Event("", b"")]),
        (b": OPENROUTER PROCESSING\n\n", []),
        (b"\xef\xbb\xbfdata: x\n\n", [Event("", b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
        (b"data: \xef\xbb\xbfx\n\n", [Event("", b"\xef\xbb\xbfx")]),
        (b"data: a\n\ndata: b", [Event("", b"a"), Event("", b"b")]),
        (b"data: a\n\ndata: b\r", [Event("", b"a"), Event("", b"b")]),
        ("data: \u2028\x85é😀\x0b\x0c\n\n".encode(), [Event("", "\u2028\x85é😀\x0b\x0c".encode())]),
        (b"{'error': 'not an event stream'}", []),
        (b"\xef\xbb", []),
        (b"", []),
    ],
)
def test_streams_are_read_as_the_standard_says(stream: bytes, expected: list[Event]) -> None:
    assert read([stream]) == expected
    assert reference(stream) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected
    for cut in range(len(stream)):
        assert read([stream[:cut], b"", stream[cut:]]) == expected


LINES = st.sampled_from(
    [
        b"data: x",
        b"data:",
        b"data",
        b"data:  y",
        b"event: e",
        b"event",
        b": c",
        b"id: 1",
        "data: é😀".encode(),
        b"",
        b" ",
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(STREAMS, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.lists(st.integers(0, 120), max_size=8))
def test_events_do_not_depend_on_cuts(stream: bytes, bom: bytes, cuts: list[int]) -> None:
    stream = bom + stream
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert read(pieces) == reference(stream)


def test_an_event_is_handed_out_with_its_blank_line() -> None:
    reader = Reader()
    assert reader.feed(b"data: x\r\n") == [b""]
    assert reader.feed(b"\r") == [b"data: x"]
    assert reader.feed(b"\n") == [b""]
    assert reader.feed(b"data: y\n\ndata: z") == [b"data: y"]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: \xff\n\n",
        b"data: \xed\xa0\x80\n\n",
        b"event: \xc3\ndata: x\n\n",
        b"data: x\ndata: \xf0\x9f\n\n",
        b"data: \xc3",
    ],
)
def test_invalid_utf8_is_refused_without_quoting_it(stream: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        read([stream])
    assert str(caught.value) == "The stream is not valid UTF-8."
    assert caught.value.__context__ is None


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * MAX + b"\n\n", b"data: x\n" * MAX, b": x\n" * MAX, b"x" * (MAX + 3)]
)
def test_an_event_over_the_limit_is_refused(stream: bytes, step: int) -> None:
    with pytest.raises(FramingError, match=r"^An event of the stream is too large\.$"):
        read([stream[at : at + step] for at in range(0, len(stream), step)], Reader(MAX))


@given(st.integers(MAX - 8, MAX), st.integers(1, 9), st.booleans())
def test_whether_an_event_is_too_large_does_not_depend_on_cuts(size: int, step: int, blank: bool) -> None:
    stream = b"\n" * blank + b"data: " + b"x" * size + b"\n\n"
    for pieces in ([stream], [stream[at : at + step] for at in range(0, len(stream), step)]):
        if size + 6 > MAX:
            with pytest.raises(FramingError):
                read(pieces, Reader(MAX))
        else:
            assert len(read(pieces, Reader(MAX))) == 1


def test_the_limit_is_for_one_event() -> None:
    stream = (b"data: " + b"x" * (MAX - 6) + b"\n\n") * 9
    assert len(read([stream], Reader(MAX))) == 9
    assert len(read([stream[at : at + 1] for at in range(len(stream))], Reader(MAX))) == 9


def _seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def test_one_byte_at_a_time_takes_linear_time() -> None:
    def work(size: int) -> float:
        stream = b"data: " + b"x" * size + b"\n\n"
        return min(_seconds(lambda: read([stream[at : at + 1] for at in range(len(stream))])) for _ in range(3))

    assert work(160_000) < 8 * max(work(40_000), 0.005)  # quadratic work would take 16 times as long


def test_events_are_written_as_they_are_read() -> None:
    assert event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert event(b"{}", "message_stop") == b"event: message_stop\ndata: {}\n\n"
    assert read([event(b" x", "é")]) == [Event("é", b" x")]
    assert read([KEEP_ALIVE]) == []


@pytest.mark.parametrize("data", [b"a\nb", b"a\rb", b"\n"])
def test_data_of_more_than_one_line_is_not_written(data: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        event(data)


def test_done_is_told_by_its_beginning() -> None:
    assert is_done(b"[DONE]")
    assert is_done(b"[DONE] anything")
    assert not is_done(b" [DONE]")
    assert not is_done(b"[done]")
