"""What the classifier is made of when its model is elsewhere."""

from collections.abc import Sequence

from cotguard.classifier.bundle import Bundle
from cotguard.classifier.remote.address import Served
from cotguard.classifier.tensors import MAX_BATCH, Answer, InferenceError, Window

__all__ = ["RemoteModel"]


class RemoteModel:
    """A :class:`~cotguard.classifier.tensors.Model` that is awaited: ``Replicas`` judges its windows."""

    def __init__(self, bundle: Bundle, served: Served) -> None:
        self.bundle = bundle
        self.batch = MAX_BATCH if bundle.batches else 1
        self.provider = ",".join(map(str, served.replicas))

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        raise InferenceError("the model is elsewhere: it answers only where it can be awaited")
