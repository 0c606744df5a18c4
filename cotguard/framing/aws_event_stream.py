"""AWS event streams (``application/vnd.amazon.eventstream``): frames of headers and a payload, with two checksums.

A frame: total length, length of the headers, CRC of these eight bytes, headers, payload, CRC of all before it; numbers
are 32 bits, big-endian. Both checksums are verified; what is written has its own. Of the headers those are read that
name the event (``:message-type``, ``:event-type``, ``:exception-type``, ``:error-code``); no other passes.

An exception's name begins with :data:`EXCEPTION`, so does that of an error, which has a code and no payload. Memory is
bounded by the frame limit plus one read. Source: the event stream specification of smithy, and botocore's reader.
"""

import re
import struct
from zlib import crc32

from cotguard.framing.contract import Event, FramingError
from cotguard.framing.sse import MAX_EVENT_BYTES

__all__ = ["EXCEPTION", "UNREADABLE", "AwsEventStream"]

EXCEPTION = "exception:"
"""What the name of an event begins with that ends the stream with an exception."""

UNREADABLE = b""
"""The block of what cannot be read."""

_PRELUDE = struct.Struct("!III")
_LENGTH = struct.Struct("!H")
_CRC = struct.Struct("!I")
_SMALLEST = _PRELUDE.size + _CRC.size
_MAX_HEADERS = 65_536
_MAX_NAMES = 32
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of a header's value, by its type
_BYTES, _STRING = 6, 7
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,95}")
_NAMING = frozenset({b":message-type", b":event-type", b":exception-type", b":error-code"})


class AwsEventStream:
    """A :class:`~cotguard.framing.contract.Framing`. ``max_frame`` is in bytes.

    A block is an event's name, NUL, and its payload. What cannot be read is an empty block, which ``parse`` refuses, so
    that the events before it are what they are however the bytes were cut; nothing behind it is read.
    """

    content_type = "application/vnd.amazon.eventstream"

    def __init__(self, max_frame: int = MAX_EVENT_BYTES) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._needed = _PRELUDE.size  # bytes, until there is more to do
        self._broken = False
        self._names: dict[bytes, bytes] = {}  # of events, by the bytes of their headers
        self._heads: dict[str, bytes] = {}  # the headers of what is written, by name

    def feed(self, data: bytes) -> list[bytes]:
        blocks: list[bytes] = []
        if not self._broken:
            try:
                self._read(data, blocks)
            except FramingError:
                self._broken = True
                self._buffer.clear()
                blocks.append(UNREADABLE)
        return blocks

    def _read(self, data: bytes, blocks: list[bytes]) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= self._needed:
            if self._needed == _PRELUDE.size:
                self._needed = self._frame_size(bytes(buffer[start : start + _PRELUDE.size]))
                continue
            blocks.append(self._block(bytes(buffer[start : start + self._needed])))
            start += self._needed
            self._needed = _PRELUDE.size
        del buffer[:start]

    def _frame_size(self, prelude: bytes) -> int:
        total, headers, crc = _PRELUDE.unpack(prelude)
        if crc32(prelude[:8]) != crc:
            raise FramingError("A frame's prelude does not fit its checksum.")
        if headers > _MAX_HEADERS or headers + _SMALLEST > total:
            raise FramingError("A frame's lengths are wrong.")
        if total > self._max_frame:
            raise FramingError("A frame of the stream is too large.")
        return int(total)

    def end(self) -> list[bytes]:
        if self._buffer:
            raise FramingError("The stream ends within a frame.")
        return []

    def parse(self, block: bytes) -> Event | None:
        if block == UNREADABLE:
            raise FramingError("The stream cannot be read.")
        name, _, payload = block.partition(b"\0")
        return Event(name.decode(), payload)

    def write(self, event: Event) -> bytes:
        headers = self._heads.get(event.name)
        if headers is None:
            headers = self._heads[event.name] = _headers_of(event.name)
        lengths = struct.pack("!II", _SMALLEST + len(headers) + len(event.data), len(headers))
        frame = lengths + _CRC.pack(crc32(lengths)) + headers + event.data
        return frame + _CRC.pack(crc32(frame))

    def close(self) -> bytes:
        return b""

    def rewind(self) -> None:
        pass  # no event depends on the one before

    def keep_alive(self) -> bytes:
        return b""

    def _block(self, frame: bytes) -> bytes:
        """The block of a complete frame whose prelude was checked."""
        if crc32(frame[: -_CRC.size]) != _CRC.unpack(frame[-_CRC.size :])[0]:
            raise FramingError("A frame does not fit its checksum.")
        behind = _PRELUDE.size + int(_PRELUDE.unpack_from(frame)[1])
        headers = frame[_PRELUDE.size : behind]
        name = self._names.get(headers)
        if name is None:
            name = _name_of(headers)
            if len(self._names) < _MAX_NAMES:
                self._names[headers] = name
        payload = frame[behind : -_CRC.size]
        if not _is_utf8(payload):
            raise FramingError("A frame's payload is not UTF-8.")
        return name + b"\0" + payload


def _headers_of(name: str) -> bytes:
    """The headers of a frame that is written."""
    kind, _, rest = name.rpartition(":")
    return (
        _header(":exception-type" if kind else ":event-type", rest)
        + _header(":content-type", "application/json")
        + _header(":message-type", kind or "event")
    )


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([_STRING]) + _LENGTH.pack(len(value)) + value.encode()


def _name_of(headers: bytes) -> bytes:
    """What the headers of a frame that is read call it."""
    named = _headers(headers)
    kind = named.get(b":message-type", "")
    if kind == "event":
        name = named.get(b":event-type", "")
    elif kind == "exception":
        name = named.get(b":exception-type", "")
    elif kind == "error":
        name = named.get(b":error-code", "")
    else:
        raise FramingError("A frame is neither an event nor an exception.")
    if _NAME.fullmatch(name) is None:
        raise FramingError("A frame has no name.")
    return ("" if kind == "event" else EXCEPTION).encode() + name.encode()


def _is_utf8(data: bytes) -> bool:
    """Told, not raised: the error would quote the data."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _headers(data: bytes) -> dict[bytes, str]:
    """The headers that name a frame."""
    found: dict[bytes, str] = {}
    at = 0
    try:
        while at < len(data):
            behind = at + 1 + data[at]
            name, kind = data[at + 1 : behind], data[behind]
            at = behind + 1
            if kind in (_BYTES, _STRING):
                (size,) = _LENGTH.unpack_from(data, at)
                at += _LENGTH.size
            else:
                size = _SIZES[kind]
            value = data[at : at + size]
            at += size
            if name in _NAMING:
                if name in found or kind != _STRING:
                    raise FramingError("A frame's header comes twice or is no string.")
                found[name] = value.decode("ascii")
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        at = -1
    if at != len(data):
        raise FramingError("A frame's headers cannot be read.")
    return found
