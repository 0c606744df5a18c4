"""Figures from judged texts, in characters of word pieces: the space between pieces is nobody's.

*Masking* does not look at labels: ``recall`` is the share of labelled characters that are masked, ``over`` the share
of all other characters that are. A piece is masked for its likeliest entity, when the probability that it is any
entity reaches that entity's threshold. Pieces about which nothing is known count nowhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.tagger.judging import Judged
from models.tagger.labels import ENTITIES, ENTITY_OF_TAG, HAZARDS

__all__ = [
    "LabelFigures",
    "Masking",
    "Table",
    "altered",
    "flagged",
    "hazard_figures",
    "label_figures",
    "masking",
    "table",
]

Floats = NDArray[np.float32]


class Table(NamedTuple):
    """The known pieces of many texts, one row each; all arrays are (pieces,).

    ``gold`` is the true entity or -1, ``entity`` the likeliest, ``mass`` the probability of any, ``size`` characters.
    """

    gold: NDArray[np.int64]
    entity: NDArray[np.int64]
    mass: Floats
    size: NDArray[np.int64]

    def masked(self, thresholds: Floats) -> NDArray[np.bool_]:
        """Which pieces thresholds (``len(ENTITIES)``,) mask."""
        return np.asarray(self.mass >= thresholds[self.entity])


def table(judged: Sequence[Judged]) -> Table:
    """The known pieces of ``judged``."""
    entity_of_tag = np.array(ENTITY_OF_TAG, dtype=np.int64)
    known = [text.tags >= 0 for text in judged]
    gold = [entity_of_tag[text.tags[keep]] for text, keep in zip(judged, known, strict=True)]
    entity = [text.entities[keep].argmax(-1) for text, keep in zip(judged, known, strict=True)]
    mass = [1 - text.outside[keep] for text, keep in zip(judged, known, strict=True)]
    size = [(text.pieces.ends - text.pieces.starts)[keep] for text, keep in zip(judged, known, strict=True)]
    none = np.zeros(0, dtype=np.int64)
    return Table(
        np.concatenate([none, *gold]),
        np.concatenate([none, *entity]),
        np.concatenate([none.astype(np.float32), *mass]),
        np.concatenate([none, *size]),
    )


class Masking(NamedTuple):
    """Label-agnostic masking of one set."""

    recall: float
    over: float

    @property
    def score(self) -> float:
        """Recall minus over-masking."""
        return self.recall - self.over


def masking(rows: Table, thresholds: Floats) -> Masking:
    """What thresholds (``len(ENTITIES)``,) mask."""
    masked, gold = rows.masked(thresholds), rows.gold >= 0
    return Masking(_share(rows.size, masked, gold), _share(rows.size, masked, ~gold))


def _share(size: NDArray[np.int64], masked: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(size[masked & among].sum() / max(size[among].sum(), 1))


def altered(rows: Table, thresholds: Floats) -> Floats:
    """Share of all characters masked for each entity, on texts in which there is nothing to find."""
    masked = rows.masked(thresholds)
    counts = np.bincount(rows.entity[masked], weights=rows.size[masked], minlength=len(ENTITIES))
    return np.asarray(counts / max(rows.size.sum(), 1), dtype=np.float32)


class LabelFigures(NamedTuple):
    """One entity: ``masked`` is its masking recall under any label; the rest is strict on the label, in pieces."""

    pieces: int
    masked: float
    precision: float
    recall: float
    f1: float


def label_figures(rows: Table, thresholds: Floats) -> dict[str, LabelFigures]:
    """Figures of every entity that occurs."""
    masked = rows.masked(thresholds)
    figures = {}
    for index, name in enumerate(ENTITIES):
        gold = rows.gold == index
        said = masked & (rows.entity == index)
        if count := int(gold.sum()):
            right = int((gold & said).sum())
            precision, recall = right / max(int(said.sum()), 1), right / count
            f1 = 2 * right / (count + int(said.sum()))
            figures[name] = LabelFigures(count, _share(rows.size, masked, gold), precision, recall, f1)
    return figures


def flagged(judged: Sequence[Judged], thresholds: Floats) -> float:
    """Share of the texts in which any hazard reaches its threshold; thresholds are (``len(HAZARDS)``,)."""
    return float(np.mean([bool((text.hazards >= thresholds).any()) for text in judged])) if judged else 0.0


def hazard_figures(judged: Sequence[Judged], thresholds: Floats) -> dict[str, dict[str, float]]:
    """Precision and recall of each hazard over the texts about which hazards are known."""
    known = [text for text in judged if text.example.hazards is not None]
    figures = {}
    for index, code in enumerate(HAZARDS):
        gold = np.array([code in (text.example.hazards or ()) for text in known], dtype=bool)
        said = np.array([text.hazards[index] >= thresholds[index] for text in known], dtype=bool)
        if count := int(gold.sum()):
            right = int((gold & said).sum())
            figures[code] = {
                "texts": count,
                "precision": round(right / max(int(said.sum()), 1), 4),
                "recall": round(right / count, 4),
            }
    return figures
