r"""Placeholders in text, as ``[EMAIL_ADDRESS_1]``: an entity's name and a number from 1, in the shapes models use.

* in brackets in any case: ``[email_address_1]``;
* with the brackets, underscores or both escaped for Markdown (``\[EMAIL\_ADDRESS\_1\]``), or the brackets for a URL
  (``%5BEMAIL_ADDRESS_1%5D``) or for HTML (``&#91;EMAIL_ADDRESS_1&#93;`` and its other spellings). Both brackets are
  written in the same way; so what stands before a placeholder by chance, as a backslash, is no part of it;
* without brackets: as given, in upper case, and at word borders (``EMAIL_ADDRESS_1``). In lower case it would be a
  variable of a program, and with spaces prose.

Two detectors read this one grammar:

``GivenPlaceholders``, for what a model writes, finds the placeholders that were given out in its exchange. Text is held
only while it begins one of them.

``PlaceholderShapes``, for what a client writes, finds all that the other could ever take for a placeholder. Without
brackets it minds no word borders: when the value beside it is replaced, a border may appear.

Algorithm: from left to right, at every character that a placeholder may begin with, the longest one that begins there
is taken, and reading goes on behind it. What is found so depends on no cut. Work is linear: what an attempt reads is
bounded. A placeholder spans no seam; the scope's context is not read.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cotguard.detectors.contract import Scope, Session
from cotguard.spans import Span
from cotguard.taxonomy import ENTITIES

__all__ = ["PLACEHOLDER", "GivenPlaceholders", "Placeholder", "PlaceholderShapes"]

PLACEHOLDER = "PLACEHOLDER"
"""The entity of text that reads as a placeholder, and the name of placeholders for what the taxonomy does not know."""

_MAX_NUMBER = 999_999_999
_BRACKETS = (
    ("[", "]"),
    ("\\[", "\\]"),
    ("%5B", "%5D"),
    ("&#91;", "&#93;"),
    ("&#x5B;", "&#x5D;"),
    ("&lbrack;", "&rbrack;"),
    ("&lsqb;", "&rsqb;"),
)
_CLOSING = {opening[0]: closing[0] for opening, closing in _BRACKETS}
"""By what the opening bracket begins with, what its closing one begins with."""


def _one_of(texts: Iterable[str]) -> str:
    return "(?:" + "|".join(map(re.escape, texts)) + ")"


def _beginnings(texts: Iterable[str]) -> str:
    """A pattern for what begins one of ``texts`` and is none."""
    return _one_of(dict.fromkeys(text[:length] for text in texts for length in range(1, len(text))))


_OPEN, _CLOSE = (_one_of(side) for side in zip(*_BRACKETS, strict=True))
_OPEN_BEGUN, _CLOSE_BEGUN = (_beginnings(side) for side in zip(*_BRACKETS, strict=True))
_SHAPE = re.compile(
    rf"(?ai)(?P<open>{_OPEN})?"
    rf"(?P<name>[A-Z](?:[A-Z]|\\?_(?=[A-Z])){{0,39}})\\?_(?P<number>[1-9][0-9]{{0,8}})(?P<close>{_CLOSE})?"
)
_BEGUN = re.compile(
    rf"(?ai)(?:{_OPEN_BEGUN}|(?P<open>{_OPEN})?(?:(?P<label>[A-Z][A-Z0-9_\\]{{0,99}}){_CLOSE_BEGUN}?)?)"
)
"""What more text may make a placeholder of, and perhaps more than that."""

_GOES_ON = re.compile(r"\w|\\_")
_DIGITS = "0123456789"


class Placeholder(NamedTuple):
    """A placeholder as it stands in a text. ``opening`` is the opening bracket as it is written, or empty."""

    name: str
    number: int
    opening: str
    end: int

    @staticmethod
    def read(text: str, at: int, *, borders: bool) -> "Placeholder | None":
        """The longest that begins at ``text[at]``; ``borders``: without brackets it must end where a word ends."""
        match = _SHAPE.match(text, at)
        if match is None:
            return None
        opening, name = match["open"] or "", match["name"].replace("\\", "")
        number, end = int(match["number"]), match.end("number")
        if opening:
            closing = match["close"]
            if closing is None or _CLOSING[opening[0]] != closing[0]:
                return None
            return Placeholder(name.upper(), number, opening, match.end())
        goes_on = borders and _GOES_ON.match(text, end) is not None
        return None if goes_on else Placeholder(name, number, "", end)


class _Known:
    """The placeholders that are looked for: for each name the numbers up to ``counts[name]``."""

    __slots__ = ("_beginnings", "borders", "counts", "label", "start")

    def __init__(self, label: str, counts: Mapping[str, int], *, borders: bool) -> None:
        self.label = label
        self.counts = counts
        self.borders = borders
        letters = "".join(sorted({name[0] for name in counts}))
        border = r"(?<!\w)" if borders else ""
        self.start = re.compile(rf"[\[\\%&]|{border}[{letters}]")
        self._beginnings = {f"{name}_"[:length] for name in counts for length in range(len(name) + 2)}

    def may_begin(self, text: str, at: int) -> bool:
        """Whether ``text[at:]`` and more text may be a placeholder, or a longer one."""
        match = _BEGUN.fullmatch(text, at)
        if match is None:
            return False
        label = (match["label"] or "").replace("\\", "")
        if match["open"]:
            label = label.upper()
        name = label.rstrip(_DIGITS)
        number = label[len(name) :]
        if not number:
            return name in self._beginnings
        return name[-1:] == "_" and number[0] != "0" and int(number) <= self.counts.get(name[:-1], 0)

    def read(self, text: str, at: int) -> Placeholder | None:
        found = Placeholder.read(text, at, borders=self.borders)
        return found if found is not None and found.number <= self.counts.get(found.name, 0) else None


class GivenPlaceholders:
    """Finds placeholders that were given out: of each name in ``counts``, at least one, those from 1 to its count.

    A span's entity is the placeholder's name.
    """

    name: Final = "placeholders"

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.entities = frozenset(counts)
        self._known = _Known(f"{GivenPlaceholders.name}/given", dict(counts), borders=True)

    def open(self, scope: Scope) -> Session | None:
        return _PlaceholderSession(self._known, "")


class PlaceholderShapes:
    """Finds all that reads as a placeholder and reports it as ``PLACEHOLDER``."""

    name: Final = "placeholders"
    entities: Final = frozenset({PLACEHOLDER})

    def __init__(self) -> None:
        counts = dict.fromkeys((*ENTITIES, PLACEHOLDER), _MAX_NUMBER)
        self._known = _Known(f"{PlaceholderShapes.name}/shape", counts, borders=False)

    def open(self, scope: Scope) -> Session | None:
        return _PlaceholderSession(self._known, PLACEHOLDER)


class _PlaceholderSession:
    """``_kept`` is the character before what is undecided, if any, and what is undecided, which begins at ``_at``."""

    __slots__ = ("_at", "_base", "_entity", "_kept", "_known")

    def __init__(self, known: _Known, entity: str) -> None:
        self._known = known
        self._entity = entity  # or empty: that of the placeholder's name
        self._kept = ""
        self._base = 0  # the offset of its first character
        self._at = 0

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        known = self._known
        text = self._kept + text
        at = self._at
        if text and known.start.search(text, at) is None:  # the common case
            stable = self._base + len(text)
            self._kept, self._base, self._at = text[-1], stable - 1, 1
            return (), stable
        spans: list[Span] = []
        while True:
            start = known.start.search(text, at)
            if start is None:
                at = len(text)
                break
            at = start.start()
            if not final and known.may_begin(text, at):
                break
            found = known.read(text, at)
            if found is None:
                at += 1
                continue
            entity = self._entity or found.name
            spans.append(Span(self._base + at, self._base + found.end, entity, 1.0, known.label))
            at = found.end
        stable = self._base + at
        self._at = min(at, 1)
        cut = at - self._at
        self._kept = text[cut:]
        self._base += cut
        return spans, stable
