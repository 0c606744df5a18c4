r"""Incremental normalisation: one Latin-1 byte for each character read, with a map back to the text.

Values hide behind zero-width characters, full-width digits, look-alike letters, HTML entities and JSON escapes.
Rules are matched on text in which these are resolved:

1. ``&#64;``, ``&#x40;``, ``&commat;``, ``\u0040``, ``\x40``, ``\n`` become the character they stand for. An escape
   that is not complete yet waits (at most a dozen characters).
2. Invisible characters (Unicode Cf, Mn, Me) vanish.
3. Every other character becomes one byte: ASCII itself; the ASCII character it decomposes to (NFKD), looks like
   (Cyrillic, Greek) or counts as (digits, spaces, dashes, quotes); else ``LETTER`` for alphabetic scripts with
   case, else ``SYMBOL``.

ASCII text without ``&`` and backslash, the common case, is one ``encode``. Limits: one level of escaping; no
percent-decoding (the known-value detector has that); look-alikes are those of the letters' plain forms.
"""

import re
import unicodedata
from bisect import bisect_right
from html.entities import html5

from cotguard.detectors.rule import LETTER, SYMBOL

__all__ = ["Normalizer", "fold"]

# Single-character shapes that no Unicode decomposition links; keys and values are paired by position.
_LOOK_ALIKES = dict(
    zip(
        "асԁеցһіјӏорԛѕԝхуАВЕЅНІЈКМОРСТХУΖΑΒΕΗΙΚΜΝΟΡΤΥΧανορυιıɑɡ",
        "acdeghijlopqswxyABESHIJKMOPCTXYZABEHIKMNOPTYXavopuiiag",
        strict=True,
    )
)
_FOLDED = {
    **_LOOK_ALIKES,
    **dict.fromkeys("\x85\u2028\u2029", "\n"),
    **dict.fromkeys("‘’‚‛′", "'"),
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("−⁃", "-"),
    "。": ".",
    "⁄": "/",
    "∕": "/",
    "∶": ":",
}
_INVISIBLE_LETTERS = "\u115f\u1160\u3164\uffa0"  # Hangul fillers: letters by category, blank by looks


def fold(character: str) -> str:
    """The one character that stands for ``character`` in normalised text, or ``""`` when it is invisible."""
    if character < "\x80":
        return character
    if character in _FOLDED:
        return _FOLDED[character]
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or character in _INVISIBLE_LETTERS:
        return ""
    if category == "Zs":
        return " "
    if category == "Pd":
        return "-"
    decomposed = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    if len(decomposed) == 1:
        if decomposed[0] < "\x80":
            return decomposed[0]
        if decomposed[0] in _LOOK_ALIKES:
            return _LOOK_ALIKES[decomposed[0]]
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    return LETTER if category in ("Lu", "Ll", "Lt", "Lm") else SYMBOL


class _FoldTable(dict[int, str]):
    """``str.translate`` table that fills itself; bounded by the number of code points."""

    def __missing__(self, code_point: int) -> str:
        folded = self[code_point] = fold(chr(code_point))
        return folded


_TABLE = _FoldTable()

_ESCAPE = re.compile(
    r"&#(?P<decimal>[0-9]{1,7});|&#[xX](?P<hex>[0-9a-fA-F]{1,6});|&(?P<name>[A-Za-z]{2,8});"
    r"|\\u(?P<u>[0-9a-fA-F]{4})|\\x(?P<x>[0-9a-fA-F]{2})|\\(?P<c>[nrtbf\"'/\\])"
)
_ESCAPE_BEGUN = re.compile(
    r"&(?:#(?:[0-9]{0,7}|[xX][0-9a-fA-F]{0,6})|[A-Za-z]{0,8})?|\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?"
)
_ESCAPE_CHARS = 12
"""Longest escape, in characters."""
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _meaning(match: re.Match[str]) -> str | None:
    """The character an escape stands for, or ``None`` for an entity name that HTML does not know."""
    kind, digits = match.lastgroup, match[match.lastindex or 0]
    if kind == "name":
        meaning = html5.get(digits + ";", "")
        return meaning if len(meaning) == 1 else None
    if kind == "c":
        return _CONTROL.get(digits, digits)
    code_point = int(digits, 10 if kind == "decimal" else 16)
    return chr(code_point) if code_point <= 0x10FFFF else None


