"""Real Triton with a bundle's model: run by the tests in an environment of its own (numpy below 2, nvidia-pytriton).

``pytriton_server.py MODEL.ONNX NAME GRPC_PORT HTTP_PORT``. Its Triton has no backend for ONNX: the model runs in this
process, called by Triton's Python backend.
"""

import sys

import numpy as np
import onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main() -> None:
    path, name, grpc, http = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    given = session.get_inputs()

    def run(requests: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        answers = [session.run(outputs, {each.name: request[each.name] for each in given}) for request in requests]
        return [dict(zip(outputs, answer, strict=True)) for answer in answers]

    def sizes(shape: list[int | str]) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in shape[1:])

    config = TritonConfig(http_port=int(http), grpc_port=int(grpc), allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name=name,
            infer_func=run,
            inputs=[Tensor(name=each.name, dtype=np.int64, shape=(-1,)) for each in given],
            outputs=[
                Tensor(name=each.name, dtype=np.float32, shape=sizes(each.shape)) for each in session.get_outputs()
            ],
            config=ModelConfig(max_batch_size=1, batching=True),
        )
        triton.serve()


main()
