"""The messages of the Open Inference Protocol that we speak, by field numbers as in its ``.proto`` file.

They are built here instead of generated: generated modules fit some versions of protobuf only, and register names that
those of other packages (``tritonclient``, ``kserve``) register too. What we do not read - parameters - is left out, and
skipped by the decoder.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = [
    "SERVICE",
    "InferRequest",
    "InferResponse",
    "ModelReadyRequest",
    "ModelReadyResponse",
    "ServerReadyRequest",
    "ServerReadyResponse",
]

SERVICE = "inference.GRPCInferenceService"

_PACKAGE = "inference"
_TYPES = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _BOOL, _BYTES = _TYPES.TYPE_STRING, _TYPES.TYPE_INT64, _TYPES.TYPE_BOOL, _TYPES.TYPE_BYTES
_FLOAT, _DOUBLE = _TYPES.TYPE_FLOAT, _TYPES.TYPE_DOUBLE

# (number, name, type or name of a message, repeated)
_Fields = tuple[tuple[int, str, int | str, bool], ...]
_TENSOR: _Fields = (
    (1, "name", _STRING, False),
    (2, "datatype", _STRING, False),
    (3, "shape", _INT64, True),
    (5, "contents", "InferTensorContents", False),
)
_MODEL: _Fields = ((1, "model_name", _STRING, False),)
_MESSAGES: dict[str, _Fields] = {
    "ServerReadyRequest": (),
    "ServerReadyResponse": ((1, "ready", _BOOL, False),),
    "ModelReadyRequest": ((1, "name", _STRING, False),),
    "ModelReadyResponse": ((1, "ready", _BOOL, False),),
    "InferTensorContents": ((6, "fp32_contents", _FLOAT, True), (7, "fp64_contents", _DOUBLE, True)),
    "InferInputTensor": _TENSOR,
    "InferOutputTensor": _TENSOR,
    "InferRequestedOutputTensor": ((1, "name", _STRING, False),),
    "ModelInferRequest": (
        *_MODEL,
        (5, "inputs", "InferInputTensor", True),
        (6, "outputs", "InferRequestedOutputTensor", True),
        (7, "raw_input_contents", _BYTES, True),
    ),
    "ModelInferResponse": (
        *_MODEL,
        (5, "outputs", "InferOutputTensor", True),
        (6, "raw_output_contents", _BYTES, True),
    ),
}


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = _TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = _TYPES.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind  # type: ignore[assignment]  # a number is what it is
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def _class(name: str) -> Any:  # made at run time: its fields have no types
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


InferRequest = _class("ModelInferRequest")
InferResponse = _class("ModelInferResponse")
ModelReadyRequest = _class("ModelReadyRequest")
ModelReadyResponse = _class("ModelReadyResponse")
ServerReadyRequest = _class("ServerReadyRequest")
ServerReadyResponse = _class("ServerReadyResponse")
