"""What is wrong with a policy, where, and what to write instead."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["PolicyError", "Problem", "closest", "quoted"]

_MAX_WORD = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``line`` and ``column`` count from 1; both are 0 where the file as a whole is meant.

    Known values are never part of ``reason`` or ``hint``.
    """

    source: str
    line: int
    column: int
    reason: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.reason}; {self.hint}"


class PolicyError(Exception):
    """A policy that cannot be used. ``str()`` has one line for each of ``problems``, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.source, problem.line, problem.column)))
        super().__init__("\n".join(map(str, self.problems)))


def quoted(word: object) -> str:
    """``word`` in quotes where it can be shown on one line of a terminal, else ``this``."""
    return f'"{word}"' if isinstance(word, str) and word.isprintable() and 0 < len(word) <= _MAX_WORD else "this"


def closest(word: object, words: Collection[str]) -> list[str]:
    """At most three of ``words`` that may have been meant: other case, a part of a longer name, or a slip."""
    if not isinstance(word, str) or not 0 < len(word) <= _MAX_WORD:
        return []
    folded = {other.casefold(): other for other in words}
    wanted = word.casefold().replace("-", "_").replace(" ", "_")
    if wanted in folded:
        return [folded[wanted]]
    parts = [folded[other] for other in sorted(folded) if wanted in other.split("_") or other in wanted.split("_")]
    slips = [folded[other] for other in difflib.get_close_matches(wanted, sorted(folded), n=3, cutoff=0.7)]
    return (slips or parts)[:3]
