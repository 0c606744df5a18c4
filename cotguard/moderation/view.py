"""Views: the text detectors see, and the way back to what is written.

A view stands between a channel's raw text (as the wire carries it) and the *text* in whose code points all spans
are. For prose the two are the same. For tool arguments the text is the JSON document with its string escapes
decoded, and what is written must be valid JSON again.
"""

from collections.abc import Sequence
from typing import Protocol

from cotguard.spans import ChannelKind

__all__ = ["Edit", "PlainView", "View"]

_HIGH_SURROGATES = (chr(0xD800), chr(0xDBFF))

Edit = tuple[int, int, str]
"""``(start, end, replacement)`` in text offsets."""


class View(Protocol):
    """Raw text in, text out; later, text ranges in, raw text out."""

    @property
    def settled(self) -> int:
        """Text before this offset may be rendered: the view's own tokens (numbers, markers) are complete."""
        ...

    @property
    def waits(self) -> bool:
        """Whether raw text waits inside that cannot be read yet."""
        ...

    @property
    def markers(self) -> Sequence[tuple[int, int]]:
        """Ranges of markers in the text that the last ``feed`` added."""
        ...

    def feed(self, raw: str, final: bool) -> str:
        """Take raw text, return the text it adds. What cannot be read yet (half an escape) waits inside."""
        ...

    def kind_at(self, offset: int) -> ChannelKind:
        """The channel kind of the character at ``offset`` (not yet rendered)."""
        ...

    def kind_until(self, offset: int, end: int) -> int:
        """Where the text from ``offset`` on changes its kind, at most ``end``."""
        ...

    def slice(self, start: int, end: int) -> str:
        """Text of a range that has not been rendered yet."""
        ...

    def widen(self, start: int, end: int) -> tuple[int, int]:
        """The range to rewrite when ``[start, end)`` is sensitive: whole tokens where a part would not be valid."""
        ...

    def parts(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        """The parts of ``[start, end)`` that are written anew when it is replaced: what is between them stays."""
        ...

    def spelt(self, start: int, end: int, edits: Sequence[Edit]) -> list[Edit]:
        """The edits that make of the text in ``[start, end)`` what ``render`` is about to write for it."""
        ...

    def render(self, start: int, end: int, edits: Sequence[Edit]) -> str:
        """Raw text for ``[start, end)`` with ``edits`` (in order, inside, not overlapping) applied.

        The view's own structure (markers, JSON punctuation) inside an edit stays. Called in order and without gaps;
        the view forgets everything before ``end``.
        """
        ...


class PlainView:
    """Prose: raw text and text are the same, except that surrogates are paired across pieces.

    Servers cut escaped surrogate pairs over two deltas; a half that finds no partner becomes U+FFFD.
    """

    __slots__ = ("_base", "_buffer", "_kind", "_pending", "markers")

    def __init__(self, kind: ChannelKind) -> None:
        self._kind = kind
        self._buffer = ""
        self._base = 0
        self._pending = ""
        self.markers: list[tuple[int, int]] = []

    @property
    def settled(self) -> int:
        return self._base + len(self._buffer)

    @property
    def waits(self) -> bool:
        return bool(self._pending)

    def feed(self, raw: str, final: bool) -> str:
        if self._pending or not raw.isascii():
            raw = self._pair_surrogates(raw, final)
        self._buffer += raw
        return raw

    def _pair_surrogates(self, raw: str, final: bool) -> str:
        raw, self._pending = self._pending + raw, ""
        if not final and raw and _HIGH_SURROGATES[0] <= raw[-1] <= _HIGH_SURROGATES[1]:
            raw, self._pending = raw[:-1], raw[-1]
        try:
            raw.encode()
        except UnicodeEncodeError:
            return raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return raw

    def kind_at(self, offset: int) -> ChannelKind:
        return self._kind

    def kind_until(self, offset: int, end: int) -> int:
        return end

    def slice(self, start: int, end: int) -> str:
        return self._buffer[start - self._base : end - self._base]

    def widen(self, start: int, end: int) -> tuple[int, int]:
        return start, end

    def parts(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        return ((start, end),)

    def spelt(self, start: int, end: int, edits: Sequence[Edit]) -> list[Edit]:
        return list(edits)

    def render(self, start: int, end: int, edits: Sequence[Edit]) -> str:
        base = self._base
        buffer = self._buffer
        self._buffer = buffer[end - base :]
        self._base = end
        if not edits:
            return buffer[start - base : end - base]
        pieces: list[str] = []
        at = start
        for edit_start, edit_end, replacement in edits:
            pieces.append(buffer[at - base : edit_start - base])
            pieces.append(replacement)
            at = edit_end
        pieces.append(buffer[at - base : end - base])
        return "".join(pieces)
