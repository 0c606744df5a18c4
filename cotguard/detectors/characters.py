r"""Text as the characters it shows, of any script, with a map back to offsets.

Beside :mod:`cotguard.detectors.normalize`, which reduces text to Latin-1 for rules, detectors that compare text with
text need to tell any two letters of any script apart. Both agree on look-alikes and on what is invisible.

1. With ``escapes``: HTML entities, JSON and C escapes and percent-encoding become the character they stand for;
   UTF-8 written byte by byte (``%C3%A9``, ``\xc3\xa9``) becomes one character. An escape that is not complete yet
   waits, at most a dozen characters (an HTML name at most 17).
2. Invisible characters and combining marks vanish.
3. Every other character is folded: look-alikes and wide forms to ASCII, accents away, ligatures and ``ß`` to the
   letters they are made of, letters outside ASCII to lower case. ASCII keeps its case.

Limits: one level of escaping; the Japanese voicing mark counts as an accent.
"""

import re
import unicodedata
from collections.abc import Sequence
from html.entities import html5
from typing import NamedTuple

from cotguard.detectors.normalize import fold
from cotguard.detectors.rule import LETTER, SYMBOL

__all__ = ["CharacterReader", "Characters", "fold_text", "glues", "has_escape", "squeeze"]


class Characters(NamedTuple):
    """Folded characters; character ``i`` stands for the text range ``[starts[i], ends[i])``."""

    symbols: str
    starts: Sequence[int]
    ends: Sequence[int]


