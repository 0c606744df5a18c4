"""Server-sent events: an incremental reader and a writer.

Reading follows the WHATWG HTML standard, section 9.2.6 (event stream interpretation):

1. A BOM at the start is dropped.
2. LF, CR and CRLF are made LF, whichever way reads cut them: a CR ends its line at once, and an LF that comes next is
   skipped.
3. Blocks are cut at blank lines. The place up to which no blank line was found is kept, so work is linear in the
   input even when it comes one byte at a time.
4. In a block, ``data`` lines are joined with LF and the last ``event`` line is the name. Comments, ``id``, ``retry``
   and unknown fields are dropped: all of them could carry text past moderation.

Differences from the standard, both on purpose: an unterminated last block is an event too, because some clients
dispatch it and so it has to be moderated; and invalid UTF-8 is an error instead of U+FFFD.

Guarantees: the events do not depend on how the input was cut; memory is bounded by the event limit plus one read.
"""

from cotguard.framing.contract import Event, FramingError

__all__ = [
    "KEEP_ALIVE",
    "MAX_EVENT_BYTES",
    "DoneEvents",
    "Event",
    "FramingError",
    "Reader",
    "ServerSentEvents",
    "event",
    "is_done",
    "parse",
]

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Largest event accepted, in bytes of its block: terminal events repeat whole responses, images included."""

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: it means nothing to clients and keeps the connection open while text is held."""

_BOM = b"\xef\xbb\xbf"
_CR = 0x0D  # as integers: looking for a byte is several times faster than for a bytes object
_LF = 0x0A

_TOO_LARGE = "An event of the stream is too large."


class Reader:
    """Cuts an event stream of one response into blocks of lines, one for each event. ``max_event`` is in bytes.

    ``feed`` and ``end`` raise :class:`FramingError` for a block over the limit; the reader is of no use afterwards.
    """

    __slots__ = ("_buffer", "_max_event", "_searched", "_skip_lf", "_started")

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._max_event = max_event
        self._buffer = bytearray()
        self._searched = 0  # no blank line begins before this place of the buffer
        self._skip_lf = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the body. Returns the blocks they complete, some of them empty, for :func:`parse`."""
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        # Whole events in one read are the common case.
        whole = self._started and not self._buffer and data.endswith(b"\n\n")
        complete = data[:-2] if whole else self._complete(data)
        blocks: list[bytes] = []
        for block in complete.split(b"\n\n"):
            stripped = block.strip(b"\n")
            if len(stripped) > self._max_event:
                raise FramingError(_TOO_LARGE)
            blocks.append(stripped)
        return blocks

    def _complete(self, data: bytes) -> bytes:
        """Add ``data`` to the buffer; take out what ends with a blank line, without that line's end."""
        buffer = self._buffer
        buffer += data
        if not self._started:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return b""
            self._started = True
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
        complete = b""
        last = buffer.rfind(b"\n\n", self._searched)
        if last >= 0:
            complete = bytes(buffer[:last])
            del buffer[: last + 2]
        self._searched = max(len(buffer) - 1, 0)
        if len(buffer) - 2 > self._max_event:  # the line ends on both sides of a block are none of it
            raise FramingError(_TOO_LARGE)
        return complete

    def end(self) -> list[bytes]:
        """The body is over. Returns the unterminated last block, which may be empty."""
        block = bytes(self._buffer).strip(b"\n")
        self._buffer.clear()
        self._searched = 0
        if len(block) > self._max_event:
            raise FramingError(_TOO_LARGE)
        return [block]


def parse(block: bytes) -> Event | None:
    """The event that lines without a blank one between them stand for, if they stand for one.

    Raises :class:`FramingError` for invalid UTF-8.
    """
    if block.startswith(b"data: ") and block.isascii() and _LF not in block:
        return Event("", block[6:])
    try:
        name = ""
        lines: list[bytes] = []
        for line in block.split(b"\n"):
            label, _, value = line.partition(b":")
            if label == b"data":
                value.decode()
                lines.append(value.removeprefix(b" "))
            elif label == b"event":
                name = value.removeprefix(b" ").decode()
    except UnicodeDecodeError:
        pass  # the error holds the text; what is raised below must not, not even as its context
    else:
        return Event(name, b"\n".join(lines)) if lines else None
    raise FramingError("The stream is not valid UTF-8.")


def event(data: bytes, name: str = "") -> bytes:
    """Write one event. ``data`` and ``name`` are one line each.

    Raises ValueError where ``data`` holds a line end, which would begin a line of its own.
    """
    if _LF in data or _CR in data:
        raise ValueError("event data must be one line")
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data


def is_done(data: bytes) -> bool:
    """Whether ``data`` ends a stream of the OpenAI family: clients look at how it begins only."""
    return data.startswith(b"[DONE]")


class ServerSentEvents(Reader):
    """A :class:`~cotguard.framing.contract.Framing`: what the functions above do, for one response."""

    content_type = "text/event-stream; charset=utf-8"

    def parse(self, block: bytes) -> Event | None:
        return parse(block)

    def write(self, event_: Event) -> bytes:
        return event(event_.data, event_.name)

    def close(self) -> bytes:
        return b""

    def rewind(self) -> None:
        pass  # no event depends on the one before

    def keep_alive(self) -> bytes:
        return KEEP_ALIVE


class DoneEvents(ServerSentEvents):
    """The same where ``[DONE]`` follows the last event."""

    def close(self) -> bytes:
        return event(b"[DONE]")
