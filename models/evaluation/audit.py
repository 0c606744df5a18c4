"""Contamination: what of a scored set was trained on.

A text is contaminated if the same text, white space and case aside, was trained on, or if more than half of its runs of
eight words were. Values (spans of six characters or more) that training has seen are counted, and no reason to refuse:
the names of a language are finite.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.evaluation.gold import Item

__all__ = ["Audit", "audit"]

_WORD = re.compile(r"\w+")
_RUN = 8
_FEWEST_RUNS = 5
_MOST_SHARED = 0.5
_SHORTEST_VALUE = 6


@dataclass(frozen=True, slots=True)
class Audit:
    """``contaminated``: ids; ``values``: share of the gold values that training has seen."""

    contaminated: frozenset[str]
    items: int
    values: float

    @property
    def share(self) -> float:
        """Of the texts."""
        return len(self.contaminated) / max(self.items, 1)


def audit(items: Sequence[Item], trained_on: Iterable[Path]) -> Audit:
    """Compare ``items`` with files of training examples (JSON lines with ``text`` and ``spans``)."""
    wanted = {each for item in items for each in (*_runs(item.text), _hash(item.text))}
    gold = {item.text[start:end].casefold() for item in items for start, end, _ in item.spans}
    values = {value for value in gold if len(value) >= _SHORTEST_VALUE}
    seen: set[int] = set()
    seen_values: set[str] = set()
    for path in trained_on:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                text = record["text"]
                seen.update(each for each in (*_runs(text), _hash(text)) if each in wanted)
                seen_values.update(text[start:end].casefold() for start, end, _ in record.get("spans", ()))
    found = frozenset(item.id for item in items if _contaminated(item.text, seen))
    return Audit(found, len(items), len(values & seen_values) / max(len(values), 1))


def _contaminated(text: str, seen: set[int]) -> bool:
    if _hash(text) in seen:
        return True
    runs = set(_runs(text))
    return len(runs) >= _FEWEST_RUNS and len(runs & seen) > _MOST_SHARED * len(runs)


def _runs(text: str) -> Iterator[int]:
    words = _WORD.findall(text.casefold())
    return (_number(" ".join(words[at : at + _RUN])) for at in range(len(words) - _RUN + 1))


def _hash(text: str) -> int:
    return _number(f"text:{' '.join(text.casefold().split())}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())
