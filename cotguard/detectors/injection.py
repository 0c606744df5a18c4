"""Prompt injection in what tools say: instructions to the model, and text that only the model sees.

Results and descriptions of tools are untrusted: whoever writes them may write to the model. Two kinds of signs are
looked for:

* *Phrases* (:mod:`cotguard.detectors.rules.injection`), by the engine of the pattern detector: look-alikes, zero-width
  characters, HTML entities and escapes do not hide one.
* *Hidden characters*: runs of Unicode tags (the flags of England, Scotland and Wales apart), of variation selectors, of
  zero-width characters, and overrides of the writing direction.

1. Every sign has a weight. The weights of different signs less than ``REACH`` characters apart are combined as
   independent evidence, ``1 - (1 - a)(1 - b)...``; a sign is reported where that reaches ``LEAST_SCORE``.
2. A span begins with its sign. That of a phrase goes on to the end of its line or string, at most ``REACH`` characters
   beyond: what is asked for stands behind the phrase that introduces it.

What is on hold is a sign and the ``REACH`` characters behind it, and longer only for a run of hidden characters.

Known limits: a request that reads like any other ('What is the capital of Brazil?') is not told from data; nor is one
in a language that has no rules, in base64 or in letters set apart by spaces.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rules.injection import RULES
from cotguard.spans import ChannelKind, Span

__all__ = ["LEAST_SCORE", "REACH", "PromptInjection"]

ENTITY = "PROMPT_INJECTION"

LEAST_SCORE: Final = {ChannelKind.TOOL_RESULT: 0.5, ChannelKind.TOOL_DESCRIPTION: 0.7}
"""What signs must amount to, for each kind of text that is read. A description speaks to the model in good faith."""

REACH = 240
"""Characters: how far signs support each other, and how much of a line behind a phrase belongs to it."""

_ZERO_WIDTH = "\u200b-\u200f\u2060-\u2064\ufeff\u180e\u115f\u1160\u3164\uffa0"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_TAGS = "\U000e0000-\U000e007f"
_OVERRIDES = "\u202d\u202e"
_SELECTORS_IN_USE = 2  # in emoji, one behind each of the characters that a joiner joins
_ZERO_WIDTH_IN_USE = 3  # marks of direction and joiners meet where scripts do
_RUN = re.compile(f"[{_ZERO_WIDTH}{_SELECTORS}{_TAGS}{_OVERRIDES}]+")
_TAG = re.compile(f"[{_TAGS}]")
_SELECTOR = re.compile(f"[{_SELECTORS}]")
_ZERO = re.compile(f"[{_ZERO_WIDTH}]")
_OVERRIDE = re.compile(f"[{_OVERRIDES}]")
_FLAGS = frozenset(
    "".join(chr(0xE0000 + ord(character)) for character in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
_BLACK_FLAG = "\U0001f3f4"

_LINE_END = re.compile(r'\\?\n|\\n|"\s{0,3}[,:}\]]')
"""A line ends, or a string in a JSON document, or both in one that is quoted in another."""


class _Sign(NamedTuple):
    """``[start, end)`` as found; ``goes_on``: the rest of its line belongs to it."""

    start: int
    end: int
    name: str
    weight: float
    goes_on: bool


class PromptInjection:
    """See the module. Finds nothing in texts of kinds that ``LEAST_SCORE`` does not name."""

    name: Final = "injection"
    entities: Final = frozenset({ENTITY})

    def __init__(self) -> None:
        self._phrases = PatternDetector(RULES)

    def open(self, scope: Scope) -> Session | None:
        phrases = self._phrases.open(scope) if scope.kind in LEAST_SCORE else None
        return None if phrases is None else _InjectionSession(phrases, LEAST_SCORE[scope.kind], scope.context)


class _InjectionSession:
    """One channel. ``_text`` holds it from ``_base`` on: what is needed for signs that are not decided."""

    __slots__ = ("_base", "_decided", "_least", "_phrases", "_read", "_signs", "_text")

    def __init__(self, phrases: Session, least: float, context: str) -> None:
        self._phrases = phrases
        self._least = least
        self._base = self._read = -len(context)
        self._text = ""
        self._signs: list[_Sign] = []  # by start; those decided support later ones
        self._decided = 0  # how many of them are
        if context:
            self._take(context, final=False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        found, stable = self._phrases.advance(text, final)
        self._signs += [_Sign(s.start, s.end, s.detector.partition("/")[2], s.score, True) for s in found]
        stable = min(stable, self._take(text, final))
        self._signs.sort()
        spans = self._decide(stable, final)
        if self._decided < len(self._signs):
            stable = min(stable, self._signs[self._decided].start)
        self._forget(stable)
        return spans, stable

    def _take(self, text: str, final: bool) -> int:
        """Find runs of hidden characters in ``text`` and what came before it. Returns where one may be under way."""
        self._text += text
        base = self._base
        at = self._read - base
        while (run := _RUN.search(self._text, at)) is not None:
            if run.end() == len(self._text) and not final:
                self._read = base + run.start()
                return self._read
            weight, name = _hidden(run[0], self._text[max(run.start() - 1, 0) : run.start()])
            if weight:
                self._signs.append(_Sign(base + run.start(), base + run.end(), name, weight, False))
            at = run.end()
        self._read = base + len(self._text)
        return self._read

    def _decide(self, stable: int, final: bool) -> list[Span]:
        """Report the signs whose neighbours are all known, where they amount to something."""
        signs = self._signs
        spans: list[Span] = []
        near = Counter[tuple[str, float]]()  # names and weights of the signs around the one in turn
        first = last = 0
        while self._decided < len(signs):
            sign = signs[self._decided]
            if not final and sign.end + REACH > stable:
                break
            while last < len(signs) and signs[last].start < sign.start + REACH:
                near[signs[last].name, signs[last].weight] += 1
                last += 1
            while signs[first].start <= sign.start - REACH:
                left = (signs[first].name, signs[first].weight)
                near[left] -= 1
                if not near[left]:
                    del near[left]
                first += 1
            doubt = 1.0
            for _, weight in sorted(near):  # in one order, so that rounding is the same for every cut
                doubt *= 1.0 - weight
            score = round(1.0 - doubt, 4)
            end = self._line_end(sign.end) if sign.goes_on else sign.end
            if score >= self._least and end > 0:
                spans.append(Span(sign.start, end, ENTITY, score, f"{PromptInjection.name}/{sign.name}"))
            self._decided += 1
        return spans

    def _line_end(self, offset: int) -> int:
        at = offset - self._base
        stop = _LINE_END.search(self._text, at, at + REACH)
        return self._base + (min(at + REACH, len(self._text)) if stop is None else stop.start())

    def _forget(self, stable: int) -> None:
        """Drop what no sign from ``stable`` on needs: its neighbours, and one character before a run."""
        passed = 0
        while passed < self._decided and self._signs[passed].start <= stable - REACH:
            passed += 1
        del self._signs[:passed]
        self._decided -= passed
        keep = min(stable, self._read) - 1
        if keep > self._base:
            self._text = self._text[keep - self._base :]
            self._base = keep


def _hidden(run: str, before: str) -> tuple[float, str]:
    """Weight and name of a run of hidden characters behind ``before``; 0 for one that writing and emoji need."""
    if _TAG.search(run) and not (before == _BLACK_FLAG and run in _FLAGS):
        return 0.95, "tags"
    if len(_SELECTOR.findall(run)) > _SELECTORS_IN_USE:
        return 0.9, "variation-selectors"
    if _OVERRIDE.search(run):
        return 0.6, "direction-override"
    if len(_ZERO.findall(run)) > _ZERO_WIDTH_IN_USE:
        return 0.8, "zero-width"
    return 0.0, ""
