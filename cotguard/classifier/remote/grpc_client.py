"""A replica over gRPC. Importing this needs the extra ``remote``."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when it is imported; what it logs of itself comes past our log

import grpc
import grpc.aio

from cotguard.classifier.remote import messages
from cotguard.classifier.remote.address import Address, Tls
from cotguard.classifier.remote.client import MAX_ANSWER_BYTES, Fault, ReplicaError, tensor
from cotguard.classifier.tokens import Integers

__all__ = ["GrpcClient"]

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # that is done with the other replicas
    ("grpc.lb_policy_name", "round_robin"),  # a name may stand for several machines
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
_KINDS: dict[grpc.StatusCode, Fault] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.INVALID_ARGUMENT: "refused",
    grpc.StatusCode.NOT_FOUND: "refused",
    grpc.StatusCode.UNIMPLEMENTED: "refused",
    grpc.StatusCode.PERMISSION_DENIED: "refused",
    grpc.StatusCode.UNAUTHENTICATED: "refused",
}


class GrpcClient:
    """A :class:`~cotguard.classifier.remote.client.Client`."""

    def __init__(self, address: Address, model: str, outputs: Sequence[str], tls: Tls) -> None:
        self._model, self._outputs = model, outputs
        if address.secure:
            ca, key, certificate = tls.contents()
            credentials = grpc.ssl_channel_credentials(ca, key, certificate)
            self._channel = grpc.aio.secure_channel(address.host, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(address.host, options=_OPTIONS)
        self._infer = self._call("ModelInfer", messages.InferRequest, messages.InferResponse)
        self._server_ready = self._call("ServerReady", messages.ServerReadyRequest, messages.ServerReadyResponse)
        self._model_ready = self._call("ModelReady", messages.ModelReadyRequest, messages.ModelReadyResponse)

    def _call(self, name: str, request: Any, response: Any) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        return self._channel.unary_unary(
            f"/{messages.SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    async def ready(self, seconds: float) -> bool:
        server = await _answer(self._server_ready(messages.ServerReadyRequest(), timeout=seconds))
        model = await _answer(self._model_ready(messages.ModelReadyRequest(name=self._model), timeout=seconds))
        return bool(server.ready and model.ready)

    async def infer(self, given: Mapping[str, Integers], seconds: float) -> dict[str, object]:
        request = messages.InferRequest(model_name=self._model)
        for name, array in given.items():
            request.inputs.add(name=name, datatype="INT64", shape=array.shape)
            request.raw_input_contents.append(array.astype("<i8", copy=False).tobytes())
        for name in self._outputs:
            request.outputs.add(name=name)
        response = await _answer(self._infer(request, timeout=seconds))
        raw = response.raw_output_contents
        if raw and len(raw) != len(response.outputs):
            raise ReplicaError("invalid", "the model's answer has outputs without contents")
        found: dict[str, object] = {}
        for index, output in enumerate(response.outputs):
            if output.name in self._outputs:  # others are not read: they may be of any type
                contents = output.contents
                data = raw[index] if raw else contents.fp32_contents or contents.fp64_contents
                found[output.name] = tensor(output.datatype, output.shape, data)
        return found

    async def close(self) -> None:
        await self._channel.close()


async def _answer(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> Any:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:  # its details may quote inputs
        code = error.code()
        raise ReplicaError(_KINDS.get(code, "unavailable"), f"gRPC status {code.name}") from None
    if answer is None:  # so the library tells what cannot be decoded
        raise ReplicaError("invalid", "the model's answer is no message of the protocol")
    return answer
