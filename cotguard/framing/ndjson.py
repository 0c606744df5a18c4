"""Newline-delimited JSON: one document a line. What is written ends every line with LF.

CR before LF is dropped, so are empty lines. Memory is bounded by the line limit plus one read.
"""

from cotguard.framing.contract import Event, FramingError
from cotguard.framing.sse import MAX_EVENT_BYTES

__all__ = ["NDJSON"]


class NDJSON:
    """A :class:`~cotguard.framing.contract.Framing`. ``max_line`` is in bytes."""

    content_type = "application/x-ndjson"

    def __init__(self, max_line: int = MAX_EVENT_BYTES) -> None:
        self._max_line = max_line
        self._pieces: list[bytes] = []  # of the line that has not ended
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        first, found, rest = data.partition(b"\n")
        self._pieces.append(first)
        self._size += len(first)
        if self._size > self._max_line:
            raise FramingError("A line of the stream is too large.")
        if not found:
            return []
        lines = [b"".join(self._pieces), *rest.split(b"\n")]
        last = lines.pop()
        self._pieces, self._size = [last], len(last)
        if max(map(len, lines)) > self._max_line or self._size > self._max_line:
            raise FramingError("A line of the stream is too large.")
        return [line for line in map(bytes.strip, lines) if line]

    def end(self) -> list[bytes]:
        line = b"".join(self._pieces).strip()
        self._pieces, self._size = [], 0
        return [line] if line else []

    def parse(self, block: bytes) -> Event | None:
        return Event("", block)

    def write(self, event: Event) -> bytes:
        return event.data + b"\n"

    def close(self) -> bytes:
        return b""

    def rewind(self) -> None:
        pass  # no event depends on the one before

    def keep_alive(self) -> bytes:
        return b""
