"""Windows as a model's tensors, and its tensors as answers: the same for a model here and one elsewhere.

1. Windows of a batch are wrapped in special tokens and filled up to the longest.
2. What comes back is checked: an answer of another shape, or one that is no number, is a fault.
3. Logits become probabilities as the manifest says.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cotguard.classifier.bundle import Bundle
from cotguard.classifier.tokens import Integers

__all__ = ["INPUTS", "MAX_BATCH", "Answer", "Floats", "InferenceError", "Judge", "Model", "Tensors", "Window"]

Floats = NDArray[np.float32]

MAX_BATCH = 32
"""Windows judged together at most, where an answer does not depend on the others."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class InferenceError(RuntimeError):
    """The model failed or answered nonsense. The message holds no text."""


class Window(NamedTuple):
    """Pieces with their context, without special tokens: ``ids`` and ``types``, both (pieces,)."""

    ids: Integers
    types: Integers


class Answer(NamedTuple):
    """Probabilities: ``labels`` (pieces, labels), ``hazards`` (hazards,)."""

    labels: Floats
    hazards: Floats


class Model(Protocol):
    """What a classifier is made of. ``provider``: where it runs; ``batch``: how many windows are judged together."""

    bundle: Bundle
    provider: str
    batch: int

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        """Judge windows on the spot; answers in their order. Raises :class:`InferenceError`."""


class Judge(Protocol):
    """What answers the windows of all streams: up to ``lanes`` calls at the same time, ``batch`` windows in each."""

    batch: int
    lanes: int

    @property
    def ready(self) -> bool:
        """Whether it can answer, as far as it knows without being asked."""

    async def __call__(self, windows: Sequence[Window], until: float) -> list[Answer]:
        """Answers in order; after ``until``, on the monotonic clock, nobody waits for them."""

    async def close(self) -> None:
        """Stop what it has running."""


class Tensors:
    """Translates for the model of ``bundle``."""

    def __init__(self, bundle: Bundle) -> None:
        self._tokenizer = bundle.tokenizer
        manifest = self._manifest = bundle.manifest
        self._per_piece, self._per_window = manifest.outputs
        self.inputs = INPUTS if manifest.token_types != "none" else INPUTS[:2]  # noqa: S105  # not that kind of token
        """Names of the tensors that the manifest tells the model takes."""
        self.outputs = tuple(
            name
            for name, wanted in ((self._per_piece, manifest.labels), (self._per_window, manifest.hazards))
            if wanted
        )
        """Names of the tensors that are asked for."""

    def given(self, windows: Sequence[Window]) -> dict[str, Integers]:
        """What the model is given, by the names of :data:`INPUTS`; each (windows, longest)."""
        tokenizer = self._tokenizer
        longest = max(len(window.ids) for window in windows)
        ids = np.full((len(windows), longest + 2), tokenizer.pad_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, window in enumerate(windows):
            length = len(window.ids)
            ids[row, 0], ids[row, length + 1] = tokenizer.cls_id, tokenizer.sep_id
            ids[row, 1 : length + 1] = window.ids
            mask[row, : length + 2] = 1
            if self._manifest.token_types == "case":  # noqa: S105  # not that kind of token
                types[row, 1 : length + 1] = window.types
        return dict(zip(INPUTS, (ids, mask, types), strict=True))

    def answers(self, windows: Sequence[Window], found: Mapping[str, object]) -> list[Answer]:
        """What the model said of ``windows``, by the names of ``outputs``. Raises :class:`InferenceError`."""
        manifest, rows = self._manifest, len(windows)
        width = max(len(window.ids) for window in windows) + 2
        labels = np.zeros((rows, width, 0), dtype=np.float32)
        hazards = np.zeros((rows, 0), dtype=np.float32)
        if manifest.labels:
            labels = _checked(found.get(self._per_piece), (rows, width, len(manifest.labels)))
            if manifest.activation == "softmax":
                labels = _softmax(labels)
        if manifest.hazards:
            hazards = _checked(found.get(self._per_window), (rows, len(manifest.hazards)))
            if manifest.hazard_activation == "softmax":
                hazards = _softmax(hazards)
            elif manifest.hazard_activation == "sigmoid":
                hazards = np.asarray(1 / (1 + np.exp(-hazards)), dtype=np.float32)
        return [Answer(labels[row, 1 : len(window.ids) + 1], hazards[row]) for row, window in enumerate(windows)]


def _checked(found: object, shape: tuple[int, ...]) -> Floats:
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise InferenceError("the model's answer has another shape than its manifest says")
    if not np.isfinite(found).all():
        raise InferenceError("the model's answer is no number")
    return found.astype(np.float32, copy=False)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), dtype=np.float32)
