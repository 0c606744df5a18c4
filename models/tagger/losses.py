"""What training minimises."""

from typing import NamedTuple

import torch
from torch.nn import functional

from models.tagger.model import Logits
from models.tagger.windows import IGNORED, Batch

__all__ = ["HAZARD_WEIGHT", "loss"]

HAZARD_WEIGHT = 0.5
_TEMPERATURE = 2.0


def loss(logits: Logits, batch: Batch, teacher: Logits | None) -> torch.Tensor:
    """Cross-entropy of tags and hazards where they are known, plus, with a teacher, the distance from its answers."""
    known = batch.tags != IGNORED
    tags = logits.tags.float()[known]
    hazards = logits.hazards.float()
    total = _mean(functional.cross_entropy(tags, batch.tags[known], reduction="none"))
    looked = ~batch.hazards.isnan()
    total = total + HAZARD_WEIGHT * _mean(
        functional.binary_cross_entropy_with_logits(hazards[looked], batch.hazards[looked], reduction="none")
    )
    if teacher is not None:
        hints = _Softened(teacher.tags.float()[known], teacher.hazards.float())
        total = total + hints.distance(tags, hazards)
    return total


def _mean(values: torch.Tensor) -> torch.Tensor:
    """The mean, and nought where there is nothing."""
    return values.sum() / max(values.numel(), 1)


class _Softened(NamedTuple):
    """A teacher's logits: ``tags`` (known pieces, tags), ``hazards`` (windows, hazards)."""

    tags: torch.Tensor
    hazards: torch.Tensor

    def distance(self, tags: torch.Tensor, hazards: torch.Tensor) -> torch.Tensor:
        """How far a student's logits are, softened alike; the square of the temperature keeps gradients to scale."""
        apart = functional.kl_div(
            (tags / _TEMPERATURE).log_softmax(-1),
            (self.tags / _TEMPERATURE).log_softmax(-1),
            reduction="sum",
            log_target=True,
        ) / max(len(tags), 1)
        flags = functional.binary_cross_entropy_with_logits(
            hazards / _TEMPERATURE, (self.hazards / _TEMPERATURE).sigmoid()
        )
        return _TEMPERATURE**2 * (apart + HAZARD_WEIGHT * flags)
