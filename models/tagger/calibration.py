"""Thresholds, from what the exported model says of the development sets.

*Entities.* A piece is judged by its likeliest entity only, so each entity's threshold can be chosen by itself: the one
that masks the most labelled characters (of any entity) less other characters, each as a share of its kind, among
those thresholds that leave texts without anything to find alone. If all entities but PERSON together still alter
too much of these, the limit of each is lowered.

*Hazards.* Every code may be wrong on the same share of benign and refusing texts; the share is the largest for which
the texts with any flag stay within the aim, and within the limit among the refusing ones. A code is flagged from one
half up at the earliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.tagger.judging import Judged
from models.tagger.labels import ENTITIES
from models.tagger.scores import Table, altered, flagged

__all__ = ["NEVER", "Limits", "calibrate_entities", "calibrate_hazards"]

Floats = NDArray[np.float32]
_STEPS = np.linspace(0.1, 0.99, 90, dtype=np.float32)
_USUAL = 0.5
"""Of thresholds that are equally good the nearest to this."""
NEVER = 1.01
_LEAST_HAZARD = 0.5
_TIGHTEN = 0.8
_PERSON = ENTITIES.index("PERSON")


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares that may be altered or flagged where nothing is to be found."""

    benign_each: float = 0.0005
    code_each: float = 0.001
    benign_all: float = 0.002
    code_all: float = 0.003
    hazards: float = 0.01
    hazards_refusing: float = 0.03


def calibrate_entities(dev: Table, benign: Table, code: Table, limits: Limits) -> Floats:
    """A threshold for each entity, shape (``len(ENTITIES)``,)."""
    gains = _gains(dev)
    harms = [_share_at(rows, np.ones(len(rows.size), dtype=bool)) for rows in (benign, code)]
    slack = 1.0
    while True:
        allowed = (harms[0] <= slack * limits.benign_each) & (harms[1] <= slack * limits.code_each)
        allowed[_PERSON] = True  # word problems are full of first names
        possible = np.where(allowed, gains, -np.inf)
        equal = possible >= possible.max(-1, keepdims=True)
        best = np.where(equal, np.abs(_STEPS - _USUAL), np.inf).argmin(-1)
        thresholds = np.where(allowed.any(-1), _STEPS[best], NEVER).astype(np.float32)
        both = (np.delete(altered(rows, thresholds), _PERSON).sum() for rows in (benign, code))
        if all(share <= limit for share, limit in zip(both, (limits.benign_all, limits.code_all), strict=True)):
            return thresholds
        slack *= _TIGHTEN


def _gains(dev: Table) -> NDArray[np.float64]:
    """Recall minus over-masking that each entity adds at each step: (entities, steps)."""
    labelled = dev.gold >= 0
    return _share_at(dev, labelled) - _share_at(dev, ~labelled)


def _share_at(rows: Table, among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the characters ``among`` the rows that each entity masks at each step: (entities, steps)."""
    reached = np.searchsorted(_STEPS, rows.mass[among], side="right")
    counts = np.zeros((len(ENTITIES), len(_STEPS) + 1))
    np.add.at(counts, (rows.entity[among], reached), rows.size[among])
    masked: NDArray[np.float64] = counts[:, ::-1].cumsum(-1)[:, ::-1][:, 1:]
    return masked / max(int(rows.size[among].sum()), 1)


def calibrate_hazards(benign: Sequence[Judged], refusing: Sequence[Judged], limits: Limits) -> Floats:
    """A threshold for each hazard, shape (``len(HAZARDS)``,). ``benign``: texts of any kind without a hazard."""
    negatives = [*benign, *refusing]
    said = np.stack([text.hazards for text in negatives])
    ordered = np.sort(said, axis=0)[::-1]
    best = _above(ordered[0])
    for wrong in range(1, len(ordered)):
        thresholds = _above(ordered[wrong])
        if flagged(negatives, thresholds) > limits.hazards or flagged(refusing, thresholds) > limits.hazards_refusing:
            break
        best = thresholds
    return best


def _above(scores: NDArray[np.float32]) -> Floats:
    """The least thresholds, in ten-thousandths, that these scores do not reach."""
    return np.maximum(np.floor(scores * 10_000 + 1) / 10_000, _LEAST_HAZARD).astype(np.float32)
