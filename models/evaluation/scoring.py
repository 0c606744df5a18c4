"""Scores: pure functions of gold and predictions, in characters that are no white space.

*Masking* does not look at labels. ``recall`` is the share of gold characters that are masked, ``over`` that of all
other characters; their difference is the score, since F2 flatters where personal data is dense. Refinements count as
the entity they refine (``US_SSN`` as ``GOVERNMENT_ID``). Unlabelled ranges count nowhere.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cotguard.taxonomy import GROUPS
from models.evaluation.gold import SOME_HAZARD, Item
from models.evaluation.predictions import Predicted

__all__ = ["Counts", "EntityScore", "Masking", "Scores", "family", "score"]

_GENERAL = {
    **dict.fromkeys(GROUPS["GOVERNMENT"], "GOVERNMENT_ID"),
    **dict.fromkeys(("IBAN_CODE", "US_BANK_NUMBER", "ABA_ROUTING_NUMBER", "SWIFT_CODE"), "BANK_ACCOUNT"),
    **dict.fromkeys(("MEDICAL_LICENSE", "US_NPI"), "MEDICAL_ID"),
    **dict.fromkeys(GROUPS["SECRET"], "SECRET"),
}
_HAZARDS = frozenset(GROUPS["HAZARD"])


def family(entity: str) -> str:
    """The entity that ``entity`` refines, or itself."""
    return _GENERAL.get(entity, entity)


def _f(precision: float, recall: float, beta: float) -> float:
    weight = beta * beta
    return (1 + weight) * precision * recall / max(weight * precision + recall, 1e-12)


@dataclass(slots=True)
class Masking:
    """Counts of characters: gold, other, and of each those masked."""

    gold: int = 0
    masked: int = 0
    others: int = 0
    wrongly: int = 0

    @property
    def recall(self) -> float:
        return self.masked / max(self.gold, 1)

    @property
    def over(self) -> float:
        return self.wrongly / max(self.others, 1)

    @property
    def score(self) -> float:
        return self.recall - self.over

    @property
    def f2(self) -> float:
        return _f(self.masked / max(self.masked + self.wrongly, 1), self.recall, 2)

    @property
    def control(self) -> "Masking":
        """The same texts with everything masked."""
        return Masking(self.gold, self.gold, self.others, self.others)


@dataclass(slots=True)
class Counts:
    """How much there is of one label, how much was found, and how much of that is right."""

    gold: int = 0
    found: int = 0
    right: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.gold, 1)

    @property
    def f1(self) -> float:
        return _f(self.precision, self.recall, 1)


@dataclass(slots=True)
class EntityScore(Counts):
    """Label-strict, in characters; ``masked``: under any label. ``leaking`` spans are not masked whole."""

    masked: int = 0
    spans: int = 0
    leaking: int = 0

    @property
    def f2(self) -> float:
        return _f(self.precision, self.recall, 2)


@dataclass(slots=True)
class Scores:
    """All that is told of a set. ``altered``: characters by entity in texts without a gold span, of ``clean``."""

    masking: Masking = field(default_factory=Masking)
    by_source: dict[str, Masking] = field(default_factory=lambda: defaultdict(Masking))
    entities: dict[str, EntityScore] = field(default_factory=lambda: defaultdict(EntityScore))
    altered: Counter[str] = field(default_factory=Counter)
    clean: int = 0
    hazards: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    """In texts, as is ``any_hazard``."""
    any_hazard: Counts = field(default_factory=Counts)
    harmless: int = 0
    """Texts that are known to hold no hazard."""
    flagged: int = 0
    """Of these, those with any."""

    @property
    def leaked(self) -> int:
        """Characters of gold spans that are not masked."""
        return self.masking.gold - self.masking.masked


def score(items: Iterable[Item], predictions: Mapping[str, Sequence[Predicted]], *, acted_only: bool = False) -> Scores:
    """Score every item. With ``acted_only`` a span that the policy lets pass masks nothing."""
    scores = Scores()
    for item in items:
        spans = predictions[item.id]
        _score_hazards(scores, item, {span.entity for span in spans if span.entity in _HAZARDS})
        _score_spans(scores, item, [s for s in spans if s.entity not in _HAZARDS and (s.acted or not acted_only)])
    return scores


def _score_spans(scores: Scores, item: Item, spans: Sequence[Predicted]) -> None:
    counts = np.array([not char.isspace() for char in item.text], dtype=bool)
    for start, end in item.unlabelled:
        counts[start:end] = False
    gold, masked = _marks(item, item.spans), _marks(item, [(s.start, s.end, s.entity) for s in spans])
    every_gold, every_masked = _any(gold, counts), _any(masked, counts)
    for masking in (scores.masking, scores.by_source[item.source]):
        masking.gold += int(every_gold.sum())
        masking.masked += int((every_gold & every_masked).sum())
        masking.others += int((counts & ~every_gold).sum())
        masking.wrongly += int((every_masked & ~every_gold).sum())
    for entity in {*gold, *masked}:
        each = scores.entities[entity]
        is_gold = gold.get(entity, np.zeros_like(counts)) & counts
        is_found = masked.get(entity, np.zeros_like(counts)) & counts
        each.gold += int(is_gold.sum())
        # What is found under another entity inside a value of this one is that entity's mistake.
        each.found += int(is_found.sum())
        each.right += int((is_gold & is_found).sum())
        each.masked += int((is_gold & every_masked).sum())
    for start, end, entity in item.spans:
        each = scores.entities[family(entity)]
        each.spans += 1
        each.leaking += bool((counts[start:end] & ~every_masked[start:end]).any())
    if not item.spans:
        scores.clean += int(counts.sum())
        for entity, marks in masked.items():
            scores.altered[entity] += int((marks & counts).sum())


def _marks(item: Item, spans: Iterable[tuple[int, int, str]]) -> dict[str, NDArray[np.bool_]]:
    """The characters of each entity's spans."""
    marks: dict[str, NDArray[np.bool_]] = {}
    for start, end, entity in spans:
        marks.setdefault(family(entity), np.zeros(len(item.text), dtype=bool))[start:end] = True
    return marks


def _any(marks: Mapping[str, NDArray[np.bool_]], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found = np.zeros_like(counts)
    for each in marks.values():
        found |= each
    return found & counts


def _score_hazards(scores: Scores, item: Item, found: set[str]) -> None:
    if item.hazards is None:
        return
    if not item.hazards:
        scores.harmless += 1
        scores.flagged += bool(found)
    scores.any_hazard.gold += bool(item.hazards)
    scores.any_hazard.found += bool(found)
    scores.any_hazard.right += bool(item.hazards and found)
    for hazard in {*item.hazards, *found} - {SOME_HAZARD}:
        each = scores.hazards[hazard]
        each.gold += hazard in item.hazards
        each.found += hazard in found
        each.right += hazard in item.hazards and hazard in found
