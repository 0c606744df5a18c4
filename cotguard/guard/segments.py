"""Where a channel's text is cut into the segments that a guard judges.

A segment ends at the first end of a sentence or line that makes it ``least`` characters long; where none comes before
``most``, behind the last space, or else at ``most``. So the cuts are a function of the text from the channel's start.
"""

import re

__all__ = ["Splitter"]

_END = re.compile(r"[.!?…][\"'”’»)\]}*_`]{0,3}\s|\n|[。！？]")
"""The end of a sentence with the white space after it, or of a line."""

_REACH = 5  # characters of the longest match


class Splitter:
    """Cuts one text. What was searched is not searched again."""

    __slots__ = ("_least", "_most", "_searched")

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._searched = 0  # characters of the segment under way in which no end begins

    def end(self, text: str, start: int, *, final: bool) -> int | None:
        """Where the segment that begins at ``start`` ends in ``text``, or ``None`` while that is open.

        Asked with the same segment's growing text until it says; then with the next one's.
        """
        least, limit = start + self._least, start + self._most
        found = self._search(text, start, limit) if len(text) >= least else None
        if found is None and len(text) >= limit:
            space = text.rfind(" ", least, limit)
            found = limit if space < 0 else space + 1
        if found is None and final and len(text) > start:
            found = len(text)
        self._searched = 0 if found is not None else max(len(text) - start - _REACH, 0)
        return found

    def _search(self, text: str, start: int, limit: int) -> int | None:
        at = start + max(self._searched, self._least - _REACH, 0)
        while match := _END.search(text, at, limit):
            at = match.end()
            if at >= start + self._least:
                return at
        return None
