"""The short way for events that equal an earlier one but for their text.

Of a stream's events nearly all differ in their text alone. After an event with one text its bytes are remembered with a
hole where the text's JSON string was; an event that fills the hole with another string, and equals it otherwise, means
the same with another text. Telling costs a comparison of bytes and the parsing of one string.

Sound for any dialect: a document with one string in place of another parses to the same document with one string in
place of the other, and that the hole is the text's place, and nothing else, is verified by parsing when it is learned.
"""

from collections.abc import Callable

from cotguard.dialects.table import HOLE
from cotguard.framing.contract import Event
from cotguard.framing.json import JSONError, dumps, dumps_ascii, loads

__all__ = ["Memo", "remembered"]

_HOLE = dumps(HOLE)


class Memo:
    """An event's block of lines, without its text."""

    __slots__ = ("_count", "_first", "_fixed", "_parts")

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._first = parts[0]
        self._fixed = sum(map(len, parts))
        self._count = len(parts) - 1

    def text(self, block: bytes) -> str | None:
        """The text (some) of an event that is like the remembered one, None for any other."""
        if not block.startswith(self._first):
            return None
        size, rest = divmod(len(block) - self._fixed, self._count)
        if rest or size < len('""'):
            return None
        start = len(self._first)
        raw = block[start : start + size]
        if raw.join(self._parts) != block:
            return None
        try:
            text = loads(raw)
        except JSONError:
            return None
        return text if isinstance(text, str) and text else None


def remembered(
    block: bytes, text: str, name: str, skeleton: object, parse: Callable[[bytes], Event | None]
) -> Memo | None:
    """The memo of a named event whose document is ``skeleton``, with ``HOLE`` wherever its only text stands.

    ``parse`` is the framing's. None where the text cannot be told from the rest: a later event may do.
    """
    for raw in (dumps(text), dumps_ascii(text)):
        parts = block.split(raw)
        if len(parts) > 1:
            emptied = parse(_HOLE.join(parts))
            try:
                if emptied is not None and emptied.name == name and loads(emptied.data) == skeleton:
                    return Memo(parts)
            except JSONError:
                pass
    return None
