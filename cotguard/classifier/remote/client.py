"""What a client of one replica does, whichever transport it uses."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cotguard.classifier.tensors import InferenceError
from cotguard.classifier.tokens import Integers

__all__ = ["MAX_ANSWER_BYTES", "Client", "Fault", "ReplicaError", "tensor"]

Fault = Literal["unavailable", "timeout", "refused", "invalid"]
"""Nobody there or not able; no answer in time; the request is not accepted; the answer is none."""

MAX_ANSWER_BYTES = 64 * 2**20

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


class ReplicaError(InferenceError):
    """A replica did not answer as it should. The message holds nothing that it said."""

    def __init__(self, kind: Fault, message: str) -> None:
        super().__init__(message)
        self.kind: Fault = kind


class Client(Protocol):
    """A connection to one replica, made in the running loop. Calls raise :class:`ReplicaError`."""

    async def ready(self, seconds: float) -> bool:
        """Whether server and model say that they are ready."""

    async def infer(self, given: Mapping[str, Integers], seconds: float) -> dict[str, object]:
        """The outputs, as arrays by name, for the inputs by name."""

    async def close(self) -> None:
        """Close the connection."""


def tensor(kind: object, shape: Any, data: object) -> NDArray[np.floating]:
    """An output from its parts on the wire: ``data`` are bytes, or numbers in any nesting."""
    dtype = _FLOATS.get(str(kind))
    if dtype is None:
        raise ReplicaError("invalid", "the model's answer is of another type than floating point")
    try:
        if isinstance(data, bytes):
            array = np.frombuffer(data, dtype=dtype)
        else:
            array = np.asarray(data, dtype=dtype).reshape(-1)
        return array.reshape(tuple(shape))
    except (TypeError, ValueError, OverflowError):
        raise ReplicaError("invalid", "the model's answer does not have the shape it says") from None
