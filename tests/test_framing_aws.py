"""AWS event streams: frames read in any pieces, checksums, limits, headers, and what Amazon Bedrock puts into them."""

import base64
import json
import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]

from cotguard.framing.aws_event_stream import EXCEPTION, AwsEventStream
from cotguard.framing.bedrock import Chunks, Padded
from cotguard.framing.contract import Event, FramingError

EVENTS = [Event("messageStart", b'{"role":"assistant"}'), Event("e", '{"text":"é\0"}'.encode()), Event("x", b"{}")]


def frame(headers: bytes, payload: bytes = b"{}") -> bytes:
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return body + struct.pack("!I", crc32(body))


def header(name: str, value: bytes, kind: int = 7) -> bytes:
    size = struct.pack("!H", len(value)) if kind in (6, 7) else b""
    return bytes([len(name)]) + name.encode() + bytes([kind]) + size + value


def named(kind: bytes = b"event", name: bytes = b"e") -> bytes:
    return header(":message-type", kind) + header(":event-type", name)


def read(data: bytes, size: int = 10**9, framing: AwsEventStream | None = None) -> list[Event]:
    framing = framing or AwsEventStream()
    blocks = [block for at in range(0, len(data), size) for block in framing.feed(data[at : at + size])]
    blocks += framing.end()
    return [event for block in blocks if (event := framing.parse(block)) is not None]


@pytest.mark.parametrize("size", [1, 5, 16, 10**9])
def test_what_is_written_is_read_again_however_it_is_cut(size: int) -> None:
    data = b"".join(map(AwsEventStream().write, EVENTS))
    assert read(data, size) == EVENTS


def test_what_is_written_is_read_by_the_official_reader() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(map(AwsEventStream().write, [EVENTS[0], Event(EXCEPTION + "gone", b"{}")])))
    event, exception = buffer
    assert event.headers == {
        ":event-type": "messageStart",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert event.payload == EVENTS[0].data
    assert exception.headers == {
        ":exception-type": "gone",
        ":content-type": "application/json",
        ":message-type": "exception",
    }


def test_a_frame_with_any_byte_altered_is_refused() -> None:
    data = AwsEventStream().write(EVENTS[0])
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        with pytest.raises(FramingError):
            read(altered)


def test_a_frame_that_does_not_end_is_refused() -> None:
    data = AwsEventStream().write(EVENTS[0])
    for end in range(1, len(data)):
        with pytest.raises(FramingError):
            read(data[:end])


def test_frames_are_limited_before_they_are_there() -> None:
    framing = AwsEventStream(max_frame=1000)
    assert len(framing.feed(framing.write(Event("e", b"x" * 800)))) == 1
    blocks = framing.feed(framing.write(Event("e", b"x" * 1000))[:12])
    assert [bool(block) for block in blocks] == [False]
    assert framing.feed(framing.write(EVENTS[0])) == []
    with pytest.raises(FramingError):
        framing.parse(blocks[0])


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (20, 5), (2**32 - 1, 2**32 - 1), (200_000, 70_000)])
def test_lengths_that_do_not_fit_are_refused(total: int, headers: int) -> None:
    lengths = struct.pack("!II", total, headers)
    with pytest.raises(FramingError):
        read(lengths + struct.pack("!I", crc32(lengths)))


def test_headers_of_all_types_are_passed_over() -> None:
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: 3, 7: 3, 8: 8, 9: 16}
    others = b"".join(header(f"h{kind}", b"\xff" * size, kind) for kind, size in sizes.items())
    assert read(frame(others + named() + others)) == [Event("e", b"{}")]


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        header(":event-type", b"e"),
        header(":message-type", b"event"),
        named(b"other"),
        named() + header(":event-type", b"f"),
        named(name=b""),
        named(name=b"a:b"),
        named(name=b"a\0b"),
        named(name="é".encode()),
        header(":message-type", b"event", 6) + header(":event-type", b"e"),
        named() + header("x", b"", 10),
        named() + b"\x05x",
        named() + header("x", b"abc")[:-1],
    ],
)
def test_headers_that_name_no_event_are_refused(headers: bytes) -> None:
    with pytest.raises(FramingError):
        read(frame(headers))


def test_exceptions_and_errors_are_told_by_their_names() -> None:
    exception = header(":message-type", b"exception") + header(":exception-type", b"throttlingException")
    error = header(":message-type", b"error") + header(":error-code", b"Odd") + header(":error-message", b"words")
    assert read(frame(exception) + frame(error, b"")) == [
        Event("exception:throttlingException", b"{}"),
        Event("exception:Odd", b""),
    ]


def test_a_payload_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(FramingError):
        read(frame(named(), b'{"a":"\xff"}'))


def test_padding_is_no_part_of_an_event() -> None:
    padded = [Event("e", b'{"a":1,"p":"abcXYZ012"}'), Event("e", b'{"p":"abc","a":1}'), Event("e", b'{"a":"x","p":1}')]
    inner = Event("e", json.dumps({"a": 'x","p":"abc'}).encode())
    data = b"".join(map(AwsEventStream().write, [*padded, inner]))
    found = read(data, framing=Padded())
    assert [event.data for event in found[:1]] == [b'{"a":1}']
    assert found[1:3] == padded[1:]
    assert json.loads(found[3].data) == {"a": 'x","p":"abc'}


@pytest.mark.parametrize("size", [1, 10**9])
def test_chunks_hold_events_of_another_stream(size: int) -> None:
    inner = [Event("", b'{"generation":"a"}'), Event("", b'{"generation":"b"}')]
    data = b"".join(map(Chunks().write, inner)) + AwsEventStream().write(Event("other", b"{}"))
    data += Chunks().write(Event(EXCEPTION + "gone", b"{}"))
    assert read(data, size, Chunks()) == [*inner, Event("exception:gone", b"{}")]
    outer = read(data)[0]
    assert outer.name == "chunk"
    assert base64.b64decode(json.loads(outer.data)["bytes"]) == inner[0].data


@pytest.mark.parametrize("payload", [b"{}", b'{"bytes":1}', b'{"bytes":"?"}', b'{"bytes":"/w=="}', b"[]", b"{"])
def test_chunks_that_cannot_be_read_are_refused(payload: bytes) -> None:
    with pytest.raises(FramingError):
        read(AwsEventStream().write(Event("chunk", payload)), framing=Chunks())
