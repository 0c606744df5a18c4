"""A JSON array of objects that is written and read while it grows: an incremental reader and a writer.

Google's APIs answer a streaming method so where no other form is asked for: the array's elements arrive over time, with
line ends between and inside them. Grammar: RFC 8259, sections 2 and 5.

1. An element is found by counting brackets outside of strings and is a block as soon as its last brace is there: the
   comma behind it comes with the next one. Whether it is valid JSON is its reader's to tell: one that is valid ends
   where it ends here.
2. Before, between and behind elements stands nothing but white space and, in their places, ``[``, ``,`` and ``]``.
   Anything else is an error: elements that are no objects, a comma too many, whatever follows the array.

What is written is one array: an element a line, with its ``]`` written by ``close`` only.

Guarantees: blocks do not depend on how the input was cut: what was complete before an error is returned first, and the
error is raised by the next call; every byte is looked at once; memory is bounded by the
element limit plus one read. At the end, an element without its end is what is left, and is no valid JSON; that the
array itself was not closed is no error here: a dialect knows whether a response is complete.
"""

import re
from enum import Enum, auto

from cotguard.framing.contract import Event, FramingError
from cotguard.framing.sse import MAX_EVENT_BYTES

__all__ = ["JSONArray"]

_SPACES = re.compile(rb"[ \t\r\n]*")
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')

_TOO_LARGE = "An element of the stream's array is too large."
_NO_ARRAY = "The stream is not a JSON array of objects."


class _Place(Enum):
    """What comes next, or what the reader is inside of."""

    ARRAY = auto()
    FIRST = auto()
    ELEMENT = auto()
    STRING = auto()
    ESCAPE = auto()
    SEPARATOR = auto()
    NEXT = auto()
    NOTHING = auto()


_STEPS: dict[tuple[_Place, int], _Place] = {
    (_Place.ARRAY, ord("[")): _Place.FIRST,
    (_Place.FIRST, ord("{")): _Place.ELEMENT,
    (_Place.FIRST, ord("]")): _Place.NOTHING,
    (_Place.SEPARATOR, ord(",")): _Place.NEXT,
    (_Place.SEPARATOR, ord("]")): _Place.NOTHING,
    (_Place.NEXT, ord("{")): _Place.ELEMENT,
}
_INSIDE_AN_ELEMENT = frozenset({_Place.ELEMENT, _Place.STRING, _Place.ESCAPE})


class JSONArray:
    """A :class:`~cotguard.framing.contract.Framing`. ``max_element`` is in bytes."""

    content_type = "application/json; charset=utf-8"

    def __init__(self, max_element: int = MAX_EVENT_BYTES) -> None:
        self._max_element = max_element
        self._place = _Place.ARRAY
        self._depth = 0
        self._pieces: list[bytes] = []  # of the element that has not ended
        self._size = 0
        self._error = ""  # found behind blocks that were returned first
        self._begun = False  # writing

    def feed(self, data: bytes) -> list[bytes]:
        blocks: list[bytes] = []
        try:
            self._check()
            self._read(data, blocks)
        except FramingError as error:
            if not blocks:
                raise
            self._error = str(error)
        return blocks

    def _check(self) -> None:
        if self._error:
            raise FramingError(self._error)

    def _read(self, data: bytes, blocks: list[bytes]) -> None:
        at = 0
        while at < len(data):
            if self._place in _INSIDE_AN_ELEMENT:
                end = self._element_until(data, at)
                self._keep(data[at:end])
                if self._place is _Place.SEPARATOR:
                    blocks.append(b"".join(self._pieces))
                    self._pieces, self._size = [], 0
                at = end
            else:
                at = self._step(data, at)

    def _step(self, data: bytes, at: int) -> int:
        """Read one byte that stands outside of elements, if there is one; returns where to go on."""
        spaces = _SPACES.match(data, at)
        at = spaces.end() if spaces else at
        if at == len(data):
            return at
        place = _STEPS.get((self._place, data[at]))
        if place is None:
            raise FramingError(_NO_ARRAY)
        self._place = place
        return at if place is _Place.ELEMENT else at + 1  # an element's first brace is its own

    def _element_until(self, data: bytes, at: int) -> int:
        """Go on in an element. Returns where it ends, or the end of the data."""
        while at < len(data):
            if self._place is _Place.ESCAPE:
                self._place = _Place.STRING
                at += 1
                continue
            found = (_INSIDE if self._place is _Place.STRING else _OUTSIDE).search(data, at)
            if found is None:
                return len(data)
            at = found.end()
            byte = data[at - 1]
            if self._place is _Place.STRING:
                self._place = _Place.ELEMENT if byte == ord('"') else _Place.ESCAPE
            elif byte == ord('"'):
                self._place = _Place.STRING
            elif byte in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    self._place = _Place.SEPARATOR
                    return at
        return at

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._max_element:
            raise FramingError(_TOO_LARGE)

    def end(self) -> list[bytes]:
        self._check()
        left = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return [left] if left else []

    def parse(self, block: bytes) -> Event | None:
        return Event("", block)

    def write(self, event: Event) -> bytes:
        before = b",\n" if self._begun else b"["
        self._begun = True
        return before + event.data

    def close(self) -> bytes:
        return b"]\n" if self._begun else b"[]\n"

    def rewind(self) -> None:
        self._begun = False

    def keep_alive(self) -> bytes:
        return b"\n"