class Normalizer:
    """Normalises one channel's text piece by piece. ``origin`` is the text offset of the first character fed."""

    __slots__ = ("_length", "_mark_ends", "_mark_starts", "_marks", "_pending", "_read", "_skipped")

    def __init__(self, origin: int = 0) -> None:
        self._read = origin  # text offset up to which characters have been normalised
        self._length = 0  # normalised characters so far
        self._pending = ""
        self._skipped = False  # something invisible stands between the last character and the next
        # Normalised offsets whose character is not right behind its predecessor or not one character wide, with
        # its text range; from there to the next mark the two run in step.
        self._marks = [0]
        self._mark_starts = [origin]
        self._mark_ends = [origin + 1]

    @property
    def pending(self) -> bool:
        """Whether something read is not in the normalised text yet: an unfinished escape, or what is invisible."""
        return bool(self._pending) or self._skipped

    def feed(self, text: str, final: bool) -> bytes:
        """Normalised form of the next piece of text, as far as its escapes are complete."""
        if not self._pending and text.isascii() and "\\" not in text and "&" not in text:
            if text:
                self._in_step(len(text))
            return text.encode()
        text, self._pending = self._pending + text, ""
        pieces: list[str] = []
        at = 0
        while at < len(text):
            special = _next_special(text, at)
            if special > at:
                pieces.append(self._plain(text[at:special]))
                at = special
                continue
            match = _ESCAPE.match(text, at)
            meaning = _meaning(match) if match else None
            if match and meaning is not None:
                pieces.append(self._character(fold(meaning), len(match[0])))
                at = match.end()
            elif not final and len(text) - at < _ESCAPE_CHARS and _ESCAPE_BEGUN.fullmatch(text, at):
                self._pending = text[at:]
                break
            else:
                pieces.append(self._character(text[at], 1))
                at += 1
        return "".join(pieces).encode("latin-1")

    def _plain(self, text: str) -> str:
        folded = text.translate(_TABLE)
        if len(folded) == len(text):
            self._in_step(len(text))
            return folded
        return "".join(self._character(_TABLE[ord(character)], 1) for character in text)

    def _in_step(self, count: int) -> None:
        """Account for ``count`` characters that are one byte each."""
        if self._skipped:
            self._mark(1)
        self._length += count
        self._read += count

    def _character(self, folded: str, width: int) -> str:
        if not folded:
            self._skipped = True
        else:
            if self._skipped or width != 1:
                self._mark(width)
            self._length += 1
        self._read += width
        return folded

    def _mark(self, width: int) -> None:
        self._skipped = False
        if self._marks[-1] == self._length:
            self._mark_starts[-1], self._mark_ends[-1] = self._read, self._read + width
        else:
            self._marks.append(self._length)
            self._mark_starts.append(self._read)
            self._mark_ends.append(self._read + width)

    def start(self, offset: int) -> int:
        """Text offset at which the normalised character ``offset`` begins.

        For the offset behind the last one: where the next character will begin at the earliest.
        """
        if offset >= self._length:
            return self._read
        index = bisect_right(self._marks, offset) - 1
        steps = offset - self._marks[index]
        return self._mark_starts[index] if steps == 0 else self._mark_ends[index] + steps - 1

    def end(self, offset: int) -> int:
        """Text offset at which the normalised range that ends before ``offset`` ends."""
        if offset == 0:
            return self._mark_starts[0]
        index = bisect_right(self._marks, offset - 1) - 1
        return self._mark_ends[index] + offset - 1 - self._marks[index]

    def forget(self, offset: int) -> None:
        """Drop what is needed only for normalised offsets before ``offset``."""
        keep = bisect_right(self._marks, offset) - 1
        if keep > 0:
            del self._marks[:keep], self._mark_starts[:keep], self._mark_ends[:keep]


def _next_special(text: str, at: int) -> int:
    backslash = text.find("\\", at)
    ampersand = text.find("&", at)
    if backslash < 0:
        return ampersand if ampersand >= 0 else len(text)
    return backslash if ampersand < 0 else min(backslash, ampersand)
