"""The model at work: windows in, probabilities out.

1. The execution provider is chosen by what ONNX Runtime offers here: TensorRT, CUDA, OpenVINO, CPU.
2. On the CPU windows are judged one by one, each by one thread: dynamic int8 takes the scale of activations from all of
   its input, so that an answer would depend on the other windows of a batch; and batches are no faster there.
   On a GPU windows of similar length go together.
3. What comes back is checked: an answer of another shape, or one that is no number, is a fault.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cotguard.classifier.bundle import Bundle, BundleError
from cotguard.classifier.tokens import Integers

__all__ = ["Answer", "Engine", "InferenceError", "Window"]

Floats = NDArray[np.float32]

_PREFERRED = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "OpenVINOExecutionProvider",
    "CPUExecutionProvider",
)
_CPU = _PREFERRED[-1]
_GPU_BATCH = 32
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


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


class Engine:
    """A loaded model. ``run`` may be called from several threads at once.

    Raises :class:`~cotguard.classifier.bundle.BundleError` for a model that does not fit its manifest.
    """

    def __init__(self, bundle: Bundle, providers: Sequence[str] | None = None) -> None:
        self.bundle = bundle
        offered = onnxruntime.get_available_providers()
        self.provider = next(name for name in providers or _PREFERRED if name in offered)
        self.batch = 1 if self.provider == _CPU else _GPU_BATCH
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A thread that spins while it waits takes its core from the proxy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        chosen = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        try:
            self._session = onnxruntime.InferenceSession(str(bundle.model), options, providers=chosen)
        except Exception as error:  # the library's own classes are not public
            raise BundleError(f"{bundle.model}: ONNX Runtime cannot load it ({type(error).__name__})") from error
        manifest = bundle.manifest
        self._per_piece, self._per_window = manifest.outputs
        offered_outputs = {output.name for output in self._session.get_outputs()}
        self._outputs = [
            name
            for name, wanted in ((self._per_piece, manifest.labels), (self._per_window, manifest.hazards))
            if wanted
        ]
        if missing := set(self._outputs) - offered_outputs:
            raise BundleError(f"{bundle.model}: has no output {min(missing)}; name the right ones under `outputs`")
        self._inputs = {each.name for each in self._session.get_inputs()}
        if not {"input_ids", "attention_mask"} <= self._inputs <= set(_INPUTS):
            raise BundleError(f"{bundle.model}: its inputs are not {', '.join(_INPUTS)}")

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        """Judge windows; answers in their order. Raises :class:`InferenceError`."""
        answers: list[Answer | None] = [None] * len(windows)
        order = sorted(range(len(windows)), key=lambda index: len(windows[index].ids))
        for at in range(0, len(order), self.batch):
            chosen = order[at : at + self.batch]
            for index, answer in zip(chosen, self._judge([windows[index] for index in chosen]), strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _judge(self, windows: Sequence[Window]) -> Iterator[Answer]:
        tokenizer, manifest = self.bundle.tokenizer, self.bundle.manifest
        longest = max(len(window.ids) for window in windows)
        ids = np.full((len(windows), longest + 2), tokenizer.pad_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, window in enumerate(windows):
            length = len(window.ids)
            ids[row, 0], ids[row, length + 1] = tokenizer.cls_id, tokenizer.sep_id
            ids[row, 1 : length + 1] = window.ids
            mask[row, : length + 2] = 1
            if manifest.token_types == "case":  # noqa: S105  # not that kind of token
                types[row, 1 : length + 1] = window.types
        given = {name: value for name, value in zip(_INPUTS, (ids, mask, types), strict=True) if name in self._inputs}
        try:
            found: dict[str, Any] = dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))
        except Exception as error:  # the library's own classes are not public, and their texts quote inputs
            raise InferenceError(f"the model failed: {type(error).__name__}") from None
        rows, none = len(windows), np.zeros((len(windows), 0), dtype=np.float32)
        labels = _checked(found[self._per_piece], (*ids.shape, len(manifest.labels))) if manifest.labels else None
        hazards = _checked(found[self._per_window], (rows, len(manifest.hazards))) if manifest.hazards else none
        if manifest.activation == "softmax" and labels is not None:
            labels = _softmax(labels)
        if manifest.hazard_activation == "softmax":
            hazards = _softmax(hazards)
        elif manifest.hazard_activation == "sigmoid":
            hazards = np.asarray(1 / (1 + np.exp(-hazards)), dtype=np.float32)
        for row, window in enumerate(windows):
            length = len(window.ids)
            piece = np.zeros((length, 0), dtype=np.float32) if labels is None else labels[row, 1 : length + 1]
            yield Answer(piece, hazards[row])


def _checked(found: object, shape: tuple[int, ...]) -> Floats:
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise InferenceError("the model's answer has another shape than its manifest says")
    if not np.isfinite(found).all():
        raise InferenceError("the model's answer is no number")
    return found.astype(np.float32, copy=False)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), dtype=np.float32)
