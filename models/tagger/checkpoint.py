"""What a training run needs to go on exactly where it was, in one file that is whole at any time."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

Point = dict[str, float]
"""One point of the curves: ``step``, ``seconds`` and figures."""


@dataclass
class Checkpoint:
    """The run after ``step`` batches and ``seconds`` of training; ``plan`` is what must not change on the way."""

    plan: dict[str, Any]
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    random: torch.Tensor
    step: int = 0
    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Replace the checkpoint at ``path``, on disk before the old one goes."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        torch.save({name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint at ``path``, if there is one."""
    if not path.exists():
        return None
    return Checkpoint(**torch.load(path, weights_only=True, map_location="cpu"))
