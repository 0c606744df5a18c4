"""The soak as a picture. Needs the extra `report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from chaos.soak import Sample

__all__ = ["plot"]


def plot(path: Path, samples: "Sequence[Sample]") -> None:
    """Memory, descriptors and tasks, and throughput, over minutes."""
    minutes = [sample.seconds / 60 for sample in samples]
    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        memory, counts, through = figure.subplots(3, 1, sharex=True)
        memory.plot(minutes, [sample.memory / 2**20 for sample in samples])
        memory.set_ylabel("MiB resident")
        memory.set_ylim(bottom=0)
        counts.plot(minutes, [sample.descriptors for sample in samples], label="descriptors")
        counts.plot(minutes, [sample.tasks for sample in samples], label="tasks")
        counts.plot(minutes, [sample.threads for sample in samples], label="threads")
        counts.set_ylim(bottom=0)
        counts.legend(loc="lower right")
        through.plot(minutes, [sample.characters for sample in samples])
        through.set_ylabel("characters in 10 s")
        through.set_ylim(bottom=0)
        through.set_xlabel("minutes")
        figure.savefig(path, dpi=120)
