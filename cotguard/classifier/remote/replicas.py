"""The judge that asks replicas.

1. A batch goes to the replica with the least under way. One that fails is out at once, and the batch goes to another;
   so that there is time for it, an attempt has its share of what is left of the deadline.
2. A replica is in once server and model say that they are ready *and* the bundle's self-test finds what it must: a
   server that has another model under this name is never asked about a stream. One that is out is looked at again
   at once and then every ``_PAUSE`` seconds; one that is in, too.
3. While none is in, batches wait until one is, or for their deadline: then what asked fails, closed.

``batch`` is 1 for a model whose answers depend on what else is in a batch: then many requests are under way, each with
one window. Otherwise few are, so that windows gather in batches as the load grows; those of a request are of the same
length, for padding could change an answer by its rounding.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from cotguard.classifier.detector import Classifier
from cotguard.classifier.handover import handed_over
from cotguard.classifier.remote.address import Address, Served, Tls
from cotguard.classifier.remote.client import Client, ReplicaError
from cotguard.classifier.remote.http_client import HttpClient
from cotguard.classifier.tensors import Answer, InferenceError, Tensors, Window
from cotguard.classifier.verify import missing
from cotguard.telemetry.metrics import Metrics

__all__ = ["Replicas"]

_LOG = logging.getLogger("cotguard.classifier")

_LANES_OF_BATCHES = 4
_LANES_OF_WINDOWS = 32
"""Requests under way per replica."""
_ATTEMPTS = 3
_PAUSE = 2.0
_PROBE_SECONDS = 2.0


class _Replica:
    """One of the replicas; ``changed`` is called when it came in or went out."""

    def __init__(
        self, address: Address, client: Client, classifier: Classifier, metrics: Metrics, changed: Callable[[], None]
    ) -> None:
        self.name = str(address)
        self.up = False
        self.under_way = 0
        self.asked = 0  # number of the last call: of equals, the one that has waited longest is next
        self._client = client
        self._classifier = classifier
        self._tensors = Tensors(classifier.engine.bundle)
        self._metrics = metrics
        self._changed = changed
        self._failed = asyncio.Event()
        self._answered = 0.0  # when, on the monotonic clock
        metrics.classifier_replica.labels(self.name).set(0)

    async def judge(self, windows: Sequence[Window], seconds: float) -> list[Answer]:
        """Answers, from a replica that is in. Raises :class:`ReplicaError`, and is out then."""
        self.under_way += 1
        try:
            answers = await self._ask(windows, seconds)
        except ReplicaError as error:
            self._metrics.classifier_attempts.labels(self.name, error.kind).inc()
            self._failed.set()
            self._turn(str(error))
            raise
        else:
            self._answered = time.monotonic()
            return answers
        finally:
            self.under_way -= 1

    async def _ask(self, windows: Sequence[Window], seconds: float) -> list[Answer]:
        given = self._tensors.given(windows)
        try:
            found = await self._client.infer({name: given[name] for name in self._tensors.inputs}, seconds)
            return self._tensors.answers(windows, found)
        except ReplicaError:
            raise
        except InferenceError as error:
            raise ReplicaError("invalid", str(error)) from None
        except Exception as error:  # whatever it is, another replica may answer
            raise ReplicaError("unavailable", type(error).__name__) from None

    async def watch(self) -> None:
        """Take it in and out, as it is, for ever."""
        while True:
            self._failed.clear()
            reason = await self._look()
            if not self._failed.is_set():  # else it failed meanwhile, and is looked at again
                self._turn(reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._failed.wait()

    async def _look(self) -> str:
        """Why it is out; empty if it is in."""
        began = time.monotonic()
        try:
            if not await self._client.ready(_PROBE_SECONDS):
                return "server or model is not ready"
            if self.up:
                return ""
            lacking = await handed_over(partial(missing, self._classifier), {self._classifier.name: self._one_by_one})
        except Exception as error:  # whatever it is, nobody else would see it
            if self.up and self._answered > began:
                return ""  # it has too much to do to say so
            return str(error) if isinstance(error, InferenceError) else type(error).__name__
        return f"its model does not find {', '.join(lacking)}: serve the bundle's model" if lacking else ""

    async def _one_by_one(self, windows: Sequence[Window]) -> list[Answer]:
        return [answer for window in windows for answer in await self._ask([window], _PROBE_SECONDS)]

    def _turn(self, reason: str) -> None:
        up = not reason
        if up != self.up:
            self.up = up
            self._metrics.classifier_replica.labels(self.name).set(up)
            if up:
                _LOG.info("replica in", extra={"replica": self.name})
            else:
                _LOG.warning("replica out", extra={"replica": self.name, "reason": reason})
            self._changed()

    async def close(self) -> None:
        await self._client.close()


class Replicas:
    """A :class:`~cotguard.classifier.tensors.Judge`. Made in the event loop in which it is used."""

    def __init__(self, classifier: Classifier, served: Served, metrics: Metrics) -> None:
        bundle = classifier.engine.bundle
        model, outputs = served.model or bundle.manifest.name, Tensors(bundle).outputs
        self.batch = classifier.engine.batch
        self._replicas = [
            _Replica(address, _client(address, model, outputs, served.tls), classifier, metrics, self._changed)
            for address in served.replicas
        ]
        self.lanes = len(self._replicas) * (_LANES_OF_BATCHES if self.batch > 1 else _LANES_OF_WINDOWS)
        self._numbers = count(1)
        self._some = asyncio.Event()  # is in
        self._watches = [asyncio.create_task(replica.watch()) for replica in self._replicas]

    @property
    def ready(self) -> bool:
        return self._some.is_set()

    def _changed(self) -> None:
        if any(replica.up for replica in self._replicas):
            self._some.set()
        else:
            self._some.clear()

    async def __call__(self, windows: Sequence[Window], until: float) -> list[Answer]:
        alike: dict[int, list[int]] = {}
        for index, window in enumerate(windows):
            alike.setdefault(len(window.ids), []).append(index)
        if len(alike) == 1:
            return await self._judge(windows, until)
        answers = list[Answer | None]([None]) * len(windows)
        found = await asyncio.gather(
            *(self._judge([windows[index] for index in group], until) for group in alike.values())
        )
        for group, judged in zip(alike.values(), found, strict=True):
            for index, answer in zip(group, judged, strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    async def _judge(self, windows: Sequence[Window], until: float) -> list[Answer]:
        tried: set[_Replica] = set()
        for attempt in range(1, _ATTEMPTS + 1):
            async with asyncio.timeout(until - time.monotonic()):
                await self._some.wait()
            fresh = [replica for replica in self._replicas if replica.up and replica not in tried]
            chosen = min(
                fresh or (replica for replica in self._replicas if replica.up),
                key=lambda replica: (replica.under_way, replica.asked),
            )
            chosen.asked = next(self._numbers)
            tried.add(chosen)
            left = until - time.monotonic()
            try:
                return await chosen.judge(windows, left / max(len(fresh), 1))
            except ReplicaError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def close(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for replica in self._replicas:
            await replica.close()


def _client(address: Address, model: str, outputs: Sequence[str], tls: Tls) -> Client:
    if address.scheme.startswith("grpc"):
        from cotguard.classifier.remote.grpc_client import GrpcClient  # an extra, which others need not have

        return GrpcClient(address, model, outputs, tls)
    return HttpClient(address, model, outputs, tls)
