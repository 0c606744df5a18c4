"""The model as ONNX: probabilities in, int8 weights, and the check that it still says the same.

Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 (windows, pieces); outputs are ``labels``,
float32 (windows, pieces, tags), each piece's probabilities, and ``hazards``, float32 (windows, hazards).
"""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from cotguard.classifier.tokens import Integers, Tokenizer
from models.tagger.examples import Example
from models.tagger.judging import Answers, Geometry, Runner, judge
from models.tagger.model import Tagger

__all__ = ["INPUTS", "OUTPUTS", "OnnxRunner", "Parity", "export_onnx", "parity", "quantize"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("labels", "hazards")
_OPSET = 17


class _Probabilities(nn.Module):
    """A tagger that answers with probabilities."""

    def __init__(self, model: Tagger) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(ids, mask, types)
        return logits.tags.softmax(-1), logits.hazards.sigmoid()


def export_onnx(model: Tagger, path: Path) -> None:
    """Write ``model`` in float32, with free numbers of windows and pieces."""
    wrapped = _Probabilities(model).eval()
    if any(module.training for module in wrapped.modules()):
        raise RuntimeError("the model is in training mode")
    # Windows of unlike length: whatever depends on the example's numbers shows in the check below.
    ids = torch.randint(5, model.config.vocab_size, (2, 11))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 7:] = 0
    free = {0: "windows", 1: "pieces"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is old, and says so
        torch.onnx.export(
            wrapped,
            (ids, mask, types),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={**dict.fromkeys(INPUTS, free), "labels": free, "hazards": {0: "windows"}},
        )


def quantize(source: Path, target: Path) -> None:
    """Weights to int8: matrices per channel, with dynamic activations, and the embeddings."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        logging.getLogger().setLevel(logging.ERROR)
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    onnx.checker.check_model(str(target))


class OnnxRunner:
    """A session as the proxy has it: one window at a time, no spinning, and by default one thread."""

    windows = 1

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, ids: Integers, mask: Integers, types: Integers, /) -> Answers:
        return Answers(*self._session.run(list(OUTPUTS), dict(zip(INPUTS, (ids, mask, types), strict=True))))


class Parity(NamedTuple):
    """How far two forms of a model agree: share of pieces with the same best answer, greatest differences."""

    agree: float
    pieces: float
    hazards: float


def parity(
    first: Runner, second: Runner, tokenizer: Tokenizer, examples: Sequence[Example], geometry: Geometry
) -> Parity:
    """Compare entity probabilities on ``examples``."""
    same, count, apart, flags = 0, 0, 0.0, 0.0
    for one, other in zip(
        judge(first, tokenizer, examples, geometry), judge(second, tokenizer, examples, geometry), strict=True
    ):
        left, right = (np.column_stack((judged.outside, judged.entities)) for judged in (one, other))
        same += int((left.argmax(-1) == right.argmax(-1)).sum())
        count += len(left)
        apart = max(apart, float(np.abs(left - right).max(initial=0)))
        flags = max(flags, float(np.abs(one.hazards - other.hazards).max()))
    return Parity(same / max(count, 1), apart, flags)