class _FoldTable(dict[int, str]):
    """``str.translate`` table that fills itself; bounded by the number of code points."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        folded = fold(character)
        if folded in (LETTER, SYMBOL):
            parts = unicodedata.normalize("NFKD", character.casefold())
            visible = "".join(part for part in parts if unicodedata.category(part) not in ("Cf", "Mn", "Me"))
            folded = unicodedata.normalize("NFC", visible)
        self[code_point] = folded
        return folded


_FOLD = _FoldTable()


def fold_text(text: str) -> str:
    """``text`` without its invisible characters, the others folded. Escapes stay as they are."""
    return text if text.isascii() else text.translate(_FOLD)


def squeeze(text: str) -> str:
    """The letters and digits of ``text``, folded and in lower case: what its re-spaced and re-cased forms share."""
    return "".join(filter(str.isalnum, fold_text(text).lower()))


class _Glue(dict[str, bool]):
    def __missing__(self, character: str) -> bool:
        glue = self[character] = character.isalnum() and unicodedata.category(character) != "Lo"
        return glue


_GLUE = _Glue()


def glues(character: str) -> bool:
    """Whether ``character`` continues a word that another such character began.

    Letters without case (ideographs, kana, Hangul, Thai, Arabic ...) do not: those scripts write no spaces, or
    attach particles to words.
    """
    return _GLUE[character]


_ONE_WORD = re.compile(" ?[A-Za-z]+")
"""What most tokens are: letters that stand for themselves, of one word, perhaps behind a space."""

_ESCAPE_START = re.compile(r"[&%\\]")


def has_escape(text: str) -> bool:
    """Whether an escape may begin in ``text``."""
    return _ESCAPE_START.search(text) is not None


_H = "[0-9a-fA-F]"
_X = r"\\x"


def _utf8(mark: str) -> str:
    """UTF-8 of one character, each byte as ``mark`` and two digits."""
    more = f"{mark}[89abAB]{_H}"
    return f"{mark}(?:[0-7]{_H}|[cCdD]{_H}{more}|[eE]{_H}(?:{more}){{2}}|[fF][0-7](?:{more}){{3}})"


def _utf8_begun(mark: str) -> str:
    """Beginnings of ``_utf8`` that hold the first ``mark`` whole."""
    another = f"{mark}[89abAB]?" + (r"|\\" if mark == _X else "")
    return f"{mark}(?:{_H}?|[c-fC-F]{_H}(?:{mark}[89abAB]{_H}){{0,2}}(?:{another})?)"


_COMPLETE = re.compile(
    rf"&#(?P<decimal>[0-9]{{1,7}});|&#[xX](?P<hex>{_H}{{1,6}});|&(?P<name>[A-Za-z]{{2,16}});"
    rf"|(?P<pair>\\u[dD][89abAB]{_H}{{2}}\\u[dD][c-fC-F]{_H}{{2}})"
    rf"|\\u(?P<unit>(?![dD][89a-fA-F]){_H}{{4}})|\\(?P<letter>[nrtbf\"'/\\])"
    rf"|(?P<percent>{_utf8('%')})|(?P<bytes>{_utf8(_X)})"
)
_BEGUN = re.compile(
    rf"&(?:#(?:[0-9]{{0,7}}|[xX]{_H}{{0,6}})|[A-Za-z]{{0,16}})?"
    rf"|\\(?:u{_H}{{0,3}}|u[dD][89abAB]{_H}{{2}}(?:\\(?:u(?:[dD](?:[c-fC-F]{_H}?)?)?)?)?)?"
    rf"|{_utf8_begun('%')}|{_utf8_begun(_X)}"
)
_LATIN_1 = re.compile(rf"(?:%|\\x)(?P<byte>{_H}{{2}})")
"""A byte that is not UTF-8, as older software writes it. Tried last: more bytes could make it UTF-8."""

_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _meaning(match: re.Match[str]) -> str | None:
    """The character that a complete escape stands for, or ``None`` where it stands for none."""
    kind = match.lastgroup or ""
    body = match[kind]
    if kind == "name":
        meaning = html5.get(body + ";", "")
        return meaning if len(meaning) == 1 else None
    if kind == "letter":
        return _CONTROL.get(body, body)
    if kind == "pair":
        units = int(body[2:6], 16), int(body[8:12], 16)
        return chr(0x10000 + ((units[0] - 0xD800) << 10) + (units[1] - 0xDC00))
    if kind in ("percent", "bytes"):
        try:
            return bytes.fromhex(body.replace("%", "").replace("\\x", "")).decode()
        except UnicodeDecodeError:  # an overlong form or a surrogate
            return None
    code_point = int(body, 10 if kind == "decimal" else 16)
    return chr(code_point) if code_point <= 0x10FFFF else None


class CharacterReader:
    """Reads one channel's text piece by piece. ``origin`` is the text offset of its first character."""

    __slots__ = ("_escapes", "_pending", "settled")

    def __init__(self, origin: int, *, escapes: bool) -> None:
        self.settled = origin
        """Text before this offset has been read; behind it an unfinished escape waits."""
        self._escapes = escapes
        self._pending = ""

    def take_word(self, text: str) -> int | None:
        """Take text that is one word or a part of one; returns where it begins. ``None``: ``feed`` must take it."""
        if self._pending or _ONE_WORD.fullmatch(text) is None:
            return None
        start = self.settled
        self.settled = start + len(text)
        return start

    def feed(self, text: str, final: bool) -> Characters:
        """The characters that the next piece of text adds."""
        if self._pending:
            text, self._pending = self._pending + text, ""
        start = self.settled
        if self._escapes and _ESCAPE_START.search(text) is not None:
            return self._resolve(text, final)
        self.settled = end = start + len(text)
        if text.isascii():
            return Characters(text, range(start, end), range(start + 1, end + 1))
        symbols: list[str] = []
        starts: list[int] = []
        for offset, character in enumerate(text, start):
            for symbol in _FOLD[ord(character)]:
                symbols.append(symbol)
                starts.append(offset)
        return Characters("".join(symbols), starts, [offset + 1 for offset in starts])

    def _resolve(self, text: str, final: bool) -> Characters:
        symbols: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        origin = self.settled
        while at < len(text):
            character, width = text[at], 1
            if character in "&%\\":
                match = _COMPLETE.match(text, at)
                meaning = _meaning(match) if match else None
                if match is None and not final and _BEGUN.fullmatch(text, at):
                    break
                if match is None and (match := _LATIN_1.match(text, at)):
                    meaning = chr(int(match["byte"], 16))
                if match and meaning is not None:
                    character, width = meaning, match.end() - at
            for symbol in _FOLD[ord(character)]:
                symbols.append(symbol)
                starts.append(origin + at)
                ends.append(origin + at + width)
            at += width
        self._pending = text[at:]
        self.settled = origin + at
        return Characters("".join(symbols), starts, ends)
