"""The model at work in this process: windows in, probabilities out.

1. The execution provider is the first that works here of TensorRT, CUDA, OpenVINO and CPU. ONNX Runtime offers what it
   was built for, whether its libraries are there or not; TensorRT it tries aloud, on standard output, where the line
   that says the gateway is ready belongs.
2. On the CPU windows are judged one by one, each by one thread: batches are no faster there. On a GPU windows of
   similar length go together, unless an answer would depend on the others of its batch
   (:attr:`~cotguard.classifier.bundle.Bundle.batches`).
"""

import os
from collections.abc import Sequence
from ctypes.util import find_library
from importlib.util import find_spec
from typing import Any

# ONNX Runtime tells its makers of its use unless it is told not to, before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from cotguard.classifier.bundle import Bundle, BundleError
from cotguard.classifier.tensors import INPUTS, MAX_BATCH, Answer, InferenceError, Tensors, Window

__all__ = ["Answer", "Engine", "InferenceError", "Window"]

_PREFERRED = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "OpenVINOExecutionProvider",
    "CPUExecutionProvider",
)
_TENSORRT, _CUDA = _PREFERRED[:2]
_CPU = _PREFERRED[-1]


class Engine:
    """A loaded model. ``run`` may be called from several threads at once.

    Raises :class:`~cotguard.classifier.bundle.BundleError` for a model that does not fit its manifest.
    """

    def __init__(self, bundle: Bundle, providers: Sequence[str] | None = None) -> None:
        self.bundle = bundle
        offered = onnxruntime.get_available_providers()
        chosen = [
            name for name in providers or _PREFERRED if name in offered and (name != _TENSORRT or _has_tensorrt())
        ]
        if _CUDA in chosen:
            onnxruntime.preload_dlls()  # those that pip has installed, which the system's loader does not find
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A thread that spins while it waits takes its core from the proxy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(bundle.model), options, providers=chosen)
        except Exception as error:  # the library's own classes are not public
            raise BundleError(f"{bundle.model}: ONNX Runtime cannot load it ({type(error).__name__})") from error
        self.provider: str = self._session.get_providers()[0]
        self.batch = 1 if self.provider == _CPU or not bundle.batches else MAX_BATCH
        self._tensors = Tensors(bundle)
        offered_outputs = {output.name for output in self._session.get_outputs()}
        if missing := set(self._tensors.outputs) - offered_outputs:
            raise BundleError(f"{bundle.model}: has no output {min(missing)}; name the right ones under `outputs`")
        self.inputs = {each.name for each in self._session.get_inputs()}
        if not {"input_ids", "attention_mask"} <= self.inputs <= set(INPUTS):
            raise BundleError(f"{bundle.model}: its inputs are not {', '.join(INPUTS)}")

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        """Judge windows; answers in their order. Raises :class:`InferenceError`."""
        answers: list[Answer | None] = [None] * len(windows)
        order = sorted(range(len(windows)), key=lambda index: len(windows[index].ids))
        for at in range(0, len(order), self.batch):
            chosen = order[at : at + self.batch]
            for index, answer in zip(chosen, self._judge([windows[index] for index in chosen]), strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _judge(self, windows: Sequence[Window]) -> list[Answer]:
        outputs = self._tensors.outputs
        given = {name: value for name, value in self._tensors.given(windows).items() if name in self.inputs}
        try:
            found: dict[str, Any] = dict(zip(outputs, self._session.run(outputs, given), strict=True))
        except Exception as error:  # the library's own classes are not public, and their texts quote inputs
            raise InferenceError(f"the model failed: {type(error).__name__}") from None
        return self._tensors.answers(windows, found)


def _has_tensorrt() -> bool:
    """Whether TensorRT's libraries are installed, by the system or by pip."""
    return find_library("nvinfer") is not None or find_spec("tensorrt_libs") is not None
