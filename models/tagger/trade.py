"""What bundles give and what they cost, as a table and a plot."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

from models.tagger.bundle import read_manifest
from models.tagger.onnx import OnnxRunner

__all__ = ["Point", "measure", "write_trade_off"]

_ROUNDS = 60
_FIRST_WORD = 2000
"""Ids below are special, or single characters."""


class Point(NamedTuple):
    """A bundle: pieces judged in a second of one core, megabytes, and its development figures."""

    name: str
    layers: int
    speed: float
    megabytes: float
    figures: Mapping[str, Any]


def measure(bundles: Sequence[Path]) -> list[Point]:
    """Time full windows on one thread, the bundles in turns; only the judged pieces of a window count."""
    manifests = [read_manifest(bundle) for bundle in bundles]
    runners = [OnnxRunner(bundle / "model.onnx") for bundle in bundles]
    times: list[list[float]] = [[] for _ in bundles]
    draw = np.random.default_rng(0)
    for turn in range(_ROUNDS + 1):
        for manifest, runner, taken in zip(manifests, runners, times, strict=True):
            pieces = sum(manifest["window"].values()) + 2
            ids = draw.integers(_FIRST_WORD, 2 * _FIRST_WORD, (1, pieces), dtype=np.int64)
            begun = time.perf_counter()
            runner(ids, np.ones_like(ids), np.zeros_like(ids))
            if turn:  # the first one warms up
                taken.append(time.perf_counter() - begun)
    return [
        Point(
            manifest["name"],
            manifest["training"]["layers"],
            manifest["window"]["core"] / median(taken),
            manifest["training"]["bytes"] / 1e6,
            manifest["training"]["figures"],
        )
        for manifest, taken in zip(manifests, times, strict=True)
    ]


def write_trade_off(points: Sequence[Point], folder: Path) -> None:
    """Write ``trade-off.md`` and ``trade-off.png``."""
    lines = [
        "# Quality against speed",
        "",
        "Development figures of the int8 models through streaming windows, without patterns; word pieces a second are",
        "those of ONNX Runtime alone, one thread, one window at a time, counting judged pieces only.",
        "",
        "| bundle | layers | pieces/s | MB | masking recall | over-masking | score | benign altered | code altered |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        found, altered = point.figures["masking"], point.figures["altered"]
        lines.append(
            f"| {point.name} | {point.layers} | {point.speed:,.0f} | {point.megabytes:.1f} | {found['recall']:.4f} "
            f"| {found['over']:.4f} | {found['score']:.4f} | {altered['benign']:.2%} | {altered['code']:.2%} |"
        )
    lines += ["", "![Score against speed](trade-off.png)", ""]
    (folder / "trade-off.md").write_text("\n".join(lines), encoding="utf-8")
    _plot(points, folder / "trade-off.png")


def _plot(points: Sequence[Point], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # only now: the backend is chosen above

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot([point.speed for point in points], [point.figures["masking"]["score"] for point in points], "o-")
    for point in points:
        axes.annotate(
            f"{point.layers} layers",
            (point.speed, point.figures["masking"]["score"]),
            textcoords="offset points",
            xytext=(6, 6),
        )
    axes.set_xlabel("judged word pieces per second, one thread")
    axes.set_ylabel("recall minus over-masking, development set")
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
