"""MLServer serves a bundle's model: the runtime that ``model-settings.json`` beside it names. Needs onnxruntime.

Every request is judged as it came, by one thread: MLServer's own batching stays off (``max_batch_size``), since a
dynamic int8 model has other answers in a batch.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Bundle(MLModel):
    """``parameters.uri`` is the bundle's ``model.onnx``; ``parameters.extra.threads`` requests are judged at once."""

    async def load(self) -> bool:
        parameters = self.settings.parameters
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(parameters.uri, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._pool = ThreadPoolExecutor((parameters.extra or {}).get("threads", 1))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {
            each.name: np.array(getattr(each.data, "root", each.data), dtype=np.int64).reshape(each.shape)
            for each in payload.inputs
        }
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self._session.run, self._outputs, given)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self._outputs, found, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
