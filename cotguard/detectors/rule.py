"""Rules: the data of which the pattern detector is made.

A rule is a regular expression for a value with one character class for each side, optional context right before
it, and an optional check. Rules see *normalised* text (:mod:`cotguard.detectors.normalize`): one Latin-1 character
for each character read, look-alikes and escapes resolved, every other letter as ``LETTER``, every other symbol as
``SYMBOL``.

Two regular expressions are derived from each rule (:mod:`cotguard.detectors.automaton`): one that finds it,
and one that tells, from the end of the text backwards, where a match may be under way. So a rule is written in the
regular subset of Python's syntax: literals, classes, groups, alternation, repetition. No anchors, no look-around, no
back-references; ``{m,n}`` with a large ``n`` costs compile time, ``{m,}`` does not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["ANY", "BEFORE_CHARS", "LETTER", "NOT_DIGIT", "NOT_WORD", "SYMBOL", "Candidate", "Found", "Rule"]

LETTER = "\xaa"
"""Stands for a letter that is not, and does not look like, an ASCII letter."""

SYMBOL = "\xa7"
"""Stands for any other character outside ASCII: ideographs, emoji, symbols. Ends a word."""

NOT_WORD = r"[^0-9A-Za-z_\xaa]"
NOT_DIGIT = r"[^0-9]"
ANY = r"[\x00-\xff]"

BEFORE_CHARS = 120
"""How many normalised characters before a value its check may look at."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A match to be checked: normalised text of the value and up to ``BEFORE_CHARS`` before it."""

    text: str
    before: str


@dataclass(frozen=True, slots=True)
class Found:
    """A checked value inside a candidate: offsets relative to ``Candidate.text``."""

    start: int
    end: int
    entity: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of value.

    * ``name``: unique, lower case with dashes; ``Span.detector`` is ``patterns/<name>``.
    * ``entity``, ``score``: what an unchecked match is reported as.
    * ``value``: regular expression of the value; the longest match at each possible start is taken (alternatives:
      leftmost-longest).
    * ``before``, ``after``: class of the one character that must stand on either side. The start of the text counts
      as a newline, and the end of the text satisfies any ``after``.
    * ``context``: regular expression of what must stand right before the value (at most ``BEFORE_CHARS``
      characters, bounded repeats); it is not part of the span. ``before`` then stands before the context.
    * ``check``: given the candidate, yields what is really there (none: nothing). Pure.
    * ``also``: further entities the check may report.
    """

    name: str
    entity: str
    value: str
    score: float = 0.9
    before: str = NOT_WORD
    after: str = NOT_WORD
    context: str = ""
    ignore_case: bool = False
    check: Callable[[Candidate], Iterable[Found]] | None = None
    also: frozenset[str] = field(default_factory=frozenset)
    provider: str = ""
