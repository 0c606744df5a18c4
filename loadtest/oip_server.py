"""A server of the Open Inference Protocol with nothing around it: ``python -m loadtest.oip_server BUNDLE [PORT]``.

It speaks gRPC, and has the bundle's model on one thread. What it costs to ask it is what the protocol and the client
cost.
"""

import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnxruntime
import uvloop

from cotguard.classifier.bundle import load
from cotguard.classifier.remote import messages

__all__ = ["main"]


class _Service:
    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._pool = ThreadPoolExecutor(1)

    def _run(self, request: Any) -> Any:
        given = {
            tensor.name: np.frombuffer(raw, dtype="<i8").reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = messages.InferResponse(model_name=request.model_name)
        for name, array in zip(self._names, self._session.run(self._names, given), strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response

    async def infer(self, request: Any, _context: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, request)

    async def server_ready(self, _request: Any, _context: Any) -> Any:
        return messages.ServerReadyResponse(ready=True)

    async def model_ready(self, _request: Any, _context: Any) -> Any:
        return messages.ModelReadyResponse(ready=True)


async def _serve(bundle: str, port: str = "0") -> None:
    service = _Service(str(load(bundle).model))
    calls = {
        "ModelInfer": (service.infer, messages.InferRequest, messages.InferResponse),
        "ServerReady": (service.server_ready, messages.ServerReadyRequest, messages.ServerReadyResponse),
        "ModelReady": (service.model_ready, messages.ModelReadyRequest, messages.ModelReadyResponse),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(call, request.FromString, response.SerializeToString)
        for name, (call, request, response) in calls.items()
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(messages.SERVICE, methods),))
    listens = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(f"listens on http://127.0.0.1:{listens}\n")  # as other servers say it
    sys.stdout.flush()
    await stop.wait()
    await server.stop(0)


def main() -> int:
    """Serve until SIGTERM."""
    uvloop.run(_serve(*sys.argv[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
